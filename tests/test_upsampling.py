"""Hierarchical upsampling (paper Algorithm 1): replication, groups, and harmless relaxation."""

import dataclasses

import numpy as np
import oracles
import pytest

from macrodyn_lib.exact import CurieWeissExact
from macrodyn_lib.records import Snapshots
from macrodyn_lib.systems.curie_weiss import CurieWeiss
from macrodyn_lib.systems.linear_chain import LinearChain
from macrodyn_lib.upsampling import LocalRelax, upsample


def spin_snapshots(side, count=5):
    states = CurieWeiss(side=side).initial_states(count, np.random.default_rng(0))
    return Snapshots(states=states, groups=10 * np.arange(count))


def assert_blocks_of_source(large, small, factor):
    """Every state is its group's small state with each site replicated into a block."""
    for state, group in zip(large.states, large.groups, strict=True):
        source = small.states[np.flatnonzero(small.groups == group)[0]]
        block = np.ones((factor,) * source.ndim, dtype=source.dtype)
        np.testing.assert_array_equal(state, np.kron(source, block))


@pytest.mark.parametrize(("small", "large"), [(4, 8), (4, 32), (16, 48), (3, 54)])
def test_naive_upsampling_replicates_sites_and_carries_groups(small, large):
    snapshots = spin_snapshots(small)
    enlarged = upsample(
        snapshots,
        to=CurieWeiss(side=large),
        count=40,
        relax=None,
        rng=np.random.default_rng(1),
    )
    assert enlarged.states.shape == (40, large, large)
    assert enlarged.states.dtype == np.int8
    assert_blocks_of_source(enlarged, snapshots, large // small)
    assert len(np.unique(enlarged.groups)) > 1


def test_chain_is_upsampled_along_its_one_axis():
    states = np.random.default_rng(0).normal(size=(3, 5))
    snapshots = Snapshots(states=states, groups=np.array([4, 7, 9]))
    chain = LinearChain(n_particles=30)
    enlarged = upsample(snapshots, to=chain, count=20, relax=None, rng=np.random.default_rng(1))
    assert_blocks_of_source(enlarged, snapshots, 6)


def test_relaxation_keeps_groups_and_moves_every_region():
    snapshots = spin_snapshots(4)
    options = {"to": CurieWeiss(side=8), "count": 200}
    naive, relaxed = (
        upsample(snapshots, relax=relax, rng=np.random.default_rng(1), **options)
        for relax in (None, LocalRelax(side=4, duration=1.0))
    )
    np.testing.assert_array_equal(naive.groups, relaxed.groups)
    assert (naive.states != relaxed.states).any(axis=0).all()


@pytest.mark.parametrize(("small", "large"), [((4, 4), 20), ((4, 4), 6), ((4, 4), 2), ((8, 4), 16)])
def test_upsample_raises_for_other_ratios(small, large):
    snapshots = Snapshots(states=np.ones((1, *small), dtype=np.int8))
    with pytest.raises(ValueError, match=r"lattice .*: must be 2\^a 3\^b times the small lattice"):
        upsample(
            snapshots,
            to=CurieWeiss(side=large),
            count=1,
            relax=None,
            rng=np.random.default_rng(0),
        )


def test_upsampling_gives_same_bits_for_any_number_of_threads(monkeypatch):
    results = []
    for threads in ("1", "4"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        results.append(
            upsample(
                spin_snapshots(4),
                to=CurieWeiss(side=16),
                count=300,
                relax=LocalRelax(side=4, duration=0.5),
                rng=np.random.default_rng(1),
            )
        )
    np.testing.assert_array_equal(results[0].states, results[1].states)
    np.testing.assert_array_equal(results[0].groups, results[1].groups)


SMALL = CurieWeiss(side=4, temperature=0.8, field=0.1)
LAW = CurieWeissExact(n_sites=16, temperature=0.8, field=0.1).stationary()


def gibbs_states(count, rng):
    """Exact samples: the number of up spins from its law, their places at random."""
    n_up = rng.choice(17, size=count, p=LAW)
    spins = np.where(np.arange(16) < n_up[:, None], 1, -1).astype(np.int8)
    return rng.permuted(spins, axis=1).reshape(count, 4, 4)


def relaxed_gibbs(**changes):
    rng = np.random.default_rng(2)
    relax = dataclasses.replace(LocalRelax(side=2, duration=1.0, passes=2), **changes)
    return relax(SMALL, gibbs_states(20_000, rng), rng)


def p_of_up_spins(states):
    return oracles.p_of_counts((states > 0).sum(axis=(1, 2)), LAW)


def test_ghost_relaxation_leaves_gibbs_law_invariant():
    relaxed = relaxed_gibbs()
    assert p_of_up_spins(relaxed) > 1e-4  # the false-alarm rate
    # all sites remain alike, also the first and the last to be relaxed; 16 z-scores, 1e-4
    mean = CurieWeissExact(n_sites=16, temperature=0.8, field=0.1).stationary_mean()
    assert np.abs(oracles.z_of_mean(relaxed, mean)).max() < 4.5
    # planted: tiles wrapped on themselves feel a mean field of their own
    assert p_of_up_spins(relaxed_gibbs(boundary="periodic")) < 1e-9


def test_ghost_relaxation_brings_other_states_to_gibbs_law():
    rng = np.random.default_rng(3)
    relax = LocalRelax(side=2, duration=1.0, passes=30)
    relaxed = relax(SMALL, SMALL.initial_states(3000, rng), rng)
    assert p_of_up_spins(relaxed) > 1e-4
    assert p_of_up_spins(SMALL.initial_states(3000, rng)) < 1e-9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 0}, "side = 0: must be an integer >= 1"),
        ({"duration": 0}, "duration = 0: must be finite and > 0"),
        ({"duration": np.nan}, "duration = nan"),
        ({"passes": 0}, "passes = 0: must be an integer >= 1"),
    ],
)
def test_relaxation_raises_for_wrong_setting(settings, message):
    with pytest.raises(ValueError, match=message):
        LocalRelax(**({"side": 4, "duration": 1.0} | settings))


def test_relaxation_raises_for_wrong_boundary():
    with pytest.raises(ValueError, match="boundary = 'open': must be 'ghost'"):
        LocalRelax(side=2, duration=1.0, boundary="open")(
            SMALL, np.ones((1, 4, 4), dtype=np.int8), np.random.default_rng(0)
        )
