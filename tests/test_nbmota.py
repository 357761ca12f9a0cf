"""NbMoTa: the vacancy kernel against the plain algorithm, its bookkeeping, patches, tiling.

z-scores pass for |z| < 4, a false alarm in 16 000 each.
"""

import dataclasses
import math
import re
from pathlib import Path

import numba
import numpy as np
import oracles
import pytest
from test_barriers import DATA, crowded_state, needs_weights, random_weights

from macrodyn_lib.kernels.vacancy import count_batch
from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.partial_evolution import evolve_patches
from macrodyn_lib.records import Snapshots
from macrodyn_lib.statistics import short_range_order
from macrodyn_lib.systems import barriers
from macrodyn_lib.systems.barriers import (
    PAIR_FILE,
    BarrierModel,
    network_of_weights,
    read_pair_coefficients,
    window_offsets,
)
from macrodyn_lib.systems.base import evolve_one_patch
from macrodyn_lib.systems.nbmota import NbMoTa
from macrodyn_lib.systems.structures import read_lammps_dump
from macrodyn_lib.upsampling import LocalRelax, tile_snapshots, upsample

PAIR = NbMoTa(cells=4, temperature=1500.0, barrier_model="pair")
NETWORK = NbMoTa(cells=4, temperature=1500.0, barrier_model=network_of_weights(random_weights()))
WHOLE = Patch(start=(0, 0, 0), shape=(4, 4, 4), lattice_shape=(4, 4, 4))


@numba.njit
def constant_barriers(window, parameters, barriers):
    barriers[:] = parameters[0][0]


FLAT = BarrierModel(
    name="flat",
    evaluate=constant_barriers,
    parameters=(np.array([1.0]),),
    offsets=window_offsets(3),
)


def oracle_barriers(system):
    """The same barriers, from their definitions."""
    if system.model.name == "network":
        weights = random_weights()
        return lambda grid, voxel: oracles.network_barriers(grid, voxel, weights)
    pairs, saddles = read_pair_coefficients(PAIR_FILE)

    def barriers(grid, voxel):
        result = np.full(8, np.inf)
        before = oracles.pair_energy(grid, pairs.shells, pairs.energies)
        for d, way in enumerate(oracles.HOPS):
            target = tuple((c + o) % e for c, o, e in zip(voxel, way, grid.shape, strict=True))
            if grid[target] > 0:
                moved = grid.copy()
                moved[voxel], moved[target] = grid[target], 0
                after = oracles.pair_energy(moved, pairs.shells, pairs.energies)
                result[d] = (after - before) / 2 + oracles.saddle_energy(
                    grid, voxel, way, saddles.orbits, saddles.constants, saddles.energies
                )
        return result

    return barriers


def run_logged(system, state, events, rng, box=(0, 0, 0, 4, 4, 4), mean_waits=False):
    """State, time of every event, and the log of the compiled kernel."""
    flat = state.reshape(1, -1).copy()
    log = np.full((1, events, 2), -1)
    stops = np.full(events, np.inf)
    times = system._hop(flat, state.shape[:3], box, stops, 1, mean_waits, rng, log=log)
    return flat.reshape(state.shape), times[0], [tuple(event) for event in log[0].tolist()]


# The kernel against the plain algorithm


@pytest.mark.parametrize(("system", "events"), [(NETWORK, 40), (PAIR, 2)], ids=["network", "pair"])
@pytest.mark.parametrize("part", ["whole", "box around the corner"])
def test_events_equal_those_of_the_plain_algorithm(system, events, part):
    """Crowded, so that vacancies block and change each other's hops. Same draws, same events."""
    state = crowded_state(vacancies=12 if system is NETWORK else 3)
    patch = WHOLE
    if part != "whole":
        patch = Patch(start=(3, 1, 2), shape=(2, 3, 4), lattice_shape=(4, 4, 4))
    active = np.zeros((1, 4, 4, 4, 2), dtype=bool)
    active[patch.selection] = True
    ours, times, log = run_logged(
        system, state, events, np.random.default_rng(1), (*patch.start, *patch.shape)
    )
    expected, expected_times, expected_log = oracles.alloy_kmc(
        state,
        oracle_barriers(system),
        1500.0,
        events,
        np.random.default_rng(1),
        active[0],
        patch.start,
    )
    assert log == expected_log
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_allclose(times, expected_times, rtol=1e-4 if system is NETWORK else 1e-9)
    assert len(set(log)) > 1 or events < 3


@pytest.mark.parametrize("part", ["whole", "box"])
def test_many_flat_events_equal_those_of_the_plain_algorithm(part):
    """Constant barriers cost the plain side nothing: 400 events, times to rounding."""
    system = dataclasses.replace(PAIR, barrier_model=FLAT)
    state, box = (
        crowded_state(vacancies=20),
        (0, 0, 0, 4, 4, 4) if part == "whole" else (3, 1, 2, 2, 3, 4),
    )
    patch = Patch(start=box[:3], shape=box[3:], lattice_shape=(4, 4, 4))
    active = np.zeros((1, 4, 4, 4, 2), dtype=bool)
    active[patch.selection] = True
    ours, times, log = run_logged(system, state, 400, np.random.default_rng(1), box)
    expected, expected_times, expected_log = oracles.alloy_kmc(
        state, lambda *_: np.ones(8), 1500.0, 400, np.random.default_rng(1), active[0], patch.start
    )
    assert log == expected_log
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_allclose(times, expected_times, rtol=1e-12)


def test_mean_waits_equal_those_of_the_plain_algorithm():
    system = dataclasses.replace(PAIR, barrier_model=FLAT)
    state = crowded_state()
    _, times, log = run_logged(system, state, 50, np.random.default_rng(1), mean_waits=True)
    _, expected, expected_log = oracles.alloy_kmc(
        state, lambda *_: np.ones(8), 1500.0, 50, np.random.default_rng(1), mean_waits=True
    )
    assert log == expected_log
    np.testing.assert_allclose(times, expected, rtol=1e-12)


@pytest.mark.parametrize("part", ["whole", "box"])
@pytest.mark.parametrize("system", [PAIR, NETWORK], ids=["pair", "network"])
def test_updated_rates_equal_rates_computed_anew(system, part):
    """Each mean wait of a run, 1 / R, against that of a run which starts from the same state."""
    box = (0, 0, 0, 4, 4, 4) if part == "whole" else (3, 1, 2, 2, 3, 4)
    flat = crowded_state(vacancies=20).reshape(1, -1)
    kept = np.empty((1, 2000, 128), dtype=np.uint8)
    stops, rng = np.full(2000, np.inf), np.random.default_rng(2)
    times = system._hop(flat, (4, 4, 4), box, stops, 1, True, rng, kept)
    fresh = system._hop(kept[0, :-1].copy(), (4, 4, 4), box, stops[:1], 1, True, rng)
    np.testing.assert_allclose(np.diff(times[0]), fresh[:, 0], rtol=1e-9)
    assert np.ptp(fresh) > 0.1 * fresh.mean()
    elsewhere = np.roll(fresh[:, 0], 1)  # planted: rates that are one event old
    assert not np.allclose(np.diff(times[0]), elsewhere, rtol=1e-3, atol=0)


@pytest.mark.parametrize("system", [PAIR, NETWORK], ids=["pair", "network"])
def test_hops_straight_back_restore_rates_and_bonds(system):
    """Cold and far apart, vacancies hop to and fro; each state against one computed anew."""
    system = dataclasses.replace(system, cells=8, temperature=900.0)
    flat = crowded_state(cells=8, vacancies=3).reshape(1, -1)
    kept, counts = np.empty((1, 1000, 1024), dtype=np.uint8), np.empty((1, 1000, 6), dtype=int)
    log, stops, rng = (
        np.empty((1, 1000, 2), dtype=int),
        np.full(1000, np.inf),
        np.random.default_rng(4),
    )
    box = (0, 0, 0, 8, 8, 8)
    times = system._hop(flat, (8, 8, 8), box, stops, 1, True, rng, kept, counts, log)
    fresh = system._hop(kept[0, :-1].copy(), (8, 8, 8), box, stops[:1], 1, True, rng)
    rounding = 2 * np.finfo(float).eps * times[0, -1]  # of times, which are sums
    np.testing.assert_allclose(np.diff(times[0]), fresh[:, 0], rtol=1e-9, atol=rounding)
    bonds, atoms = np.empty((1000, 6), dtype=int), np.empty((1000, 4), dtype=int)
    count_batch(kept[0], (8, 8, 8), bonds, atoms)
    np.testing.assert_array_equal(counts[0], bonds)
    same, (_, directions) = log[0, 1:, 0] == log[0, :-1, 0], log[0].T
    back = same & (directions[1:] == 7 - directions[:-1])
    assert 0.2 < back.mean() < 0.98 and len(np.unique(log[0, :, 0])) > 1


def test_memory_of_windows_changes_nothing():
    state, runs = crowded_state(vacancies=10), []
    for memory in (0, 4, 2**12):  # 4 entries: almost every window overwrites another
        model = dataclasses.replace(NETWORK.model, memory=memory)
        system = dataclasses.replace(NETWORK, barrier_model=model, temperature=600.0)
        runs.append(run_logged(system, state, 2000, np.random.default_rng(3)))
    for run in runs[1:]:
        assert run[2] == runs[0][2]
        np.testing.assert_array_equal(run[1], runs[0][1])


# Observables


def test_order_equals_a_count_over_all_neighbours():
    """From the definition, on the voxel grid."""
    state = crowded_state(cells=5, vacancies=7)
    grid, expected = oracles.alloy_grid(state), []
    for a, b in ((1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)):
        first = [tuple(v) for v in np.argwhere(grid == a).tolist()]
        found = sum(oracles.neighbour_shell(grid, v, 3).count(b) for v in first)
        expected.append(found / len(first) - 8 / 3)
    system = NbMoTa(cells=5, barrier_model="pair")
    np.testing.assert_allclose(system.observables(state[None])[0], expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(short_range_order(state[None])[0], expected, rtol=0, atol=1e-14)


@pytest.mark.skipif(not (DATA / "barriers_check.npz").is_file(), reason="no check values")
def test_order_equals_the_check_values():
    check = np.load(DATA / "barriers_check.npz")
    x, y, z = check["positions_voxel"].T
    states = np.empty((4, 8, 8, 8, 2), dtype=np.uint8)
    states[:, x // 2, y // 2, z // 2, x % 2] = check["species"]
    system = NbMoTa(cells=8, barrier_model="pair")
    np.testing.assert_allclose(system.observables(states), check["sro"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("system", [PAIR, NETWORK], ids=["pair", "network"])
def test_tracked_order_equals_that_of_the_kept_states(system):
    """Bonds change by integers: no drift however long."""
    states = np.stack([crowded_state(seed, vacancies=15) for seed in range(3)])
    _, observables, kept = system.simulate_events(
        states, 500, 8, np.random.default_rng(0), keep_states=True
    )
    assert kept.shape == (3, 8, 4, 4, 4, 2) and kept.dtype == np.uint8
    for tracked, path in zip(observables, kept, strict=True):
        np.testing.assert_allclose(tracked, short_range_order(path), rtol=0, atol=1e-14)
    assert (kept[:, 1:] != kept[:, :-1]).any(axis=(2, 3, 4, 5)).all()


def test_order_obeys_the_sum_rules_on_every_record():
    """Each atom has eight neighbours: three exact rules, up to bonds with vacancies (facts 4.8)."""
    states = PAIR.initial_states(2, np.random.default_rng(0))
    _, observables, kept = PAIR.simulate_events(
        states, 50, 40, np.random.default_rng(1), keep_states=True
    )
    for order, path in zip(observables.reshape(-1, 6), kept.reshape(-1, 4, 4, 4, 2), strict=True):
        grid = oracles.alloy_grid(path)
        n = np.array([(path == a).sum() for a in (1, 2, 3)])
        bonds = np.array(
            [
                sum(
                    oracles.neighbour_shell(grid, v, 3).count(a)
                    for v in map(tuple, np.argwhere(grid == 0).tolist())
                )
                for a in (1, 2, 3)
            ]
        )
        nb_nb, nb_mo, nb_ta, mo_mo, mo_ta, ta_ta = order + 8 / 3
        table = np.array(
            [
                [nb_nb, nb_mo, nb_ta],
                [nb_mo * n[0] / n[1], mo_mo, mo_ta],
                [nb_ta * n[0] / n[2], mo_ta * n[1] / n[2], ta_ta],
            ]
        )
        np.testing.assert_allclose(table.sum(axis=1), 8 - bonds / n, rtol=0, atol=1e-12)


# Time


def test_escape_between_two_states_equals_the_exact_law():
    """One cell, two sites, the rest frozen: P(other site at t) = a (1 - e^-(a + b) t) / (a + b)."""
    state = PAIR.initial_states(1, np.random.default_rng(4))[0]
    corner = np.argwhere(state == 0)[0]
    state[tuple(corner)], state[0, 0, 0, 0] = state[0, 0, 0, 0], 0
    cell = Patch(start=(0, 0, 0), shape=(1, 1, 1), lattice_shape=(4, 4, 4))
    pairs, away = oracle_barriers(PAIR), state.copy()
    away[0, 0, 0, 0], away[0, 0, 0, 1] = state[0, 0, 0, 1], 0
    beta = 1 / (oracles.BOLTZMANN * 1500.0)
    out = 1e13 * math.exp(-beta * pairs(oracles.alloy_grid(state), (0, 0, 0))[7])
    back = 1e13 * math.exp(-beta * pairs(oracles.alloy_grid(away), (1, 1, 1))[0])
    for duration in (0.3 / (out + back), 1 / (out + back), 5 / (out + back)):
        states = np.repeat(state[None], 20_000, axis=0)
        evolved = PAIR.evolve_patch(states, cell, duration, np.random.default_rng(5))
        left = (evolved[:, 0, 0, 0, 0] != 0).astype(float)
        expected = out / (out + back) * (1 - math.exp(-(out + back) * duration))
        assert abs(oracles.z_of_mean(left, expected)) < 4
    twice = out / (out + back) * (1 - math.exp(-2 * (out + back) * duration / 5))
    once = PAIR.evolve_patch(states, cell, duration / 5, np.random.default_rng(5))
    assert abs(oracles.z_of_mean((once[:, 0, 0, 0, 0] != 0).astype(float), twice)) > 8  # planted


@pytest.mark.parametrize("temperature", [1500.0, 2200.0, 3000.0])
def test_hops_and_exchanges_have_the_same_equilibrium(temperature):
    """Orders of all like pairs, z below 4 in nine numbers (1 in 1700); planted: 10 % hotter."""
    rng = np.random.default_rng(7)
    there = dataclasses.replace(PAIR, temperature=temperature)
    start = there.exchange_chains(there.initial_states(16, rng), 40, 1, rng, keep_states=True)
    waits, _, _ = there.simulate_events(start.states[:, 0], 2000, 1, rng, mean_waits=True)
    times = np.linspace(0, 40_000, 101) * waits.mean() / 2000
    by_hops = there.simulate(start.states[:, 0], times, rng).observables[:, 1:].mean(axis=1)

    def exchanged(temperature):
        system = dataclasses.replace(PAIR, temperature=temperature)
        chains = system.exchange_chains(system.initial_states(16, rng), 20, 100, rng)
        return chains.observables[:, 5:].mean(axis=1)

    def z_scores(one, other):
        error = np.hypot(one.std(axis=0, ddof=1), other.std(axis=0, ddof=1)) / 4
        return np.abs((one - other).mean(axis=0) / error)[[0, 3, 5]]

    assert z_scores(by_hops, exchanged(temperature)).max() < 4
    assert z_scores(by_hops, exchanged(1.1 * temperature)).max() > 4


def test_tracer_correlation_equals_that_of_the_bcc_lattice():
    """Equal barriers, one vacancy: f = (1 + <cos>) / (1 - <cos>) = 0.7272 of successive hops."""
    system = NbMoTa(cells=12, temperature=1500.0, barrier_model=FLAT)
    state = np.ones((12, 12, 12, 2), dtype=np.uint8)
    state[0, 0, 0, 0] = 0
    events = 400_000
    *_, log = run_logged_whole(system, state, events)
    products = hop_products(log, 24, oracles.HOPS)
    mean, error = products.mean(), products.std() / math.sqrt(len(products))
    factor = (1 + mean) / (1 - mean)
    assert abs(factor - 0.72719) < 4 * 2 * error / (1 - mean) ** 2
    assert 2 * error / (1 - mean) ** 2 < 0.003
    assert abs(1 - factor) > 40 * error  # planted: hops without memory have factor 1


def run_logged_whole(system, state, events):
    flat, log = state.reshape(1, -1).copy(), np.empty((1, events, 2), dtype=np.int64)
    box, rng = (0, 0, 0, *state.shape[:3]), np.random.default_rng(7)
    stops = np.array([np.inf])
    times = system._hop(flat, state.shape[:3], box, stops, events, False, rng, log=log)
    return flat, times, log[0, :, 1]


def hop_products(directions, extent, hops):
    """Cosine between successive hops of the same atom, for all atoms, from the vacancy's hops."""
    last = np.full((extent,) * 3, -1)  # direction in which the atom now at a voxel came
    voxel, products = (0, 0, 0), []
    for d in directions:
        target = tuple((c + o) % extent for c, o in zip(voxel, hops[d], strict=True))
        came = last[target]
        if came >= 0:  # the atom moves against the vacancy
            products.append(sum(a * b for a, b in zip(hops[came], hops[7 - d], strict=True)) / 3)
        last[voxel], last[target] = 7 - d, -1
        voxel = target
    return np.array(products)


def test_simulation_stops_at_its_times_and_keeps_the_states():
    states = PAIR.initial_states(3, np.random.default_rng(0))
    times = [0.0, 1e-8, 1e-8, 5e-8]
    paths = PAIR.simulate(states, times, np.random.default_rng(1), keep_states=True)
    assert paths.states.shape == (3, 4, 4, 4, 4, 2)
    np.testing.assert_array_equal(paths.states[:, 0], states)
    np.testing.assert_array_equal(paths.states[:, 1], paths.states[:, 2])
    assert (paths.states[:, 3] != paths.states[:, 2]).any()
    np.testing.assert_array_equal(paths.times, times)
    np.testing.assert_allclose(
        paths.observables[:, 3], short_range_order(paths.states[:, 3]), rtol=0, atol=1e-14
    )


def test_mean_and_random_waits_have_the_same_mean():
    """Flat barriers: R is constant, so the random time of 200 events has mean 200 / R."""
    system = dataclasses.replace(PAIR, barrier_model=FLAT)
    states = system.initial_states(2000, np.random.default_rng(0))
    exact = system.simulate_events(states[:1], 200, 1, np.random.default_rng(1), mean_waits=True)
    drawn = system.simulate_events(states, 200, 1, np.random.default_rng(1))
    rate = 8 * 1e13 * math.exp(-1 / (oracles.BOLTZMANN * 1500.0))
    assert exact[0][0, 0] == pytest.approx(200 / rate, rel=1e-12)
    assert abs(oracles.z_of_mean(drawn[0][:, 0], 200 / rate)) < 4
    assert abs(oracles.z_of_variance(drawn[0][:, 0], 200 / rate, 200 / rate**2)) < 4


@pytest.mark.parametrize("system", [PAIR, NETWORK], ids=["pair", "network"])
def test_same_seed_gives_same_bits_for_any_number_of_threads(monkeypatch, system):
    states, results = system.initial_states(5, np.random.default_rng(0)), []
    before = states.copy()
    for threads in ("1", "3", "1"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        results.append(system.simulate_events(states, 300, 2, np.random.default_rng(1)))
    for times, observables, _ in results[1:]:
        np.testing.assert_array_equal(times, results[0][0])
        np.testing.assert_array_equal(observables, results[0][1])
    other = system.simulate_events(states, 300, 2, np.random.default_rng(2))
    assert (other[0] != results[0][0]).all()
    np.testing.assert_array_equal(states, before)  # the input is not changed


# Patches


@pytest.mark.parametrize("boundary", ["ghost", "periodic"])
def test_only_the_patch_changes_and_vacancies_stay_in_it(boundary):
    system = dataclasses.replace(PAIR, cells=6)
    states = np.stack([crowded_state(seed, cells=6, vacancies=15) for seed in range(20)])
    patch = Patch(start=(4, 1, 3), shape=(4, 4, 4), lattice_shape=(6, 6, 6), boundary=boundary)
    evolved, elapsed = system.evolve_patch_events(states, patch, 30, np.random.default_rng(0))
    outside = np.ones((1, 6, 6, 6, 2), dtype=bool)
    outside[patch.selection] = False
    np.testing.assert_array_equal(evolved[:, outside[0]], states[:, outside[0]])
    inside_before, inside = patch.extract(states), patch.extract(evolved)
    assert (inside != inside_before).any(axis=(1, 2, 3, 4)).all()
    for a in range(4):
        np.testing.assert_array_equal(
            (inside == a).sum(axis=(1, 2, 3, 4)), (inside_before == a).sum(axis=(1, 2, 3, 4))
        )
    assert (elapsed > 0).all() and np.isfinite(elapsed).all()


def test_patch_wrapped_on_itself_is_a_small_lattice():
    system = dataclasses.replace(PAIR, cells=8)
    states = np.stack([crowded_state(seed, cells=8, vacancies=40) for seed in range(4)])
    patch = Patch(start=(6, 0, 2), shape=(4, 4, 4), lattice_shape=(8, 8, 8), boundary="periodic")
    evolved = system.evolve_patch(states, patch, 1e-8, np.random.default_rng(3))
    alone = PAIR.evolve_patch(patch.extract(states), WHOLE, 1e-8, np.random.default_rng(3))
    np.testing.assert_array_equal(patch.extract(evolved), alone)
    assert (alone != patch.extract(states)).any()


def test_relaxation_in_place_equals_one_patch_after_the_other():
    states = np.stack([crowded_state(seed, vacancies=20) for seed in range(3)])
    before, patches = states.copy(), Patching(side=2, stride=1).patches((4, 4, 4))
    at_once = PAIR.relax_patches(states, patches, 1e-10, np.random.default_rng(0))
    rng, one_by_one = np.random.default_rng(0), states
    for patch in patches:
        one_by_one = PAIR.evolve_patch(one_by_one, patch, 1e-10, rng)
    np.testing.assert_array_equal(at_once, one_by_one)
    np.testing.assert_array_equal(states, before)
    assert (at_once != states).any()


def test_patch_without_vacancy_stands_still():
    state = crowded_state(vacancies=1)
    x = np.argwhere(state == 0)[0, 0]
    patch = Patch(start=(int(x) + 1, 0, 0), shape=(2, 4, 4), lattice_shape=(4, 4, 4))
    evolved = PAIR.evolve_patch(state[None], patch, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(evolved[0], state)
    evolved, elapsed = PAIR.evolve_patch_events(state[None], patch, 5, np.random.default_rng(0))
    assert elapsed[0] == math.inf


@pytest.mark.parametrize("boundary", ["ghost", "buffer(1)", "periodic"])
def test_evolve_patches_gives_increments_of_the_whole_lattice(boundary):
    """Delta z = K [phi(x with patch I evolved) - phi(x)], bonds across the edge included."""
    system = NbMoTa(cells=8, temperature=2000.0, barrier_model="pair")
    states = np.stack([crowded_state(seed, cells=8, vacancies=30) for seed in range(6)])
    pairs = evolve_patches(
        system, Snapshots(states=states), Patching(side=4, boundary=boundary),
        duration=1e-9, patches_per_snapshot=8, twins=True, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert pairs.n_patches == 8 and len(pairs) == 48
    assert (pairs.increments != 0).any(axis=1).mean() > 0.5
    np.testing.assert_allclose(pairs.observables[::8], short_range_order(states), atol=1e-13)
    if boundary.startswith("buffer"):  # where it is cut off, atoms and vacancies may be lost
        return
    # what a hop changes is a whole number of bonds
    atoms = np.stack([(states == a).sum(axis=(1, 2, 3, 4)) for a in (1, 1, 1, 2, 2, 3)], axis=-1)
    counts = pairs.increments / 8 * np.repeat(atoms, 8, axis=0)
    np.testing.assert_allclose(counts, np.rint(counts), rtol=0, atol=1e-8)


# A buffer around a patch: the patch owns vacancies


def apart(cells=8):
    """A state with a vacancy near each corner of the patches of 4^3 cells, (1, *state)."""
    system = NbMoTa(cells=cells, temperature=2000.0, barrier_model="pair")
    state = system.initial_states(1, np.random.default_rng(3))
    state[state == 0] = 1
    state[:, ::4, ::4, ::4, 0] = 0  # first cells of the patches: on their edges
    return system, state


def test_buffer_moves_the_vacancies_of_the_patch_alone_and_loses_no_atom():
    system, state = apart()
    patching = Patching(side=4, boundary="buffer(2)")
    states = np.repeat(state, 200, axis=0)
    crossed = 0
    for patch in patching.patches(system.lattice_shape):
        rng = np.random.default_rng(0)
        evolved = evolve_one_patch(system, states, patch, patching, 2e-9, rng)
        for code in range(4):
            counts = (evolved == code).reshape(len(states), -1).sum(axis=1)
            assert (counts == (state == code).sum()).all()
        rim = patching.rim(patch)
        np.testing.assert_array_equal(rim.insert(evolved, rim.extract(states)), states)
        others = patch.insert(state == 0, False)  # vacancies that are not of the patch
        assert (evolved[:, others[0]] == 0).all()
        crossed += (patch.extract(evolved) == 0).reshape(len(states), -1).sum(axis=1).mean() < 1
        assert (evolved != states).reshape(len(states), -1).any(axis=1).mean() > 0.9
    assert crossed == 8  # planted: they do leave, which in ghost walls they cannot


@pytest.mark.parametrize("boundary", ["buffer(2)", "ghost"])
def test_every_hop_of_the_lattice_is_one_of_one_patch(boundary):
    """Probability that a vacancy has hopped: that of the whole lattice only with the buffer.

    A z-score below 3.5 for the sum over eight vacancies, a false-alarm rate of 5e-4.
    """
    system, state = apart()
    duration, count = 1e-11, 10_000
    states, holes = np.repeat(state, count, axis=0), state[0] == 0
    whole = system.simulate(
        states, np.array([duration]), np.random.default_rng(1), keep_states=True
    ).states[:, 0]
    expected = (whole[:, holes] != 0).sum(axis=1)
    patching = Patching(side=4, boundary=boundary)
    rng = np.random.default_rng(2)
    moved = np.zeros(count)
    for patch in patching.patches(system.lattice_shape):
        evolved = evolve_one_patch(system, states, patch, patching, duration, rng)
        moved += (evolved[:, holes] != 0).sum(axis=1)
    z = (moved.mean() - expected.mean()) / np.sqrt((moved.var() + expected.var()) / count)
    assert abs(z) < 3.5 if boundary == "buffer(2)" else z < -15


def test_large_alloy_in_frames_gives_the_increments_of_the_whole_lattice():
    system = NbMoTa(cells=24, temperature=2000.0, barrier_model="pair")
    patching = Patching(side=8, boundary="buffer(4)")
    snapshots = Snapshots(states=system.initial_states(1, np.random.default_rng(0)))
    pairs = evolve_patches(
        system, snapshots, patching, duration=2e-8, patches_per_snapshot=4,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert (pairs.increments != 0).any()
    atoms = system.composition()[[1, 1, 1, 2, 2, 3]]
    changed = pairs.increments / 27 * atoms  # of P_ab, whole numbers
    # a frame takes the composition of the whole for nominal
    np.testing.assert_allclose(changed, np.rint(changed), rtol=1e-3, atol=1e-6)


def test_model_that_sees_too_far_raises():
    far = dataclasses.replace(FLAT, name="far", offsets=window_offsets(36))
    with pytest.raises(ValueError, match="'far': sees 6 voxels far, must be <= 4"):
        NbMoTa(cells=8, barrier_model=far)


# States


@pytest.mark.parametrize(
    ("cells", "expected"),
    [(8, [1, 341, 341, 341]), (16, [8, 2728, 2728, 2728]), (4, [1, 42, 42, 43])],
)
def test_initial_states_have_the_nominal_composition(cells, expected):
    system = NbMoTa(cells=cells, barrier_model="pair")
    states = system.initial_states(3, np.random.default_rng(0))
    assert states.shape == (3, cells, cells, cells, 2) and states.dtype == np.uint8
    for state in states:
        np.testing.assert_array_equal(np.bincount(state.ravel()), expected)
    assert (states[0] != states[1]).any()
    # a random solution has no order: 3 independent numbers of about 1 / sqrt(n)
    assert np.abs(system.observables(states)).max() < 16 / math.sqrt(system.n_sites)


def test_vacancies_take_the_published_places_in_a_given_arrangement():
    system = NbMoTa(cells=16, barrier_model="pair")
    atoms = np.random.default_rng(0).integers(1, 4, (16, 16, 16, 2)).astype(np.uint8)
    states = system.initial_states(2, np.random.default_rng(0), atoms=atoms)
    np.testing.assert_array_equal(np.argwhere(states[1] == 0)[:, :3] % 8, 0)
    assert (states == 0).sum() == 2 * 8 and (states[0] != atoms).sum() == 8
    again = system.initial_states(1, np.random.default_rng(0), atoms=states[0])
    np.testing.assert_array_equal(again, states[:1])


@pytest.mark.skipif(not (DATA / "initial_1024.dump").is_file(), reason="no published start")
def test_published_start_has_the_published_order():
    atoms, _ = read_lammps_dump(DATA / "initial_1024.dump")
    system = NbMoTa(cells=8, barrier_model="pair")
    np.testing.assert_array_equal(np.bincount(atoms[0].ravel(), minlength=4), [0, 341, 341, 342])
    expected = [0.072336, -0.053763, -0.018573, 0.142717, -0.088954, 0.122807]
    np.testing.assert_allclose(system.observables(atoms)[0], expected, atol=1e-6)
    states = system.initial_states(1, np.random.default_rng(0), atoms=atoms[0])
    np.testing.assert_array_equal(np.bincount(states.ravel()), [1, 341, 340, 342])
    expected = [0.072336, -0.062561, -0.018573, 0.133333, -0.087255, 0.122807]
    np.testing.assert_allclose(system.observables(states)[0], expected, atol=1e-6)


# From small to large


def test_tiles_come_from_alike_snapshots_and_the_composition_is_nominal():
    small = NbMoTa(cells=4, barrier_model="pair")
    large = small.resized(8)
    rng = np.random.default_rng(0)
    states = np.concatenate([
        np.full((10, 4, 4, 4, 2), 1, dtype=np.uint8),
        small.initial_states(30, rng),
    ])  # fmt: skip
    groups, alike = np.repeat([0, 1], [10, 30]), np.repeat([5, 5, 6], [10, 10, 20])
    tiled = tile_snapshots(
        Snapshots(states=states, groups=groups), to=large, count=40, rng=rng, alike=alike
    )  # fmt: skip
    assert tiled.states.shape == (40, 8, 8, 8, 2) and set(tiled.groups) == {0, 1}
    for state, group in zip(tiled.states, tiled.groups, strict=True):
        counts = np.bincount(state.ravel(), minlength=4)
        vacancies = 0 if group == 0 else 8  # tiles of group 0 have none, the others one each
        assert counts[0] == vacancies
        assert counts[1] == counts[2] == (1024 - vacancies) // 3
        if group == 1:
            tiles = Patching(side=4).split(state[None], (8, 8, 8))[0]
            assert ((tiles == 0).sum(axis=(1, 2, 3, 4)) == 1).all()
            assert len(np.unique(tiles, axis=0)) == 8


def test_tiles_keep_their_order_but_for_the_seams():
    """Without correction (tiles of nominal composition) each tile is a shifted snapshot."""
    small = NbMoTa(cells=4, barrier_model="pair")
    states = small.initial_states(20, np.random.default_rng(0))
    tiled = tile_snapshots(
        Snapshots(states=states), to=small.resized(8), count=5, rng=np.random.default_rng(1)
    )  # fmt: skip
    originals = small.observables(states)
    tiles = Patching(side=4).split(tiled.states, (8, 8, 8)).reshape(-1, 4, 4, 4, 2)
    order = small.observables(tiles)
    distance = np.abs(order[:, None] - originals[None]).max(axis=2).min(axis=1)
    assert np.median(distance) < 0.15  # recolouring moves a few atoms of some tiles


def test_seams_heal_under_relaxation_by_exchange():
    """Order is lost at the seams between tiles, and relaxed tiles have that of one large system."""
    small = NbMoTa(cells=6, temperature=1500.0, barrier_model="pair", relaxation="exchange")
    large, rng = small.resized(12), np.random.default_rng(0)
    chains = small.exchange_chains(small.initial_states(40, rng), 30, 2, rng, keep_states=True)
    pool = Snapshots(states=chains.states[:, -1])
    direct = large.exchange_chains(large.initial_states(10, rng), 30, 1, rng).observables[:, 0]
    tiled = tile_snapshots(pool, to=large, count=10, rng=rng).states
    relaxed = LocalRelax(side=6, duration=2.0)(large, tiled, rng)
    raw, healed = large.observables(tiled), large.observables(relaxed)
    like = [0, 3, 5]  # NbNb, MoMo, TaTa: the others follow
    for order, agrees in ((healed, True), (raw, False)):
        errors = np.sqrt((order.var(axis=0, ddof=1) + direct.var(axis=0, ddof=1)) / 10)
        z = ((order.mean(axis=0) - direct.mean(axis=0)) / errors)[like]
        assert (np.abs(z).max() < 4) == agrees  # without relaxation it is 8 or more


def test_an_alloy_is_not_replicated():
    states = Snapshots(states=PAIR.initial_states(2, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="tile_snapshots"):
        upsample(states, to=PAIR.resized(8), count=2, relax=None, rng=np.random.default_rng(0))


# Bad input


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cells": 3}, "cells = 3"),
        ({"cells": 4.0}, "cells = 4.0"),
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"relaxation": "melt"}, "relaxation = 'melt'"),
        ({"barrier_model": FLAT, "relaxation": "exchange"}, "pair energies"),
        ({"barrier_model": []}, r"barrier_model = \[\]: must be a name or a BarrierModel"),
        ({"barrier_model": None}, "barrier_model = None: must be a name or"),
        ({"barrier_model": "none"}, "barrier_model = 'none': must be one of network, pair"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        NbMoTa(**({"cells": 4, "barrier_model": "pair"} | parameters))


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (np.zeros((1, 4, 4, 2), dtype=np.uint8), "shape"),
        (np.full((1, 4, 4, 4, 2), 4, dtype=np.uint8), r"\[4\]"),
        (np.ones((1, 4, 4, 4, 2)), "float64"),
    ],
)
def test_bad_states_are_refused(states, message):
    for call in (
        lambda: PAIR.simulate(states, [1.0], np.random.default_rng(0)),
        lambda: PAIR.evolve_patch(states, WHOLE, 1.0, np.random.default_rng(0)),
        lambda: PAIR.exchange_chains(states, 1, 1, np.random.default_rng(0)),
        lambda: PAIR.observables(states),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_bad_patches_are_refused():
    states = PAIR.initial_states(1, np.random.default_rng(0))
    other = Patch(start=(0, 0, 0), shape=(4, 4, 4), lattice_shape=(8, 8, 8))
    with pytest.raises(ValueError, match=r"lattice \(8, 8, 8\): must be of \(4, 4, 4\)"):
        PAIR.evolve_patch(states, other, 1.0, np.random.default_rng(0))
    wide = Patch(start=(0, 0, 0), shape=(4, 5, 4), lattice_shape=(4, 4, 4))
    with pytest.raises(ValueError, match=r"shape \(4, 5, 4\): sides must be <= cells = 4"):
        PAIR.evolve_patch(states, wide, 1.0, np.random.default_rng(0))
    thin = Patch(start=(0, 0, 0), shape=(2, 4, 4), lattice_shape=(4, 4, 4), boundary="periodic")
    with pytest.raises(ValueError, match="to wrap"):
        PAIR.evolve_patch(states, thin, 1.0, np.random.default_rng(0))
    flat = dataclasses.replace(PAIR, barrier_model=FLAT)
    with pytest.raises(ValueError, match="pair energies"):
        flat.exchange_chains(states, 1, 1, np.random.default_rng(0))


def test_code_in_the_documentation_runs(tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs/alloy.md").read_text(encoding="utf-8")
    monkeypatch.setattr(barriers, "_REGISTRY", dict(barriers._REGISTRY))
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alloy.dump", "alloy.xyz"]
    assert len(names["frames"]) == len(names["types"]) == 11
    assert len(names["last"]) == 1023 and names["last"].info["time"] == 1e-7
    np.testing.assert_array_equal(names["states"], names["path"].states[0])
    np.testing.assert_array_equal(names["again"][3], names["states"][-1])
    found = names["bonds"].barriers(names["window"])
    np.testing.assert_allclose(found, [[1.0, 1.0, 1.2, 1.2, 1.3, 1.3, 1.0, np.inf]])
    assert names["mine"].model is names["bonds"]


@needs_weights
def test_published_network_has_the_published_rates():
    check = np.load(DATA / "barriers_check.npz")
    x, y, z = check["positions_voxel"].T
    states = np.empty((4, 8, 8, 8, 2), dtype=np.uint8)
    states[:, x // 2, y // 2, z // 2, x % 2] = check["species"]
    system = NbMoTa(cells=8, temperature=2000.0, barrier_model="network")
    box, stops, rng = (0, 0, 0, 8, 8, 8), np.array([np.inf]), np.random.default_rng(0)
    times = system._hop(states.reshape(4, -1), (8, 8, 8), box, stops, 1, True, rng)
    np.testing.assert_allclose(1 / times[:, 0], check["rates_2000K_per_s"].sum(axis=1), rtol=1e-5)
