"""The predator-prey study: waves learned from small domains, laws compared, fluctuations scaled."""

import numpy as np
import pytest
import scipy.linalg

from macrodyn_lib import pipeline
from macrodyn_lib.exact import PredatorPreyExact
from macrodyn_lib.fitting import TrainingSettings, fit_sde
from macrodyn_lib.records import LatentPairs
from macrodyn_lib.rollouts import EnsemblePaths
from macrodyn_lib.sde import LinearSDE
from macrodyn_lib.statistics import Estimate, maximum_mean_discrepancy
from macrodyn_lib.systems.predator_prey import PredatorPrey

WAVES = [[0.5, 0.1], [0.45, 0.15]]
PREY = PredatorPrey(n_cells=40)
PREY_RECIPE = pipeline.Recipe(
    patch_side=8, small_side=20, snapshots=120, initial_fraction=0.4, times=(0.0, 1.0, 2.0),
    initial=pipeline.covering_ranges(WAVES), relax_durations=(0.5,),
    initial_relax_durations=(0.0, 0.5), tile_stride=20, longest_pass=0.01, duration=0.01,
    continuations=4, closure_form="two fields", closure_dimension=2, hidden=(8,), members=2,
    settings=TrainingSettings(steps=10),
)  # fmt: skip


@pytest.mark.parametrize("increments", ["sampled", "rates"])
def test_waves_are_learned_and_predicted_from_small_domains(increments):
    recipe = PREY_RECIPE.but(increments=increments)
    large = recipe.snapshots_of(PREY, np.random.default_rng(0))
    assert large.states.shape == (120, 40, 2)
    learned = recipe.learn(PREY, np.random.default_rng(1), snapshots=large)
    test = pipeline.WaveTest(
        system=PREY, conditions=WAVES, replicas=3, times=np.array([0.0, 0.5]), max_step=0.01
    )
    paths = test.paths(learned, np.random.default_rng(2))
    assert paths.paths.shape == (2, 2, 3, 2, 4)
    # the diffusion of a mean over n cells is s^2 / n, whatever the patch: K = 5 is accounted for
    z = paths.paths[0, :, 0, 0]
    n_sigma = 40 * np.mean([fit.covariance(z)[:, 0, 0] for fit in learned.members])
    assert n_sigma == pytest.approx(0.02**2, rel=0.15)
    # planted: with lambda = 1 it is five times too large
    scaled = pipeline.with_noise_scale(learned.members, 1.0, 5)
    assert scaled[0].covariance(z) == pytest.approx(5 * learned.members[0].covariance(z))


def test_direct_waves_begin_at_the_waves_and_have_independent_sets():
    closure = PREY_RECIPE.closure(PREY, PREY_RECIPE.snapshots_of(PREY, np.random.default_rng(0)))
    paths = pipeline.direct_waves(
        PREY, WAVES, np.array([0.0, 1.0]), sets=2, replicas=3, patching=PREY_RECIPE.patching,
        closure=closure, rng=np.random.default_rng(3),
    )  # fmt: skip
    assert paths.paths.shape == (2, 2, 3, 2, 4)
    np.testing.assert_allclose(paths.paths[:, 1, :, 0, 0], 0.45)
    assert len(np.unique(paths.paths[:, 0, :, 1, 0])) == 6


def gaussian_paths(shift, members=4, replicas=20, seed=0):
    values = np.random.default_rng(seed).normal(shift, 1, (members, 2, replicas, 3, 2))
    return EnsemblePaths(times=np.arange(3.0), paths=values)


def test_discrepancy_of_equal_laws_is_the_floor_and_of_others_is_not():
    direct, scale = gaussian_paths(0, members=8, seed=1), np.ones(2)
    floor, mean_floor = pipeline.discrepancy_floor(direct, scale)
    assert floor.shape == (2, 3)
    values, by_start, mean = pipeline.discrepancy_estimates(gaussian_paths(0), direct, scale)
    assert values.shape == (2, 3) and len(by_start) == 2
    spread = np.hypot(mean.standard_error, mean_floor.standard_error)
    assert abs(mean.value - mean_floor.value) < 4.5 * spread  # false alarm below 2 % at 3 members
    other = pipeline.discrepancy_estimates(gaussian_paths(1.0), direct, scale)[2]
    # planted: means off by one standard deviation
    assert other.value - mean_floor.value > 10 * np.hypot(
        other.standard_error, mean_floor.standard_error
    )


def test_discrepancy_compares_sets_of_all_members_with_direct_sets():
    # members that are wrong in opposite ways are right together
    direct, scale = gaussian_paths(0, members=2, replicas=40, seed=1), np.ones(2)
    paths = gaussian_paths(0, members=2, replicas=40)
    sets = paths.paths.transpose(1, 2, 0, 3, 4).reshape(2, 80, 3, 2)
    expected = np.mean([
        maximum_mean_discrepancy(sets[1, q * 40 : q * 40 + 40, 2], direct.paths[q, 1, :, 2])
        for q in range(2)
    ])  # fmt: skip
    assert pipeline.discrepancies(paths, direct, scale)[1, 2] == pytest.approx(expected)
    with pytest.raises(ValueError, match="20 paths a start: must be >= 40, a direct set"):
        pipeline.discrepancies(gaussian_paths(0, members=1), direct, scale)


def test_best_noise_scale_is_the_minimum_of_the_parabola():
    scales = (1.0, 2.5, 5.0, 10.0, 20.0)
    curve = {s: Estimate((5 / s - 0.8) ** 2, 0.01, 8) for s in scales}
    best = pipeline.best_noise_scale(curve)
    assert best.value == pytest.approx(5 / 0.8)
    assert 0 < best.standard_error < 0.3


def test_unbiased_discrepancy_is_lowest_at_the_true_spread_and_biased_above_it():
    # spreads far below the bandwidths, as in the study; the prediction scatters sqrt(5 / lambda)
    # times as much as the truth, so that lambda = 5 is right
    rng = np.random.default_rng(5)
    times, shape = np.arange(1.0), (80, 1, 25, 1, 4)
    direct = EnsemblePaths(times=times, paths=0.05 * rng.normal(size=shape))
    draws = 0.05 * rng.normal(size=shape)
    best = {}
    for biased in (False, True):
        curve = {}
        for scale in (2.5, 5.0, 10.0):
            paths = EnsemblePaths(times=times, paths=np.sqrt(5 / scale) * draws)
            value = pipeline.discrepancies(paths, direct, np.ones(4), biased=biased).mean()
            curve[scale] = Estimate(value)
        best[biased] = pipeline.best_noise_scale(curve).value
    # the parabola's own error is 4 % here (by the Gaussian integrals), noise the rest
    assert best[False] == pytest.approx(5, rel=0.12)
    assert best[True] > 6.5  # planted: the other estimator


@pytest.mark.parametrize(
    ("conditions", "means", "amplitudes"),
    [
        ([[0.5, 0.1]], (0.4, 0.6), (0.0, 0.2)),
        ([[0.5, -0.3], [0.98, 0.0]], (0.4, 1.0), (0.0, 0.35)),
        ([[0.02, 0.01]], (0.0, 0.6), (0.0, 0.2)),
    ],
)
def test_training_ranges_cover_the_conditions(conditions, means, amplitudes):
    ranges = pipeline.covering_ranges(conditions)
    assert ranges["means"] == pytest.approx(means)
    assert ranges["amplitudes"] == pytest.approx(amplitudes)
    # no density is negative in any corner of the ranges
    states = PREY.initial_states(200, np.random.default_rng(0), **ranges)
    assert states.min() > -1e-12


def test_learned_fluctuations_fall_with_the_root_of_the_size():
    found = pipeline.scaling_with_size(
        PREY, PREY_RECIPE.but(duration=0.1, members=4), [40, 200], snapshots=24,
        patches_per_snapshot=1500, relax=0.2, rng=np.random.default_rng(4),
    )  # fmt: skip
    for n, result in found.items():
        assert result["n_patches"] == n // 8
        exact = np.sqrt(np.diag(PredatorPreyExact(n_cells=n).mean_covariance()))
        for name, expected in zip(("std_u", "std_v"), exact, strict=True):
            estimate = result[name]
            # 15 %: small domains, frozen ends of patches of 8 cells; z = 4 of 4 members
            slack = 0.15 * expected + 4 * estimate.standard_error
            assert abs(estimate.value - expected) < slack


def test_stationary_std_is_that_of_rollouts_in_steps_of_the_pairs():
    # the map of an oscillating process over h = 0.3: exp(J h) and its covariance over one step
    exact, h = PredatorPreyExact(n_cells=1), 0.3
    slope = exact.slopes()[0]
    propagator, covariance = scipy.linalg.expm(slope * h), exact.mean_covariance()
    kick = covariance - propagator @ covariance @ propagator.T
    rng = np.random.default_rng(6)
    latents = rng.normal(size=(200_000, 2)) * 0.03
    noise = rng.multivariate_normal(np.zeros(2), kick, size=(2, len(latents)))
    moved = latents @ (propagator - np.eye(2)).T + noise
    pairs = LatentPairs(
        latents=latents, increments=moved[0], twins=moved[1], n_patches=1,
        durations=np.full(len(latents), h),
    )  # fmt: skip
    fit = fit_sde(pairs, LinearSDE(2), rng=rng)
    expected = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(pipeline._stationary_std(fit, h), expected, rtol=0.02)
    # planted: the same fit in nearly continuous time, where the oscillation is damped too much
    assert (pipeline._stationary_std(fit, 1e-4) < 0.9 * expected).all()


@pytest.mark.parametrize("count", [7, 5, 3])
def test_sampled_patches_are_spread_evenly_over_the_domain(count):
    # without noise, every patch at another height, so that its increment tells which one it is
    quiet = PredatorPrey(n_cells=40, noise=1e-12)
    heights = np.repeat(np.linspace(0.3, 0.7, 5), 8)
    states = np.stack([heights, np.full(40, 0.5)], axis=1)[None]
    first, second = pipeline._sampled_patches(
        quiet, states, 8, 0.01, count, np.random.default_rng(7)
    )
    assert first.shape == (count, 2)
    np.testing.assert_allclose(first, second, atol=1e-9)
    rate = heights * (0.5 - heights)
    per_patch = 0.01 * rate.reshape(5, 8).mean(axis=1)
    chosen = [int(np.abs(per_patch - x).argmin()) for x in first[:, 0]]
    counts = np.bincount(chosen, minlength=5)
    assert counts.max() - counts.min() <= 1 and list(chosen) == sorted(chosen)
