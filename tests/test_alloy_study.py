"""The study of the alloy: sum rules, clocks, ordering, and all steps on a small case."""

import dataclasses
import math
import warnings

import numpy as np
import pytest

from macrodyn_lib import alloy_study as alloy
from macrodyn_lib.errors import ParameterError
from macrodyn_lib.fitting import TrainingSettings
from macrodyn_lib.lattice import Patching
from macrodyn_lib.parameters import resolve
from macrodyn_lib.records import Trajectories
from macrodyn_lib.systems.nbmota import NbMoTa
from macrodyn_lib.upsampling import tile_snapshots

SYSTEM = NbMoTa(cells=8, temperature=2500.0, barrier_model="pair")
ATOMS = SYSTEM.composition()[1:]
LARGE = SYSTEM.resized(16)
RECIPE = alloy.AlloyRecipe(
    patch_cells=8, snapshots=80, groups=4, per_group=2, members=2, max_hops=6e4, sweeps=0.2,
    evolutions=16,
    settings=TrainingSettings(steps=20, batch=64, check_every=10),
)  # fmt: skip


def crowded_states(count=3):
    """Random solutions with 40 vacancies in 1024 sites, of their own composition."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(4, dtype=np.uint8), [40, 300, 350, 334])
    return np.stack([rng.permutation(codes).reshape(8, 8, 8, 2) for _ in range(count)])


# Sum rules


def test_vacancy_bonds_equal_those_counted_in_the_states():
    states = crowded_states()
    counted = np.zeros((len(states), 4))
    corners, centres = states[..., 0], states[..., 1]
    for shift in np.ndindex(2, 2, 2):
        # the corner of a cell has the centres of this cell and of those before it as neighbours
        beside = np.roll(centres, shift, axis=(1, 2, 3))
        for one, other in ((corners, beside), (beside, corners)):
            for a in range(4):
                counted[:, a] += ((one == a) & (other == 0)).sum(axis=(1, 2, 3))
    atoms = np.array([300, 350, 334])
    found = alloy.vacancy_bonds(SYSTEM.observables(states), atoms)
    np.testing.assert_allclose(found * atoms, counted[:, 1:], atol=1e-9)


def test_unlike_pairs_follow_from_like_ones():
    states, atoms = crowded_states(), np.array([300, 350, 334])
    order = SYSTEM.observables(states)
    for row, bonds in zip(order, alloy.vacancy_bonds(order, atoms), strict=True):
        complete = alloy.complete_order(row[list(alloy.LIKE)], bonds, atoms)
        np.testing.assert_allclose(complete, row, atol=1e-12)


def test_trajectories_obey_the_sum_rules_and_published_curves_break_them():
    rng = np.random.default_rng(1)
    path = SYSTEM.simulate(SYSTEM.initial_states(4, rng), np.linspace(0, 1e-7, 5), rng)
    assert alloy.sum_rule_violation(path.observables, ATOMS, 1) < 1e-9
    wrong = path.observables.copy()
    wrong[2, 3, 4] += 1e-3  # planted: a third of a bond
    assert alloy.sum_rule_violation(wrong, ATOMS, 1) > 0.3
    broken = {
        n: np.abs(alloy.vacancy_bonds(np.array(order), np.ones(3)) - 8 / 1024).max()
        for n, order in alloy.PUBLISHED_BY_SIZE.items()
    }
    assert broken[8192] < 0.02 and broken[65536] > 0.3 and broken[524288] > 0.6


# Clocks


def test_transient_time_of_an_exponential():
    times = np.linspace(0, 6, 601)
    paths = np.zeros((1, 601, 6))
    paths[0, :, 3] = -0.7 * (1 - np.exp(-times))
    assert alloy.transient_time(times, paths, -0.7) == pytest.approx(1, abs=1e-4)
    assert alloy.transient_time(times, paths) == pytest.approx(1, abs=0.02)
    assert alloy.transient_time(times, paths, -2.0) == 6  # never there: a lower bound
    assert alloy.transient_time(times, np.zeros((1, 601, 6))) == 6  # does not move
    noise = np.random.default_rng(0).normal(size=(4, 601, 6))
    assert alloy.transient_time(times, noise) == 6  # moves, but nowhere
    assert alloy.transient_time(times, paths + 0.01 * noise) == pytest.approx(1, abs=0.1)


def test_small_runs_are_long_enough_and_equally_recorded():
    runs = alloy.simulate_small_runs(
        SYSTEM.resized(4), 16, np.random.default_rng(0), relaxations=8.0, max_hops=1e6
    )
    times = runs.trajectories.times
    assert times[0] == 0 and len(times) == alloy.RECORDS + 1
    np.testing.assert_allclose(np.diff(times), times[1], rtol=1e-9)
    assert runs.at_rest and times[-1] >= 8 * runs.relaxation_time
    capped = alloy.simulate_small_runs(
        SYSTEM.resized(4), 4, np.random.default_rng(0), relaxations=1e6, max_hops=2e4
    )
    assert not capped.at_rest
    assert 8e3 < capped.trajectories.times[-1] / capped.hop_time <= 2e4
    states = runs.snapshots(4)
    assert len(states) == 16 * 129 and len(np.unique(states.groups)) == 4
    windows = runs.alike()
    assert len(windows) == len(states) and (windows[:129] == windows[129:258]).all()
    assert (np.diff(windows[:129]) >= 0).all() and windows[:4].tolist() == [0, 6, 9, 12]


def test_patches_evolve_for_a_part_of_the_relaxation_time_or_of_so_many_hops():
    def duration(relaxation, **changes):
        runs = alloy.SmallRuns(
            system=SYSTEM,
            trajectories=Trajectories(times=np.zeros(1), observables=np.zeros((1, 1, 6))),
            relaxation_time=relaxation, hop_time=1.0, mean_wait=2.0, at_rest=True,
        )  # fmt: skip
        return RECIPE.but(**changes).duration_of(runs)

    assert duration(1e4) == 500  # 5 %
    assert duration(1e5) == 3000  # hops
    assert duration(1e7) == 1e4  # a thousandth, so that rollouts do not take for ever
    assert duration(1e5, duration=math.inf, longest_hops=10, least=0.0) == 10


def test_order_at_a_time_is_between_records_and_at_most_the_last():
    order = np.zeros((2, 3, 6))
    order[:, :, 3] = [[0, -1, -3], [0, -2, -4]]
    path = Trajectories(times=np.array([0.0, 1.0, 2.0]), observables=order)
    values = {t: alloy.order_at(path, t)[3] for t in (0.5, 1.5, 9.0)}
    assert [v.value for v in values.values()] == [-0.75, -2.5, -3.5]
    assert values[9.0].standard_error == pytest.approx(0.5)  # of -3 and -4


def test_standard_deviations_of_direct_runs_fall_with_size():
    rng = np.random.default_rng(0)
    paths = [
        Trajectories(times=np.arange(30.0), observables=rng.normal(0, width, (40, 30, 6)))
        for width in (0.3, 0.1)
    ]
    ratio = alloy.direct_std_ratio(*paths)
    assert ratio.standard_error == pytest.approx(ratio.value / math.sqrt(39))
    assert abs(ratio.value - 3) < 3 * ratio.standard_error


def test_unit_of_time_follows_arrhenius_between_and_beyond_temperatures():
    def law(temperature):
        return 1e-9 * np.exp(8 * 1000 / np.asarray(temperature))

    temperatures = np.array([1000.0, 1500.0, 3000.0])
    learned = alloy.LearnedAlloy(
        system=SYSTEM, members=[], temperatures=temperatures, units=law(temperatures),
        rest=np.outer(1000 / temperatures, [1.0, 2.0, 3.0]), bonds=np.zeros((3, 3)),
    )  # fmt: skip
    for temperature in (800.0, 1000.0, 1100.0, 2000.0, 3000.0, 3500.0):
        assert learned.unit(temperature) == pytest.approx(float(law(temperature)), rel=1e-9)
    random, rest = learned.starts(1100.0)
    np.testing.assert_array_equal(random, 0)
    np.testing.assert_allclose(rest, np.array([1, 2, 3]) / 1.1)


# Ordering


def test_sublattice_order_of_ordered_and_random_states():
    ordered = np.empty((2, 4, 4, 4, 2), dtype=np.uint8)
    ordered[0, ..., 0], ordered[0, ..., 1] = 2, 3
    ordered[1, ..., 0], ordered[1, ..., 1] = 1, 2
    np.testing.assert_array_equal(alloy.sublattice_order(ordered), [1, -1])
    random = SYSTEM.initial_states(50, np.random.default_rng(0))
    assert np.abs(alloy.sublattice_order(random)).max() < 5 / np.sqrt(ATOMS[1])


def synthetic(temperatures, crossing, width, seed, chains=8):
    """Chains of m = +-s + noise, with noise that grows through the crossing the faster, the
    smaller ``width``."""
    rng = np.random.default_rng(seed)
    spread = np.exp((temperatures - crossing) / width)[:, None, None]
    shape = (len(temperatures), chains, 400)
    m = rng.choice([-1, 1], shape) * 0.5 + 0.3 * spread * rng.normal(size=shape)
    return alloy.Equilibrium(
        temperatures=temperatures, order=np.zeros((*shape, 6)), sublattice=m,
        examples=np.zeros((len(temperatures), 4, 4, 4, 2), dtype=np.uint8),
    )  # fmt: skip


def test_ordering_temperature_is_where_cumulants_cross():
    temperatures = np.arange(950.0, 1201.0, 50.0)
    small, large = (synthetic(temperatures, 1070, w, seed=w) for w in (200, 60))
    found = alloy.ordering_temperature(small, large)
    assert found.standard_error < 10
    assert abs(found.value - 1070) < 3 * found.standard_error + 3  # 3: the linear pieces
    hotter = synthetic(temperatures, 1070, 60, seed=3)
    shifted = dataclasses.replace(hotter, temperatures=temperatures + 1)
    with pytest.raises(ValueError, match="must be the same"):
        alloy.ordering_temperature(small, shifted)
    part = slice(0, 2)  # both ordered
    below = [
        dataclasses.replace(
            e, temperatures=e.temperatures[part], order=e.order[part],
            sublattice=e.sublattice[part], examples=e.examples[part],
        )
        for e in (small, large)
    ]  # fmt: skip
    assert alloy.ordering_temperature(*below).value == 1000  # a bound


def test_order_is_of_a_temperature_that_has_chains():
    chains = synthetic(np.array([1000.0, 2000.0]), 1500, 100, seed=0)
    chains.order[1] = 1
    assert [chains.mean_order(T, 3).value for T in (1000, 2000.0)] == [0, 1]
    with pytest.raises(ParameterError, match=r"= 1600: must be one of \[1000.0, 2000.0\]"):
        chains.mean_order(1600.0, 3)


def test_shortest_small_run_is_the_least_that_the_study_takes():
    least = alloy.FIRST_HOPS * alloy.RECORDS
    shortest = resolve("08_nbmota", {"preset": "smoke", "max_hops": least})
    assert shortest.resolved()["max_hops"] == least
    with pytest.raises(ParameterError, match=r"parameter max_hops = 8191: .*equal to 8192"):
        resolve("08_nbmota", {"preset": "smoke", "max_hops": least - 1})


def test_equilibrium_is_that_of_exchange_chains_at_each_temperature():
    """Cooled from above against chains of their own: z below 4 for two numbers, 1 in 8000."""
    rng = np.random.default_rng(0)
    system = SYSTEM.resized(4)
    cooled = alloy.simulate_equilibrium(system, [1500.0, 3000.0], chains=12, sweeps=600, rng=rng)
    np.testing.assert_array_equal(cooled.temperatures, [1500.0, 3000.0])
    for temperature in (1500.0, 3000.0):
        there = dataclasses.replace(system, temperature=temperature)
        own = there.exchange_chains(there.initial_states(12, rng), 20, 30, rng).observables[:, 10:]
        value = own[..., 3].mean(axis=1)
        ours = cooled.mean_order(temperature, 3)
        error = math.hypot(ours.standard_error, value.std(ddof=1) / math.sqrt(12))
        assert abs(ours.value - value.mean()) < 4 * error
        planted = cooled.mean_order(4500 - temperature, 3)
        assert abs(planted.value - value.mean()) > 4 * error


# All steps


@pytest.fixture(scope="module")
def learned():
    small = {
        T: RECIPE.small_runs(dataclasses.replace(LARGE, temperature=T), np.random.default_rng(1))
        for T in (3000.0, 2000.0)
    }
    return small, RECIPE.learn(LARGE, small, np.random.default_rng(2))


def test_learned_paths_start_disordered_and_order(learned):
    small, model = learned
    np.testing.assert_array_equal(model.temperatures, [2000.0, 3000.0])
    times = np.linspace(0, 6, 25) * small[2000.0].relaxation_time
    paths = model.paths(2000.0, times, 20, np.random.default_rng(0))
    assert paths.paths.shape == (2, 1, 20, 25, 6)
    np.testing.assert_allclose(paths.paths[:, 0, :, 0][..., list(alloy.LIKE)], 0, atol=1e-12)
    late = alloy.late_order(paths)
    assert late[3].value < -0.4 and late[5].value < -0.2  # of all sizes about -0.74 and -0.44
    bonds = alloy.vacancy_bonds(paths.paths, LARGE.composition()[1:])
    np.testing.assert_allclose(bonds, np.broadcast_to(bonds[0, 0, 0, 0], bonds.shape), atol=1e-9)
    assert bonds[0, 0, 0, 0].mean() == pytest.approx(8 / 1023, rel=0.01)
    times = times / small[2000.0].relaxation_time * small[3000.0].relaxation_time
    hotter = model.paths(3000.0, times, 20, np.random.default_rng(0))
    assert alloy.late_order(hotter)[3].value > late[3].value


def test_states_on_the_way_and_at_rest(learned):
    """The first reach from random solutions to rest, the others are relaxed tiles of late ones."""
    small, _ = learned
    there = dataclasses.replace(LARGE, temperature=2000.0)
    runs = small[2000.0]
    large = RECIPE.large_snapshots(there, runs, np.random.default_rng(3))
    way = there.observables(large.on_the_way.states)[:, 3]
    rest = there.observables(large.late.states)[:, 3]
    assert way.max() > -0.2 and way.min() < -0.3 and rest.max() < -0.35
    assert len(way) == len(rest) == RECIPE.snapshots // 2
    assert set(large.late.groups) | set(large.on_the_way.groups) <= {0, 1, 2, 3}
    early = np.tile(runs.trajectories.times / runs.relaxation_time, 8)[runs.on_the_way()]
    assert early.min() == 0 and 2.8 < early.max() <= alloy.WAY
    rest_windows = np.unique(runs.alike()[runs.late()])
    assert rest_windows.min() >= np.floor(6 * np.log2(65))


def test_exchanges_lead_on_where_hops_do_not_get_to_rest():
    rng = np.random.default_rng(11)
    cold = dataclasses.replace(LARGE, temperature=900.0)
    recipe = RECIPE.but(snapshots=64)
    small = recipe.small_runs(cold, rng)
    assert not small.at_rest
    further, rungs = small.led_on(2, rng)
    assert set(further.groups) == {0, 1, 2, 3} and set(rungs) == set(range(10))
    counts = [np.bincount(state.ravel(), minlength=4) for state in further.states]
    np.testing.assert_array_equal(counts, np.broadcast_to(SYSTEM.composition(), (len(rungs), 4)))
    order = SYSTEM.observables(further.states)[:, 3]
    means = np.array([order[rungs == rung].mean() for rung in range(10)])
    hops = small.trajectories.observables[:, -1, 3].mean()
    assert (np.diff(means) < 0).all() and means[0] < hops

    def on_the_way(of):
        large = recipe.large_snapshots(cold, of, rng)
        tiles = Patching(side=8).split(large.on_the_way.states, LARGE.lattice_shape)
        order = SYSTEM.observables(tiles.reshape(-1, *SYSTEM.state_shape))[:, 3]
        return order.reshape(-1, 8).mean(axis=1)

    way, by_hops = on_the_way(small), on_the_way(dataclasses.replace(small, at_rest=True))
    assert way.max() > -0.2 and way.min() < 0.98 * means[-1]
    assert by_hops.min() > 0.6 * means[-1]  # planted: hops alone leave a gap


@pytest.mark.parametrize("has_pairs", [True, False], ids=["exchanges", "hops"])
def test_relaxed_states_are_in_equilibrium(has_pairs):
    """MoMo against exchanges of the whole, |z| < 4 (1 in 16 000); planted: with seams it is not."""
    rng = np.random.default_rng(9)
    there = dataclasses.replace(LARGE, temperature=2500.0)
    model = there.model if has_pairs else dataclasses.replace(there.model, pairs=None)
    there = dataclasses.replace(there, barrier_model=model)
    recipe = RECIPE.but(snapshots=48, groups=8, max_hops=1e5, sweeps=64.0)
    small = recipe.small_runs(there, rng)
    reference = alloy.simulate_equilibrium(LARGE, [2500.0], chains=16, sweeps=400, rng=rng)
    expected = reference.mean_order(2500.0, 3)

    def z_score(snapshots):
        order = there.observables(snapshots.states)[:, 3]
        error = math.hypot(order.std(ddof=1) / math.sqrt(len(order)), expected.standard_error)
        return (order.mean() - expected.value) / error

    assert small.at_rest
    assert abs(z_score(recipe.large_snapshots(there, small, rng).late)) < 4
    late = small.late()
    tiles = tile_snapshots(
        small.snapshots(2).select(late), alike=small.alike()[late], to=there, count=24, rng=rng
    )  # fmt: skip
    assert z_score(tiles) > 6


def test_late_direct_runs_are_at_rest_where_no_exchanges_tell_it():
    """MoMo against exchanges, |z| < 4 (1 in 16 000); planted: two to four relaxation times."""
    rng = np.random.default_rng(13)
    there = dataclasses.replace(LARGE, temperature=2500.0)
    hopping = dataclasses.replace(there, barrier_model=dataclasses.replace(there.model, pairs=None))
    small = RECIPE.but(max_hops=1e6).small_runs(hopping, rng)
    assert small.at_rest and small.trajectories.times[-1] >= 16 * small.relaxation_time
    expected = alloy.simulate_equilibrium(there, [2500.0], chains=16, sweeps=400, rng=rng)
    reference = expected.mean_order(2500.0, 3)

    def z_score(direct):
        order = alloy.late_direct_order(direct)[3]
        error = math.hypot(order.standard_error, reference.standard_error)
        return (order.value - reference.value) / error

    direct = alloy.transient(hopping, small, 12, np.random.default_rng(14))
    assert direct.late.shape == (12, 61, 6)
    assert abs(z_score(direct)) < 4
    early = direct.observables[:, 20:41]
    assert z_score(dataclasses.replace(direct, late=early)) > 4
    exchanging = alloy.transient(there, small, 12, np.random.default_rng(14))
    assert exchanging.late is None
    np.testing.assert_array_equal(exchanging.observables, direct.observables)
    assert alloy.transient(hopping, dataclasses.replace(small, at_rest=False), 2, rng).late is None


def test_tiles_side_by_side_have_no_seams():
    """Small systems at rest stay there, z below 4 (1 in 16 000); planted: with seams they order."""
    there = dataclasses.replace(LARGE, temperature=2000.0)
    runs = alloy.simulate_small_runs(
        there.resized(8), 8, np.random.default_rng(3), relaxations=32.0, max_hops=1e6
    )
    assert runs.at_rest
    late = runs.snapshots(2).select(runs.late())
    tiles = tile_snapshots(late, to=there, count=80, rng=np.random.default_rng(4))
    large = alloy.LargeSnapshots(late=tiles, on_the_way=tiles, healed=True)
    duration = RECIPE.duration_of(runs)
    found = RECIPE.increments(there, large, duration, np.random.default_rng(5))
    assert found.n_patches == 8 and len(found) == 160
    np.testing.assert_array_equal(found.counts, np.repeat([RECIPE.rest_weight, 1], 80))
    tiles_alone = Patching(side=8).split(tiles.states, LARGE.lattice_shape)
    order = SYSTEM.observables(tiles_alone.reshape(-1, *SYSTEM.state_shape))
    mean_order = order.reshape(80, 8, 6).mean(axis=1)[:, list(alloy.LIKE)]
    np.testing.assert_allclose(found.latents[80:], mean_order, atol=1e-12)

    def z_score(means):
        return means.mean() / (means.std(ddof=1) / math.sqrt(len(means)))

    assert abs(z_score(found.means[80:, 1])) < 4
    assert z_score(found.means[:80, 1]) < -4
    large = dataclasses.replace(large, healed=False)
    found = RECIPE.increments(there, large, duration, np.random.default_rng(6))
    np.testing.assert_allclose(found.latents[:80], mean_order, atol=1e-12)
    assert abs(z_score(found.means[:80, 1])) < 4


def test_without_exchanges_seams_of_runs_that_do_not_rest_are_not_healed():
    """Late states then stay tile by tile, and their order is taken to be that of the tiles."""
    rng = np.random.default_rng(12)
    model = dataclasses.replace(LARGE.model, pairs=None)
    cold = dataclasses.replace(LARGE, temperature=900.0, barrier_model=model)
    recipe = RECIPE.but(snapshots=40, max_hops=3e4)
    small = recipe.small_runs(cold, rng)
    assert not small.at_rest
    large = recipe.large_snapshots(cold, small, rng)
    assert not large.healed
    order = small.trajectories.observables[:, :, 3].mean(axis=0)
    learned = recipe.learn(cold, {900.0: small}, rng)
    assert order[64:].max() > learned.rest[0, 1] > order[64:].min()
    with_seams = cold.observables(large.late.states)[:, 3].mean()
    assert with_seams > 0.9 * learned.rest[0, 1]  # planted: with seams there is less order


def test_learning_repeats_bit_by_bit(learned):
    small, model = learned
    again = RECIPE.learn(LARGE, small, np.random.default_rng(2))
    z = np.zeros((1, 3))
    for one, two in zip(model.at(2500.0), again.at(2500.0), strict=True):
        np.testing.assert_array_equal(one.drift(z), two.drift(z))


def test_temperature_outside_the_training_range_warns(learned):
    _, model = learned
    with pytest.warns(UserWarning) as caught:
        cold = model.at(1500.0)
    assert [str(warning.message) for warning in caught] == [
        "temperature = 1500 K lies outside the training range, 2000 to 3000 K: the model is "
        "extrapolated"
    ]
    with pytest.warns(UserWarning, match="parameters"):
        np.testing.assert_array_equal(cold[0].parameters, model.members[0].at([2 / 3]).parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [len(model.at(inside)) for inside in (2000.0, 2400.0, 3000.0)] == [2, 2, 2]
    for impossible in (0.0, -300.0, math.nan):
        with pytest.raises(ValueError, match=f"temperature = {impossible}: must be finite and > 0"):
            model.at(impossible)
    only = dataclasses.replace(model, temperatures=np.array([2000.0]))
    with pytest.warns(UserWarning, match="outside the training range"):
        only.at(2100.0)


def test_lags_and_sizes_are_compared(learned):
    small, _ = learned
    there = dataclasses.replace(LARGE, temperature=2000.0)
    times = np.linspace(0, 4, 9) * small[2000.0].relaxation_time
    rng = np.random.default_rng(0)
    lags = alloy.lag_study(there, RECIPE, small[2000.0], [100], ["ghost"], times, -0.7, rng)
    assert lags["ghost"]["relaxation"][0].value > 0 and lags["ghost"]["diffusion"][0].value > 0
    for cells in (8, 16):
        paths, direct = alloy.compare_size(
            there.resized(cells), RECIPE, small[2000.0], times, 8, 2, rng
        )
        assert paths.paths.shape == (2, 1, 8, 9, 6)
        assert isinstance(direct, Trajectories) and direct.observables.shape[1:] == (9, 6)
