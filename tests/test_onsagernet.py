"""OnsagerNetSDE: its structure by construction, and recovery of known ones.

Statistical bounds are relative errors on fixed seeds, two to three times what the noise of the data
allows; each is shown to fail for the error it guards against.
"""

import warnings

import numpy as np
import pytest
import torch

from macrodyn_lib import fitting
from macrodyn_lib.errors import CheckpointError
from macrodyn_lib.fitting import FittedSDE, TrainingSettings, fit_ensemble, fit_sde
from macrodyn_lib.records import IncrementMoments, LatentPairs
from macrodyn_lib.rollouts import rollout
from macrodyn_lib.sde import LinearEstimate, LinearSDE, OnsagerNetSDE

MOBILITY = np.array([[1.0, 0.2], [0.2, 0.6]])
CIRCULATION = np.array([[0.0, 0.7], [-0.7, 0.0]])
ROOT = np.array([[0.5, 0.0], [0.2, 0.3]])
SETTINGS = TrainingSettings(steps=300, batch=1024, learning_rate=1e-2)


def true_drift(z, parameter):
    """-(M + W) grad V of V = sum_i (k_i a_i^2 / 2 + a_i^4 / 8), a = z - centre(p)."""
    parameter = np.broadcast_to(parameter, len(z))
    away = z - np.column_stack([np.sin(2 * parameter), 0.5 * parameter])
    stiffness = np.column_stack([1 + parameter**2, np.full(len(z), 2.0)])
    return -(away * stiffness + away**3 / 2) @ (MOBILITY + CIRCULATION).T


def family(count=4000, *, with_parameters=True, n_patches=4, duration=0.05, seed=0):
    """Pairs of the true SDE, at parameters between -1 and 1 (or all at 0)."""
    rng = np.random.default_rng(seed)
    parameters = rng.uniform(-1, 1, count) if with_parameters else np.zeros(count)
    latents = rng.normal(size=(count, 2))
    noise = np.sqrt(n_patches * duration) * rng.normal(size=(count, 2)) @ ROOT.T
    return LatentPairs(
        latents=latents,
        increments=true_drift(latents, parameters) * duration + noise,
        durations=np.full(count, duration),
        n_patches=n_patches,
        groups=np.arange(count) // 20,
        parameters=parameters[:, None] if with_parameters else None,
    )


def filled_module(model, seed=1):
    """Before any fit, the last layers filled, which start at zero."""
    pairs = family(400, with_parameters=model.parameters > 0).moments()
    generator = torch.Generator().manual_seed(seed)
    module = model.build(LinearEstimate.along_parameter(pairs, 4.0), generator)
    for name, network in module.named_children():
        if name.endswith("network") and network is not None:
            network[-1].weight.data.normal_(0, 0.5, generator=generator)
            network[-1].bias.data.normal_(generator=generator)
    return module


def inputs(model, count=40):
    """In and outside of the box of the data."""
    rng = np.random.default_rng(7)
    return torch.from_numpy(rng.normal(0, 2.0, size=(count, 2 + model.parameters)))


def relative_error(found, true):
    return np.sqrt(np.square(found - true).sum() / np.square(true).sum())


each_model = pytest.mark.parametrize(
    "model", [OnsagerNetSDE(2), OnsagerNetSDE(2, parameters=1, hidden=(16, 8))], ids=str
)


# Structure


@each_model
def test_gradient_equals_finite_differences_of_the_potential(model):
    module, x, step = filled_module(model), inputs(model), 1e-5
    shifts = step * torch.eye(x.shape[1], dtype=torch.float64)[:2]
    with torch.no_grad():
        numeric = torch.stack(
            [(module.potential(x + s) - module.potential(x - s)) / (2 * step) for s in shifts], 1
        )
        exact = module.gradient(x)
    np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-6 * exact.abs().max())


@each_model
def test_drift_is_minus_mobility_and_circulation_times_the_gradient(model):
    module, x = filled_module(model), inputs(model)
    with torch.no_grad():
        mobility, circulation = module.mobility(x), module.circulation(x)
        expected = -((mobility + circulation) @ module.gradient(x)[..., None])[..., 0]
        np.testing.assert_allclose(module.drift(x), expected, rtol=1e-12)
        np.testing.assert_allclose(mobility, mobility.transpose(1, 2), rtol=1e-12)
        assert (torch.linalg.eigvalsh(mobility) > 0).all()
        np.testing.assert_allclose(circulation, -circulation.transpose(1, 2), rtol=0, atol=1e-12)
        assert circulation.abs().min(dim=0).values[0, 1] > 0  # it is there


@each_model
def test_potential_never_rises_without_noise(model):
    module, x, step = filled_module(model), inputs(model), 1e-5
    with torch.no_grad():
        along = (module.gradient(x) * module.drift(x)).sum(dim=1)
        mobility = module.mobility(x)
        gradient = module.gradient(x)[..., None]
        moved = x.clone()
        moved[:, :2] += step * module.drift(x)
        assert (module.potential(moved) <= module.potential(x)).all()
    falls = -(gradient.transpose(1, 2) @ mobility @ gradient)[:, 0, 0]
    np.testing.assert_allclose(along, falls, rtol=1e-9, atol=1e-9)  # W does no work
    assert (along < 0).all()


def test_a_force_does_work():
    """Planted against the test above: with f the potential can rise."""
    model = OnsagerNetSDE(2, forcing=True)
    module, x = filled_module(model), inputs(model)
    with torch.no_grad():
        assert ((module.gradient(x) * module.drift(x)).sum(dim=1) > 0).any()


@each_model
def test_starts_at_the_linear_sde(model):
    """Before any step of training drift and diffusion are those of maximum likelihood, at every
    value of the parameter its own, in between interpolated."""
    moments = family(8000, with_parameters=model.parameters > 0).moments()
    estimates = LinearEstimate.along_parameter(moments, 4.0)
    assert len(estimates) == 1 + model.parameters
    module, x = model.build(estimates, torch.Generator().manual_seed(0)), inputs(model)
    for estimate in estimates:
        assert (np.linalg.eigvals(estimate.slope).real < 0).all()
        x[:, 2:] = estimate.parameter
        with torch.no_grad():
            linear = x[:, :2].numpy() @ estimate.slope.T + estimate.bias
            # the floor of the diagonals adds a thousandth to L, and to the root of M
            np.testing.assert_allclose(module.drift(x), linear, atol=3e-3 * np.abs(linear).max())
            roots = np.broadcast_to(estimate.cholesky, (len(x), 2, 2))
            np.testing.assert_allclose(module.cholesky(x), roots, rtol=2e-3, atol=1e-12)
    if model.parameters:
        one, two = estimates
        x[:, 2] = 0.25 * one.parameter + 0.75 * two.parameter
        between = 0.25 * one.cholesky + 0.75 * two.cholesky
        with torch.no_grad():
            np.testing.assert_allclose(module.cholesky(x)[0], between, rtol=2e-3, atol=1e-12)


def test_each_value_of_the_parameter_has_a_box_of_its_own():
    """Latents that were seen only at another value are outside: networks stand still there."""
    generator = torch.Generator().manual_seed(3)
    rng = np.random.default_rng(0)
    parameters = np.repeat([-1.0, 1.0], 300)
    z = rng.uniform(-1, 1, size=(600, 2)) * np.where(parameters < 0, 0.2, 1.0)[:, None]
    data = IncrementMoments(
        latents=z, means=-z, scatters=np.tile(np.eye(2), (600, 1, 1)), durations=np.ones(600),
        counts=np.ones(600), n_patches=1, scatter_is_noise=True, parameters=parameters[:, None],
    )  # fmt: skip
    module = OnsagerNetSDE(2, parameters=1).build(
        LinearEstimate.along_parameter(data, 1.0), generator
    )
    module.diffusion_network[-1].weight.data.normal_(0, 0.5, generator=generator)
    with torch.no_grad():
        for parameter, changes in ((-1.0, False), (1.0, True)):
            pair = torch.tensor([[0.3, 0.3, parameter], [0.9, 0.9, parameter]]).double()
            one, other = module.cholesky(pair)
            assert bool((one - other).abs().max() > 1e-6) == changes


def test_drift_and_diffusion_keep_their_own_best_states(monkeypatch):
    """Of twins: each is judged by its part of the held-out likelihood."""
    rng = np.random.default_rng(8)
    z = rng.normal(size=(240, 2))
    data = IncrementMoments(
        latents=z, means=true_drift(z, 0.0) * 0.05 + 0.02 * rng.normal(size=(240, 2)),
        scatters=np.stack([np.cov(rng.normal(size=(2, 4))) for _ in z]) * 0.05,
        durations=np.full(240, 0.05), counts=np.ones(240), n_patches=1, scatter_is_noise=True,
        groups=np.arange(240) // 10,
    )  # fmt: skip
    seen, states = [], []

    def check(parts, module, number, loss_of_all):
        seen.append([float(part.loss().detach()) for part in parts])
        states.append({name: value.clone() for name, value in module.state_dict().items()})
        original(parts, module, number, loss_of_all)
        kept[:] = parts

    original, kept = fitting._check, []
    monkeypatch.setattr(fitting, "_check", check)
    settings = TrainingSettings(steps=600, batch=64, learning_rate=1e-2, check_every=20)
    found = fit_sde(data, OnsagerNetSDE(2), rng=np.random.default_rng(2), settings=settings)
    drift, diffusion = np.array(seen).T
    assert drift.argmin() > 3 * max(diffusion.argmin(), 1)  # one best state would lose much of this
    assert [part.best_loss for part in kept] == [drift.min(), diffusion.min()]
    names = [set(part.best_state) for part in kept]
    assert names[1] == {name for name in names[1] if name.startswith("diffusion_network.")}
    assert names[1] and not names[0] & names[1]
    for name, value in found.module.state_dict().items():
        best = states[(diffusion if name in names[1] else drift).argmin()]
        assert torch.equal(value.to(best[name].dtype), best[name]), name


def test_starts_stable_where_the_linear_drift_is_not():
    z = np.random.default_rng(0).uniform(-1, 1, size=(400, 2))
    data = IncrementMoments(
        latents=z, means=z * (2.0, -1.0), scatters=np.tile(np.eye(2), (400, 1, 1)),
        durations=np.ones(400), counts=np.ones(400), n_patches=1, scatter_is_noise=True,
    )  # fmt: skip
    module = OnsagerNetSDE(2).build(
        [LinearEstimate.of(data, 1.0)], torch.Generator().manual_seed(0)
    )
    far = torch.tensor([[9.0, 0.0], [0.0, 9.0], [-9.0, -9.0]], dtype=torch.float64)
    with torch.no_grad():
        assert ((module.drift(far) * far).sum(dim=1) < 0).all()


# Recovery


@pytest.fixture(scope="module")
def fitted():
    model = OnsagerNetSDE(2, parameters=1)
    return fit_sde(family(12000), model, rng=np.random.default_rng(1), settings=SETTINGS)


def test_family_is_recovered_at_each_parameter(fitted):
    z = np.random.default_rng(5).normal(0, 0.8, size=(400, 2))
    for parameter in (-0.8, 0.0, 0.8):
        found = fitted.at([parameter]).drift(z)
        assert relative_error(found, true_drift(z, parameter)) < 0.25
        assert relative_error(found, true_drift(z, parameter - 1.5)) > 0.25  # planted
        covariance = fitted.at([parameter]).covariance(z).mean(axis=0)
        np.testing.assert_allclose(covariance, ROOT @ ROOT.T, atol=0.04)


def test_sde_without_parameters_is_recovered():
    pairs = family(with_parameters=False)
    found = fit_sde(pairs, OnsagerNetSDE(2), rng=np.random.default_rng(2), settings=SETTINGS)
    linear = fit_sde(pairs, LinearSDE(2), rng=np.random.default_rng(2))
    z = np.random.default_rng(5).normal(0, 0.8, size=(400, 2))
    assert relative_error(found.drift(z), true_drift(z, 0.0)) < 0.15
    assert relative_error(linear.drift(z), true_drift(z, 0.0)) > 0.15  # planted: no curvature
    # V falls along the true drift's way to its centre
    line = np.linspace(1.0, 0.1, 8)[:, None] * np.array([[1.0, 1.0]])
    assert (np.diff(found.potential(line)) < 0).all()


def test_rollout_at_a_parameter_settles_where_that_has_its_centre(fitted):
    paths = rollout(
        fitted.at([0.6]), start=np.zeros((400, 2)), times=np.array([8.0]),
        rng=np.random.default_rng(0),
    )  # fmt: skip
    np.testing.assert_allclose(paths[:, 0].mean(axis=0), [np.sin(1.2), 0.3], atol=0.1)


# Parameters


def test_parameters_have_to_be_fixed_and_in_range(fitted):
    z = np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"parameters = None: fix them first, with at"):
        fitted.drift(z)
    for wrong in ([], [0.1, 0.2], [np.nan]):
        with pytest.raises(ValueError, match=r"parameters = .*: must be 1 finite numbers"):
            fitted.at(wrong)
    with pytest.warns(UserWarning, match=r"\[1\.5\] lie outside the training range, \[-"):
        fitted.at([1.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.at([0.5])
    with pytest.raises(ValueError, match="model parameters = 0: the pairs have 1"):
        fit_sde(family(100), OnsagerNetSDE(2), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="parameters = -1: must be 0 or 1"):
        OnsagerNetSDE(2, parameters=-1)
    with pytest.raises(ValueError, match="only an OnsagerNetSDE has a potential"):
        pairs = family(100, with_parameters=False)
        fit_sde(pairs, LinearSDE(2), rng=np.random.default_rng(0)).potential(z)


def test_checkpoint_gives_the_same_bits(fitted, tmp_path):
    z = np.random.default_rng(3).normal(size=(50, 2))
    fitted.at([0.3]).save(tmp_path / "fixed.pt")
    fitted.save(tmp_path / "free.pt")
    for loaded in (
        FittedSDE.load(tmp_path / "fixed.pt"),
        FittedSDE.load(tmp_path / "free.pt").at([0.3]),
    ):
        for name in ("drift", "covariance", "potential"):
            ours, theirs = getattr(fitted.at([0.3]), name)(z), getattr(loaded, name)(z)
            np.testing.assert_array_equal(ours, theirs)
    content = torch.load(tmp_path / "free.pt", weights_only=True)
    content["description"] = content["description"].replace('"parameters": 1', '"parameters": 0')
    torch.save(content, tmp_path / "damaged.pt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        FittedSDE.load(tmp_path / "damaged.pt")


def test_same_seed_gives_the_same_bits():
    settings = TrainingSettings(steps=20, batch=128)
    model, z = OnsagerNetSDE(2, parameters=1), np.ones((3, 2))
    one, two = (
        fit_sde(family(400), model, rng=np.random.default_rng(4), settings=settings)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.at([0.1]).drift(z), two.at([0.1]).drift(z))
    members = fit_ensemble(
        family(400), model, members=2, rng=np.random.default_rng(4), settings=settings
    )
    assert (members[0].at([0.1]).drift(z) != members[1].at([0.1]).drift(z)).all()


def test_parameters_stay_with_their_pairs():
    """Selected, merged and concatenated."""
    pairs = family(60)
    np.testing.assert_array_equal(pairs.select(np.arange(5, 9)).parameters, pairs.parameters[5:9])
    merged = pairs.moments()
    order = np.lexsort(merged.latents.T), np.lexsort(pairs.latents.T)
    np.testing.assert_array_equal(merged.parameters[order[0]], pairs.parameters[order[1]])
    other = family(30, with_parameters=True, seed=1).moments()
    both = IncrementMoments.concatenate([merged, other])
    np.testing.assert_array_equal(both.parameters, np.vstack([merged.parameters, other.parameters]))
    np.testing.assert_array_equal(both.groups, np.concatenate([merged.groups, other.groups]))
    with pytest.raises(ValueError, match="must be the same for all"):
        IncrementMoments.concatenate([merged, family(30, n_patches=2).moments()])
    with pytest.raises(ValueError, match=r"parameters has shape \(2, 1\): must be \(60, p\)"):
        LatentPairs(
            latents=pairs.latents, increments=pairs.increments, durations=pairs.durations,
            n_patches=4, parameters=np.zeros((2, 1)),
        )  # fmt: skip
