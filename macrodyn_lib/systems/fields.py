"""What systems of continuous fields on a line of sites share: the Euler-Maruyama scheme."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from macrodyn_lib.errors import DivergedError
from macrodyn_lib.lattice import Patch
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.records import Trajectories
from macrodyn_lib.systems.base import MicroscopicSystem, check_number, check_states, check_times


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FieldSystem(MicroscopicSystem):
    """x += h f(x) + s sqrt(h) xi, xi ~ N(0, 1), in every component at every site of a line.

    time_step: the largest h; None: chosen by the system.
    """

    time_step: float | None = None

    periodic: ClassVar[bool] = False
    observables_are_site_means: ClassVar[bool] = True
    rows_together: ClassVar[int]  # states simulated together: few enough to stay in the cache

    @abc.abstractmethod
    def _advance_steps(
        self, x: np.ndarray, patch: Patch, n_steps: int, h: float, rng: np.random.Generator
    ) -> None:
        """Steps of length ``h`` at the sites of ``patch``, in place."""

    def simulate(
        self,
        states: np.ndarray,
        times: np.ndarray,
        rng: np.random.Generator,
        *,
        keep_states: bool = False,
    ) -> Trajectories:
        """Euler-Maruyama from time 0; each interval between ``times`` is cut into equal steps.

        Raises: DivergedError: a field became infinite (noise or rates too large for the step); it
                carries the index of the time and the states at the one before.
        """
        self._check(states)
        times = check_times(times)
        whole = Patch(start=(0,), shape=self.lattice_shape, lattice_shape=self.lattice_shape)
        n_kept, n_observables = len(times) if keep_states else 0, len(self.observable_names)

        def run(rows: slice, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            x = np.array(states[rows], dtype=np.float64)
            means = np.empty((len(x), len(times), n_observables))
            kept = np.empty((len(x), n_kept, *self.state_shape))
            for index, duration in enumerate(np.diff(times, prepend=0.0)):
                before = x.copy()
                self._advance(x, whole, duration, generator)
                if not np.isfinite(x).all():
                    raise DivergedError(f"{type(self).__name__} simulation", index, before)
                means[:, index] = self.observables(x)
                if keep_states:
                    kept[:, index] = x
            return means, kept

        parts = map_chunks(run, len(states), rng, chunk=self.rows_together)
        return Trajectories(
            times=times,
            observables=np.concatenate([means for means, _ in parts]),
            states=np.concatenate([kept for _, kept in parts]) if keep_states else None,
        )

    def evolve_patch(
        self, states: np.ndarray, patch: Patch, duration: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Evolve the sites of one patch; exact marginal of the full step for one time step."""
        check_number("duration", duration, above=0)
        return self.relax_patches(states, [patch], duration, rng)

    def relax_patches(
        self,
        states: np.ndarray,
        patches: Sequence[Patch],
        duration: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """The same dynamics, one patch after the other, in one copy of the states."""
        self._check(states)
        result = np.array(states, dtype=np.float64)
        for patch in patches:
            self._advance(result, patch, duration, rng)
        return result

    def _choose_time_step(self, default: float, fastest: float, formula: str) -> None:
        """Fill in the time step.  Raises: ValueError: one that is unstable, h >= 2 / fastest."""
        if self.time_step is None:
            object.__setattr__(self, "time_step", default)
        elif not 0 < self.time_step < 2 / fastest:
            raise ValueError(
                f"time_step = {self.time_step}: must be > 0 and < {2 / fastest:g}, where the "
                f"explicit scheme becomes unstable (2 / ({formula}))"
            )

    def _check(self, states: np.ndarray) -> None:
        check_states(states, self.state_shape)

    def _advance(
        self, x: np.ndarray, patch: Patch, duration: float, rng: np.random.Generator
    ) -> None:
        assert self.time_step is not None  # set in __post_init__
        # the small slack keeps a duration of exactly m steps from becoming m + 1 by rounding
        n_steps = math.ceil(duration / self.time_step - 1e-9)
        if n_steps > 0:
            self._advance_steps(x, patch, n_steps, duration / n_steps, rng)
