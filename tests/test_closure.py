"""Block closures: moments by hand, symmetries, and what a fit promises."""

import numpy as np
import pytest

from macrodyn_lib.closure import BlockClosure, correlations, fit_block_closure
from macrodyn_lib.lattice import Patching
from macrodyn_lib.partial_evolution import latent_states
from macrodyn_lib.systems.ising import Ising

BY_HAND = {
    # blocks of 1: square; along the axes 1 and -1 both ways; diagonals -1 and 1.  Of 2: mean 1/2
    "2 x 2": ([[1, 1], [1, -1]], [1, 0, 0, 1 / 4]),
    # blocks of 1: (1 - 1 + 1) / 3 along rows, 1 across; diagonals as along rows
    # of 2: + - above + -, -1 along rows and 1 across.  of 4: mean 0
    "stripes": ([[1, 1, -1, -1]] * 4, [1, 2 / 3, 1 / 3, 1, 0, -1, 0]),
    # 3 cannot be halved; 12 bonds, 4 of them bad; 8 diagonals, 4 of them bad
    "3 x 3": ([[1, 1, 1], [1, -1, 1], [1, 1, 1]], [1, 1 / 3, 0]),
    # one axis has no diagonals; real numbers are as good as spins
    "chain": ([2.0, 4.0, 0.0, -6.0], [14, 8 / 3, 9, -9, 0]),
    "cube": (-np.ones((2, 2, 2)), [1, 1, 1]),
}


@pytest.mark.parametrize(("patch", "moments"), BY_HAND.values(), ids=BY_HAND)
def test_block_moments_by_hand(patch, moments):
    count = len(moments)
    bare = BlockClosure(weights=np.eye(count), centre=np.zeros(count), names=())
    # block means are taken in single precision
    np.testing.assert_allclose(bare(np.array([patch])), [moments], rtol=1e-6, atol=1e-7)
    mixed = BlockClosure(weights=np.eye(count)[:, :1] * 3, centre=np.full(count, 2.0), names=())
    assert mixed.dimension == 1
    np.testing.assert_allclose(mixed(np.array([patch])), [[3 * (moments[0] - 2)]], rtol=1e-6)


SYSTEM, QUARTERS = Ising(side=16), Patching(side=8)


@pytest.fixture(scope="module")
def snapshots():
    """At many times of a relaxation, so that correlations vary."""
    rng = np.random.default_rng(0)
    times = np.array([0.2, 1.0, 4.0, 16.0])
    states = SYSTEM.initial_states(256, rng)
    return SYSTEM.simulate(states, times, rng, keep_states=True, multispin=True).snapshots()


def fitted(snapshots, dimension=2):
    return fit_block_closure(snapshots, SYSTEM.observables(snapshots.states), QUARTERS, dimension)


def closures_of(closure, states):
    return latent_states(SYSTEM, states, QUARTERS, closure)[:, 2:]


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_closures_have_unit_variance_over_the_snapshots(snapshots, dimension):
    closure = fitted(snapshots, dimension)
    values = closures_of(closure, snapshots.states)
    assert closure.dimension == values.shape[1] == dimension
    np.testing.assert_allclose(values.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)


def test_closures_are_the_same_for_reversed_spins(snapshots):
    closure, states = fitted(snapshots), snapshots.states[:100]
    np.testing.assert_array_equal(closures_of(closure, -states), closures_of(closure, states))


def test_closures_are_the_same_for_states_moved_by_whole_patches(snapshots):
    closure, states = fitted(snapshots), snapshots.states[:100]
    values = closures_of(closure, states)
    for shift in ((8, 0), (0, 8), (8, 8)):
        moved = closures_of(closure, np.roll(states, shift, axis=(1, 2)))
        # four numbers of order 1 added in another order
        np.testing.assert_allclose(moved, values, rtol=0, atol=1e-14)
    other = closures_of(closure, np.roll(states, 3, axis=1))
    assert np.abs(other - values).max() > 0.01  # other patches are cut out


def test_closures_are_the_principal_directions_of_what_the_observables_leave(snapshots):
    observables = SYSTEM.observables(snapshots.states)
    m, rho = (observables - observables.mean(axis=0)).T
    design = np.stack([m**a * rho**b for a in range(4) for b in range(4 - a)], axis=1)
    bare = BlockClosure(weights=np.eye(10)[:, 1:], centre=np.zeros(10), names=())
    moments = closures_of(bare, snapshots.states)  # a spin's square, the first, is always 1
    standard = (moments - moments.mean(axis=0)) / moments.std(axis=0)
    residual = standard - design @ np.linalg.lstsq(design, standard, rcond=None)[0]
    principal = np.linalg.eigh(residual.T @ residual)[1][:, ::-1][:, :3]

    closure = fitted(snapshots, 3)
    assert not closure.weights[0].any()
    assert closure.names[0] == "square, blocks of 1" and len(closure.names) == 10
    directions = closure.weights[1:] * moments.std(axis=0)[:, None]
    directions = directions / np.linalg.norm(directions, axis=0)
    np.testing.assert_allclose(np.abs(directions.T @ principal), np.eye(3), atol=1e-3)
    # planted: the principal directions of the moments themselves are others
    plain = np.linalg.eigh(standard.T @ standard)[1][:, -1]
    assert abs(directions[:, 0] @ plain) < 0.9


@pytest.mark.parametrize("dimension", [0, 9, 13])
def test_dimension_out_of_range_raises(snapshots, dimension):
    # patches of 8: three moments for blocks of 1, 2, 4 and one of 8, of which a spin's square is 1
    # and the last a sum of the others
    with pytest.raises(ValueError, match=f"dimension = {dimension}: must be 1 to 8, the indep"):
        fitted(snapshots, dimension)


def test_correlations_are_a_table_of_closures_and_known_quantities():
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    latents = np.column_stack([np.zeros(50), x, 2 * y + 1])
    table = correlations(latents, {"x": x, "minus y": -3 * y, "both": x + y}, first=1)
    assert list(table.columns) == ["closure 1", "closure 2"]
    assert list(table.index) == ["x", "minus y", "both"]
    r = np.corrcoef(x, y)[0, 1]
    np.testing.assert_allclose(table.loc["x"], [1, r])
    np.testing.assert_allclose(table.loc["minus y"], [-r, -1])
    assert table.loc["both", "closure 1"] == pytest.approx(np.corrcoef(x, x + y)[0, 1])
