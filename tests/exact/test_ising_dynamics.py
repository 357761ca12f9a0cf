"""Simulated Ising dynamics, n-fold way and multi-spin coding, against the enumerated chain.

Chi-square and Kolmogorov-Smirnov tests pass for p > 1e-4, their false-alarm rate; z-scores for
|z| < 4, 6e-5 each, and planted errors are seen where p < 1e-9 or |z| > 8. The 64 replicas of a
word are not independent of each other; one is looked at, replica w mod 64 of word w.
"""

import functools

import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.linalg import expm
from scipy.sparse import csr_array
from scipy.sparse.linalg import expm_multiply

from macrodyn_lib.exact import IsingExact
from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.partial_evolution import evolve_patches
from macrodyn_lib.records import Snapshots
from macrodyn_lib.systems.ising import Ising
from macrodyn_lib.upsampling import LocalRelax

P_PASS, P_SEEN = 1e-4, 1e-9
REPLICAS, WORDS = 20_000, 4000
IN_FIELD = {"temperature": 2.5, "field": 0.1}
PHYSICS = {
    "in a field": IN_FIELD,
    "cold": {"temperature": 1.2, "field": 0.0},
    "strong field down": {"temperature": 4.0, "field": -1.7},
}
each_physics = pytest.mark.parametrize("physics", PHYSICS.values(), ids=PHYSICS)
each_algorithm = pytest.mark.parametrize("algorithm", ["n-fold", "multispin"])


def copies(spins, count):
    return np.repeat(np.asarray(spins, dtype=np.int8)[None], count, axis=0)


def one_per_word(replicas):
    words = np.arange(len(replicas) // 64)
    return replicas[64 * words + words % 64]


def simulated(algorithm, system, start, times, seed):
    """Independent paths of states from one start, (B, T, side, side)."""
    words = algorithm == "multispin"
    paths = system.simulate(
        copies(start, 64 * WORDS if words else REPLICAS),
        times,
        np.random.default_rng(seed),
        keep_states=True,
        multispin=words,
    )
    return one_per_word(paths.states) if words else paths.states


def evolved(algorithm, system, start, patch, duration, seed):
    """Independent states after evolution of one patch, (B, side, side)."""
    rng = np.random.default_rng(seed)
    if algorithm == "n-fold":
        return system.evolve_patch(copies(start, REPLICAS), patch, duration, rng)
    return one_per_word(system.relax_patches(copies(start, 64 * WORDS), [patch], duration, rng))


def some_state(side, seed=4, share_up=0.4):
    return np.where(np.random.default_rng(seed).random((side, side)) < share_up, 1, -1)


def law_after(generator, start, duration):
    """Row ``start`` of exp(Q t)."""
    before = np.zeros(generator.shape[0])
    before[start] = 1
    return np.abs(expm_multiply(duration * csr_array(generator).T.tocsr(), before))


def classes_of(chain):
    """Number of the pair (M, rho) of every state, and how many pairs there are."""
    pairs = np.rint(2 * chain.n_sites * chain.observables()).astype(int)
    distinct, number = np.unique(pairs, axis=0, return_inverse=True)
    return number.ravel(), len(distinct)


def p_of_classes(chain, states, law):
    """p-value of the pairs (M, rho) of drawn states against a law on all states."""
    number, count = classes_of(chain)
    drawn = number[chain.index_of(states)]
    return oracles.p_of_counts(drawn, np.bincount(number, law, minlength=count))


def torus_generator(shape, temperature, field):
    """Generator of a small torus by itself; the first site in C order is bit 0."""
    n_sites = shape[0] * shape[1]
    up = np.arange(2**n_sites)[:, None] >> np.arange(n_sites) & 1
    spins = (2 * up - 1).reshape(-1, *shape)
    neighbours = sum(np.roll(spins, way, axis) for axis in (1, 2) for way in (-1, 1))
    changes = (2 * spins * (neighbours + field)).reshape(-1, n_sites)
    rates, states = 1 / (1 + np.exp(changes / temperature)), np.arange(2**n_sites)
    generator = np.zeros((len(states), len(states)))
    for site, rate in enumerate(rates.T):
        generator[states, states ^ (1 << site)] = rate
    return generator - np.diag(generator.sum(axis=1))


def pattern_of(spins):
    """Index of small states (B, *shape) in ``torus_generator`` and ``patch_generator``."""
    flat = spins.reshape(len(spins), -1) > 0
    return flat @ (1 << np.arange(flat.shape[1]))


# Whole lattices


@each_physics
@each_algorithm
def test_states_of_3_by_3_spins_have_exact_law(algorithm, physics):
    """All 512 states; 2 p-values."""
    chain, start, times = IsingExact(side=3, **physics), some_state(3), [0.0, 0.3, 1.5]
    states = simulated(algorithm, Ising(side=3, **physics), start, times, seed=1)
    assert (states[:, 0] == start).all()
    generator, before = chain.generator(), chain.index_of(start)
    for time, now in zip(times[1:], (states[:, 1], states[:, 2]), strict=True):
        drawn = chain.index_of(now)
        assert oracles.p_of_counts(drawn, law_after(generator, before, time)) > P_PASS
        # planted: the duration doubled
        assert oracles.p_of_counts(drawn, law_after(generator, before, 2 * time)) < P_SEEN


@each_physics
@each_algorithm
def test_classes_of_4_by_4_spins_have_exact_law(algorithm, physics):
    chain, start = IsingExact(side=4, **physics), some_state(4)
    states = simulated(algorithm, Ising(side=4, **physics), start, [0.8], seed=2)[:, 0]
    law = law_after(chain.generator(), chain.index_of(start), 0.8)
    assert p_of_classes(chain, states, law) > P_PASS
    hotter = IsingExact(side=4, **(physics | {"temperature": 1.6 * physics["temperature"]}))
    law = law_after(hotter.generator(), chain.index_of(start), 0.8)
    assert p_of_classes(chain, states, law) < P_SEEN  # planted


@each_algorithm
def test_two_bonds_join_each_pair_of_2_by_2_spins(algorithm):
    chain, start = IsingExact(side=2, **IN_FIELD), some_state(2)
    states = simulated(algorithm, Ising(side=2, **IN_FIELD), start, [0.7], seed=3)[:, 0]
    law = law_after(chain.generator(), chain.index_of(start), 0.7)
    assert oracles.p_of_counts(chain.index_of(states), law) > P_PASS


@each_physics
@each_algorithm
def test_means_and_variances_in_time_are_exact(algorithm, physics):
    """Mean and second moments of (M, rho) at 3 times: 15 z-scores, false alarm 1e-3 in all."""
    chain, times = IsingExact(side=4, **physics), np.array([0.2, 1.0, 5.0])
    start = some_state(4, seed=7)
    states = simulated(algorithm, Ising(side=4, **physics), start, times, seed=4)

    def functions(pairs):
        return np.column_stack([pairs, pairs**2, pairs[:, 0] * pairs[:, 1]])

    exact = chain.means(int(chain.index_of(start)), times, functions(chain.observables()))
    for index in range(3):
        pairs = chain.observables()[chain.index_of(states[:, index])]
        assert np.abs(oracles.z_of_mean(functions(pairs), exact[index])).max() < 4


@each_algorithm
def test_two_records_of_a_path_have_exact_correlation(algorithm):
    """E[f(x(s)) g(x(t))] = p_0 exp(Q s) f exp(Q (t - s)) g: 4 z-scores."""
    chain, start, (first, second) = IsingExact(side=3, **IN_FIELD), some_state(3), (0.6, 1.4)
    states = simulated(algorithm, Ising(side=3, **IN_FIELD), start, [first, second], seed=5)
    values, generator = chain.observables(), chain.generator().toarray()
    law = law_after(generator, chain.index_of(start), first)
    exact = np.einsum("x,xi,xj->ij", law, values, expm(generator * (second - first)) @ values)
    pairs = values[chain.index_of(states)]
    products = pairs[:, 0, :, None] * pairs[:, 1, None, :]
    assert np.abs(oracles.z_of_mean(products, exact)).max() < 4
    # planted: the records are independent
    means = [chain.means(int(chain.index_of(start)), [time])[0] for time in (first, second)]
    assert abs(oracles.z_of_mean(products, np.multiply.outer(*means))[0, 0]) > 8


# The slowest relaxation takes 8 and 2 units of time: after 100 the law is Gibbs to 1e-5.
@pytest.mark.parametrize(
    "physics",
    [{"temperature": 3.5, "field": 0.0}, PHYSICS["strong field down"]],
    ids=["no field", "field"],
)
@each_algorithm
def test_long_simulation_has_gibbs_law(algorithm, physics):
    """Of the states of 3 x 3 spins and the classes of 4 x 4: 2 p-values."""
    for side in (3, 4):
        chain = IsingExact(side=side, **physics)
        states = simulated(algorithm, Ising(side=side, **physics), some_state(side), [100.0], 6)
        if side == 3:
            p = oracles.p_of_counts(chain.index_of(states[:, 0]), chain.stationary())
            assert p > P_PASS
        assert p_of_classes(chain, states[:, 0], chain.stationary()) > P_PASS


# Patches among frozen neighbours: start and shape on 4 x 4 spins
REGIONS = {
    "one site": ((2, 1), (1, 1)),
    "square": ((1, 1), (2, 2)),
    "around the corner": ((3, 3), (2, 2)),
    "flat": ((2, 3), (2, 3)),
    "tall": ((3, 0), (3, 2)),
    "rows": ((3, 0), (2, 4)),
    "rows from within": ((3, 2), (2, 4)),
    "one row": ((1, 2), (1, 4)),
    "columns": ((0, 1), (4, 2)),
    "columns from within": ((3, 3), (4, 2)),
    "all but a rim": ((2, 3), (3, 3)),
}
each_region = pytest.mark.parametrize(("start", "shape"), REGIONS.values(), ids=REGIONS)


def region(start, shape, physics):
    patch = Patch(start=start, shape=shape, lattice_shape=(4, 4))
    spins = some_state(4, seed=11, share_up=0.25)
    generator = IsingExact(side=4, **physics).patch_generator(spins, patch.sites())
    return patch, spins, generator, pattern_of(patch.extract(spins[None]))[0]


@pytest.mark.parametrize("physics", list(PHYSICS.values())[:2], ids=list(PHYSICS)[:2])
@each_region
@each_algorithm
def test_patch_has_exact_law_and_all_else_is_frozen(algorithm, start, shape, physics):
    patch, spins, generator, before = region(start, shape, physics)
    states = evolved(algorithm, Ising(side=4, **physics), spins, patch, 0.9, seed=7)
    drawn = pattern_of(patch.extract(states))
    assert oracles.p_of_counts(drawn, law_after(generator, before, 0.9)) > P_PASS
    outside = np.delete(np.arange(16), patch.sites())
    frozen = states.reshape(-1, 16)[:, outside]
    np.testing.assert_array_equal(frozen, copies(spins.reshape(-1)[outside], len(states)))
    # planted: the frozen neighbours all up
    other = IsingExact(side=4, **physics).patch_generator(2**16 - 1, patch.sites())
    assert oracles.p_of_counts(drawn, law_after(other, before, 0.9)) < P_SEEN


@pytest.mark.parametrize("boundary", ["ghost", "periodic"])
@pytest.mark.parametrize("start", [(0, 0), (1, 2)])
@each_algorithm
def test_patch_as_large_as_the_lattice_is_the_lattice(algorithm, start, boundary):
    patch = Patch(start=start, shape=(3, 3), lattice_shape=(3, 3), boundary=boundary)
    chain, spins = IsingExact(side=3, **IN_FIELD), some_state(3)
    states = evolved(algorithm, Ising(side=3, **IN_FIELD), spins, patch, 0.7, seed=8)
    law = law_after(chain.generator(), chain.index_of(spins), 0.7)
    assert oracles.p_of_counts(chain.index_of(states), law) > P_PASS


@each_physics
@each_algorithm
def test_droplet_in_a_sea_decays_and_a_wrapped_droplet_does_not_see_the_sea(algorithm, physics):
    """3 x 3 spins up, all others down; across a corner of 8 x 8 spins."""
    patch = Patch(start=(6, 7), shape=(3, 3), lattice_shape=(8, 8))
    wrapped = Patch(start=(6, 7), shape=(3, 3), lattice_shape=(8, 8), boundary="periodic")
    sea = -np.ones((1, 8, 8), dtype=np.int8)
    spins, system = patch.insert(sea, np.ones((3, 3)))[0], Ising(side=8, **physics)
    sites = Patch(start=(0, 0), shape=(3, 3), lattice_shape=(4, 4)).sites()
    generators = {
        patch: IsingExact(side=4, **physics).patch_generator(0, sites),
        wrapped: IsingExact(side=3, **physics).generator(),
    }
    laws = {which: law_after(generator, 511, 1.0) for which, generator in generators.items()}
    for which, other in ((patch, wrapped), (wrapped, patch)):
        states = evolved(algorithm, system, spins, which, 1.0, seed=9)
        drawn = pattern_of(patch.extract(states))
        assert oracles.p_of_counts(drawn, laws[which]) > P_PASS
        assert oracles.p_of_counts(drawn, laws[other]) < P_SEEN
        assert (patch.insert(states, -1) == -1).all()


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2), (4, 2)])
def test_wrapped_patch_is_a_torus_of_its_own(shape):
    patch = Patch(start=(3, 2), shape=shape, lattice_shape=(4, 4), boundary="periodic")
    system, spins = Ising(side=4, **IN_FIELD), some_state(4, seed=3)
    generator = torus_generator(shape, **IN_FIELD)
    before = pattern_of(patch.extract(spins[None]))[0]
    states = evolved("n-fold", system, spins, patch, 0.9, seed=10)
    drawn = pattern_of(patch.extract(states))
    assert oracles.p_of_counts(drawn, law_after(generator, before, 0.9)) > P_PASS
    outside = np.delete(np.arange(16), patch.sites())
    assert (states.reshape(-1, 16)[:, outside] == spins.reshape(-1)[outside]).all()


@pytest.mark.parametrize("shape", [(2, 3), (3, 3)])
def test_torus_generator_is_that_of_the_enumerated_chain(shape):
    """The reference of the test above: a square, and rows that make a ring of a patch."""
    if shape == (3, 3):
        exact = IsingExact(side=3, **IN_FIELD).generator().toarray()
        np.testing.assert_allclose(torus_generator(shape, **IN_FIELD), exact, rtol=0, atol=1e-14)
        return
    # two equal halves of a 4 x 4 torus look like a 2 x 4 torus to each other
    exact = IsingExact(side=4, **IN_FIELD)
    wide = torus_generator((2, 4), **IN_FIELD)
    half = np.random.default_rng(0).integers(0, 2, 8)
    state = int(np.concatenate([half, half]) @ (1 << np.arange(16)))
    rates = exact.flip_rates()[state, :8]
    index = int(half @ (1 << np.arange(8)))
    np.testing.assert_allclose(wide[index, index ^ (1 << np.arange(8))], rates, rtol=1e-14)


# Evolution for a number of events


@pytest.mark.parametrize("events", [1, 2, 6])
@pytest.mark.parametrize("name", ["square", "around the corner", "rows", "flat"])
def test_events_follow_the_jump_chain(name, events):
    """Law of the state after N flips and mean time that they took."""
    patch, spins, generator, before = region(*REGIONS[name], IN_FIELD)
    states, elapsed = Ising(side=4, **IN_FIELD).evolve_patch_events(
        copies(spins, REPLICAS), patch, events, np.random.default_rng(11)
    )
    exit_rates = -np.diag(generator)
    jumps = (generator + np.diag(exit_rates)) / exit_rates[:, None]
    powers = [np.linalg.matrix_power(jumps, count) for count in range(events + 1)]
    drawn = pattern_of(patch.extract(states))
    assert oracles.p_of_counts(drawn, powers[events][before]) > P_PASS
    mean_time = sum(power[before] @ (1 / exit_rates) for power in powers[:-1])
    assert abs(oracles.z_of_mean(elapsed, mean_time)) < 4
    if events == 1:
        scale = 1 / exit_rates[before]
        assert stats.kstest(elapsed, stats.expon(scale=scale).cdf).pvalue > P_PASS
        assert stats.kstest(elapsed, stats.expon(scale=1.1 * scale).cdf).pvalue < P_SEEN


# Equilibrium is left alone


@functools.cache
def gibbs_samples(temperature, field):
    chain = IsingExact(side=4, temperature=temperature, field=field)
    chosen = np.random.default_rng(12).choice(2**16, p=chain.stationary(), size=64 * WORDS)
    return chain, chain.spins()[chosen]


OVERLAPPING = {
    "one by one": LocalRelax(side=1, duration=1.0),
    "2 x 2": LocalRelax(side=2, duration=1.0, stride=1),
    "3 x 3, twice": LocalRelax(side=3, duration=2.0, stride=2, passes=2),
    "4 x 4": LocalRelax(side=4, duration=3.0),
}


@each_physics
@pytest.mark.parametrize("relax", OVERLAPPING.values(), ids=OVERLAPPING)
def test_relaxation_in_tiles_keeps_gibbs_samples(relax, physics):
    """Classes of the samples before and after: 2 p-values, and 2 z-scores of word means."""
    chain, samples = gibbs_samples(**physics)
    relaxed = relax(Ising(side=4, **physics), samples, np.random.default_rng(13))
    assert (relaxed != samples).any(axis=0).all()
    for states in (samples, relaxed):
        assert p_of_classes(chain, one_per_word(states), chain.stationary()) > P_PASS
    pairs = chain.observables()[chain.index_of(relaxed)].reshape(WORDS, 64, 2).mean(axis=1)
    assert np.abs(oracles.z_of_mean(pairs, chain.stationary() @ chain.observables())).max() < 4


def test_relaxation_towards_another_temperature_does_not():
    chain, samples = gibbs_samples(**IN_FIELD)
    hotter = Ising(side=4, temperature=2.8, field=0.1)
    relaxed = OVERLAPPING["2 x 2"](hotter, samples, np.random.default_rng(13))
    assert p_of_classes(chain, one_per_word(relaxed), chain.stationary()) < P_SEEN


def test_patch_after_patch_of_the_n_fold_way_keeps_gibbs_samples():
    chain, samples = gibbs_samples(**IN_FIELD)
    states, rng = samples[:REPLICAS], np.random.default_rng(14)
    for patch in Patching(side=2, stride=1).patches((4, 4)):
        states = Ising(side=4, **IN_FIELD).evolve_patch(states, patch, 0.5, rng)
    assert p_of_classes(chain, states, chain.stationary()) > P_PASS


# Increments


@pytest.mark.parametrize("side", [2, 3, 4])
@each_physics
def test_rate_moments_equal_those_of_every_enumerated_state(side, physics):
    chain = IsingExact(side=side, **physics)
    drift, covariance = Ising(side=side, **physics).rate_moments(chain.spins())
    exact_drift, exact_covariance = chain.rate_moments()
    # up to 16 terms of order 1
    np.testing.assert_allclose(drift, exact_drift, rtol=0, atol=1e-14)
    np.testing.assert_allclose(covariance, exact_covariance, rtol=0, atol=1e-14)


def patch_law(boundary, chain, spins, patch, duration):
    """Law of the patterns of a 2 x 2 patch of 4 x 4 spins after evolution, (16,)."""
    before = pattern_of(patch.extract(spins[None]))[0]
    if boundary == "ghost":
        return law_after(chain.patch_generator(spins, patch.sites()), before, duration)
    if boundary == "periodic":
        physics = {"temperature": chain.temperature, "field": chain.field}
        return law_after(torus_generator((2, 2), **physics), before, duration)
    # with its rim the patch is the whole lattice
    law = law_after(chain.generator(), chain.index_of(spins), duration)
    return np.bincount(chain.patch_pattern(chain.spins(), patch.sites()), law)


@pytest.mark.parametrize("boundary", ["ghost", "periodic", "buffer(1)"])
def test_increments_of_each_patch_have_exact_moments(boundary):
    """Mean, covariance, and covariance from twins: 32 z-scores, each with false alarm 7e-6."""
    chain, spins, duration = IsingExact(side=4, **IN_FIELD), some_state(4, seed=5), 0.6
    pairs = evolve_patches(
        Ising(side=4, **IN_FIELD),
        Snapshots(states=copies(spins, 10_000)),
        Patching(side=2, boundary=boundary),
        duration=duration,
        patches_per_snapshot=4,
        twins=True,
        rng=np.random.default_rng(15),
    )
    assert pairs.n_patches == 4
    z_scores = []
    for index, patch in enumerate(Patching(side=2).patches((4, 4))):
        law = patch_law(boundary, chain, spins, patch, duration)
        values = chain.observables()
        jumps = values[chain.patch_states(spins, patch.sites())] - values[chain.index_of(spins)]
        mean = 4 * law @ jumps
        covariance = 16 * np.einsum("x,xi,xj->ij", law, jumps, jumps) - np.outer(mean, mean)
        chosen = pairs.patches == index
        first, second = pairs.increments[chosen], pairs.twin_increments[chosen]
        half = (first - second) / np.sqrt(2)
        z_scores += [
            oracles.z_of_mean(first, mean),
            oracles.z_of_mean(second, mean),
            oracles.z_of_mean(half[:, :, None] * half[:, None, :], covariance).ravel(),
        ]
    assert np.abs(np.concatenate(z_scores)).max() < 4.5


def test_increments_in_a_short_time_tend_to_the_rate_moments():
    """Drift, K times the covariance rate: 5 z-scores. 4000 flips in all; errors of 2 %.

    Corrections of order duration are 0.5 %, a quarter of that.
    """
    system, duration = Ising(side=8, **IN_FIELD), 0.005
    state = system.initial_states(1, np.random.default_rng(16), magnetization=0.25)
    pairs = evolve_patches(
        system,
        Snapshots(states=np.repeat(state, 40_000, axis=0)),
        Patching(side=4),
        duration=duration,
        patches_per_snapshot=4,
        twins=True,
        rng=np.random.default_rng(17),
    )
    drift, covariance = (moments[0] for moments in system.rate_moments(state))
    half = (pairs.increments - pairs.twin_increments) / np.sqrt(2)
    squares = half[:, :, None] * half[:, None, :]
    assert np.abs(oracles.z_of_mean(pairs.increments, drift * duration)).max() < 4
    assert np.abs(oracles.z_of_mean(squares, 4 * covariance * duration)).max() < 4
    # planted: the factor K lost
    assert np.abs(oracles.z_of_mean(squares, covariance * duration)).min() > 8


# Limits


@each_algorithm
def test_spins_without_interaction_relax_one_by_one(algorithm):
    """T -> infinity: each of 36 spins up is still or again up with (1 + exp(-t)) / 2."""
    times = [0.1, 1.0, 3.0]
    states = simulated(algorithm, Ising(side=6, temperature=1e9), np.ones((6, 6)), times, 18)
    for index, time in enumerate(times):
        law = stats.binom(36, (1 + np.exp(-time)) / 2).pmf(np.arange(37))
        drawn = (states[:, index] > 0).sum(axis=(1, 2))
        assert oracles.p_of_counts(drawn, law) > P_PASS


@each_algorithm
def test_reversed_spins_without_field_have_the_reversed_law(algorithm):
    """Of M and of rho, from x and from -x: 2 p-values; ties make the test pass more often."""
    system, start = Ising(side=5, temperature=2.0, field=0.0), -np.ones((5, 5))
    start[1:3, 2:] = 1

    def drawn(state, seed):
        """50 M and 50 rho, integers: (2, B)."""
        states = simulated(algorithm, system, state, [0.8], seed)[:, 0]
        return np.rint(50 * system.observables(states).T)

    first, second = drawn(start, 19), drawn(-start, 20)
    assert stats.ks_2samp(first[0], -second[0]).pvalue > P_PASS
    assert stats.ks_2samp(first[1], second[1]).pvalue > P_PASS
    assert stats.ks_2samp(first[0], second[0]).pvalue < P_SEEN  # planted: M not reversed
