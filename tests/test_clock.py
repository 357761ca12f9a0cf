"""The slowest relaxation that (M, rho) can know of, against the enumerated 4 x 4 chain."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from macrodyn_lib import Ising, Patching, Snapshots, pipeline
from macrodyn_lib.exact import IsingExact
from macrodyn_lib.rollouts import EnsemblePaths

TEMPERATURE = 3.0
EXACT = IsingExact(side=4, temperature=TEMPERATURE)
SYSTEM = Ising(side=4, temperature=TEMPERATURE, field=0.0)


def even_functions() -> np.ndarray:
    """The span of functions of (M, rho), centred, on all states: (2^16, 7)."""
    m, rho = EXACT.observables().T
    f = np.column_stack([abs(m), m**2, m**4, rho, rho**2, m**2 * rho, m**4 * rho])
    return f - EXACT.stationary() @ f


def generator_of(patch: list[int]) -> scipy.sparse.csr_array:
    """Flips of the patch's sites alone."""
    rates, states = EXACT.flip_rates()[:, patch], np.arange(EXACT.n_states)
    targets = np.column_stack([states[:, None] ^ (1 << np.array(patch)), states])
    entries = np.column_stack([rates, -rates.sum(axis=1)])
    rows = np.repeat(states, len(patch) + 1)
    shape = (EXACT.n_states, EXACT.n_states)
    return scipy.sparse.csr_array((entries.ravel(), (rows, targets.ravel())), shape=shape)


def exact_covariances(sites: list[int], duration: float) -> tuple[np.ndarray, np.ndarray]:
    """<f(0) f'(0)> and <f(0) f'(dt)> in equilibrium, when only these sites flip."""
    f, law = even_functions(), EXACT.stationary()
    after = scipy.sparse.linalg.expm_multiply(generator_of(sites) * duration, f)
    return f.T @ (law[:, None] * f), f.T @ (law[:, None] * after)


@pytest.mark.parametrize(
    ("side", "sites", "duration"), [(4, list(range(16)), 1.0), (2, [0, 1, 4, 5], 0.5)]
)
def test_slowest_time_is_the_rayleigh_ritz_value(side, sites, duration):
    """K <[f(z + dz/K) - f(z)]^2> / 2 dt = K (<f f'> - <f P f'>) / dt, the same for each patch."""
    rng = np.random.default_rng(1)
    drawn = rng.choice(EXACT.n_states, size=40000, p=EXACT.stationary())
    snapshots = Snapshots(states=EXACT.spins()[drawn], groups=np.arange(40000))
    found = pipeline.slowest_times(SYSTEM, snapshots, Patching(side=side), [duration], rng)
    same, later = exact_covariances(sites, duration)
    n_patches = 16 // len(sites)
    rate = scipy.linalg.eigvalsh(n_patches * (same - (later + later.T) / 2) / duration, same)[0]
    estimate = found[duration]
    assert abs(estimate.value - 1 / rate) < 4 * estimate.standard_error
    assert abs(estimate.value - 1.1 / rate) > 4 * estimate.standard_error  # planted


@pytest.mark.parametrize("odd", [0, 1])
def test_slowest_time_seen_is_that_of_the_largest_autocorrelation(odd):
    rng, lag = np.random.default_rng(2), 2.0
    drawn = rng.choice(EXACT.n_states, size=64 * 24, p=EXACT.stationary())
    times = np.arange(0.0, 160.0 + odd, 1.0)
    paths = SYSTEM.simulate(EXACT.spins()[drawn], times, rng).observables
    ensemble = EnsemblePaths(times=times, paths=paths.reshape(-1, 1, 64, len(times), 2))
    estimate = pipeline.slowest_time_seen(ensemble, lag)
    same, later = exact_covariances(list(range(16)), lag)
    time = -lag / np.log(scipy.linalg.eigvalsh((later + later.T) / 2, same)[-1])
    assert abs(estimate.value - time) < 4 * estimate.standard_error
    assert abs(estimate.value - 1.1 * time) > 4 * estimate.standard_error  # planted
