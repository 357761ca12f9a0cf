"""The models by themselves: the linear estimate, exact symmetry, and what they do off the data."""

import numpy as np
import pytest
import torch

from macrodyn_lib.fitting import FittedSDE, TrainingSettings, fit_sde
from macrodyn_lib.records import IncrementMoments
from macrodyn_lib.sde import MLPSDE, LinearEstimate, LinearSDE

SIGNS = np.array([-1, 1])
SETTINGS = TrainingSettings(steps=40, batch=100, learning_rate=1e-2, check_every=10)


def rates(latents, drift, covariance):
    """Increments as a simulator that knows its rates hands them over."""
    return IncrementMoments(
        latents=latents,
        means=drift,
        scatters=covariance,
        durations=np.ones(len(latents)),
        counts=np.ones(len(latents)),
        n_patches=1,
        scatter_is_noise=True,
    )


def lopsided_rates(count=300):
    """Of no symmetry, and more on one side of the first axis."""
    rng = np.random.default_rng(0)
    z = rng.normal((0.4, 2.0), (1.0, 0.5), size=(count, 2))
    root = np.tril(rng.normal(size=(count, 2, 2))) + 2 * np.eye(2)
    return rates(z, np.sin(z) - z + 0.3, root @ root.transpose(0, 2, 1))


def points(count=50, spread=3.0):
    """Inside and outside the box of the data."""
    return np.random.default_rng(9).normal(0, spread, size=(count, 2))


def fitted_network(signs=(-1, 1), seed=0):
    model = MLPSDE(2, hidden=(16,), signs=signs)
    return fit_sde(lopsided_rates(), model, rng=np.random.default_rng(seed), settings=SETTINGS)


# Symmetry under z -> signs z


def asymmetry(drift, covariance, z):
    """Largest difference of drift and covariance at the mirror image from the mirrored ones."""
    of_drift = np.abs(drift(SIGNS * z) - SIGNS * drift(z)).max()
    mirrored = np.outer(SIGNS, SIGNS) * covariance(z)
    return of_drift, np.abs(covariance(SIGNS * z) - mirrored).max()


@pytest.mark.parametrize("signs", [(-1, 1), None])
def test_network_of_random_weights_has_the_symmetry_if_asked_for(signs):
    """Before any fit; the last layers, which start at zero, are filled."""
    estimate = LinearEstimate.of(lopsided_rates().reflected(SIGNS), 1.0)
    generator = torch.Generator().manual_seed(1)
    module = MLPSDE(2, hidden=(16,), signs=signs).build([estimate], generator)
    for network in (module.drift_network, module.diffusion_network):
        network[-1].weight.data.normal_(generator=generator)

    def drift(z):
        return module.drift(torch.from_numpy(z)).detach().numpy()

    def covariance(z):
        root = module.cholesky(torch.from_numpy(z)).detach().numpy()
        return root @ root.transpose(0, 2, 1)

    differences = asymmetry(drift, covariance, points())
    if signs is None:  # planted: the same weights without symmetry
        assert min(differences) > 0.1
    else:  # numbers of order 10 to 100, in double precision
        assert max(differences) < 1e-12


def test_fit_to_lopsided_data_has_the_symmetry():
    symmetric, free = fitted_network(), fitted_network(signs=None)
    assert len(symmetric.validation_losses) > 1  # it has been trained
    assert max(asymmetry(symmetric.drift, symmetric.covariance, points())) < 1e-12
    assert min(asymmetry(free.drift, free.covariance, points())) > 0.1


def test_checkpoint_keeps_the_signs(tmp_path):
    fitted = fitted_network()
    fitted.save(tmp_path / "model.pt")
    loaded = FittedSDE.load(tmp_path / "model.pt")
    assert loaded.model == fitted.model and loaded.model.signs == (-1, 1)
    assert loaded.module.symmetric
    # the library may multiply arrays of another memory layout in another order
    np.testing.assert_allclose(loaded.drift(points()), fitted.drift(points()), rtol=0, atol=1e-13)
    assert max(asymmetry(loaded.drift, loaded.covariance, points())) < 1e-12


@pytest.mark.parametrize("signs", [(-1,), (-1, 1, 1), (-1, 0), (2, 1), ()], ids=str)
def test_wrong_signs_raise(signs):
    with pytest.raises(ValueError, match=r"signs = .*: must be 2 numbers, each -1 or 1"):
        MLPSDE(2, signs=signs)


# The linear estimate


def test_beyond_is_what_a_cubic_drift_adds_to_the_linear_fit():
    z = np.linspace(-1, 1, 401)[:, None]
    estimate = LinearEstimate.of(rates(z, z - 2 * z**3, np.ones((401, 1, 1))), 1.0)
    slope = 1 - 2 * np.sum(z**4) / np.sum(z**2)
    assert estimate.slope[0, 0] == pytest.approx(slope)
    expected = np.sqrt(np.mean((z - 2 * z**3 - slope * z) ** 2))
    assert estimate.beyond[0] == pytest.approx(expected)
    linear = LinearEstimate.of(rates(z, 3 * z + 1, np.ones((401, 1, 1))), 1.0)
    assert linear.beyond[0] < 1e-12
    # 4 monomials: a cubic is not asked of 40 increments or fewer
    few = LinearEstimate.of(rates(z[::11], z[::11] ** 3, np.ones((37, 1, 1))), 1.0)
    assert few.beyond[0] == 0


def test_estimate_holds_the_box_of_its_latents():
    data = lopsided_rates()
    estimate = LinearEstimate.of(data, 1.0)
    np.testing.assert_array_equal(estimate.lowest, data.latents.min(axis=0))
    np.testing.assert_array_equal(estimate.highest, data.latents.max(axis=0))


# Outside the box of the data


@pytest.mark.parametrize("signs", [None, (-1, 1)])
def test_drift_leads_back_from_outside_though_the_linear_slope_is_unstable(signs):
    """A saddle, seen near its centre alone."""
    z = np.random.default_rng(0).uniform(-1, 1, size=(400, 2))
    data = rates(z, z * (2.0, -1.0), np.tile(0.1 * np.eye(2), (400, 1, 1)))
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    outward = np.column_stack([np.cos(angles), np.sin(angles)])
    model = MLPSDE(2, hidden=(16,), signs=signs)
    network, linear = (
        fit_sde(data, kind, rng=np.random.default_rng(0), settings=SETTINGS)
        for kind in (model, LinearSDE(2))
    )
    assert (outward * network.drift(100 * outward)).sum(axis=1).max() < -1
    assert (outward * linear.drift(100 * outward)).sum(axis=1).max() > 1  # planted: no box
    # inside, the network has the saddle
    assert network.drift(np.array([[0.8, 0.0]]))[0, 0] > 1
