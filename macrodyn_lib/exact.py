"""Exact references: what a simulation or a learned model must reproduce.

Closed formulas, enumeration and deterministic numerical solution only: nothing here draws random
numbers, and nothing here shares code with the simulators it judges.

    LinearChainExact   boundary-driven linear chain (paper App. D.2): Gaussian, closed formulas
    CurieWeissExact    Curie-Weiss Glauber dynamics (paper App. D.1): birth-death chain in S
    PredatorPreyExact  predator-prey SPDE (paper Sec. III.1): without noise, and linearised with it
    IsingExact         Ising Glauber dynamics (paper Sec. III.2) of up to 4 x 4 spins: enumeration
    onsager_energy, onsager_magnetization, kaufman_energy, domain_wall_density
                       Ising equilibrium without field, on the infinite lattice and on a torus

"The paper" is arXiv 2511.12842.
"""

from dataclasses import dataclass, replace
from operator import index
from typing import final

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import LSODA, solve_ivp
from scipy.linalg import solve_banded, solve_continuous_lyapunov, solve_discrete_lyapunov
from scipy.optimize import brentq
from scipy.sparse.linalg import expm_multiply
from scipy.special import ellipkm1, expit, gammaln, logsumexp

Array = NDArray[np.floating]
Indices = NDArray[np.int64]
Spins = NDArray[np.int8]

# Local error bounds of the backward equation, relative and absolute (its unknowns are of order 1).
# Measured against bounds of 3e-13 (n = 4096, 16384): mean right to 6e-10, n * variance to 8e-8.
MOMENT_TOLERANCES = {"rtol": 1e-9, "atol": 1e-11}

# Nodes of the contour that represents the exponential: its error falls as 3.89^-nodes, to 7e-15
# here; more nodes only add rounding errors, which grow as exp(0.17 nodes).
CONTOUR_NODES = 24

# Relative accuracy promised for a relaxation time; it sets how long a time can be resolved.
RELAXATION_ACCURACY = 1e-6

# Square-lattice Ising model in units of the coupling; source: Onsager, Phys. Rev. 65 (1944) 117.
ISING_CRITICAL_TEMPERATURE = float(2 / np.log(1 + np.sqrt(2)))

# Largest 1/T that enters sinh(2/T): there every spin is aligned to far below eps.
COLDEST_COUPLING = 50.0

# Limits of enumeration: 2^16 states as sparse, 2^12 states as dense matrix (128 MiB).
LARGEST_ENUMERATED_SIDE = 4
LARGEST_ENUMERATED_PATCH = 12


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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PredatorPreyExact:
    """Predator-prey reaction-diffusion system in n cells with Neumann ends, lattice units.

        du = [u (1 - u - v) + c Lap u] dt + s dW,    dv = [a v (u - b) + D Lap v] dt + s dW'

    What is known of it: the path without noise, and the stationary fluctuations about the fixed
    point (b, 1 - b) to first order in s. Each cosine mode j (orthonormal, with
    q_j^2 = 2 - 2 cos(pi j / n)) is then an Ornstein-Uhlenbeck process in two variables, of slope

        J_j = [[-b - c q_j^2, -b], [a (1 - b), -D q_j^2]]

    Args:    n_cells: n >= 1.  a > 0, 0 < b < 1, c, predator_diffusion D >= 0, noise s >= 0.
    Raises:  ValueError: an argument is out of the range above.
    Source:  paper Eq. 20, 21; facts.md 5.4.
    """

    n_cells: int
    a: float = 3.0
    b: float = 0.4
    c: float = 0.0
    noise: float = 0.02
    predator_diffusion: float = 1.0

    def __post_init__(self) -> None:
        _require_integer("n_cells", self.n_cells, minimum=1)
        _require_positive("a", self.a)
        _require_positive("b", self.b)
        if self.b >= 1:
            raise ValueError(f"b = {self.b}: must be < 1, or there is no fixed point")
        _require_nonnegative("c", self.c)
        _require_nonnegative("noise", self.noise)
        _require_nonnegative("predator_diffusion", self.predator_diffusion)

    @property
    def fixed_point(self) -> Array:
        """(u, v) of coexistence, stable for all parameters in range."""
        return np.array([self.b, 1 - self.b])

    def slopes(self) -> Array:
        """J_j of every mode, (n, 2, 2)."""
        squares = 2 - 2 * np.cos(np.pi * np.arange(self.n_cells) / self.n_cells)
        slopes = np.tile([[-self.b, -self.b], [self.a * (1 - self.b), 0.0]], (self.n_cells, 1, 1))
        slopes[:, 0, 0] -= self.c * squares
        slopes[:, 1, 1] -= self.predator_diffusion * squares
        return slopes

    def mode_covariances(self, time_step: float = 0.0) -> Array:
        """Stationary covariance of (u_j, v_j), (n, 2, 2); with ``time_step`` h that of the scheme.

        J P + P J' + s^2 = 0;  Euler-Maruyama: P = (1 + hJ) P (1 + hJ)' + h s^2.
        """
        one, variance = np.eye(2), self.noise**2 * np.eye(2)
        if time_step == 0:
            solved = [solve_continuous_lyapunov(slope, -variance) for slope in self.slopes()]
        else:
            solved = [
                solve_discrete_lyapunov(one + time_step * slope, time_step * variance)
                for slope in self.slopes()
            ]
        return np.array(solved)

    def mean_covariance(self, time_step: float = 0.0) -> Array:
        """Stationary covariance of the means of u and v over the cells, (2, 2): mode 0 over n."""
        uniform = replace(self, n_cells=1)
        return uniform.mode_covariances(time_step)[0] / self.n_cells

    def cell_covariance(self, time_step: float = 0.0) -> Array:
        """Stationary covariance of u and v in one cell, mean over the cells, (2, 2)."""
        return self.mode_covariances(time_step).mean(axis=0)

    def without_noise(self, state: Array, times: Array) -> Array:
        """The path for s = 0 from ``state`` (n, 2) at time 0, at ``times`` (T,): (T, n, 2).

        An adaptive Runge-Kutta scheme of order 8, local errors below 1e-10.
        """
        _require_times("times", times)

        def rates(_: float, flat: Array) -> Array:
            u, v = flat.reshape(-1, 2).T
            prey = u * (1 - u - v) + self.c * _laplacian(u)
            predators = self.a * v * (u - self.b) + self.predator_diffusion * _laplacian(v)
            return np.stack([prey, predators], axis=1).ravel()

        span = (0.0, max(float(np.max(times)), 1e-12))
        path = solve_ivp(
            rates, span, np.ravel(state), t_eval=times, method="DOP853", rtol=1e-10, atol=1e-12
        )
        return path.y.T.reshape(len(times), -1, 2)


def _laplacian(values: Array) -> Array:
    """Sum of the differences to both neighbours; a cell at an end has one (Neumann)."""
    differences = np.diff(values)
    return np.append(differences, 0.0) - np.insert(differences, 0, 0.0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class IsingExact:
    """Glauber dynamics of all 2^n states of a small square lattice on a torus, n = L^2 <= 16.

        H = -sum_bonds s s' - h sum_i s_i,   spin i flips at rate r_i = 1 / (1 + exp(dH_i / T))
        M = (1/n) sum_i s_i,   rho = (1/2n) sum_bonds (1 - s s') / 2

    Each site has one bond to the right and one down, 2 n in all; on L = 2 these join each pair of
    neighbours twice. Bit k of the index of a state, least significant first, is set if site k, in
    C order, is up. Every array over the states runs over the indices 0 to 2^n - 1. Time is counted
    in attempts per spin. Nothing is cached: keep what a method returns.

    Args:    side: L, 2 to 4.  temperature: T > 0, in units of the coupling.  field: h.
    Raises:  ValueError: an argument is not finite or out of the range above.
    Source:  paper Sec. III.2 and Algorithm 2.
    """

    side: int
    temperature: float
    field: float = 0.0

    def __post_init__(self) -> None:
        _require_integer("side", self.side, minimum=2, maximum=LARGEST_ENUMERATED_SIDE)
        _require_positive("temperature", self.temperature)
        _require_finite("field", self.field)

    @property
    def n_sites(self) -> int:
        """n = L^2."""
        return self.side**2

    @property
    def n_states(self) -> int:
        """2^n."""
        return 1 << self.n_sites

    def spins(self) -> Spins:
        """All states, (2^n, side, side), +-1."""
        return self._spins_of(np.arange(self.n_states))

    def index_of(self, spins: ArrayLike) -> Indices:
        """Index of each state.

        Args:    spins: (..., side, side), +-1.
        Returns: (...), 0 to 2^n - 1.
        Raises:  ValueError: spins has another shape or other values.
        """
        spins = np.asarray(spins)
        if spins.shape[-2:] != (self.side, self.side) or not np.all(np.abs(spins) == 1):
            raise ValueError(
                f"spins has shape {spins.shape} and values {np.unique(spins)[:4]}; "
                f"allowed: (..., {self.side}, {self.side}) of -1 and 1"
            )
        up = spins.reshape(*spins.shape[:-2], self.n_sites) > 0
        indices: Indices = up @ (1 << np.arange(self.n_sites))
        return indices

    def observables(self) -> Array:
        """Magnetization M and domain-wall density rho of every state, (2^n, 2)."""
        spins = self.spins()
        magnetizations = spins.mean(axis=(1, 2))
        return np.stack([magnetizations, (1 - self._bond_means(spins)) / 2], axis=1)

    def energies(self) -> Array:
        """H of every state, bonds and field, total, (2^n,)."""
        spins = self.spins()
        bonds = 2 * self.n_sites * self._bond_means(spins)
        return -bonds - self.field * spins.sum(axis=(1, 2))

    def flip_rates(self) -> Array:
        """Rate r_i of each flip in every state, (2^n, n)."""
        return self._rates(self.spins())

    def generator(self) -> scipy.sparse.csr_array:
        """Generator Q of the chain: entry [x, y] is the rate of x -> y, every row sums to 0.

        Returns: sparse (2^n, 2^n), n + 1 entries a row; 13 MiB at L = 4.
        Source:  paper Algorithm 2.
        """
        states = np.arange(self.n_states)
        rates = self.flip_rates()
        targets = np.column_stack([states[:, None] ^ (1 << np.arange(self.n_sites)), states])
        entries = np.column_stack([rates, -rates.sum(axis=1)])
        starts = (self.n_sites + 1) * np.arange(self.n_states + 1)
        shape = (self.n_states, self.n_states)
        generator = scipy.sparse.csr_array((entries.ravel(), targets.ravel(), starts), shape=shape)
        generator.sort_indices()
        return generator

    def log_partition(self) -> float:
        """ln Z = ln sum_x exp(-H(x) / T)."""
        return float(logsumexp(-self.energies() / self.temperature))

    def stationary(self) -> Array:
        """Stationary probabilities, the Gibbs law exp(-H/T) / Z, (2^n,), sums to 1."""
        energies = self.energies()
        weights = np.exp((energies.min() - energies) / self.temperature)
        return weights / weights.sum()

    def absolute_magnetization(self) -> float:
        """Stationary mean of |M|."""
        return self._absolute_moments()[0]

    def susceptibility(self) -> float:
        """X = (n/T) (<M^2> - <|M|>^2)."""
        first, second, _ = self._absolute_moments()
        return self.n_sites / self.temperature * (second - first**2)

    def binder(self) -> float:
        """U = 1 - <M^4> / (3 <M^2>^2)."""
        _, second, fourth = self._absolute_moments()
        return 1 - fourth / (3 * second**2)

    def means(
        self, start: ArrayLike, times: ArrayLike, functions: ArrayLike | None = None
    ) -> Array:
        """Means of functions of the state at each time, E f(x(t)) = p_0 exp(Q t) f.

        Args:    start: p_0, floats (2^n,) that sum to 1; or integers, the index of the start or
                 the indices (start,) of equally likely starts.
                 times: (time,), ascending, >= 0.
                 functions: values on every state, (2^n,) or (2^n, function); None: `observables`.
        Returns: (time,) or (time, function).
        Raises:  ValueError: an argument is not allowed; start has 2^n integers, which could be
                 meant either way.
        Source:  forward Kolmogorov equation; `scipy.sparse.linalg.expm_multiply`.
        """
        law = self._start_law(start)
        times = np.asarray(times, dtype=float)
        _require_times("times", times)
        if times.ndim != 1 or np.any(np.diff(times) < 0):
            raise ValueError(f"times {times} must be one axis in ascending order")
        values = self.observables() if functions is None else np.asarray(functions, dtype=float)
        if values.ndim not in (1, 2) or len(values) != self.n_states:
            raise ValueError(
                f"functions has shape {values.shape}; allowed: ({self.n_states},) or "
                f"({self.n_states}, function)"
            )
        forward = self.generator().T.tocsr()
        means = np.empty((times.size, *values.shape[1:]))
        for row, duration in enumerate(np.diff(times, prepend=0.0)):
            if duration > 0:
                law = expm_multiply(duration * forward, law)
            means[row] = law @ values
        return means

    def rate_moments(self) -> tuple[Array, Array]:
        """Exact drift and covariance rate of phi = (M, rho) in every state.

            b(x) = sum_i r_i d_i,   S(x) = sum_i r_i d_i d_i^T,   d_i = phi(x^i) - phi(x)

        x^i is x with spin i flipped.

        Returns: b (2^n, 2) and S (2^n, 2, 2), per time.
        Source:  paper Eq. 4: mean and covariance of the increments per time, in the limit of a
                 short time.
        """
        states, rates, observables = np.arange(self.n_states), self.flip_rates(), self.observables()
        drift = np.zeros((self.n_states, 2))
        covariance = np.zeros((self.n_states, 2, 2))
        for site in range(self.n_sites):
            jumps = observables[states ^ (1 << site)] - observables
            weighted = rates[:, site, None] * jumps
            drift += weighted
            covariance += weighted[:, :, None] * jumps[:, None, :]
        return drift, covariance

    def patch_generator(self, state: ArrayLike, sites: ArrayLike) -> Array:
        """Generator of a patch whose surroundings are frozen in a given state (ghost boundary).

        The chain runs over the 2^m patterns of the patch: bit j, least significant first, is set
        if sites[j] is up. `patch_states` and `patch_pattern` go from patterns to states and back.

        Args:    state: index of a state, or its spins (side, side); only those outside matter.
                 sites: (m,), 1 <= m <= 12 distinct sites, numbered in C order.
        Returns: (2^m, 2^m); entry [a, b] is the rate of a -> b, every row sums to 0.
        Raises:  ValueError: state or sites is not allowed.
        Source:  paper Sec. II, ghost cells.
        """
        sites = self._require_sites(sites)
        rates = self._rates(self._spins_of(self.patch_states(state, sites)))[:, sites]
        patterns = np.arange(len(rates))
        generator = np.zeros((len(rates), len(rates)))
        for position, rate in enumerate(rates.T):
            generator[patterns, patterns ^ (1 << position)] = rate
        generator[patterns, patterns] = -rates.sum(axis=1)
        return generator

    def patch_states(self, state: ArrayLike, sites: ArrayLike) -> Indices:
        """Index of the whole lattice's state for every pattern of a patch; see `patch_generator`.

        Returns: (2^m,), in order of the patterns.
        Raises:  ValueError: state or sites is not allowed.
        """
        sites = self._require_sites(sites)
        surroundings = np.asarray(state)
        if surroundings.ndim:
            surroundings = self.index_of(surroundings)
        if surroundings.ndim:
            raise ValueError(f"state has shape {np.shape(state)}; allowed: one state")
        surroundings = self._require_indices("state", surroundings)
        patterns = np.arange(1 << len(sites))
        up = patterns[:, None] >> np.arange(len(sites)) & 1
        return surroundings & ~(1 << sites).sum() | up @ (1 << sites)

    def patch_pattern(self, spins: ArrayLike, sites: ArrayLike) -> Indices:
        """Pattern of a patch in each state; see `patch_generator`.

        Args:    spins: (..., side, side), +-1.  sites: as in `patch_generator`.
        Returns: (...), 0 to 2^m - 1.
        Raises:  ValueError: spins or sites is not allowed.
        """
        sites = self._require_sites(sites)
        up = self.index_of(spins)[..., None] >> sites & 1
        patterns: Indices = up @ (1 << np.arange(len(sites)))
        return patterns

    def _spins_of(self, indices: Indices) -> Spins:
        up = indices[:, None] >> np.arange(self.n_sites) & 1
        return (2 * up - 1).astype(np.int8).reshape(-1, self.side, self.side)

    def _bond_means(self, spins: Spins) -> Array:
        """Mean of s s' over the 2 n bonds of each state, (B,)."""
        right = (spins * np.roll(spins, -1, axis=2)).mean(axis=(1, 2))
        down = (spins * np.roll(spins, -1, axis=1)).mean(axis=(1, 2))
        return (right + down) / 2

    def _rates(self, spins: Spins) -> Array:
        neighbours = sum(np.roll(spins, way, axis) for axis in (1, 2) for way in (-1, 1))
        changes = 2 * spins * (neighbours + self.field)
        return expit(-changes / self.temperature).reshape(-1, self.n_sites)

    def _absolute_moments(self) -> tuple[float, float, float]:
        """Stationary means of |M|, M^2 and M^4."""
        probabilities, magnetizations = self.stationary(), np.abs(self.spins().mean(axis=(1, 2)))
        first, second, fourth = (float(probabilities @ magnetizations**k) for k in (1, 2, 4))
        return first, second, fourth

    def _start_law(self, start: ArrayLike) -> Array:
        start = np.asarray(start)
        if np.issubdtype(start.dtype, np.floating):
            if start.shape != (self.n_states,) or not (
                np.all(start >= 0) and abs(start.sum() - 1) < 1e-9
            ):
                raise ValueError(
                    f"start has shape {start.shape} and sum {start.sum()}; allowed as a law: "
                    f"({self.n_states},) floats >= 0 that sum to 1"
                )
            return start
        if start.ndim > 1 or start.size in (0, self.n_states):
            raise ValueError(
                f"start has shape {start.shape} of integers; allowed: one index or an axis of "
                f"them, but not {self.n_states}, which could be a law: give that as floats"
            )
        indices = self._require_indices("start", start)
        return np.bincount(indices.ravel(), minlength=self.n_states) / indices.size

    def _require_indices(self, name: str, values: NDArray) -> Indices:
        if not np.issubdtype(values.dtype, np.integer) or not np.all(
            (values >= 0) & (values < self.n_states)
        ):
            raise ValueError(
                f"{name} {values} is not allowed; allowed: integers from 0 to {self.n_states - 1}"
            )
        return values.astype(np.int64)

    def _require_sites(self, sites: ArrayLike) -> Indices:
        sites = np.asarray(sites)
        largest = min(LARGEST_ENUMERATED_PATCH, self.n_sites)
        if not (
            sites.ndim == 1
            and 1 <= sites.size <= largest
            and np.issubdtype(sites.dtype, np.integer)
            and np.all((sites >= 0) & (sites < self.n_sites))
            and np.unique(sites).size == sites.size
        ):
            raise ValueError(
                f"sites {sites} is not allowed; allowed: 1 to {largest} distinct integers from 0 "
                f"to {self.n_sites - 1}"
            )
        return sites.astype(np.int64)


def onsager_energy(temperature: ArrayLike) -> Array:
    """Energy per site of the infinite Ising lattice without field, each bond counted once.

        E = -coth(2K) [1 + (2/pi) q K_1(1 - q^2)],   q = 2 tanh^2(2K) - 1,   K = 1/T

    K_1 is the complete elliptic integral of the first kind of the parameter m = k^2. At the
    critical point q = 0, K_1 diverges as -ln|q| and E = -sqrt 2.

    Args:    temperature: T > 0, any shape, in units of the coupling.
    Returns: shape of temperature, in [-2, 0]; right to about 1e-14 max(1, T).
    Raises:  ValueError: a temperature is not finite or not positive.
    Source:  Onsager, Phys. Rev. 65 (1944) 117.
    """
    coupling = _coupling(temperature)
    sinh = np.sinh(2 * coupling)
    # (s - 1)(s + 1)/(s^2 + 1) = 2 tanh^2 - 1 keeps the digits of q next to the critical point.
    ratio = (sinh - 1) * (sinh + 1) / (sinh**2 + 1)
    integral = ellipkm1(np.maximum(ratio**2, np.finfo(float).tiny))  # finite, for 0 * K_1 = 0
    energy: Array = -(1 + 2 / np.pi * ratio * integral) / np.tanh(2 * coupling)
    return energy


def onsager_magnetization(temperature: ArrayLike) -> Array:
    """Spontaneous magnetization of the infinite Ising lattice without field.

        |M| = (1 - sinh(2/T)^-4)^(1/8) below the critical temperature, 0 from there on

    Args:    temperature: T > 0, any shape, in units of the coupling.
    Returns: shape of temperature, in [0, 1].
    Raises:  ValueError: a temperature is not finite or not positive.
    Source:  Yang, Phys. Rev. 85 (1952) 808.
    """
    sinh = np.sinh(2 * _coupling(temperature))
    ordered = -np.expm1(-4 * np.log(np.maximum(sinh, 1)))
    magnetization: Array = ordered**0.125
    return magnetization


def kaufman_energy(side: int, temperature: ArrayLike) -> Array:
    """Energy per site of the L x L Ising torus without field, E = -(1/n) d ln Z / dK, K = 1/T.

        Z   = (1/2) (2 sinh 2K)^(n/2) (Z_1 + Z_2 + Z_3 + Z_4),   n = L^2
        Z_1 = prod 2 cosh(L g_q / 2),  Z_2 = prod 2 sinh(L g_q / 2)        q = 1, 3, ..., 2L - 1
        Z_3 = prod 2 cosh(L g_q / 2),  Z_4 = prod 2 sinh(L g_q / 2)        q = 0, 2, ..., 2L - 2
        cosh g_q = cosh(2K) coth(2K) - cos(pi q / L),  g_q > 0 for q > 0,  g_0 = 2K + ln tanh K

    g_0 and with it Z_4 change sign at the critical temperature. Derivatives are analytic; the
    products are added relative to the largest, so that no L overflows. On L = 2 the two bonds of
    a pair of neighbours both count.

    Args:    side: L >= 2.  temperature: T > 0, any shape, in units of the coupling.
    Returns: shape of temperature, in [-2, 0]; right to about 1e-14 max(1, T), 1e-12 at L = 1024.
    Raises:  ValueError: side is no integer >= 2; a temperature is not finite or not positive.
    Source:  Kaufman, Phys. Rev. 76 (1949) 1232.
    """
    _require_integer("side", side, minimum=2)
    couplings = _coupling(temperature)
    energies = [_kaufman_energy(int(side), float(coupling)) for coupling in couplings.ravel()]
    return np.array(energies).reshape(couplings.shape)


def domain_wall_density(energy: ArrayLike) -> Array:
    """Domain-wall density rho = (1 + E/2) / 2 of a bond energy E per site of the square lattice.

    Args:    energy: any shape, in [-2, 2], without the energy of a field.
    Returns: shape of energy, in [0, 1].
    Raises:  ValueError: a value is outside [-2, 2] by more than rounding.
    Source:  paper Eq. 24, with 2 bonds a site.
    """
    energy = np.asarray(energy, dtype=float)
    if not np.all(np.abs(energy) <= 2 + 1e-9):
        raise ValueError(f"energy {energy} must lie in [-2, 2], per site and without field")
    return (1 + energy / 2) / 2


def _kaufman_energy(side: int, coupling: float) -> float:
    weight = np.sinh(2 * coupling)
    modes = np.arange(1, 2 * side)
    # cosh g - 1, written so that it keeps its digits where it is small; (s - 1)^2 / s from q = 0.
    excess = (weight - 1) ** 2 / weight + 2 * np.sin(np.pi * modes / (2 * side)) ** 2
    lengths = side * 2 * np.arcsinh(np.sqrt(excess / 2))  # L g_q
    slopes = 2 * np.cosh(2 * coupling) * (1 - 1 / weight**2)  # d(cosh g)/dK
    slopes = side / 2 * slopes / np.sqrt(excess * (excess + 2))  # d(L g_q / 2)/dK
    log_cosh = lengths / 2 + np.log1p(np.exp(-lengths))
    log_sinh = lengths / 2 + np.log(-np.expm1(-lengths))
    tanh = np.tanh(lengths / 2)
    odd, even = slice(0, None, 2), slice(1, None, 2)

    zero_length = side * (2 * coupling + np.log(np.tanh(coupling)))
    zero_slope = side * (1 + 1 / weight)
    zero_log_cosh = abs(zero_length) / 2 + np.log1p(np.exp(-abs(zero_length)))
    zero_tanh = np.tanh(zero_length / 2)

    # Z_i = factor exp(log) and its derivative, divided by exp(log). Z_4 may vanish: its sinh of
    # q = 0 is written as tanh cosh.
    logs = np.array(
        [
            log_cosh[odd].sum(),
            log_sinh[odd].sum(),
            log_cosh[even].sum() + zero_log_cosh,
            log_sinh[even].sum() + zero_log_cosh,
        ]
    )
    factors = np.array([1, 1, 1, zero_tanh])
    derivatives = np.array(
        [
            (slopes * tanh)[odd].sum(),
            (slopes / tanh)[odd].sum(),
            (slopes * tanh)[even].sum() + zero_slope * zero_tanh,
            (slopes / tanh)[even].sum() * zero_tanh + zero_slope,
        ]
    )
    weights = np.exp(logs - logs.max())
    log_derivative = (weights @ derivatives) / (weights @ factors)
    return float(-1 / np.tanh(2 * coupling) - log_derivative / side**2)


def _coupling(temperature: ArrayLike) -> Array:
    """1/T of checked temperatures; capped where all spins are aligned anyway."""
    temperature = np.asarray(temperature, dtype=float)
    if not np.all(np.isfinite(temperature) & (temperature > 0)):
        raise ValueError(f"temperature {temperature} is not allowed; allowed: finite numbers > 0")
    return 1 / np.maximum(temperature, 1 / COLDEST_COUPLING)


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


def _require_integer(name: str, value: int, *, minimum: int, maximum: int | None = None) -> None:
    try:
        allowed = index(value) >= minimum and (maximum is None or value <= maximum)
    except TypeError:
        allowed = False
    if not allowed:
        bounds = f">= {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"{name} {value!r} is not allowed; allowed: an integer {bounds}")


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
