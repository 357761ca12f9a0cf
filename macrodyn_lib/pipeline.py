"""The steps of the method in a row, for the ablations that repeat them."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from tqdm.auto import tqdm

from macrodyn_lib.closure import encode, encode_naive
from macrodyn_lib.fitting import FittedSDE, TrainingSettings, fit_ensemble
from macrodyn_lib.lattice import Patching
from macrodyn_lib.parallel import map_tasks
from macrodyn_lib.partial_evolution import evolve_patches
from macrodyn_lib.records import LatentPairs, PatchPairs, Snapshots
from macrodyn_lib.rollouts import EnsemblePaths, rollout_ensemble
from macrodyn_lib.sde import MLPSDE, LinearSDE
from macrodyn_lib.statistics import Estimate
from macrodyn_lib.systems.base import MicroscopicSystem
from macrodyn_lib.systems.curie_weiss import CurieWeiss
from macrodyn_lib.upsampling import LocalRelax, upsample


def simulate_snapshots(
    system: MicroscopicSystem,
    *,
    trajectories: int,
    times: Sequence[float] | np.ndarray,
    rng: np.random.Generator,
    **initial: Any,
) -> Snapshots:
    """Snapshots of ``trajectories`` runs at ``times``; each run is a group.

    ``initial`` goes to ``system.initial_states``.
    """
    states = system.initial_states(trajectories, rng, **initial)
    return system.simulate(states, np.asarray(times), rng, keep_states=True).snapshots()


def simulate_patch_pairs(
    system: MicroscopicSystem,
    patching: Patching,
    *,
    trajectories: int,
    times: Sequence[float] | np.ndarray,
    duration: float,
    rng: np.random.Generator,
    description: str | None = None,
    **initial: Any,
) -> PatchPairs:
    """Twin patch pairs of all patches from direct runs of ``system``, without upsampling.

    The runs are made in batches, so that never more than some 10^7 site values are held at once.
    Each run is a group. ``initial`` goes to ``system.initial_states``.
    """
    n_sites = math.prod(system.lattice_shape)
    batch = max(1, 10**7 // (n_sites * len(times)))
    n_patches = len(patching.patches(system.lattice_shape, periodic=system.periodic))
    parts = []
    progress = tqdm(
        range(0, trajectories, batch), desc=description, disable=None if description else True
    )
    for first in progress:
        snapshot_rng, patch_rng = rng.spawn(2)
        count = min(batch, trajectories - first)
        snapshots = simulate_snapshots(
            system, trajectories=count, times=times, rng=snapshot_rng, **initial
        )
        pairs = evolve_patches(
            system, snapshots, patching, duration=duration, patches_per_snapshot=n_patches,
            twins=True, rng=patch_rng,
        )  # fmt: skip
        parts.append(dataclasses.replace(pairs, groups=pairs.groups + first))
    return PatchPairs.concatenate(parts)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the dynamics of a large lattice is learned from small simulations and patches.

    patch_side: edge of the small system and of a patch.  snapshots: number of large ones.
    times: at which the small runs are recorded.  relax_duration: of LocalRelax, per tile.
    duration: of partial evolution, dt.  members: independent fits.
    """

    patch_side: int
    snapshots: int
    times: tuple[float, ...]
    relax_duration: float
    duration: float
    members: int
    model: LinearSDE | MLPSDE
    settings: TrainingSettings

    def with_patch_side(self, patch_side: int) -> Self:
        return dataclasses.replace(self, patch_side=patch_side)

    def with_duration(self, duration: float) -> Self:
        return dataclasses.replace(self, duration=duration)

    def small_snapshots(self, system: MicroscopicSystem, rng: np.random.Generator) -> Snapshots:
        """Step 1, D_s: enough small runs for as many snapshots as the large pool has."""
        return simulate_snapshots(
            system.resized(self.patch_side),
            trajectories=-(-self.snapshots // len(self.times)),
            times=self.times,
            rng=rng,
        )

    def large_snapshots(
        self,
        system: MicroscopicSystem,
        small: Snapshots,
        rng: np.random.Generator,
    ) -> Snapshots:
        """Step 2, D: hierarchical upsampling, LocalRelax in tiles of the small system's size."""
        relax = LocalRelax(side=self.patch_side, duration=self.relax_duration)
        return upsample(small, to=system, count=self.snapshots, relax=relax, rng=rng)

    def patch_pairs(
        self,
        system: MicroscopicSystem,
        large: Snapshots,
        rng: np.random.Generator,
    ) -> PatchPairs:
        """Step 3: every patch of every snapshot evolved by itself, twice (twins)."""
        patching = Patching(side=self.patch_side)
        return evolve_patches(
            system,
            large,
            patching,
            duration=self.duration,
            patches_per_snapshot=len(patching.patches(system.lattice_shape)),
            twins=True,
            rng=rng,
        )

    def patch_pairs_from_scratch(
        self, system: MicroscopicSystem, rng: np.random.Generator
    ) -> PatchPairs:
        """Steps 1 to 3."""
        small_rng, large_rng, patch_rng = rng.spawn(3)
        small = self.small_snapshots(system, small_rng)
        return self.patch_pairs(system, self.large_snapshots(system, small, large_rng), patch_rng)

    def fit(self, pairs: LatentPairs, rng: np.random.Generator) -> list[FittedSDE]:
        """Step 5: an ensemble with noise scale K (1 for naive pairs)."""
        return fit_ensemble(
            pairs,
            self.model,
            members=self.members,
            rng=rng,
            settings=self.settings,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RolloutTest:
    """What a fitted ensemble is tested on.

    start: (B, d).  replicas: paths per member and start.  times: (T,), equally spaced.
    true_mean: (B, T, d) of the large system.  every: the error is taken at each every-th time.
    absolute: the relaxation time is that of the observable's modulus.
    """

    start: np.ndarray
    replicas: int
    times: np.ndarray
    true_mean: np.ndarray
    every: int
    max_step: float
    absolute: bool = False

    def paths(
        self, members: list[FittedSDE], rng: np.random.Generator, description: str | None = None
    ) -> EnsemblePaths:
        """Step 6: rollouts from every start."""
        return rollout_ensemble(
            members,
            start=self.start,
            replicas=self.replicas,
            times=self.times,
            rng=rng,
            max_step=self.max_step,
            description=description,
        )

    def from_one_start(self, start: float, duration: float) -> Self:
        """The same number of paths, all from one value of every latent, over a shorter window."""
        kept = self.times <= duration
        return dataclasses.replace(
            self,
            start=np.full((1, self.start.shape[1]), start),
            replicas=self.replicas * len(self.start),
            times=self.times[kept],
            true_mean=self.true_mean[:1, kept],
        )

    def error(self, paths: EnsemblePaths) -> Estimate:
        """Test error of the paper."""
        return paths.error(self.true_mean, self.every)


def ablate_patch_sides(
    system: MicroscopicSystem,
    recipe: Recipe,
    sides: Sequence[int],
    test: RolloutTest,
    rng: np.random.Generator,
) -> dict[int, dict[str, Estimate]]:
    """The whole method for each patch side, ours and naive on the same data."""
    generators = rng.spawn(len(sides))
    tasks = [
        (system, recipe.with_patch_side(side), test, generator)
        for side, generator in zip(sides, generators, strict=True)
    ]
    return dict(zip(sides, map_tasks(_compare_with_naive, tasks), strict=True))


def _compare_with_naive(
    system: MicroscopicSystem, recipe: Recipe, test: RolloutTest, rng: np.random.Generator
) -> dict[str, Estimate]:
    data_rng, *streams = rng.spawn(5)
    pairs = recipe.patch_pairs_from_scratch(system, data_rng)
    ours = test.paths(recipe.fit(encode(pairs), streams[0]), streams[1])
    naive = test.paths(recipe.fit(encode_naive(pairs), streams[2]), streams[3])
    return {
        "error.ours": test.error(ours),
        "error.naive": test.error(naive),
        "stationary.std": ours.stationary_std(),
        "relaxation_time": ours.relaxation_time(absolute=test.absolute),
    }


def relaxation_against_duration(
    system: MicroscopicSystem,
    recipe: Recipe,
    durations: Sequence[float] | np.ndarray,
    test: RolloutTest,
    rng: np.random.Generator,
) -> list[Estimate]:
    """Learned relaxation time for each duration of partial evolution, from the same snapshots."""
    data_rng, *generators = rng.spawn(1 + len(durations))
    small_rng, large_rng = data_rng.spawn(2)
    small = recipe.small_snapshots(system, small_rng)
    large = recipe.large_snapshots(system, small, large_rng)
    tasks = [
        (system, large, recipe.with_duration(float(duration)), test, generator)
        for duration, generator in zip(durations, generators, strict=True)
    ]
    return map_tasks(_learned_relaxation, tasks)


def _learned_relaxation(
    system: MicroscopicSystem,
    large: Snapshots,
    recipe: Recipe,
    test: RolloutTest,
    rng: np.random.Generator,
) -> Estimate:
    pairs_rng, fit_rng, path_rng = rng.spawn(3)
    members = recipe.fit(encode(recipe.patch_pairs(system, large, pairs_rng)), fit_rng)
    return test.paths(members, path_rng).relaxation_time(absolute=test.absolute)


def learn_grid(
    system: CurieWeiss,
    recipe: Recipe,
    temperatures: Sequence[float],
    sides: Sequence[int],
    test: RolloutTest,
    rng: np.random.Generator,
) -> dict[tuple[float, int], tuple[list[FittedSDE], EnsemblePaths]]:
    """The whole method for each temperature and patch side: the fits and their rollouts."""
    choices = list(itertools.product(temperatures, sides))
    tasks = [
        (
            dataclasses.replace(system, temperature=temperature),
            recipe.with_patch_side(side),
            test,
            generator,
        )
        for (temperature, side), generator in zip(choices, rng.spawn(len(choices)), strict=True)
    ]
    return dict(zip(choices, map_tasks(_learn_and_predict, tasks), strict=True))


def _learn_and_predict(
    system: MicroscopicSystem, recipe: Recipe, test: RolloutTest, rng: np.random.Generator
) -> tuple[list[FittedSDE], EnsemblePaths]:
    data_rng, fit_rng, path_rng = rng.spawn(3)
    fits = recipe.fit(encode(recipe.patch_pairs_from_scratch(system, data_rng)), fit_rng)
    return fits, test.paths(fits, path_rng)
