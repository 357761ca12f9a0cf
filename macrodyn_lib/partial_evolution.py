"""Partial evolution: move one patch for a short time, the rest of the lattice frozen around it.

Source: paper Sec. II.
"""

import numpy as np

from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.records import PatchPairs, Snapshots
from macrodyn_lib.systems.base import (
    MicroscopicSystem,
    check_integer,
    check_number,
    evolve_one_patch,
)

# Snapshots per task: many enough that each patch index has some rows, few enough to spread.
ROWS = 2048


def evolve_patches(
    system: MicroscopicSystem,
    snapshots: Snapshots,
    patching: Patching,
    *,
    duration: float | None = None,
    events: int | None = None,
    patches_per_snapshot: int = 1,
    twins: bool = False,
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
    Raises:  ValueError: not exactly one of duration and events; the patch does not divide it.
    """
    if (duration is None) == (events is None):
        raise ValueError(f"duration = {duration}, events = {events}: give exactly one of them")
    if events is not None and patching.boundary == "buffer":
        raise ValueError("boundary = 'buffer': events of the rim would count; give duration")
    if duration is not None:
        check_number("duration", duration, above=0)
    if snapshots.lattice_shape != system.lattice_shape:
        raise ValueError(
            f"snapshots have lattice {snapshots.lattice_shape}: must be {system.lattice_shape}"
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
        before = system.observables(states)
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
                    system, source, evolved, before[at[0]], patch, len(patches)
                )
                if twin == 0:
                    patch_observables[at] = system.observables(patch.extract(evolved))
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
) -> np.ndarray:
    if system.observables_are_site_means:
        after, before = patch.extract(evolved), patch.extract(states)
        return system.observables(after) - system.observables(before)
    return n_patches * (system.observables(evolved) - observables)
