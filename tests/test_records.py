"""Records: what they refuse, that they cannot be changed, and how they deal and merge rows."""

import dataclasses

import numpy as np
import pytest

from macrodyn_lib.closure import encode, encode_naive
from macrodyn_lib.fitting import fit_sde
from macrodyn_lib.records import (
    IncrementMoments,
    LatentPairs,
    PatchPairs,
    Snapshots,
    Trajectories,
)
from macrodyn_lib.sde import LinearSDE

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


def increment_moments(**changes):
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(N, D, D))
    fields = {
        "latents": rng.normal(size=(N, D)),
        "means": rng.normal(size=(N, D)),
        "scatters": roots @ roots.transpose(0, 2, 1),
        "durations": rng.uniform(0.1, 1, N),
        "counts": np.arange(1.0, N + 1),
        "n_patches": 4,
        "scatter_is_noise": True,
        "groups": np.array([0, 0, 1, 1, 2, 2]),
    }
    return IncrementMoments(**(fields | changes))


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
    "moments means": (increment_moments, {"means": np.zeros((N, 1))}, r"means .* be \(6, 2\)"),
    "moments scatters": (
        increment_moments,
        {"scatters": np.zeros((N, D, 1))},
        r"scatters has shape \(6, 2, 1\): must be \(6, 2, 2\)",
    ),
    "moments axes": (increment_moments, {"scatters": np.zeros((N, D))}, "must have 3 axes"),
    "moments counts": (increment_moments, {"counts": np.ones(N + 1)}, r"counts has shape \(7,\)"),
    "moments NaN": (increment_moments, {"means": np.full((N, D), np.nan)}, "means has 12 non-fin"),
    "moments duration": (increment_moments, {"durations": np.zeros(N)}, "minimum of 0"),
    "moments patch count": (increment_moments, {"n_patches": 0}, "n_patches = 0"),
    "moments groups": (increment_moments, {"groups": np.arange(N + 1)}, "must be 6 integers"),
    "moments no rows": (increment_moments, {"latents": np.empty((0, D))}, "latents has no rows"),
}


@pytest.mark.parametrize(("make", "changes", "message"), BROKEN.values(), ids=BROKEN)
def test_record_raises_and_names_the_fault(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    "make", [patch_pairs, latent_pairs, increment_moments, snapshots, trajectories]
)
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


def test_selected_snapshots_keep_their_groups():
    pool = snapshots(states=np.arange(12).reshape(N, 2), groups=np.array([5, 5, 7, 7, 9, 9]))
    chosen = pool.select(np.array([4, 0]))
    np.testing.assert_array_equal(chosen.states, [[8, 9], [0, 1]])
    np.testing.assert_array_equal(chosen.groups, [9, 5])
    np.testing.assert_array_equal(pool.select(pool.groups == 7).states, [[4, 5], [6, 7]])


def test_concatenated_snapshots_keep_the_groups_of_their_sources_apart():
    first = snapshots(groups=np.array([3, 3, 0, 0, 1, 1]))
    second = snapshots(states=np.full((2, 4, 4), 7), groups=np.array([0, 3]))
    both = Snapshots.concatenate([first, second, first])
    np.testing.assert_array_equal(both.states[6:8], second.states)
    np.testing.assert_array_equal(both.states[8:], first.states)
    parts = both.groups[:6], both.groups[6:8], both.groups[8:]
    for part, source in zip(parts, (first, second, first), strict=True):
        # the same rows belong together as before
        same = part[:, None] == part
        np.testing.assert_array_equal(same, source.groups[:, None] == source.groups)
    assert len(np.unique(both.groups)) == 3 + 2 + 3


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


@pytest.mark.parametrize("rows", [np.array([4, 1]), np.arange(N) % 2 == 0], ids=["index", "mask"])
def test_select_takes_the_rows_of_all_moments(rows):
    moments = increment_moments()
    part = moments.select(rows)
    for name in ("latents", "means", "scatters", "durations", "counts", "groups"):
        np.testing.assert_array_equal(getattr(part, name), getattr(moments, name)[rows])
    assert (part.n_patches, part.scatter_is_noise) == (4, True)


FIFTY = {"durations": np.ones(50), "n_patches": 2, "groups": np.repeat(np.arange(10) * 7, 5)}
ROWS = np.arange(50.0)[:, None]
TO_BE_SHARED = {
    "pairs": LatentPairs(latents=ROWS, increments=ROWS, **FIFTY),
    "moments": IncrementMoments(
        latents=ROWS,
        means=ROWS,
        scatters=ROWS[:, :, None],
        counts=np.ones(50),
        scatter_is_noise=True,
        **FIFTY,
    ),
}


@pytest.mark.parametrize("pairs", TO_BE_SHARED.values(), ids=TO_BE_SHARED)
def test_shares_partition_whole_groups(pairs):
    count = 4
    shares = pairs.shares(count, np.random.default_rng(0))
    dealt = np.concatenate([share.latents[:, 0] for share in shares])
    np.testing.assert_array_equal(np.sort(dealt), np.arange(50))
    owners = [set(share.groups.tolist()) for share in shares]
    assert sum(len(owner) for owner in owners) == len(set().union(*owners)) == 10
    assert sorted(len(owner) for owner in owners) == [2, 2, 3, 3]


@pytest.mark.parametrize("count", [0, 4])
@pytest.mark.parametrize("make", [latent_pairs, increment_moments])
def test_shares_raise_for_more_shares_than_groups(make, count):
    with pytest.raises(ValueError, match=f"count = {count}: must be 1 to 3"):
        make().shares(count, np.random.default_rng(0))


SHIFT, SCALE = np.array([1.0, -2.0]), np.array([0.5, 4.0])


def test_normalised_pairs_are_in_units_of_the_scale():
    pairs = latent_pairs()
    unit = pairs.normalised(SHIFT, SCALE)
    np.testing.assert_allclose(SHIFT + SCALE * unit.latents, pairs.latents)
    np.testing.assert_allclose(SCALE * unit.increments, pairs.increments)
    np.testing.assert_allclose(SCALE * unit.twins, pairs.twins)
    for name in ("durations", "groups", "n_patches"):
        np.testing.assert_array_equal(getattr(unit, name), getattr(pairs, name))
    assert latent_pairs(twins=None).normalised(SHIFT, SCALE).twins is None


@pytest.mark.parametrize("twins", [True, False])
def test_merging_and_normalising_commute(twins):
    pairs = latent_pairs(**({} if twins else {"twins": None}))
    first, second = (
        pairs.normalised(SHIFT, SCALE).moments(),
        pairs.moments().normalised(SHIFT, SCALE),
    )
    for field in dataclasses.fields(first):
        np.testing.assert_allclose(getattr(first, field.name), getattr(second, field.name))


def test_moments_of_moments_are_themselves():
    moments = increment_moments()
    assert moments.moments() is moments


def test_reflected_moments_hold_both_images_with_half_the_weight():
    moments, signs = increment_moments(), np.array([-1, 1])
    both = moments.reflected(signs)
    assert len(both) == 2 * N and both.counts.sum() == moments.counts.sum()
    original, mirrored = both.select(np.arange(N)), both.select(np.arange(N, 2 * N))
    for part, sign in ((original, np.ones(2)), (mirrored, signs)):
        np.testing.assert_array_equal(part.latents, sign * moments.latents)
        np.testing.assert_array_equal(part.means, sign * moments.means)
        np.testing.assert_array_equal(part.scatters[:, 0, 1], sign[0] * moments.scatters[:, 0, 1])
        np.testing.assert_array_equal(part.scatters[:, 1, 1], moments.scatters[:, 1, 1])
        np.testing.assert_array_equal(part.counts, moments.counts / 2)
        np.testing.assert_array_equal(part.durations, moments.durations)
        np.testing.assert_array_equal(part.groups, moments.groups)


def test_fit_of_reflected_moments_is_symmetric():
    signs, z = np.array([-1, 1]), np.random.default_rng(2).normal(size=(9, 2))
    once, reflected = (
        fit_sde(data, LinearSDE(D), rng=np.random.default_rng(0))
        for data in (increment_moments(), increment_moments().reflected(signs))
    )
    # numbers of order 1 to 100
    np.testing.assert_allclose(
        reflected.drift(signs * z), signs * reflected.drift(z), rtol=0, atol=1e-12
    )
    assert abs(reflected.covariance(z)[:, 0, 1]).max() < 1e-12
    assert np.abs(once.drift(signs * z) - signs * once.drift(z)).max() > 0.1


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


def test_concatenated_pairs_hold_every_row_of_every_array():
    pairs = patch_pairs()
    both = PatchPairs.concatenate([pairs, patch_pairs(increments=np.zeros((N, D)))])
    assert len(both) == 2 * N and both.n_patches == 8
    for name in ("observables", "increments", "twin_increments", "patches", "groups"):
        np.testing.assert_array_equal(getattr(both, name)[:N], getattr(pairs, name))
    assert not both.increments[N:].any()
    with pytest.raises(ValueError, match=r"n_patches = \[8, 4\]: must be the same for all"):
        PatchPairs.concatenate([pairs, patch_pairs(n_patches=4)])


def test_coarsened_moments_by_hand():
    """Two of three rows share a cell: counts 1 and 3, so that means weigh them as 1 : 3."""
    values = {
        "latents": np.array([[0.1, 0.1], [0.3, 0.4], [0.6, 0.1]]),
        "means": np.array([[1.0, 0.0], [5.0, 4.0], [7.0, 7.0]]),
        "scatters": np.array([np.eye(2), 5 * np.eye(2), np.eye(2)]),
        "durations": np.full(3, 0.1),
        "counts": np.array([1.0, 3.0, 2.0]),
        "n_patches": 4,
    }
    noise = IncrementMoments(**values, scatter_is_noise=True).coarsened(0.5)
    np.testing.assert_allclose(noise.latents, [[0.25, 0.325], [0.6, 0.1]])
    np.testing.assert_allclose(noise.means, [[4, 3], [7, 7]])
    np.testing.assert_allclose(noise.scatters, [4 * np.eye(2), np.eye(2)])
    np.testing.assert_array_equal(noise.counts, [4, 2])
    whole = IncrementMoments(**values, scatter_is_noise=False).coarsened(0.5)
    # the spread of (1, 0) and three (5, 4) about (4, 3) comes on top
    np.testing.assert_allclose(whole.scatters[0], 4 * np.eye(2) + 3)
    apart = IncrementMoments(**values | {"durations": np.array([0.1, 0.2, 0.1])},
                             scatter_is_noise=True).coarsened(0.5)  # fmt: skip
    assert len(apart) == 3
    with pytest.raises(ValueError, match="width = 0: must be > 0"):
        apart.coarsened(0)


def test_coarsened_by_group_keeps_groups_apart_and_cells_have_their_own_widths():
    values = {
        "latents": np.array([[0.1, 0.1], [0.3, 0.4], [0.6, 0.4]]),
        "means": np.array([[1.0, 0.0], [5.0, 4.0], [7.0, 7.0]]),
        "scatters": np.ones((3, 2, 2)),
        "durations": np.ones(3),
        "counts": np.ones(3),
        "n_patches": 1,
        "scatter_is_noise": True,
    }
    apart = IncrementMoments(**values, groups=np.array([4, 7, 7])).coarsened(1.0, by_group=True)
    np.testing.assert_array_equal(apart.groups, [4, 7])
    np.testing.assert_allclose(apart.means, [[1, 0], [6, 5.5]])
    bands = IncrementMoments(**values).coarsened(np.array([1.0, 0.2]))
    np.testing.assert_allclose(bands.means, [[1, 0], [6, 5.5]])


def test_folded_moments_by_hand():
    moments = IncrementMoments(
        latents=np.array([[-0.1, 0.2], [0.3, 0.4]]),
        means=np.array([[1.0, 2.0], [3.0, 4.0]]),
        scatters=np.array([[[1.0, 0.5], [0.5, 2.0]], [[1.0, 0.5], [0.5, 2.0]]]),
        durations=np.ones(2),
        counts=np.ones(2),
        n_patches=1,
        scatter_is_noise=True,
    ).folded(np.array([-1.0, 1.0]))
    np.testing.assert_array_equal(moments.latents, [[0.1, 0.2], [0.3, 0.4]])
    np.testing.assert_array_equal(moments.means, [[-1, 2], [3, 4]])
    np.testing.assert_array_equal(moments.scatters[:, 0, 1], [-0.5, 0.5])
