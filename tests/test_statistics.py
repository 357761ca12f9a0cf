"""Estimates with standard errors, against formulas that can be checked by hand."""

import math

import numpy as np
import oracles
import pytest

from macrodyn_lib.statistics import (
    Estimate,
    autocorrelation,
    binder_cumulant,
    correlation_function,
    jackknife,
    maximum_mean_discrepancy,
    mean_estimate,
    mmd_estimate,
    mmd_permutation_test,
    power_law,
    ratio,
    relative_error,
    relaxation_time,
    structure_factor,
    susceptibility,
)


def autoregressive(coefficient, shape, seed=0):
    """Stationary x(t+1) = a x(t) + xi, of autocorrelation a^lag."""
    rng = np.random.default_rng(seed)
    series = np.empty(shape)
    series[:, 0] = rng.standard_normal(shape[0]) / math.sqrt(1 - coefficient**2)
    for t in range(1, shape[1]):
        series[:, t] = coefficient * series[:, t - 1] + rng.standard_normal(shape[0])
    return series


def test_mean_estimate_equals_std_over_root_count():
    estimate = mean_estimate(np.array([1.0, 2.0, 6.0]))
    assert estimate == Estimate(3.0, pytest.approx(math.sqrt(7 / 3)), 3)


def test_jackknife_of_the_mean_equals_mean_estimate():
    values = np.random.default_rng(0).standard_normal(7)
    jack, plain = jackknife(values, lambda kept: float(kept.mean())), mean_estimate(values)
    assert jack.value == pytest.approx(plain.value)
    assert jack.standard_error == pytest.approx(plain.standard_error)


def test_jackknife_of_a_square_equals_the_delta_method():
    # se of mean^2 is 2 |mean| se up to 1/R
    values = 5 + np.random.default_rng(1).standard_normal(400)
    square = jackknife(values, lambda kept: float(kept.mean() ** 2))
    plain = mean_estimate(values)
    assert square.standard_error == pytest.approx(2 * plain.value * plain.standard_error, rel=0.01)


@pytest.mark.parametrize("function", [mean_estimate, lambda v: jackknife(v, np.mean)])
def test_standard_error_raises_for_a_single_value(function):
    with pytest.raises(ValueError, match="at least two"):
        function(np.ones(1))


def test_allowance_keeps_the_false_alarm_rate_of_few_members():
    # means of four standard normals about 0: 3 sigma are exceeded by 2.7e-3, 54 +- 7.3 of 20 000
    values = np.random.default_rng(0).standard_normal((20_000, 4))
    means, errors = values.mean(axis=1), values.std(axis=1, ddof=1) / 2
    assert abs(np.sum(np.abs(means) > Estimate(0, 1, 4).allowance(3) * errors) - 54) < 4 * 7.3
    assert np.sum(np.abs(means) > 3 * errors) > 800  # planted: z taken for t
    assert Estimate(0, 1).allowance(3) == 3


def test_relative_error_equals_hand_calculation():
    truth = np.array([[[3.0], [4.0]], [[1.0], [0.0]]])  # squares sum to 25 and 1
    predicted = truth + np.array([[[1.0], [2.0]], [[0.0], [0.5]]])  # 5 and 0.25
    assert relative_error(predicted, truth) == pytest.approx((5 / 25 + 0.25 / 1) / 2)


def test_starts_whose_true_mean_is_zero_have_no_relative_error():
    truth = np.array([[[3.0], [4.0]], [[0.0], [1e-18]]])
    assert relative_error(truth + 1.0, truth) == pytest.approx(2 / 25)
    with pytest.raises(ValueError, match="true_mean is zero at all times"):
        relative_error(truth[1:] + 1.0, truth[1:])


def test_relative_error_raises_for_disagreeing_shapes():
    with pytest.raises(ValueError, match=r"predicted_mean has shape \(2, 3, 1\)"):
        relative_error(np.zeros((2, 3, 1)), np.zeros((2, 4, 1)))


def test_autocorrelation_equals_direct_sums():
    series = autoregressive(0.8, (3, 50))
    centred = series - series.mean()
    direct = [np.mean(centred[:, : 50 - lag] * centred[:, lag:]) for lag in range(5)]
    np.testing.assert_allclose(autocorrelation(series, 5), np.array(direct) / direct[0], rtol=1e-12)


def test_relaxation_time_of_autoregression_within_its_error():
    # 1/e time of a^lag, by linear interpolation between lags as the function does
    coefficient, spacing = 0.9, 0.5
    lags = np.arange(200)
    expected = spacing * np.interp(-math.exp(-1), -(coefficient**lags), lags)
    times = [
        relaxation_time(autoregressive(coefficient, (20, 2000), seed), spacing)
        for seed in range(20)
    ]
    estimate = mean_estimate(np.array(times))
    # |z| < 4 with 19 degrees of freedom: false alarm 8e-4
    assert abs(estimate.value - expected) < 4 * estimate.standard_error
    assert abs(estimate.value - 2 * expected) > 4 * estimate.standard_error  # planted: spacing lost


def test_relaxation_time_of_a_slow_series_is_the_longest_lag():
    series = np.linspace(0, 1, 100)[None] + np.arange(3)[:, None]
    assert relaxation_time(series, 0.5) == 0.5 * 49


def test_autocorrelation_raises_for_too_many_lags():
    with pytest.raises(ValueError, match="n_lags = 11: must be 1 to 10"):
        autocorrelation(np.zeros((1, 10)), 11)


def test_susceptibility_by_hand():
    # mean square 2.5, mean modulus 1.5: (8 / 0.5) (2.5 - 2.25)
    assert susceptibility(np.array([[1.0, -2.0], [-1.0, 2.0]]), 8, 0.5) == pytest.approx(4.0)
    assert susceptibility(np.array([0.5, -0.5]), 64, 2.0) == 0


@pytest.mark.parametrize("m", [[0.3, 0.3, -0.3], [1, -1], [[2.0], [2.0]]])
def test_binder_cumulant_of_one_modulus_is_two_thirds(m):
    assert binder_cumulant(np.array(m)) == pytest.approx(2 / 3)


def test_binder_cumulant_of_normal_values_vanishes():
    """For N of them <m^4> / <m^2>^2 has mean 3 N / (N + 2), whatever their variance."""
    m = 0.1 * np.random.default_rng(0).standard_normal((20_000, 8))
    few = mean_estimate(np.array([binder_cumulant(sample) for sample in m]))
    assert abs(few.value - 2 / (8 + 2)) < 4 * few.standard_error  # false alarm 6e-5
    # var U = var(m^4 / 3 - 2 m^2) / N = (96 / 9 - 16 + 8) / N for unit variance
    assert abs(binder_cumulant(m)) < 4 * math.sqrt(8 / (3 * m.size))
    uniform = np.random.default_rng(0).uniform(-1, 1, 10**5)
    assert binder_cumulant(uniform) == pytest.approx(0.4, abs=0.01)  # 1 - (1/5) / (3/9)


def test_binder_cumulant_of_nothing_but_zeros_raises():
    with pytest.raises(ValueError, match="m is zero everywhere: the Binder cumulant is undefined"):
        binder_cumulant(np.zeros((3, 2)))


def lattices(side):
    """Of no symmetry: the two axes differ."""
    rng = np.random.default_rng(side)
    return rng.choice([-1, 1], size=(3, side, side), p=[0.3, 0.7]) * np.arange(1, side + 1)


@pytest.mark.parametrize("side", [4, 5])
def test_correlation_function_equals_direct_sums(side):
    states = lattices(side)
    direct = np.zeros((3, side // 2 + 1))
    for r in range(side // 2 + 1):
        for x in range(side):
            for y in range(side):
                for neighbour in (states[:, (x + r) % side, y], states[:, x, (y + r) % side]):
                    direct[:, r] += states[:, x, y] * neighbour / (2 * side**2)
    np.testing.assert_allclose(correlation_function(states), direct, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", [4, 5])
def test_structure_factor_equals_direct_sums(side):
    states = lattices(side)
    direct = np.zeros((3, side // 2 + 1))
    for j in range(side // 2 + 1):
        for axis in (0, 1):
            amplitude = np.zeros(3, dtype=complex)
            for x in range(side):
                for y in range(side):
                    phase = 2 * math.pi * j * (x, y)[axis] / side
                    amplitude += states[:, x, y] * np.exp(-1j * phase)
            direct[:, j] += np.abs(amplitude) ** 2 / (2 * side**2)
    np.testing.assert_allclose(structure_factor(states), direct, rtol=1e-12, atol=1e-12)


def test_structure_factor_obeys_parseval():
    """Over all k of an axis it adds up to the squares of the sums across that axis, over L."""
    states = lattices(6)
    half = structure_factor(states)
    everything = half[:, 0] + 2 * half[:, 1:3].sum(axis=1) + half[:, 3]  # S(-k) = S(k)
    squares = [np.square(states.sum(axis=axis)).sum(axis=1) / 6 for axis in (1, 2)]
    np.testing.assert_allclose(everything, np.mean(squares, axis=0))
    np.testing.assert_allclose(half[:, 0], 36 * states.mean(axis=(1, 2)) ** 2)


BANDWIDTHS = (0.25, 0.5, 1, 2, 4, 8)


def samples(shift=0.0, sizes=(12, 9), seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(sizes[0], 3)), rng.normal(shift, 1, size=(sizes[1], 3))


@pytest.mark.parametrize("biased", [True, False])
def test_maximum_mean_discrepancy_equals_direct_evaluation(biased):
    x, y = samples(0.5)
    value = maximum_mean_discrepancy(x, y, biased=biased)
    assert value == pytest.approx(
        oracles.maximum_mean_discrepancy(x, y, BANDWIDTHS, biased), rel=1e-12
    )
    # planted: the kernel without its factor 1/2
    wider = tuple(np.array(BANDWIDTHS) / np.sqrt(2))
    assert abs(value - oracles.maximum_mean_discrepancy(x, y, wider, biased)) > 1e-3


def test_biased_discrepancy_of_a_sample_with_itself_is_zero():
    x, _ = samples()
    assert maximum_mean_discrepancy(x, x) == pytest.approx(0, abs=1e-14)


def test_unbiased_discrepancy_has_mean_zero_for_equal_laws_and_biased_does_not():
    pairs = [samples(seed=seed) for seed in range(400)]
    unbiased = np.array([maximum_mean_discrepancy(*pair, biased=False) for pair in pairs])
    biased = np.array([maximum_mean_discrepancy(*pair) for pair in pairs])
    assert abs(oracles.z_of_mean(unbiased, 0.0)) < 4  # false alarm 6e-5
    assert oracles.z_of_mean(biased, 0.0) > 20


@pytest.mark.parametrize("biased", [True, False])
def test_jackknife_error_of_the_discrepancy_equals_its_spread(biased):
    pairs = [samples(1.0, (40, 60), seed) for seed in range(300)]
    estimates = [mmd_estimate(*pair, biased=biased) for pair in pairs]
    values = np.array([e.value for e in estimates])
    assert values[0] == maximum_mean_discrepancy(*pairs[0], biased=biased)
    errors = np.array([e.standard_error for e in estimates])
    # the spread of 300 values is known to 4 %, and a jackknife is a little conservative
    assert 0.88 < np.sqrt(np.square(errors).mean()) / values.std(ddof=1) < 1.2


def test_permutation_test_is_level_and_sees_a_shift():
    rng = np.random.default_rng(1)
    equal = [
        mmd_permutation_test(*samples(0.0, (15, 15), seed), rng, permutations=60)
        for seed in range(150)
    ]
    # p is uniform for equal laws: mean 1/2 with standard error 0.29 / sqrt(150); |z| < 4
    assert abs(np.mean(equal) - 0.508) < 4 * 0.29 / np.sqrt(150)
    assert np.mean(np.array(equal) < 0.1) < 0.2
    shifted = mmd_permutation_test(*samples(1.5, (15, 15)), rng, permutations=60)
    assert shifted == pytest.approx(1 / 61)


@pytest.mark.parametrize(
    ("x", "y", "bandwidths", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 1)), (1,), r"x has shape \(3, 2\), y \(3, 1\): must be"),
        (np.zeros((1, 2)), np.zeros((3, 2)), (1,), "at least two points"),
        (np.zeros((3, 2)), np.zeros((3, 2)), (1, 0), "bandwidths = .*: must be positive"),
        (np.zeros((3, 2)), np.zeros((3, 2)), (), "bandwidths = .*: must be positive"),
    ],
)
def test_discrepancy_raises_for_wrong_samples(x, y, bandwidths, message):
    with pytest.raises(ValueError, match=message):
        maximum_mean_discrepancy(x, y, bandwidths)


def test_ratio_has_the_error_of_both():
    found = ratio(Estimate(3.0, 0.03, 8), Estimate(2.0, 0.04, 30))
    assert found.value == 1.5 and found.members == 8
    assert found.standard_error == pytest.approx(1.5 * np.hypot(0.01, 0.02))


def test_power_law_finds_the_exponent_within_its_error():
    x, rng = np.array([1.0, 10.0, 100.0, 1000.0]), np.random.default_rng(2)
    errors = np.array([0.01, 0.02, 0.05, 0.1])

    def fit(exponent):
        noise = 1 + errors * rng.standard_normal(4)
        values = 2 * x**exponent * noise
        return power_law([Estimate(v, e * v, 4) for v, e in zip(values, errors, strict=True)], x)

    fits = [fit(-0.5) for _ in range(200)]
    scores = np.array([(f.value + 0.5) / f.standard_error for f in fits])
    assert abs(scores.mean()) < 4 / np.sqrt(200)  # false alarm 6e-5
    assert 0.8 < scores.std() < 1.2
    assert abs(fit(-0.6).value + 0.5) > 5 * fits[0].standard_error  # planted: another exponent
