"""The steps of the method in a row, for the ablations that repeat them."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import scipy.linalg
import scipy.stats
from tqdm.auto import tqdm

from macrodyn_lib.autoencoder import AutoencoderClosure, AutoencoderSettings, fit_autoencoder
from macrodyn_lib.closure import (
    BlockClosure,
    TwoFieldClosure,
    fit_block_closure,
    fit_two_field_closure,
)
from macrodyn_lib.fitting import FittedSDE, TrainingSettings, fit_ensemble, fit_sde
from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.parallel import map_tasks
from macrodyn_lib.partial_evolution import (
    averaged_increments,
    evolve_patches,
    integrated_increments,
    latent_states,
    rate_increments,
)
from macrodyn_lib.records import (
    IncrementMoments,
    LatentPairs,
    PatchPairs,
    Snapshots,
    Trajectories,
)
from macrodyn_lib.rollouts import EnsemblePaths, late_half, rollout_ensemble
from macrodyn_lib.sde import MLPSDE, LinearSDE
from macrodyn_lib.statistics import (
    Estimate,
    autocorrelation,
    binder_cumulant,
    correlation_function,
    jackknife,
    lowest_of_parabola,
    maximum_mean_discrepancy,
    mean_estimate,
    relaxation_time,
    structure_factor,
    susceptibility,
)
from macrodyn_lib.systems.base import MicroscopicSystem
from macrodyn_lib.systems.curie_weiss import CurieWeiss
from macrodyn_lib.systems.ising import Ising
from macrodyn_lib.systems.predator_prey import PredatorPrey
from macrodyn_lib.upsampling import LocalRelax, relax_ladder, relaxed_initial_states, upsample

Closure = BlockClosure | TwoFieldClosure | AutoencoderClosure


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

    patch_side: edge of a patch, and of the small system unless ``small_side`` says otherwise.
    snapshots: number of large ones, of which the share ``initial_fraction`` are relaxed initial
    states, the others upsampled from small runs recorded at ``times``.
    relax_durations: of LocalRelax per tile of the small system's edge, each for an equal part of
    them; initial_relax_durations: the same of the initial states; None: as the others.
    initial: options of ``system.initial_states``, for small runs and initial states alike.
    tile_stride, longest_pass: of LocalRelax (None: half a tile; passes of at most that duration).
    source: "direct" takes true snapshots of the large system instead (for comparison only).
    duration: of partial evolution, dt.  increments: "sampled" patch pairs, "integrated" (their
    means from the rates along the paths of the patches), or "rates" (the limit dt -> 0).
    continuations: of each of the K patches of every snapshot, an even number.
    boundary: of the patches.  closure_dimension: number of learned closures, of block moments or by
    the paper's autoencoder, or of two fields (``closure_form``).
    hidden, signs: of the MLPSDE.  members: independent fits.  whole: one more, to the data of all.
    noise_scale: None: K.
    """

    patch_side: int
    snapshots: int
    times: tuple[float, ...]
    relax_durations: tuple[float, ...]
    duration: float
    members: int
    settings: TrainingSettings
    whole: bool = False
    hidden: tuple[int, ...] = (32, 32)
    signs: tuple[int, ...] | None = None
    noise_scale: float | None = None
    initial_fraction: float = 0.0
    source: Literal["upsampled", "direct"] = "upsampled"
    increments: Literal["sampled", "integrated", "rates"] = "sampled"
    continuations: int = 2
    boundary: str = "ghost"
    closure_dimension: int = 0
    closure_form: Literal["blocks", "two fields", "autoencoder"] = "blocks"
    small_side: int | None = None
    initial_relax_durations: tuple[float, ...] | None = None
    tile_stride: int | None = None
    longest_pass: float = 1.0
    initial: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def but(self, **changes: Any) -> Self:
        """The same recipe with some ingredients changed."""
        return dataclasses.replace(self, **changes)

    @property
    def patching(self) -> Patching:
        return Patching(side=self.patch_side, boundary=self.boundary)

    def small_snapshots(self, system: MicroscopicSystem, rng: np.random.Generator) -> Snapshots:
        """Step 1, D_s: enough small runs for as many snapshots as the large pool has."""
        return simulate_snapshots(
            system.resized(self.small_side or self.patch_side),
            trajectories=-(-self.snapshots // len(self.times)),
            times=self.times,
            rng=rng,
            **self.initial,
        )

    def large_snapshots(
        self,
        system: MicroscopicSystem,
        small: Snapshots,
        rng: np.random.Generator,
        description: str | None = None,
    ) -> Snapshots:
        """Step 2, D: upsampled and relaxed in tiles of the small system's size, and initial states.

        A small system as large as the large one is not upsampled.
        """
        upsample_rng, initial_rng = rng.spawn(2)
        ladder = self._ladder(self.relax_durations)
        initial_ladder = self._ladder(self.initial_relax_durations or self.relax_durations)
        n_initial = round(self.initial_fraction * self.snapshots)
        parts = []
        if small.states.shape[1:] == system.state_shape:
            chosen = upsample_rng.permutation(len(small))[: self.snapshots - n_initial]
            parts.append(small.select(chosen))
        elif n_initial < self.snapshots:
            parts.append(
                upsample(
                    small,
                    to=system,
                    count=self.snapshots - n_initial,
                    relax=ladder,
                    rng=upsample_rng,
                    description=description,
                )
            )
        if n_initial > 0:
            parts.append(
                relaxed_initial_states(
                    system,
                    n_initial,
                    relax=initial_ladder,
                    rng=initial_rng,
                    description=description,
                    **self.initial,
                )
            )
        return Snapshots.concatenate(parts)

    def _ladder(self, durations: Sequence[float]) -> tuple[LocalRelax | None, ...]:
        return relax_ladder(
            self.small_side or self.patch_side,
            durations,
            stride=self.tile_stride,
            longest_pass=self.longest_pass,
        )

    def snapshots_of(self, system: MicroscopicSystem, rng: np.random.Generator) -> Snapshots:
        """Steps 1 and 2, or for source "direct" the snapshots they stand for."""
        small_rng, large_rng = rng.spawn(2)
        side = system.lattice_shape[0] if self.source == "direct" else self.small_side
        small = self.but(small_side=side).small_snapshots(system, small_rng)
        return self.large_snapshots(system, small, large_rng)

    def closure(
        self,
        system: MicroscopicSystem,
        snapshots: Snapshots,
        rng: np.random.Generator | None = None,
    ) -> Closure | None:
        """Step 4: closures learned from the snapshots; None for dimension 0.

        rng: for the autoencoder, the others draw nothing.
        """
        if self.closure_dimension == 0:
            return None
        if self.closure_form == "two fields":
            return fit_two_field_closure(snapshots, self.patching, self.closure_dimension)
        if self.increments != "sampled":
            raise ValueError(
                f"increments = {self.increments!r}: only for the observables, closure_dimension 0"
            )
        observables = system.observables(snapshots.states)
        if self.closure_form == "autoencoder":
            assert rng is not None  # its training draws
            settings = AutoencoderSettings(dimension=self.closure_dimension)
            return fit_autoencoder(snapshots, observables, self.patching, settings, rng=rng)
        return fit_block_closure(snapshots, observables, self.patching, self.closure_dimension)

    def _increments(
        self,
        system: MicroscopicSystem,
        snapshots: Snapshots,
        closure: Closure | None,
        naive: bool,
        rng: np.random.Generator,
    ) -> tuple[IncrementMoments, IncrementMoments | None]:
        """Step 3, of every patch of every snapshot: ours, and the baseline's (always sampled)."""
        sampled, baseline = None, None
        if self.increments == "sampled" or naive:
            sampled, baseline = averaged_increments(
                system, snapshots, self.patching, duration=self.duration,
                continuations=self.continuations, closure=closure, rng=rng,
            )  # fmt: skip
        if self.increments == "rates":
            assert not isinstance(closure, BlockClosure | AutoencoderClosure)  # refused before
            ours = rate_increments(system, snapshots, patching=self.patching, closure=closure)
        elif self.increments == "integrated":
            ours = integrated_increments(
                system, snapshots, self.patching, duration=self.duration,
                continuations=self.continuations, rng=rng,
            )  # fmt: skip
        else:
            assert sampled is not None
            ours = sampled
        return ours, baseline

    def model(self, system: MicroscopicSystem) -> MLPSDE:
        dimension = len(system.observable_names) + self.closure_dimension
        return MLPSDE(dimension, hidden=self.hidden, signs=self.signs)

    def fit(
        self,
        system: MicroscopicSystem,
        increments: LatentPairs | IncrementMoments,
        rng: np.random.Generator,
        description: str | None = None,
    ) -> list[FittedSDE]:
        """Step 5: an ensemble with noise scale K (for naive pairs and for rates K is 1)."""
        return fit_ensemble(
            increments,
            self.model(system),
            members=self.members,
            noise_scale=self._noise_scale(increments),
            rng=rng,
            settings=self.settings,
            description=description,
        )

    def fit_whole(
        self, system: MicroscopicSystem, increments: IncrementMoments, rng: np.random.Generator
    ) -> FittedSDE | None:
        """One fit to all increments if asked for; as many steps as a member's, larger batches."""
        if not self.whole:
            return None
        return fit_sde(
            increments,
            self.model(system),
            noise_scale=self._noise_scale(increments),
            rng=rng,
            settings=dataclasses.replace(self.settings, batch=self.settings.batch * self.members),
        )

    def _noise_scale(self, increments: LatentPairs | IncrementMoments) -> float | None:
        return self.noise_scale if increments.n_patches > 1 else None

    def learn(
        self,
        system: MicroscopicSystem,
        rng: np.random.Generator,
        *,
        snapshots: Snapshots | None = None,
        closure: Closure | None = None,
        naive: bool = False,
    ) -> "Learned":
        """Steps 1 to 5 (from given snapshots and closure: 3 and 5), with the baseline if asked."""
        snapshot_rng, pairs_rng, fit_rng, naive_rng, closure_rng, whole_rng = rng.spawn(6)
        if snapshots is None:
            snapshots = self.snapshots_of(system, snapshot_rng)
        closure = closure or self.closure(system, snapshots, closure_rng)
        ours, baseline = self._increments(system, snapshots, closure, naive, pairs_rng)
        return Learned(
            recipe=self,
            closure=closure,
            members=self.fit(system, ours, fit_rng),
            whole=self.fit_whole(system, ours, whole_rng),
            naive_members=self.fit(system, baseline, naive_rng) if naive and baseline else [],
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """An ensemble fitted by a recipe, a fit to all its data and the baseline's ensemble where asked
    for, and their closure."""

    recipe: Recipe
    members: list[FittedSDE]
    whole: FittedSDE | None = None
    naive_members: list[FittedSDE] = dataclasses.field(default_factory=list)
    closure: Closure | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DirectStates:
    """States of direct simulations, for what only they can tell: the truth about learned closures.

    times (T,).  states (B, n, T, *lattice), n replicas from each of the B starts of a test.
    """

    times: np.ndarray
    states: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RolloutTest:
    """What a fitted ensemble is tested on.

    start: (B, d*), observables.  replicas: paths per member and start.  times: (T,), equally
    spaced.  true_mean: (B, T, d*) of the large system (None: unknown, and so no errors), and its
    standard error.  every: the error is taken at each every-th time.  absolute: the relaxation time
    is that of the observable's modulus.  start_states: (B, n, *lattice), needed for closures: a
    path starts at the mean of their latents.  transient: end of the transient, whose error is
    reported apart; early: a test of it alone, with more paths (None: the beginning of this one).
    direct_states: for the error in all latents.
    """

    start: np.ndarray
    replicas: int
    times: np.ndarray
    true_mean: np.ndarray | None
    every: int
    max_step: float
    true_error: np.ndarray | None = None
    absolute: bool = False
    start_states: np.ndarray | None = None
    transient: float = 60.0
    early: "RolloutTest | None" = None
    direct_states: DirectStates | None = None

    def starts(self, learned: "Learned", system: MicroscopicSystem) -> np.ndarray:
        """(B, d): where the paths of a learned SDE start."""
        if learned.closure is None:
            return self.start
        if self.start_states is None:
            raise ValueError("start_states = None: closures need the states the paths start from")
        return np.stack([
            latent_states(system, states, learned.recipe.patching, learned.closure).mean(axis=0)
            for states in self.start_states
        ])  # fmt: skip

    def paths(
        self,
        members: Sequence[FittedSDE],
        rng: np.random.Generator,
        description: str | None = None,
        start: np.ndarray | None = None,
    ) -> EnsemblePaths:
        """Step 6: rollouts from every start."""
        return rollout_ensemble(
            members,
            start=self.start if start is None else start,
            replicas=self.replicas,
            times=self.times,
            rng=rng,
            max_step=self.max_step,
            description=description,
        )

    def from_one_start(self, start: float | np.ndarray, duration: float) -> Self:
        """The same number of paths, all from one point, over a shorter window; without a truth."""
        kept = self.times <= duration
        return dataclasses.replace(
            self,
            start=np.broadcast_to(start, (1, self.start.shape[1])),
            replicas=self.replicas * len(self.start),
            times=self.times[kept],
            true_mean=None,
        )

    def shortened(self, duration: float) -> Self:
        """The same test over a shorter window."""
        kept = self.times <= duration
        truth = None if self.true_mean is None else self.true_mean[:, kept]
        return dataclasses.replace(self, times=self.times[kept], true_mean=truth)

    def error(self, paths: EnsemblePaths) -> Estimate:
        """Test error of the paper."""
        assert self.true_mean is not None  # ``summary`` asks for it
        return paths.error(self.true_mean, self.every)

    def early_paths(
        self,
        members: Sequence[FittedSDE],
        rng: np.random.Generator,
        start: np.ndarray | None = None,
    ) -> EnsemblePaths:
        """Rollouts over the transient, from every start."""
        test = self.early or self
        return test.shortened(self.transient).paths(members, rng, start=start)

    def error_transient(self, paths: EnsemblePaths) -> Estimate:
        """The test error over the transient alone, at every time (of ``early_paths``)."""
        early, truth = paths.until(self.transient), self.early or self
        assert truth.true_mean is not None  # as in ``error``
        return early.error(truth.true_mean[:, : len(early.times)])

    def deviation(self, paths: EnsemblePaths) -> Estimate:
        """The largest difference of the mean of the first observable over all starts and times of
        the transient, with the standard error it has there."""
        early, truth = paths.until(self.transient), self.early or self
        assert truth.true_mean is not None  # as in ``error``
        (mean, error), count = early.means(), len(early.times)
        difference = np.abs(mean[..., 0] - truth.true_mean[:, :count, 0])
        at = np.unravel_index(difference.argmax(), difference.shape)
        its_error = 0.0 if truth.true_error is None else truth.true_error[:, :count, 0][at]
        combined = float(np.hypot(error[..., 0][at], its_error))
        return Estimate(float(difference[at]), combined, len(early.paths))

    def error_latent(
        self, paths: EnsemblePaths, system: MicroscopicSystem, learned: "Learned"
    ) -> Estimate:
        """Test error in all latents, closures too, as published; see ``error_of_latents``."""
        if self.direct_states is None:
            raise ValueError("direct_states = None: the truth about closures needs states")
        truth, ranges = latent_truth(system, self.direct_states, learned)
        inside = self.direct_states.times <= paths.times[-1]
        return error_of_latents(paths, self.direct_states.times[inside], truth[:, inside], ranges)


def direct_paths(
    system: Ising,
    magnetizations: Sequence[float],
    times: np.ndarray,
    *,
    words: int,
    rng: np.random.Generator,
    description: str | None = None,
) -> tuple[EnsemblePaths, np.ndarray]:
    """Direct simulation of the large system, 64 replicas a word from each magnetization.

    Returns: paths (words, B, 64, T, 2), whose "members" are the words, as 64 replicas share a
             clock; and the initial states (B, 64 words, L, L). For comparison, never for training.
    """
    state_rng, run_rng = rng.spawn(2)
    starts = np.stack([
        system.initial_states(64 * words, state_rng, magnetization=m) for m in magnetizations
    ])  # fmt: skip
    flat = starts.reshape(-1, *system.lattice_shape)
    run = system.simulate(flat, times, run_rng, multispin=True, description=description)
    paths = run.observables.reshape(len(magnetizations), words, 64, len(times), -1)
    return EnsemblePaths(times=times, paths=paths.swapaxes(0, 1)), starts


def direct_states(
    system: Ising, starts: np.ndarray, times: np.ndarray, rng: np.random.Generator
) -> DirectStates:
    """States of direct simulations from ``starts`` (B, n, L, L). For comparison only."""
    flat = starts.reshape(-1, *system.lattice_shape)
    run = system.simulate(flat, times, rng, keep_states=True, multispin=True)
    assert run.states is not None  # keep_states
    return DirectStates(
        times=times, states=run.states.reshape(*starts.shape[:2], *run.states.shape[1:])
    )


def latent_truth(
    system: MicroscopicSystem, direct: DirectStates, learned: "Learned"
) -> tuple[np.ndarray, np.ndarray]:
    """Mean path of all latents, closures too, in direct simulations, and the latents' ranges.

    Returns: (B, T, d), and (2, d): lowest and highest latent seen.
    """
    flat = direct.states.reshape(-1, *system.lattice_shape)
    z = latent_states(system, flat, learned.recipe.patching, learned.closure)
    by_time = z.reshape(*direct.states.shape[:3], -1)
    return by_time.mean(axis=1), np.stack([z.min(axis=0), z.max(axis=0)])


def error_of_latents(
    paths: EnsemblePaths, times: np.ndarray, true_mean: np.ndarray, ranges: np.ndarray
) -> Estimate:
    """Test error as published: all latents count, each but M in units of its range.

    times: (T',), a subset of the paths'.  true_mean: (B, T', d).  ranges: (2, d).
    Source: published evaluation of the Ising example.
    """
    shift, scale = ranges[0].copy(), ranges[1] - ranges[0]
    shift[0], scale[0] = 0.0, 1.0
    at = np.searchsorted(paths.times, times)
    normalised = EnsemblePaths(times=times, paths=(paths.paths[:, :, :, at] - shift) / scale)
    return normalised.error((true_mean - shift) / scale)


def upsampling_quality(
    system: Ising,
    recipe: Recipe,
    durations: Sequence[float],
    count: int,
    rng: np.random.Generator,
) -> dict[float, Snapshots]:
    """Upsampled equilibrium snapshots for each duration of LocalRelax, and true ones (key 0).

    For the reader only: nothing of it goes into training. Small systems run for 200 time units.
    """
    true_rng, small_rng, *generators = rng.spawn(2 + len(durations))

    def late(lattice: Ising, generator: np.random.Generator) -> Snapshots:
        states = lattice.initial_states(count, generator)
        run = lattice.simulate(
            states, np.array([200.0]), generator, keep_states=True, multispin=True
        )
        return run.snapshots()

    small = late(system.resized(recipe.patch_side), small_rng)
    pools = {0.0: late(system, true_rng)}
    for duration, generator in zip(durations, generators, strict=True):
        ladder = relax_ladder(recipe.patch_side, (duration,))
        pools[duration] = upsample(small, to=system, count=count, relax=ladder, rng=generator)
    return pools


def quality(system: Ising, pool: Snapshots) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean correlation function, mean structure factor, and the magnetizations of snapshots."""
    return (
        correlation_function(pool.states).mean(axis=0),
        structure_factor(pool.states).mean(axis=0),
        system.observables(pool.states)[:, 0],
    )


def compare_recipes(
    system: MicroscopicSystem,
    recipes: Mapping[Any, Recipe],
    test: RolloutTest,
    rng: np.random.Generator,
    *,
    snapshots: Snapshots | None = None,
    naive: bool = False,
) -> dict[Any, dict[str, Estimate]]:
    """The whole method by each recipe, from given snapshots or its own, and its rollouts.

    Keys of a result: those of ``summary``; error.naive and error_transient.naive where asked for.
    """
    tasks = [
        (system, recipe, test, generator, snapshots, naive)
        for recipe, generator in zip(recipes.values(), rng.spawn(len(recipes)), strict=True)
    ]
    return dict(zip(recipes, map_tasks(_learn_and_test, tasks), strict=True))


def _learn_and_test(
    system: MicroscopicSystem,
    recipe: Recipe,
    test: RolloutTest,
    rng: np.random.Generator,
    snapshots: Snapshots | None,
    naive: bool,
) -> dict[str, Estimate]:
    learn_rng, path_rng, early_rng, naive_rng, naive_early_rng = rng.spawn(5)
    learned = recipe.learn(system, learn_rng, snapshots=snapshots, naive=naive)
    start = test.starts(learned, system)
    paths = test.paths(learned.members, path_rng, start=start)
    early = test.early_paths(learned.members, early_rng, start)
    results = summary(system, test, paths, early, learned)
    if naive:
        theirs = test.paths(learned.naive_members, naive_rng, start=start)
        results["error.naive"] = test.error(theirs)
        theirs = test.early_paths(learned.naive_members, naive_early_rng, start)
        results["error_transient.naive"] = test.error_transient(theirs)
    return results


def column(results: Mapping[Any, Mapping[str, Estimate]], quantity: str) -> np.ndarray:
    """One quantity of ``compare_recipes``: values and standard errors, (2, recipes)."""
    estimates = [result[quantity] for result in results.values()]
    return np.array([[estimate.value, estimate.standard_error] for estimate in estimates]).T


def summary(
    system: MicroscopicSystem,
    test: RolloutTest,
    paths: EnsemblePaths,
    early: EnsemblePaths,
    learned: Learned,
) -> dict[str, Estimate]:
    """Errors, stationary moments and relaxation time of the rollouts of a fitted ensemble.

    Keys: error.ours, error_transient.ours, deviation.mean_M (the first observable), all three where
    the true mean is known, relaxation_time, stationary.{mean,std}_{observable}; error_latent.ours
    if direct states are known.
    """
    results = {}
    if test.true_mean is not None:
        results = {
            "error.ours": test.error(paths),
            "error_transient.ours": test.error_transient(early),
            f"deviation.mean_{system.observable_names[0]}": test.deviation(early),
        }
    results["relaxation_time"] = paths.relaxation_time(absolute=test.absolute)
    if test.direct_states is not None:
        results["error_latent.ours"] = test.error_latent(paths, system, learned)
    for index, name in enumerate(system.observable_names):
        results[f"stationary.mean_{name}"] = paths.stationary_mean(index)
        results[f"stationary.std_{name}"] = paths.stationary_std(index)
    return results


def relaxation_against_duration(
    system: MicroscopicSystem,
    recipe: Recipe,
    durations: Sequence[float] | np.ndarray,
    test: RolloutTest,
    rng: np.random.Generator,
) -> list[Estimate]:
    """Learned relaxation time for each duration of partial evolution, from the same snapshots."""
    snapshot_rng, learn_rng = rng.spawn(2)
    snapshots = recipe.snapshots_of(system, snapshot_rng)
    recipes = {float(duration): recipe.but(duration=float(duration)) for duration in durations}
    results = compare_recipes(system, recipes, test, learn_rng, snapshots=snapshots)
    return [result["relaxation_time"] for result in results.values()]


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
            recipe.but(patch_side=side),
            test,
            generator,
        )
        for (temperature, side), generator in zip(choices, rng.spawn(len(choices)), strict=True)
    ]
    return dict(zip(choices, map_tasks(_learn_and_predict, tasks), strict=True))


def _learn_and_predict(
    system: MicroscopicSystem, recipe: Recipe, test: RolloutTest, rng: np.random.Generator
) -> tuple[list[FittedSDE], EnsemblePaths]:
    learn_rng, path_rng = rng.spawn(2)
    learned = recipe.learn(system, learn_rng)
    return learned.members, test.paths(learned.members, path_rng)


def equilibrium_snapshots(
    system: Ising, count: int, rng: np.random.Generator, *, spacing: float = 50.0
) -> tuple[Snapshots, np.ndarray]:
    """True equilibrium snapshots at zero field: cluster updates to start, then kinetic Monte Carlo.

    Returns: snapshots, grouped by the 512 runs, recorded every ``spacing`` time units (so that low
             magnetizations are seen as often as they last), and the starting states (512, L, L).
    """
    wolff_rng, order_rng, run_rng = rng.spawn(3)
    chains, runs = 64, 512
    clusters = system.wolff_chains(
        chains, runs // chains, wolff_rng, clusters=60, warm_up=20, keep_states=True
    )
    assert clusters.states is not None  # keep_states
    starts = clusters.states.reshape(runs, *system.lattice_shape)[order_rng.permutation(runs)]
    times = spacing * np.arange(1, 1 + -(-count // runs))
    run = system.simulate(starts, times, run_rng, keep_states=True, multispin=True)
    return run.snapshots(), starts


def small_equilibrium_snapshots(
    system: Ising, count: int, rng: np.random.Generator, *, start: float = 300.0
) -> Snapshots:
    """Snapshots of a small lattice from time ``start`` on, every 20 units; 20 from each run."""
    state_rng, run_rng = rng.spawn(2)
    states = system.initial_states(-(-count // 20), state_rng)
    times = start + 20 * np.arange(20)
    return system.simulate(states, times, run_rng, keep_states=True, multispin=True).snapshots()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EquilibriumTest:
    """How the equilibrium of a learned SDE is sampled: paths of two windows, of which the second
    counts, from latents of the training snapshots.

    window: length; spacing: of the records; replicas: paths per member; max_step: of the rollout.
    """

    window: float
    spacing: float
    replicas: int
    max_step: float

    def but(self, **changes: Any) -> Self:
        """The same test with some settings changed."""
        return dataclasses.replace(self, **changes)

    @property
    def times(self) -> np.ndarray:
        return np.arange(0, 2 * self.window + self.spacing / 2, self.spacing)


def learn_equilibria(
    tasks: Mapping[Any, tuple[Ising, Recipe, Snapshots]],
    test: EquilibriumTest,
    rng: np.random.Generator,
    *,
    noise_ratios: Sequence[float] = (1.0,),
    more_ratios: Mapping[Any, Sequence[float]] | None = None,
) -> dict[Any, dict[float, EnsemblePaths]]:
    """Fit each task's recipe to its snapshots and roll out, for noise scales lambda = ratio K.

    The likelihood's minimiser for lambda is Sigma K / lambda with the same drift (facts: paper
    App. C), so one fit with lambda = K and a noise factor sqrt(K / lambda) stands for each.

    Args:    noise_ratios: for every task; more_ratios: for some, by their keys.
    Returns: key -> ratio -> paths (R, 1, replicas, T, 2) of M and rho; of the recipe's ``whole``
             fit as many as of all members.
    """
    more = more_ratios or {}
    calls = [
        (*task, test, generator, (*noise_ratios, *more.get(key, ())))
        for (key, task), generator in zip(tasks.items(), rng.spawn(len(tasks)), strict=True)
    ]
    return dict(zip(tasks, map_tasks(_learn_equilibrium, calls), strict=True))


def _learn_equilibrium(
    system: Ising,
    recipe: Recipe,
    snapshots: Snapshots,
    test: EquilibriumTest,
    rng: np.random.Generator,
    noise_ratios: tuple[float, ...],
) -> dict[float, EnsemblePaths]:
    learn_rng, start_rng, *path_rngs = rng.spawn(2 + len(noise_ratios))
    learned = recipe.learn(system, learn_rng, snapshots=snapshots)
    rows = start_rng.choice(len(snapshots), size=test.replicas)
    start = system.observables(snapshots.states[rows])
    results = {}
    for ratio, generator in zip(noise_ratios, path_rngs, strict=True):
        paths = _equilibrium_paths(learned.members, ratio, start, test, generator)
        whole = None
        if learned.whole:
            starts = np.tile(start, (recipe.members, 1))
            whole = _equilibrium_paths([learned.whole], ratio, starts, test, generator)[0]
        results[ratio] = EnsemblePaths(times=test.times, paths=paths, whole=whole)
    return results


def _equilibrium_paths(
    fits: Sequence[FittedSDE],
    ratio: float,
    start: np.ndarray,
    test: EquilibriumTest,
    rng: np.random.Generator,
) -> np.ndarray:
    """Paths (R, 1, n, T, d) with the noise of lambda = ratio K."""
    scaled = with_noise_scale(fits, ratio, n_patches=1)  # lambda and K in units of K
    drawn = rollout_ensemble(
        scaled, start=start, replicas=1, times=test.times, rng=rng, max_step=test.max_step
    )
    return drawn.paths.swapaxes(1, 2)


def equilibrium_estimates(paths: EnsemblePaths, system: Ising) -> dict[str, Estimate]:
    """<|M|>, susceptibility, Binder cumulant, rho and relaxation time of |M|.

    The relaxation time is taken in windows of half a path's length, about the mean of a member.
    """
    n, temperature = system.n_sites, system.temperature
    spacing = float(paths.times[1] - paths.times[0])

    def relaxation(values: np.ndarray) -> float:
        m = np.abs(late_half(values, 0))
        centred = m - m.mean(axis=(1, 2), keepdims=True)
        return relaxation_time(centred.reshape(-1, m.shape[-1]), spacing)

    estimators: dict[str, Callable[[np.ndarray], float]] = {
        "abs_magnetization": lambda values: float(np.abs(late_half(values, 0)).mean()),
        "susceptibility": lambda values: susceptibility(late_half(values, 0), n, temperature),
        "binder": lambda values: binder_cumulant(late_half(values, 0)),
        "rho": lambda values: float(late_half(values, 1).mean()),
        "relaxation_time": relaxation,
    }
    return {name: paths.quoted(estimator) for name, estimator in estimators.items()}


def distances(paths: EnsemblePaths, direct: EnsemblePaths, n_lags: int) -> dict[str, Estimate]:
    """How far learned and direct equilibrium are apart.

    law: Wasserstein-1 distance of the laws of |M| (at zero field that of the symmetric laws of M).
    autocorrelation: mean absolute difference of the autocorrelations of |M| over ``n_lags`` lags.
    """
    truth = np.abs(direct.stationary(0))
    target = autocorrelation(truth.reshape(-1, truth.shape[-1]), n_lags)
    sample = truth.ravel()[:: max(truth.size // 10**5, 1)]

    def of_autocorrelation(values: np.ndarray) -> float:
        m = np.abs(late_half(values, 0))
        return float(np.abs(autocorrelation(m.reshape(-1, m.shape[-1]), n_lags) - target).mean())

    def of_law(values: np.ndarray) -> float:
        m = np.abs(late_half(values, 0)).ravel()
        return float(scipy.stats.wasserstein_distance(m[:: max(m.size // 10**5, 1)], sample))

    return {"law": paths.quoted(of_law), "autocorrelation": paths.quoted(of_autocorrelation)}


def best_noise_ratio(
    by_ratio: Mapping[float, EnsemblePaths], direct: EnsemblePaths, quantity: str, n_lags: int
) -> Estimate:
    """lambda / K of the smallest distance, with the standard error of the members' own choices.

    by_ratio: at least three ratios, ascending.
    """

    def best(paths: Mapping[float, EnsemblePaths]) -> float:
        values = np.array([distances(p, direct, n_lags)[quantity].value for p in paths.values()])
        logs, near = np.log2(list(paths)), _around_lowest(values)
        return float(2 ** lowest_of_parabola(logs[near], values[near]))

    count = len(next(iter(by_ratio.values())).paths)
    choices = []
    for member in range(count):
        # a jackknife needs two members: the same one twice has the same distance
        one = {
            r: EnsemblePaths(times=p.times, paths=p.paths[[member, member]])
            for r, p in by_ratio.items()
        }
        choices.append(best(one))
    error = float(np.std(choices, ddof=1) / math.sqrt(count))
    return Estimate(best(by_ratio), error, count)


def direct_equilibrium(
    system: Ising, starts: np.ndarray, test: EquilibriumTest, rng: np.random.Generator
) -> EnsemblePaths:
    """Direct simulation from equilibrium states (R, L, L), with the windows of the test.

    Returns: paths (words, 1, 64, T, 2); the "members" are the words, whose replicas share a clock.
    """
    run = system.simulate(starts, test.times, rng, multispin=True)
    paths = run.observables.reshape(-1, 1, 64, len(test.times), 2)
    return EnsemblePaths(times=test.times, paths=paths)


def slowest_times(
    system: Ising,
    snapshots: Snapshots,
    patching: Patching,
    durations: Sequence[float],
    rng: np.random.Generator,
) -> dict[float, Estimate]:
    """The slowest relaxation of any even f(M, rho), by moves of patches for each duration dt.

        1/tau = min_f  K <[f(z + Delta z_I / K) - f(z)]^2> / (2 dt Var f),   z = (M, rho)

    In equilibrium a patch's move is a reversible step, and as dt -> 0 this is the Rayleigh-Ritz
    bound: no equation for (M, rho) with the rates' own drift can relax more slowly than tau, and
    the lattice relaxes more slowly than that.

    Args: snapshots: of equilibrium.  Returns: tau for each duration, its error by jackknife over
          the snapshots' groups dealt into ten.
    """
    z = system.observables(snapshots.states)
    functions = _even_functions(z)
    n_patches = len(patching.patches(system.lattice_shape, periodic=system.periodic))
    assert snapshots.groups is not None  # set in Snapshots.__post_init__
    parts = np.unique(snapshots.groups, return_inverse=True)[1] % 10
    variances = np.array([np.cov(functions[parts == part].T) for part in range(10)])
    results = {}
    for duration, generator in zip(durations, rng.spawn(len(durations)), strict=True):
        pairs = evolve_patches(
            system, snapshots, patching, duration=duration, patches_per_snapshot=n_patches,
            rng=generator,
        )  # fmt: skip
        moved = _even_functions(pairs.observables + pairs.increments / n_patches)
        changes = (moved - np.repeat(functions, n_patches, axis=0)).reshape(len(z), n_patches, -1)
        rates = np.array([
            n_patches / (2 * duration) * _mean_outer(changes[parts == part]) for part in range(10)
        ])  # fmt: skip
        both = np.stack([rates, variances], axis=1)
        results[duration] = jackknife(
            both, lambda kept: 1 / float(scipy.linalg.eigvalsh(*kept.mean(axis=0))[0])
        )
    return results


def slowest_time_seen(paths: EnsemblePaths, lag: float) -> Estimate:
    """The same of simulated paths: -lag / log of the largest autocorrelation of any f(M, rho)."""
    steps = round(lag / float(paths.times[1] - paths.times[0]))

    def of_members(members: np.ndarray) -> float:
        late = members[..., members.shape[-2] // 2 :, :]
        late = late.reshape(-1, *late.shape[-2:])
        f = _even_functions(late.reshape(-1, 2)).reshape(*late.shape[:2], -1)
        f = f - f.mean(axis=(0, 1))
        before, after = f[:, :-steps], f[:, steps:]
        cross = np.einsum("nti,ntj->ij", before, after)
        square = np.einsum("nti,ntj->ij", before, before) + np.einsum("nti,ntj->ij", after, after)
        largest = scipy.linalg.eigvalsh(cross + cross.T, square)[-1]
        return float(-lag / np.log(largest))

    return jackknife(paths.paths, of_members)


def _even_functions(z: np.ndarray) -> np.ndarray:
    """Functions of (M, rho) that a flip of all spins leaves, some of size 1: (N, 7)."""
    m, rho = z.T
    f = np.column_stack([np.abs(m), m**2, m**4, rho, rho**2, m**2 * rho, m**4 * rho])
    return f / np.array([1, 1, 1, 0.1, 0.01, 0.1, 0.1])


def _mean_outer(values: np.ndarray) -> np.ndarray:
    """Mean of v v' over all but the last axis."""
    flat = values.reshape(-1, values.shape[-1])
    return flat.T @ flat / len(flat)


def cluster_estimates(chains: Trajectories, system: Ising) -> dict[str, Estimate]:
    """Equilibrium estimates of cluster updates, with jackknife errors over the chains."""
    m, n, temperature = chains.observables[..., 0], system.n_sites, system.temperature
    return {
        "abs_magnetization": mean_estimate(np.abs(m).mean(axis=1)),
        "susceptibility": jackknife(m, lambda kept: susceptibility(kept, n, temperature)),
        "binder": jackknife(m, binder_cumulant),
        "rho": mean_estimate(chains.observables[..., 1].mean(axis=1)),
    }


def upsample_for_each_duration(
    system: Ising,
    small: Snapshots,
    durations: Sequence[float],
    count: int,
    rng: np.random.Generator,
) -> dict[float, Snapshots]:
    """The small snapshots upsampled with each duration of LocalRelax (0: without)."""
    side = small.lattice_shape[0]
    return {
        duration: upsample(
            small, to=system, count=count, relax=relax_ladder(side, (duration,)), rng=generator
        )
        for duration, generator in zip(durations, rng.spawn(len(durations)), strict=True)
    }


def direct_waves(
    system: PredatorPrey,
    conditions: Sequence[Sequence[float]],
    times: np.ndarray,
    *,
    sets: int,
    replicas: int,
    patching: Patching,
    closure: TwoFieldClosure | None,
    rng: np.random.Generator,
    description: str | None = None,
) -> EnsemblePaths:
    """Latents of direct simulations of the large system from cosine waves [m, k].

    Returns: paths (sets, B, replicas, T, d), whose "members" are independent sets of runs. For
             comparison, never for training.
    """

    def latents(state: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        states = np.tile(state, (sets * replicas, 1, 1))
        batch = max(1, 2 * 10**7 // (state.size * len(times)))  # some hundred megabytes at once
        parts = []
        for first in range(0, len(states), batch):
            run = system.simulate(states[first : first + batch], times, generator, keep_states=True)
            assert run.states is not None  # keep_states
            flat = run.states.reshape(-1, *system.state_shape)
            z = latent_states(system, flat, patching, closure)
            parts.append(z.reshape(len(run.states), len(times), -1))
        return np.concatenate(parts).reshape(sets, replicas, len(times), -1)

    starts = [system.wave(mean, amplitude)[0] for mean, amplitude in conditions]
    jobs = list(zip(starts, rng.spawn(len(starts)), strict=True))
    hidden = None if description else True
    paths = [latents(*job) for job in tqdm(jobs, desc=description, disable=hidden)]
    return EnsemblePaths(times=times, paths=np.stack(paths, axis=1))


def discrepancies(
    paths: EnsemblePaths,
    direct: EnsemblePaths,
    scale: np.ndarray,
    *,
    components: int | None = None,
    biased: bool = True,
) -> np.ndarray:
    """Squared MMD between predicted and direct latents, (B, T).

    The prediction is that of the ensemble: sets of as many paths as a direct set has, dealt from
    all members alike; the mean over the sets, each against one direct set.

    scale: (d,), of the training latents.  components: the first few of them only; None: all.
    biased: the paper's estimator, whose value for equal laws is the floor; else 0 for equal laws.
    """
    kept = slice(None, components)
    size = direct.paths.shape[2]
    pooled = paths.pooled()[..., kept] / scale[kept]
    truth = direct.paths[..., kept] / scale[kept]
    count = pooled.shape[1] // size
    if count == 0:
        raise ValueError(f"{pooled.shape[1]} paths a start: must be >= {size}, a direct set")
    return np.array([
        [
            np.mean([
                maximum_mean_discrepancy(
                    pooled[b, q * size : (q + 1) * size, t], truth[q % len(truth), b, :, t],
                    biased=biased,
                )
                for q in range(count)
            ])
            for t in range(len(paths.times))
        ]
        for b in range(len(pooled))
    ])  # fmt: skip


def discrepancy_estimates(
    paths: EnsemblePaths,
    direct: EnsemblePaths,
    scale: np.ndarray,
    *,
    components: int | None = None,
    biased: bool = True,
) -> tuple[np.ndarray, list[Estimate], Estimate]:
    """Squared MMD (B, T); its mean over time for each start, and over all, with jackknife errors.

    The errors are over the members: what another fit of as many members would change.
    """
    values = discrepancies(paths, direct, scale, components=components, biased=biased)
    members = len(paths.paths)
    without = np.array([
        discrepancies(
            dataclasses.replace(paths, paths=np.delete(paths.paths, r, axis=0)), direct, scale,
            components=components, biased=biased,
        ).mean(axis=1)
        for r in range(members)
    ])  # (R, B)  # fmt: skip

    def estimate(value: float, kept: np.ndarray) -> Estimate:
        return Estimate(float(value), float(math.sqrt(members - 1) * kept.std()), members)

    by_start = [
        estimate(value, kept) for value, kept in zip(values.mean(axis=1), without.T, strict=True)
    ]
    return values, by_start, estimate(values.mean(), without.mean(axis=1))


def discrepancy_floor(direct: EnsemblePaths, scale: np.ndarray) -> tuple[np.ndarray, Estimate]:
    """Squared MMD between independent direct sets in pairs: by start and time, and the mean."""
    pairs = len(direct.paths) // 2
    if pairs < 2:
        raise ValueError(f"direct has {len(direct.paths)} sets: must be at least 4, for two pairs")
    values = np.array([
        discrepancies(
            dataclasses.replace(direct, paths=direct.paths[[2 * p]]),
            dataclasses.replace(direct, paths=direct.paths[[2 * p + 1]]),
            scale,
        )
        for p in range(pairs)
    ])  # fmt: skip
    return values.mean(axis=0), mean_estimate(values.mean(axis=(1, 2)))


def _around_lowest(values: Sequence[float] | np.ndarray) -> slice:
    middle = min(max(int(np.argmin(values)), 1), len(values) - 2)
    return slice(middle - 1, middle + 2)


def with_noise_scale(
    members: Sequence[FittedSDE], noise_scale: float, n_patches: int
) -> list[FittedSDE]:
    """What the likelihood's minimiser is for lambda instead of K: the same drift, Sigma K / lambda.

    Source: paper App. C; tested on fits with either lambda.
    """
    factor = math.sqrt(n_patches / noise_scale)
    return [dataclasses.replace(m, noise_factor=m.noise_factor * factor) for m in members]


def best_noise_scale(curves: Mapping[float, Estimate]) -> Estimate:
    """Where a parabola in 1 / lambda through the lowest value and its neighbours has its minimum.

    Sigma is proportional to 1 / lambda, and the unbiased squared MMD of two laws is quadratic in
    how much their covariances differ, if that is little. (The biased one also falls with the spread
    of the prediction itself, so that its minimum lies above the true lambda.)

    The error follows from those of the three values. curves: at least three lambda, ascending.
    """
    scales, estimates = list(curves), list(curves.values())
    near = _around_lowest([estimate.value for estimate in estimates])
    inverse, three = 1 / np.array(scales[near]), np.array([e.value for e in estimates[near]])
    errors = [estimate.standard_error or 0.0 for estimate in estimates[near]]
    best = 1 / lowest_of_parabola(inverse, three)
    moved = [
        1 / lowest_of_parabola(inverse, three + error * unit) - best
        for error, unit in zip(errors, np.eye(3), strict=True)
    ]
    return Estimate(best, float(np.linalg.norm(moved)), estimates[near][1].members)


def scaling_with_size(
    system: PredatorPrey,
    recipe: Recipe,
    sizes: Sequence[int],
    *,
    snapshots: int,
    patches_per_snapshot: int,
    relax: float,
    rng: np.random.Generator,
    description: str | None = None,
) -> dict[int, dict[str, Any]]:
    """Stationary fluctuations of the means, learned for ever larger systems from one small one.

    For each size: late snapshots of the small system near the fixed point, enlarged and relaxed in
    tiles; some patches of each evolved among their neighbours, twice (twins); a linear SDE of the
    observables fitted with lambda = K; the stationary law of its rollouts in steps of the pairs'
    duration, by Lyapunov's equation.

    Returns: size -> {"std_u", "std_v": Estimate, "n_patches": K, "seconds": a snapshot}.
    """
    assert recipe.small_side is not None
    small, results = system.resized(recipe.small_side), {}
    one_each = recipe.but(
        snapshots=1, initial_fraction=0.0, relax_durations=(relax,), longest_pass=0.1
    )
    jobs = list(zip(sizes, rng.spawn(len(sizes)), strict=True))
    for size, generator in tqdm(jobs, desc=description, disable=None if description else True):
        large, parts = system.resized(size), []
        small_rng, fit_rng, *row_rngs = generator.spawn(2 + snapshots)
        start = small.wave(system.b, np.zeros(snapshots))
        late = small.simulate(start, np.array([40.0]), small_rng, keep_states=True).snapshots()
        started = time.perf_counter()
        for row, row_rng in enumerate(row_rngs):  # one snapshot at a time, for the memory
            source = late.select(np.array([row]))
            states = one_each.large_snapshots(large, source, row_rng).states
            increments = _sampled_patches(
                large, states, recipe.patch_side, recipe.duration, patches_per_snapshot, row_rng
            )
            parts.append((np.repeat(large.observables(states), len(increments[0]), 0), *increments))
        elapsed = (time.perf_counter() - started) / snapshots
        latents, first, second = (np.concatenate(column) for column in zip(*parts, strict=True))
        pairs = LatentPairs(
            latents=latents,
            increments=first,
            twins=second,
            durations=np.full(len(latents), recipe.duration),
            n_patches=size // recipe.patch_side,
            groups=np.repeat(np.arange(snapshots), patches_per_snapshot),
        )
        fits = fit_ensemble(pairs, LinearSDE(2), members=recipe.members, rng=fit_rng)
        deviations = np.array([_stationary_std(fit, recipe.duration) for fit in fits])
        results[size] = {
            "std_u": mean_estimate(deviations[:, 0]),
            "std_v": mean_estimate(deviations[:, 1]),
            "n_patches": pairs.n_patches,
            "seconds": elapsed,
        }
    return results


def _sampled_patches(
    system: PredatorPrey,
    states: np.ndarray,
    side: int,
    duration: float,
    count: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Twin increments (count, 2) of patches of one large state (1, n, 2), spread evenly over it.

    An enlarged state varies along the domain far more than its mean does from one state to another,
    so that patches drawn at random would not stand for the whole. Only a patch and its two
    neighbours are copied, which is all that it sees. (At an end of the domain the cell beyond it is
    the outermost one at its snapshot value.)
    """
    n_patches = system.n_cells // side
    chosen = ((np.arange(count) + rng.random()) * (n_patches / count)).astype(np.int64)
    cells = side * chosen[:, None] + np.arange(-side, 2 * side)
    windows = states[0, np.clip(cells, 0, system.n_cells - 1)]  # (count, 3 side, 2)
    middle = Patch(start=(side,), shape=(side,), lattice_shape=(3 * side,))
    first, second = (
        system.resized(3 * side).evolve_patch(windows, middle, duration, rng) for _ in range(2)
    )
    before = windows[:, side : 2 * side].mean(axis=1)
    first, second = (x[:, side : 2 * side].mean(axis=1) - before for x in (first, second))
    return first, second


def _stationary_std(fit: FittedSDE, step: float) -> np.ndarray:
    """Standard deviations of the stationary law of a linear SDE, rolled out in steps h.

        P = (1 + h A) P (1 + h A)' + h Sigma

    With h the duration of the pairs one step is the learned map. Taken for the rate of a process in
    continuous time, the slope (e^{Jh} - 1) / h of oscillations has too much damping.
    """
    slope, _, root = fit.linear_coefficients()
    propagator = np.eye(len(slope)) + step * slope
    return np.sqrt(np.diag(scipy.linalg.solve_discrete_lyapunov(propagator, step * root @ root.T)))


def covering_ranges(conditions: Sequence[Sequence[float]]) -> dict[str, tuple[float, float]]:
    """Ranges of m and k for training runs: the paper's and the conditions asked for, by a margin.

    The margin 0.05 keeps the outermost conditions inside; the sign of k is a shift of the wave.
    """
    m, k = np.array(conditions).T
    lowest, highest = min(0.45, m.min()) - 0.05, max(0.55, m.max()) + 0.05
    means = (max(float(lowest), 0.0), min(float(highest), 1.0))
    return {"means": means, "amplitudes": (0.0, float(max(0.15, np.abs(k).max())) + 0.05)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaveTest:
    """Rollouts from the cosine waves [m, k], ``replicas`` a member and wave, at ``times``.

    max_step: that of the pairs' own duration, so that one step of a rollout is the learned map.
    """

    system: PredatorPrey
    conditions: Sequence[Sequence[float]]
    replicas: int
    times: np.ndarray
    max_step: float

    def paths(
        self,
        learned: "Learned",
        rng: np.random.Generator,
        *,
        noise_scale: float | None = None,
        description: str | None = None,
    ) -> EnsemblePaths:
        """Step 6, with lambda = ``noise_scale`` in place of K."""
        members = learned.members
        patching, system = learned.recipe.patching, self.system
        if noise_scale is not None:
            n_patches = len(patching.patches(system.lattice_shape, periodic=False))
            members = with_noise_scale(members, noise_scale, n_patches)
        states = np.concatenate([system.wave(mean, size) for mean, size in self.conditions])
        return rollout_ensemble(
            members,
            start=latent_states(system, states, patching, learned.closure),
            replicas=self.replicas,
            times=self.times,
            rng=rng,
            max_step=self.max_step,
            description=description,
        )


def compare_waves(
    test: WaveTest,
    recipes: Mapping[Any, Recipe],
    snapshots: Snapshots,
    rng: np.random.Generator,
    description: str | None = None,
    closure: TwoFieldClosure | None = None,
) -> dict[Any, EnsemblePaths]:
    """The rollouts of each recipe learned from the same snapshots.

    closure: the same for all, so that their latents are comparable; None: each fits its own.
    """
    tasks = [
        (test, recipe, snapshots, generator, closure)
        for recipe, generator in zip(recipes.values(), rng.spawn(len(recipes)), strict=True)
    ]
    hidden = None if description else True
    results = map_tasks(_learn_waves, tasks, description=description, hidden=hidden)
    return dict(zip(recipes, results, strict=True))


def _learn_waves(
    test: WaveTest,
    recipe: Recipe,
    snapshots: Snapshots,
    rng: np.random.Generator,
    closure: TwoFieldClosure | None,
) -> EnsemblePaths:
    learn_rng, path_rng = rng.spawn(2)
    learned = recipe.learn(test.system, learn_rng, snapshots=snapshots, closure=closure)
    if recipe.increments == "sampled":
        test = dataclasses.replace(test, max_step=recipe.duration)
    return test.paths(learned, path_rng)
