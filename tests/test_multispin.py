"""Multi-spin coding: words, random bits, thresholds, and statistics over words.

Laws of single replicas are in exact/test_ising_dynamics.py. Tests by p-value pass for p > 1e-4,
their false-alarm rate; z-scores for |z| < 4, 6e-5 each, unless said otherwise.
"""

import itertools
import math

import numpy as np
import oracles
import pytest
from scipy import stats

from macrodyn_lib.exact import IsingExact, domain_wall_density, kaufman_energy
from macrodyn_lib.kernels import multispin
from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.systems.ising import Ising, _pack, _unpack
from macrodyn_lib.upsampling import LocalRelax

IN_FIELD = {"temperature": 2.5, "field": 0.1}
P_PASS, P_SEEN = 1e-4, 1e-9
ALL = np.uint64(2**64 - 1)


def copies(spins, count):
    return np.repeat(np.asarray(spins, dtype=np.int8)[None], count, axis=0)


def word_means(observables):
    """Means over the 64 replicas of each word: (64 W, ...) -> (W, ...)."""
    return observables.reshape(-1, 64, *observables.shape[1:]).mean(axis=1)


# Words


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (16, 16)])
def test_replica_is_a_bit_of_its_word(count, shape):
    """Replica 64 w + k is bit k of word w; the first one fills the last word."""
    states = np.random.default_rng(0).choice([-1, 1], size=(count, *shape)).astype(np.int8)
    words = _pack(states)
    assert words.shape == (math.ceil(count / 64), *shape) and words.dtype == np.uint64
    for replica in range(64 * len(words)):
        bit = words[replica // 64] >> np.uint64(replica % 64) & np.uint64(1)
        expected = states[replica] if replica < count else states[0]
        np.testing.assert_array_equal(2 * bit.astype(int) - 1, expected)
    unpacked = _unpack(words, count)
    assert unpacked.dtype == np.int8
    np.testing.assert_array_equal(unpacked, states)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float64])
def test_any_memory_order_and_type_is_packed_alike(dtype):
    states = np.random.default_rng(0).choice([-1, 1], size=(70, 3, 4))
    expected = _pack(states)
    np.testing.assert_array_equal(_pack(np.asfortranarray(states.astype(dtype))), expected)
    np.testing.assert_array_equal(_unpack(np.asfortranarray(expected), 70), states)


@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (4, 1), (17, 16)])
def test_counts_equal_observables_of_each_replica(shape):
    states = np.random.default_rng(1).choice([-1, 1], size=(64, *shape)).astype(np.int8)
    states[0], states[1] = 1, -1  # every bond aligned, the extremes of the spins
    counts = np.empty((64, 2), dtype=np.int64)
    multispin.count_replicas(_pack(states)[0], counts)
    np.testing.assert_array_equal(counts[:, 0], (states > 0).sum(axis=(1, 2)))
    misaligned = sum((states != np.roll(states, -1, axis)).sum(axis=(1, 2)) for axis in (1, 2))
    np.testing.assert_array_equal(counts[:, 1], misaligned)


# Random bits and thresholds


def test_random_bits_are_xoshiro256_plus_plus():
    """First outputs from the state 1, 2, 3, 4, as in the tests of the Rust crate rand_xoshiro."""
    seed = np.array([1, 2, 3, 4], dtype=np.uint64)
    drawn = [int(multispin._next(seed)) for _ in range(10)]
    assert drawn == [
        41943041,
        58720359,
        3588806011781223,
        3591011842654386,
        9228616714210784205,
        9973669472204895162,
        14011001112246962877,
        12406186145184390807,
        15849039046786891736,
        10450023813501588000,
    ]


def decoded(thresholds):
    """The five 64-bit numbers whose bits, highest first, the words of a column hold."""
    assert thresholds.shape == (64, 5) and np.isin(thresholds, [0, ALL]).all()
    return [sum(1 << 63 - int(bit) for bit in np.flatnonzero(row)) for row in thresholds.T]


@pytest.mark.parametrize(
    ("temperature", "field"),
    [(2.5, 0.1), (2.0, 0.0), (0.3, 0.0), (1e-3, 0.0), (1e6, 0.3), (2.5, 1e5), (2.5, -30.0)],
)
def test_thresholds_are_the_heat_bath(temperature, field):
    """p = 1 / (1 + exp(-2 (sum of neighbours + h) / T)), to float64, in units of 2^-64."""
    numbers = decoded(Ising(side=4, temperature=temperature, field=field)._thresholds())
    for number, total in zip(numbers, (-4, -2, 0, 2, 4), strict=True):
        exponent = -2 * (total + field) / temperature
        expected = 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0
        # the argument is right to 2 roundings, p then to (1 - p) times as many of its units
        error = 4 * np.finfo(float).eps * max(1, min(abs(exponent), 700))
        assert abs(number / 2**64 - expected) <= error * expected + 2**-63
        assert number < 2**64


def test_thresholds_at_the_extremes_are_never_and_always():
    cold = decoded(Ising(side=4, temperature=1e-3, field=0.0)._thresholds())
    assert cold == [0, 0, 2**63, 2**64 - 1, 2**64 - 1]
    assert decoded(Ising(side=4, field=1e6)._thresholds()) == [2**64 - 1] * 5
    assert decoded(Ising(side=4, field=-1e6)._thresholds()) == [0] * 5


@pytest.mark.parametrize("temperature", [0.5, 2.5, 1e6])
def test_thresholds_without_field_are_symmetric(temperature):
    """p(k up) + p(4 - k up) = 1, to the rounding of p in float64."""
    numbers = decoded(Ising(side=4, temperature=temperature, field=0.0)._thresholds())
    for first, second in zip(numbers, numbers[::-1], strict=True):
        assert abs(first + second - 2**64) <= 2**12


@pytest.mark.parametrize("box", [(1, 1, 1, 1), (0, 0, 1, 1), (2, 3, 1, 1)])
def test_every_set_of_neighbours_finds_its_threshold(box):
    """One attempt of one site, certain for each count: all 16 sets, all 32 sets of certainties."""
    row, column = box[:2]
    neighbours = [((row - 1) % 3, column), ((row + 1) % 3, column)]
    neighbours += [(row, (column - 1) % 4), (row, (column + 1) % 4)]
    sets = np.arange(64) % 16
    up = sets[:, None] >> np.arange(4) & 1
    for certain in itertools.product([0, 1], repeat=5):
        states = np.random.default_rng(2).choice([-1, 1], size=(64, 3, 4)).astype(np.int8)
        for place, where in enumerate(neighbours):
            states[:, where[0], where[1]] = 2 * up[:, place] - 1
        words = _pack(states)[0]
        thresholds = np.where(certain, ALL, np.uint64(0)) * np.ones((64, 1), dtype=np.uint64)
        multispin.attempt(words, box, thresholds, 1, np.arange(4, dtype=np.uint64) + np.uint64(7))
        states[:, row, column] = 2 * np.array(certain)[up.sum(axis=1)] - 1
        np.testing.assert_array_equal(_unpack(words[None], 64), states)


def test_sites_are_attempted_equally_often():
    """Certain to come up, sites of a box still down after N attempts: (1 - 1/n)^N, by site."""
    certain = np.full((64, 5), ALL)
    remaining = np.zeros((3, 5))
    seed = np.random.default_rng(3).integers(2**64, size=4, dtype=np.uint64)
    for _ in range(30_000):
        words = np.zeros((4, 6), dtype=np.uint64)
        multispin.attempt(words, (2, 3, 3, 5), certain, 15, seed)
        patch = words[np.ix_(np.arange(2, 5) % 4, np.arange(3, 8) % 6)]
        assert np.isin(words, [0, ALL]).all() and (words != 0).sum() == (patch != 0).sum()
        remaining += patch == 0
    expected = (1 - 1 / 15) ** 15
    error = math.sqrt(expected * (1 - expected) / 30_000)
    assert np.abs(remaining / 30_000 - expected).max() < 4.5 * error  # 15 z-scores, 1e-4 in all


# Statistics over words


def test_every_replica_of_a_word_has_exact_means():
    """M and rho of each of the 64: 128 z-scores below 5, false alarm 7e-5 in all."""
    chain, start = IsingExact(side=4, **IN_FIELD), np.ones((4, 4))
    system, rng = Ising(side=4, **IN_FIELD), np.random.default_rng(4)
    paths = system.simulate(copies(start, 64 * 3000), [1.2], rng, multispin=True)
    exact = chain.means(2**16 - 1, [1.2])[0]
    by_replica = paths.observables[:, 0].reshape(3000, 64, 2)
    assert np.abs(oracles.z_of_mean(by_replica, exact)).max() < 5
    assert np.abs(oracles.z_of_mean(by_replica.mean(axis=1), exact)).max() < 4


def test_standard_error_over_words_covers():
    """(mean - exact) / error of 400 experiments with 12 words each follows Student's t.

    In a strong field the replicas of a word, turned by the same attempts, are alike.
    """
    physics, start = {"temperature": 1.5, "field": -4.5}, np.ones((4, 4))
    system, rng = Ising(side=4, **physics), np.random.default_rng(5)
    paths = system.simulate(copies(start, 64 * 12 * 400), [1.0], rng, multispin=True)
    exact = IsingExact(side=4, **physics).means(2**16 - 1, [1.0])[0]
    observables = paths.observables[:, 0]
    experiments = word_means(observables).reshape(400, 12, 2).swapaxes(0, 1)
    for scores in oracles.z_of_mean(experiments, exact).T:
        assert stats.kstest(scores, stats.t(df=11).cdf).pvalue > P_PASS
    replicas = observables.reshape(400, 12 * 64, 2).swapaxes(0, 1)
    naive = oracles.z_of_mean(replicas, exact)[:, 0]
    assert stats.kstest(naive, stats.norm.cdf).pvalue < P_SEEN  # planted: replicas independent


@pytest.mark.parametrize("time", [0.1, 1.0, 4.0])
def test_replicas_share_the_clock_and_nothing_else(time):
    """T -> infinity, all up: a spin not yet attempted is up, others are independent coins.

    Two replicas of a word have in common whether a site was attempted, with probability
    a = 1 - exp(-t): variance of the word's M = [(e - e^2) 63/64 + (1 - e^2) / 64] / n, e = 1 - a.
    """
    system, rng = Ising(side=5, temperature=1e9, field=0.0), np.random.default_rng(6)
    paths = system.simulate(copies(np.ones((5, 5)), 64 * 3000), [time], rng, multispin=True)
    means, e = word_means(paths.observables[:, 0, 0]), math.exp(-time)
    variance = ((e - e**2) * 63 / 64 + (1 - e**2) / 64) / 25
    assert abs(oracles.z_of_mean(means, e)) < 4
    assert abs(oracles.z_of_variance(means, e, variance)) < 4
    # words are independent of each other: products of neighbouring deviations
    deviations = means - e
    assert abs(oracles.z_of_mean(deviations[::2] * deviations[1::2], 0)) < 4


def test_relaxed_words_are_independent():
    """As above for one tile: each word has its own clock."""
    system, rng = Ising(side=4, temperature=1e9, field=0.0), np.random.default_rng(7)
    patch = Patch(start=(3, 2), shape=(2, 3), lattice_shape=(4, 4))
    relaxed = system.relax_patches(copies(np.ones((4, 4)), 64 * 3000), [patch], 0.7, rng)
    means, e = word_means(patch.extract(relaxed).mean(axis=(1, 2))), math.exp(-0.7)
    variance = ((e - e**2) * 63 / 64 + (1 - e**2) / 64) / 6
    assert abs(oracles.z_of_mean(means, e)) < 4
    assert abs(oracles.z_of_variance(means, e, variance)) < 4
    deviations = means - e
    assert abs(oracles.z_of_mean(deviations[::2] * deviations[1::2], 0)) < 4


# Extremes


def test_in_the_cold_a_single_spin_turns_when_first_attempted():
    """T = 1e-3: it survives with exp(-t), all others stay; 1 z-score over words."""
    start = np.ones((6, 6))
    start[5, 0] = -1
    system, rng = Ising(side=6, temperature=1e-3, field=0.0), np.random.default_rng(8)
    paths = system.simulate(copies(start, 64 * 2000), [0.5], rng, keep_states=True, multispin=True)
    states = paths.states[:, 0]
    survived = states[:, 5, 0] < 0
    assert (states.sum(axis=(1, 2)) == 36 - 2 * survived).all()
    by_word = survived.reshape(-1, 64)
    assert (by_word == by_word[:, :1]).all()  # attempted in all replicas at once
    assert abs(oracles.z_of_mean(by_word[:, 0].astype(float), math.exp(-0.5))) < 4


@pytest.mark.parametrize("field", [200.0, -200.0])
def test_in_a_large_field_every_attempted_spin_follows_it(field):
    system, way = Ising(side=6, temperature=1.0, field=field), math.copysign(1, field)
    paths = system.simulate(
        copies(np.full((6, 6), -way), 64 * 1000), [0.8], np.random.default_rng(9), multispin=True
    )
    magnetizations = way * word_means(paths.observables[:, 0, 0])
    assert abs(oracles.z_of_mean(magnetizations, 1 - 2 * math.exp(-0.8))) < 4


@pytest.mark.parametrize("multispin", [False, True])
def test_in_the_heat_the_field_is_forgotten(multispin):
    """T = 1e6: M = exp(-t) to 1e-6."""
    system, rng = Ising(side=8, temperature=1e6, field=0.3), np.random.default_rng(10)
    states, times = copies(np.ones((8, 8)), 64 * 200), np.array([0.3, 2.0])
    observables = system.simulate(states, times, rng, multispin=multispin).observables
    assert np.abs(oracles.z_of_mean(word_means(observables[..., 0]), np.exp(-times))).max() < 4


# Tiles


@pytest.mark.parametrize("count", [1, 64, 100])
def test_relaxation_leaves_the_input_and_all_sites_outside(count):
    system, rng = Ising(side=6, **IN_FIELD), np.random.default_rng(11)
    states = system.initial_states(count, rng, magnetization=0)
    before = states.copy()
    patches = [
        Patch(start=start, shape=shape, lattice_shape=(6, 6))
        for start, shape in (((4, 5), (3, 2)), ((0, 0), (2, 2)), ((5, 1), (1, 6)))
    ]
    relaxed = system.relax_patches(states, patches, 20.0, rng)
    np.testing.assert_array_equal(states, before)
    assert relaxed.shape == states.shape and relaxed.dtype == np.int8
    assert set(np.unique(relaxed)) == {-1, 1}
    inside = np.zeros((6, 6), dtype=bool)
    for patch in patches:
        inside[patch.selection[1:]] = True
    np.testing.assert_array_equal(relaxed[:, ~inside], states[:, ~inside])
    if count > 1:
        assert (relaxed != states).any(axis=0)[inside].all()


def test_every_replica_keeps_its_own_state():
    """A time in which nothing is attempted, and the batch does not fill its words."""
    system = Ising(side=5, **IN_FIELD)
    states = system.initial_states(100, np.random.default_rng(12))
    paths = system.simulate(
        states, [0.0, 1e-12], np.random.default_rng(0), keep_states=True, multispin=True
    )
    np.testing.assert_array_equal(paths.states, np.stack([states, states], axis=1))
    patch = Patch(start=(0, 0), shape=(3, 3), lattice_shape=(5, 5))
    relaxed = system.relax_patches(states, [patch], 1e-12, np.random.default_rng(0))
    np.testing.assert_array_equal(relaxed, states)


def test_local_relaxation_is_by_multi_spin_coding():
    system = Ising(side=8, **IN_FIELD)
    states = system.initial_states(100, np.random.default_rng(13))
    relax = LocalRelax(side=4, duration=0.7, passes=2)
    tiles = Patching(side=4, stride=2).patches((8, 8)) * 2
    np.testing.assert_array_equal(
        relax(system, states, np.random.default_rng(14)),
        system.relax_patches(states, tiles, 0.7, np.random.default_rng(14)),
    )


def test_tiles_that_wrap_on_themselves_take_the_n_fold_way():
    system = Ising(side=4, **IN_FIELD)
    states = system.initial_states(100, np.random.default_rng(15))
    tiles = Patching(side=2, stride=1, boundary="periodic").patches((4, 4))
    relaxed = system.relax_patches(states, tiles, 0.7, np.random.default_rng(16))
    rng = np.random.default_rng(16)
    for tile in tiles:
        states = system.evolve_patch(states, tile, 0.7, rng)
    np.testing.assert_array_equal(relaxed, states)


@pytest.mark.parametrize("start", [(-1, -2), (5, -3)])
def test_tile_may_start_outside_the_lattice(start):
    """Indices of a patch wrap around: the same tile, the same bits."""
    system = Ising(side=4, **IN_FIELD)
    states = system.initial_states(100, np.random.default_rng(17))
    results = [
        system.relax_patches(
            states,
            [Patch(start=first, shape=(2, 3), lattice_shape=(4, 4))],
            2.0,
            np.random.default_rng(18),
        )
        for first in (start, (start[0] % 4, start[1] % 4))
    ]
    np.testing.assert_array_equal(*results)


def test_no_tiles_change_nothing():
    system = Ising(side=4, **IN_FIELD)
    states = system.initial_states(10, np.random.default_rng(19))
    relaxed = system.relax_patches(states, [], 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(relaxed, states)


@pytest.mark.parametrize("duration", [-1.0, math.nan, math.inf])
def test_relaxation_raises_for_wrong_duration(duration):
    system, patch = Ising(side=4), Patch(start=(0, 0), shape=(2, 2), lattice_shape=(4, 4))
    states = np.ones((1, 4, 4), dtype=np.int8)
    with pytest.raises(ValueError, match=f"duration = {duration}: must be finite"):
        system.relax_patches(states, [patch], duration, np.random.default_rng(0))


@pytest.mark.parametrize("multispin", [False, True])
def test_no_times_give_no_records(multispin):
    system = Ising(side=4)
    paths = system.simulate(
        np.ones((3, 4, 4)), [], np.random.default_rng(0), keep_states=True, multispin=multispin
    )
    assert paths.observables.shape == (3, 0, 2) and paths.states.shape == (3, 0, 4, 4)


# Equilibrium


def test_three_ways_to_equilibrium_agree():
    """16 x 16 spins at T = 2.5: exact energy, then M^2 and |M| of cluster updates; 4 z-scores.

    The slowest relaxation takes some 100 units of time.
    """
    system, rng = Ising(side=16, temperature=2.5, field=0.0), np.random.default_rng(20)
    states = system.initial_states(64 * 40, rng, magnetization=0)
    paths = system.simulate(states, 500 + 25 * np.arange(8.0), rng, multispin=True)
    clusters = system.wolff_chains(60, 80, rng, clusters=10, warm_up=30)
    walls = domain_wall_density(kaufman_energy(16, 2.5))

    def moments(observables):
        m = observables[..., 0]
        return np.stack([m**2, np.abs(m)], axis=-1).mean(axis=1)

    slow, fast = word_means(moments(paths.observables)), moments(clusters.observables)
    for rho in (word_means(paths.observables[..., 1]), clusters.observables[..., 1]):
        assert abs(oracles.z_of_mean(rho.mean(axis=1), walls)) < 4
    errors = [sample.var(axis=0, ddof=1) / len(sample) for sample in (slow, fast)]
    assert (np.abs(slow.mean(axis=0) - fast.mean(axis=0)) < 4 * np.sqrt(sum(errors))).all()
