"""Linear chain of overdamped particles, driven at one end (paper App. D.2)."""

import dataclasses
import math
from typing import ClassVar, Self, final

import numpy as np

from macrodyn_lib.kernels import linear_chain as kernels
from macrodyn_lib.lattice import Patch
from macrodyn_lib.systems.base import check_integer, check_number
from macrodyn_lib.systems.fields import FieldSystem

# Euler-Maruyama is stable for h < 2 / (g + 4 k); a tenth of that keeps its variance within 5 %.
STEP_FRACTION = 0.2


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinearChain(FieldSystem):
    """dX_i = [-g X_i + k (X_{i-1} - X_i) + k (X_{i+1} - X_i) + F 1(i = 1)] dt + s dW_i, free ends.

    n_particles N; friction g > 0, coupling k >= 0 (1/time); noise s > 0; force F.
    time_step: of the Euler-Maruyama scheme; None: 0.2 / (g + 4 k).
    Observable: the mean position m = (1/N) sum_i X_i, whose law is closed:
    dm = (-g m + F/N) dt + (s / sqrt N) dB.
    """

    n_particles: int
    friction: float = 0.1
    coupling: float = 1.0
    noise: float = 1.0
    force: float = 15.0

    observable_names: ClassVar[tuple[str, ...]] = ("m",)
    rows_together: ClassVar[int] = 64

    def __post_init__(self) -> None:
        check_integer("n_particles", self.n_particles)
        check_number("friction", self.friction, above=0)
        check_number("coupling", self.coupling, at_least=0)
        check_number("noise", self.noise, above=0)
        check_number("force", self.force)
        fastest = self.friction + 4 * self.coupling
        self._choose_time_step(STEP_FRACTION / fastest, fastest, "friction + 4 coupling")

    @property
    def lattice_shape(self) -> tuple[int, ...]:
        return (self.n_particles,)

    def resized(self, size: int) -> Self:
        return dataclasses.replace(self, n_particles=size)

    def initial_states(
        self, count: int, rng: np.random.Generator, *, center: float = 0.0, spread: float = 1.0
    ) -> np.ndarray:
        """Flat profiles around means drawn uniformly from center +- spread, with thermal noise.

        Returns (count, N). The thermal amplitude s / sqrt(2 (g + 2 k)) is that of one particle
        between two fixed neighbours.
        """
        thermal = self.noise / math.sqrt(2 * (self.friction + 2 * self.coupling))
        means = rng.uniform(center - spread, center + spread, size=(count, 1))
        return means + thermal * rng.standard_normal((count, self.n_particles))

    def observables(self, states: np.ndarray) -> np.ndarray:
        return states.mean(axis=1, keepdims=True)

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
            self.friction,
            self.coupling,
            self.noise,
            self.force,
            rng,
        )
