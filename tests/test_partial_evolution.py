"""One patch moves, the rest stays (paper Sec. II): the increments and their K-fold covariance.

z-scores pass for |z| < 4, a false-alarm rate of 6e-5 each.
"""

import dataclasses

import numpy as np
import oracles
import pytest
from scipy.stats import chisquare, ks_2samp

from macrodyn_lib.closure import BlockClosure, encode, encode_naive
from macrodyn_lib.exact import LinearChainExact
from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.partial_evolution import (
    averaged_increments,
    evolve_patches,
    integrated_increments,
    latent_states,
    rate_increments,
)
from macrodyn_lib.records import IncrementMoments, Snapshots
from macrodyn_lib.systems.base import evolve_one_patch
from macrodyn_lib.systems.curie_weiss import CurieWeiss
from macrodyn_lib.systems.ising import Ising
from macrodyn_lib.systems.linear_chain import LinearChain

PHYSICS = {"friction": 0.3, "coupling": 0.8, "noise": 0.7, "force": 5.0}
CHAIN = LinearChain(n_particles=12, **PHYSICS)
SYSTEMS = {"linear chain": CHAIN, "Curie-Weiss": CurieWeiss(side=12)}
each_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
each_boundary = pytest.mark.parametrize("boundary", ["ghost", "buffer(2)", "periodic"])


def snapshots_of(system, count=60):
    states = system.initial_states(count, np.random.default_rng(1))
    return Snapshots(states=states, groups=np.arange(count) // 3)


def pairs_of(system, boundary="ghost", seed=2, snapshots=None, stride=None, **options):
    return evolve_patches(
        system,
        snapshots_of(system) if snapshots is None else snapshots,
        Patching(side=4, boundary=boundary, stride=stride),
        **({"duration": 0.1} | options),
        rng=np.random.default_rng(seed),
    )


@each_system
@each_boundary
def test_general_increment_equals_site_mean_shortcut(system, boundary, monkeypatch):
    """K [phi(x with I evolved) - phi(x)] is the change of the patch's own mean."""
    shortcut = pairs_of(system, boundary)
    monkeypatch.setattr(type(system), "observables_are_site_means", False)
    general = pairs_of(system, boundary)
    assert np.abs(shortcut.increments).max() > 0.05
    # K times the cancellation error of two means of order 1
    np.testing.assert_allclose(general.increments, shortcut.increments, rtol=0, atol=1e-13)


@each_system
@each_boundary
def test_only_the_patch_changes(system, boundary):
    patching = Patching(side=4, boundary=boundary)
    states = snapshots_of(system).states
    for patch in patching.patches(system.lattice_shape, periodic=system.periodic):
        evolved = evolve_one_patch(system, states, patch, patching, 2.0, np.random.default_rng(3))
        restored = patch.insert(evolved, patch.extract(states))
        np.testing.assert_array_equal(restored, states)
        assert (patch.extract(evolved) != patch.extract(states)).any()


@each_system
@pytest.mark.parametrize("index", [0, 1, -1])
def test_buffer_equals_ghost_on_enlarged_patch_cut_back(system, index):
    patching = Patching(side=4, boundary="buffer(2)")
    patch = patching.patches(system.lattice_shape, periodic=system.periodic)[index]
    states = snapshots_of(system).states
    buffered = evolve_one_patch(system, states, patch, patching, 0.5, np.random.default_rng(3))
    bounds = [
        (first - 2, first + 6) if system.periodic else (max(first - 2, 0), min(first + 6, 12))
        for first in patch.start
    ]
    enlarged = Patch(
        start=tuple(low % 12 for low, _ in bounds),
        shape=tuple(high - low for low, high in bounds),
        lattice_shape=system.lattice_shape,
    )
    whole = system.evolve_patch(states, enlarged, 0.5, np.random.default_rng(3))
    np.testing.assert_array_equal(buffered, patch.insert(states, patch.extract(whole)))


@each_system
def test_pairs_keep_observables_groups_and_duration(system):
    snapshots = snapshots_of(system)
    pairs = pairs_of(system, patches_per_snapshot=2)
    assert len(pairs) == 120 and pairs.n_patches == (3 if system is CHAIN else 9)
    observables = np.repeat(system.observables(snapshots.states), 2, axis=0)
    np.testing.assert_array_equal(pairs.observables, observables)
    np.testing.assert_array_equal(pairs.groups, np.repeat(snapshots.groups, 2))
    assert (pairs.durations == 0.1).all() and pairs.twin_increments is None


@each_system
def test_patch_observables_are_those_of_the_evolved_patch(system):
    snapshots, pairs = snapshots_of(system), pairs_of(system)
    patches = Patching(side=4).patches(system.lattice_shape, periodic=system.periodic)
    before = np.concatenate([
        system.observables(patches[index].extract(state[None]))
        for index, state in zip(pairs.patches, snapshots.states, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(pairs.patch_observables, before + pairs.increments, atol=1e-13)


@each_system
def test_patches_of_a_snapshot_are_distinct_and_uniform(system):
    pairs = pairs_of(system, patches_per_snapshot=2, snapshots=snapshots_of(system, 1000))
    first, second = pairs.patches.reshape(-1, 2).T
    assert (first != second).all()
    for drawn in (first, second):
        counts = np.bincount(drawn, minlength=pairs.n_patches)
        assert chisquare(counts).pvalue > 1e-4  # the false-alarm rate


def test_every_patch_is_evolved_when_asked_for_all():
    pairs = pairs_of(CHAIN, patches_per_snapshot=3)
    np.testing.assert_array_equal(
        np.sort(pairs.patches.reshape(-1, 3)), np.tile([0, 1, 2], (60, 1))
    )


@each_system
def test_twins_are_independent_and_alike(system):
    states = np.repeat(snapshots_of(system).states[:1], 6000, axis=0)
    pairs = pairs_of(system, snapshots=Snapshots(states=states), twins=True)
    rows = pairs.patches == 0  # other patches have another law
    first, second = pairs.increments[rows, 0], pairs.twin_increments[rows, 0]
    correlation = np.corrcoef(first, second)[0, 1]
    assert abs(correlation) * np.sqrt(len(first)) < 4
    assert ks_2samp(first, second).pvalue > 1e-4
    assert (first != second).mean() > 0.5


def test_events_are_counted_and_time_is_random():
    system = SYSTEMS["Curie-Weiss"]
    pairs = pairs_of(system, duration=None, events=1)
    np.testing.assert_allclose(np.abs(pairs.increments), 2 / 16)  # one spin of the 16 has flipped
    assert len(np.unique(pairs.durations)) == len(pairs)


@each_system
def test_same_seed_gives_same_pairs_for_any_number_of_threads(system, monkeypatch):
    snapshots, results = snapshots_of(system, 2500), []  # more than one chunk
    for threads in ("1", "4"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        results.append(pairs_of(system, snapshots=snapshots, twins=True))
    for field in dataclasses.fields(results[0]):
        np.testing.assert_array_equal(*(getattr(pairs, field.name) for pairs in results))
    other = pairs_of(system, snapshots=snapshots, twins=True, seed=3)
    assert (other.increments != results[0].increments).any()


# A steep profile, so that the drifts of the patches differ much, and one step of the chain, for
# which the moments of partial evolution among frozen neighbours have closed forms.
PROFILE = 4.0 * np.cos(np.arange(12)) + np.arange(12)
STEP, K = CHAIN.time_step, 3
EXACT = LinearChainExact(n_particles=12, **PHYSICS)
PATCH_DRIFTS = EXACT.patch_drift(PROFILE[None], K)[0]
DRIFT = EXACT.slope * PROFILE.mean() + EXACT.bias
SIGMA = EXACT.diffusion**2
BETWEEN = PATCH_DRIFTS.var() * STEP / K  # Cov_I(E[Dz_I]) / (K dt)


def profile_pairs(boundary="ghost", duration=STEP, **options):
    states = np.tile(PROFILE, (20_000, 1))
    return pairs_of(
        CHAIN,
        boundary,
        snapshots=Snapshots(states=states),
        duration=duration,
        patches_per_snapshot=K,
        **options,
    )


def by_patch(pairs):
    return [pairs.increments[pairs.patches == index, 0] for index in range(K)]


def test_patch_drifts_equal_exact_drifts_among_frozen_neighbours():
    drawn = [by_patch(profile_pairs(boundary)) for boundary in ("ghost", "periodic")]
    z = [
        [oracles.z_of_mean(d, mu * STEP) for d, mu in zip(parts, PATCH_DRIFTS, strict=True)]
        for parts in drawn
    ]
    assert np.abs(z[0]).max() < 4
    assert np.abs(z[1]).max() > 20  # planted: the frozen neighbours are lost


@pytest.mark.parametrize("boundary", ["ghost", "periodic"])
def test_mean_increment_over_patches_is_the_drift_of_the_whole(boundary):
    """Fluxes between patches cancel, whatever the patches see of each other (paper App. C)."""
    means = profile_pairs(boundary).increments.reshape(-1, K).mean(axis=1)
    assert abs(oracles.z_of_mean(means, DRIFT * STEP)) < 4
    doubled = profile_pairs(boundary, duration=2 * STEP).increments.reshape(-1, K).mean(axis=1)
    assert abs(oracles.z_of_mean(doubled, DRIFT * STEP)) > 10  # planted: duration doubled


def test_mean_covariance_within_patches_is_k_times_that_of_the_whole():
    deviations = np.concatenate(
        [d - mu * STEP for d, mu in zip(by_patch(profile_pairs()), PATCH_DRIFTS, strict=True)]
    )
    assert abs(oracles.z_of_variance(deviations, 0, K * SIGMA * STEP)) < 4
    assert abs(oracles.z_of_variance(deviations, 0, SIGMA * STEP)) > 50  # planted: K lost


def test_whole_moves_with_the_covariance_that_patches_have_k_times():
    whole = CHAIN.simulate(np.tile(PROFILE, (20_000, 1)), [STEP], np.random.default_rng(4))
    increments = whole.observables[:, 0, 0] - PROFILE.mean()
    assert abs(oracles.z_of_mean(increments, DRIFT * STEP)) < 4
    assert abs(oracles.z_of_variance(increments, DRIFT * STEP, SIGMA * STEP)) < 4


@pytest.mark.parametrize("twins", [False, True])
def test_spread_of_drifts_between_patches_counts_as_noise_only_without_twins(twins):
    """Sigma' - Sigma = Cov_I(E[Dz_I]) / (K dt), which the proof in App. C of the paper drops."""
    pairs = profile_pairs(twins=twins)
    moments = IncrementMoments.of(encode(pairs))
    assert moments.counts.tolist() == [len(pairs)] and moments.scatter_is_noise == twins
    if twins:
        squares = (pairs.increments - pairs.twin_increments)[:, 0] ** 2 / 2
    else:
        squares = (pairs.increments[:, 0] - moments.means[0, 0]) ** 2
    fitted = squares / (K * STEP)
    np.testing.assert_allclose(moments.scatters[0, 0, 0] / (K * STEP), fitted.mean())
    expected, other = (SIGMA, SIGMA + BETWEEN) if twins else (SIGMA + BETWEEN, SIGMA)
    assert abs(oracles.z_of_mean(fitted, expected)) < 4
    assert abs(oracles.z_of_mean(fitted, other)) > 20  # planted: the other expectation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duration": None}, "duration = None, events = None: give exactly one"),
        ({"events": 3}, "duration = 0.1, events = 3: give exactly one"),
        ({"duration": None, "events": 0}, "events = 0: must be an integer >= 1"),
        ({"duration": -0.1}, "duration = -0.1: must be finite and > 0"),
        ({"patches_per_snapshot": 0}, "patches_per_snapshot = 0: must be an integer >= 1"),
        ({"patches_per_snapshot": 10}, "patches_per_snapshot = 10: must be <= 9, K"),
        ({"duration": None, "events": 3, "boundary": "buffer(2)"}, "boundary = 'buffer'"),
        ({"stride": 2}, "stride = 2: must be None, K patches that do not overlap"),
        ({"snapshots": Snapshots(states=np.ones((2, 8, 8)))}, r"snapshots have lattice \(8, 8\)"),
    ],
)
def test_evolve_patches_raises_for_wrong_argument(options, message):
    with pytest.raises(ValueError, match=message):
        pairs_of(SYSTEMS["Curie-Weiss"], **options)


def test_evolve_patches_raises_when_system_has_no_events():
    with pytest.raises(ValueError, match="LinearChain has no events; give duration"):
        pairs_of(CHAIN, duration=None, events=3)


@each_system
def test_evolve_patches_raises_when_side_does_not_divide(system):
    with pytest.raises(ValueError, match="patch side = 5: must divide the lattice side 12"):
        evolve_patches(
            system,
            snapshots_of(system),
            Patching(side=5),
            duration=0.1,
            rng=np.random.default_rng(0),
        )


# Closures of a patch

QUARTERS = Patching(side=4)
MAGNET = Ising(side=8)


def two_closures(patches):
    """Of no symmetry at all, (B, 4, 4) -> (B, 2)."""
    weights = np.random.default_rng(5).normal(size=(16, 2))
    return np.tanh(patches.reshape(len(patches), -1) @ weights)


def test_latent_states_have_the_mean_of_the_closures_over_patches():
    states = snapshots_of(MAGNET, 5).states
    latents = latent_states(MAGNET, states, QUARTERS, two_closures)
    quarters = [states[:, a : a + 4, b : b + 4] for a in (0, 4) for b in (0, 4)]
    expected = sum(two_closures(quarter) for quarter in quarters) / 4
    np.testing.assert_array_equal(latents[:, :2], MAGNET.observables(states))
    np.testing.assert_allclose(latents[:, 2:], expected, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(latent_states(MAGNET, states, QUARTERS), latents[:, :2])


@pytest.fixture
def all_up(monkeypatch):
    """Evolving a patch turns all of its spins up, so that its outcome is known."""

    def evolve_patch(self, states, patch, duration, rng):
        return patch.insert(states, np.ones((len(states), *patch.shape), dtype=np.int8))

    monkeypatch.setattr(Ising, "evolve_patch", evolve_patch)


def test_increment_is_k_times_the_change_of_the_lattice_for_closures_too(all_up):
    snapshots = snapshots_of(MAGNET, 30)
    pairs = pairs_of(MAGNET, snapshots=snapshots, patches_per_snapshot=3, closure=two_closures)
    patches, up = QUARTERS.patches((8, 8)), np.ones((1, 4, 4), dtype=np.int8)
    sources = np.repeat(snapshots.states, 3, axis=0)
    before = latent_states(MAGNET, sources, QUARTERS, two_closures)
    np.testing.assert_allclose(pairs.observables, before, rtol=0, atol=1e-15)
    for row, index in enumerate(pairs.patches):
        state = sources[row : row + 1]
        evolved = patches[index].insert(state, up)
        after = latent_states(MAGNET, evolved, QUARTERS, two_closures)
        # K times the cancellation error of numbers of order 1
        np.testing.assert_allclose(
            pairs.increments[row], 4 * (after - before[row])[0], rtol=0, atol=1e-14
        )
        own = two_closures(up) - two_closures(patches[index].extract(state))
        np.testing.assert_allclose(pairs.increments[row, 2:], own[0], rtol=0, atol=1e-15)


def test_naive_pairs_take_the_patch_for_the_whole_for_closures_too(all_up):
    pairs = pairs_of(MAGNET, closure=two_closures)
    up = np.ones((1, 4, 4), dtype=np.int8)
    expected = np.column_stack([MAGNET.observables(up), two_closures(up)])
    np.testing.assert_allclose(pairs.patch_observables, np.tile(expected, (60, 1)), atol=1e-15)
    naive = encode_naive(pairs)
    assert naive.dimension == 4 and naive.n_patches == 1
    np.testing.assert_allclose(naive.latents + naive.increments, pairs.patch_observables)


@pytest.mark.parametrize("boundary", ["ghost", "buffer(2)", "periodic"])
def test_closures_do_not_change_the_pairs_of_the_observables(boundary):
    names = ("square", "neighbours", "diagonals", "square", "neighbours", "diagonals", "square")
    closure = BlockClosure(weights=np.eye(7)[:, 1:4], centre=np.zeros(7), names=names)
    without, pairs = (
        pairs_of(MAGNET, boundary, twins=True, closure=which) for which in (None, closure)
    )
    for name in ("observables", "increments", "twin_increments", "patch_observables"):
        given = getattr(pairs, name)
        assert given.shape == (60, 5)
        np.testing.assert_array_equal(given[:, :2], getattr(without, name))
    assert (pairs.increments[:, 2:] != pairs.twin_increments[:, 2:]).any(axis=0).all()


# Rates, and many continuations


def test_rate_increments_are_the_moments_the_system_gives():
    system = Ising(side=6)
    snapshots = snapshots_of(system, 2100)  # more than one chunk
    rates = rate_increments(system, snapshots)
    drift, covariance = system.rate_moments(snapshots.states)
    np.testing.assert_array_equal(rates.latents, system.observables(snapshots.states))
    np.testing.assert_array_equal(rates.means, drift)
    np.testing.assert_array_equal(rates.scatters, covariance)
    np.testing.assert_array_equal(rates.groups, snapshots.groups)
    assert (rates.durations == 1).all() and (rates.counts == 1).all()
    assert rates.n_patches == 1 and rates.scatter_is_noise


def test_rates_of_every_spin_add_up_to_the_mean_increment_in_a_short_time():
    """Mean increment of a patch per time, over all patches and many continuations: |z| < 4."""
    duration = 0.002  # the drift changes by about this share of itself
    states = np.repeat(snapshots_of(MAGNET, 1).states, 6000, axis=0)
    pairs = pairs_of(
        MAGNET, snapshots=Snapshots(states=states), duration=duration, patches_per_snapshot=4
    )
    drifts = pairs.increments.reshape(6000, 4, 2).mean(axis=1) / duration
    rates = rate_increments(MAGNET, Snapshots(states=states[:1]))
    assert np.abs(oracles.z_of_mean(drifts, rates.means[0])).max() < 4
    assert np.abs(oracles.z_of_mean(drifts, 4 * rates.means[0])).max() > 10  # planted: K lost


@pytest.mark.parametrize("system", [CHAIN, CurieWeiss(side=8)], ids=["chain", "Curie-Weiss"])
def test_rate_increments_raise_where_the_system_does_not_know_its_rates(system):
    message = f"increments = 'rates': {type(system).__name__} has no rate_moments; use 'sampled'"
    with pytest.raises(ValueError, match=message):
        rate_increments(system, snapshots_of(system, 3))


def averaged(continuations, seed=2):
    rng = np.random.default_rng(seed)
    return averaged_increments(
        CHAIN, snapshots_of(CHAIN), QUARTERS, duration=0.1, continuations=continuations, rng=rng
    )


def test_averages_of_two_continuations_are_the_moments_of_twins():
    """Latents of the chain are all different, so that merging by latent is by snapshot."""
    moments = encode(pairs_of(CHAIN, patches_per_snapshot=3, twins=True)).moments()
    merged, _ = averaged(2)
    order = np.argsort(merged.latents[:, 0])
    assert len(moments) == 60 and (moments.counts == 3).all()
    for name in ("latents", "means", "scatters", "durations"):
        values = getattr(merged, name)[order]
        np.testing.assert_allclose(values, getattr(moments, name), rtol=1e-12, atol=1e-14)
    assert merged.n_patches == 3 and merged.scatter_is_noise
    np.testing.assert_array_equal(merged.groups, snapshots_of(CHAIN).groups)


def test_averages_have_less_noise_with_more_continuations_and_the_same_scatter():
    """All patches of one state: the drifts between them cancel, their noise is divided."""
    snapshots = Snapshots(states=np.tile(PROFILE, (2000, 1)))
    for continuations, other in ((2, 8), (8, 2)):
        merged, _ = averaged_increments(
            CHAIN, snapshots, QUARTERS, duration=STEP, continuations=continuations,
            rng=np.random.default_rng(3),
        )  # fmt: skip
        mean, noise = DRIFT * STEP, K * SIGMA * STEP
        drawn = merged.means[:, 0]
        assert abs(oracles.z_of_mean(drawn, mean)) < 4
        assert abs(oracles.z_of_variance(drawn, mean, noise / (K * continuations))) < 4
        assert abs(oracles.z_of_variance(drawn, mean, noise / (K * other))) > 10  # planted
        assert abs(oracles.z_of_mean(merged.scatters[:, 0, 0], noise)) < 4


def test_averages_for_the_baseline_are_the_moments_of_its_pairs():
    """Of one round of twins the baseline sees the first; of two rounds the mean of both."""
    first = encode_naive(pairs_of(CHAIN, patches_per_snapshot=3, twins=True)).moments()
    _, merged = averaged(2)
    order = np.argsort(merged.latents[:, 0])
    for name in ("latents", "means", "scatters"):
        values = getattr(merged, name)[order]
        np.testing.assert_allclose(values, getattr(first, name), rtol=1e-9, atol=1e-12)
    assert merged.n_patches == 1 and not merged.scatter_is_noise
    _, both = averaged(4)
    # what two rounds have between them counts as scatter
    assert both.scatters.mean() > 0.9 * merged.scatters.mean()
    assert not np.array_equal(both.means, merged.means)


@each_boundary
def test_frame_of_a_patch_changes_nothing_but_the_cost(boundary, monkeypatch):
    """A patch evolves in a small lattice of what it can see: same draws, same increments."""
    magnet = Ising(side=16, temperature=2.0, field=0.2)
    options = {"patches_per_snapshot": 16, "twins": True, "duration": 0.8}
    framed = pairs_of(magnet, boundary, **options)
    monkeypatch.setattr(Ising, "interaction_range", None)
    whole = pairs_of(magnet, boundary, **options)
    assert np.abs(framed.increments).max() > 0.1
    for name in ("increments", "twin_increments", "patch_observables"):
        difference = getattr(framed, name) - getattr(whole, name)
        np.testing.assert_allclose(difference, 0, atol=1e-13)


@pytest.mark.parametrize("continuations", [1, 3, 2.0])
def test_averages_raise_for_an_odd_number_of_continuations(continuations):
    with pytest.raises(ValueError, match=f"continuations = {continuations}: must be"):
        averaged(continuations)


# Means from the rates along the path


def integrated(states, duration, continuations=1, seed=3):
    return integrated_increments(
        MAGNET, Snapshots(states=states), QUARTERS, duration=duration,
        continuations=continuations, rng=np.random.default_rng(seed),
    )  # fmt: skip


@pytest.mark.parametrize("duration", [0.3, 3.0])
def test_rates_along_the_path_promise_the_mean_increment_and_the_same_second_moment(duration):
    """Many continuations of one state, against the increments themselves: |z| < 4."""
    states = np.repeat(snapshots_of(MAGNET, 1).states, 4000, axis=0)
    pairs = pairs_of(
        MAGNET, snapshots=Snapshots(states=states), duration=duration, patches_per_snapshot=4
    )
    by_patch = pairs.increments.reshape(4000, 4, 2)
    moments = integrated(states, duration)
    gain = moments.means - by_patch.mean(axis=1)  # independent draws
    assert np.abs(oracles.z_of_mean(gain, np.zeros(2))).max() < 4
    assert np.abs(oracles.z_of_mean(moments.means, 1.2 * by_patch.mean(axis=(0, 1)))).max() > 10
    assert (moments.means.var(axis=0) < 0.7 * by_patch.mean(axis=1).var(axis=0)).all()
    squares = np.einsum("nki,nkj->nij", by_patch, by_patch) / 4
    whole = moments.scatters + moments.means[:, :, None] * moments.means[:, None, :]
    assert np.abs(oracles.z_of_mean((whole - squares).reshape(4000, 4), np.zeros(4))).max() < 4
    assert (moments.n_patches, moments.scatter_is_noise) == (4, True)


def test_in_a_short_time_they_are_the_rates_of_the_whole_lattice():
    """State by state, though a patch flips but 0.06 spins in that time."""
    snapshots = snapshots_of(MAGNET, 3000)
    moments, rates = integrated(snapshots.states, 0.01), rate_increments(MAGNET, snapshots)
    np.testing.assert_array_equal(moments.latents, rates.latents)
    left = (moments.means / 0.01 - rates.means).std(axis=0)
    assert (left < 0.15 * rates.means.std(axis=0)).all()


def test_drift_and_second_moment_of_a_patch_agree_in_equilibrium_and_twins_do_not():
    """<M Delta> = -<Delta^2> / (2K) for a reversible step, from all 4 x 4 Gibbs states: |z| < 4.

    Planted: the covariance within a patch alone (twins) misses it by many standard errors.
    """
    system = Ising(side=4, temperature=3.0, field=0.3)
    bits = np.arange(2**16)[:, None] >> np.arange(16) & 1
    states = (2 * bits - 1).astype(np.int8).reshape(-1, 4, 4)
    m, rho = system.observables(states).T
    energy = -32 * (1 - 2 * rho) - 16 * system.field * m
    weights = np.exp((energy.min() - energy) / system.temperature)
    rng = np.random.default_rng(1)
    rows = rng.choice(len(states), size=40000, p=weights / weights.sum())
    drawn = Snapshots(states=states[rows])
    patching = Patching(side=2)
    moments = integrated_increments(system, drawn, patching, duration=3.0, continuations=1, rng=rng)
    pairs = evolve_patches(
        system, drawn, patching, duration=3.0, patches_per_snapshot=4, twins=True, rng=rng
    )
    within = np.square(pairs.increments - pairs.twin_increments)[:, 0].reshape(-1, 4).mean(1) / 2
    m, mean = moments.latents[:, 0], moments.means[:, 0]
    square = moments.scatters[:, 0, 0] + mean**2
    assert abs(oracles.z_of_mean(m * mean + square / 8, 0.0)) < 4
    assert abs(oracles.z_of_mean(m * mean + within / 8, 0.0)) > 10


@pytest.mark.parametrize(
    ("system", "boundary", "message"),
    [
        (MAGNET, "periodic", "boundary = 'periodic': increments = 'integrated' needs 'ghost'"),
        (MAGNET, "buffer", "boundary = 'buffer': increments = 'integrated' needs 'ghost'"),
        (CurieWeiss(side=8), "ghost", "CurieWeiss has no evolve_patch_and_expect; use 'sampled'"),
    ],
)
def test_integrated_increments_raise_where_rates_are_not_those_of_the_lattice(
    system, boundary, message
):
    patching = Patching(side=4, boundary=boundary)
    with pytest.raises(ValueError, match=message):
        integrated_increments(
            system, snapshots_of(system, 3), patching, duration=0.1, continuations=1,
            rng=np.random.default_rng(0),
        )  # fmt: skip
