"""Patches and tiles: nothing is lost, every site is covered, and errors say what is allowed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macrodyn_lib.lattice import Patch, Patching

DTYPES = [np.int8, np.int32, np.float32, np.float64]


@st.composite
def partitions(draw):
    """Patch sides and a batch of states they divide, in 1, 2 or 3 dimensions, of any dtype."""
    dimension = draw(st.integers(1, 3))
    sides = tuple(draw(st.integers(1, 4)) for _ in range(dimension))
    lattice_shape = tuple(side * draw(st.integers(1, 4)) for side in sides)
    shape = (draw(st.integers(1, 3)), *lattice_shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return sides, rng.integers(-100, 100, shape).astype(draw(st.sampled_from(DTYPES)))


@given(partitions(), st.sampled_from(["ghost", "buffer(2)", "periodic"]))
def test_split_then_assemble_returns_same_bits(partition, boundary):
    sides, states = partition
    patching = Patching(side=sides, boundary=boundary)
    parts = patching.split(states)
    assert parts.shape[0] == len(states) and parts.shape[2:] == sides
    assembled = patching.assemble(parts, states.shape[1:])
    assert assembled.dtype == states.dtype
    np.testing.assert_array_equal(assembled, states)


@given(partitions())
def test_partition_holds_every_site_once(partition):
    sides, states = partition
    patches = Patching(side=sides).patches(states.shape[1:])
    sites = np.concatenate([patch.sites() for patch in patches])
    np.testing.assert_array_equal(np.sort(sites), np.arange(states[0].size))
    assert all(patch.n_sites == np.prod(sides) for patch in patches)


@st.composite
def tilings(draw):
    """side >= stride, and an extent that such tiles can cover, with or without open ends."""
    side = draw(st.integers(1, 8))
    stride, periodic = draw(st.integers(1, side)), draw(st.booleans())
    grain = stride if periodic or stride == side else 1
    extent = grain * draw(st.integers(-(-side // grain), 24))
    return side, stride, extent, periodic


@given(tilings(), st.integers(1, 2))
def test_overlapping_tiles_cover_every_site(tiling, dimension):
    side, stride, extent, periodic = tiling
    lattice_shape = (extent,) * dimension
    tiles = Patching(side=side, stride=stride).patches(lattice_shape, periodic=periodic)
    visits = np.zeros(lattice_shape, dtype=int)
    for tile in tiles:
        visits.flat[tile.sites()] += 1
        assert periodic or all(first + side <= extent for first in tile.start)
    assert visits.min() >= 1
    if periodic and side < extent and side % stride == 0:
        assert (visits == (side // stride) ** dimension).all()


@given(st.data(), st.integers(1, 2), st.sampled_from(DTYPES))
def test_wrapped_patch_extracts_and_inserts_its_sites(data, dimension, dtype):
    lattice_shape = tuple(data.draw(st.integers(1, 6)) for _ in range(dimension))
    start = tuple(data.draw(st.integers(0, extent - 1)) for extent in lattice_shape)
    shape = tuple(data.draw(st.integers(1, extent)) for extent in lattice_shape)
    patch = Patch(start=start, shape=shape, lattice_shape=lattice_shape)
    states = np.arange(2 * np.prod(lattice_shape)).reshape(2, *lattice_shape).astype(dtype)
    values = patch.extract(states)
    assert values.shape == (2, *shape) and values.dtype == dtype
    np.testing.assert_array_equal(values.reshape(2, -1), states.reshape(2, -1)[:, patch.sites()])
    np.testing.assert_array_equal(patch.insert(states, values), states)
    changed = patch.insert(states, np.full_like(values, 77))
    outside = np.delete(np.arange(states[0].size), patch.sites())
    assert (changed.reshape(2, -1)[:, patch.sites()] == 77).all()
    np.testing.assert_array_equal(
        changed.reshape(2, -1)[:, outside], states.reshape(2, -1)[:, outside]
    )


def test_patch_extracts_wrapped_corner_by_hand():
    states = np.arange(9).reshape(1, 3, 3)
    corner = Patch(start=(2, 2), shape=(2, 2), lattice_shape=(3, 3))
    np.testing.assert_array_equal(corner.extract(states), [[[8, 6], [2, 0]]])


@pytest.mark.parametrize("start", [(0,), (2,)])
def test_extract_returns_a_copy(start):
    states = np.zeros((1, 3))
    Patch(start=start, shape=(2,), lattice_shape=(3,)).extract(states)[:] = 1
    assert not states.any()


@pytest.mark.parametrize(
    ("periodic", "start", "expected"),
    [
        (True, 0, [10, 11, 0, 1, 2, 3, 4, 5]),
        (True, 4, [2, 3, 4, 5, 6, 7, 8, 9]),
        (True, 8, [6, 7, 8, 9, 10, 11, 0, 1]),
        (False, 0, [0, 1, 2, 3, 4, 5]),
        (False, 4, [2, 3, 4, 5, 6, 7, 8, 9]),
        (False, 8, [6, 7, 8, 9, 10, 11]),
    ],
)
def test_rim_adds_sites_on_each_side_within_the_lattice(periodic, start, expected):
    patching = Patching(side=4, boundary="buffer(2)")
    patch = Patch(start=(start,), shape=(4,), lattice_shape=(12,))
    np.testing.assert_array_equal(patching.rim(patch, periodic=periodic).sites(), expected)


@pytest.mark.parametrize("periodic", [True, False])
def test_wide_rim_is_the_whole_lattice(periodic):
    patch = Patch(start=(2, 2), shape=(2, 2), lattice_shape=(6, 6))
    rim = Patching(side=2, boundary="buffer(9)").rim(patch, periodic=periodic)
    np.testing.assert_array_equal(np.sort(rim.sites()), np.arange(36))


def test_buffer_width_is_read_from_the_boundary():
    patching = Patching(side=4, boundary="buffer(3)")
    assert (patching.boundary, patching.buffer_width) == ("buffer", 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boundary": "open"}, r"boundary = 'open': must be 'ghost', 'buffer', 'buffer\(w\)' or"),
        ({"boundary": "buffer(0)"}, "buffer_width = 0: must be >= 1"),
        ({"boundary": "buffer(x)"}, "boundary = 'buffer"),
        ({"side": 0}, "side = 0: must be an integer >= 1"),
        ({"side": (2, 0)}, r"side = \(2, 0\): must be an integer >= 1"),
        ({"stride": 0}, "stride = 0: must be an integer >= 1"),
    ],
)
def test_patching_raises_for_wrong_setting(settings, message):
    with pytest.raises(ValueError, match=message):
        Patching(**({"side": 4} | settings))


@pytest.mark.parametrize(
    ("patching", "message"),
    [
        (
            Patching(side=5),
            "patch side = 5: must divide the lattice side 12; allowed: 1, 2, 3, 4, 6, 12",
        ),
        (Patching(side=13, stride=1), "patch side = 13: must divide"),
        (Patching(side=6, stride=5), "stride = 5: must divide the lattice side 12"),
    ],
)
def test_patches_raise_and_name_the_allowed_sides(patching, message):
    with pytest.raises(ValueError, match=message):
        patching.patches((12, 12))


def test_assemble_raises_for_wrong_number_of_patches():
    with pytest.raises(ValueError, match="parts has 3 patches: must be 4"):
        Patching(side=2).assemble(np.zeros((1, 3, 2)), (8,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 2.5}, r"side = 2.5: must be an integer >= 1"),
        ({"side": 4, "stride": 5}, r"stride = 5: must be <= side = 4"),
    ],
)
def test_patching_raises_for_sites_that_fall_out(settings, message):
    with pytest.raises(ValueError, match=message):
        Patching(**settings)
