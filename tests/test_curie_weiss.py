"""Curie-Weiss spins (paper App. D.1) against slow twins, dense generators and exact moments.

Chi-square tests pass for p > 1e-4, their false-alarm rate; z-scores for |z| < 4, 6e-5 each.
"""

import dataclasses

import numpy as np
import oracles
import pytest
from scipy.linalg import expm
from scipy.stats import ks_2samp

from macrodyn_lib.exact import CurieWeissExact
from macrodyn_lib.kernels import curie_weiss as kernels
from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.partial_evolution import evolve_patches
from macrodyn_lib.records import Snapshots
from macrodyn_lib.systems.curie_weiss import CurieWeiss

PHYSICS = {"temperature": 0.7, "field": 0.15}
DURATION = 0.8
P_PASS, P_SEEN = 1e-4, 1e-9

# side of the lattice, start of a 2 x 2 patch, what its edge sees
REGIONS = {
    "whole": (2, (0, 0), "ghost"),
    "patch": (4, (2, 0), "ghost"),
    "patch around the corner": (4, (3, 3), "ghost"),
    "patch wrapped": (4, (2, 2), "periodic"),
}
each_region = pytest.mark.parametrize(("side", "start", "boundary"), REGIONS.values(), ids=REGIONS)


def region(side, start, boundary):
    """System, patch, start state (side, side) and the generator of the patch's 16 states."""
    system = CurieWeiss(side=side, **PHYSICS)
    patch = Patch(start=start, shape=(2, 2), lattice_shape=(side, side), boundary=boundary)
    spins = np.where(np.random.default_rng(4).random((side, side)) < 0.3, 1, -1).astype(np.int8)
    if boundary == "periodic":  # a small system of its own
        own = patch.extract(spins[None]).reshape(-1)
        return system, patch, spins, oracles.curie_weiss_generator(own, [0, 1, 2, 3], **PHYSICS)
    generator = oracles.curie_weiss_generator(spins.reshape(-1), list(patch.sites()), **PHYSICS)
    return system, patch, spins, generator


def pattern(patch, spins):
    return oracles.pattern_of(patch.extract(spins).reshape(len(spins), -1), [0, 1, 2, 3])


def copies(spins, count):
    return np.repeat(spins[None], count, axis=0)


@each_region
def test_patch_law_equals_dense_generator(side, start, boundary):
    system, patch, spins, generator = region(side, start, boundary)
    rng = np.random.default_rng(1)
    evolved = system.evolve_patch(copies(spins, 20_000), patch, DURATION, rng)
    before = pattern(patch, spins[None])[0]
    drawn = pattern(patch, evolved)
    assert oracles.p_of_counts(drawn, expm(generator * DURATION)[before]) > P_PASS
    # planted: the duration doubled
    assert oracles.p_of_counts(drawn, expm(generator * 2 * DURATION)[before]) < P_SEEN


def test_patch_law_notices_lost_ghosts():
    system, patch, spins, _ = region(4, (2, 0), "ghost")
    wrapped = dataclasses.replace(patch, boundary="periodic")
    evolved = system.evolve_patch(
        copies(spins, 20_000), wrapped, DURATION, np.random.default_rng(1)
    )
    law = expm(region(4, (2, 0), "ghost")[3] * DURATION)[pattern(patch, spins[None])[0]]
    assert oracles.p_of_counts(pattern(patch, evolved), law) < P_SEEN


@each_region
def test_slow_twin_law_equals_dense_generator(side, start, boundary):
    _, patch, spins, generator = region(side, start, boundary)
    own = spins if boundary == "ghost" else patch.extract(spins[None])[0]
    sites = list(patch.sites()) if boundary == "ghost" else [0, 1, 2, 3]
    rng = np.random.default_rng(2)
    drawn = [
        oracles.curie_weiss(own.reshape(-1), sites, DURATION, rng=rng, **PHYSICS)
        for _ in range(2000)
    ]
    law = expm(generator * DURATION)[pattern(patch, spins[None])[0]]
    assert oracles.p_of_counts(oracles.pattern_of(np.array(drawn), sites), law) > P_PASS


@each_region
@pytest.mark.parametrize("events", [1, 2, 7])
def test_events_mode_follows_the_jump_chain(side, start, boundary, events):
    """Exactly N flips, each chosen in proportion to its rate: a power of the jump matrix."""
    system, patch, spins, generator = region(side, start, boundary)
    rng = np.random.default_rng(3)
    evolved, elapsed = system.evolve_patch_events(copies(spins, 20_000), patch, events, rng)
    exit_rates = -np.diag(generator)
    jumps = (generator + np.diag(exit_rates)) / exit_rates[:, None]
    powers = [np.linalg.matrix_power(jumps, count) for count in range(events + 1)]
    before = pattern(patch, spins[None])[0]
    assert oracles.p_of_counts(pattern(patch, evolved), powers[events][before]) > P_PASS
    mean_time = sum(power[before] @ (1 / exit_rates) for power in powers[:-1])
    assert abs(oracles.z_of_mean(elapsed, mean_time)) < 4


@each_region
def test_patch_leaves_other_spins_frozen(side, start, boundary):
    system, patch, spins, _ = region(side, start, boundary)
    before = copies(spins, 50)
    evolved = system.evolve_patch(before, patch, 5.0, np.random.default_rng(1))
    outside = np.delete(np.arange(side**2), patch.sites())
    flat = evolved.reshape(50, -1)
    np.testing.assert_array_equal(flat[:, outside], before.reshape(50, -1)[:, outside])
    assert evolved.dtype == np.int8 and set(np.unique(flat)) <= {-1, 1}
    assert (before == spins).all()  # the input is not changed


SMALL = CurieWeiss(side=3, **PHYSICS)
TIMES = np.array([0.0, 0.4, 1.5])
START = np.array([[1, -1, -1], [-1, -1, 1], [-1, -1, -1]], dtype=np.int8)


def exact_count_law(time):
    """Law of the number of up spins of SMALL, from the generator of all 512 states."""
    generator = oracles.curie_weiss_generator(START.reshape(-1), list(range(9)), **PHYSICS)
    law = expm(generator * time)[oracles.pattern_of(START.reshape(1, -1), list(range(9)))[0]]
    up = [index.bit_count() for index in range(512)]
    return np.bincount(up, law)


def up_counts(trajectories):
    return np.rint(9 * (1 + trajectories.observables[..., 0]) / 2).astype(int)


@pytest.mark.parametrize("keep_states", [False, True], ids=["lumped", "spin by spin"])
def test_simulated_law_equals_dense_generator(keep_states):
    rng = np.random.default_rng(5)
    paths = SMALL.simulate(copies(START, 10_000), TIMES, rng, keep_states=keep_states)
    counts = up_counts(paths)
    assert (counts[:, 0] == 2).all()
    for index in (1, 2):
        assert oracles.p_of_counts(counts[:, index], exact_count_law(TIMES[index])) > P_PASS
    assert oracles.p_of_counts(counts[:, 1], exact_count_law(2 * TIMES[1])) < P_SEEN  # planted
    if keep_states:
        kept = paths.states.reshape(-1, 3, 3)
        np.testing.assert_allclose(SMALL.observables(kept), paths.observables.reshape(-1, 1))


def test_slow_lumped_twin_law_equals_dense_generator():
    rng = np.random.default_rng(6)
    drawn = [oracles.curie_weiss_lumped(2, 9, TIMES[2], rng=rng, **PHYSICS) for _ in range(3000)]
    assert oracles.p_of_counts(np.array(drawn), exact_count_law(TIMES[2])) > P_PASS


def test_lumped_law_equals_spin_resolved_law():
    system = CurieWeiss(side=8)
    states = system.initial_states(4000, np.random.default_rng(0), magnetization=-0.5)
    drawn = [
        system.simulate(states, [2.0], np.random.default_rng(seed), keep_states=keep_states)
        .observables[:, 0, 0]
        for seed, keep_states in [(1, False), (2, True)]
    ]  # fmt: skip
    assert ks_2samp(*drawn).pvalue > P_PASS


def moment_z_scores(times, simulated_times):
    system = CurieWeiss(side=8)
    states = system.initial_states(5000, np.random.default_rng(0), magnetization=-0.5)
    paths = system.simulate(states, simulated_times, np.random.default_rng(7))
    mean, std = CurieWeissExact(n_sites=64, temperature=1.1, field=0.1).moments(-0.5, times)
    m = paths.observables[..., 0]
    return np.abs([oracles.z_of_mean(m, mean), oracles.z_of_variance(m, mean, std**2)])


def test_simulated_moments_equal_exact_moments():
    times = np.array([0.5, 2.0, 8.0])
    assert moment_z_scores(times, times).max() < 4
    assert moment_z_scores(times, 2 * times).max() > 10  # planted: durations doubled


@pytest.mark.parametrize("side", [1, 2, 16, 64])
@pytest.mark.parametrize("temperature", [0.7, 1.1])
def test_rates_obey_detailed_balance(side, temperature):
    """binomial(n, N) exp(-H/T): N + 1 -> N by one of N + 1 up spins, back by one of n - N down."""
    n, field = side**2, 0.1
    up_spin, down_spin = CurieWeiss(side=side, temperature=temperature, field=field)._rates()
    totals = 2.0 * np.arange(n + 1) - n
    energies = -(totals**2) / (2 * n) - field * totals
    # per configuration the binomial factors cancel the numbers of candidates
    log_ratio = np.log(up_spin[1:] / down_spin[:-1])
    np.testing.assert_allclose(log_ratio, np.diff(energies) / temperature, rtol=0, atol=1e-11)
    # the two rates add up to 1 in Glauber dynamics, which fixes the unit of time
    np.testing.assert_allclose(up_spin[1:] + down_spin[:-1], 1, rtol=1e-14)


def increment_z_scores(duration, simulated_duration):
    """Patch increments from one state against drift M' and K times the covariance rate."""
    system = CurieWeiss(side=8)
    state = system.initial_states(1, np.random.default_rng(1), magnetization=0.25)
    pairs = evolve_patches(
        system,
        Snapshots(states=np.repeat(state, 25_000, axis=0)),
        Patching(side=4),
        duration=simulated_duration,
        patches_per_snapshot=4,
        rng=np.random.default_rng(2),
    )
    exact = CurieWeissExact(n_sites=64, temperature=1.1, field=0.1)
    magnetization = system.observables(state)[0, 0]
    drift, covariance = (
        exact.drift(magnetization),
        pairs.n_patches * exact.covariance(magnetization),
    )
    increments = pairs.increments[:, 0]
    return np.array([
        oracles.z_of_mean(increments, drift * duration),
        oracles.z_of_variance(increments, drift * duration, covariance * duration),
        oracles.z_of_variance(increments, drift * duration, covariance * duration / 4),
    ])  # fmt: skip


def test_patch_increments_have_exact_drift_and_k_fold_covariance():
    # 4000 flips in all: errors of 2 %; corrections of order duration are 0.5 %, a quarter of that
    mean, covariance, without_k = np.abs(increment_z_scores(0.005, 0.005))
    assert mean < 4 and covariance < 4
    assert without_k > 20  # planted: factor K lost
    assert np.abs(increment_z_scores(0.005, 0.01))[1] > 10  # planted: duration doubled


@pytest.mark.parametrize(("duration", "max_events"), [(2.0, 10**9), (np.inf, 25), (0.5, 3)])
def test_compiled_spin_kernel_equals_python(duration, max_events):
    system = CurieWeiss(side=4, **PHYSICS)
    states = system.initial_states(5, np.random.default_rng(0)).reshape(5, -1)
    results = []
    for kernel in (kernels.evolve_spins_inplace, kernels.evolve_spins_inplace.py_func):
        spins, rng, elapsed = states[:, :6].copy(), np.random.default_rng(1), np.empty(5)
        up = (states > 0).sum(axis=1)
        kernel(spins, up, *system._rates(), duration, max_events, rng, elapsed)
        results.append((spins, elapsed, rng.random()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-12)
    assert results[0][2] == results[1][2]


def test_compiled_lumped_kernel_equals_python():
    times, results = np.array([0.0, 0.3, 0.3, 2.0]), []
    for kernel in (kernels.simulate_counts, kernels.simulate_counts.py_func):
        recorded, rng = np.empty((5, 4), dtype=np.int64), np.random.default_rng(1)
        kernel(np.array([0, 3, 8, 16, 16]), 16, *CurieWeiss(side=4)._rates(), times, rng, recorded)
        results.append((recorded, rng.random()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_spins_stop_exactly_at_the_duration():
    system = CurieWeiss(side=4)
    spins, elapsed = system.initial_states(100, np.random.default_rng(0)).reshape(100, -1), None
    elapsed = np.empty(100)
    up = (spins > 0).sum(axis=1)
    kernels.evolve_spins_inplace(
        spins, up, *system._rates(), 0.37, 10**9, np.random.default_rng(1), elapsed
    )
    assert (elapsed == 0.37).all()


COLD = CurieWeiss(side=3, temperature=1e-3)  # every rate of the ordered state underflows to zero
ORDERED = np.ones((4, 3, 3), dtype=np.int8)
WHOLE = Patch(start=(0, 0), shape=(3, 3), lattice_shape=(3, 3))


@pytest.mark.parametrize("keep_states", [False, True])
def test_ordered_state_stays_when_every_rate_is_zero(keep_states):
    paths = COLD.simulate(ORDERED, [1.0, 1e6], np.random.default_rng(0), keep_states=keep_states)
    assert (paths.observables == 1).all()


def test_events_that_never_happen_leave_the_state():
    evolved, elapsed = COLD.evolve_patch_events(ORDERED, WHOLE, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(evolved, ORDERED)
    assert np.isinf(elapsed).all()


@pytest.mark.parametrize("keep_states", [False, True])
def test_simulation_gives_same_bits_for_any_number_of_threads(monkeypatch, keep_states):
    system, results = CurieWeiss(side=4), []
    states = system.initial_states(200, np.random.default_rng(0))
    for threads in ("1", "4"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        rng = np.random.default_rng(1)
        results.append(system.simulate(states, [1.0, 2.0], rng, keep_states=keep_states))
    np.testing.assert_array_equal(results[0].observables, results[1].observables)
    np.testing.assert_array_equal(results[0].states, results[1].states)


@pytest.mark.parametrize("magnetization", [-1, -0.5, 0, 0.25, 1])
def test_initial_states_have_the_magnetization(magnetization):
    system = CurieWeiss(side=8)
    states = system.initial_states(10, np.random.default_rng(0), magnetization=magnetization)
    assert states.shape == (10, 8, 8) and states.dtype == np.int8
    np.testing.assert_array_equal(system.observables(states), np.full((10, 1), magnetization))
    assert len(np.unique(states, axis=0)) == (10 if abs(magnetization) < 1 else 1)


def test_initial_magnetizations_are_uniform():
    system = CurieWeiss(side=16)
    m = system.observables(system.initial_states(5000, np.random.default_rng(0)))[:, 0]
    assert abs(oracles.z_of_mean(m, 0)) < 4
    assert abs(oracles.z_of_variance(m, 0, 1 / 3)) < 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 0}, "side = 0: must be an integer >= 1"),
        ({"side": True}, "side = True"),
        ({"temperature": 0}, "temperature = 0: must be finite and > 0"),
        ({"temperature": np.inf}, "temperature = inf"),
        ({"field": np.nan}, "field = nan: must be finite"),
    ],
)
def test_system_raises_for_wrong_parameter(changes, message):
    with pytest.raises(ValueError, match=message):
        CurieWeiss(**({"side": 4} | changes))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda system, rng: system.initial_states(1, rng, magnetization=1.5),
            r"magnetization = 1.5: must lie in \[-1, 1\]",
        ),
        (lambda system, rng: system.simulate(np.ones((1, 2, 2)), [1.0], rng), "states has shape"),
        (lambda system, rng: system.simulate(ORDERED, [1.0, 0.0], rng), "times = "),
        (lambda system, rng: system.evolve_patch(ORDERED, WHOLE, 0, rng), "duration = 0: must be"),
        (lambda system, rng: system.evolve_patch_events(ORDERED, WHOLE, 0, rng), "events = 0"),
        (lambda system, rng: system.evolve_patch_events(ORDERED, WHOLE, 1.5, rng), "events = 1.5"),
    ],
)  # fmt: skip
def test_call_raises_for_wrong_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(COLD, np.random.default_rng(0))
