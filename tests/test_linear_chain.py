"""The linear chain (paper App. D.2) against its slow twin on the same draws and its exact law."""

import dataclasses

import numpy as np
import oracles
import pytest

from macrodyn_lib.exact import LinearChainExact
from macrodyn_lib.kernels.linear_chain import euler_maruyama_inplace
from macrodyn_lib.lattice import Patch
from macrodyn_lib.systems.linear_chain import LinearChain

PHYSICS = {"friction": 0.3, "coupling": 0.8, "noise": 0.7, "force": 5.0}
CHAIN = LinearChain(n_particles=12, **PHYSICS)
# Sums of a dozen numbers of order 10 in another order: a few rounding errors of 1e-15 each step.
ROUNDING = 1e-12

REGIONS = {
    "whole": (0, 12, "ghost"),
    "first": (0, 4, "ghost"),
    "middle": (4, 8, "ghost"),
    "last": (8, 12, "ghost"),
    "one particle": (5, 6, "ghost"),
    "first wrapped": (0, 4, "periodic"),
    "middle wrapped": (4, 8, "periodic"),
    "one particle wrapped": (5, 6, "periodic"),
}
each_region = pytest.mark.parametrize(("start", "stop", "boundary"), REGIONS.values(), ids=REGIONS)


def patch_of(start, stop, boundary="ghost"):
    return Patch(start=(start,), shape=(stop - start,), lattice_shape=(12,), boundary=boundary)


def states_of(count=3):
    return np.random.default_rng(1).normal(3, 4, size=(count, 12))


def oracle(states, start, stop, boundary, n_steps, time_step, rng):
    return oracles.linear_chain(
        states,
        start,
        stop,
        wrapped=boundary == "periodic",
        n_steps=n_steps,
        time_step=time_step,
        rng=rng,
        **PHYSICS,
    )


@each_region
def test_patch_trajectory_equals_oracle(start, stop, boundary):
    states, h = states_of(), CHAIN.time_step
    evolved = CHAIN.evolve_patch(
        states, patch_of(start, stop, boundary), 5 * h, np.random.default_rng(2)
    )
    expected = oracle(states, start, stop, boundary, 5, h, np.random.default_rng(2))
    np.testing.assert_allclose(evolved, expected, rtol=0, atol=ROUNDING)
    outside = np.r_[0:start, stop:12]
    np.testing.assert_array_equal(evolved[:, outside], states[:, outside])


def test_simulated_trajectory_equals_oracle():
    states, h = states_of(), CHAIN.time_step
    # an interval is cut into equal steps no longer than h: 0, 3 of h, 3 of 2.5 h / 3
    times = np.array([0, 3 * h, 5.5 * h])
    paths = CHAIN.simulate(states, times, np.random.default_rng(2), keep_states=True)
    rng = np.random.default_rng(2).spawn(1)[0]
    middle = oracle(states, 0, 12, "ghost", 3, h, rng)
    last = oracle(middle, 0, 12, "ghost", 3, 2.5 * h / 3, rng)
    expected = np.stack([states, middle, last], axis=1)
    np.testing.assert_allclose(paths.states, expected, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(paths.observables[..., 0], expected.mean(axis=2), atol=ROUNDING)


@each_region
def test_compiled_kernel_equals_python(start, stop, boundary):
    results = []
    for kernel in (euler_maruyama_inplace, euler_maruyama_inplace.py_func):
        x, rng = states_of(), np.random.default_rng(2)
        wrapped = boundary == "periodic"
        kernel(x, start, stop, wrapped, 4, 0.05, *PHYSICS.values(), rng)
        results.append((x, rng.random()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=0, atol=ROUNDING)
    assert results[0][1] == results[1][1]  # both leave the generator in one state


def step_of_whole_and_patch(start, stop, boundary):
    """One step of the whole, and of the patch alone with the part of the noise that is its own."""
    states, h = states_of(1), CHAIN.time_step
    full = CHAIN.evolve_patch(states, patch_of(0, 12), h, np.random.default_rng(2))
    rng = np.random.default_rng(2)
    rng.standard_normal(start)
    partial = CHAIN.evolve_patch(states, patch_of(start, stop, boundary), h, rng)
    return full[:, start:stop], partial[:, start:stop]


@pytest.mark.parametrize("start", [0, 4, 8])
def test_one_step_of_ghost_patch_equals_marginal_of_full_step(start):
    full, partial = step_of_whole_and_patch(start, start + 4, "ghost")
    np.testing.assert_array_equal(partial, full)
    _, without_ghosts = step_of_whole_and_patch(start, start + 4, "periodic")
    assert np.abs(without_ghosts - full).max() > 0.01  # the planted error is seen


def law_z_scores(chain, times, simulated_times):
    """Distance of simulated means and variances of m(t) from the exact law, in standard errors."""
    exact = LinearChainExact(n_particles=12, **PHYSICS)
    paths = chain.simulate(np.zeros((4000, 12)), simulated_times, np.random.default_rng(5))
    m = paths.observables[..., 0]
    mean = exact.mean(times, 0.0, time_step=chain.time_step)
    std = exact.std(times, time_step=chain.time_step)
    return np.abs([oracles.z_of_mean(m, mean), oracles.z_of_variance(m, mean, std**2)])


def test_simulated_law_equals_exact_law():
    # 6 z-scores, |z| < 4: false alarm 4e-4
    times = CHAIN.time_step * np.array([1, 10, 60])
    assert law_z_scores(CHAIN, times, times).max() < 4
    assert law_z_scores(CHAIN, times, 2 * times).max() > 10  # planted: durations doubled
    noisier = dataclasses.replace(CHAIN, noise=1.2 * CHAIN.noise)
    assert law_z_scores(noisier, times, times)[1].max() > 10  # planted: noise off by a fifth


def test_stationary_profile_equals_exact_profile():
    exact = LinearChainExact(n_particles=12, **PHYSICS)
    profile = exact.stationary_profile()
    start = np.tile(profile, (2000, 1))
    paths = CHAIN.simulate(start, np.array([2.0]), np.random.default_rng(6), keep_states=True)
    # the mean profile is a fixed point of the Euler-Maruyama map as well; 12 z-scores
    assert np.abs(oracles.z_of_mean(paths.states[:, 0], profile)).max() < 4.5  # false alarm 8e-5


def test_initial_states_have_the_stated_law():
    states = CHAIN.initial_states(5000, np.random.default_rng(7), center=2.0, spread=0.5)
    assert states.shape == (5000, 12)
    thermal = 0.7**2 / (2 * (0.3 + 2 * 0.8))
    m = states.mean(axis=1)
    assert abs(oracles.z_of_mean(m, 2.0)) < 4
    assert abs(oracles.z_of_variance(m, 2.0, 0.5**2 / 3 + thermal / 12)) < 4


def test_resized_chain_keeps_physics():
    assert CHAIN.resized(30) == dataclasses.replace(CHAIN, n_particles=30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_particles": 0}, "n_particles = 0: must be an integer >= 1"),
        ({"n_particles": 2.5}, "n_particles = 2.5"),
        ({"friction": 0}, "friction = 0: must be finite and > 0"),
        ({"coupling": -1}, "coupling = -1: must be finite and >= 0"),
        ({"noise": -1}, "noise = -1: must be finite and > 0"),
        ({"force": np.nan}, "force = nan: must be finite"),
        ({"time_step": 0.7}, "time_step = 0.7: must be > 0 and < 0.571429"),
        ({"time_step": 0}, "time_step = 0: must be > 0"),
    ],
)
def test_chain_raises_for_wrong_parameter(changes, message):
    with pytest.raises(ValueError, match=message):
        LinearChain(**({"n_particles": 12} | PHYSICS | changes))


@pytest.mark.parametrize(
    ("states", "times", "message"),
    [
        (np.zeros((1, 11)), [1.0], r"states has shape \(1, 11\): must be \(B, \(12,\)\)"),
        (np.full((1, 12), np.nan), [1.0], "states has non-finite entries"),
        (np.zeros((1, 12)), [1.0, 0.5], "times = .*ascending"),
        (np.zeros((1, 12)), [-1.0], "times = .*>= 0"),
        (np.zeros((1, 12)), [np.nan], "times = "),
        (np.zeros((1, 12)), 1.0, "one axis"),
    ],
)
def test_simulate_raises_for_wrong_argument(states, times, message):
    with pytest.raises(ValueError, match=message):
        CHAIN.simulate(states, times, np.random.default_rng(0))


@pytest.mark.parametrize("duration", [0.0, -1.0, np.inf, np.nan])
def test_evolve_patch_raises_for_wrong_duration(duration):
    with pytest.raises(ValueError, match=f"duration = {duration}: must be finite and > 0"):
        CHAIN.evolve_patch(states_of(), patch_of(0, 4), duration, np.random.default_rng(0))


def test_evolve_patch_events_raises_without_events():
    with pytest.raises(ValueError, match="LinearChain has no events; give duration"):
        CHAIN.evolve_patch_events(states_of(), patch_of(0, 4), 3, np.random.default_rng(0))
