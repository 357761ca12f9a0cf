"""Learned closures: what they tell about a lattice, reproducibility, checkpoints, refusals."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from macrodyn_lib.autoencoder import (
    FORMAT,
    AutoencoderClosure,
    AutoencoderSettings,
    fit_autoencoder,
)
from macrodyn_lib.errors import CheckpointError, DivergedError
from macrodyn_lib.lattice import Patching
from macrodyn_lib.records import Snapshots

SIDE, PATCH = 16, 8
FLIPPED = 0.1
QUICK = AutoencoderSettings(dimension=2, epochs=1, channels=(4, 4), decoder_channels=(4,))


def stripes(count, seed=0, groups=20):
    """Spins in stripes of 4, across or along, shifted by 0, 2, 4 or 6; one in ten is flipped.

    The magnetisation is the same for all of them: only closures can tell one from another.
    """
    rng = np.random.default_rng(seed)
    position = (np.arange(SIDE) + 2 * rng.integers(4, size=(count, 1))) % 8
    rows = np.repeat(np.where(position < 4, 1, -1)[:, :, None], SIDE, axis=2)
    states = np.where(rng.random((count, 1, 1)) < 0.5, rows, rows.transpose(0, 2, 1))
    states = np.where(rng.random(states.shape) < FLIPPED, -states, states).astype(np.int8)
    return Snapshots(states=states, groups=np.arange(count) * groups // count)


def magnetisation(states):
    return states.mean(axis=(1, 2))[:, None]


def fit(snapshots, settings=QUICK, seed=0, patching=None, observables=None):
    return fit_autoencoder(
        snapshots,
        magnetisation(snapshots.states) if observables is None else observables,
        patching or Patching(side=PATCH),
        settings,
        rng=np.random.default_rng(seed),
    )


def closures_of(closure, states, side=PATCH):
    parts = Patching(side=side).split(states)
    values = closure(parts.reshape(-1, side, side))
    return values.reshape(len(states), parts.shape[1], closure.dimension).mean(axis=1)


def state_of(closure):
    return torch.cat([v.flatten().double() for v in closure.module.state_dict().values()])


def cross_entropy(states, up):
    return -np.log(np.where(states > 0, up, 1 - up)).mean()


@pytest.fixture(scope="module")
def trained():
    settings = AutoencoderSettings(dimension=2, epochs=8, learning_rate=1e-2)
    return fit(stripes(2000), settings)


@pytest.fixture(scope="module")
def quick():
    return fit(stripes(100))


def test_closures_tell_what_the_magnetisation_does_not(trained):
    states = stripes(500, seed=1).states
    observables = magnetisation(states)
    by_magnetisation = cross_entropy(states, (1 + observables[:, :, None]) / 2)
    by_closures = cross_entropy(states, trained.reconstruct(states, observables))
    floor = -FLIPPED * np.log(FLIPPED) - (1 - FLIPPED) * np.log(1 - FLIPPED)
    assert by_magnetisation == pytest.approx(np.log(2), abs=0.01)
    assert floor < by_closures < (floor + by_magnetisation) / 2
    assert trained.validation_losses[-1, 1] == pytest.approx(by_closures, abs=0.03)


def test_closures_have_mean_zero_variance_one_and_no_correlation(trained):
    values = closures_of(trained, stripes(2000).states)
    # the networks are in single precision
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(values.T, ddof=0), np.eye(2), atol=1e-5)


def test_order_of_patches_does_not_matter(trained):
    states = stripes(50, seed=2).states
    patching = Patching(side=PATCH)
    permuted = patching.assemble(patching.split(states)[:, [2, 0, 3, 1]], (SIDE, SIDE))
    assert not np.array_equal(permuted, states)
    np.testing.assert_allclose(
        closures_of(trained, permuted), closures_of(trained, states), atol=1e-5
    )
    np.testing.assert_allclose(
        trained.reconstruct(permuted, magnetisation(states)),
        trained.reconstruct(states, magnetisation(states)),
        atol=1e-5,
    )


def test_block_equals_that_of_the_paper(quick):
    """Convolution, normalisation, LeakyReLU, then the maximum."""
    convolution, pool, norm, activation = list(quick.module.encoder)[:4]
    assert isinstance(pool, nn.MaxPool2d) and (norm.weight > 0).all()
    patches = torch.randn(5, 1, PATCH, PATCH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pool(activation(norm(convolution(patches))))
        np.testing.assert_allclose(
            activation(norm(pool(convolution(patches)))), expected, rtol=0, atol=1e-6
        )


def test_shapes_and_types(quick):
    states = stripes(7).states
    values = quick(states[:, :PATCH, :PATCH])
    assert values.shape == (7, 2) and values.dtype == np.float64 and quick.dimension == 2
    up = quick.reconstruct(states, magnetisation(states))
    assert up.shape == states.shape and up.dtype == np.float64
    assert ((up >= 0) & (up <= 1)).all()
    assert quick(states[:0, :PATCH, :PATCH]).shape == (0, 2)
    assert quick.validation_losses.shape == (1, 2)


def test_number_of_patches_at_once_does_not_matter(quick, monkeypatch):
    patches = stripes(40).states[:, :PATCH, :PATCH]
    expected = quick(patches)
    monkeypatch.setattr("macrodyn_lib.autoencoder.SITES_AT_ONCE", 7 * PATCH**2)
    np.testing.assert_allclose(quick(patches), expected, atol=1e-5)


@pytest.mark.parametrize(("lattice", "patch"), [(48, 16), (12, 12), (40, 20), (56, 8), (4, 4)])
def test_lattices_of_many_sides(lattice, patch):
    states = np.random.default_rng(0).choice([-1, 1], size=(10, lattice, lattice))
    closure = fit(Snapshots(states=states), patching=Patching(side=patch))
    assert closure.reconstruct(states, magnetisation(states)).shape == states.shape
    assert closures_of(closure, states, patch).shape == (10, 2)


def test_real_fields_are_rebuilt_in_their_units():
    """A wave of patch period, of random direction and amplitude, about a large mean."""
    rng = np.random.default_rng(0)
    wave = 5 * np.sin(2 * np.pi * np.arange(SIDE) / PATCH)
    amplitude = rng.normal(size=(2000, 1, 1))
    states = 100 + amplitude * (wave[:, None] + np.zeros(SIDE))
    settings = AutoencoderSettings(dimension=1, epochs=6, learning_rate=1e-2)
    closure = fit(Snapshots(states=states.astype(np.float32)), settings)
    error = closure.reconstruct(states, magnetisation(states)) - states
    assert not closure.design.spins
    assert error.var() < 0.1 * states.var() and abs(error.mean()) < 0.1 * states.std()


def test_same_seed_gives_same_bits_and_leaves_torch_alone():
    before = torch.get_rng_state()
    first, second, other = (fit(stripes(100), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(state_of(first), state_of(second))
    assert not torch.equal(state_of(first), state_of(other))
    np.testing.assert_array_equal(first.validation_losses, second.validation_losses)


def test_training_stops_early_and_keeps_the_best_state(monkeypatch):
    """Of noise there is nothing to learn, so that validation soon gets worse."""
    # the moments of the latents stay those of the check
    monkeypatch.setattr("macrodyn_lib.autoencoder._Autoencoder.set_moments", lambda *_: None)
    states = np.random.default_rng(0).choice([-1, 1], size=(60, SIDE, SIDE)).astype(np.int8)
    settings = AutoencoderSettings(dimension=2, epochs=200, patience=3)
    closure = fit(Snapshots(states=states, groups=np.arange(60) // 30), settings)
    epochs, losses = closure.validation_losses.T
    assert epochs.tolist() == list(range(1, len(losses) + 1))
    assert 0 < losses.argmin() == len(losses) - 1 - settings.patience
    halves = [
        cross_entropy(half, closure.reconstruct(half, magnetisation(half)))
        for half in (states[:30], states[30:])
    ]
    # one of the two groups was held out
    assert max(halves) == pytest.approx(losses.min(), abs=1e-5)


def test_divergence_raises_with_the_last_good_state():
    settings = dataclasses.replace(QUICK, learning_rate=1e30)
    with pytest.raises(DivergedError, match="became non-finite at step") as caught:
        fit(stripes(200), settings)
    assert np.isfinite(caught.value.state).all() and len(caught.value.state) > 0


@pytest.mark.parametrize(
    "setting",
    [{"dimension": 0}, {"dimension": 1.5}, {"epochs": 0}, {"batch": 1}, {"patience": 0},
     {"learning_rate": 0}, {"learning_rate": np.inf}, {"validation_fraction": 1.0}],
    ids=str,
)  # fmt: skip
def test_settings_raise_with_name_and_value(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"{name} = {value}: must"):
        AutoencoderSettings(**{"dimension": 2} | setting)


@pytest.mark.parametrize("name", ["channels", "decoder_channels"])
@pytest.mark.parametrize("value", [(), (8, 0), (2.5,)])
def test_settings_raise_for_channels(name, value):
    with pytest.raises(ValueError, match=f"{name} = .*: must be one or more integers >= 1"):
        AutoencoderSettings(dimension=2, **{name: value})


def test_settings_take_whole_numbers_of_any_type():
    settings = AutoencoderSettings(dimension=np.int64(2), epochs=1.0, channels=[np.int64(4)])
    assert settings == AutoencoderSettings(dimension=2, epochs=1, channels=(4,))
    json.dumps(dataclasses.asdict(settings))


ONES = np.ones((20, 1))
BAD_INPUT = {
    "one-dimensional": ((20, 16), 8, ONES, r"lattices of shape \(16,\): must be square"),
    "oblong": ((20, 16, 32), 8, ONES, r"lattices of shape \(16, 32\): must be square"),
    "patch does not divide": ((20, 16, 16), 5, ONES, "patch side = 5: must divide"),
    "oblong patch": ((20, 16, 16), (8, 4), ONES, r"patch side = \(8, 4\): must be the same"),
    "odd patch": ((20, 15, 15), 5, ONES, "patch side = 5: must be even and >= 4"),
    "small patch": ((20, 16, 16), 2, ONES, "patch side = 2: must be even and >= 4"),
    "lattice": ((20, 44, 44), 44, ONES, "lattice side = 44: must be 3, 4, 5 or 7 times"),
    "rows": ((20, 16, 16), 8, ONES[:3], r"observables has shape \(3, 1\): must be \(20, d\*\)"),
    "axes": ((20, 16, 16), 8, ONES[:, 0], r"observables has shape \(20,\): must be"),
    "infinity": ((20, 16, 16), 8, ONES * np.inf, "observables has non-finite entries"),
    "too few": ((2, 16, 16), 8, ONES[:2], "validation_fraction = 0.1: leaves 1 of 2 snapshots"),
}


@pytest.mark.parametrize(("shape", "patch", "given", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_fit_raises_for_bad_input(shape, patch, given, message):
    snapshots = Snapshots(states=np.ones(shape, dtype=np.int8))
    with pytest.raises(ValueError, match=message):
        fit(snapshots, patching=Patching(side=patch), observables=given)


def test_closure_raises_for_other_shapes(quick):
    states = stripes(3).states
    with pytest.raises(ValueError, match=r"patches has shape .*: must be \(B, 8, 8\)"):
        quick(states)
    with pytest.raises(ValueError, match=r"states has shape .*: must be \(B, 16, 16\)"):
        quick.reconstruct(states[:, :8, :8], magnetisation(states))
    with pytest.raises(ValueError, match=r"observables has shape \(3, 2\): must be \(3, 1\)"):
        quick.reconstruct(states, np.ones((3, 2)))


@pytest.fixture
def checkpoint(quick, tmp_path):
    """A closure and the file it was saved in."""
    quick.save(tmp_path / "closure.pt")
    return quick, tmp_path / "closure.pt"


def test_checkpoint_round_trip_gives_same_bits(checkpoint):
    closure, path = checkpoint
    loaded, states = AutoencoderClosure.load(path), stripes(30, seed=5).states
    assert torch.equal(state_of(loaded), state_of(closure))
    assert loaded.design == closure.design
    np.testing.assert_array_equal(closures_of(loaded, states), closures_of(closure, states))
    np.testing.assert_array_equal(
        loaded.reconstruct(states, magnetisation(states)),
        closure.reconstruct(states, magnetisation(states)),
    )
    np.testing.assert_array_equal(loaded.validation_losses, closure.validation_losses)
    assert [file.name for file in path.parent.iterdir()] == ["closure.pt"]


def assert_refused(path, message="not a"):
    with pytest.raises(CheckpointError, match=message) as caught:
        AutoencoderClosure.load(path)
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


def test_load_never_runs_code_of_the_file(tmp_path):
    path, target = tmp_path / "closure.pt", tmp_path / "created"
    path.write_bytes(pickle.dumps({"format": FORMAT, "state": Intruder(target)}, protocol=2))
    assert_refused(path)
    torch.save({"format": FORMAT, "state": Intruder(target)}, path)
    assert_refused(path)
    assert not target.exists()


def designed(**entries):
    def change(content):
        description = json.loads(content["description"])
        design = description["design"] | entries
        return content | {"description": json.dumps(description | {"design": design})}

    return change


def without_tensor(content):
    state = dict(content["state"])
    del state["latent_mean"]
    return content | {"state": state}


DAMAGE = {
    "format version": (lambda content: content | {"format": "macrodyn.sde.1"}, "of format"),
    "no dictionary": (lambda content: [content], "of format"),
    "no state": (lambda content: {"format": FORMAT}, "not a readable checkpoint"),
    "missing tensor": (without_tensor, "not a readable checkpoint"),
    "description": (lambda content: content | {"description": "{"}, "not a readable checkpoint"),
    "other observables": (designed(observables=3), "not a readable checkpoint"),
    "other patch": (designed(patch_side=16), "not a readable checkpoint"),
    "other lattice": (designed(lattice_side=44), "not a readable checkpoint .*lattice side = 44"),
    "unknown entry": (designed(depth=3), "not a readable checkpoint .*depth"),
    "bad setting": (designed(settings={"dimension": 0}), "not a readable .*dimension = 0"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_load_raises_for_damaged_content(checkpoint, damage, message):
    _, path = checkpoint
    torch.save(damage(torch.load(path, weights_only=True)), path)
    assert_refused(path, message)


def test_failed_save_leaves_the_old_file_alone(checkpoint, monkeypatch):
    closure, path = checkpoint
    before = path.read_bytes()

    def fail_half_way(content, file):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="no space left"):
        closure.save(path)
    assert [file.name for file in path.parent.iterdir()] == ["closure.pt"]
    assert path.read_bytes() == before
