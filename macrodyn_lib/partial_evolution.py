"""Partial evolution: move one patch for a short time, the rest of the lattice frozen around it.

Source: paper Sec. II.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
from tqdm.auto import tqdm

from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.records import IncrementMoments, PatchPairs, Snapshots
from macrodyn_lib.systems.base import (
    MicroscopicSystem,
    check_integer,
    check_number,
    evolve_one_patch,
)

# Snapshots per task: many enough that each patch index has some rows, few enough to spread.
ROWS = 2048
BLOCK = 8192  # snapshots whose pairs are held at once when they are merged
# A learned closure acts on one patch, (B, *patch) -> (B, d_hat); a lattice has the patches' mean.
Closure = Callable[[np.ndarray], np.ndarray]


def latent_states(
    system: MicroscopicSystem,
    states: np.ndarray,
    patching: Patching,
    closure: Closure | None = None,
) -> np.ndarray:
    """z = (phi*(x), phi_hat(x)), phi_hat(x) = (1/K) sum_I closure(x_I).

    Returns: (B, *lattice) -> (B, d), the closures after the observables.
    Source: paper Eq. 1.
    """
    observables, closures = _observables_and_closures(system, states, patching, closure)
    return _joined(observables, closures.mean(axis=1))


def _observables_and_closures(
    system: MicroscopicSystem,
    states: np.ndarray,
    patching: Patching,
    closure: Closure | None,
) -> tuple[np.ndarray, np.ndarray]:
    """phi* of each state, (B, d*), and the closures of each of its patches, (B, K, d_hat)."""
    observables = system.observables(states)
    if closure is None:
        return observables, np.empty((len(states), 1, 0))
    patches = patching.split(states, system.lattice_shape)
    values = closure(patches.reshape(-1, *patches.shape[2:]))
    return observables, values.reshape(*patches.shape[:2], -1)


def _joined(observables: np.ndarray, closures: np.ndarray) -> np.ndarray:
    return np.concatenate([observables, closures], axis=1)


class DifferentiableClosure(Protocol):
    """A closure that knows its derivatives, as rate increments need."""

    def __call__(self, patches: np.ndarray) -> np.ndarray: ...

    def derivatives(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (B, *patch, d_hat) and Laplacian (d_hat,) with respect to the patch's state."""


def rate_increments(
    system: MicroscopicSystem,
    snapshots: Snapshots,
    *,
    patching: Patching | None = None,
    closure: DifferentiableClosure | None = None,
    description: str | None = None,
) -> IncrementMoments:
    """The limit dt -> 0 of partial evolution of every patch, computed from the rates.

    Means are b(x) = sum_i r_i [phi*(x^i) - phi*(x)], scatters S(x) = sum_i r_i [..][..]': no noise
    of sampling, no boundary error, no noise scale (n_patches = 1). What is lost is memory: a lag.

    With a closure (and its patching), for systems of continuous fields x += h f + s sqrt(h) xi:
    b = [phi(x + h f) - phi(x)] / h + (s^2 / 2) Lap phi,  S = s^2 grad phi grad phi' at x + h f,
    which for quadratic phi is the exact mean (and to order s^4 h the covariance) of one step h.
    Without that h the closures of rollouts with step h would lack a drift of h f' phi'' f / 2.

    Raises: ValueError: the system does not know its rates (with a closure: those of its fields).
    """

    def run(
        rows: slice, _generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        states = snapshots.states[rows]
        if closure is None:
            return system.observables(states), *system.rate_moments(states)
        assert patching is not None
        latents = latent_states(system, states, patching, closure)
        return latents, *_closure_rates(system, states, patching, closure)

    unused = np.random.default_rng(0)
    parts = map_chunks(run, len(snapshots), unused, chunk=ROWS, description=description)
    latents, means, scatters = (np.concatenate(column) for column in zip(*parts, strict=True))
    ones = np.ones(len(latents))
    return IncrementMoments(
        latents=latents,
        means=means,
        scatters=scatters,
        durations=ones,
        counts=ones,
        n_patches=1,
        scatter_is_noise=True,
        groups=snapshots.groups,
    )


def _closure_rates(
    system: MicroscopicSystem,
    states: np.ndarray,
    patching: Patching,
    closure: DifferentiableClosure,
) -> tuple[np.ndarray, np.ndarray]:
    """Drift (B, d) and covariance rate (B, d, d) of the observables and closures of each state."""
    drifts, variance, step = system.field_rates(states)
    drift, covariance = system.rate_moments(states)
    before, after = (
        patching.split(x, system.lattice_shape) for x in (states, states + step * drifts)
    )
    shape = before.shape
    before, after = before.reshape(-1, *shape[2:]), after.reshape(-1, *shape[2:])
    change = (closure(after) - closure(before)).reshape(*shape[:2], -1).mean(axis=1)
    gradient, laplacian = closure.derivatives(after)
    parts = gradient.reshape(*shape, -1) / shape[1]  # the mean over K patches
    full = patching.assemble(parts, system.lattice_shape)  # (B, *state, d_hat)
    flat = full.reshape(len(states), -1, full.shape[-1])
    own = variance * np.einsum("bic,bid->bcd", flat, flat)
    # the gradient of an observable is 1/n on the n sites of its field: the sum of products with it
    # is a mean over the sites, which is what the observable takes
    columns = [system.observables(full[..., c]) for c in range(full.shape[-1])]
    mixed = variance * np.stack(columns, axis=2)  # (B, d*, d_hat)
    upper = np.concatenate([covariance, mixed], axis=2)
    lower = np.concatenate([mixed.transpose(0, 2, 1), own], axis=2)
    drift = np.column_stack([drift, change / step + variance / 2 * laplacian])
    return drift, np.concatenate([upper, lower], axis=1)


def averaged_increments(
    system: MicroscopicSystem,
    snapshots: Snapshots,
    patching: Patching,
    *,
    duration: float,
    continuations: int,
    closure: Closure | None = None,
    rng: np.random.Generator,
    description: str | None = None,
) -> tuple[IncrementMoments, IncrementMoments]:
    """Every patch of every snapshot continued many times, merged snapshot by snapshot.

    What noise of sampling is left falls as 1 / continuations; that of the snapshots stays. The
    likelihood sees of the pairs no more than these moments (the scatter is that within a patch).

    Args:    continuations: of each patch, an even number (they are made as twins).
    Returns: the moments for the method (K = n_patches), and for the baseline (the evolved patch
             taken for the whole, K = 1; one of each pair of twins).
    Raises:  ValueError: an odd number, or as ``evolve_patches``.
    """
    check_integer("continuations", continuations, at_least=2)
    if continuations % 2:
        raise ValueError(f"continuations = {continuations}: must be even")
    n_patches = len(patching.patches(system.lattice_shape, periodic=system.periodic))
    rounds = continuations // 2

    def merged(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        sums: list[np.ndarray] = []
        for _ in range(rounds):
            pairs = evolve_patches(
                system, snapshots.select(rows), patching, duration=duration, twins=True,
                patches_per_snapshot=n_patches, closure=closure, rng=rng,
            )  # fmt: skip
            assert pairs.twin_increments is not None  # twins=True
            increments, twins, moved = (
                values.reshape(len(rows), n_patches, -1)
                for values in (
                    pairs.increments,
                    pairs.twin_increments,
                    pairs.patch_observables - pairs.observables,
                )
            )
            terms = (
                (increments + twins).mean(axis=1) / 2,
                _mean_square(increments - twins) / 2,
                moved.mean(axis=1),
                _mean_square(moved),
            )
            sums = [old + new for old, new in zip(sums, terms, strict=True)] if sums else [*terms]
        mean, scatter, naive_mean, naive_square = (total / rounds for total in sums)
        naive_scatter = naive_square - naive_mean[:, :, None] * naive_mean[:, None, :]
        return pairs.observables[::n_patches], mean, scatter, naive_mean, naive_scatter

    blocks = [np.arange(a, min(a + BLOCK, len(snapshots))) for a in range(0, len(snapshots), BLOCK)]
    progress = tqdm(blocks, desc=description, disable=None if description else True)
    parts = [merged(rows) for rows in progress]
    latents, *moments = (np.concatenate(column) for column in zip(*parts, strict=True))

    def record(
        means: np.ndarray, scatters: np.ndarray, scale: int, twins: bool
    ) -> IncrementMoments:
        return IncrementMoments(
            latents=latents,
            means=means,
            scatters=scatters,
            durations=np.full(len(snapshots), float(duration)),
            counts=np.ones(len(snapshots)),
            n_patches=scale,
            scatter_is_noise=twins,
            groups=snapshots.groups,
        )

    ours = record(moments[0], moments[1], n_patches, twins=True)
    return ours, record(moments[2], moments[3], 1, twins=False)


def _mean_square(values: np.ndarray) -> np.ndarray:
    """Mean over patches of v v': (B, K, d) -> (B, d, d)."""
    return np.einsum("bki,bkj->bij", values, values) / values.shape[1]


def integrated_increments(
    system: MicroscopicSystem,
    snapshots: Snapshots,
    patching: Patching,
    *,
    duration: float,
    continuations: int,
    rng: np.random.Generator,
    description: str | None = None,
) -> IncrementMoments:
    """Increments of every patch, freed of the noise that the rates along their paths explain.

        m = Delta z_I - int_0^dt b_I(x_s) ds,   E[m | x] = 0,   b_I: K times the drift by I's flips

    (Dynkin). Delta z_I - C m has the mean of Delta z_I, memory and all, for any matrix C; with
    C = E[Delta z_I m'] E[m m']^-1 over all pairs (a control variate) it has the least noise: for
    short dt almost none of K Sigma dt. The scatter is the whole second moment of Delta z_I, less
    the square of the mean: one patch moving among frozen ones is a reversible step, whose drift
    belongs to this covariance if the stationary law is to be right (docs/method.md).

    Args:    continuations: of each patch.
    Raises:  ValueError: boundary not "ghost"; the system does not know its rates.
    """
    check_number("duration", duration, above=0)
    check_integer("continuations", continuations)
    if patching.boundary != "ghost":
        raise ValueError(
            f"boundary = {patching.boundary!r}: increments = 'integrated' needs 'ghost', whose "
            "flips are those of the lattice"
        )
    patches = patching.patches(system.lattice_shape, periodic=system.periodic)

    def run(rows: slice, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        states = snapshots.states[rows]
        increments, unexplained = [], []
        for patch in patches:
            frame = _Frame.of(system, patch, patching)
            source = frame.extract(states)
            for _ in range(continuations):
                evolved, expected = frame.system.evolve_patch_and_expect(
                    source, frame.patch, duration, generator
                )
                increments.append(frame.change(source, evolved, len(patches)))
                unexplained.append(increments[-1] - len(patches) * frame.share * expected)
        z, m = np.stack(increments, axis=1), np.stack(unexplained, axis=1)
        pooled = (np.einsum("bki,bkj->ij", z, m)[None], np.einsum("bki,bkj->ij", m, m)[None])
        return z.mean(axis=1), m.mean(axis=1), _mean_square(z), *pooled

    parts = map_chunks(run, len(snapshots), rng, chunk=ROWS, description=description)
    means, noise, squares, cross, square = (np.concatenate(c) for c in zip(*parts, strict=True))
    means = means - noise @ np.linalg.lstsq(square.sum(axis=0), cross.sum(axis=0).T)[0]
    return IncrementMoments(
        latents=system.observables(snapshots.states),
        means=means,
        scatters=squares - means[:, :, None] * means[:, None, :],
        durations=np.full(len(snapshots), float(duration)),
        counts=np.ones(len(snapshots)),
        n_patches=len(patches),
        scatter_is_noise=True,
        groups=snapshots.groups,
    )


def evolve_patches(
    system: MicroscopicSystem,
    snapshots: Snapshots,
    patching: Patching,
    *,
    duration: float | None = None,
    events: int | None = None,
    patches_per_snapshot: int = 1,
    twins: bool = False,
    closure: Closure | None = None,
    rng: np.random.Generator,
    description: str | None = None,
) -> PatchPairs:
    """Evolve randomly chosen patches of every snapshot and record what it does to phi*.

    The increment of patch I is  Delta z_I = K [phi*(x with I evolved) - phi*(x)],
    of mean mu dt and covariance K Sigma dt; for means over sites it is the change of the patch's
    own mean (paper Eq. 3, 10).

    Args:
        duration: physical time, the same for all; or ``events``: flips per patch (the published
            protocol; needs boundary "ghost" or "periodic"), after which the time is random.
        patches_per_snapshot: distinct patches of one snapshot, each evolved from it by itself.
        twins: continue each patch twice, independently; half the mean squared difference is the
            covariance without the spread of the drift between patches.
        closure: learned closures of a patch, appended to the observables; their increment is
            closure(x'_I) - closure(x_I).
    Raises:  ValueError: not exactly one of duration and events; the patch does not divide it.
    """
    if (duration is None) == (events is None):
        raise ValueError(f"duration = {duration}, events = {events}: give exactly one of them")
    if events is not None and patching.boundary == "buffer":
        raise ValueError("boundary = 'buffer': events of the rim would count; give duration")
    if duration is not None:
        check_number("duration", duration, above=0)
    if snapshots.states.shape[1:] != system.state_shape:
        raise ValueError(
            f"snapshots have lattice {snapshots.states.shape[1:]}: must be {system.state_shape}"
        )
    patches = patching.patches(system.lattice_shape, periodic=system.periodic)
    if sum(patch.n_sites for patch in patches) != math.prod(system.lattice_shape):
        raise ValueError(f"stride = {patching.stride}: must be None, K patches that do not overlap")
    check_integer("patches_per_snapshot", patches_per_snapshot)
    if patches_per_snapshot > len(patches):
        raise ValueError(
            f"patches_per_snapshot = {patches_per_snapshot}: must be <= {len(patches)}, K"
        )
    continuations = 2 if twins else 1

    def move(
        frame: _Frame, states: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if events is not None:
            return frame.system.evolve_patch_events(states, frame.patch, events, rng)
        assert duration is not None
        evolved = evolve_one_patch(frame.system, states, frame.patch, patching, duration, rng)
        return evolved, np.full(len(states), duration)

    def run(rows: slice, generator: np.random.Generator) -> dict[str, np.ndarray]:
        states = snapshots.states[rows]
        observables, closures = _observables_and_closures(system, states, patching, closure)
        before = _joined(observables, closures.mean(axis=1))
        order = generator.permuted(np.tile(np.arange(len(patches)), (len(states), 1)), axis=1)
        chosen = order[:, :patches_per_snapshot]
        shape = (*chosen.shape, before.shape[1])
        increments = np.empty((continuations, *shape))
        patch_observables, durations = np.empty(shape), np.empty(chosen.shape)
        for index, patch in enumerate(patches):
            at = np.nonzero(chosen == index)
            if len(at[0]) == 0:
                continue
            frame = _Frame.of(system, patch, patching)
            source = frame.extract(states if len(at[0]) == len(states) else states[at[0]])
            for twin in range(continuations):
                evolved, elapsed = move(frame, source, generator)
                after = frame.patch.extract(evolved)
                moved = frame.change(source, evolved, len(patches))
                learned = closure(after) if closure else np.empty((len(after), 0))
                known = closures[at[0], index] if closure else learned
                increments[twin][at] = _joined(moved, learned - known)
                if twin == 0:
                    patch_observables[at] = _joined(system.observables(after), learned)
                    durations[at] = elapsed
        flat = increments.reshape(continuations, -1, shape[-1])
        return {
            "observables": np.repeat(before, patches_per_snapshot, axis=0),
            "increments": flat[0],
            "twin_increments": flat[-1],
            "patch_observables": patch_observables.reshape(-1, shape[-1]),
            "durations": durations.ravel(),
            "patches": chosen.ravel(),
        }

    parts = map_chunks(run, len(snapshots), rng, chunk=ROWS, description=description)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if not twins:
        del columns["twin_increments"]
    assert snapshots.groups is not None  # set in Snapshots.__post_init__
    groups = np.repeat(snapshots.groups, patches_per_snapshot)
    return PatchPairs(**columns, n_patches=len(patches), groups=groups)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """The part of the lattice that a patch can see, as a lattice of its own, or all of it.

    box: where it lies, None: everywhere.  patch: the patch in it.  share: n_frame / n_lattice.
    """

    system: MicroscopicSystem
    box: Patch | None
    patch: Patch
    share: float

    @classmethod
    def of(cls, system: MicroscopicSystem, patch: Patch, patching: Patching) -> Self:
        """The smallest frame that changes nothing but the cost: it does not grow with the lattice.

        The frame's own opposite edges are frozen, so that what they would say to each other if it
        is taken for a periodic lattice does not change.
        """
        if system.interaction_range is not None:
            rim = patching.rim(patch) if patching.boundary == "buffer" else patch
            box = rim.widened(system.interaction_range)
            side = box.shape[0]
            if max(box.shape) == min(box.shape) < min(system.lattice_shape):
                start = ((side - patch.shape[0]) // 2,) * len(patch.shape)
                inner = dataclasses.replace(patch, start=start, lattice_shape=box.shape)
                share = box.n_sites / math.prod(system.lattice_shape)
                return cls(system=system.resized(side), box=box, patch=inner, share=share)
        return cls(system=system, box=None, patch=patch, share=1.0)

    def extract(self, states: np.ndarray) -> np.ndarray:
        return states if self.box is None else self.box.extract(states)

    def change(self, before: np.ndarray, after: np.ndarray, n_patches: int) -> np.ndarray:
        """K [phi*(x with the patch evolved) - phi*(x)] of the lattice, (B, d*)."""
        phi = self.system.observables
        if self.system.observables_are_site_means:
            return phi(self.patch.extract(after)) - phi(self.patch.extract(before))
        return n_patches * self.system.observable_changes(before, after, self.share)
