"""Stochastic predator-prey reaction-diffusion system on a line of cells (paper Sec. III.1)."""

import dataclasses
from typing import ClassVar, Self, final

import numpy as np

from macrodyn_lib.kernels import predator_prey as kernels
from macrodyn_lib.lattice import Patch
from macrodyn_lib.systems.base import check_integer, check_number, check_states
from macrodyn_lib.systems.fields import FieldSystem

# The paper's time step; at a = 3 it is a twentieth of the fastest rate of the reaction.
LARGEST_STEP = 0.01
# Where the initial conditions of training runs are drawn from. The paper draws the mean from
# 0.45 to 0.55 and the amplitude from 0.05 to 0.15; a margin keeps its corners inside.
MEANS, AMPLITUDES = (0.4, 0.6), (0.0, 0.2)


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PredatorPrey(FieldSystem):
    """Prey u and predators v in n cells, Neumann ends, in lattice units (cells of length 1).

        du = [u (1 - u - v) + c (u_left - 2 u + u_right)] dt + s dW
        dv = [a v (u - b) + D (v_left - 2 v + v_right)] dt + s dW'

    with independent noise in each cell and field (N(0, dt), no factor of the cell's length).
    n_cells n; a > 0, growth of predators; 0 < b < 1, prey at which they just live, so that the
    fixed point (b, 1 - b) exists; c >= 0, diffusion of prey; predator_diffusion D >= 0;
    noise s > 0.
    time_step: of the Euler-Maruyama scheme, at most; None: 0.01, the paper's, or less where the
    rates demand it.

    States are (B, n, 2), u then v. Below zero the equations make no sense (v grows without bound
    downwards where u > b, and u everywhere), yet the noise may lead there; a density that falls
    below zero is reflected. At the default noise that happens in no run.
    Observables: the means of u and v over the cells. With the literal 1 / dx^2 of the paper's
    equation the scheme would be unstable by a factor of 800; the published code has none, and 100
    and 200 cells are domains of different length.
    Source: paper Eq. 20, 21 and App. E; initial conditions and lattice units: published code.
    """

    n_cells: int
    a: float = 3.0
    b: float = 0.4
    c: float = 0.0
    noise: float = 0.02
    predator_diffusion: float = 1.0

    observable_names: ClassVar[tuple[str, ...]] = ("u", "v")
    rows_together: ClassVar[int] = 16

    def __post_init__(self) -> None:
        check_integer("n_cells", self.n_cells)
        check_number("a", self.a, above=0)
        check_number("b", self.b, above=0)
        if self.b >= 1:
            raise ValueError(f"b = {self.b}: must be < 1, or the predators die out")
        check_number("c", self.c, at_least=0)
        check_number("predator_diffusion", self.predator_diffusion, at_least=0)
        check_number("noise", self.noise, above=0)
        # of order 1: growth of prey, and of predators per unit of prey beyond the threshold
        fastest = 1 + self.a + 4 * max(self.c, self.predator_diffusion)
        default = min(LARGEST_STEP, 0.2 / fastest)
        self._choose_time_step(default, fastest, "1 + a + 4 max(c, predator_diffusion)")

    @property
    def lattice_shape(self) -> tuple[int, ...]:
        return (self.n_cells,)

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (self.n_cells, 2)

    def resized(self, size: int) -> Self:
        return dataclasses.replace(self, n_cells=size)

    def wave(self, mean: np.ndarray | float, amplitude: np.ndarray | float) -> np.ndarray:
        """u = m + k cos(10 pi x), v = (1 - m) - k cos(10 pi x), x = (i + 1/2) / n: (B, n, 2).

        mean m, amplitude k: numbers or (B,).

        Raises: ValueError: u or v would be negative somewhere in the domain.
        Source: published code (the paper's Eq. 22 has the ranges of m and k exchanged, which makes
                u negative).
        """
        m, k = np.broadcast_arrays(np.atleast_1d(mean).astype(float), np.atleast_1d(amplitude))
        bad = ~((np.abs(k) <= m) & (np.abs(k) <= 1 - m))
        if bad.any():
            raise ValueError(
                f"[m, k] = [{m[bad][0]:g}, {k[bad][0]:g}]: |k| must be <= min(m, 1 - m), or u or v "
                "would be negative"
            )
        x = (np.arange(self.n_cells) + 0.5) / self.n_cells
        profile = k[:, None] * np.cos(10 * np.pi * x)
        return np.stack([m[:, None] + profile, 1 - m[:, None] - profile], axis=2)

    def initial_states(
        self,
        count: int,
        rng: np.random.Generator,
        *,
        means: tuple[float, float] = MEANS,
        amplitudes: tuple[float, float] = AMPLITUDES,
    ) -> np.ndarray:
        """Cosine waves (count, n, 2), m and k uniform in the given ranges, k at most such that no
        density is negative."""
        m, k = rng.uniform(*means, size=count), rng.uniform(*amplitudes, size=count)
        return self.wave(m, np.minimum(k, np.minimum(m, 1 - m)))

    def observables(self, states: np.ndarray) -> np.ndarray:
        return states.mean(axis=1)

    def field_rates(self, states: np.ndarray) -> tuple[np.ndarray, float, float]:
        self._check(states)
        assert self.time_step is not None  # set in __post_init__
        u, v = states[..., 0], states[..., 1]
        padded = np.concatenate([states[:, :1], states, states[:, -1:]], axis=1)
        laplacian = padded[:, :-2] - 2 * states + padded[:, 2:]
        reaction = np.stack([u * (1 - u - v), self.a * v * (u - self.b)], axis=2)
        diffusion = np.array([self.c, self.predator_diffusion]) * laplacian
        return reaction + diffusion, self.noise**2, self.time_step

    def rate_moments(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Drift and covariance rate of (mean u, mean v): the latter is s^2 / n in every state."""
        drifts, variance, _ = self.field_rates(states)
        covariance = variance / self.n_cells * np.eye(2)
        return drifts.mean(axis=1), np.tile(covariance, (len(states), 1, 1))

    def upsampled(self, states: np.ndarray, factor: int) -> np.ndarray:
        """Linear interpolation between cell centres, constant beyond the outermost ones.

        Source: paper Sec. III.1.
        """
        n = states.shape[1]
        at = np.clip((np.arange(factor * n) + 0.5) / factor - 0.5, 0, n - 1)
        left = np.minimum(at.astype(np.int64), max(n - 2, 0))
        weight = (at - left)[None, :, None]
        right = np.minimum(left + 1, n - 1)
        return states[:, left] * (1 - weight) + states[:, right] * weight

    def _check(self, states: np.ndarray) -> None:
        check_states(states, self.state_shape)
        if (states < 0).any():
            raise ValueError(f"states has a minimum of {states.min():g}: densities must be >= 0")

    def _advance_steps(
        self, x: np.ndarray, patch: Patch, n_steps: int, h: float, rng: np.random.Generator
    ) -> None:
        kernels.euler_maruyama_inplace(
            x,
            patch.start[0],
            patch.start[0] + patch.shape[0],
            patch.boundary == "periodic",
            n_steps,
            h,
            self.a,
            self.b,
            self.c,
            self.predator_diffusion,
            self.noise,
            rng,
        )
