"""Exact references: what a simulation or a learned model must reproduce.

Closed formulas, enumeration and deterministic numerical solution only: nothing here draws random
numbers, and nothing here shares code with the simulators it judges.

    LinearChainExact   boundary-driven linear chain (paper App. D.2): Gaussian, closed formulas
    CurieWeissExact    Curie-Weiss Glauber dynamics (paper App. D.1): birth-death chain in S

"The paper" is arXiv 2511.12842.
"""

from dataclasses import dataclass
from operator import index
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import LSODA
from scipy.linalg import solve_banded
from scipy.optimize import brentq
from scipy.special import expit, gammaln

Array = NDArray[np.floating]

# Local error bounds of the backward equation, relative and absolute (its unknowns are of order 1).
# Measured against bounds of 3e-13 (n = 4096, 16384): mean right to 6e-10, n * variance to 8e-8.
MOMENT_TOLERANCES = {"rtol": 1e-9, "atol": 1e-11}

# Nodes of the contour that represents the exponential: its error falls as 3.89^-nodes, to 7e-15
# here; more nodes only add rounding errors, which grow as exp(0.17 nodes).
CONTOUR_NODES = 24

# Relative accuracy promised for a relaxation time; it sets how long a time can be resolved.
RELAXATION_ACCURACY = 1e-6


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LinearChainExact:
    """Boundary-driven chain of N particles, whose mean m obeys a closed Ornstein-Uhlenbeck law.

        dX_1 = [-g X_1 + k (X_2 - X_1) + F] dt + s dW_1
        dX_i = [-g X_i + k (X_{i-1} - 2 X_i + X_{i+1})] dt + s dW_i        1 < i < N
        dX_N = [-g X_N + k (X_{N-1} - X_N)] dt + s dW_N
        dm   = [-g m + F/N] dt + (s / sqrt N) dB

    Args:    n_particles: N >= 1.  friction: g > 0, per time.  coupling: k >= 0, per time.
             noise: s >= 0, per root time.  force: F, on the first particle, per time.
    Raises:  ValueError: an argument is not finite or out of the range above.
    Source:  paper App. D.2.
    """

    n_particles: int
    friction: float
    coupling: float
    noise: float
    force: float

    def __post_init__(self) -> None:
        _require_integer("n_particles", self.n_particles, minimum=1)
        _require_positive("friction", self.friction)
        _require_nonnegative("coupling", self.coupling)
        _require_nonnegative("noise", self.noise)
        _require_finite("force", self.force)

    @property
    def slope(self) -> float:
        """Slope -g of the drift of m, per time (paper App. D.2)."""
        return -self.friction

    @property
    def bias(self) -> float:
        """Constant F/N of the drift of m, per time (paper App. D.2)."""
        return self.force / self.n_particles

    @property
    def diffusion(self) -> float:
        """Noise amplitude s / sqrt N of m, per root time (paper App. D.2)."""
        return float(self.noise / np.sqrt(self.n_particles))

    @property
    def stationary_mean(self) -> float:
        """Stationary mean F / (g N) of m, the same for the Euler-Maruyama map."""
        return self.bias / self.friction

    @property
    def stationary_std(self) -> float:
        """Stationary standard deviation s / sqrt(2 g N) of m in continuous time."""
        return float(np.sqrt(self._stationary_variance(None)))

    def mean(self, times: ArrayLike, start: float, time_step: float | None = None) -> Array:
        """Mean of m(t) from a given start.

            E m(t) = m_inf + (m_0 - m_inf) D(t),   D(t) = exp(-g t)  or  (1 - g h)^(t/h)

        Args:    times: any shape, >= 0.  start: m_0.
                 time_step: h of the Euler-Maruyama map; None for continuous time.
        Returns: shape of times.
        Raises:  ValueError: a time is negative, not finite or not a multiple of time_step;
                 the map is unstable (g h >= 2).
        Source:  paper App. D.2, linear SDE.
        """
        _require_finite("start", start)
        decay = self._decay(times, time_step)
        return self.stationary_mean + (start - self.stationary_mean) * decay

    def std(
        self, times: ArrayLike, start_variance: float = 0.0, time_step: float | None = None
    ) -> Array:
        """Standard deviation of m(t) from a start of given variance.

            Var m(t) = V_0 D(t)^2 + V_inf (1 - D(t)^2),   D as in `mean`
            V_inf    = s^2 / (N g (2 - g h)),             h = 0 in continuous time

        Args:    times: any shape, >= 0.  start_variance: V_0 >= 0.
                 time_step: h of the Euler-Maruyama map; None for continuous time.
        Returns: shape of times.
        Raises:  ValueError: as in `mean`, or start_variance is negative.
        Source:  paper App. D.2, linear SDE.
        """
        _require_nonnegative("start_variance", start_variance)
        decay_squared = self._decay(times, time_step) ** 2
        stationary_variance = self._stationary_variance(time_step)
        return np.sqrt(start_variance * decay_squared + stationary_variance * (1 - decay_squared))

    def drift_matrix(self) -> Array:
        """Friction plus coupling of the whole chain.

            X' = -A X + F e_1 + noise,   A = g I + k (Laplacian of the path)

        Returns: A, (particle, particle), per time.
        Source:  paper App. D.2.
        """
        identity = np.eye(self.n_particles)
        bonds = np.diff(identity, axis=0)
        return self.friction * identity + self.coupling * bonds.T @ bonds

    def stationary_profile(self) -> Array:
        """Stationary mean of every particle, A^-1 F e_1.

        Returns: (particle,).
        Source:  paper App. D.2.
        """
        driving = np.zeros(self.n_particles)
        driving[0] = self.force
        profile: Array = np.linalg.solve(self.drift_matrix(), driving)
        return profile

    def stationary_covariance(self) -> Array:
        """Stationary covariance of the particles, s^2 A^-1 / 2.

        Returns: (particle, particle).
        Source:  paper App. D.2; A is symmetric, so the Lyapunov equation is solved by this.
        """
        inverse: Array = np.linalg.inv(self.drift_matrix())
        return self.noise**2 / 2 * inverse

    def patch_drift(self, states: ArrayLike, n_patches: int) -> Array:
        """Expected rate of change of each patch mean while its neighbours are frozen.

            d m_I / dt = -g m_I + (F/n_s) 1(I = 0) + (k/n_s) (J_left + J_right)

        J is the frozen neighbour minus the site at that edge, 0 at the ends of the chain.

        Args:    states: (batch, particle).  n_patches: K, a divisor of n_particles.
        Returns: (batch, patch), per time.
        Raises:  ValueError: states has another shape; n_patches does not divide n_particles.
        Source:  paper App. D.2 and App. E.
        """
        states = np.asarray(states, dtype=float)
        if states.ndim != 2 or states.shape[1] != self.n_particles:
            raise ValueError(
                f"states has shape {states.shape}; allowed: (batch, {self.n_particles})"
            )
        _require_integer("n_patches", n_patches, minimum=1)
        if self.n_particles % n_patches:
            raise ValueError(
                f"n_patches {n_patches} does not divide n_particles {self.n_particles}"
            )
        batch = len(states)
        patch_size = self.n_particles // n_patches
        # Pull of the right site of a bond on its left one; no bond beyond the ends of the chain.
        pulls = np.zeros((batch, n_patches + 1))
        pulls[:, 1:-1] = np.diff(states)[:, patch_size - 1 :: patch_size]
        drift = -self.friction * states.reshape(batch, n_patches, patch_size).mean(axis=2)
        drift += self.coupling / patch_size * np.diff(pulls)
        drift[:, 0] += self.force / patch_size
        return drift

    def _decay(self, times: ArrayLike, time_step: float | None) -> Array:
        times = np.asarray(times, dtype=float)
        _require_times("times", times)
        if time_step is None:
            return np.exp(-self.friction * times)
        self._require_stable(time_step)
        steps = np.rint(times / time_step)
        if np.any(np.abs(steps * time_step - times) > 1e-9 * times):
            raise ValueError(f"times {times} must be multiples of time_step {time_step}")
        return np.power(1 - self.friction * time_step, steps)

    def _stationary_variance(self, time_step: float | None) -> float:
        time_step = 0.0 if time_step is None else time_step
        return self.diffusion**2 / (self.friction * (2 - self.friction * time_step))

    def _require_stable(self, time_step: float) -> None:
        _require_positive("time_step", time_step)
        if self.friction * time_step >= 2:
            raise ValueError(
                f"time_step {time_step} makes the map unstable; allowed: below {2 / self.friction}"
            )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CurieWeissExact:
    """Glauber dynamics of n spins that all see each other, as a birth-death chain in S = sum s_i.

        H = -S^2 / (2 n) - h S,   M = S/n,   b = 1/T,   N_+- = (n +- S) / 2
        S -> S+2 at rate N_- / (1 + exp(b (-2 (M + h) - 2/n)))
        S -> S-2 at rate N_+ / (1 + exp(b ( 2 (M + h) - 2/n)))

    The 2/n is the spin's action on itself, which the exact energy change excludes. Every array over
    the chain runs over S = -n, -n+2, ..., n. Time is counted in attempts per spin.

    Args:    n_sites: n >= 1.  temperature: T > 0, in units of the coupling.  field: h.
    Raises:  ValueError: an argument is not finite or out of the range above.
    Source:  paper App. D.1 and Algorithm 2.
    """

    n_sites: int
    temperature: float
    field: float

    def __post_init__(self) -> None:
        _require_integer("n_sites", self.n_sites, minimum=1)
        _require_positive("temperature", self.temperature)
        _require_finite("field", self.field)

    @property
    def inverse_temperature(self) -> float:
        """b = 1/T."""
        return 1 / self.temperature

    @property
    def magnetizations(self) -> Array:
        """Values of M, ascending, (n + 1,)."""
        return (2.0 * np.arange(self.n_sites + 1) - self.n_sites) / self.n_sites

    @property
    def up_rates(self) -> Array:
        """Rates of S -> S+2, (n + 1,), the last one 0."""
        return self._up_rate(self.magnetizations)

    @property
    def down_rates(self) -> Array:
        """Rates of S -> S-2, (n + 1,), the first one 0."""
        return self._down_rate(self.magnetizations)

    def stationary(self) -> Array:
        """Stationary probabilities, the Gibbs law of S.

            P(S) ~ binomial(n, N_+) exp(b (S^2 / (2 n) + h S))

        Returns: (n + 1,), sums to 1.
        Source:  paper App. D.1.
        """
        pluses = np.arange(self.n_sites + 1)
        magnetizations = self.magnetizations
        log_weights = -gammaln(pluses + 1) - gammaln(self.n_sites - pluses + 1)
        log_weights += (
            self.inverse_temperature
            * self.n_sites
            * (magnetizations**2 / 2 + self.field * magnetizations)
        )
        weights = np.exp(log_weights - log_weights.max())
        return weights / weights.sum()

    def stationary_mean(self, absolute: bool = False) -> float:
        """Stationary mean of M, or of |M| (paper App. D.1)."""
        return float(self.stationary() @ self._observable(absolute))

    def stationary_std(self, absolute: bool = False) -> float:
        """Stationary standard deviation of M, or of |M| (paper App. D.1)."""
        deviations = self._observable(absolute) - self.stationary_mean(absolute)
        return float(np.sqrt(self.stationary() @ deviations**2))

    def sweep_duration(self) -> float:
        """Mean duration of n events at stationarity, n / E[total rate] (paper App. D.1)."""
        return float(self.n_sites / (self.stationary() @ (self.up_rates + self.down_rates)))

    def drift(self, magnetization: ArrayLike) -> Array:
        """Exact drift of M at finite n, (2/n) (up rate - down rate).

        Args:    magnetization: any shape, any real value in [-1, 1].
        Returns: shape of magnetization, per time.
        Raises:  ValueError: a value is outside [-1, 1].
        Source:  paper App. D.1; tends to tanh(b (M + h)) - M.
        """
        magnetization = _require_magnetization("magnetization", magnetization)
        return 2 / self.n_sites * (self._up_rate(magnetization) - self._down_rate(magnetization))

    def covariance(self, magnetization: ArrayLike) -> Array:
        """Exact covariance rate of M at finite n, (2/n)^2 (up rate + down rate).

        Args:    magnetization: any shape, any real value in [-1, 1].
        Returns: shape of magnetization, per time.
        Raises:  ValueError: a value is outside [-1, 1].
        Source:  paper App. D.1; tends to (2/n) (1 - M tanh(b (M + h))).
        """
        magnetization = _require_magnetization("magnetization", magnetization)
        total_rate = self._up_rate(magnetization) + self._down_rate(magnetization)
        return (2 / self.n_sites) ** 2 * total_rate

    def moments(self, start_magnetization: float, times: ArrayLike) -> tuple[Array, Array]:
        """Mean and standard deviation of M(t) from one start; see `moments_of`.

        Args:    start_magnetization: in [-1, 1].  times: (time,), ascending, >= 0.
        Returns: mean (time,) and standard deviation (time,).
        Raises:  ValueError: as in `moments_of`.
        Source:  paper App. D.1.
        """
        means, stds = self.moments_of([start_magnetization], times)
        return means[0], stds[0]

    def moments_of(self, starts: ArrayLike, times: ArrayLike) -> tuple[Array, Array]:
        """Mean and standard deviation of M(t) from each start, by one solution for all starts.

            du/dt = Q u,                                        u(0) = M,   u(t)_S = E[M(t) | S]
            dv/dt = Q v + up (u_{S+2} - u_S)^2 + down (u_{S-2} - u_S)^2,
                                                                v(0) = 0,   v(t)_S = Var[M(t) | S]

        Q is the generator of the chain. v is solved for directly because E[M^2] - E[M]^2 would lose
        the digits of a variance of order 1/n.

        Args:    starts: (start,), in [-1, 1]; each is moved to the nearest value M can take.
                 times: (time,), ascending, >= 0.
        Returns: means (start, time) and standard deviations (start, time).
        Raises:  ValueError: a start or a time is not allowed.  RuntimeError: the solver failed.
        Source:  paper App. D.1; backward Kolmogorov equation.
        """
        starts = _require_magnetization("starts", starts)
        times = np.asarray(times, dtype=float)
        _require_times("times", times)
        if starts.ndim != 1 or times.ndim != 1:
            raise ValueError(
                f"starts and times have shapes {starts.shape}, {times.shape}; allowed: 1 axis each"
            )
        if np.any(np.diff(times) < 0):
            raise ValueError(f"times {times} must be ascending")
        means = np.empty((starts.size, times.size))
        variances = np.empty_like(means)
        if times.size == 0:
            return means, variances
        sites = np.rint((1 + starts) / 2 * self.n_sites).astype(int)
        solver = self._moment_solver(duration=times[-1])
        for column, time in enumerate(times):
            while solver.t < time:
                message = solver.step()
                if solver.status == "failed":
                    raise RuntimeError(f"backward equation failed at t = {solver.t}: {message}")
            unknowns = solver.dense_output()(time) if time > 0 else solver.y
            means[:, column] = unknowns[0::2][sites]
            variances[:, column] = unknowns[1::2][sites] / self.n_sites
        # A variance that is 0 exactly may come out as -atol/n.
        return means, np.sqrt(np.maximum(variances, 0))

    def autocorrelation(self, lags: ArrayLike, absolute: bool = False) -> Array:
        """Stationary autocorrelation of M, or of |M|.

            C(t) = g' exp(t G) g / g' g,   g = sqrt(P) (M - E M),   G = sqrt(P) Q / sqrt(P)

        Detailed balance makes G symmetric with eigenvalues <= 0, so the exponential may be written
        as a sum of resolvents on a contour around them. The sum is right to 1e-13; rounding of G
        adds at most about eps n t C(t) at lag t (eps = 2.2e-16).

        Args:    lags: (lag,), >= 0.  absolute: of |M| instead of M.
        Returns: (lag,), 1 at lag 0, decreasing.
        Raises:  ValueError: a lag is negative or not finite; the observable does not fluctuate.
        Source:  paper App. D.1; Trefethen, Weideman and Schmelzer, BIT 46 (2006) 653, Eq. 3.
        """
        lags = np.asarray(lags, dtype=float)
        _require_times("lags", lags)
        if lags.ndim != 1:
            raise ValueError(f"lags has shape {lags.shape}; allowed: 1 axis")
        deviations = self._normalised_deviations(absolute)
        up, down = self.up_rates, self.down_rates
        hops = np.sqrt(up[:-1] * down[1:])
        generator = _banded(np.append(hops, 0), -(up + down), np.append(0, hops))
        nodes, weights = _exponential_contour()
        correlations = np.zeros_like(lags)
        for node, weight in zip(nodes, weights, strict=True):
            for position, lag in enumerate(lags):
                matrix = -lag * generator.astype(complex)
                matrix[1] += node
                resolved = solve_banded((1, 1), matrix, deviations)
                correlations[position] += (weight * (deviations @ resolved)).real
        return correlations

    def relaxation_time(self, absolute: bool = False) -> float:
        """Lag at which the stationary autocorrelation of M, or of |M|, has fallen to 1/e.

        Between two phases this time grows as exp(const n). Rounding changes the rates of the
        chain by about eps n (eps = 2.2e-16), so that a lag t is known to a relative eps n t; beyond
        the horizon 1e-6 / (eps n), 1.1e6 at n = 4096, infinity is returned.

        Args:    absolute: of |M| instead of M.
        Returns: lag, right to 1e-6 relative, or infinity.
        Raises:  ValueError: the observable does not fluctuate.
        Source:  paper App. D.1.
        """
        horizon = RELAXATION_ACCURACY / (np.finfo(float).eps * self.n_sites)

        def excess(lag: float) -> float:
            return float(self.autocorrelation([lag], absolute)[0] - np.exp(-1))

        upper = 1.0
        while excess(upper) > 0:
            if upper >= horizon:
                return float("inf")
            upper = min(2 * upper, horizon)
        return float(brentq(excess, 0.0, upper, xtol=1e-12, rtol=1e-12))

    def fixed_point(self) -> float:
        """Magnetization M* of the infinite system: the largest root of M = tanh(b (M + h)).

        Returns: M*.
        Source:  paper App. D.1.
        """

        def drift(magnetization: float) -> float:
            return float(
                np.tanh(self.inverse_temperature * (magnetization + self.field)) - magnetization
            )

        # The drift falls with M outside M + h = -+turning and rises between: one bracket per case.
        cold = max(1 / self.temperature, 1.0)
        turning = self.temperature * np.arccosh(np.sqrt(cold))
        if drift(turning - self.field) >= 0:
            return float(brentq(drift, turning - self.field, 1.0, xtol=1e-15))
        return float(brentq(drift, -1.0, -turning - self.field, xtol=1e-15))

    def linear_relaxation_rate(self) -> float:
        """Rate kappa = 1 - b (1 - M*^2) at which a deviation from M* decays, large n.

        Returns: kappa, per time.
        Source:  paper App. D.1, drift linearised at `fixed_point`.
        """
        return 1 - self.inverse_temperature * (1 - self.fixed_point() ** 2)

    def patch_multiplier(self, n_patches: int, duration: ArrayLike) -> Array:
        """Multiplier of a small deviation from M* in one step of partial evolution, large n.

            rho(K, t) = 1 - kappa (1 - exp(-r t)) / r,   r = 1 - (1 - kappa) / K

        A patch of n/K sites relaxes at rate r towards surroundings that stay frozen, so a long
        duration underestimates the decay: rho(K, t) > rho(1, t) = exp(-kappa t) for K > 1.

        Args:    n_patches: K >= 1.  duration: any shape, >= 0.
        Returns: shape of duration.
        Raises:  ValueError: n_patches or a duration is not allowed.
        Source:  paper Algorithm 1 and App. D.1, linearised at `fixed_point`.
        """
        _require_integer("n_patches", n_patches, minimum=1)
        duration = np.asarray(duration, dtype=float)
        _require_times("duration", duration)
        kappa = self.linear_relaxation_rate()
        patch_rate = 1 - (1 - kappa) / n_patches
        # At a critical point a single patch has rate 0 and the fraction tends to the duration.
        relaxed = -np.expm1(-patch_rate * duration) / patch_rate if patch_rate else duration
        return 1 - kappa * relaxed

    def full_multiplier(self, duration: ArrayLike) -> Array:
        """Multiplier exp(-kappa t) of a small deviation from M* when all sites evolve, large n.

        Args:    duration: any shape, >= 0.
        Returns: shape of duration.
        Raises:  ValueError: a duration is negative or not finite.
        Source:  paper App. D.1, drift linearised at `fixed_point`.
        """
        duration = np.asarray(duration, dtype=float)
        _require_times("duration", duration)
        return np.exp(-self.linear_relaxation_rate() * duration)

    def _up_rate(self, magnetization: Array) -> Array:
        local_field = magnetization + self.field + 1 / self.n_sites
        minuses = self.n_sites * (1 - magnetization) / 2
        return minuses * expit(2 * self.inverse_temperature * local_field)

    def _down_rate(self, magnetization: Array) -> Array:
        local_field = magnetization + self.field - 1 / self.n_sites
        pluses = self.n_sites * (1 + magnetization) / 2
        return pluses * expit(-2 * self.inverse_temperature * local_field)

    def _observable(self, absolute: bool) -> Array:
        return np.abs(self.magnetizations) if absolute else self.magnetizations

    def _normalised_deviations(self, absolute: bool) -> Array:
        observable = self._observable(absolute)
        probabilities = self.stationary()
        if np.ptp(observable[probabilities > 0]) == 0:
            raise ValueError(
                f"absolute {absolute}: the observable does not fluctuate at n_sites "
                f"{self.n_sites}, temperature {self.temperature}, field {self.field}"
            )
        deviations = np.sqrt(probabilities) * (observable - probabilities @ observable)
        return deviations / np.linalg.norm(deviations)

    def _moment_solver(self, duration: float) -> LSODA:
        """Solver of `moments_of`; its unknowns are u and n v, interleaved to keep a narrow band."""
        # The contour of `autocorrelation` is of no use here: far from equilibrium Q is so far from
        # symmetric that its resolvents amplify rounding errors without bound (1e80 at n = 4096).
        up, down, n_sites = self.up_rates, self.down_rates, self.n_sites
        jacobian = np.zeros((6, 2 * (n_sites + 1)))  # entry (i, j) lies at [i - j + 2, j]
        jacobian[0::2, 0::2] = jacobian[0::2, 1::2] = _generator(up, down)

        def derivative(_time: float, unknowns: Array) -> Array:
            mean_up, mean_down = _steps(unknowns[0::2])
            variance_up, variance_down = _steps(unknowns[1::2])
            rate = np.empty_like(unknowns)
            rate[0::2] = up * mean_up + down * mean_down
            rate[1::2] = up * (variance_up + n_sites * mean_up**2)
            rate[1::2] += down * (variance_down + n_sites * mean_down**2)
            return rate

        def banded_jacobian(_time: float, unknowns: Array) -> Array:
            mean_up, mean_down = _steps(unknowns[0::2])
            jacobian[1::2, 0::2] = 2 * n_sites * _generator(up * mean_up, down * mean_down)
            return jacobian

        start = np.zeros(2 * (n_sites + 1))
        start[0::2] = self.magnetizations
        return LSODA(
            derivative,
            0.0,
            start,
            duration,
            jac=banded_jacobian,
            lband=3,
            uband=2,
            **MOMENT_TOLERANCES,
        )


def _steps(values: Array) -> tuple[Array, Array]:
    """Change of a function of S in a step up and in a step down; 0 where no step is possible."""
    return np.diff(values, append=values[-1]), -np.diff(values, prepend=values[0])


def _generator(up: Array, down: Array) -> Array:
    """Generator of a birth-death chain in banded form."""
    return _banded(up, -(up + down), down)


def _banded(above: Array, diagonal: Array, below: Array) -> Array:
    """Tridiagonal matrix, given row by row, with entry (i, j) at [i - j + 1, j]."""
    return np.stack([np.roll(above, 1), diagonal, np.roll(below, -1)])


def _exponential_contour() -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Nodes z and weights w with exp(x) = Re sum w / (z - x) for every real x <= 0.

    Source:  Trefethen, Weideman and Schmelzer, BIT 46 (2006) 653, Eq. 3: cotangent contour.
    """
    # The nodes below the real axis are the conjugates of these and are counted by doubling.
    angles = np.pi * np.arange(1, CONTOUR_NODES, 2) / CONTOUR_NODES
    cotangents = 1 / np.tan(0.6407 * angles)
    nodes = CONTOUR_NODES * (0.5017 * angles * cotangents - 0.6122 + 0.2645j * angles)
    derivatives = 0.5017 * cotangents - 0.5017 * 0.6407 * angles * (1 + cotangents**2) + 0.2645j
    return nodes, -2j * np.exp(nodes) * derivatives


def _require_integer(name: str, value: int, *, minimum: int) -> None:
    try:
        allowed = index(value) >= minimum
    except TypeError:
        allowed = False
    if not allowed:
        raise ValueError(f"{name} {value!r} is not allowed; allowed: an integer >= {minimum}")


def _require_finite(name: str, value: float) -> None:
    if not np.isfinite(value):
        raise ValueError(f"{name} {value!r} is not allowed; allowed: a finite number")


def _require_nonnegative(name: str, value: float) -> None:
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} {value!r} is not allowed; allowed: a finite number >= 0")


def _require_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} {value!r} is not allowed; allowed: a finite number > 0")


def _require_times(name: str, values: Array) -> None:
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise ValueError(f"{name} {values} must be finite and >= 0")


def _require_magnetization(name: str, values: ArrayLike) -> Array:
    values = np.asarray(values, dtype=float)
    if not np.all(np.abs(values) <= 1):
        raise ValueError(f"{name} {values} must lie in [-1, 1]")
    return values
