"""The Curie-Weiss birth-death chain against dense generators, enumeration and closed limits."""

from itertools import product

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import brentq
from scipy.stats import poisson

from macrodyn_lib.exact import MOMENT_TOLERANCES, CurieWeissExact

PUBLISHED = {"temperature": 1.1, "field": 0.1}

# The stepper bounds each local error by rtol = 1e-9; errors older than a relaxation time die out,
# and about a hundred steps fall into one. This holds for M and for n Var M, both of order 1.
SOLVER = 100 * MOMENT_TOLERANCES["rtol"]

# Error of the contour (1e-14) plus rounding eps ||Q|| t of both exponentials, ||Q|| t < 4000 here.
CONTOUR = 1e-12

WARM = CurieWeissExact(n_sites=24, **PUBLISHED)
BISTABLE = CurieWeissExact(n_sites=24, temperature=0.8, field=0.0)


def dense_generator(chain: CurieWeissExact) -> np.ndarray:
    """Generator written spin by spin from the energy, not from the rates under test."""
    n, inverse_temperature = chain.n_sites, 1 / chain.temperature

    def energy(pluses: int) -> float:
        total = 2 * pluses - n
        return -(total**2) / (2 * n) - chain.field * total

    generator = np.zeros((n + 1, n + 1))
    for pluses in range(n + 1):
        for target, flippable in ((pluses + 1, n - pluses), (pluses - 1, pluses)):
            if flippable:
                change = energy(target) - energy(pluses)
                generator[pluses, target] = flippable / (1 + np.exp(inverse_temperature * change))
        generator[pluses, pluses] = -generator[pluses].sum()
    return generator


def dense_autocorrelation(chain: CurieWeissExact, lag: float, absolute: bool) -> float:
    observable = np.abs(chain.magnetizations) if absolute else chain.magnetizations
    probabilities = chain.stationary()
    deviations = observable - probabilities @ observable
    later = expm(dense_generator(chain) * lag) @ deviations
    return (probabilities * deviations) @ later / (probabilities @ deviations**2)


# Values computed once with another program, to the digits shown.
@pytest.mark.parametrize(
    ("n_sites", "mean", "std", "sweep"),
    [
        (64, 0.431997, 0.218500, 2.54220),
        (256, 0.476513, 0.101274, 2.60493),
        (1024, 0.487269, 0.049341, 2.62677),
        (4096, 0.489881, 0.024511, 2.63252),
    ],
)
def test_stationary_values_equal_check_numbers(n_sites, mean, std, sweep):
    chain = CurieWeissExact(n_sites=n_sites, **PUBLISHED)
    assert chain.stationary_mean() == pytest.approx(mean, abs=6e-7)
    assert chain.stationary_std() == pytest.approx(std, abs=6e-7)
    assert chain.sweep_duration() == pytest.approx(sweep, abs=6e-6)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("temperature", [0.8, 1.1])
def test_stationary_law_equals_enumeration(temperature, absolute):
    n, field = 10, 0.05
    chain = CurieWeissExact(n_sites=n, temperature=temperature, field=field)
    totals = np.array([sum(spins) for spins in product((-1, 1), repeat=n)])
    weights = np.exp((totals**2 / (2 * n) + field * totals) / temperature)
    magnetizations = np.abs(totals) / n if absolute else totals / n
    mean = weights @ magnetizations / weights.sum()
    variance = weights @ (magnetizations - mean) ** 2 / weights.sum()
    assert chain.stationary_mean(absolute) == pytest.approx(mean, rel=1e-12)
    assert chain.stationary_std(absolute) == pytest.approx(np.sqrt(variance), rel=1e-12)


@pytest.mark.parametrize("n_sites", [1, 2, 7, 64, 4096])
@pytest.mark.parametrize("temperature", [0.7, 1.1])
def test_rates_obey_detailed_balance(n_sites, temperature):
    chain = CurieWeissExact(n_sites=n_sites, temperature=temperature, field=0.1)
    flux_up = chain.stationary()[:-1] * chain.up_rates[:-1]
    flux_down = chain.stationary()[1:] * chain.down_rates[1:]
    # A logarithmic weight is a sum of terms of order n log n, each rounded to eps of its size;
    # below the smallest normal number probabilities have no relative accuracy.
    log_weight = max(1.0, n_sites * np.log(n_sites))
    tolerance = max(1e-12, 4 * np.finfo(float).eps * log_weight)
    np.testing.assert_allclose(flux_up, flux_down, rtol=tolerance, atol=1e-300)
    assert chain.up_rates[-1] == 0 and chain.down_rates[0] == 0


@pytest.mark.parametrize("chain", [WARM, BISTABLE])
def test_rates_equal_energy_differences(chain):
    generator = dense_generator(chain)
    np.testing.assert_allclose(chain.up_rates[:-1], np.diag(generator, 1), rtol=1e-12)
    np.testing.assert_allclose(chain.down_rates[1:], np.diag(generator, -1), rtol=1e-12)


def test_drift_and_covariance_equal_generator_moments():
    magnetizations = WARM.magnetizations
    jumps = magnetizations[None, :] - magnetizations[:, None]
    generator = dense_generator(WARM)
    np.testing.assert_allclose(
        WARM.drift(magnetizations), (generator * jumps).sum(axis=1), rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(
        WARM.covariance(magnetizations), (generator * jumps**2).sum(axis=1), rtol=0, atol=1e-13
    )


def test_drift_and_covariance_tend_to_large_system():
    magnetization = np.linspace(-1, 1, 33)
    target = np.tanh((magnetization + 0.1) / 1.1)
    for n_sites in (10**4, 10**6):
        chain = CurieWeissExact(n_sites=n_sites, **PUBLISHED)
        # The self term shifts the field of each direction by 1/n: at most (1/T)/n in either.
        bound = 1 / (1.1 * n_sites)
        assert np.abs(chain.drift(magnetization) - (target - magnetization)).max() < bound
        large = 2 * (1 - magnetization * target)
        assert np.abs(n_sites * chain.covariance(magnetization) - large).max() < 2 * bound


def test_single_spin_flips_in_field_alone():
    chain = CurieWeissExact(n_sites=1, temperature=0.5, field=0.3)
    assert chain.stationary_mean() == pytest.approx(np.tanh(0.6), rel=1e-14)
    times = np.array([0.0, 0.5, 2.0])
    mean, std = chain.moments(-1.0, times)
    expected = np.tanh(0.6) - (1 + np.tanh(0.6)) * np.exp(-times)  # both rates add up to 1
    np.testing.assert_allclose(mean, expected, rtol=0, atol=SOLVER)
    np.testing.assert_allclose(std**2, 1 - expected**2, rtol=0, atol=SOLVER)
    assert chain.relaxation_time() == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("chain", [WARM, BISTABLE])
def test_moments_equal_dense_exponential(chain):
    times = np.array([0.0, 1e-3, 0.1, 1.0, 1.0, 5.0, 100.0])
    starts = chain.magnetizations
    means, stds = chain.moments_of(starts, times)
    assert means.shape == stds.shape == (25, 7)
    for column, time in enumerate(times):
        propagator = expm(dense_generator(chain) * time)
        mean = propagator @ starts
        variance = propagator @ starts**2 - mean**2
        np.testing.assert_allclose(means[:, column], mean, rtol=0, atol=SOLVER)
        np.testing.assert_allclose(
            chain.n_sites * stds[:, column] ** 2, chain.n_sites * variance, rtol=SOLVER, atol=SOLVER
        )


def test_moments_equal_uniformization():
    chain = CurieWeissExact(n_sites=300, **PUBLISHED)
    times = np.array([0.05, 0.7, 3.0, 10.0])
    generator = dense_generator(chain)
    clock = -generator.diagonal().min()
    # 20 standard deviations above the mean number of ticks: the tail left out is below 1e-80.
    ticks = np.arange(int(clock * times[-1] + 20 * np.sqrt(clock * times[-1])))
    probabilities = poisson.pmf(ticks[:, None], clock * times)
    up, down = np.diag(generator, 1) / clock, np.diag(generator, -1) / clock
    powers = np.stack([chain.magnetizations, chain.magnetizations**2])
    expected = np.zeros((2, 301, times.size))
    for tick in ticks:
        expected += powers[:, :, None] * probabilities[tick]
        steps = np.diff(powers)
        powers[:, :-1] += up * steps
        powers[:, 1:] -= down * steps
    means, stds = chain.moments_of(chain.magnetizations, times)
    np.testing.assert_allclose(means, expected[0], rtol=0, atol=SOLVER)
    # The reference loses digits by subtraction: 3000 additions of eps, times n.
    np.testing.assert_allclose(
        300 * stds**2, 300 * (expected[1] - expected[0] ** 2), rtol=0, atol=SOLVER
    )


def test_moments_end_in_stationary_law():
    chain = CurieWeissExact(n_sites=4096, **PUBLISHED)
    means, stds = chain.moments_of([-1.0, -0.5, 1.0], np.linspace(0.0, 1314.0, 501))
    np.testing.assert_allclose(means[:, 100:], chain.stationary_mean(), rtol=0, atol=SOLVER)
    np.testing.assert_allclose(
        4096 * stds[:, 100:] ** 2, 4096 * chain.stationary_std() ** 2, rtol=0, atol=SOLVER
    )


def test_moments_start_from_nearest_magnetization():
    mean, std = WARM.moments(0.30, [0.0])
    assert mean[0] == pytest.approx(8 / 24, rel=1e-15)  # allowed values: ..., 6/24, 8/24, ...
    assert std[0] == 0
    means, stds = WARM.moments_of([0.30, -1.0], [0.0, 1.0])
    np.testing.assert_array_equal(WARM.moments(-1.0, [0.0, 1.0])[0], means[1])
    np.testing.assert_array_equal(WARM.moments(-1.0, [0.0, 1.0])[1], stds[1])


def test_moments_survive_metastable_phase():
    chain = CurieWeissExact(n_sites=1024, temperature=0.8, field=0.0)
    mean, std = chain.moments(-0.7, [0.0, 100.0, 1e5])
    # One phase of width about sqrt((1 - M*^2) / (kappa n)) around -M*, shifted by order 1/n.
    assert np.all(np.abs(mean[1:] + chain.fixed_point()) < 1e-2)
    width = np.sqrt((1 - chain.fixed_point() ** 2) / (chain.linear_relaxation_rate() * 1024))
    assert np.all(np.abs(std[1:] / width - 1) < 0.05)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("chain", [WARM, BISTABLE])
def test_autocorrelation_equals_dense_exponential(chain, absolute):
    lags = np.array([0.0, 0.01, 5.0, 0.5, 30.0])
    expected = [dense_autocorrelation(chain, lag, absolute) for lag in lags]
    np.testing.assert_allclose(
        chain.autocorrelation(lags, absolute), expected, rtol=0, atol=CONTOUR
    )


def test_autocorrelation_equals_backward_equation():
    # Two unrelated solutions: stepping u' = Q u for all starts, and a sum of resolvents.
    chain = CurieWeissExact(n_sites=1024, **PUBLISHED)
    lags = np.array([0.1, 1.0, 6.0])
    means, _ = chain.moments_of(chain.magnetizations, lags)
    products = (chain.stationary() * chain.magnetizations) @ means
    variance = chain.stationary_std() ** 2
    expected = (products - chain.stationary_mean() ** 2) / variance
    np.testing.assert_allclose(
        chain.autocorrelation(lags), expected, rtol=0, atol=SOLVER / np.sqrt(variance)
    )


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("chain", [WARM, BISTABLE])
def test_relaxation_time_equals_dense_root(chain, absolute):
    expected = brentq(
        lambda lag: dense_autocorrelation(chain, lag, absolute) - np.exp(-1), 0.1, 100.0, xtol=1e-12
    )
    assert chain.relaxation_time(absolute) == pytest.approx(expected, rel=1e-9)


def test_relaxation_time_equals_slowest_odd_mode():
    # Below T = 1 and without field the last mode to decay is odd in S. On S = 2, 4, ..., n it is
    # the ground state of the chain killed at S = 0, whose inverse is a sum of positive terms: no
    # digit is lost, however slow the mode.
    chain = CurieWeissExact(n_sites=256, temperature=0.8, field=0.0)
    positive = slice(129, None)
    probabilities = chain.stationary()[positive]
    conductances = probabilities * chain.down_rates[positive]
    mode = np.ones(128)
    for _ in range(50):
        tails = np.cumsum((probabilities * mode)[::-1])[::-1]
        image = np.cumsum(tails / conductances)
        rate = 1 / image[-1]
        mode = image / image[-1]
    magnetizations = chain.magnetizations[positive]
    overlap = (probabilities @ (mode * magnetizations)) ** 2
    overlap /= (probabilities @ mode**2) * (probabilities @ magnetizations**2)
    expected = (1 + np.log(overlap)) / rate
    assert expected > 1e4
    assert chain.relaxation_time() == pytest.approx(expected, rel=1e-6)


def test_relaxation_time_is_infinite_beyond_horizon():
    chain = CurieWeissExact(n_sites=4096, temperature=0.8, field=0.0)
    assert chain.relaxation_time() == float("inf")
    assert chain.relaxation_time(absolute=True) < 10


def test_relaxation_time_tends_to_linear_rate():
    # Corrections are of order 1/n: two sizes extrapolate to 1/kappa with an error of order 1/n^2.
    small, large = (CurieWeissExact(n_sites=n, **PUBLISHED) for n in (2048, 4096))
    extrapolated = 2 * large.relaxation_time() - small.relaxation_time()
    correction = large.relaxation_time() - small.relaxation_time()
    expected = 1 / large.linear_relaxation_rate()
    assert extrapolated == pytest.approx(expected, abs=0.1 * abs(correction))


def test_fixed_point_equals_check_numbers():
    # Values computed once with another program, to the digits shown.
    chain = CurieWeissExact(n_sites=4096, **PUBLISHED)
    assert chain.fixed_point() == pytest.approx(0.4907443, abs=6e-8)
    assert chain.linear_relaxation_rate() == pytest.approx(0.3098454, abs=6e-8)
    infinite_sweep = 2 / (1 - chain.fixed_point() ** 2)
    assert infinite_sweep == pytest.approx(2.634456, abs=6e-7)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 0.9, 1.0, 1.1, 3.0])
@pytest.mark.parametrize("field", [-2.0, -0.02, 0.0, 1e-6, 0.1, 2.0])
def test_fixed_point_is_largest_root(temperature, field):
    chain = CurieWeissExact(n_sites=64, temperature=temperature, field=field)
    point = chain.fixed_point()
    residual = np.tanh((point + field) / temperature) - point
    # A root known to 1e-15 leaves a residual of at most that times the slope, 1/T - 1 or 1.
    assert abs(residual) < 1e-14 * max(1, 1 / temperature)
    above = np.linspace(point, 1, 2001)[1:]
    if point < 1:
        assert np.all(np.tanh((above + field) / temperature) - above < 1e-15)


def test_patch_multiplier_equals_check_numbers():
    # Values computed once with another program, to the digits shown.
    chain = CurieWeissExact(n_sites=4096, **PUBLISHED)
    assert chain.full_multiplier(2.6272) == pytest.approx(0.443, abs=6e-4)
    for n_patches, expected in ((4, 0.668), (16, 0.702), (64, 0.710)):
        assert chain.patch_multiplier(n_patches, 2.6272) == pytest.approx(expected, abs=6e-4)
    durations = np.array([0.05, 0.1, 0.2, 0.5, 1.0])
    learned_rates = -np.log(chain.patch_multiplier(16, durations)) / durations
    np.testing.assert_allclose(
        learned_rates / chain.linear_relaxation_rate(),
        [0.984, 0.968, 0.937, 0.848, 0.718],
        rtol=0,
        atol=6e-4,
    )


@pytest.mark.parametrize("n_patches", [1, 4, 64])
def test_patch_multiplier_equals_linear_system(n_patches):
    # Deviation m of the patch and d of its frozen surroundings, both of the same start:
    # m' = slope ((1 - 1/K) d + m/K) - m, d' = 0.
    chain = CurieWeissExact(n_sites=4096, **PUBLISHED)
    slope = 1 - chain.linear_relaxation_rate()
    matrix = [[slope / n_patches - 1, slope * (1 - 1 / n_patches)], [0, 0]]
    for duration in (0.0, 0.1, 2.6272):
        expected = (expm(np.array(matrix) * duration) @ np.ones(2))[0]
        assert chain.patch_multiplier(n_patches, duration) == pytest.approx(expected, rel=1e-13)


def test_patch_multiplier_equals_full_multiplier_for_one_patch():
    durations = np.linspace(0, 5, 11)
    for temperature in (0.8, 1.0, 1.5):  # at T = 1 without field nothing decays
        chain = CurieWeissExact(n_sites=64, temperature=temperature, field=0.0)
        np.testing.assert_allclose(
            chain.patch_multiplier(1, durations), chain.full_multiplier(durations), rtol=1e-14
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_sites", 0),
        ("n_sites", 64.0),
        ("temperature", 0.0),
        ("temperature", float("inf")),
        ("field", float("nan")),
    ],
)
def test_chain_raises_when_parameter_not_allowed(name, value):
    with pytest.raises(ValueError, match=f"{name} .*allowed"):
        CurieWeissExact(**{"n_sites": 64, **PUBLISHED, name: value})


@pytest.mark.parametrize("times", [[-1.0, 2.0], [2.0, 1.0], [float("nan")], [[1.0]]])
def test_moments_raise_when_times_not_allowed(times):
    with pytest.raises(ValueError, match="times"):
        WARM.moments(0.0, times)


def test_functions_raise_when_argument_not_allowed():
    with pytest.raises(ValueError, match="starts"):
        WARM.moments(1.5, [1.0])
    with pytest.raises(ValueError, match="magnetization"):
        WARM.drift([0.0, -1.01])
    with pytest.raises(ValueError, match="lags"):
        WARM.autocorrelation([-1.0])
    with pytest.raises(ValueError, match="n_patches"):
        WARM.patch_multiplier(0, 1.0)
    with pytest.raises(ValueError, match="duration"):
        WARM.full_multiplier(-1.0)


def test_autocorrelation_raises_when_observable_constant():
    with pytest.raises(ValueError, match="does not fluctuate"):
        CurieWeissExact(n_sites=1, **PUBLISHED).relaxation_time(absolute=True)
