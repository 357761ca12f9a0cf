"""Fit an SDE to latent pairs: normalise, maximise the K-scaled likelihood, stop early, store."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from macrodyn_lib.checkpoints import open_checkpoint, write_checkpoint
from macrodyn_lib.errors import DivergedError
from macrodyn_lib.likelihood import negative_log_likelihood
from macrodyn_lib.parallel import map_tasks
from macrodyn_lib.records import IncrementMoments, LatentPairs
from macrodyn_lib.sde import (
    MLPSDE,
    SDE,
    LinearEstimate,
    LinearSDE,
    OnsagerNetModule,
    OnsagerNetSDE,
)

FORMAT = "macrodyn.sde.3"
Increments = LatentPairs | IncrementMoments
Model = LinearSDE | MLPSDE | OnsagerNetSDE
MODELS: dict[str, type[Model]] = {
    "LinearSDE": LinearSDE,
    "MLPSDE": MLPSDE,
    "OnsagerNetSDE": OnsagerNetSDE,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """y = (z - shift) / scale, from the training latents alone; shift, scale (d,)."""

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, latents: np.ndarray, signs: np.ndarray | None = None) -> Self:
        """Mean 0 and variance 1; a component that changes sign under the symmetry is not shifted.

        signs (d,): -1 for such components, else 1.
        """
        shift = latents.mean(axis=0)
        if signs is not None:
            shift = np.where(signs < 0, 0.0, shift)
        spread = np.sqrt(np.square(latents - shift).mean(axis=0))
        return cls(shift=shift, scale=np.where(spread > 0, spread, 1.0))


def _within(parameter_range: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Parameters (N, p) as modules see them: -1 at the lowest of the training data, 1 at the
    highest."""
    lowest, highest = parameter_range
    width = np.where(highest > lowest, highest - lowest, 1.0)
    return 2 * (parameters - lowest) / width - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """steps: at most this many gradient steps; batch: merged increments a step; learning_rate:
    at the start, decaying to zero by a cosine; validation_fraction: of the trajectory groups;
    check_every, patience: stop when ``patience`` checks in a row do not improve validation;
    resolution: merge the increments in cells of this edge, in standard deviations of the latents
    (0: only those of equal latents). Steps then cost a fraction, and a fit can be carried to
    convergence where the drift is a small part of the loss.
    """

    steps: int = 2000
    batch: int = 8192
    learning_rate: float = 3e-3
    validation_fraction: float = 0.1
    check_every: int = 50
    patience: int = 10
    resolution: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "check_every", "patience"):
            value = getattr(self, name)
            if value != int(value) or value < 1:
                raise ValueError(f"{name} = {value}: must be an integer >= 1")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction = {self.validation_fraction}: must lie between 0 and 1"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate}: must be > 0")
        if not self.resolution >= 0:
            raise ValueError(f"resolution = {self.resolution}: must be >= 0")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FittedSDE:
    """A fitted macroscopic SDE in physical units: dz = mu(z) dt + Sigma^{1/2}(z) dB, Ito.

    model: its description.  module: the fitted network, in normalised coordinates.
    validation_losses: (checks, 2), step and loss at each check of the training.
    noise_factor: multiplies the diffusion after the fit (1: as fitted).
    parameter_range: (2, p), the lowest and highest parameters of the training data.
    parameters: (p,), those for which drift and diffusion are asked (``at``), None: not yet fixed.
    """

    model: Model
    module: SDE
    normalisation: Normalisation
    noise_scale: float
    validation_losses: np.ndarray
    noise_factor: float = 1.0
    parameter_range: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((2, 0)))
    parameters: np.ndarray | None = None

    @property
    def dimension(self) -> int:
        return self.model.dimension

    def at(self, parameters: Sequence[float] | np.ndarray) -> Self:
        """The SDE at given parameters (p,), such as a temperature.

        Warns where they lie outside those of the training data: a network knows nothing there.

        Raises: ValueError: not as many as the model has.
        """
        values = np.asarray(parameters, dtype=np.float64)
        if values.shape != (self.model.n_parameters,) or not np.isfinite(values).all():
            raise ValueError(
                f"parameters = {parameters}: must be {self.model.n_parameters} finite numbers"
            )
        lowest, highest = self.parameter_range
        if ((values < lowest) | (values > highest)).any():
            warnings.warn(
                f"parameters = {values.tolist()} lie outside the training range, "
                f"{lowest.tolist()} to {highest.tolist()}: the model is extrapolated",
                stacklevel=2,
            )
        return dataclasses.replace(self, parameters=values)

    def potential(self, latents: np.ndarray) -> np.ndarray:
        """V(z) of an OnsagerNetSDE, up to a constant: (N, d) -> (N,); no unit."""
        if not isinstance(self.module, OnsagerNetModule):
            raise ValueError(f"model = {self.model}: only an OnsagerNetSDE has a potential")
        with torch.no_grad():
            return self.module.potential(self._normalised(latents)).numpy()

    def drift(self, latents: np.ndarray) -> np.ndarray:
        """mu(z): (N, d) -> (N, d), latent units per unit of time."""
        with torch.no_grad():
            return self.module.drift(self._normalised(latents)).numpy() * self.normalisation.scale

    def covariance(self, latents: np.ndarray) -> np.ndarray:
        """Sigma(z): (N, d) -> (N, d, d), covariance per unit of time."""
        root = self.diffusion(latents)
        return root @ root.transpose(0, 2, 1)

    def diffusion(self, latents: np.ndarray) -> np.ndarray:
        """L(z): (N, d) -> (N, d, d), lower triangular with Sigma = L L'."""
        with torch.no_grad():
            root = self.module.cholesky(self._normalised(latents)).numpy()
        return self.noise_factor * root * self.normalisation.scale[:, None]

    def linear_coefficients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """slope (d, d), bias (d,), diffusion (d, d) of a LinearSDE in physical units."""
        if not isinstance(self.model, LinearSDE):
            raise ValueError(f"model = {self.model}: only a LinearSDE has linear coefficients")
        origin = np.zeros((1, self.dimension))
        bias = self.drift(origin)[0]
        slope = (self.drift(np.eye(self.dimension)) - bias).T
        return slope, bias, self.diffusion(origin)[0]

    def _normalised(self, latents: np.ndarray) -> Tensor:
        latents = np.asarray(latents, dtype=np.float64)
        if latents.ndim != 2 or latents.shape[1] != self.dimension:
            raise ValueError(f"latents has shape {latents.shape}: must be (N, {self.dimension})")
        inputs = (latents - self.normalisation.shift) / self.normalisation.scale
        if self.model.n_parameters > 0:
            if self.parameters is None:
                raise ValueError("parameters = None: fix them first, with at(parameters)")
            fixed = _within(self.parameter_range, self.parameters[None])
            inputs = np.column_stack([inputs, np.repeat(fixed, len(latents), axis=0)])
        return torch.from_numpy(inputs)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint; complete or not at all."""
        description = {
            "model": type(self.model).__name__,
            "settings": dataclasses.asdict(self.model),
            "shift": self.normalisation.shift.tolist(),
            "scale": self.normalisation.scale.tolist(),
            "noise_scale": self.noise_scale,
            "noise_factor": self.noise_factor,
            "parameter_range": self.parameter_range.tolist(),
            "parameters": None if self.parameters is None else self.parameters.tolist(),
            "validation_losses": self.validation_losses.tolist(),
        }
        write_checkpoint(path, FORMAT, description, self.module.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> "FittedSDE":
        """Read a checkpoint; never runs code from it.  Raises: CheckpointError."""
        with open_checkpoint(path, FORMAT) as (description, state):
            model = MODELS[description["model"]](**description["settings"])
            knots = state.get("knots", torch.zeros(1)).tolist()
            blanks = [LinearEstimate.blank(model.dimension, knot) for knot in knots]
            module = model.build(blanks, torch.Generator())
            module.load_state_dict(state)
            fixed = description["parameters"]
            return cls(
                model=model,
                module=module,
                normalisation=Normalisation(
                    shift=np.array(description["shift"]), scale=np.array(description["scale"])
                ),
                noise_scale=description["noise_scale"],
                validation_losses=np.array(description["validation_losses"]).reshape(-1, 2),
                noise_factor=description["noise_factor"],
                parameter_range=np.array(description["parameter_range"]).reshape(2, -1),
                parameters=None if fixed is None else np.array(fixed),
            )


def fit_sde(
    pairs: Increments,
    model: Model,
    *,
    noise_scale: float | None = None,
    rng: np.random.Generator,
    settings: TrainingSettings | None = None,
    description: str | None = None,
) -> FittedSDE:
    """Fit drift and diffusion of the whole from increments of its patches (or from its rates).

    Minimises the mean of ``negative_log_likelihood`` with lambda = ``noise_scale``. Increments
    that share z and dt are merged first, which changes nothing but the cost. A LinearSDE is done in
    closed form; other models start from it and take gradient steps (Adam) until the loss on
    held-out trajectory groups stops falling; the best checked state is kept (with twins, and with
    rates, that of the drift and that of the diffusion, which the likelihood then judges apart).

    Args:    noise_scale: None: K = pairs.n_patches, as the theory demands.
    Raises:  ValueError: dimensions disagree, noise_scale <= 0.  DivergedError: non-finite loss.
    Source:  paper Eq. 7.
    """
    if model.dimension != pairs.dimension:
        raise ValueError(f"model dimension = {model.dimension}: the pairs have {pairs.dimension}")
    if model.n_parameters != pairs.conditions.shape[1]:
        raise ValueError(
            f"model parameters = {model.n_parameters}: the pairs have {pairs.conditions.shape[1]}"
        )
    noise_scale = float(pairs.n_patches if noise_scale is None else noise_scale)
    if not (noise_scale > 0 and np.isfinite(noise_scale)):
        raise ValueError(f"noise_scale = {noise_scale}: must be finite and > 0")
    signs = np.array(model.signs) if isinstance(model, MLPSDE) and model.signs else None
    normalisation = Normalisation.of(pairs.latents, signs)
    parameter_range = np.stack([pairs.conditions.min(axis=0), pairs.conditions.max(axis=0)])
    normalised = dataclasses.replace(
        pairs.normalised(normalisation.shift, normalisation.scale),
        parameters=_within(parameter_range, pairs.conditions),
    )
    generator = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
    settings = settings or TrainingSettings()
    if isinstance(model, LinearSDE):
        estimate = LinearEstimate.of(normalised.moments(), noise_scale)
        module, losses = model.build([estimate], generator), np.empty((0, 2))
    else:
        split = _split(normalised, settings.validation_fraction, rng)
        moments, held_out = (part.moments() for part in split)
        if settings.resolution > 0:
            moments, held_out = (m.coarsened(settings.resolution) for m in (moments, held_out))
        full = moments if signs is None else moments.reflected(signs)
        # single precision halves the cost of a step; the data are noisier than its 1e-7
        estimates = LinearEstimate.along_parameter(full, noise_scale)
        module = model.build(estimates, generator).float()
        losses = _train(
            module, _Data.of(moments), _Data.of(held_out),
            noise_scale, settings, generator, description,
        )  # fmt: skip
    return FittedSDE(
        model=model,
        module=module.double(),
        normalisation=normalisation,
        noise_scale=noise_scale,
        validation_losses=losses,
        parameter_range=parameter_range,
    )


def fit_ensemble(
    pairs: Increments,
    model: Model,
    *,
    members: int,
    noise_scale: float | None = None,
    rng: np.random.Generator,
    settings: TrainingSettings | None = None,
    description: str | None = None,
) -> list[FittedSDE]:
    """Fit one SDE to each of ``members`` disjoint shares of the trajectory groups.

    The members are independent, in data and initial weights, so their spread over sqrt(members)
    is the standard error of their mean.
    """
    shares = pairs.shares(members, rng)
    generators = rng.spawn(members)
    tasks = [
        (share, model, noise_scale, generator, settings)
        for share, generator in zip(shares, generators, strict=True)
    ]
    return map_tasks(
        _fit_member, tasks, description=description, hidden=True if description is None else None
    )


def _fit_member(
    share: Increments,
    model: Model,
    noise_scale: float | None,
    rng: np.random.Generator,
    settings: TrainingSettings | None,
) -> FittedSDE:
    return fit_sde(share, model, noise_scale=noise_scale, rng=rng, settings=settings)


def _split(
    pairs: Increments, fraction: float, rng: np.random.Generator
) -> tuple[Increments, Increments]:
    """Training and validation pairs, split by trajectory group (by row if there is one group)."""
    assert pairs.groups is not None
    names, labels = np.unique(pairs.groups, return_inverse=True)
    if len(names) == 1:
        names, labels = np.arange(len(pairs)), np.arange(len(pairs))
    held_out = np.zeros(len(names), dtype=bool)
    held_out[rng.permutation(len(names))[: max(1, round(fraction * len(names)))]] = True
    return pairs.select(~held_out[labels]), pairs.select(held_out[labels])


@dataclasses.dataclass(frozen=True, slots=True)
class _Data:
    """Merged increments as tensors."""

    inputs: Tensor
    means: Tensor
    durations: Tensor
    weights: Tensor
    scatter_roots: Tensor | None
    scatter_is_noise: bool

    @classmethod
    def of(cls, moments: IncrementMoments) -> Self:
        def single(values: np.ndarray) -> Tensor:
            with np.errstate(over="ignore"):  # too large becomes infinite, and the loss says so
                return torch.from_numpy(values.astype(np.float32))

        roots = None
        if moments.scatters.any():
            values, vectors = np.linalg.eigh(moments.scatters)
            roots = single(vectors * np.sqrt(np.maximum(values, 0))[:, None, :])

        return cls(
            single(np.column_stack([moments.latents, moments.conditions])),
            single(moments.means),
            single(moments.durations),
            single(moments.counts / moments.counts.mean()),
            roots,
            moments.scatter_is_noise,
        )

    def loss(self, module: SDE, noise_scale: float, rows: Tensor | slice = slice(None)) -> Tensor:
        """Weighted mean loss of some rows."""
        inputs = self.inputs[rows]
        losses = negative_log_likelihood(
            self.means[rows],
            self.durations[rows],
            module.drift(inputs),
            module.cholesky(inputs),
            noise_scale=noise_scale,
            scatter_roots=None if self.scatter_roots is None else self.scatter_roots[rows],
            scatter_is_noise=self.scatter_is_noise,
        )
        return (losses * self.weights[rows]).mean()

    def drift_loss(self, module: SDE, noise_scale: float, root: Tensor) -> Tensor:
        """The part of the drift alone, weighed with one fixed Sigma = L L', root (N, d, d)."""
        losses = negative_log_likelihood(
            self.means, self.durations, module.drift(self.inputs), root, noise_scale=noise_scale
        )
        return (losses * self.weights).mean()

    def diffusion_loss(self, module: SDE, noise_scale: float) -> Tensor:
        """The part of Sigma alone, as twins have it."""
        nothing = torch.zeros_like(self.means)
        losses = negative_log_likelihood(
            nothing, self.durations, nothing, module.cholesky(self.inputs),
            noise_scale=noise_scale, scatter_roots=self.scatter_roots,
        )  # fmt: skip
        return (losses * self.weights).mean()


@dataclasses.dataclass(slots=True)
class _Part:
    """Parameters that one held-out loss judges, and their best checked state.

    loss: None: the loss of all, which every check knows.
    """

    loss: Callable[[], Tensor] | None
    names: list[str]
    best_loss: float = np.inf
    best_state: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    best_check: int = 0

    def check(self, module: SDE, number: int, loss_of_all: float) -> None:
        loss = loss_of_all if self.loss is None else float(self.loss())
        if loss < self.best_loss:
            self.best_loss, self.best_check = loss, number
            self.keep(module)

    def keep(self, module: SDE) -> None:
        state = module.state_dict()
        self.best_state = {name: state[name].clone() for name in self.names}


def _parts(module: SDE, validation: _Data, noise_scale: float) -> list[_Part]:
    """With twins the likelihood falls apart: the drift does not move Sigma.

    Then each has a best state of its own; else a Sigma that is learned, and learned too well,
    within a few hundred steps would stop the training of the drift.
    """
    names = list(module.state_dict())
    if not validation.scatter_is_noise:
        return [_Part(None, names)]
    root = module.cholesky(validation.inputs).clone()
    of_diffusion = [name for name in names if name.startswith("diffusion_network.")]
    return [
        _Part(
            lambda: validation.drift_loss(module, noise_scale, root),
            [name for name in names if name not in of_diffusion],
        ),
        _Part(lambda: validation.diffusion_loss(module, noise_scale), of_diffusion),
    ]


def _check(parts: list[_Part], module: SDE, number: int, loss_of_all: float) -> None:
    for part in parts:
        part.check(module, number, loss_of_all)


def _best_state(parts: list[_Part]) -> dict[str, Tensor]:
    return {name: value for part in parts for name, value in part.best_state.items()}


def _train(
    module: SDE,
    training: _Data,
    validation: _Data,
    noise_scale: float,
    settings: TrainingSettings,
    generator: torch.Generator,
    description: str | None,
) -> np.ndarray:
    """Adam with cosine decay and early stopping; leaves ``module`` in its best checked state."""
    optimiser = torch.optim.Adam(module.parameters(), lr=settings.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    count, checks = len(training.durations), []
    with torch.no_grad():
        parts = _parts(module, validation, noise_scale)
    for part in parts:
        part.keep(module)

    @torch.no_grad()
    def check(step: int) -> float:
        loss = float(validation.loss(module, noise_scale))
        checks.append((step, loss))
        _check(parts, module, len(checks), loss)
        return loss

    queue = torch.empty(0, dtype=torch.int64)
    steps = tqdm(
        range(settings.steps), desc=description, disable=True if description is None else None
    )
    for step in steps:
        if step % settings.check_every == 0:
            finite = np.isfinite(check(step))
            last_gain = max(part.best_check for part in parts)
            if finite and len(checks) - last_gain >= settings.patience:
                break
        rows: Tensor | slice = slice(None)
        if count > settings.batch:
            if len(queue) < settings.batch:
                queue = torch.randperm(count, generator=generator)
            rows, queue = queue[: settings.batch], queue[settings.batch :]
        loss = training.loss(module, noise_scale, rows)
        if not bool(torch.isfinite(loss)):
            best = _best_state(parts)
            state = torch.cat([value.flatten().double() for value in best.values()])
            module.load_state_dict(best)
            raise DivergedError("training loss", step, state.numpy())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    check(step)
    module.load_state_dict(_best_state(parts))
    return np.array(checks, dtype=np.float64)
