"""Hierarchical upsampling (paper Algorithm 1): replication, groups, and harmless relaxation."""

import dataclasses

import numpy as np
import oracles
import pytest

from macrodyn_lib.exact import CurieWeissExact
from macrodyn_lib.lattice import Patching
from macrodyn_lib.records import Snapshots
from macrodyn_lib.systems.base import evolve_one_patch
from macrodyn_lib.systems.curie_weiss import CurieWeiss
from macrodyn_lib.systems.ising import Ising
from macrodyn_lib.systems.linear_chain import LinearChain
from macrodyn_lib.upsampling import (
    ROWS,
    LocalRelax,
    overlapping_stride,
    relax_ladder,
    relaxed_initial_states,
    relaxed_until_settled,
    upsample,
)


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


@pytest.mark.parametrize(("small", "large"), [((4, 4), 28), ((4, 4), 6), ((4, 4), 2), ((8, 4), 16)])
def test_upsample_raises_for_other_ratios(small, large):
    snapshots = Snapshots(states=np.ones((1, *small), dtype=np.int8))
    with pytest.raises(
        ValueError, match=r"lattice .*: must be 2\^a 3\^b 5\^c times the small lattice"
    ):
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


# Ladders: snapshots relaxed for different times


def test_ladder_relaxes_each_tile_for_its_duration_in_passes_of_at_most_one():
    ladder = relax_ladder(4, (0, 0.25, 1, 2.5, 40))
    assert ladder[0] is None
    passes = [(rung.passes, rung.duration) for rung in ladder[1:]]
    assert passes == [(1, 0.25), (1, 1.0), (3, pytest.approx(2.5 / 3)), (40, 1.0)]
    assert {rung.side for rung in ladder[1:]} == {4}


class Marks:
    """Rungs that fill the lattices with their number and note where they were used."""

    def __init__(self, count):
        self.uses = set()
        self.rungs = [self.rung(number) for number in range(count)]

    def rung(self, number):
        def relax(system, states, rng):
            self.uses.add((system.side, number))
            return np.full_like(states, number)

        return relax


def values_by_chunk(snapshots):
    states = snapshots.states.reshape(len(snapshots), -1)
    return [set(states[a : a + ROWS].ravel().tolist()) for a in range(0, len(states), ROWS)]


COUNT = 4 * ROWS + 5


def test_initial_states_use_the_rungs_in_turn():
    system, marks = CurieWeiss(side=4), Marks(3)
    rng = np.random.default_rng(0)
    pool = relaxed_initial_states(system, COUNT, relax=marks.rungs, rng=rng)
    assert values_by_chunk(pool) == [{0}, {1}, {2}, {0}, {1}]
    np.testing.assert_array_equal(pool.groups, np.arange(COUNT))


@pytest.mark.parametrize(("count", "rungs"), [(40, 8), (129, 51), (5, 8)])
def test_small_pools_use_every_rung_alike(count, rungs):
    marks, rng = Marks(rungs), np.random.default_rng(0)
    pools = [
        relaxed_initial_states(CurieWeiss(side=8), count, relax=marks.rungs, rng=rng),
        upsample(spin_snapshots(4), to=CurieWeiss(side=8), count=count, relax=marks.rungs, rng=rng),
    ]
    for pool in pools:
        uses = np.bincount(pool.states[:, 0, 0], minlength=rungs)
        assert uses.max() <= 2 * max(uses.min(), 1) and np.ptp(uses[:count]) <= count // rungs


@pytest.mark.parametrize(
    ("lattice", "side", "stride"), [(14, 7, 2), (15, 5, 1), (18, 9, 3), (64, 16, 8)]
)
def test_tiles_overlap_by_half_or_by_more_where_that_does_not_divide(lattice, side, stride):
    system = Ising(side=lattice)
    assert overlapping_stride(system, side) == stride
    states = system.initial_states(2, np.random.default_rng(0))
    relaxed = LocalRelax(side=side, duration=0.5)(system, states, np.random.default_rng(1))
    assert relaxed.shape == states.shape and (relaxed != states).any()


def test_duration_zero_leaves_initial_states_as_they_are():
    system = Ising(side=8)
    random, mixed = (
        relaxed_initial_states(
            system, 3 * ROWS, relax=relax_ladder(4, durations), rng=np.random.default_rng(0)
        ).states
        for durations in ((0,), (0, 2))
    )
    relaxed = slice(ROWS, 2 * ROWS)
    np.testing.assert_array_equal(np.delete(mixed, relaxed, 0), np.delete(random, relaxed, 0))
    assert (mixed[relaxed] != random[relaxed]).any(axis=0).all()
    # up to their magnetization, random spins are independent of their neighbours
    m = random.mean(axis=(1, 2))
    neighbours = (random * np.roll(random, 1, axis=1)).mean(axis=(1, 2))
    expected = (64 * m**2 - 1) / 63  # two different sites out of 64 with a given sum
    assert abs(oracles.z_of_mean(neighbours - expected, 0)) < 4  # false alarm 6e-5
    m = mixed[relaxed].mean(axis=(1, 2))
    neighbours = (mixed[relaxed] * np.roll(mixed[relaxed], 1, axis=1)).mean(axis=(1, 2))
    assert oracles.z_of_mean(neighbours - (64 * m**2 - 1) / 63, 0) > 10


def test_upsampling_uses_the_rungs_in_turn_at_the_last_level_and_the_last_one_before():
    marks = Marks(3)
    pool = upsample(
        spin_snapshots(4),
        to=CurieWeiss(side=16),
        count=COUNT,
        relax=marks.rungs,
        rng=np.random.default_rng(0),
    )
    assert values_by_chunk(pool) == [{0}, {1}, {2}, {0}, {1}]
    assert marks.uses == {(8, 2), (16, 0), (16, 1), (16, 2)}


def test_snapshots_of_full_size_are_returned_as_they_are():
    snapshots = spin_snapshots(8)
    same = upsample(
        snapshots,
        to=CurieWeiss(side=8),
        count=99,
        relax=relax_ladder(4, (1,)),
        rng=np.random.default_rng(0),
    )
    np.testing.assert_array_equal(same.states, snapshots.states)
    np.testing.assert_array_equal(same.groups, snapshots.groups)


def test_tiles_of_the_ising_model_are_relaxed_by_multi_spin_coding():
    system = Ising(side=8)
    states = system.initial_states(100, np.random.default_rng(0))
    tiles = Patching(side=4, stride=2).patches((8, 8))
    relaxed = LocalRelax(side=4, duration=1.0)(system, states, np.random.default_rng(1))
    together = system.relax_patches(states, tiles, 1.0, np.random.default_rng(1))
    np.testing.assert_array_equal(relaxed, together)


def test_tiles_with_a_buffer_are_evolved_one_after_the_other():
    system, patching = Ising(side=8), Patching(side=4, boundary="buffer(2)", stride=2)
    states = system.initial_states(10, np.random.default_rng(0))
    relax = LocalRelax(side=4, duration=1.0, boundary="buffer(2)", passes=2)
    relaxed = relax(system, states, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    for tile in patching.patches((8, 8)) * 2:
        states = evolve_one_patch(system, states, tile, patching, 1.0, rng)
    np.testing.assert_array_equal(relaxed, states)


def test_ladders_give_same_bits_for_any_number_of_threads(monkeypatch):
    small, large, ladder = Ising(side=4), Ising(side=16), relax_ladder(4, (0, 0.5, 2))
    states = small.initial_states(50, np.random.default_rng(0))
    results = []
    for threads in ("1", "4"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        rng = np.random.default_rng(1)
        enlarged = upsample(
            Snapshots(states=states), to=large, count=4 * ROWS, relax=ladder, rng=rng
        )
        initial = relaxed_initial_states(large, 4 * ROWS, relax=ladder, rng=rng)
        results.append((enlarged.states, initial.states))
    for one, four in zip(*results, strict=True):
        np.testing.assert_array_equal(one, four)


class Slowly:
    """Stub: a state is the time that each of its sites was relaxed; its observable approaches 1."""

    lattice_shape = state_shape = (8, 8)
    periodic = True

    def __init__(self):
        self.calls = []

    def relax_patches(self, states, tiles, duration, rng):
        passes = len(tiles) / 16  # tiles of 4 x 4, of stride 2
        self.calls.append(duration * passes)
        return states + duration * passes

    def observables(self, states):
        return 1 - np.exp(-states[:, 0, 0, None] / 10)


@pytest.mark.parametrize(
    ("unit", "tolerance", "most", "total"),
    [
        (1.0, 0.01, 1000.0, 128),  # from 64 on another 64 brings 0.0017
        (1.0, 0.2, 1000.0, 32),  # 16: 0.80, 32: 0.96
        (1.0, 0.01, 50.0, 50),
        (1.0, 0.01, 0.25, 0.25),
        (10.0, 0.01, 1000.0, 16),  # 8: 1 - e^-8, 16: 1 - e^-16
    ],
)
def test_relaxes_until_twice_as_long_changes_little(unit, tolerance, most, total):
    system = Slowly()
    start = Snapshots(states=np.zeros((3, 8, 8)), groups=np.array([4, 4, 7]))
    settled = relaxed_until_settled(
        start, system, side=4, unit=unit, most=most, observable=0, tolerance=tolerance,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    np.testing.assert_allclose(settled.states, total * unit)
    np.testing.assert_allclose(sum(system.calls), total * unit)
    assert settled.groups.tolist() == [4, 4, 7]
