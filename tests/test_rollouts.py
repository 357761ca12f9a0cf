"""Euler-Maruyama paths of fitted SDEs, against the exact law of a linear one."""

import dataclasses

import numpy as np
import pytest

from macrodyn_lib.errors import DivergedError
from macrodyn_lib.fitting import FittedSDE, Normalisation, TrainingSettings, fit_sde
from macrodyn_lib.records import LatentPairs
from macrodyn_lib.rollouts import EnsemblePaths, _Tabulated, rollout, rollout_ensemble
from macrodyn_lib.sde import MLPSDE, LinearEstimate, LinearSDE
from macrodyn_lib.statistics import mean_estimate

SLOPE = np.array([[-1.0, 0.4], [-0.3, -0.6]])
BIAS = np.array([0.5, -0.2])
ROOT = np.array([[0.8, 0.0], [0.3, 0.5]])


def linear(slope=SLOPE, bias=BIAS, root=ROOT):
    """A FittedSDE with given coefficients, in coordinates that are not those of z."""
    d = len(bias)
    normalisation = Normalisation(shift=np.linspace(1, 2, d), scale=np.linspace(0.5, 3, d))
    scale, shift = normalisation.scale, normalisation.shift
    estimate = LinearEstimate(
        slope=slope / scale[:, None] * scale,
        mean=np.zeros(d),
        spread=np.ones(d),
        bias=(bias + slope @ shift) / scale,
        cholesky=root / scale[:, None],
        beyond=np.zeros(d),
        lowest=np.full(d, -1.0),
        highest=np.full(d, 1.0),
    )
    model = LinearSDE(d)
    return FittedSDE(
        model=model,
        module=model.build([estimate], None),
        normalisation=normalisation,
        noise_scale=1.0,
        validation_losses=np.empty((0, 2)),
    )


def scalar(rate=1.0, noise=0.7):
    return linear(np.array([[-rate]]), np.array([0.3]), np.array([[noise]]))


def test_linear_coefficients_come_back_in_physical_units():
    slope, bias, root = linear().linear_coefficients()
    np.testing.assert_allclose(slope, SLOPE, atol=1e-14)
    np.testing.assert_allclose(bias, BIAS, atol=1e-14)
    np.testing.assert_allclose(root, ROOT, atol=1e-14)


def euler_maruyama_moments(steps, h, start):
    """Moments of the scheme: m <- m + h (A m + b), C <- (1 + h A) C (1 + h A)' + h S."""
    step = np.eye(2) + h * SLOPE
    mean, covariance = start, np.zeros((2, 2))
    for _ in range(steps):
        mean = step @ mean + h * BIAS
        covariance = step @ covariance @ step.T + h * ROOT @ ROOT.T
    return mean, covariance


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_rollout_has_the_exact_moments_of_its_scheme(factor):
    # 5 scores, |z| < 4: false alarm 3e-4; 20 000 independent paths
    start = np.array([2.0, -1.0])
    fitted = dataclasses.replace(linear(), noise_factor=factor)
    paths = rollout(
        fitted, start=np.tile(start, (20_000, 1)), times=np.array([1.0, 2.0]),
        rng=np.random.default_rng(0), max_step=0.1,
    )  # fmt: skip
    mean, covariance = euler_maruyama_moments(20, 0.1, start)

    def scores(mean, covariance):
        deviations = paths[:, -1] - mean
        products = deviations[:, [0, 0, 1]] * deviations[:, [0, 1, 1]]
        estimates = [mean_estimate(column) for column in np.hstack([deviations, products]).T]
        expected = np.concatenate([[0, 0], covariance[[0, 0, 1], [0, 1, 1]]])
        return np.array(
            [(e.value - x) / e.standard_error for e, x in zip(estimates, expected, strict=True)]
        )

    assert np.abs(scores(mean, factor**2 * covariance)).max() < 4
    assert np.abs(scores(mean, 2 * factor**2 * covariance)).max() > 10  # planted: noise too large
    late, _ = euler_maruyama_moments(30, 0.1, start)
    assert np.abs(scores(late, factor**2 * covariance)).max() > 10  # planted: a wrong clock


def test_rollout_without_noise_follows_the_scheme_exactly():
    fitted = dataclasses.replace(linear(), noise_factor=0.0)
    start = np.array([[2.0, -1.0]])
    times = np.array([0.0, 0.5, 0.75])
    path = rollout(fitted, start=start, times=times, rng=np.random.default_rng(0), max_step=0.2)
    np.testing.assert_array_equal(path[:, 0], start)
    # 0.5 is cut into 3 equal steps, 0.25 into 2
    first = euler_maruyama_moments(3, 0.5 / 3, start[0])[0]
    np.testing.assert_allclose(path[0, 1], first, rtol=1e-13)
    np.testing.assert_allclose(path[0, 2], euler_maruyama_moments(2, 0.125, first)[0], rtol=1e-13)


def test_default_step_is_a_twentieth_of_the_fastest_relaxation():
    fitted, start = dataclasses.replace(scalar(rate=2.0), noise_factor=0.0), np.array([[1.0]])
    options = dict(start=start, times=np.array([1.0]), rng=np.random.default_rng(0))
    given = rollout(fitted, max_step=0.025, **options)
    np.testing.assert_allclose(rollout(fitted, **options), given, rtol=1e-12)


@pytest.mark.parametrize("max_step", [np.inf, 1e12, None])
def test_an_interval_shorter_than_the_step_is_one_step(max_step):
    constant = linear(np.zeros((2, 2)))  # a drift without any relaxation sets no step
    options = {"start": np.zeros((1, 2)), "times": np.array([0.5]), "max_step": max_step}
    path = rollout(
        dataclasses.replace(constant, noise_factor=0.0), rng=np.random.default_rng(0), **options
    )
    np.testing.assert_allclose(path[0, 0], 0.5 * BIAS, atol=1e-14)


def small_network():
    rng = np.random.default_rng(0)
    z = rng.uniform(-1, 1, size=(2000, 1))
    pairs = LatentPairs(
        latents=z,
        increments=0.1 * np.sin(3 * z) + 0.1 * rng.standard_normal(z.shape),
        durations=np.full(2000, 0.1),
        n_patches=4,
        groups=np.arange(2000) // 20,
    )
    settings = TrainingSettings(steps=100, learning_rate=0.02)
    return fit_sde(pairs, MLPSDE(1, hidden=(16, 16)), rng=rng, settings=settings)


def test_tabulated_sde_equals_the_network_inside_and_outside_its_grid():
    fitted = small_network()
    for z in (np.linspace(-3, 3, 1001)[:, None], np.array([[0.0], [50.0]])):
        # linear interpolation: h^2/8 of the curvature, (4.6 / 2^14)^2 / 8 = 1e-8 of order 10
        for read, exact in zip(
            _Tabulated(fitted).drift_and_kick(z, np.ones_like(z)),
            (fitted.drift(z), fitted.diffusion(z)[..., 0]),
            strict=True,
        ):
            np.testing.assert_allclose(read, exact, atol=1e-6)


def test_same_seed_gives_same_paths():
    options = dict(start=np.zeros((3, 2)), times=np.array([1.0]))
    first, again, other = (
        rollout(linear(), rng=np.random.default_rng(seed), **options) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_rollout_stops_with_the_last_good_state_when_a_path_diverges():
    unstable = linear(slope=np.diag([50.0, -1.0]))
    with pytest.raises(DivergedError, match="rollout became non-finite at step") as caught:
        rollout(
            unstable, start=np.ones((2, 2)), times=np.array([10.0]),
            rng=np.random.default_rng(0), max_step=0.1,
        )  # fmt: skip
    assert caught.value.step > 0 and np.isfinite(caught.value.state).all()
    assert caught.value.state.shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": np.zeros(2)}, r"start has shape \(2,\): must be finite, \(B, 2\)"),
        ({"start": np.full((1, 2), np.nan)}, "start has shape"),
        ({"times": np.array([2.0, 1.0])}, "must be one axis of ascending numbers"),
        ({"times": np.array([-1.0])}, "must be one axis of ascending numbers"),
        ({"times": np.array([np.nan])}, "must be one axis of ascending numbers"),
        ({"times": np.array([np.inf])}, "must be one axis of ascending numbers"),
        ({"max_step": 0.0}, r"max_step = 0.0: must be > 0"),
    ],
)
def test_rollout_raises_for_wrong_argument(options, message):
    given = {"start": np.zeros((1, 2)), "times": np.array([1.0]), **options}
    with pytest.raises(ValueError, match=message):
        rollout(linear(), rng=np.random.default_rng(0), **given)


@pytest.fixture(scope="module")
def ensemble():
    """Paths of 6 members of one scalar process, from two starts."""
    return rollout_ensemble(
        [scalar()] * 6, start=np.array([[0.3], [2.3]]), replicas=50, times=np.arange(0, 60, 0.1),
        rng=np.random.default_rng(3), max_step=0.02,
    )  # fmt: skip


def test_ensemble_estimates_equal_the_exact_law(ensemble):
    # mean 0.3, std 0.7 / sqrt(2), relaxation time 1; |z| < 5 with 5 degrees of freedom: 4e-3 each
    scheme = 1 - 0.02 / 2  # the scheme's stationary variance is larger by 1 / (1 - h/2)
    exact = {
        "mean": (ensemble.stationary_mean(), 0.3),
        "std": (ensemble.stationary_std(), 0.7 / np.sqrt(2 * scheme)),
        "relaxation time": (ensemble.relaxation_time(), 0.02 / -np.log(1 - 0.02)),
        "mean on the way": (ensemble.mean_at(1, 1.0), 0.3 + 2 * (1 - 0.02) ** 50),
    }
    for name, (estimate, value) in exact.items():
        assert abs(estimate.value - value) < 5 * estimate.standard_error, name
        assert estimate.standard_error < 0.05 * value, name


def test_spread_of_members_is_error_of_the_mean_and_no_noise():
    # two members about different means: the std is that of one member's paths
    rng = np.random.default_rng(0)
    paths = (
        rng.standard_normal((2, 1, 400, 10, 1)) + np.array([-5.0, 5.0])[:, None, None, None, None]
    )
    ensemble = EnsemblePaths(times=np.arange(10.0), paths=paths)
    assert ensemble.stationary_std().value == pytest.approx(1, abs=0.05)
    assert ensemble.stds()[0, 5, 0] == pytest.approx(1, abs=0.2)
    assert ensemble.stationary_mean().standard_error == pytest.approx(5, abs=0.3)


def test_error_takes_every_nth_time_of_the_pooled_mean(ensemble):
    truth = ensemble.means()[0].copy()
    assert ensemble.error(truth).value == pytest.approx(0, abs=1e-25)
    truth[:, 1::2] += 100  # seen only at odd times
    assert ensemble.error(truth, every=2).value == pytest.approx(0, abs=1e-25)
    assert ensemble.error(truth).value > 0.9


def test_replicas_in_sets_have_the_error_of_counting_paths():
    paths = np.random.default_rng(3).normal(size=(4, 2, 410, 3, 2))
    ensemble = EnsemblePaths(times=np.arange(3.0), paths=paths)
    sets = ensemble.in_sets(50)
    assert sets.paths.shape == (32, 2, 50, 3, 2)
    np.testing.assert_array_equal(sets.paths[9], paths[1, :, 50:100])
    found = sets.std_at(1, 2.0)
    assert abs(found.value - 1) < 4 / np.sqrt(2 * 1600)
    # 31 degrees of freedom know the error 1 / sqrt(2 N) to 13 %
    assert found.standard_error == pytest.approx(1 / np.sqrt(2 * 1600), rel=0.5)
    few = dataclasses.replace(ensemble, paths=paths[:, :, :20])
    np.testing.assert_array_equal(few.in_sets(50).paths, few.paths)


def test_pooled_paths_are_dealt_from_all_members_in_turn():
    paths = np.random.default_rng(4).normal(size=(3, 2, 5, 4, 2))
    pooled = EnsemblePaths(times=np.arange(4.0), paths=paths).pooled()
    assert pooled.shape == (2, 15, 4, 2)
    np.testing.assert_array_equal(pooled[1, :4], np.stack([*paths[:, 1, 0], paths[0, 1, 1]]))
