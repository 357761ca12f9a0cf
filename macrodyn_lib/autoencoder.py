"""Learned closures: an encoder of one patch, trained by a decoder that rebuilds the whole lattice.

The given observables phi* seldom close the dynamics by themselves. The autoencoder looks for d_hat
more numbers that say most about the microscopic state when phi* is known (paper Eq. 1, 2).
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from macrodyn_lib.checkpoints import open_checkpoint, write_checkpoint
from macrodyn_lib.errors import DivergedError
from macrodyn_lib.fitting import Normalisation
from macrodyn_lib.lattice import Patching, halvings
from macrodyn_lib.records import Snapshots

FORMAT = "macrodyn.autoencoder.1"
# what is evaluated at once: a few megabytes in each layer
SITES_AT_ONCE = 2**18


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderSettings:
    """The networks and their training.

    dimension: d_hat, number of closures.
    channels: of the encoder's blocks; each block halves the patch, and there are as many as leave
    2 x 2 sites (the paper: 32, 64, 128).
    decoder_channels: from coarse to fine; cut off, or the last one repeated, as the lattice demands
    (the paper: 128, 64, 32, 16).
    epochs: at most so many passes over the training snapshots; batch: snapshots a step;
    learning_rate: at the start, decaying to zero by a cosine; validation_fraction: of the
    trajectory groups; patience: stop when so many epochs in a row do not improve validation.
    """

    dimension: int
    channels: tuple[int, ...] = (8, 16, 32)
    decoder_channels: tuple[int, ...] = (32, 16, 8)
    epochs: int = 5
    batch: int = 64
    learning_rate: float = 5e-3
    validation_fraction: float = 0.1
    patience: int = 2

    def __post_init__(self) -> None:
        for name in ("channels", "decoder_channels"):
            value = tuple(getattr(self, name))
            if not value or any(count != int(count) or count < 1 for count in value):
                raise ValueError(f"{name} = {value}: must be one or more integers >= 1")
            object.__setattr__(self, name, tuple(int(count) for count in value))
        for name, least in (("dimension", 1), ("epochs", 1), ("batch", 2), ("patience", 1)):
            value = getattr(self, name)
            if value != int(value) or value < least:
                raise ValueError(f"{name} = {value}: must be an integer >= {least}")
            object.__setattr__(self, name, int(value))
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction = {self.validation_fraction}: must lie between 0 and 1"
            )
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate = {self.learning_rate}: must be finite and > 0")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """All that the networks' shapes follow from.

    patch_side, lattice_side: l and L, sites along an edge.  observables: d*, number of given ones.
    spins: states are +-1 (cross-entropy), or real fields (squared error).
    """

    settings: AutoencoderSettings
    patch_side: int
    lattice_side: int
    observables: int
    spins: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderClosure:
    """Closures phi_hat(x) = (1/K) sum_I f(x_I), with a trained encoder f of one patch.

    Over the snapshots of the training they have mean 0, variance 1 and are uncorrelated.

    design: its description.  module: the trained networks.
    validation_losses: (checks, 2), number of epochs done and loss at each check of the training.
    Source: paper Eq. 1, 2.
    """

    design: Design
    module: "_Autoencoder"
    validation_losses: np.ndarray

    @property
    def dimension(self) -> int:
        return self.design.settings.dimension

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """f(x_I): (B, l, l) -> (B, d_hat).  Raises: ValueError: patches of another shape."""
        _check_shape("patches", patches, self.design.patch_side)
        result = np.empty((len(patches), self.dimension))
        with torch.no_grad():
            for rows in _portions(len(patches), self.design.patch_side):
                result[rows] = self.module.encode(_single(patches[rows])).numpy()
        return result

    def reconstruct(self, states: np.ndarray, observables: np.ndarray) -> np.ndarray:
        """psi(phi*(x), phi_hat(x)): states (B, L, L), observables phi*(x) (B, d*) -> (B, L, L).

        What the latent state knows of x: for spins the probability to be up, else the field.
        Raises: ValueError: shapes disagree.
        """
        _check_shape("states", states, self.design.lattice_side)
        observables = _checked_observables(observables, len(states), self.design.observables)
        result = np.empty(states.shape)
        with torch.no_grad():
            for rows in _portions(len(states), self.design.lattice_side):
                output = self.module(_single(states[rows]), torch.tensor(observables[rows]))
                result[rows] = self.module.in_units(output).numpy()
        return result

    def save(self, path: str | Path) -> None:
        """Write a checkpoint; complete or not at all."""
        description = {
            "design": dataclasses.asdict(self.design),
            "validation_losses": self.validation_losses.tolist(),
        }
        write_checkpoint(path, FORMAT, description, self.module.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> "AutoencoderClosure":
        """Read a checkpoint; never runs code from it.  Raises: CheckpointError."""
        with open_checkpoint(path, FORMAT) as (description, state):
            settings = AutoencoderSettings(**description["design"].pop("settings"))
            design = Design(settings=settings, **description["design"])
            module = _Autoencoder(design, torch.Generator()).eval()
            module.load_state_dict(state)
            return cls(
                design=design,
                module=module,
                validation_losses=np.array(description["validation_losses"]).reshape(-1, 2),
            )


def fit_autoencoder(
    snapshots: Snapshots,
    observables: np.ndarray,
    patching: Patching,
    settings: AutoencoderSettings,
    *,
    rng: np.random.Generator,
    description: str | None = None,
) -> AutoencoderClosure:
    """Train encoder and decoder to rebuild snapshots from phi*(x) and the closures phi_hat(x).

    Minimises E |psi(phi*(x), phi_hat(x)) - x|^2, for spins the cross-entropy of (x + 1) / 2, until
    the loss on held-out trajectory groups stops falling; the best checked state is kept.

    Args:    snapshots: (N, L, L), L = 3, 4, 5 or 7 times a power of 2.  observables: (N, d*).
             patching: into squares of even side >= 4; only the side matters.
    Raises:  ValueError: a lattice or patch that is not square or of another side, rows that
             disagree, fewer than 2 snapshots to train on.  DivergedError: non-finite loss.
    Source:  paper Eq. 1, 2.
    """
    states, shape = snapshots.states, snapshots.lattice_shape
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"snapshots has lattices of shape {shape}: must be square, (L, L)")
    patch = dataclasses.replace(patching, stride=None).patches(shape)[0].shape
    if patch[0] != patch[1]:
        raise ValueError(f"patch side = {patch}: must be the same along both axes")
    observables = _checked_observables(observables, len(states), None)
    design = Design(
        settings=settings,
        patch_side=patch[0],
        lattice_side=shape[0],
        observables=observables.shape[1],
        spins=all((np.abs(states[rows]) == 1).all() for rows in _portions(len(states), shape[0])),
    )
    module = _Autoencoder(design, torch.Generator().manual_seed(int(rng.integers(2**63 - 1))))
    module.set_units(states, observables)
    losses = _train(module, snapshots, observables, rng, description)
    module.set_moments(states, observables)
    return AutoencoderClosure(design=design, module=module, validation_losses=losses)


class _Autoencoder(nn.Module):
    """The networks and the units of what goes in and out, in single precision.

    The output of ``forward``: log-odds of an up spin, or the field in units of its spread.
    """

    state_shift: Tensor
    state_scale: Tensor
    observable_shift: Tensor
    observable_scale: Tensor
    latent_mean: Tensor
    latent_covariance: Tensor

    def __init__(self, design: Design, generator: torch.Generator):
        super().__init__()
        settings, given = design.settings, design.observables
        self.design = design
        latents = given + settings.dimension
        self.register_buffer("state_shift", torch.zeros(()))
        self.register_buffer("state_scale", torch.ones(()))
        self.register_buffer("observable_shift", torch.zeros(given, dtype=torch.float64))
        self.register_buffer("observable_scale", torch.ones(given, dtype=torch.float64))
        self.register_buffer("latent_mean", torch.zeros(latents, dtype=torch.float64))
        self.register_buffer("latent_covariance", torch.eye(latents, dtype=torch.float64))
        self.encoder = _encoder(design.patch_side, settings.channels, settings.dimension, generator)
        self.decoder = _decoder(design.lattice_side, settings.decoder_channels, latents, generator)
        # the faster layout on a CPU; torch's stubs miss the keyword
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def set_units(self, states: np.ndarray, observables: np.ndarray) -> None:
        """Units of mean 0 and variance 1 for the observables and a real field; spins stay +-1."""
        units = Normalisation.of(observables)
        self.observable_shift.copy_(torch.from_numpy(units.shift))
        self.observable_scale.copy_(torch.from_numpy(units.scale))
        if not self.design.spins:
            spread = float(states.std(dtype=np.float64))
            self.state_shift.fill_(float(states.mean(dtype=np.float64)))
            self.state_scale.fill_(spread if spread > 0 else 1.0)

    def set_moments(self, states: np.ndarray, observables: np.ndarray) -> None:
        """Mean and covariance of the latents over all ``states``, for those of the last batches."""
        with torch.no_grad():
            parts = [
                self._latents(_single(states[rows]), torch.tensor(observables[rows]))
                for rows in _portions(len(states), self.design.lattice_side)
            ]
        mean, covariance = _moments(torch.cat(parts))
        self.latent_mean.copy_(mean)
        self.latent_covariance.copy_(covariance)

    def encode(self, patches: Tensor) -> Tensor:
        """f(x_I): (B, l, l) -> (B, d_hat)."""
        learned = slice(self.design.observables, None)
        values = self.encoder(self._scaled(patches).unsqueeze(1)).double()
        return _whitened(
            values, self.latent_mean[learned], self.latent_covariance[learned, learned]
        )

    def forward(self, states: Tensor, observables: Tensor) -> Tensor:
        """Decoded from phi*(x) and phi_hat(x): (B, L, L), (B, d*) -> (B, L, L).

        The decoder is given the closures less their regression on phi*, in units of what remains:
        else training makes them repeat phi*, from which most of a state can be guessed already.
        """
        latents = self._latents(states, observables)
        mean, covariance = self.latent_mean, self.latent_covariance
        if self.training:
            mean, covariance = _moments(latents)
            self.latent_mean.lerp_(mean.detach(), 0.1)
            self.latent_covariance.lerp_(covariance.detach(), 0.1)
        return self.decoder(_whitened(latents, mean, covariance).float()).squeeze(1)

    def loss(self, states: Tensor, observables: Tensor) -> Tensor:
        output = self.forward(states, observables)
        if self.design.spins:
            return nn.functional.binary_cross_entropy_with_logits(output, (states + 1) / 2)
        return nn.functional.mse_loss(output, self._scaled(states))

    def in_units(self, output: Tensor) -> Tensor:
        """Probability of an up spin, or the field, from what ``forward`` returns."""
        if self.design.spins:
            return output.sigmoid()
        return self.state_shift + self.state_scale * output

    def _scaled(self, states: Tensor) -> Tensor:
        return (states - self.state_shift) / self.state_scale

    def _latents(self, states: Tensor, observables: Tensor) -> Tensor:
        """phi*(x) in its units, and the mean of the encoder over all patches: (B, d* + d_hat)."""
        given = (observables - self.observable_shift) / self.observable_scale
        count, side, edge = len(states), self.design.lattice_side, self.design.patch_side
        grid = self._scaled(states).reshape(count, side // edge, edge, side // edge, edge)
        values = self.encoder(grid.transpose(2, 3).reshape(-1, 1, edge, edge))
        means = values.reshape(count, -1, values.shape[1]).double().mean(dim=1)
        return torch.cat([given, means], dim=1)


def _moments(latents: Tensor) -> tuple[Tensor, Tensor]:
    mean = latents.mean(dim=0)
    centred = latents - mean
    return mean, centred.T @ centred / len(latents)


def _whitened(latents: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """C^-1 (z - mean), C lower triangular with C C' = covariance.

    Each entry is z_k less its regression on the entries before it, in units of what remains.
    """
    ridge = 1e-8 * torch.eye(len(mean), dtype=mean.dtype)  # for batches that do not vary
    root = torch.linalg.cholesky_ex(covariance + ridge).L  # unlike cholesky, lets NaN through
    return torch.linalg.solve_triangular(root, (latents - mean).T, upper=False).T


def _encoder(
    side: int, channels: tuple[int, ...], dimension: int, generator: torch.Generator
) -> nn.Sequential:
    """(B, 1, side, side) -> (B, dimension): blocks that halve the side, then a linear layer.

    A block pools before it normalises, at a quarter of the cost. Normalisation and LeakyReLU are
    monotone (up to a sign, which the convolution can take over), so that trained blocks can be the
    same functions as in the order of the paper.
    """
    layers: list[nn.Module] = []
    width, edge = 1, side
    for outputs in channels:
        if edge % 2 or edge < 4:
            break
        convolution = nn.utils.skip_init(nn.Conv2d, width, outputs, 3, padding=1, bias=False)
        _draw(convolution, 9 * width, generator)
        layers += [convolution, nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        width, edge = outputs, edge // 2
    if not layers:
        raise ValueError(f"patch side = {side}: must be even and >= 4")
    # without bias: the mean is subtracted anyhow
    last = nn.utils.skip_init(nn.Linear, width * edge**2, dimension, bias=False)
    _draw(last, width * edge**2, generator)
    return nn.Sequential(*layers, nn.Flatten(), last)


def _decoder(
    side: int, channels: tuple[int, ...], latents: int, generator: torch.Generator
) -> nn.Sequential:
    """(B, latents) -> (B, 1, side, side): a linear layer, then transposed convolutions that double.

    side = base 2^k with base 3, 4, 5 or 7, the side of the coarsest image.
    """
    try:
        base, doublings = halvings(side)
    except ValueError as error:
        raise ValueError(f"lattice {error}") from None
    widths = [*(channels[min(k, len(channels) - 1)] for k in range(doublings)), 1]
    first = nn.utils.skip_init(nn.Linear, latents, widths[0] * base**2)
    _draw(first, latents, generator)
    layers: list[nn.Module] = [first, nn.Unflatten(1, (widths[0], base, base))]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.BatchNorm2d(inputs), nn.LeakyReLU(0.2)]
        convolution = nn.utils.skip_init(
            nn.ConvTranspose2d, inputs, outputs, 3, stride=2, padding=1, output_padding=1
        )
        _draw(convolution, 9 * inputs / 4, generator)  # 9/4 of its pixels reach a pixel on average
        layers.append(convolution)
    return nn.Sequential(*layers)


def _draw(layer: nn.Module, fan_in: float, generator: torch.Generator) -> None:
    """Initial weights of variance 1 / fan_in, drawn from ``generator`` alone; biases zero."""
    for name, parameter in layer.named_parameters():
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=1 / math.sqrt(fan_in), generator=generator)


def _train(
    module: _Autoencoder,
    snapshots: Snapshots,
    observables: np.ndarray,
    rng: np.random.Generator,
    description: str | None,
) -> np.ndarray:
    """Adam with cosine decay and early stopping; leaves ``module`` in its best checked state."""
    settings = module.design.settings
    held_out = _held_out(snapshots, settings.validation_fraction, rng)
    training, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if len(training) < 2:
        raise ValueError(
            f"validation_fraction = {settings.validation_fraction}: leaves {len(training)} of "
            f"{len(snapshots)} snapshots to train on, at least 2 are needed"
        )

    def loss(rows: np.ndarray) -> Tensor:
        return module.loss(_single(snapshots.states[rows]), torch.tensor(observables[rows]))

    def check() -> float:
        module.eval()
        portions = [
            validation[rows] for rows in _portions(len(validation), snapshots.lattice_shape[0])
        ]
        with torch.no_grad():
            total = sum(len(rows) * float(loss(rows)) for rows in portions)
        module.train()
        return total / len(validation)

    def require_finite(what: str, value: float) -> None:
        if not math.isfinite(value):
            state = torch.cat([tensor.flatten().double() for tensor in best_state.values()])
            raise DivergedError(what, step, state.numpy())

    batch = min(settings.batch, len(training))
    batches = len(training) // batch
    optimiser = torch.optim.Adam(module.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs * batches)
    best_state, checks = copy.deepcopy(module.state_dict()), np.empty((0, 2))
    steps = tqdm(
        range(settings.epochs * batches),
        desc=description,
        disable=True if description is None else None,
    )
    for step in steps:
        epoch, position = divmod(step, batches)
        if position == 0:
            order = rng.permutation(training)
        value = loss(order[position * batch : (position + 1) * batch])
        require_finite("training loss", value.item())
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        schedule.step()
        if position == batches - 1:
            checks = np.vstack([checks, (epoch + 1, check())])
            require_finite("validation loss", checks[-1, 1])
            best = int(checks[:, 1].argmin())
            if best == epoch:
                best_state = copy.deepcopy(module.state_dict())
            elif epoch - best >= settings.patience:
                break
    module.load_state_dict(best_state)
    module.eval()
    return checks


def _held_out(snapshots: Snapshots, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """(N,) bool: rows of the validation groups, or of single rows if there is one group."""
    assert snapshots.groups is not None  # set by Snapshots
    names, labels = np.unique(snapshots.groups, return_inverse=True)
    if len(names) == 1:
        names = labels = np.arange(len(snapshots))
    chosen = np.zeros(len(names), dtype=bool)
    chosen[rng.permutation(len(names))[: max(1, round(fraction * len(names)))]] = True
    return chosen[labels]


def _portions(count: int, side: int) -> Iterator[slice]:
    """Slices of ``count`` images of side^2 sites that are evaluated at once."""
    size = max(1, SITES_AT_ONCE // side**2)
    return (slice(start, start + size) for start in range(0, count, size))


def _single(states: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):  # too large becomes infinite, and the loss says so
        return torch.from_numpy(np.array(states, dtype=np.float32))


def _check_shape(name: str, images: np.ndarray, side: int) -> None:
    if images.ndim != 3 or images.shape[1:] != (side, side):
        raise ValueError(f"{name} has shape {images.shape}: must be (B, {side}, {side})")


def _checked_observables(observables: np.ndarray, count: int, width: int | None) -> np.ndarray:
    observables = np.asarray(observables, dtype=np.float64)
    shape = observables.shape
    if len(shape) != 2 or shape[0] != count or shape[1] != (shape[1] if width is None else width):
        expected = f"({count}, {'d*' if width is None else width})"
        raise ValueError(f"observables has shape {shape}: must be {expected}")
    if not np.isfinite(observables).all():
        raise ValueError("observables has non-finite entries (NaN or infinity)")
    return observables
