"""What systems of spins on a square lattice share."""

import abc
import dataclasses
import math
from typing import ClassVar, Self

import numpy as np

from macrodyn_lib.lattice import Patch
from macrodyn_lib.systems.base import (
    UNLIMITED,
    MicroscopicSystem,
    check_integer,
    check_number,
    spins_of_magnetization,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SpinSystem(MicroscopicSystem):
    """side^2 spins +-1, states int8 (B, side, side), that flip one at a time.

    temperature T > 0 and field h in units of the coupling J = 1 (k_B = 1); unit of time: one
    attempted flip per spin.
    """

    side: int
    temperature: float
    field: float = 0.1

    smallest_side: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_integer("side", self.side, at_least=self.smallest_side)
        check_number("temperature", self.temperature, above=0)
        check_number("field", self.field)

    @property
    def lattice_shape(self) -> tuple[int, ...]:
        return (self.side, self.side)

    @property
    def n_sites(self) -> int:
        return self.side**2

    def resized(self, size: int) -> Self:
        return dataclasses.replace(self, side=size)

    def initial_states(
        self, count: int, rng: np.random.Generator, *, magnetization: float | None = None
    ) -> np.ndarray:
        """Spins placed at random with a given magnetization; None: uniform in (-1, 1) per state."""
        return spins_of_magnetization(count, self.lattice_shape, magnetization, rng)

    def evolve_patch(
        self, states: np.ndarray, patch: Patch, duration: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Flip spins of one patch for ``duration``, event by event, all others frozen."""
        check_number("duration", duration, above=0)
        return self._evolve(states, patch, duration, UNLIMITED, rng)[0]

    def evolve_patch_events(
        self, states: np.ndarray, patch: Patch, events: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        check_integer("events", events)
        return self._evolve(states, patch, math.inf, events, rng)

    @abc.abstractmethod
    def _evolve(
        self,
        states: np.ndarray,
        patch: Patch,
        duration: float,
        max_events: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """New states (B, side, side) and the time that passed (B,), until either limit."""
