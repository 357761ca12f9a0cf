"""Closed formulas of the linear chain against the full N-dimensional linear system."""

import numpy as np
import pytest
from scipy.linalg import expm, solve_continuous_lyapunov

from macrodyn_lib.exact import LinearChainExact

# Both sides are short chains of float64 operations on small, well-conditioned matrices (condition
# number of A below 50), so they agree to some hundred eps = 2e-16; 1e-11 leaves room for no error.
ROUNDING = 1e-11

PUBLISHED = {"friction": 0.1, "coupling": 1.0, "noise": 1.0, "force": 15.0}
START_VARIANCE = 0.3


@pytest.fixture
def chain() -> LinearChainExact:
    return LinearChainExact(n_particles=7, friction=0.3, coupling=1.2, noise=0.8, force=2.5)


@pytest.fixture
def start(chain: LinearChainExact) -> np.ndarray:
    """Uneven start, to show that the mean over the chain does not depend on the profile."""
    return np.linspace(-2.0, 3.0, chain.n_particles) ** 2


def driving(chain: LinearChainExact) -> np.ndarray:
    return chain.force * np.eye(chain.n_particles)[0]


@pytest.mark.parametrize(
    ("n_particles", "bias", "diffusion", "mean", "variance"),
    [(10, 1.5, 0.316, 15.0, 0.5), (100, 0.15, 0.100, 1.5, 0.05)],
)
def test_parameters_equal_published_table(n_particles, bias, diffusion, mean, variance):
    # Paper Table 2, columns "theory"; the diffusion is printed with three decimals.
    chain = LinearChainExact(n_particles=n_particles, **PUBLISHED)
    assert chain.slope == -0.1
    assert chain.bias == pytest.approx(bias, rel=ROUNDING)
    assert chain.diffusion == pytest.approx(diffusion, abs=5e-4)
    assert chain.stationary_mean == pytest.approx(mean, rel=ROUNDING)
    assert chain.stationary_std**2 == pytest.approx(variance, rel=ROUNDING)


def test_drift_matrix_equals_equations_of_motion(chain, start):
    rates = np.empty_like(start)
    for i, position in enumerate(start):
        rates[i] = -chain.friction * position
        if i > 0:
            rates[i] += chain.coupling * (start[i - 1] - position)
        if i < start.size - 1:
            rates[i] += chain.coupling * (start[i + 1] - position)
    np.testing.assert_allclose(-chain.drift_matrix() @ start, rates, rtol=0, atol=ROUNDING)


def test_drift_matrix_has_path_eigenvalues(chain):
    modes = np.arange(chain.n_particles)
    expected = chain.friction + 2 * chain.coupling * (1 - np.cos(np.pi * modes / modes.size))
    np.testing.assert_allclose(np.linalg.eigvalsh(chain.drift_matrix()), expected, rtol=ROUNDING)


def test_mean_equals_matrix_exponential(chain, start):
    times = np.array([0.0, 0.1, 1.0, 7.0, 60.0])
    profile = np.linalg.solve(chain.drift_matrix(), driving(chain))
    expected = [
        (profile + expm(-chain.drift_matrix() * time) @ (start - profile)).mean() for time in times
    ]
    np.testing.assert_allclose(chain.mean(times, start.mean()), expected, rtol=ROUNDING)


def test_std_equals_lyapunov_equation(chain):
    times = np.array([0.0, 0.1, 1.0, 7.0, 60.0])
    n = chain.n_particles
    stationary = solve_continuous_lyapunov(chain.drift_matrix(), chain.noise**2 * np.eye(n))
    # Independent particles of equal variance n V_0 have a mean of variance V_0.
    start_covariance = n * START_VARIANCE * np.eye(n)
    expected = []
    for time in times:
        propagator = expm(-chain.drift_matrix() * time)
        covariance = stationary + propagator @ (start_covariance - stationary) @ propagator.T
        expected.append(np.sqrt(covariance.mean()))
    np.testing.assert_allclose(chain.std(times, START_VARIANCE), expected, rtol=ROUNDING)
    assert chain.stationary_std == pytest.approx(np.sqrt(stationary.mean()), rel=ROUNDING)


# The last step makes 1 - g h negative: the map then alternates, and is still stable.
@pytest.mark.parametrize("time_step", [0.01, 0.25, 5.0])
def test_discrete_law_equals_matrix_recursion(chain, start, time_step):
    n = chain.n_particles
    step = np.eye(n) - time_step * chain.drift_matrix()
    position, covariance = start.copy(), n * START_VARIANCE * np.eye(n)
    # An unstable map of the profile would grow as 23^steps and hide the mean in its rounding.
    n_steps = 40 if time_step < 1 else 5
    means, stds = [], []
    for _ in range(n_steps + 1):
        means.append(position.mean())
        stds.append(np.sqrt(covariance.mean()))
        position = step @ position + time_step * driving(chain)
        covariance = step @ covariance @ step.T + time_step * chain.noise**2 * np.eye(n)
    times = time_step * np.arange(n_steps + 1)
    growth = max(1.0, np.abs(np.linalg.eigvalsh(step)).max()) ** (2 * n_steps)
    tolerance = max(ROUNDING, 100 * np.finfo(float).eps * growth)
    np.testing.assert_allclose(
        chain.mean(times, start.mean(), time_step), means, rtol=0, atol=tolerance
    )
    np.testing.assert_allclose(
        chain.std(times, START_VARIANCE, time_step), stds, rtol=0, atol=tolerance
    )


def test_discrete_law_tends_to_continuous_law(chain):
    time = 2.0
    steps = np.array([1e-2, 5e-3])
    gaps = [
        abs(chain.mean(time, 4.0, step) - chain.mean(time, 4.0))
        + abs(chain.std(time, 0.0, step) - chain.std(time))
        for step in steps
    ]
    # First order in h; the second-order term changes the ratio by about g h.
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=2 * chain.friction * steps[0])


def test_stationary_profile_decays_as_exponential():
    chain = LinearChainExact(n_particles=100, **PUBLISHED)
    profile = chain.stationary_profile()
    inverse_length = np.arccosh(1 + chain.friction / (2 * chain.coupling))
    # 2 cosh(1/xi) = 2 + g/k; the far end reflects, which changes site i by exp(-2 (100 - i) / xi).
    assert inverse_length == pytest.approx(0.3149, abs=5e-5)
    np.testing.assert_allclose(
        np.diff(np.log(profile[:50])), -inverse_length, rtol=0, atol=np.exp(-100 * inverse_length)
    )
    assert profile.mean() == pytest.approx(chain.stationary_mean, rel=ROUNDING)


def test_stationary_covariance_solves_lyapunov_equation(chain):
    drift, covariance = chain.drift_matrix(), chain.stationary_covariance()
    np.testing.assert_allclose(
        drift @ covariance + covariance @ drift.T,
        chain.noise**2 * np.eye(chain.n_particles),
        rtol=0,
        atol=ROUNDING,
    )


@pytest.mark.parametrize("n_patches", [1, 2, 3, 4, 6, 12])
def test_patch_drift_equals_patch_mean_of_full_drift(n_patches):
    # With frozen neighbours each site of the patch has the drift it has in the whole chain.
    chain = LinearChainExact(n_particles=12, friction=0.3, coupling=1.2, noise=0.8, force=2.5)
    states = np.cos(np.arange(60.0)).reshape(5, 12)
    site_drifts = driving(chain) - states @ chain.drift_matrix()
    expected = site_drifts.reshape(5, n_patches, -1).mean(axis=2)
    drifts = chain.patch_drift(states, n_patches)
    np.testing.assert_allclose(drifts, expected, rtol=0, atol=ROUNDING)
    full = chain.slope * states.mean(axis=1) + chain.bias
    np.testing.assert_allclose(drifts.mean(axis=1), full, rtol=0, atol=ROUNDING)


def test_single_particle_follows_its_own_equation():
    chain = LinearChainExact(n_particles=1, friction=0.5, coupling=3.0, noise=1.0, force=2.0)
    assert chain.drift_matrix().tolist() == [[0.5]]
    assert chain.stationary_profile().tolist() == [4.0]
    assert chain.stationary_covariance().tolist() == [[1.0]]
    assert chain.patch_drift([[1.0], [6.0]], 1).tolist() == [[1.5], [-1.0]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_particles", 0),
        ("n_particles", 2.5),
        ("friction", 0.0),
        ("friction", float("nan")),
        ("coupling", -1.0),
        ("noise", -0.1),
        ("force", float("inf")),
    ],
)
def test_chain_raises_when_parameter_not_allowed(name, value):
    with pytest.raises(ValueError, match=f"{name} .*allowed"):
        LinearChainExact(**{"n_particles": 10, **PUBLISHED, name: value})


def test_law_raises_when_times_not_allowed(chain):
    with pytest.raises(ValueError, match="times"):
        chain.mean([-1.0], 0.0)
    with pytest.raises(ValueError, match="multiples of time_step"):
        chain.mean([0.25], 0.0, time_step=0.1)
    with pytest.raises(ValueError, match="multiples of time_step"):
        chain.std([1.0 + 1e-8], time_step=0.1)
    with pytest.raises(ValueError, match="unstable"):
        chain.std([7.0], time_step=7.0)
    with pytest.raises(ValueError, match="start_variance"):
        chain.std([1.0], start_variance=-1.0)
    chain.mean([0.1 * 3], 0.0, time_step=0.1)  # 0.30000000000000004 is a multiple


def test_patch_drift_raises_when_shapes_disagree(chain):
    with pytest.raises(ValueError, match="states has shape"):
        chain.patch_drift(np.zeros(7), 1)
    with pytest.raises(ValueError, match="does not divide"):
        chain.patch_drift(np.zeros((2, 7)), 2)
