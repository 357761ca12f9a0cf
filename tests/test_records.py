"""Records: what they refuse, that they cannot be changed, and how they deal and merge rows."""

import dataclasses

import numpy as np
import pytest

from macrodyn_lib.closure import encode, encode_naive
from macrodyn_lib.records import (
    IncrementMoments,
    LatentPairs,
    PatchPairs,
    Snapshots,
    Trajectories,
)

N, D = 6, 2


def patch_pairs(**changes):
    rng = np.random.default_rng(0)
    fields = {
        "observables": rng.normal(size=(N, D)),
        "increments": rng.normal(size=(N, D)),
        "patch_observables": rng.normal(size=(N, D)),
        "durations": np.full(N, 0.1),
        "patches": np.arange(N),
        "n_patches": 8,
        "groups": np.array([0, 0, 1, 1, 2, 2]),
        "twin_increments": rng.normal(size=(N, D)),
    }
    return PatchPairs(**(fields | changes))


def latent_pairs(**changes):
    return dataclasses.replace(encode(patch_pairs()), **changes)


def snapshots(**changes):
    fields = {"states": np.ones((N, 4, 4), dtype=np.int8), "groups": np.arange(N)}
    return Snapshots(**(fields | changes))


def trajectories(**changes):
    fields = {
        "times": np.arange(3.0),
        "observables": np.zeros((2, 3, 1)),
        "states": np.arange(24.0).reshape(2, 3, 4),
    }
    return Trajectories(**(fields | changes))


BROKEN = {
    "latent NaN": (latent_pairs, {"latents": np.full((N, D), np.nan)}, "latents has 12 non-finite"),
    "latent infinity": (
        latent_pairs,
        {"increments": np.full((N, D), np.inf)},
        "increments has 12 non-finite",
    ),
    "latent axes": (latent_pairs, {"latents": np.zeros(N)}, r"latents has shape \(6,\)"),
    "no rows": (
        latent_pairs,
        {
            "latents": np.empty((0, D)),
            "increments": np.empty((0, D)),
            "durations": np.empty(0),
            "groups": None,
            "twins": None,
        },
        "no rows",
    ),
    "twins shape": (latent_pairs, {"twins": np.zeros((N, 1))}, r"twins has shape \(6, 1\)"),
    "duration zero": (latent_pairs, {"durations": np.zeros(N)}, "minimum of 0: all must be pos"),
    "duration NaN": (latent_pairs, {"durations": np.full(N, np.nan)}, "durations has 6 non-finite"),
    "duration count": (latent_pairs, {"durations": np.ones(N + 1)}, r"durations has shape \(7,\)"),
    "patch count": (latent_pairs, {"n_patches": 0}, "n_patches = 0: must be an integer >= 1"),
    "patch fraction": (latent_pairs, {"n_patches": 1.5}, "n_patches = 1.5"),
    "patch boolean": (latent_pairs, {"n_patches": True}, "n_patches = True"),
    "group count": (latent_pairs, {"groups": np.arange(2)}, "must be 6 integers"),
    "group type": (latent_pairs, {"groups": np.zeros(N)}, "must be 6 integers"),
    "pairs NaN": (
        patch_pairs,
        {"patch_observables": np.full((N, D), np.nan)},
        "patch_observables has 12 non-finite",
    ),
    "pairs shape": (patch_pairs, {"increments": np.zeros((N, 1))}, r"must be \(6, 2\)"),
    "pairs duration": (patch_pairs, {"durations": np.full(N, -1.0)}, "minimum of -1"),
    "pairs patches": (patch_pairs, {"patches": np.zeros(2)}, r"patches has shape \(2,\)"),
    "snapshot axes": (snapshots, {"states": np.zeros(N)}, r"states has shape \(6,\)"),
    "snapshot none": (snapshots, {"states": np.zeros((0, 4)), "groups": None}, r"\(N >= 1"),
    "snapshot NaN": (snapshots, {"states": np.full((N, 4), np.nan)}, "states has non-finite"),
    "snapshot groups": (snapshots, {"groups": np.zeros(2, int)}, "must be 6 integers"),
    "trajectory times": (trajectories, {"times": np.arange(4.0)}, "axis 1 must be the 4 times"),
    "trajectory NaN": (
        trajectories,
        {"observables": np.full((2, 3, 1), np.nan)},
        "observables has 6 non-finite",
    ),
    "trajectory states": (
        trajectories,
        {"states": np.zeros((1, 3, 4))},
        r"must begin with \(2, 3\)",
    ),
}


@pytest.mark.parametrize(("make", "changes", "message"), BROKEN.values(), ids=BROKEN)
def test_record_raises_and_names_the_fault(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("make", [patch_pairs, latent_pairs, snapshots, trajectories])
def test_record_is_read_only(make):
    record = make()
    for field in dataclasses.fields(record):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, field.name, None)
        value = getattr(record, field.name)
        if isinstance(value, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                value[...] = 0


def test_record_leaves_array_of_caller_writable():
    states = np.zeros((2, 3))
    Snapshots(states=states)
    states[0, 0] = 1


def test_trajectories_become_snapshots_grouped_by_replica():
    drawn = trajectories().snapshots()
    np.testing.assert_array_equal(drawn.states, np.arange(24.0).reshape(6, 4))
    np.testing.assert_array_equal(drawn.groups, [0, 0, 0, 1, 1, 1])
    assert drawn.lattice_shape == (4,) and len(drawn) == 6
    with pytest.raises(ValueError, match="keep_states=True"):
        trajectories(states=None).snapshots()


def test_encode_hands_over_increments_and_k():
    pairs = patch_pairs()
    latent = encode(pairs)
    np.testing.assert_array_equal(latent.latents, pairs.observables)
    np.testing.assert_array_equal(latent.increments, pairs.increments)
    np.testing.assert_array_equal(latent.twins, pairs.twin_increments)
    np.testing.assert_array_equal(latent.groups, pairs.groups)
    assert (latent.n_patches, latent.dimension, len(latent)) == (8, D, N)


def test_encode_naive_takes_patch_for_whole():
    pairs = patch_pairs()
    latent = encode_naive(pairs)
    np.testing.assert_allclose(latent.latents + latent.increments, pairs.patch_observables)
    np.testing.assert_array_equal(latent.latents, pairs.observables)
    assert latent.n_patches == 1 and latent.twins is None


@pytest.mark.parametrize("rows", [np.array([4, 1]), np.arange(N) % 2 == 0], ids=["index", "mask"])
def test_select_takes_the_rows_of_every_array(rows):
    pairs = latent_pairs()
    part = pairs.select(rows)
    for name in ("latents", "increments", "durations", "groups", "twins"):
        np.testing.assert_array_equal(getattr(part, name), getattr(pairs, name)[rows])


def test_shares_partition_whole_groups():
    count, groups = 4, np.repeat(np.arange(10) * 7, 5)
    rows = np.arange(50.0)[:, None]
    pairs = LatentPairs(
        latents=rows, increments=rows, durations=np.ones(50), n_patches=2, groups=groups
    )
    shares = pairs.shares(count, np.random.default_rng(0))
    dealt = np.concatenate([share.latents[:, 0] for share in shares])
    np.testing.assert_array_equal(np.sort(dealt), np.arange(50))
    owners = [set(share.groups.tolist()) for share in shares]
    assert sum(len(owner) for owner in owners) == len(set().union(*owners)) == 10
    assert sorted(len(owner) for owner in owners) == [2, 2, 3, 3]


@pytest.mark.parametrize("count", [0, 4])
def test_shares_raise_for_more_shares_than_groups(count):
    with pytest.raises(ValueError, match=f"count = {count}: must be 1 to 3"):
        latent_pairs().shares(count, np.random.default_rng(0))


# Two pairs share latent and duration, the third differs in its duration.
MERGED = {
    "latents": np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]),
    "increments": np.array([[1.0, 0.0], [3.0, 4.0], [5.0, 5.0]]),
    "durations": np.array([0.1, 0.1, 0.2]),
    "groups": None,
}


def test_moments_merge_equal_latents_by_hand():
    moments = IncrementMoments.of(latent_pairs(**MERGED, twins=None))
    np.testing.assert_array_equal(moments.latents, [[1, 2], [1, 2]])
    np.testing.assert_array_equal(moments.durations, [0.1, 0.2])
    np.testing.assert_array_equal(moments.counts, [2, 1])
    np.testing.assert_allclose(moments.means, [[2, 2], [5, 5]])
    np.testing.assert_allclose(moments.scatters, [[[1, 2], [2, 4]], np.zeros((2, 2))])
    assert not moments.scatter_is_noise


def test_moments_of_twins_hold_half_mean_squared_difference():
    twins = np.array([[3.0, 0.0], [3.0, 0.0], [5.0, 7.0]])
    moments = IncrementMoments.of(latent_pairs(**MERGED, twins=twins))
    np.testing.assert_allclose(moments.means, [[2.5, 1], [5, 6]])
    # differences (-2, 0), (0, 4) of the first two pairs: half the mean of their squares
    np.testing.assert_allclose(moments.scatters, [[[1, 0], [0, 4]], [[0, 0], [0, 2]]])
    assert moments.scatter_is_noise
