"""Linear chain of overdamped particles, driven at one end (paper App. D.2)."""

import dataclasses
import math
from typing import Any, ClassVar, Self, final

import numpy as np

from macrodyn_lib.kernels import linear_chain as kernels
from macrodyn_lib.lattice import Patch
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.records import Trajectories
from macrodyn_lib.systems.base import (
    MicroscopicSystem,
    check_integer,
    check_number,
    check_states,
    check_times,
)

# Euler-Maruyama is stable for h < 2 / (g + 4 k); a tenth of that keeps its variance within 5 %.
STEP_FRACTION = 0.2


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinearChain(MicroscopicSystem):
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
    time_step: float | None = None

    observable_names: ClassVar[tuple[str, ...]] = ("m",)
    periodic: ClassVar[bool] = False
    observables_are_site_means: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("n_particles", self.n_particles)
        check_number("friction", self.friction, above=0)
        check_number("coupling", self.coupling, at_least=0)
        check_number("noise", self.noise, above=0)
        check_number("force", self.force)
        fastest = self.friction + 4 * self.coupling
        if self.time_step is None:
            object.__setattr__(self, "time_step", STEP_FRACTION / fastest)
        elif not 0 < self.time_step < 2 / fastest:
            raise ValueError(
                f"time_step = {self.time_step}: must be > 0 and < {2 / fastest:g}, where the "
                "explicit scheme becomes unstable (2 / (friction + 4 coupling))"
            )

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

    def simulate(
        self,
        states: np.ndarray,
        times: np.ndarray,
        rng: np.random.Generator,
        *,
        keep_states: bool = False,
    ) -> Trajectories:
        """Euler-Maruyama from time 0; each interval between ``times`` is cut into equal steps."""
        check_states(states, self.lattice_shape)
        times = check_times(times)
        whole = Patch(start=(0,), shape=self.lattice_shape, lattice_shape=self.lattice_shape)

        def run(rows: slice, generator: np.random.Generator) -> tuple[np.ndarray, Any]:
            x = np.array(states[rows], dtype=np.float64)
            means = np.empty((len(x), len(times), 1))
            kept = np.empty((len(x), len(times), self.n_particles)) if keep_states else None
            for index, duration in enumerate(np.diff(times, prepend=0.0)):
                self._advance(x, whole, duration, generator)
                means[:, index] = self.observables(x)
                if kept is not None:
                    kept[:, index] = x
            return means, kept

        parts = map_chunks(run, len(states), rng, chunk=64)
        return Trajectories(
            times=times,
            observables=np.concatenate([means for means, _ in parts]),
            states=np.concatenate([kept for _, kept in parts]) if keep_states else None,
        )

    def evolve_patch(
        self, states: np.ndarray, patch: Patch, duration: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Evolve the particles of one patch; exact marginal of the full step for one time step."""
        check_states(states, self.lattice_shape)
        check_number("duration", duration, above=0)
        result = np.array(states, dtype=np.float64)
        self._advance(result, patch, duration, rng)
        return result

    def observables(self, states: np.ndarray) -> np.ndarray:
        return states.mean(axis=1, keepdims=True)

    def _advance(
        self, x: np.ndarray, patch: Patch, duration: float, rng: np.random.Generator
    ) -> None:
        assert self.time_step is not None  # set in __post_init__
        # the small slack keeps a duration of exactly m steps from becoming m + 1 by rounding
        n_steps = math.ceil(duration / self.time_step - 1e-9)
        if n_steps > 0:
            kernels.euler_maruyama_inplace(
                x,
                patch.start[0],
                patch.start[0] + patch.shape[0],
                patch.boundary == "periodic",
                n_steps,
                duration / n_steps,
                self.friction,
                self.coupling,
                self.noise,
                self.force,
                rng,
            )
