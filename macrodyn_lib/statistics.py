"""Numbers with standard errors: arrays in, estimates out."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.special


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its standard error (None: exact or not applicable).

    members: independent values behind the standard error; None: so many that it is exact.
    """

    value: float
    standard_error: float | None = None
    members: int | None = None

    def allowance(self, z: float) -> float:
        """Standard errors that hold the same probability as z sigma of a normal law.

        With R members that is Student's t of R - 1 degrees of freedom: 3 sigma are 9.2 standard
        errors for R = 4, 4.5 for R = 8, 3.1 for R = 64.
        """
        if self.members is None:
            return z
        # by the special functions: scipy.stats takes half a second to import
        return float(-scipy.special.stdtrit(self.members - 1, scipy.special.ndtr(-z)))

    def __str__(self) -> str:
        if self.standard_error is None:
            return f"{self.value:.5g}"
        return f"{self.value:.5g} ± {self.standard_error:.2g}"


def mean_estimate(values: np.ndarray) -> Estimate:
    """Mean of independent values (R,) and its standard error, std / sqrt R.

    Raises: ValueError: fewer than two values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values has shape {values.shape}: a standard error needs at least two")
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    return Estimate(float(values.mean()), error, len(values))


def ratio(first: Estimate, second: Estimate) -> Estimate:
    """Quotient of two independent estimates, its error to first order."""
    errors = [(e.standard_error or 0.0) / e.value for e in (first, second)]
    value = first.value / second.value
    return Estimate(value, abs(value) * math.hypot(*errors), first.members)


def power_law(values: Sequence[Estimate], x: Sequence[float]) -> Estimate:
    """Exponent p of value ~ x^p: weighted straight line through independent logarithms.

    values: positive, each with a standard error > 0.
    """
    logs = np.log([e.value for e in values])
    errors = np.array([(e.standard_error or 0.0) / e.value for e in values])
    line, covariance = np.polyfit(np.log(x), logs, 1, w=1 / errors, cov="unscaled")
    return Estimate(float(line[0]), math.sqrt(covariance[0, 0]), values[0].members)


def lowest_of_parabola(x: np.ndarray, y: np.ndarray) -> float:
    """Where a parabola through three points is lowest, as far as between them.

    That of the lowest point where the parabola is not curved upwards.
    """
    curvature, slope, _ = np.polyfit(x, y, 2)
    if curvature <= 0:
        return float(x[int(np.argmin(y))])
    return float(np.clip(-slope / (2 * curvature), min(x), max(x)))


def jackknife(members: np.ndarray, estimator: Callable[[np.ndarray], float]) -> Estimate:
    """An estimator of data pooled over independent members, with its jackknife standard error.

        se^2 = (R - 1)/R sum_r (estimate without r - their mean)^2

    Args:    members: (R, ...), independent along the first axis.
             estimator: maps (any number of members, ...) to a number.
    Raises:  ValueError: fewer than two members.
    """
    count = len(members)
    if count < 2:
        raise ValueError(f"members has {count} rows: a standard error needs at least two")
    without = np.array([estimator(np.delete(members, r, axis=0)) for r in range(count)])
    error = float(math.sqrt(count - 1) * without.std())
    return Estimate(float(estimator(members)), error, count)


def relative_error(predicted_mean: np.ndarray, true_mean: np.ndarray) -> float:
    """Test error of the paper: how far the mean path is off, averaged over initial conditions.

        error = mean_B [ sum_{t,d} (predicted - true)^2 / sum_{t,d} true^2 ]

    Initial conditions whose true mean stays zero have no relative error and are left out.

    Args:   predicted_mean, true_mean: (B, T, d), means over replicas at the same times.
    Raises: ValueError: shapes disagree, or all of true_mean is zero.
    Source: paper Sec. III ("mean relative error of the mean macroscopic observables").
    """
    if predicted_mean.shape != true_mean.shape or predicted_mean.ndim != 3:
        raise ValueError(
            f"predicted_mean has shape {predicted_mean.shape}: must be that of true_mean, "
            f"{true_mean.shape}, with axes (B, T, d)"
        )
    squares = np.square(predicted_mean - true_mean).sum(axis=(1, 2))
    norms = np.square(true_mean).sum(axis=(1, 2))
    known = norms > ZERO**2 * true_mean[0].size
    if not known.any():
        raise ValueError("true_mean is zero at all times: there is no relative error")
    return float(np.mean(squares[known] / norms[known]))


def autocorrelation(series: np.ndarray, n_lags: int) -> np.ndarray:
    """Autocorrelation of stationary series, pooled over replicas about their common mean.

    Args:    series: (B, T), equally spaced in time.  n_lags: <= T.
    Returns: (n_lags,), 1 at lag 0.
    Source:  C(l) = mean over replicas and starts of x(t) x(t + l), by zero-padded FFT.
    """
    count = series.shape[1]
    if not 1 <= n_lags <= count:
        raise ValueError(f"n_lags = {n_lags}: must be 1 to {count}, the number of times")
    centred = series - series.mean()
    transform = np.fft.rfft(centred, n=2 * count, axis=1)
    products = np.fft.irfft(np.square(np.abs(transform)).mean(axis=0))[:n_lags]
    covariance = products / (count - np.arange(n_lags))
    return covariance / covariance[0]


def relaxation_time(series: np.ndarray, spacing: float) -> float:
    """Lag at which the autocorrelation of stationary series (B, T) first falls to 1/e.

    Linear interpolation between lags. A series that does not fall that far within half its length
    gives that length, a lower bound.
    """
    n_lags = series.shape[1] // 2
    correlation = autocorrelation(series, n_lags)
    below = np.nonzero(correlation < math.exp(-1))[0]
    if len(below) == 0:
        return spacing * (n_lags - 1)
    after = below[0]
    high, low = correlation[after - 1], correlation[after]
    return float(spacing * (after - 1 + (high - math.exp(-1)) / (high - low)))


def correlation_function(states: np.ndarray) -> np.ndarray:
    """Two-point function along the axes, C(r) = <s(x) s(x + r)>, mean over sites and axes.

    Args: states: (B, L, L), periodic.  Returns: (B, L // 2 + 1), r = 0, 1, ...
    """
    power = np.square(np.abs(np.fft.rfft2(states.astype(np.float64))))
    full = np.fft.irfft2(power, s=states.shape[1:]) / math.prod(states.shape[1:])
    count = states.shape[1] // 2 + 1
    return (full[:, 0, :count] + full[:, :count, 0]) / 2


def structure_factor(states: np.ndarray) -> np.ndarray:
    """S(k) = |sum_x s(x) exp(-i k x)|^2 / L^2 for k along the axes, mean over both.

    Args: states: (B, L, L), periodic.  Returns: (B, L // 2 + 1), k = 2 pi j / L.
    """
    power = np.square(np.abs(np.fft.fft2(states.astype(np.float64)))) / math.prod(states.shape[1:])
    count = states.shape[1] // 2 + 1
    return (power[:, 0, :count] + power[:, :count, 0]) / 2


def susceptibility(m: np.ndarray, n_sites: int, temperature: float) -> float:
    """X = (n / T) (<m^2> - <|m|>^2) of magnetizations m, any shape."""
    m = np.asarray(m, dtype=np.float64)
    return float(n_sites / temperature * (np.square(m).mean() - np.abs(m).mean() ** 2))


def binder_cumulant(m: np.ndarray) -> float:
    """U = 1 - <m^4> / (3 <m^2>^2) of magnetizations m, any shape; 2/3 for m = +-const.

    Raises: ValueError: all m are zero.
    """
    squares = np.square(np.asarray(m, dtype=np.float64))
    if not squares.any():
        raise ValueError("m is zero everywhere: the Binder cumulant is undefined")
    return float(1 - np.square(squares).mean() / (3 * squares.mean() ** 2))


# Bandwidths of the kernel mixture with which the paper compares laws of latents.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def maximum_mean_discrepancy(
    x: np.ndarray,
    y: np.ndarray,
    bandwidths: Sequence[float] = BANDWIDTHS,
    biased: bool = True,
) -> float:
    """Squared maximum mean discrepancy of two samples under a mixture of Gaussian kernels.

        MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),
        k(x, y) = mean over s of exp(-|x - y|^2 / (2 s^2))

    biased: the mean over all pairs, those of a point with itself too (V-statistic, the paper's:
    at least 0, of the order 1/N for equal laws); else over pairs of different points (U-statistic,
    mean 0 for equal laws).

    Args:   x: (N, d), y: (M, d); with several components of unlike scale normalise them first.
    Raises: ValueError: shapes disagree, a sample of one point, or a bandwidth <= 0.
    Source: Gretton et al., J. Mach. Learn. Res. 13 (2012) 723, Eq. 3 and 5; paper Sec. III.1.
    """
    return _mmd(*_kernels(x, y, bandwidths), biased)


def mmd_estimate(
    x: np.ndarray,
    y: np.ndarray,
    bandwidths: Sequence[float] = BANDWIDTHS,
    biased: bool = True,
) -> Estimate:
    """Squared MMD with the standard error of a jackknife over the points of both samples.

    For laws that differ; for equal laws the estimator is not normal: use the permutation test.
    """
    within_x, within_y, across = _kernels(x, y, bandwidths)

    def variance(first: np.ndarray, second: np.ndarray, between: np.ndarray) -> float:
        count = len(first)
        without = first.sum() - 2 * first.sum(axis=1) + first.diagonal()
        if biased:
            without = without / (count - 1) ** 2
        else:
            without = (without - (first.trace() - first.diagonal())) / ((count - 1) * (count - 2))
        cross = (between.sum() - between.sum(axis=1)) / ((count - 1) * len(second))
        return float((count - 1) * (without - 2 * cross).var())

    error = variance(within_x, within_y, across) + variance(within_y, within_x, across.T)
    count = min(len(within_x), len(within_y))
    return Estimate(_mmd(within_x, within_y, across, biased), math.sqrt(error), count)


def mmd_permutation_test(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    *,
    permutations: int = 500,
    bandwidths: Sequence[float] = BANDWIDTHS,
) -> float:
    """p-value of equal laws: how often a random division of the pooled points is as far apart.

    Exact for any sample size: the observed division counts too, p = (1 + #) / (1 + permutations).
    """
    within_x, within_y, across = _kernels(x, y, bandwidths)
    pooled = np.block([[within_x, across], [across.T, within_y]])
    n = len(within_x)
    observed, count = _mmd(within_x, within_y, across, True), 1
    for _ in range(permutations):
        order = rng.permutation(len(pooled))
        shuffled = pooled[np.ix_(order, order)]
        # equal up to rounding counts as equal
        count += _mmd(shuffled[:n, :n], shuffled[n:, n:], shuffled[:n, n:], True) > observed - 1e-12
    return count / (1 + permutations)


def _mmd(within_x: np.ndarray, within_y: np.ndarray, across: np.ndarray, biased: bool) -> float:
    if biased:
        return float(within_x.mean() + within_y.mean() - 2 * across.mean())
    means = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (within_x, within_y)]
    return float(sum(means) - 2 * across.mean())


def _kernels(
    x: np.ndarray, y: np.ndarray, bandwidths: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel matrices (N, N), (M, M), (N, M)."""
    from scipy.spatial.distance import cdist  # a fifth of a second that few kernels need

    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"x has shape {x.shape}, y {y.shape}: must be (N, d) and (M, d), at least two points"
        )
    if len(bandwidths) == 0 or not np.min(bandwidths) > 0:
        raise ValueError(f"bandwidths = {bandwidths}: must be positive numbers, at least one")

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squares = cdist(a, b, "sqeuclidean")
        return np.mean([np.exp(-squares / (2 * s**2)) for s in bandwidths], axis=0)

    return kernel(x, x), kernel(y, y), kernel(x, y)


def short_range_order(states: np.ndarray) -> np.ndarray:
    """Short-range order of alloys, delta_ab = P_ab / n_a - 8/3, (B, 6).

    P_ab counts the first neighbours b of all n_a atoms a, for ab = NbNb, NbMo, NbTa, MoMo, MoTa,
    TaTa. Args: states: (B, X, Y, Z, 2) codes, 0 vacancy, 1 Nb, 2 Mo, 3 Ta, periodic BCC.
    Source: paper Eq. 30, with n_a in place of n_i as in the published code.
    """
    corners, centres = states[..., 0], states[..., 1]
    pairs = np.zeros((len(states), 4, 4))
    for shift in itertools.product((0, 1), repeat=3):
        joint = 4 * corners.astype(np.int64) + np.roll(centres, shift, axis=(1, 2, 3))
        for row, codes in enumerate(joint.reshape(len(states), -1)):
            pairs[row] += np.bincount(codes, minlength=16).reshape(4, 4)
    pairs += np.swapaxes(pairs, 1, 2)
    atoms = np.stack([(states == a).sum(axis=(1, 2, 3, 4)) for a in (1, 2, 3)], axis=-1)
    first, second = np.triu_indices(3)
    return pairs[:, first + 1, second + 1] / atoms[:, first] - 8 / 3


ZERO = 1e-10  # a mean path no farther from 0, in the root mean square, is rounding
# Scaled distances |T - Tc| L beyond which a size does not enter a fit, and up to which a polynomial
# of that degree follows ln |M| and ln X (levels) or the Binder cumulant (slopes): at twice the
# range, exact scaling functions cost a bias of half a percent in nu.
FARTHEST = 3.0
LEVEL_DEGREES = {1.5: 2, math.inf: 3}
SLOPE_DEGREES = {0.8: 1, 1.2: 2, math.inf: 3}
COLLAPSE_DEGREE = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FiniteSizeData:
    """|M|, susceptibility and Binder cumulant over sizes L and temperatures, with standard errors.

    sizes (S,) and temperatures (T,), ascending; the others (S, T); errors: by the same names.
    """

    sizes: np.ndarray
    temperatures: np.ndarray
    abs_magnetization: np.ndarray
    susceptibility: np.ndarray
    binder: np.ndarray
    errors: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        shape = (len(self.sizes), len(self.temperatures))
        if shape[0] < 2 or shape[1] < 3:
            raise ValueError(f"{shape[0]} sizes, {shape[1]} temperatures: must be >= 2 and >= 3")
        for name in ("abs_magnetization", "susceptibility", "binder"):
            for what, values in (
                (name, getattr(self, name)),
                ("error of " + name, self.errors[name]),
            ):
                if np.shape(values) != shape or not np.isfinite(values).all():
                    raise ValueError(
                        f"{what} has shape {np.shape(values)}: must be finite, {shape}"
                    )
            if not (np.asarray(self.errors[name]) > 0).all():
                raise ValueError(f"error of {name}: must be > 0 everywhere")

    def select(self, sizes: Sequence[int]) -> "FiniteSizeData":
        """Some of the sizes."""
        rows = np.isin(self.sizes, sizes)
        names = ("abs_magnetization", "susceptibility", "binder")
        return dataclasses.replace(
            self,
            sizes=self.sizes[rows],
            errors={name: self.errors[name][rows] for name in names},
            **{name: getattr(self, name)[rows] for name in names},
        )

    def resolved_sizes(self) -> list[int]:
        """Sizes at which no |M| or X has an error of more than a third of it."""
        parts = [
            self.errors[name] / getattr(self, name)
            for name in ("abs_magnetization", "susceptibility")
        ]
        return [int(size) for size in self.sizes[(np.maximum(*parts) < 1 / 3).all(axis=1)]]

    def resampled(self, rng: np.random.Generator) -> "FiniteSizeData":
        """The same with each value moved by a normal number of its standard error; |M| and X, which
        are positive, by factors."""
        moved = {}
        for name, error in self.errors.items():
            value, draws = getattr(self, name), rng.standard_normal(error.shape)
            positive = name != "binder"
            moved[name] = (
                value * np.exp(error / value * draws) if positive else value + error * draws
            )
        return dataclasses.replace(self, **moved)


def fit_exponents(
    data: FiniteSizeData,
    *,
    critical_temperature: float,
    rng: np.random.Generator,
    resamples: int = 200,
) -> dict[str, Estimate]:
    """Critical exponents from finite-size scaling, with errors by parametric bootstrap.

        <|M|> ~ L^(-beta/nu),   X ~ L^(gamma/nu),   |dU/dT| ~ L^(1/nu)   at T = Tc

    Log-log fits: a polynomial in T through the temperatures of each size gives level and slope at
    ``critical_temperature``, then a straight line in log L, each weighted. Collapse: U = f(x) with
    x = (T - Tc) L^(1/nu), f a polynomial, gives nu and Tc at once; with these, ln |M| and ln X less
    a multiple of ln L are polynomials of x. Temperatures with |T - Tc| L > 3 are left out.

    Returns: beta_over_nu, gamma_over_nu, nu (log-log fits), critical_temperature (where U
             collapses), collapse.{beta_over_nu,gamma_over_nu,nu}.
    Source:  paper Sec. III.2, figures 5 and 6; facts on what exact data give in docs/decisions.md.
    """
    values = _exponents(data, critical_temperature)
    draws = [_exponents(data.resampled(rng), critical_temperature) for _ in range(resamples)]
    return {
        name: Estimate(value, float(np.std([draw[name] for draw in draws], ddof=1)))
        for name, value in values.items()
    }


def levels_and_slopes(
    data: FiniteSizeData, critical_temperature: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ln |M|, ln X and |dU/dT| of each size at Tc, each (S, 2): value and standard error."""
    rows = [_at_critical(data, index, critical_temperature) for index in range(len(data.sizes))]
    first, second, third = (np.array(column) for column in zip(*rows, strict=True))
    return first, second, third


def _at_critical(
    data: FiniteSizeData, index: int, critical_temperature: float
) -> tuple[tuple[float, float], ...]:
    size = data.sizes[index]
    kept = _near(data.temperatures, size, critical_temperature)
    t = data.temperatures[kept] - critical_temperature
    scaled = float(np.abs(t).max() * size)
    results = []
    for name, order in (("abs_magnetization", 0), ("susceptibility", 0), ("binder", 1)):
        value, error = getattr(data, name)[index, kept], data.errors[name][index, kept]
        if order == 0:
            value, error = np.log(value), error / value
        degrees = LEVEL_DEGREES if order == 0 else SLOPE_DEGREES
        degree = min(next(d for limit, d in degrees.items() if scaled <= limit), len(t) - 1)
        # what the coefficient is of the values, so that its error is known too
        design = np.vander(t, degree + 1, increasing=True) / error[:, None]
        weights = np.linalg.pinv(design)[order] / error
        results.append((float(weights @ value), float(np.linalg.norm(weights * error))))
    level, high, slope = results
    return level, high, (-slope[0], slope[1])


def _near(temperatures: np.ndarray, size: float, critical_temperature: float) -> np.ndarray:
    """Indices of temperatures close enough to the critical one, at least the three nearest."""
    distance = np.abs(temperatures - critical_temperature)
    nearest = np.argsort(distance)[:3]
    return np.union1d(np.nonzero(distance * size <= FARTHEST)[0], nearest)


def _exponents(data: FiniteSizeData, critical_temperature: float) -> dict[str, float]:
    magnetization, response, slope = levels_and_slopes(data, critical_temperature)
    logs = np.log(data.sizes)
    steepness = _line(logs, np.log(np.abs(slope[:, 0])), slope[:, 1] / np.abs(slope[:, 0]))
    collapsed = _collapse(data, critical_temperature)
    return {
        "beta_over_nu": -_line(logs, magnetization[:, 0], magnetization[:, 1]),
        "gamma_over_nu": _line(logs, response[:, 0], response[:, 1]),
        "nu": 1 / steepness,
        **collapsed,
    }


def _line(x: np.ndarray, y: np.ndarray, error: np.ndarray) -> float:
    """Slope of a weighted straight line."""
    return float(np.polyfit(x, y, 1, w=1 / error)[0])


def _collapse(data: FiniteSizeData, critical_temperature: float) -> dict[str, float]:
    import scipy.optimize  # only here

    near = [_near(data.temperatures, size, critical_temperature) for size in data.sizes]
    rows = np.repeat(np.arange(len(near)), [len(kept) for kept in near])
    columns = np.concatenate(near)
    sizes, temperatures = data.sizes[rows], data.temperatures[columns]

    def design(guess: np.ndarray) -> np.ndarray:
        x = (temperatures - guess[0]) * sizes ** guess[1] / FARTHEST
        return np.vander(x, COLLAPSE_DEGREE + 1)

    def rest(guess: np.ndarray) -> np.ndarray:
        value, error = data.binder[rows, columns], data.errors["binder"][rows, columns]
        matrix = design(guess) / error[:, None]
        solution = np.linalg.lstsq(matrix, value / error, rcond=None)[0]
        return np.asarray(matrix @ solution - value / error)

    best = scipy.optimize.least_squares(rest, [critical_temperature, 1.0], x_scale=[0.01, 1.0]).x
    results = {"critical_temperature": float(best[0]), "collapse.nu": float(1 / best[1])}
    for name, quantity, sign in (
        ("beta_over_nu", "abs_magnetization", -1),
        ("gamma_over_nu", "susceptibility", 1),
    ):
        value = getattr(data, quantity)[rows, columns]
        error = data.errors[quantity][rows, columns] / value
        matrix = np.column_stack([np.log(sizes), design(best)]) / error[:, None]
        slope = np.linalg.lstsq(matrix, np.log(value) / error, rcond=None)[0][0]
        results[f"collapse.{name}"] = float(sign * slope)
    return results
