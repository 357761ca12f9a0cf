"""Ising: the n-fold way against Algorithm 2, its bookkeeping, and cluster updates.

Chi-square tests pass for p > 1e-4, their false-alarm rate; z-scores for |z| < 4, 6e-5 each.
"""

import dataclasses
import math

import numpy as np
import oracles
import pytest

from macrodyn_lib.exact import IsingExact, domain_wall_density, kaufman_energy
from macrodyn_lib.kernels import ising as kernels
from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.partial_evolution import evolve_patches
from macrodyn_lib.records import Snapshots
from macrodyn_lib.systems.ising import UNLIMITED, Ising
from macrodyn_lib.upsampling import LocalRelax, upsample

IN_FIELD = {"temperature": 2.5, "field": 0.1}
P_PASS = 1e-4


def magnetization_and_walls(spins):
    """M and rho of lattices (..., rows, columns), each bond once: right and down of each site."""
    spins = spins.astype(float)
    bonds = [spins * np.roll(spins, -1, axis) for axis in (-1, -2)]
    walls = (1 - np.mean(bonds, axis=0)) / 2
    return np.stack([spins.mean(axis=(-1, -2)), walls.mean(axis=(-1, -2))], axis=-1)


def z_of_difference(first, second):
    """Difference of two means of independent samples in standard errors."""
    errors = [sample.var(axis=0, ddof=1) / len(sample) for sample in (first, second)]
    return (first.mean(axis=0) - second.mean(axis=0)) / np.sqrt(sum(errors))


# Observables


@pytest.mark.parametrize(
    "shape", [(2, 2), (3, 3), (4, 4), (5, 3), (1, 4), (3, 1), (1, 1), (16, 16)]
)
def test_observables_equal_sums_over_bonds(shape):
    spins = np.random.default_rng(0).choice([-1, 1], size=(50, *shape)).astype(np.int8)
    observables = Ising(side=4).observables(spins)
    # up to 512 terms in float64
    np.testing.assert_allclose(observables, magnetization_and_walls(spins), rtol=0, atol=1e-14)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_observables_equal_those_of_every_enumerated_state(side):
    chain = IsingExact(side=side, **IN_FIELD)
    observables = Ising(side=side).observables(chain.spins())
    np.testing.assert_allclose(observables, chain.observables(), rtol=0, atol=1e-14)


def test_observables_do_not_depend_on_the_memory_order_of_the_states():
    states = Ising(side=4).initial_states(9, np.random.default_rng(1))
    expected = Ising(side=4).observables(states)
    for other in (np.asfortranarray(states), states.astype(np.int64), states.astype(float)):
        np.testing.assert_array_equal(Ising(side=4).observables(other), expected)
    turned = Ising(side=4).observables(states.swapaxes(1, 2))
    np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("magnetization", [-1, -0.5, 0, 0.25, 1])
def test_initial_states_have_the_magnetization(magnetization):
    system = Ising(side=8)
    states = system.initial_states(10, np.random.default_rng(0), magnetization=magnetization)
    assert states.shape == (10, 8, 8) and states.dtype == np.int8
    np.testing.assert_array_equal(system.observables(states)[:, 0], magnetization)
    assert len(np.unique(states, axis=0)) == (10 if abs(magnetization) < 1 else 1)


def test_initial_magnetizations_are_uniform():
    system = Ising(side=16)
    m = system.observables(system.initial_states(5000, np.random.default_rng(0)))[:, 0]
    assert abs(oracles.z_of_mean(m, 0)) < 4
    assert abs(oracles.z_of_variance(m, 0, 1 / 3)) < 4


def test_resized_system_has_the_same_physics():
    assert Ising(side=4, temperature=1.5, field=0.2).resized(12) == Ising(
        side=12, temperature=1.5, field=0.2
    )


# Rates


@pytest.mark.parametrize("temperature", [0.5, 2.5, 1e4])
@pytest.mark.parametrize("field", [0.0, 0.1, -3.0])
def test_rates_obey_detailed_balance(temperature, field):
    """Rates of the two ways of a flip: exp(-dH / T), and they add up to 1."""
    down, up = Ising(side=4, temperature=temperature, field=field)._rates().reshape(2, 5)
    change_to_up = -2 * (2 * np.arange(5) - 4 + field)
    # the logarithm of a ratio near 1 is right to the rounding of the ratio
    np.testing.assert_allclose(
        np.log(down / up), -change_to_up / temperature, rtol=1e-13, atol=1e-15
    )
    np.testing.assert_allclose(down + up, 1, rtol=1e-15)


# Algorithm 2


@pytest.mark.parametrize("start", ["whole", "patch", "patch around the corner"])
def test_means_equal_those_of_algorithm_2(start):
    """M and rho of 6 x 6 spins: 2 z-scores."""
    shape, first = {"whole": ((6, 6), (0, 0)), "patch": ((2, 3), (1, 2))}.get(
        start, ((3, 2), (4, 5))
    )
    patch = Patch(start=first, shape=shape, lattice_shape=(6, 6))
    system, duration = Ising(side=6, temperature=2.0, field=0.15), 1.3
    spins = system.initial_states(1, np.random.default_rng(8), magnetization=-0.5)
    active = np.zeros((6, 6), dtype=bool)
    active[patch.selection[1:]] = True
    rng, drawn = np.random.default_rng(9), []
    for _ in range(2000):
        drawn.append(oracles.ising_algorithm_2(spins[0], 2.0, 0.15, duration, rng, active)[0])
    slow, rng = magnetization_and_walls(np.array(drawn)), np.random.default_rng(10)
    states = np.repeat(spins, 20_000, axis=0)
    fast = system.observables(system.evolve_patch(states, patch, duration, rng))
    assert np.abs(z_of_difference(slow, fast)).max() < 4
    hotter = dataclasses.replace(system, temperature=4.0)
    other = hotter.observables(hotter.evolve_patch(states, patch, duration, rng))
    assert np.abs(z_of_difference(slow, other)).max() > 8  # planted


# Bookkeeping


def recorded(side, multispin, times=(0.0, 0.2, 0.2, 1.0, 7.0)):
    system = Ising(side=side, **IN_FIELD)
    states = system.initial_states(70, np.random.default_rng(0))
    paths = system.simulate(
        states, times, np.random.default_rng(1), keep_states=True, multispin=multispin
    )
    return states, paths


@pytest.mark.parametrize("multispin", [False, True])
@pytest.mark.parametrize("side", [2, 3, 4, 7, 12])
def test_tracked_observables_equal_those_of_the_kept_states(side, multispin):
    """Events change counts by integers: no drift however long."""
    states, paths = recorded(side, multispin)
    assert paths.states.shape == (70, 5, side, side) and paths.states.dtype == np.int8
    assert set(np.unique(paths.states)) == {-1, 1}
    np.testing.assert_array_equal(paths.states[:, 0], states)
    np.testing.assert_array_equal(paths.states[:, 1], paths.states[:, 2])
    assert (paths.states[:, 3] != paths.states[:, 2]).any()
    np.testing.assert_allclose(
        paths.observables, magnetization_and_walls(paths.states), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("multispin", [False, True])
def test_keeping_states_does_not_change_the_path(multispin):
    system, states = Ising(side=5), Ising(side=5).initial_states(70, np.random.default_rng(0))
    first, second = (
        system.simulate(
            states, [0.5, 2.0], np.random.default_rng(1), keep_states=keep, multispin=multispin
        )
        for keep in (False, True)
    )
    np.testing.assert_array_equal(first.observables, second.observables)
    assert first.states is None


@pytest.mark.parametrize("multispin", [False, True])
def test_same_seed_gives_same_bits_and_another_seed_others(multispin):
    system, states = Ising(side=6), Ising(side=6).initial_states(70, np.random.default_rng(0))
    before = states.copy()
    first, second, other = (
        system.simulate(states, [1.0], np.random.default_rng(seed), multispin=multispin)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.observables, second.observables)
    assert (first.observables != other.observables).any()
    np.testing.assert_array_equal(states, before)  # the input is not changed


@pytest.mark.parametrize("multispin", [False, True])
def test_simulation_gives_same_bits_for_any_number_of_threads(monkeypatch, multispin):
    system, results = Ising(side=6), []
    states = system.initial_states(200, np.random.default_rng(0))
    for threads in ("1", "3"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        options = {"keep_states": True, "multispin": multispin}
        paths = system.simulate(states, [1.0, 2.0], np.random.default_rng(1), **options)
        results.append(paths)
    np.testing.assert_array_equal(results[0].observables, results[1].observables)
    np.testing.assert_array_equal(results[0].states, results[1].states)


def test_sampling_gives_same_bits_for_any_number_of_threads(monkeypatch):
    """Upsampling with relaxation, partial evolution and cluster updates."""
    small, large, results = Ising(side=4, field=0.0), Ising(side=8, field=0.0), []
    states = small.initial_states(50, np.random.default_rng(0))
    for threads in ("1", "3"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        rng = np.random.default_rng(1)
        relax = LocalRelax(side=4, duration=1.0)
        enlarged = upsample(Snapshots(states=states), to=large, count=300, relax=relax, rng=rng)
        pairs = evolve_patches(large, enlarged, Patching(side=4), duration=0.5, rng=rng)
        chains = large.wolff_chains(5, 3, rng)
        results.append((enlarged.states, pairs.increments, chains.observables))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_evolution_leaves_the_input_and_takes_any_integer_spins():
    system = Ising(side=4, **IN_FIELD)
    states = system.initial_states(20, np.random.default_rng(0))
    patch = Patch(start=(3, 2), shape=(2, 3), lattice_shape=(4, 4))
    before, results = states.copy(), []
    for same in (states, states.astype(np.int64), np.asfortranarray(states), states.astype(float)):
        results.append(system.evolve_patch(same, patch, 2.0, np.random.default_rng(1)))
        np.testing.assert_array_equal(same, before)
    for result in results:
        assert result.dtype == np.int8 and result.flags.c_contiguous
        np.testing.assert_array_equal(result, results[0])
    assert (results[0] != states).any()


@pytest.mark.parametrize("duration", [1e-9, 0.37, 20.0])
def test_evolution_stops_exactly_at_the_duration(duration):
    system = Ising(side=4, **IN_FIELD)
    states = system.initial_states(100, np.random.default_rng(0))
    elapsed, occupation = np.empty(100), np.empty((100, kernels.CLASSES))
    kernels.evolve_box_inplace(
        states, (1, 3, 2, 2), False, system._rates(), duration, UNLIMITED,
        np.random.default_rng(1), elapsed, occupation,
    )  # fmt: skip
    assert (elapsed == duration).all()
    np.testing.assert_allclose(occupation.sum(axis=1), 4 * duration, rtol=1e-12)  # every site


@pytest.mark.parametrize("boundary", ["ghost", "periodic"])
def test_one_event_is_one_flip(boundary):
    system = Ising(side=5, **IN_FIELD)
    states = system.initial_states(100, np.random.default_rng(0))
    patch = Patch(start=(4, 3), shape=(3, 3), lattice_shape=(5, 5), boundary=boundary)
    evolved, elapsed = system.evolve_patch_events(states, patch, 1, np.random.default_rng(1))
    assert ((evolved != states).sum(axis=(1, 2)) == 1).all()
    assert (elapsed > 0).all() and np.isfinite(elapsed).all()


def test_class_lists_stay_true_in_a_long_run():
    """After some 2 million flips each class still has the sites that a fresh count finds.

    A lost move would show in the misaligned bonds, which are tracked by class.
    """
    system = Ising(side=32, temperature=3.0, field=0.05)
    states = system.initial_states(2, np.random.default_rng(0))
    paths = system.simulate(states, [4000.0], np.random.default_rng(1), keep_states=True)
    expected = magnetization_and_walls(paths.states)
    np.testing.assert_allclose(paths.observables, expected, rtol=0, atol=1e-14)


# Where rates vanish


COLD = Ising(side=3, temperature=1e-3)  # every rate of the ordered state underflows to zero
ORDERED = np.ones((4, 3, 3), dtype=np.int8)
WHOLE = Patch(start=(0, 0), shape=(3, 3), lattice_shape=(3, 3))


@pytest.mark.parametrize("multispin", [False, True])
def test_ordered_state_stays_when_every_rate_is_zero(multispin):
    paths = COLD.simulate(ORDERED, [1.0, 1e3], np.random.default_rng(0), multispin=multispin)
    assert (paths.observables == (1, 0)).all()


def test_events_that_never_happen_leave_the_state():
    evolved, elapsed = COLD.evolve_patch_events(ORDERED, WHOLE, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(evolved, ORDERED)
    assert np.isinf(elapsed).all()


def test_last_flip_takes_the_only_time_there_is():
    """One spin down in the cold: it turns after an exponential time of mean 1, then nothing."""
    states = np.repeat(ORDERED[:1], 4000, axis=0)
    states[:, 1, 2] = -1
    once, elapsed = COLD.evolve_patch_events(states, WHOLE, 1, np.random.default_rng(1))
    assert (once == 1).all()
    assert abs(oracles.z_of_mean(elapsed, 1.0)) < 4
    assert abs(oracles.z_of_variance(elapsed, 1.0, 1.0)) < 4
    _, forever = COLD.evolve_patch_events(states, WHOLE, 2, np.random.default_rng(1))
    assert np.isinf(forever).all()


# Cluster updates


@pytest.mark.parametrize(
    ("side", "temperature"), [(2, 2.0), (3, 1.5), (3, 4.0), (4, 2.27), (4, 5.0)]
)
def test_cluster_updates_have_gibbs_law(side, temperature):
    """Classes (M, rho) of one sample of each of 3000 chains: a p-value."""
    chain = IsingExact(side=side, temperature=temperature)
    # 60 clusters of a good part of all spins leave nothing of the start
    samples = Ising(side=side, temperature=temperature, field=0.0).wolff_chains(
        3000, 1, np.random.default_rng(2), clusters=10, warm_up=5, keep_states=True
    )
    np.testing.assert_allclose(
        samples.observables, magnetization_and_walls(samples.states), rtol=0, atol=1e-14
    )

    def p_against(exact):
        pairs = np.rint(2 * side**2 * chain.observables()).astype(int)
        distinct, number = np.unique(pairs, axis=0, return_inverse=True)
        law = np.bincount(number.ravel(), exact.stationary(), minlength=len(distinct))
        return oracles.p_of_counts(number.ravel()[chain.index_of(samples.states[:, 0])], law)

    assert p_against(chain) > P_PASS
    hotter = dataclasses.replace(chain, temperature=1.3 * temperature)
    assert p_against(hotter) < 1e-9  # planted


@pytest.mark.parametrize("temperature", [2.0, 2.27, 3.0])
def test_cluster_updates_have_exact_energy(temperature):
    """Of 16 x 16 spins; the chains are independent, their samples are not."""
    system = Ising(side=16, temperature=temperature, field=0.0)
    paths = system.wolff_chains(48, 60, np.random.default_rng(3), clusters=10, warm_up=30)
    assert paths.observables.shape == (48, 60, 2) and paths.states is None
    walls = paths.observables[..., 1].mean(axis=1)
    assert abs(oracles.z_of_mean(walls, domain_wall_density(kaufman_energy(16, temperature)))) < 4
    elsewhere = domain_wall_density(kaufman_energy(16, 1.05 * temperature))
    assert abs(oracles.z_of_mean(walls, elsewhere)) > 8  # planted
    assert abs(oracles.z_of_mean(paths.observables[..., 0].mean(axis=1), 0)) < 4


def test_cluster_updates_forget_their_start_on_a_large_lattice():
    """128 x 128 near T_c after a few hundred clusters, which from random spins are all tiny."""
    system = Ising(side=128, temperature=2.27, field=0.0)
    walls = system.wolff_chains(48, 10, np.random.default_rng(7), warm_up=20).observables[..., 1]
    energy = domain_wall_density(kaufman_energy(128, 2.27))
    assert abs(oracles.z_of_mean(walls.mean(axis=1), energy)) < 4


def test_n_fold_way_reaches_exact_energy():
    """Of 16 x 16 spins at T = 2.5, where the slowest relaxation takes some 100 units of time."""
    system = Ising(side=16, field=0.0)
    states = system.initial_states(150, np.random.default_rng(4), magnetization=0)
    paths = system.simulate(states, 500 + 50 * np.arange(6.0), np.random.default_rng(5))
    walls = paths.observables[..., 1].mean(axis=1)
    assert abs(oracles.z_of_mean(walls, domain_wall_density(kaufman_energy(16, 2.5)))) < 4


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 1}, "side = 1: must be an integer >= 2"),
        ({"side": 4.0}, "side = 4.0: must be an integer >= 2"),
        ({"side": True}, "side = True"),
        ({"temperature": 0}, "temperature = 0: must be finite and > 0"),
        ({"temperature": -2.5}, "temperature = -2.5: must be finite and > 0"),
        ({"temperature": math.nan}, "temperature = nan"),
        ({"temperature": math.inf}, "temperature = inf"),
        ({"field": math.nan}, "field = nan: must be finite"),
        ({"field": -math.inf}, "field = -inf: must be finite"),
    ],
)
def test_system_raises_for_wrong_parameter(changes, message):
    with pytest.raises(ValueError, match=message):
        Ising(**({"side": 4} | changes))


SYSTEM = Ising(side=3)
NO_FIELD = Ising(side=3, field=0.0)
SITE = Patch(start=(0, 0), shape=(1, 1), lattice_shape=(3, 3), boundary="periodic")
COLUMN = Patch(start=(0, 0), shape=(3, 1), lattice_shape=(3, 3), boundary="periodic")
BAD_CALLS = {
    "magnetization": (
        lambda rng: SYSTEM.initial_states(1, rng, magnetization=1.5),
        r"magnetization = 1.5: must lie in \[-1, 1\]",
    ),
    "magnetization NaN": (
        lambda rng: SYSTEM.initial_states(1, rng, magnetization=math.nan),
        r"magnetization = nan: must lie in \[-1, 1\]",
    ),
    "states of another lattice": (
        lambda rng: SYSTEM.simulate(np.ones((1, 2, 2)), [1.0], rng),
        r"states has shape \(1, 2, 2\): must be \(B, \(3, 3\)\)",
    ),
    "one state": (
        lambda rng: SYSTEM.simulate(ORDERED[0], [1.0], rng),
        r"states has shape \(3, 3\): must be",
    ),
    "states of another lattice, multispin": (
        lambda rng: SYSTEM.simulate(np.ones((1, 3, 2)), [1.0], rng, multispin=True),
        r"states has shape \(1, 3, 2\): must be",
    ),
    "states NaN": (
        lambda rng: SYSTEM.simulate(np.full((1, 3, 3), np.nan), [1.0], rng),
        "states has non-finite entries",
    ),
    "states of another lattice, patch": (
        lambda rng: SYSTEM.evolve_patch(ORDERED[:, :2], WHOLE, 1.0, rng),
        r"states has shape \(4, 2, 3\): must be",
    ),
    "states of another lattice, tiles": (
        lambda rng: SYSTEM.relax_patches(ORDERED[:, :2], [WHOLE], 1.0, rng),
        r"states has shape \(4, 2, 3\): must be",
    ),
    "states of another lattice, rates": (
        lambda rng: SYSTEM.rate_moments(ORDERED[:, :2]),
        r"states has shape \(4, 2, 3\): must be",
    ),
    "times descend": (
        lambda rng: SYSTEM.simulate(ORDERED, [1.0, 0.0], rng),
        r"times = \[1. 0.\]: must be one axis of ascending numbers >= 0",
    ),
    "times negative": (
        lambda rng: SYSTEM.simulate(ORDERED, [-1.0], rng, multispin=True),
        r"times = \[-1.\]: must be one axis of ascending numbers >= 0",
    ),
    "times infinite": (
        lambda rng: SYSTEM.simulate(ORDERED, [np.inf], rng, multispin=True),
        r"times = \[inf\]: must be one axis of ascending numbers >= 0",
    ),
    "duration": (
        lambda rng: SYSTEM.evolve_patch(ORDERED, WHOLE, -1, rng),
        "duration = -1: must be finite and > 0",
    ),
    "duration NaN": (
        lambda rng: SYSTEM.evolve_patch(ORDERED, WHOLE, math.nan, rng),
        "duration = nan: must be finite and > 0",
    ),
    "events": (
        lambda rng: SYSTEM.evolve_patch_events(ORDERED, WHOLE, 0, rng),
        "events = 0: must be an integer >= 1",
    ),
    "events no integer": (
        lambda rng: SYSTEM.evolve_patch_events(ORDERED, WHOLE, 1.5, rng),
        "events = 1.5: must be an integer >= 1",
    ),
    "wrapped site": (
        lambda rng: SYSTEM.evolve_patch(ORDERED, SITE, 1.0, rng),
        r"patch shape = \(1, 1\): sides must be >= 2 to wrap on itself",
    ),
    "wrapped column": (
        lambda rng: SYSTEM.evolve_patch_events(ORDERED, COLUMN, 1, rng),
        r"patch shape = \(3, 1\): sides must be >= 2 to wrap on itself",
    ),
    "wrapped site, tiles": (
        lambda rng: SYSTEM.relax_patches(ORDERED, [SITE], 1.0, rng),
        r"patch shape = \(1, 1\): sides must be >= 2 to wrap on itself",
    ),
    "events with buffer": (
        lambda rng: evolve_patches(
            SYSTEM,
            Snapshots(states=ORDERED),
            Patching(side=1, boundary="buffer(1)"),
            events=2,
            rng=rng,
        ),
        "boundary = 'buffer': events of the rim would count; give duration",
    ),
    "clusters in a field": (
        lambda rng: SYSTEM.wolff_chains(1, 1, rng),
        "field = 0.1: cluster updates need field = 0",
    ),
    "no chains": (
        lambda rng: NO_FIELD.wolff_chains(0, 1, rng),
        "chains = 0: must be an integer >= 1",
    ),
    "no samples": (
        lambda rng: NO_FIELD.wolff_chains(1, 0, rng),
        "samples = 0: must be an integer >= 1",
    ),
    "half a cluster": (
        lambda rng: NO_FIELD.wolff_chains(1, 1, rng, clusters=0.5),
        "clusters = 0.5: must be an integer >= 1",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_call_raises_for_wrong_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))


@pytest.mark.parametrize("value", [0, 3, 127])
def test_spins_must_be_up_or_down(value: int) -> None:
    system = Ising(side=4)
    states = np.ones((2, 4, 4), dtype=np.int8)
    states[1, 2, 3] = value
    rng = np.random.default_rng(1)
    patch = Patch(start=(0, 0), shape=(2, 2), lattice_shape=(4, 4))
    for call in (
        lambda: system.simulate(states, np.array([1.0]), rng),
        lambda: system.simulate(states, np.array([1.0]), rng, multispin=True),
        lambda: system.rate_moments(states),
        lambda: system.evolve_patch(states, patch, 1.0, rng),
        lambda: system.relax_patches(states, [patch], 1.0, rng),
    ):
        with pytest.raises(ValueError, match="spins must be -1 or 1"):
            call()


def test_a_patch_of_another_lattice_is_refused() -> None:
    system, rng = Ising(side=4), np.random.default_rng(1)
    states = system.initial_states(2, rng)
    for shape, lattice in (((2, 2), (8, 8)), ((6, 4), (4, 4))):
        patch = Patch(start=(0, 0), shape=shape, lattice_shape=lattice)
        with pytest.raises(ValueError, match=r"must be of \(4, 4\)"):
            system.evolve_patch(states, patch, 1.0, rng)
        with pytest.raises(ValueError, match=r"must be of \(4, 4\)"):
            system.relax_patches(states, [patch], 1.0, rng)
