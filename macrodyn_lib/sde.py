"""Macroscopic stochastic differential equations, dz = mu(z) dt + Sigma^{1/2}(z) dB (paper Eq. 4).

A *model* (``LinearSDE``, ``MLPSDE``, ``OnsagerNetSDE``) is a frozen description; ``build`` makes
the module that is fitted. Modules work in normalised coordinates y = (z - shift) / scale and start
from the linear SDE of maximum likelihood, which has a closed form. A parameter of the dynamics,
such as a temperature, is one more column of a module's inputs, normalised in the same way.
"""

import abc
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import final

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from macrodyn_lib.records import IncrementMoments

# Each diagonal entry of the diffusion stays above this fraction of its linear estimate, in the fit
# and in the rollout alike, so that the likelihood has no singular points.
DIFFUSION_FLOOR = 1e-3
VALUES = 16  # of a parameter, at most, that have a linear estimate each


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinearEstimate:
    """Maximum-likelihood linear SDE, dy = (slope y + bias) dt + cholesky dB.

    slope (d, d), bias (d,), cholesky (d, d) lower triangular; of the latents it was fitted to the
    mean and the spread (d,), and lowest, highest (d,), the box that holds them; beyond (d,): how
    much a cubic drift differs from the linear one, root mean square: the scale of what a network
    has to add; parameter: for which it holds, if there is one.
    """

    slope: np.ndarray
    bias: np.ndarray
    cholesky: np.ndarray
    beyond: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    parameter: float = 0.0

    @classmethod
    def blank(cls, dimension: int, parameter: float = 0.0) -> "LinearEstimate":
        """Placeholder of the right shapes, to be overwritten by a stored state."""
        zeros, ones = np.zeros(dimension), np.ones(dimension)
        return cls(
            slope=np.diag(zeros),
            bias=zeros,
            cholesky=np.eye(dimension),
            beyond=zeros,
            mean=zeros,
            spread=ones,
            lowest=zeros,
            highest=zeros,
            parameter=parameter,
        )

    @classmethod
    def of(
        cls, moments: IncrementMoments, noise_scale: float, parameter: float = 0.0
    ) -> "LinearEstimate":
        """Weighted least squares for the drift, then the mean residual over lambda dt for Sigma.

        With a constant Sigma the likelihood's drift does not depend on Sigma, so the two steps are
        its exact maximum.

        Raises: ValueError: fewer than d + 2 increments, or a direction without any noise.
        """
        dimension = moments.latents.shape[1]
        if moments.counts.sum() < dimension + 2:
            raise ValueError(
                f"{moments.counts.sum():.0f} increments: a fit in {dimension} dimensions needs at "
                f"least {dimension + 2}"
            )
        design = np.column_stack([moments.latents, np.ones(len(moments.latents))])
        root = np.sqrt(moments.counts * moments.durations)[:, None]
        rates = moments.means / moments.durations[:, None]
        solution = np.linalg.lstsq(design * root, rates * root, rcond=None)[0]
        cubic = _monomials(moments.latents, degree=3)
        beyond = np.zeros_like(rates)
        if moments.counts.sum() > 10 * cubic.shape[1]:
            coefficients = np.linalg.lstsq(cubic * root, rates * root, rcond=None)[0]
            beyond = cubic @ coefficients - design @ solution
        covariance = moments.scatters / moments.durations[:, None, None]
        if not moments.scatter_is_noise:
            residual = (rates - design @ solution) * np.sqrt(moments.durations)[:, None]
            covariance = covariance + residual[:, :, None] * residual[:, None, :]
        sigma = np.average(covariance, axis=0, weights=moments.counts) / noise_scale
        # rounding alone leaves residuals of about 1e-16 of the increments
        squares = np.square(moments.means).sum(axis=1) / moments.durations / noise_scale
        total = np.average(squares, weights=moments.counts) + np.trace(sigma)
        floor = max(1e-26 * total, 1e-12 * np.trace(sigma))
        if not (np.linalg.eigvalsh(sigma) > floor).all():
            raise ValueError(
                "increments have no noise in some direction: the covariance of an SDE must be "
                "positive definite"
            )
        mean = np.average(moments.latents, axis=0, weights=moments.counts)
        squares = np.average(np.square(moments.latents - mean), axis=0, weights=moments.counts)
        return cls(
            slope=solution[:dimension].T,
            bias=solution[-1],
            cholesky=np.linalg.cholesky(sigma),
            beyond=np.sqrt(np.average(np.square(beyond), axis=0, weights=moments.counts)),
            mean=mean,
            spread=np.where(squares > 0, np.sqrt(squares), 1.0),
            lowest=moments.latents.min(axis=0),
            highest=moments.latents.max(axis=0),
            parameter=parameter,
        )

    @classmethod
    def along_parameter(
        cls, moments: IncrementMoments, noise_scale: float
    ) -> list["LinearEstimate"]:
        """One for each value of the parameter; of more than VALUES, for the ends of their range.

        Each is fitted to the increments with weights that fall linearly to 0 at its neighbours.
        Without a parameter: one for all.

        Raises: ValueError: as ``of``, for any of them.
        """
        if moments.conditions.shape[1] == 0:
            return [cls.of(moments, noise_scale)]
        (values,) = moments.conditions.T
        knots = np.unique(values)
        if len(knots) > VALUES:
            knots = knots[[0, -1]]
        shares = _hats(torch.tensor(knots), torch.tensor(values)).numpy()
        estimates = []
        for knot, share in zip(knots, shares.T, strict=True):
            near = moments.select(share > 0)
            near = dataclasses.replace(near, counts=near.counts * share[share > 0])
            estimates.append(cls.of(near, noise_scale, float(knot)))
        return estimates


def _hats(knots: Tensor, values: Tensor) -> Tensor:
    """Weights (N, k) of the knots (k,) in a linear interpolation at ``values`` (N,), constant
    beyond the outermost."""
    passed = (values[:, None] - knots[:-1]) / (knots[1:] - knots[:-1])
    passed = passed.clamp(0, 1)
    ends = values.new_ones(len(values), 1)
    return torch.cat([ends, passed], dim=1) - torch.cat([passed, torch.zeros_like(ends)], dim=1)


def _monomials(values: np.ndarray, degree: int) -> np.ndarray:
    """All products of up to ``degree`` components, with 1: (N, d) -> (N, terms)."""
    columns = [np.ones(len(values))]
    for order in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(range(values.shape[1]), order):
            columns.append(values[:, chosen].prod(axis=1))
    return np.column_stack(columns)


class SDE(nn.Module, abc.ABC):
    """A fitted or fittable SDE in normalised coordinates: inputs are y, then the parameters."""

    @abc.abstractmethod
    def drift(self, inputs: Tensor) -> Tensor:
        """(N, d + p) -> (N, d)."""

    @abc.abstractmethod
    def cholesky(self, inputs: Tensor) -> Tensor:
        """(N, d + p) -> (N, d, d): lower triangular L with Sigma = L L', diagonal positive."""


class SDEModel(abc.ABC):
    """Description of an SDE: a frozen dataclass of numbers, so that it can be stored as JSON."""

    dimension: int

    @property
    def n_parameters(self) -> int:
        """Parameters p of the dynamics that are inputs of the model: 0 or 1."""
        return 0

    @abc.abstractmethod
    def build(self, estimates: Sequence[LinearEstimate], generator: torch.Generator) -> SDE:
        """The module to fit, starting at the linear estimates (one, without a parameter)."""


@final
class _LinearModule(SDE):
    slope: Tensor
    bias: Tensor
    root: Tensor

    def __init__(self, estimate: LinearEstimate):
        super().__init__()
        self.register_buffer("slope", torch.tensor(estimate.slope))
        self.register_buffer("bias", torch.tensor(estimate.bias))
        self.register_buffer("root", torch.tensor(estimate.cholesky))

    def drift(self, inputs: Tensor) -> Tensor:
        return inputs @ self.slope.T + self.bias

    def cholesky(self, inputs: Tensor) -> Tensor:
        return self.root.expand(len(inputs), -1, -1)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class LinearSDE(SDEModel):
    """dz = (A z + b) dt + L dB with constant L: fitted in closed form, nothing is trained."""

    dimension: int

    def build(self, estimates: Sequence[LinearEstimate], generator: torch.Generator) -> SDE:
        return _LinearModule(*estimates)


@final
class _Triangle(nn.Module):
    """Lower triangular matrices with a positive diagonal; of zeros: the unit matrix."""

    entries: Tensor
    on_diagonal: Tensor

    def __init__(self, dimension: int):
        super().__init__()
        self.dimension = dimension
        rows, columns = np.tril_indices(dimension)
        self.register_buffer("entries", torch.as_tensor(rows * dimension + columns))
        self.register_buffer("on_diagonal", torch.as_tensor(rows == columns))

    def forward(self, raw: Tensor) -> Tensor:
        """(N, d (d + 1) / 2) -> (N, d, d)."""
        d = self.dimension
        positive = DIFFUSION_FLOOR + nn.functional.softplus(raw + math.log(math.e - 1))
        values = torch.where(self.on_diagonal, positive, raw)
        flat = values.new_zeros(len(raw), d * d).index_copy(1, self.entries, values)
        return flat.reshape(-1, d, d)


@final
class _MLPModule(SDE):
    def __init__(self, model: "MLPSDE", estimate: LinearEstimate, generator: torch.Generator):
        super().__init__()
        d = model.dimension
        self.linear = _LinearModule(estimate)
        self.drift_network = _mlp(d, d, model.hidden, generator)
        self.diffusion_network = _mlp(d, d * (d + 1) // 2, model.hidden, generator)
        # y has unit variance, so a stationary process relaxes at about Sigma_ii / 2
        rate = np.maximum(np.square(estimate.cholesky).sum(1) / 2, np.abs(estimate.slope).sum(1))
        self.register_buffer("drift_scale", torch.tensor(np.maximum(rate, estimate.beyond)))
        signs = np.ones(d) if model.signs is None else np.array(model.signs, dtype=np.float64)
        self.symmetric = model.signs is not None
        self.register_buffer("signs", torch.tensor(signs))
        stable = bool((np.linalg.eigvals(estimate.slope).real < 0).all())
        outer = estimate.slope if stable else -np.diag(rate)
        self.register_buffer("outer_slope", torch.tensor(outer))
        self.register_buffer("lowest", torch.tensor(estimate.lowest))
        self.register_buffer("highest", torch.tensor(estimate.highest))
        rows, columns = np.tril_indices(d)
        self.register_buffer("entry_signs", torch.tensor(signs[rows] * signs[columns]))
        self.triangle = _Triangle(d)

    drift_scale: Tensor
    signs: Tensor
    entry_signs: Tensor
    outer_slope: Tensor
    lowest: Tensor
    highest: Tensor

    def drift(self, inputs: Tensor) -> Tensor:
        seen = inputs.clamp(self.lowest, self.highest)
        inside = self.linear.drift(seen) + self.drift_scale * self._even(
            self.drift_network, seen, self.signs
        )
        return inside + (inputs - seen) @ self.outer_slope.T

    def cholesky(self, inputs: Tensor) -> Tensor:
        y = inputs.clamp(self.lowest, self.highest)
        # (N, d (d + 1) / 2), zero: the linear estimate
        raw = self._even(self.diffusion_network, y, self.entry_signs)
        return self.linear.root @ self.triangle(raw)

    def _even(self, network: nn.Sequential, y: Tensor, signs: Tensor) -> Tensor:
        """Output that changes by ``signs`` when y does by its own; without symmetry, as it is."""
        if not self.symmetric:
            return network(y)  # type: ignore[no-any-return]
        mirrored = network(torch.cat([y, self.signs * y]))
        return (mirrored[: len(y)] + signs * mirrored[len(y) :]) / 2


@final
@dataclasses.dataclass(frozen=True, slots=True)
class MLPSDE(SDEModel):
    """Linear SDE plus multilayer perceptrons: mu = A y + b + net(y), L = L_0 T(net(y)).

    T is lower triangular with a softplus diagonal. hidden: widths of the hidden layers (the paper:
    64, 64, 64). Activation SiLU, which is smooth. A network knows nothing of what it has not seen:
    outside the box of the training latents the diffusion is that at its edge, and the drift goes on
    with the slope of the linear SDE (if that is stable; else back to the box, at about the rate at
    which a stationary process of this noise relaxes).

    signs: None, or one of +-1 per latent, for a system that is symmetric under z -> signs z (spin
    flip at zero field: -1 for M, 1 for rho). Drift and diffusion then have the symmetry exactly.

    Raises: ValueError: signs of another length or value.
    """

    dimension: int
    hidden: tuple[int, ...] = (64, 64, 64)
    signs: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if self.signs is not None:
            object.__setattr__(self, "signs", tuple(self.signs))
            if len(self.signs) != self.dimension or not set(self.signs) <= {-1, 1}:
                raise ValueError(
                    f"signs = {self.signs}: must be {self.dimension} numbers, each -1 or 1"
                )

    def build(self, estimates: Sequence[LinearEstimate], generator: torch.Generator) -> SDE:
        (estimate,) = estimates
        return _MLPModule(self, estimate, generator).double()


@final
class OnsagerNetModule(SDE):
    """What ``OnsagerNetSDE`` describes.

    Starts at linear SDEs, interpolated between the values of the parameter. Where one is stable,
    with the stationary covariance C of S C + C S' + Sigma = 0, its slope is
    S = -(Sigma / 2 + Q) C^-1 with Q antisymmetric, so V = (y - y*)' C^-1 (y - y*) / 2,
    M = Sigma / 2 and W = Q. Networks see the box of the data at each value of the parameter as
    the cube [-1, 1]^d.
    """

    def __init__(
        self,
        model: "OnsagerNetSDE",
        estimates: Sequence[LinearEstimate],
        generator: torch.Generator,
    ):
        super().__init__()
        d, inputs = model.dimension, model.dimension + model.parameters
        self.dimension = d
        starts = [_gradient_flow(estimate) for estimate in estimates]
        centre, stiffness, circulation = (np.array(part) for part in zip(*starts, strict=True))
        lowest = np.array([estimate.lowest for estimate in estimates])
        highest = np.array([estimate.highest for estimate in estimates])
        half = np.where(highest > lowest, (highest - lowest) / 2, 1.0)
        of_data = np.einsum("kii,ki->k", stiffness, half**2) / d  # V over the box, some
        tables = {
            "knots": np.array([estimate.parameter for estimate in estimates]),
            "centre": centre,
            "stiffness": stiffness,
            "circulation_0": circulation,
            "root": np.array([estimate.cholesky for estimate in estimates]),
            "lowest": lowest,
            "highest": highest,
            "half_width": half,
            "potential_scale": of_data[:, None],
        }
        for name, table in tables.items():  # (k, ...), one row for each value of the parameter
            self.register_buffer(name, torch.tensor(table))
        pairs = d * (d - 1) // 2
        self.potential_network = _mlp(inputs, 1, model.hidden, generator)
        self.mobility_network = _mlp(inputs, d * d, model.hidden, generator)  # of M, then of W
        self.diffusion_network = _mlp(inputs, d * (d + 1) // 2, model.hidden, generator)
        self.force_network = _mlp(inputs, d, model.hidden, generator) if model.forcing else None
        self.triangle = _Triangle(d)
        upper, columns = np.triu_indices(d, 1)
        self.register_buffer("upper", torch.as_tensor(upper * d + columns))
        self.n_circulations = pairs

    knots: Tensor
    centre: Tensor
    stiffness: Tensor
    circulation_0: Tensor
    root: Tensor
    lowest: Tensor
    highest: Tensor
    half_width: Tensor
    potential_scale: Tensor
    upper: Tensor

    def potential(self, inputs: Tensor) -> Tensor:
        """V(y, p): (N, d + p) -> (N,)."""
        here = self._look_up(inputs)
        quadratic = torch.einsum("ni,nij,nj->n", here.away, here.stiffness, here.away) / 2
        return quadratic + here.scale[:, 0] * self.potential_network(here.seen)[:, 0]

    def gradient(self, inputs: Tensor) -> Tensor:
        """dV/dy: (N, d + p) -> (N, d), in closed form, so that no graph is needed for it."""
        return self._gradient(self._look_up(inputs))

    def mobility(self, inputs: Tensor) -> Tensor:
        """M(y, p), symmetric and positive definite: (N, d + p) -> (N, d, d)."""
        return self._mobility_and_circulation(self._look_up(inputs))[0]

    def circulation(self, inputs: Tensor) -> Tensor:
        """W(y, p), antisymmetric: (N, d + p) -> (N, d, d)."""
        return self._mobility_and_circulation(self._look_up(inputs))[1]

    def drift(self, inputs: Tensor) -> Tensor:
        here = self._look_up(inputs)
        mobility, circulation = self._mobility_and_circulation(here)
        drift = -_applied(mobility + circulation, self._gradient(here))
        if self.force_network is None:
            return drift
        # forces are of the order of the drift that noise alone would balance
        return drift + _applied(here.root, self.force_network(here.seen))

    def cholesky(self, inputs: Tensor) -> Tensor:
        here = self._look_up(inputs)
        return here.root @ self.triangle(self.diffusion_network(here.seen))

    def _gradient(self, here: "_Surroundings") -> Tensor:
        inside = here.seen[:, : self.dimension].abs() < 1  # beyond the box the network stands still
        slope = _gradient(self.potential_network, here.seen)[:, : self.dimension] / here.half_width
        return _applied(here.stiffness, here.away) + here.scale * slope * inside

    def _mobility_and_circulation(self, here: "_Surroundings") -> tuple[Tensor, Tensor]:
        d, raw = self.dimension, self.mobility_network(here.seen)
        of_circulation, of_mobility = raw[:, : self.n_circulations], raw[:, self.n_circulations :]
        root = here.root @ self.triangle(of_mobility) / math.sqrt(2)
        above = raw.new_zeros(len(raw), d * d).index_copy(1, self.upper, of_circulation)
        above = above.reshape(-1, d, d)
        turned = here.root @ (above - above.transpose(1, 2)) @ here.root.transpose(1, 2)
        return root @ root.transpose(1, 2), here.circulation + turned / 2

    def _look_up(self, inputs: Tensor) -> "_Surroundings":
        """The tables (k, ...) at the parameter of each row; networks see y, moved into the box of
        the data, from -1 to 1, then the parameter."""
        tables = [
            self.centre, self.stiffness, self.circulation_0, self.root,
            self.lowest, self.half_width, self.potential_scale,
        ]  # fmt: skip
        if len(self.knots) > 1:
            weights = _hats(self.knots, inputs[:, self.dimension])
            rows = weights @ torch.cat([table.flatten(1) for table in tables], dim=1)
            parts = rows.split([table[0].numel() for table in tables], dim=1)
            shapes = [table.shape[1:] for table in tables]
            tables = [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
        centre, stiffness, circulation, root, lowest, half_width, scale = tables
        y, parameter = inputs[:, : self.dimension], inputs[:, self.dimension :]
        seen = ((y - lowest) / half_width - 1).clamp(-1, 1)
        return _Surroundings(
            seen=torch.cat([seen, parameter], dim=1), away=y - centre, stiffness=stiffness,
            circulation=circulation, root=root, half_width=half_width, scale=scale,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Surroundings:
    """N states as the networks of an OnsagerNetModule see them, and the linear SDE it starts at.

    seen (N, d + p), away (N, d) from y*; of N rows, or of one if there is no parameter:
    stiffness, circulation, root (N, d, d), half_width (N, d), scale (N, 1) of the potential.
    """

    seen: Tensor
    away: Tensor
    stiffness: Tensor
    circulation: Tensor
    root: Tensor
    half_width: Tensor
    scale: Tensor


def _applied(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(N, d, d) times (N, d), row by row: (N, d)."""
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _gradient_flow(estimate: LinearEstimate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y*, C^-1 and Q of a linear SDE; where it is unstable, of one at rest about its data."""
    sigma = estimate.cholesky @ estimate.cholesky.T
    slope, centre = estimate.slope, -np.linalg.pinv(estimate.slope) @ estimate.bias
    if not (np.linalg.eigvals(slope).real < 0).all():
        slope, centre = -sigma / 2 / estimate.spread**2, estimate.mean
    covariance = scipy.linalg.solve_continuous_lyapunov(slope, -sigma)
    circulation = -slope @ covariance - sigma / 2
    return centre, np.linalg.inv(covariance), (circulation - circulation.T) / 2


@final
@dataclasses.dataclass(frozen=True, slots=True)
class OnsagerNetSDE(SDEModel):
    """Relaxation in a potential: dz = [-(M + W) grad V + f] dt + L dB, all of them functions of z.

    M is symmetric and positive definite, W antisymmetric, so without noise and force f the
    potential never rises: dV/dt = -grad V' M grad V. L is lower triangular, independent of M.

        V = quadratic form of the linear SDE + net(y, p)

    parameters: 1 if the dynamics depends on a number p that does not change, such as a
    temperature; the pairs bring it, ``FittedSDE.at`` fixes it. The linear SDE is then one for each
    value of it, interpolated. hidden: widths of the hidden layers of each network. forcing: with f,
    else f = 0. Outside the box of the training latents (of those at p) the networks stay what they
    are at its edge, and the quadratic form leads back.

    Raises: ValueError: another number of parameters.
    Source: paper Eq. 5; Yu, Tian, E and Li, Phys. Rev. Fluids 6, 114402 (2021).
    """

    dimension: int
    parameters: int = 0
    hidden: tuple[int, ...] = (32, 32)
    forcing: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if self.parameters not in (0, 1):
            raise ValueError(f"parameters = {self.parameters}: must be 0 or 1")

    @property
    def n_parameters(self) -> int:
        return self.parameters

    def build(self, estimates: Sequence[LinearEstimate], generator: torch.Generator) -> SDE:
        return OnsagerNetModule(self, estimates, generator).double()


def _gradient(network: nn.Sequential, inputs: Tensor) -> Tensor:
    """Derivative of a one-output perceptron of SiLU layers by its inputs: (N, i) -> (N, i)."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    slopes = []
    for layer in layers[:-1]:
        inputs = layer(inputs)
        gate = torch.sigmoid(inputs)
        slopes.append(gate * (1 + inputs * (1 - gate)))  # SiLU'(x)
        inputs = inputs * gate
    back = layers[-1].weight.expand(len(inputs), -1)
    for layer, slope in zip(reversed(layers[:-1]), reversed(slopes), strict=True):
        back = (back * slope) @ layer.weight
    return back


def _mlp(
    inputs: int, outputs: int, hidden: tuple[int, ...], generator: torch.Generator
) -> nn.Sequential:
    """Perceptron whose last layer starts at zero, drawn from ``generator`` alone."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.normal_(0, 1 / math.sqrt(fan_in), generator=generator)
            layer.bias.uniform_(-1, 1, generator=generator)
        layers += [layer, nn.SiLU()]
    last = nn.utils.skip_init(nn.Linear, widths[-1], outputs, dtype=torch.float64)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
