"""Hierarchical upsampling: from snapshots of a small system to snapshots of a large one.

Source: paper Sec. II and Algorithm 1, D(i) = LocalRelax(Upsample(D(i-1))).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from macrodyn_lib.lattice import Patching, enlargements
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.records import Snapshots
from macrodyn_lib.systems.base import (
    MicroscopicSystem,
    check_integer,
    check_number,
    evolve_one_patch,
)

# Snapshots relaxed together: small enough to stay in the processor's cache.
ROWS = 128
TILED_SITES = 2**17  # in the snapshots of a task, where they were tiled: a large alloy is one alone


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LocalRelax:
    """Short local dynamics in overlapping tiles, in raster order, each among frozen neighbours.

    side: edge of a tile; duration: physical time per tile; stride: None: side / 2 (each site is
    then relaxed 2^dimension times a pass) or, where that does not divide the lattice, the next
    smaller one that does; boundary: as in ``Patching``; passes: rounds.
    """

    side: int
    duration: float
    stride: int | None = None
    boundary: str = "ghost"
    passes: int = 1

    def __post_init__(self) -> None:
        check_integer("side", self.side)
        check_number("duration", self.duration, above=0)
        check_integer("passes", self.passes)

    def __call__(
        self, system: MicroscopicSystem, states: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """(B, *lattice) -> (B, *lattice), relaxed."""
        side = min(self.side, *system.lattice_shape)
        stride = self.stride if self.stride is not None else overlapping_stride(system, side)
        tiling = Patching(side=side, boundary=self.boundary, stride=stride)
        tiles = tiling.patches(system.lattice_shape, periodic=system.periodic) * self.passes
        if self.boundary.startswith("buffer"):
            for tile in tiles:
                states = evolve_one_patch(system, states, tile, tiling, self.duration, rng)
            return states
        return system.relax_patches(states, tiles, self.duration, rng)


def overlapping_stride(system: MicroscopicSystem, side: int) -> int:
    """Half the edge of a tile, or the next smaller stride that divides a periodic lattice."""
    half = max(side // 2, 1)
    if not system.periodic:
        return half
    return max(d for d in range(1, half + 1) if all(n % d == 0 for n in system.lattice_shape))


def relax_ladder(
    side: int,
    durations: Sequence[float],
    *,
    stride: int | None = None,
    longest_pass: float = 1.0,
) -> tuple[LocalRelax | None, ...]:
    """One LocalRelax for each duration per tile (in passes of at most ``longest_pass``); 0: none.

    Snapshots relaxed for different times cover the way from far from equilibrium to equilibrium.
    """
    rungs: list[LocalRelax | None] = []
    for duration in durations:
        passes = math.ceil(duration / longest_pass - 1e-9)
        rungs.append(
            LocalRelax(side=side, duration=duration / passes, stride=stride, passes=passes)
            if passes
            else None
        )
    return tuple(rungs)


def relaxed_initial_states(
    system: MicroscopicSystem,
    count: int,
    *,
    relax: Sequence[LocalRelax | None],
    rng: np.random.Generator,
    description: str | None = None,
    **initial: Any,
) -> Snapshots:
    """Initial states of the large system itself, each relaxed in tiles by one rung of the ladder.

    Making an initial state needs no simulation, and relaxing it only simulations of patches. They
    cover what upsampled snapshots cannot: states without correlations. Each is its own group.
    ``initial`` goes to ``system.initial_states``.
    Source: published code (random configurations appended to D), here with relaxation.
    """

    def run(rows: slice, generator: np.random.Generator) -> np.ndarray:
        states = system.initial_states(rows.stop - rows.start, generator, **initial)
        rung = relax[rows.start // chunk % len(relax)]
        return states if rung is None else rung(system, states, generator)

    chunk = _chunk(count, len(relax))
    parts = map_chunks(run, count, rng, chunk=chunk, description=description)
    return Snapshots(states=np.concatenate(parts), groups=np.arange(count))


def _chunk(count: int, rungs: int) -> int:
    """Snapshots that are relaxed together, so few that each rung of the ladder has its share."""
    return max(1, min(ROWS, count // rungs))


def upsample(
    snapshots: Snapshots,
    *,
    to: MicroscopicSystem,
    count: int,
    relax: LocalRelax | Sequence[LocalRelax | None] | None,
    rng: np.random.Generator,
    description: str | None = None,
) -> Snapshots:
    """Enlarge snapshots by factors of 2, then 3, 5, up to the lattice of ``to``; relax each time.

    Every level draws ``count`` snapshots with replacement from the level below; a snapshot keeps
    the group of the small trajectory it descends from. ``relax`` None: naive upsampling; several:
    one of them for each chunk of the last level in turn, the last of them at the levels before.
    Snapshots that have the size of ``to`` already are returned as they are.

    Raises: ValueError: the lattice of ``to`` is not 2^a 3^b 5^c times that of the snapshots.
    """
    states, groups = snapshots.states, snapshots.groups
    assert groups is not None  # set in Snapshots.__post_init__
    rungs = [relax] if relax is None or isinstance(relax, LocalRelax) else list(relax)
    chunk = _chunk(count, len(rungs))
    small_shape = states.shape[1 : 1 + len(to.lattice_shape)]
    for factor in _levels(small_shape, to.lattice_shape):
        level = to.resized(states.shape[1] * factor)
        chosen = rng.integers(len(states), size=count)
        source, groups = states, groups[chosen]

        def enlarge(
            rows: slice,
            generator: np.random.Generator,
            level: MicroscopicSystem = level,
            source: np.ndarray = source,
            chosen: np.ndarray = chosen,
            factor: int = factor,
        ) -> np.ndarray:
            enlarged = level.upsampled(source[chosen[rows]], factor)
            last = level.lattice_shape == to.lattice_shape
            rung = rungs[rows.start // chunk % len(rungs)] if last else rungs[-1]
            return enlarged if rung is None else rung(level, enlarged, generator)

        label = None if description is None else f"{description} to {level.lattice_shape}"
        states = np.concatenate(map_chunks(enlarge, count, rng, chunk=chunk, description=label))
    return Snapshots(states=states, groups=groups)


def tile_snapshots(
    snapshots: Snapshots,
    *,
    to: MicroscopicSystem,
    count: int,
    rng: np.random.Generator,
    alike: np.ndarray | None = None,
) -> Snapshots:
    """Tile K snapshots of a periodic small system to one of ``to``; the seams between tiles stay.

    The K tiles of one large snapshot are drawn with replacement from the snapshots that share group
    and ``alike`` with a first one, which is drawn from all; each is shifted at random around its
    own lattice. ``to.assembled`` then puts right what must be conserved.

    Args:    alike: (N,) integers: snapshots of the same state of affairs, such as a time since the
             start; None: all. A group needs several trajectories for independent tiles.
    Raises:  ValueError: the lattice of ``to`` is no multiple of that of the snapshots.
    Source:  published code (alloys): tiles of about the same time, from all trajectories.
    """
    small = snapshots.states.shape[1 : 1 + len(to.lattice_shape)]
    tiling = Patching(side=small)
    n_tiles = len(tiling.patches(to.lattice_shape))
    assert snapshots.groups is not None  # set in Snapshots.__post_init__
    labels = np.zeros(len(snapshots), dtype=np.int64) if alike is None else np.asarray(alike)
    if labels.shape != (len(snapshots),):
        raise ValueError(f"alike has shape {labels.shape}: must be ({len(snapshots)},)")
    pairs = np.column_stack([snapshots.groups, labels])
    kind = np.unique(pairs, axis=0, return_inverse=True)[1].ravel()
    members = np.argsort(kind, kind="stable")
    sizes = np.bincount(kind)
    starts = np.cumsum(sizes) - sizes
    first = rng.integers(len(snapshots), size=count)
    chosen = kind[first][:, None]
    within = rng.integers(sizes[chosen], size=(count, n_tiles))
    parts = snapshots.states[members[starts[chosen] + within]]
    axes = tuple(range(len(small)))
    for row in parts:
        for index in range(n_tiles):
            row[index] = np.roll(row[index], rng.integers(small), axis=axes)
    states = to.assembled(tiling.assemble(parts, to.lattice_shape), rng)
    return Snapshots(states=states, groups=snapshots.groups[first])


def relaxed_until_settled(
    snapshots: Snapshots,
    system: MicroscopicSystem,
    *,
    side: int,
    unit: float,
    most: float,
    observable: int,
    tolerance: float = 0.01,
    rng: np.random.Generator,
) -> Snapshots:
    """LocalRelax until longer would change little: each round is as long as all before together.

    Stops when a round moves the mean of one observable by less than ``tolerance`` of itself, or
    after ``most`` units of time per tile. Nothing but the snapshots themselves is looked at.
    """
    states, done, before = snapshots.states, 0.0, np.inf
    chunk = max(min(ROWS, TILED_SITES // math.prod(system.state_shape)), 1)
    while done < most:
        more = min(max(done, 1.0), most - done)
        (rung,) = relax_ladder(side, (more * unit,), longest_pass=unit)
        assert rung is not None  # more > 0

        def relax(
            rows: slice,
            generator: np.random.Generator,
            rung: LocalRelax = rung,
            states: np.ndarray = states,
        ) -> np.ndarray:
            return rung(system, states[rows], generator)

        states = np.concatenate(map_chunks(relax, len(states), rng, chunk=chunk))
        done += more
        after = system.observables(states)[:, observable].mean()
        if abs(after - before) <= tolerance * abs(after):
            break
        before = after
    return Snapshots(states=states, groups=snapshots.groups)


def _levels(small: tuple[int, ...], large: tuple[int, ...]) -> list[int]:
    try:
        (ladder,) = {tuple(enlargements(a, b)) for a, b in zip(small, large, strict=True)}
    except ValueError:  # also where the edges differ
        message = f"lattice {large}: must be 2^a 3^b 5^c times the small lattice {small}"
        raise ValueError(message) from None
    return list(ladder)
