"""The study of NbMoTa: one SDE of the short-range order for all temperatures and what it predicts.

The latent state is the short-range order of the three like pairs; the other three follow from sum
rules. The unit of time of the SDE at each temperature is how long a patch evolves there, a fixed
part of the relaxation time, which changes by many orders of magnitude with temperature.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from tqdm.auto import tqdm

from macrodyn_lib.fitting import FittedSDE, TrainingSettings, fit_ensemble
from macrodyn_lib.lattice import Patching
from macrodyn_lib.partial_evolution import averaged_increments
from macrodyn_lib.records import IncrementMoments, Snapshots, Trajectories
from macrodyn_lib.rollouts import EnsemblePaths, rollout_ensemble
from macrodyn_lib.sde import OnsagerNetSDE
from macrodyn_lib.systems.nbmota import NbMoTa
from macrodyn_lib.upsampling import relax_ladder, tile_snapshots

PAIRS = NbMoTa.observable_names
LIKE = (0, 3, 5)  # NbNb, MoMo, TaTa
RECORDS = 128  # of a small run
FIRST_HOPS = 64  # between records, before the spacing is doubled


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SmallRuns:
    """Small systems at one temperature, from random solutions until they are at rest.

    trajectories: with states, the start among them.  relaxation_time: s, 1/e time of the mean order
    of the three like pairs.  hop_time: s, between hops of one vacancy at the end.
    at_rest: whether the runs lasted as many relaxation times as asked for.
    """

    system: NbMoTa
    trajectories: Trajectories
    relaxation_time: float
    hop_time: float
    at_rest: bool

    def snapshots(self, per_group: int) -> Snapshots:
        """All states; ``per_group`` runs make a group, from which a large state is tiled."""
        every = self.trajectories.snapshots()
        assert every.groups is not None  # set in Snapshots.__post_init__
        return Snapshots(states=every.states, groups=every.groups // per_group)

    def alike(self, window: int) -> np.ndarray:
        """For each snapshot the window of ``window`` neighbouring records that it is in."""
        runs, records = self.trajectories.observables.shape[:2]
        return np.tile(np.arange(records) // window, runs)


def simulate_small_runs(
    system: NbMoTa,
    runs: int,
    rng: np.random.Generator,
    *,
    relaxations: float = 8.0,
    max_doublings: int = 12,
) -> SmallRuns:
    """Run until the time is ``relaxations`` times the relaxation time seen, in doubling steps.

    Nobody knows the relaxation time beforehand: from 3000 to 800 K it grows by nine orders of
    magnitude. Records are equally spaced; with each doubling every second one is kept.
    """
    states = system.initial_states(runs, rng)
    waits, _, _ = system.simulate_events(states, 1000, 1, rng, mean_waits=True)
    spacing = FIRST_HOPS * float(waits.mean()) / 1000
    start = Trajectories(
        times=np.zeros(1), observables=system.observables(states)[:, None], states=states[:, None]
    )
    path = _continued(system, start, spacing, RECORDS, rng)
    for _ in range(max_doublings):
        if relaxations * transient_time(path.times, path.observables) <= path.times[-1]:
            break
        spacing *= 2
        every_second = Trajectories(
            times=path.times[::2], observables=path.observables[:, ::2], states=path.states[:, ::2]
        )
        path = _continued(system, every_second, spacing, RECORDS // 2, rng)
    waits, _, _ = system.simulate_events(path.states[:, -1], 1000, 1, rng, mean_waits=True)
    relaxation = transient_time(path.times, path.observables)
    return SmallRuns(
        system=system,
        trajectories=path,
        relaxation_time=relaxation,
        hop_time=float(waits.mean()) / 1000,
        at_rest=relaxations * relaxation <= path.times[-1],
    )


def _continued(
    system: NbMoTa, path: Trajectories, spacing: float, records: int, rng: np.random.Generator
) -> Trajectories:
    assert path.states is not None
    times = spacing * np.arange(1, records + 1)
    more = system.simulate(path.states[:, -1], times, rng, keep_states=True)
    return Trajectories(
        times=np.concatenate([path.times, path.times[-1] + times]),
        observables=np.concatenate([path.observables, more.observables], axis=1),
        states=np.concatenate([path.states, more.states], axis=1),
    )


def transient_time(times: np.ndarray, observables: np.ndarray) -> float:
    """1/e time of the way from the first record to the mean of the last quarter, (B, T, 6).

    Of the mean path of MoMo, which has the most order and so the least relative noise.
    """
    path = observables[:, :, LIKE[1]].mean(axis=0)
    final = path[-(len(path) // 4) :].mean()
    left = (path - final) / (path[0] - final)
    after = int(np.argmax(left < math.exp(-1)))
    high, low = left[after - 1], left[after]
    share = (high - math.exp(-1)) / (high - low)
    return float(times[after - 1] + share * (times[after] - times[after - 1]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AlloyRecipe:
    """How the dynamics of a large alloy is learned from small ones and patches.

    patch_cells: edge of a patch and of the small system.  snapshots: large ones per temperature.
    groups, per_group: small runs are made in so many groups of so many; a large state is tiled from
    one group, and members of the ensemble share none.
    sweeps: ladder of LocalRelax, exchange attempts per site and tile (0: none), or, without pair
    energies, relaxation times of hops.
    duration: of partial evolution, in relaxation times.  buffer: cells around a patch in which its
    vacancies may hop.  continuations: of each patch, an even number.
    """

    patch_cells: int = 8
    snapshots: int
    groups: int
    per_group: int
    members: int
    settings: TrainingSettings
    sweeps: tuple[float, ...] = (0.0, 0.5, 2.0, 8.0)
    duration: float = 0.05
    boundary: str = "buffer(4)"
    continuations: int = 2
    hidden: tuple[int, ...] = (32, 32)

    def but(self, **changes: object) -> "AlloyRecipe":
        """The same recipe with some ingredients changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    @property
    def patching(self) -> Patching:
        return Patching(side=self.patch_cells, boundary=self.boundary)

    def small_runs(self, system: NbMoTa, rng: np.random.Generator) -> SmallRuns:
        """Step 1, D_s."""
        return simulate_small_runs(
            system.resized(self.patch_cells), self.groups * self.per_group, rng
        )

    def large_snapshots(
        self, system: NbMoTa, small: SmallRuns, rng: np.random.Generator
    ) -> Snapshots:
        """Step 2, D: tiles of about the same time and of one group; LocalRelax, a rung for each."""
        exchange = system.model.pairs is not None
        unit = 1.0 if exchange else small.relaxation_time
        ladder = relax_ladder(self.patch_cells, [unit * s for s in self.sweeps], longest_pass=unit)
        parts = [
            tile_snapshots(
                small.snapshots(self.per_group),
                to=dataclasses.replace(system, relaxation="exchange" if exchange else "hops"),
                count=-(-self.snapshots // len(ladder)),
                relax=rung,
                alike=small.alike(RECORDS // 32),
                rng=rng,
            )
            for rung in ladder
        ]
        return Snapshots(
            states=np.concatenate([part.states for part in parts]),
            groups=np.concatenate([part.groups for part in parts]),
        )

    def increments(
        self, system: NbMoTa, small: SmallRuns, large: Snapshots, rng: np.random.Generator
    ) -> IncrementMoments:
        """Step 3: all patches evolved; the like pairs, with time in units of the duration.

        The parameter is 1000 K / T, in which rates are exponential.
        """
        duration = self.duration * small.relaxation_time
        every, _ = averaged_increments(
            system, large, self.patching, duration=duration, continuations=self.continuations,
            rng=rng,
        )  # fmt: skip
        like = list(LIKE)
        return dataclasses.replace(
            every,
            latents=every.latents[:, like],
            means=every.means[:, like],
            scatters=every.scatters[:, like][:, :, like],
            durations=np.ones(len(every)),
            parameters=np.full((len(every), 1), 1000 / system.temperature),
        )
