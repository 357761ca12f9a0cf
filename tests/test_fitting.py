"""Fits: the closed form, the K-scaling identity, training, and checkpoints.

The K-scaling identity is the claim of the paper (Eq. 7, App. C): fitted with noise scale K, the
increments of patches give drift and diffusion of the whole.
"""

import dataclasses
import json
import math
import pickle

import numpy as np
import oracles
import pytest
import torch
from scipy.optimize import minimize

from macrodyn_lib.errors import CheckpointError, DivergedError
from macrodyn_lib.fitting import FORMAT, FittedSDE, TrainingSettings, fit_ensemble, fit_sde
from macrodyn_lib.likelihood import negative_log_likelihood
from macrodyn_lib.records import IncrementMoments, LatentPairs
from macrodyn_lib.sde import MLPSDE, LinearSDE

K = 8
QUICK = TrainingSettings(steps=60, batch=200, learning_rate=1e-2, check_every=20)


def known_pairs(drift, root, *, latents, duration=0.5, noise_scale=K, seed=0):
    """Patch increments of a known SDE: mean mu dt, covariance K Sigma dt; 20 groups per 1000."""
    rng = np.random.default_rng(seed)
    count, d = latents.shape
    kicks = (root(latents) @ rng.standard_normal((count, d, 1)))[..., 0]
    return LatentPairs(
        latents=latents,
        increments=drift(latents) * duration + np.sqrt(noise_scale * duration) * kicks,
        durations=np.full(count, duration),
        n_patches=K,
        groups=np.arange(count) * 20 // 1000,
    )


SLOPE = np.array([[-1.0, 0.4], [-0.3, -0.6]])
BIAS = np.array([0.5, -0.2])
ROOT = np.array([[0.8, 0.0], [0.3, 0.5]])


def linear_pairs(count, seed=0, **options):
    latents = np.random.default_rng(100 + seed).normal(1, 2, size=(count, 2))
    return known_pairs(
        lambda z: z @ SLOPE.T + BIAS,
        lambda z: np.broadcast_to(ROOT, (len(z), 2, 2)),
        latents=latents,
        seed=seed,
        **options,
    )


def parallel_pairs():
    """The second increment follows from the first."""
    pairs = linear_pairs(50)
    return dataclasses.replace(pairs, increments=pairs.increments[:, :1] * [1, 0.5])


def nonlinear_drift(z):
    return np.stack([z[:, 0] - z[:, 0] ** 3 + z[:, 1] / 2, -z[:, 0] / 2 - z[:, 1]], axis=1)


def correlated_root(z):
    root = np.zeros((len(z), 2, 2))
    root[:, 0, 0] = 0.5 + 0.2 * np.tanh(z[:, 1])
    root[:, 1, 0] = 0.3 * z[:, 0]
    root[:, 1, 1] = 0.6
    return root


def nonlinear_pairs(distinct, repeats, seed=0):
    """Each latent with many increments, which the fit merges."""
    latents = np.random.default_rng(100 + seed).uniform(-1.5, 1.5, size=(distinct, 2))
    return known_pairs(
        nonlinear_drift, correlated_root, latents=np.repeat(latents, repeats, axis=0), seed=seed
    )


def direct_minimum(pairs, noise_scale):
    """Slope, bias and covariance that minimise the mean loss, by a general optimiser."""
    z, dt, d = pairs.latents, pairs.durations[:, None], pairs.dimension
    lower = np.tril_indices(d)

    def unpack(values):
        root = np.zeros((d, d))
        root[lower] = values[d * d + d :]
        return values[: d * d].reshape(d, d), values[d * d : d * d + d], root @ root.T

    def loss(values):
        slope, bias, sigma = unpack(values)
        residual = pairs.increments - (z @ slope.T + bias) * dt
        squares = (residual * np.linalg.solve(sigma, residual.T).T).sum(axis=1)
        return np.mean(squares / (noise_scale * dt[:, 0])) + np.linalg.slogdet(sigma)[1]

    start = np.concatenate([np.zeros(d * d + d), np.eye(d)[lower]])
    return unpack(minimize(loss, start, options={"gtol": 1e-9}).x)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("repeats", [1, 3])
def test_linear_fit_equals_direct_minimiser(d, repeats):
    rng = np.random.default_rng(d)
    pairs = LatentPairs(
        latents=np.repeat(rng.normal(2, 3, size=(20, d)), repeats, axis=0),
        increments=rng.normal(size=(20 * repeats, d)),
        durations=np.repeat(rng.uniform(0.2, 2, 20), repeats),
        n_patches=K,
    )
    slope, bias, sigma = direct_minimum(pairs, K)
    fitted = fit_sde(pairs, LinearSDE(d), rng=rng)
    root = fitted.linear_coefficients()[2]
    # the optimiser stops where the loss is flat to rounding: sqrt(eps), 1e-8 of each number
    np.testing.assert_allclose(fitted.linear_coefficients()[0], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted.linear_coefficients()[1], bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(root @ root.T, sigma, rtol=1e-5, atol=1e-6)
    assert fitted.noise_scale == K and np.triu(root, 1).max(initial=0) == 0


@pytest.mark.parametrize("noise_scale", [1.0, 2.0, 32.0])
def test_wrong_noise_scale_scales_covariance_by_k_over_lambda(noise_scale):
    pairs, z = linear_pairs(300), np.ones((1, 2))
    right, wrong = (
        fit_sde(pairs, LinearSDE(2), noise_scale=scale, rng=np.random.default_rng(0))
        for scale in (None, noise_scale)
    )
    np.testing.assert_allclose(wrong.drift(z), right.drift(z), rtol=1e-12)
    expected = K / noise_scale * right.covariance(z)
    np.testing.assert_allclose(wrong.covariance(z), expected, rtol=1e-12)


def z_scores(fits, probes, drift, covariance):
    """Distance of the ensemble's mean drift and covariance from the truth, in standard errors."""
    rows, columns = np.tril_indices(probes.shape[1])
    drifts = np.stack([fitted.drift(probes) for fitted in fits])
    covariances = np.stack([fitted.covariance(probes) for fitted in fits])

    def score(members, truth):
        error = members.std(axis=0, ddof=1) / np.sqrt(len(members))
        return np.abs((members.mean(axis=0) - truth) / error)

    return score(drifts, drift), score(covariances, covariance)[:, rows, columns]


def linear_z_scores(pairs, **options):
    fits = fit_ensemble(pairs, LinearSDE(2), members=32, rng=np.random.default_rng(1), **options)
    probes = np.array([[0.0, 0.0], [3.0, -1.0]])
    drifts, covariances = z_scores(fits, probes, probes @ SLOPE.T + BIAS, ROOT @ ROOT.T)
    return drifts, covariances[:1]  # Sigma is the same everywhere


def test_linear_fit_of_patch_increments_recovers_drift_and_diffusion_of_the_whole():
    # 7 scores of 31 degrees of freedom within 3 standard errors: false alarm 4 %, the seed is fixed
    drifts, covariances = linear_z_scores(linear_pairs(32_000))
    assert drifts.max() < 3 and covariances.max() < 3


def test_linear_recovery_fails_with_planted_errors():
    pairs = linear_pairs(32_000)
    assert linear_z_scores(pairs, noise_scale=1.0)[1].min() > 30  # K lost in the fit
    assert linear_z_scores(linear_pairs(32_000, noise_scale=1))[1].min() > 30  # and in the data
    doubled = dataclasses.replace(pairs, durations=2 * pairs.durations)
    drifts, covariances = linear_z_scores(doubled)
    assert drifts.max() > 10 and covariances.min() > 10


PROBES = np.array([[0.8, 0.4], [-0.5, -0.8]])
MLP = MLPSDE(2, hidden=(16, 16))


# (16, 16) is too small for this drift: over data seeds 0 to 3 its bias is 1.5 standard errors, that
# of (32, 32) is 0.3
WIDE = MLPSDE(2, hidden=(32, 32))


def nonlinear_z_scores(pairs, model=WIDE, **options):
    settings = TrainingSettings(steps=500, batch=4096, learning_rate=2e-2, patience=20)
    fits = fit_ensemble(
        pairs, model, members=8, rng=np.random.default_rng(1), settings=settings, **options
    )
    root = correlated_root(PROBES)
    return z_scores(fits, PROBES, nonlinear_drift(PROBES), root @ root.transpose(0, 2, 1))


def test_mlp_fit_of_patch_increments_recovers_drift_and_diffusion_of_the_whole():
    # 10 scores of 7 degrees of freedom within 3 standard errors: false alarm 18 %, fixed seed
    pairs = nonlinear_pairs(4000, 100)
    drifts, covariances = nonlinear_z_scores(pairs)
    assert drifts.max() < 3 and covariances.max() < 3
    # planted: the factor K lost, and a drift without its nonlinearity
    assert nonlinear_z_scores(pairs, noise_scale=1.0)[1].min() > 10
    linear_drifts, linear_covariances = nonlinear_z_scores(pairs, model=LinearSDE(2))
    assert linear_drifts.max() > 10 and linear_covariances.max() > 10


def state_of(fitted):
    return torch.cat([value.flatten().double() for value in fitted.module.state_dict().values()])


@pytest.mark.parametrize("model", [LinearSDE(2), MLP], ids=["linear", "mlp"])
def test_same_seed_gives_same_bits(model):
    pairs = linear_pairs(1000)
    first, second = (
        fit_sde(pairs, model, rng=np.random.default_rng(3), settings=QUICK) for _ in range(2)
    )
    torch.manual_seed(99)  # the global generator is not used
    third = fit_sde(pairs, model, rng=np.random.default_rng(3), settings=QUICK)
    for other in (second, third):
        assert torch.equal(state_of(first), state_of(other))
        np.testing.assert_array_equal(first.validation_losses, other.validation_losses)


def test_other_seed_gives_other_network():
    pairs = linear_pairs(1000)
    first, second = (
        fit_sde(pairs, MLP, rng=np.random.default_rng(seed), settings=QUICK) for seed in (3, 4)
    )
    assert not torch.equal(state_of(first), state_of(second))


def test_ensemble_members_see_disjoint_shares_and_repeat_with_the_seed():
    pairs = linear_pairs(1000)
    fits, again = (
        fit_ensemble(pairs, LinearSDE(2), members=4, rng=np.random.default_rng(3)) for _ in range(2)
    )
    states = [tuple(state_of(fitted).tolist()) for fitted in fits]
    assert len(set(states)) == 4
    assert states == [tuple(state_of(fitted).tolist()) for fitted in again]


def test_early_stopping_keeps_the_best_checked_state():
    # every group holds the same pairs, so the loss on any held-out group is that on one of them
    base = linear_pairs(50)
    pairs = LatentPairs(
        latents=np.tile(base.latents, (10, 1)),
        increments=np.tile(base.increments, (10, 1)),
        durations=np.tile(base.durations, 10),
        n_patches=K,
        groups=np.repeat(np.arange(10), 50),
    )
    settings = TrainingSettings(steps=4000, learning_rate=0.3, check_every=3, patience=8)
    fitted = fit_sde(pairs, MLP, rng=np.random.default_rng(5), settings=settings)
    steps, losses = fitted.validation_losses.T
    arrays = (base.increments, base.durations, fitted.drift(base.latents))
    kept = negative_log_likelihood(
        *(torch.from_numpy(np.array(array)) for array in arrays),
        torch.from_numpy(fitted.diffusion(base.latents)),
        noise_scale=K,
    ).mean()
    # in normalised coordinates log det C is smaller by 2 sum log scale
    kept -= 2 * np.log(fitted.normalisation.scale).sum()
    # trained in single precision: 50 terms of order 1 to 10, each rounded at 6e-8 of itself
    assert kept.item() == pytest.approx(losses.min(), abs=1e-5)
    assert losses[-1] > losses.min()  # the last state was not the best
    best = losses[:-1].argmin()
    assert len(losses) - 1 == best + settings.patience + 1
    assert steps[-1] < settings.steps - 1


def test_fit_raises_when_the_loss_is_not_finite():
    settings = TrainingSettings(steps=50, learning_rate=1e30, check_every=1)
    with pytest.raises(DivergedError, match="training loss became non-finite at step") as caught:
        fit_sde(linear_pairs(200), MLP, rng=np.random.default_rng(0), settings=settings)
    assert caught.value.step > 0 and np.isfinite(caught.value.state).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": LinearSDE(3)}, "model dimension = 3: the pairs have 2"),
        ({"noise_scale": 0.0}, "noise_scale = 0.0: must be finite and > 0"),
        ({"noise_scale": np.inf}, "noise_scale = inf"),
        ({"noise_scale": np.nan}, "noise_scale = nan"),
        ({"pairs": linear_pairs(3)}, "3 increments: a fit in 2 dimensions needs at least 4"),
        ({"pairs": linear_pairs(50, noise_scale=0)}, "no noise in some direction"),
        ({"pairs": parallel_pairs()}, "no noise in some direction"),
    ],
)
def test_fit_raises_for_wrong_argument(options, message):
    arguments = {"pairs": linear_pairs(50), "model": LinearSDE(2)} | options
    with pytest.raises(ValueError, match=message):
        fit_sde(**arguments, rng=np.random.default_rng(0))


def test_fit_ensemble_raises_for_more_members_than_groups():
    with pytest.raises(ValueError, match="count = 3: must be 1 to 2, the number of groups"):
        fit_ensemble(linear_pairs(100), LinearSDE(2), members=3, rng=np.random.default_rng(0))


def test_linear_coefficients_raise_for_networks():
    fitted = fit_sde(linear_pairs(100), MLP, rng=np.random.default_rng(0), settings=QUICK)
    with pytest.raises(ValueError, match="only a LinearSDE has linear coefficients"):
        fitted.linear_coefficients()


@pytest.mark.parametrize("shape", [(2,), (4, 3)])
def test_drift_raises_for_wrong_shape(shape):
    fitted = fit_sde(linear_pairs(100), LinearSDE(2), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"latents has shape .*: must be \(N, 2\)"):
        fitted.drift(np.zeros(shape))


@pytest.fixture(params=[LinearSDE(2), MLP], ids=["linear", "mlp"])
def checkpoint(request, tmp_path):
    """A fitted SDE and the file it was saved in."""
    rng = np.random.default_rng(0)
    fitted = fit_sde(linear_pairs(200), request.param, rng=rng, settings=QUICK)
    fitted.save(tmp_path / "model.pt")
    return fitted, tmp_path / "model.pt"


def test_checkpoint_round_trip_gives_same_bits(checkpoint):
    fitted, path = checkpoint
    loaded, z = FittedSDE.load(path), np.random.default_rng(1).normal(size=(9, 2))
    assert torch.equal(state_of(loaded), state_of(fitted))
    # the library may multiply arrays of another memory layout in another order
    np.testing.assert_allclose(loaded.drift(z), fitted.drift(z), rtol=0, atol=1e-13)
    np.testing.assert_allclose(loaded.diffusion(z), fitted.diffusion(z), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(loaded.validation_losses, fitted.validation_losses)
    assert (loaded.model, loaded.noise_scale) == (fitted.model, K)
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


def assert_refused(path, message="not a"):
    with pytest.raises(CheckpointError, match=message) as caught:
        FittedSDE.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.95, 0.999])
def test_load_raises_for_truncated_file(checkpoint, share):
    _, path = checkpoint
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path)


class Intruder:
    """Creates a file when unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def dump(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [torch.save, dump], ids=["torch", "pickle"])
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"format": FORMAT, "state": it}],
                         ids=["bare", "in a checkpoint"])  # fmt: skip
def test_load_never_runs_code_of_the_file(tmp_path, write, wrap):
    path, target = tmp_path / "model.pt", tmp_path / "created"
    write(wrap(Intruder(target)), path)
    assert_refused(path)
    assert not target.exists()


def changed(**entries):
    return lambda content: content | entries


def without_tensor(content):
    state = dict(content["state"])
    del state[next(iter(state))]
    return content | {"state": state}


def reshaped_tensor(content):
    first = next(iter(content["state"]))
    return content | {"state": content["state"] | {first: torch.zeros(5, 5, 5)}}


def described(**entries):
    def change(content):
        description = json.loads(content["description"]) | entries
        return content | {"description": json.dumps(description)}

    return change


DAMAGE = {
    "format version": (changed(format="macrodyn.sde.0"), f"not a checkpoint of format {FORMAT}"),
    "no dictionary": (lambda content: [content], f"not a checkpoint of format {FORMAT}"),
    "missing tensor": (without_tensor, "not a readable checkpoint .*Missing key|Error"),
    "tensor shape": (reshaped_tensor, "not a readable checkpoint"),
    "no state": (lambda content: {"format": FORMAT}, "not a readable checkpoint"),
    "description": (changed(description="{"), "not a readable checkpoint"),
    "description type": (changed(description=3), "not a readable checkpoint"),
    "unknown model": (described(model="Oracle"), "not a readable checkpoint .*Oracle"),
    "unknown setting": (described(settings={"depth": 3}), "not a readable checkpoint .*depth"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_load_raises_for_damaged_content(checkpoint, damage, message):
    _, path = checkpoint
    torch.save(damage(torch.load(path, weights_only=True)), path)
    assert_refused(path, message)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint\n", bytes(range(256)) * 8])
def test_load_raises_for_other_files(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    assert_refused(path)


def test_failed_save_leaves_the_old_file_alone(checkpoint, monkeypatch):
    fitted, path = checkpoint
    before = path.read_bytes()

    def fail_half_way(content, file):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="no space left"):
        fitted.save(path)
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]
    assert path.read_bytes() == before


def test_save_where_no_file_can_be_leaves_nothing(checkpoint):
    fitted, path = checkpoint
    folder = path.parent / "folder"
    folder.mkdir()
    with pytest.raises(OSError):
        fitted.save(folder)  # a folder cannot be replaced by a file
    assert sorted(file.name for file in path.parent.iterdir()) == ["folder", "model.pt"]


@pytest.mark.parametrize(
    "setting",
    [{"steps": 0}, {"batch": 0}, {"check_every": 0}, {"patience": 1.5}, {"learning_rate": 0},
     {"validation_fraction": 1.0}],
    ids=str,
)  # fmt: skip
def test_training_settings_raise_with_name_and_value(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"{name} = {value}: must"):
        TrainingSettings(**setting)


def test_network_goes_on_with_the_linear_slope_outside_the_training_box():
    pairs = linear_pairs(400)
    fitted = fit_sde(pairs, MLP, rng=np.random.default_rng(0), settings=QUICK)
    corner = pairs.latents.max(axis=0, keepdims=True) + 1
    step, scale = np.array([[3.0, 5.0]]), fitted.normalisation.scale
    slope = fitted.module.linear.slope.numpy()
    assert (np.linalg.eigvals(slope).real < 0).all()
    moved = fitted.drift(corner + step) - fitted.drift(corner)
    np.testing.assert_allclose(moved, step / scale @ slope.T * scale, rtol=1e-6)
    np.testing.assert_allclose(fitted.covariance(corner + step), fitted.covariance(corner))


# Increments as a simulator that knows its rates hands them over: no noise of sampling at all


def rates_of(drift, root, latents):
    roots = root(latents)
    return IncrementMoments(
        latents=latents,
        means=drift(latents),
        scatters=roots @ roots.transpose(0, 2, 1),
        durations=np.ones(len(latents)),
        counts=np.ones(len(latents)),
        n_patches=1,
        scatter_is_noise=True,
        groups=np.arange(len(latents)) // 50,
    )


def ornstein_uhlenbeck_rates(count=2000):
    return rates_of(
        lambda z: z @ SLOPE.T + BIAS,
        lambda z: np.broadcast_to(ROOT, (len(z), 2, 2)),
        np.random.default_rng(7).normal(1, 2, size=(count, 2)),
    )


def test_linear_fit_of_rates_is_exact():
    fitted = fit_sde(ornstein_uhlenbeck_rates(), LinearSDE(2), rng=np.random.default_rng(0))
    slope, bias, root = fitted.linear_coefficients()
    for value, exact in ((slope, SLOPE), (bias, BIAS), (root, ROOT)):
        np.testing.assert_allclose(value, exact, rtol=0, atol=1e-12)
    assert fitted.noise_scale == 1


def largest_errors(fitted, latents, drift, root):
    """Of drift and covariance at the data, in units of their spread (or mean, if larger)."""
    roots = root(latents)
    truth = drift(latents), roots @ roots.transpose(0, 2, 1)
    learned = fitted.drift(latents), fitted.covariance(latents)
    return [
        np.abs(a - b).max() / np.sqrt(np.square(b).mean())
        for a, b in zip(learned, truth, strict=True)
    ]


def test_network_fit_of_linear_rates_stays_at_the_truth():
    """It starts there, and what it learns must not lead away: 1 % of the root mean square."""
    data, settings = ornstein_uhlenbeck_rates(), TrainingSettings(steps=200, check_every=20)
    fitted = fit_sde(data, MLP, rng=np.random.default_rng(0), settings=settings)
    errors = largest_errors(
        fitted,
        data.latents,
        lambda z: z @ SLOPE.T + BIAS,
        lambda z: np.broadcast_to(ROOT, (len(z), 2, 2)),
    )
    assert max(errors) < 0.01


def test_network_fit_of_nonlinear_rates_is_exact_to_15_percent_everywhere():
    """4000 states without noise; the largest error of all is at a corner of the box."""
    latents = np.random.default_rng(7).uniform(-1.5, 1.5, size=(4000, 2))
    data = rates_of(nonlinear_drift, correlated_root, latents)
    settings = TrainingSettings(steps=600, batch=1000, learning_rate=2e-2, check_every=100)
    network, linear = (
        fit_sde(data, model, rng=np.random.default_rng(0), settings=settings)
        for model in (WIDE, LinearSDE(2))
    )
    assert max(largest_errors(network, latents, nonlinear_drift, correlated_root)) < 0.15
    assert min(largest_errors(linear, latents, nonlinear_drift, correlated_root)) > 0.5


def test_members_in_processes_have_the_bits_of_members_one_after_the_other(monkeypatch):
    data, states = ornstein_uhlenbeck_rates(400), []
    for threads in ("1", "2"):
        monkeypatch.setenv("MACRODYN_THREADS", threads)
        members = fit_ensemble(data, MLP, members=3, rng=np.random.default_rng(4), settings=QUICK)
        states.append([state_of(member) for member in members])
    for alone, in_process in zip(*states, strict=True):
        assert torch.equal(alone, in_process)
    assert not torch.equal(states[0][0], states[0][1])


def test_noise_factor_multiplies_the_diffusion_alone_and_is_stored(tmp_path):
    fitted = fit_sde(linear_pairs(100), LinearSDE(2), rng=np.random.default_rng(0))
    louder, z = dataclasses.replace(fitted, noise_factor=3.0), np.ones((1, 2))
    np.testing.assert_array_equal(louder.drift(z), fitted.drift(z))
    np.testing.assert_allclose(louder.covariance(z), 9 * fitted.covariance(z))
    louder.save(tmp_path / "model.pt")
    assert FittedSDE.load(tmp_path / "model.pt").noise_factor == 3


@pytest.mark.parametrize(("resolution", "right"), [(0.03, True), (2.5, False)])
def test_merging_in_fine_cells_fits_a_drift_that_is_a_small_part_of_the_loss(resolution, right):
    """dz = (z - z^3) dt + 0.3 dB, dt = 0.02: |z| < 4 in eight bins; planted: cells too wide."""
    rng = np.random.default_rng(3)
    z = rng.uniform(-1.6, 1.6, (100_000, 1))
    increments = (z - z**3) * 0.02 + 0.3 * math.sqrt(0.02) * rng.standard_normal(z.shape)
    pairs = LatentPairs(
        latents=z, increments=increments, durations=np.full(len(z), 0.02), n_patches=1
    )
    settings = TrainingSettings(
        steps=600, batch=1024, learning_rate=0.01, check_every=100, resolution=resolution
    )
    fit = fit_sde(pairs, MLPSDE(1), rng=np.random.default_rng(1), settings=settings)
    residual = increments - fit.drift(z) * 0.02
    bins = np.digitize(z[:, 0], np.linspace(-1.6, 1.6, 9)[1:-1])
    scores = [oracles.z_of_mean(residual[bins == b, 0], 0.0) for b in range(8)]
    assert (np.abs(scores).max() < 4) == right


def test_settings_raise_for_a_negative_resolution():
    with pytest.raises(ValueError, match="resolution = -1: must be >= 0"):
        TrainingSettings(resolution=-1)
