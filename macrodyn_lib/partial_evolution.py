"""Partial evolution: move one patch for a short time, the rest of the lattice frozen around it.

Source: paper Sec. II.
"""

from collections.abc import Callable

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
    observables = system.observables(states)
    if closure is None:
        return observables
    patches = patching.split(states, system.lattice_shape)
    values = closure(patches.reshape(-1, *patches.shape[2:]))
    return np.column_stack([observables, values.reshape(*patches.shape[:2], -1).mean(axis=1)])


def rate_increments(
    system: MicroscopicSystem, snapshots: Snapshots, *, description: str | None = None
) -> IncrementMoments:
    """The limit dt -> 0 of partial evolution of every patch, computed from the rates.

    Means are b(x) = sum_i r_i [phi*(x^i) - phi*(x)], scatters S(x) = sum_i r_i [..][..]': no noise
    of sampling, no boundary error, no noise scale (n_patches = 1). What is lost is memory: a lag.

    Raises: ValueError: the system does not know its rates.
    """

    def run(
        rows: slice, _generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        states = snapshots.states[rows]
        return system.observables(states), *system.rate_moments(states)

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


def averaged_increments(
    system: MicroscopicSystem,
    snapshots: Snapshots,
    patching: Patching,
    *,
    duration: float,
    continuations: int,
    rng: np.random.Generator,
    description: str | None = None,
) -> IncrementMoments:
    """Every patch of every snapshot continued many times, merged snapshot by snapshot.

    What noise of sampling is left falls as 1 / continuations; that of the snapshots stays. The
    likelihood sees of the pairs no more than these moments (the scatter is that within a patch).

    Args:   continuations: of each patch, an even number (they are made as twins).
    Raises: ValueError: an odd number, or as ``evolve_patches``.
    """
    check_integer("continuations", continuations, at_least=2)
    if continuations % 2:
        raise ValueError(f"continuations = {continuations}: must be even")
    n_patches = len(patching.patches(system.lattice_shape, periodic=system.periodic))
    blocks = [np.arange(a, min(a + BLOCK, len(snapshots))) for a in range(0, len(snapshots), BLOCK)]
    latents, means, scatters = [], [], []
    hidden = True if description is None else None
    for rows in tqdm(blocks, desc=description, disable=hidden):
        mean, scatter = 0.0, 0.0
        for _ in range(continuations // 2):
            pairs = evolve_patches(
                system, snapshots.select(rows), patching, duration=duration, twins=True,
                patches_per_snapshot=n_patches, rng=rng,
            )  # fmt: skip
            assert pairs.twin_increments is not None  # twins=True
            first, second = (
                x.reshape(len(rows), n_patches, -1)
                for x in (pairs.increments, pairs.twin_increments)
            )
            half = (first - second) / 2
            mean = mean + (first + second).mean(axis=1) / continuations
            scatter = (
                scatter + 4 * np.einsum("bki,bkj->bij", half, half) / n_patches / continuations
            )
        latents.append(pairs.observables[::n_patches])
        means.append(mean)
        scatters.append(scatter)
    return IncrementMoments(
        latents=np.concatenate(latents),
        means=np.concatenate(means),
        scatters=np.concatenate(scatters),
        durations=np.full(len(snapshots), float(duration)),
        counts=np.ones(len(snapshots)),
        n_patches=n_patches,
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
    check_integer("patches_per_snapshot", patches_per_snapshot)
    if patches_per_snapshot > len(patches):
        raise ValueError(
            f"patches_per_snapshot = {patches_per_snapshot}: must be <= {len(patches)}, K"
        )
    continuations = 2 if twins else 1

    def move(
        states: np.ndarray, patch: Patch, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if events is not None:
            return system.evolve_patch_events(states, patch, events, rng)
        assert duration is not None
        evolved = evolve_one_patch(system, states, patch, patching, duration, rng)
        return evolved, np.full(len(states), duration)

    def run(rows: slice, generator: np.random.Generator) -> dict[str, np.ndarray]:
        states = snapshots.states[rows]
        before = latent_states(system, states, patching, closure)
        order = generator.permuted(np.tile(np.arange(len(patches)), (len(states), 1)), axis=1)
        chosen = order[:, :patches_per_snapshot]
        shape = (*chosen.shape, before.shape[1])
        increments = np.empty((continuations, *shape))
        patch_observables, durations = np.empty(shape), np.empty(chosen.shape)
        for index, patch in enumerate(patches):
            at = np.nonzero(chosen == index)
            if len(at[0]) == 0:
                continue
            source = states[at[0]]
            for twin in range(continuations):
                evolved, elapsed = move(source, patch, generator)
                increments[twin][at] = _increment(
                    system, source, evolved, before[at[0]], patch, len(patches), closure
                )
                if twin == 0:
                    after = patch.extract(evolved)
                    columns = [system.observables(after), *([closure(after)] if closure else [])]
                    patch_observables[at] = np.column_stack(columns)
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


def _increment(
    system: MicroscopicSystem,
    states: np.ndarray,
    evolved: np.ndarray,
    observables: np.ndarray,
    patch: Patch,
    n_patches: int,
    closure: Closure | None,
) -> np.ndarray:
    after, before = patch.extract(evolved), patch.extract(states)
    if system.observables_are_site_means:
        given = system.observables(after) - system.observables(before)
    else:
        moved = system.observables(evolved)
        given = n_patches * (moved - observables[:, : moved.shape[1]])
    return given if closure is None else np.column_stack([given, closure(after) - closure(before)])
