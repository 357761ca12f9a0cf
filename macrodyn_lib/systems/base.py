"""The interface of a microscopic system: what a user writes to bring their own."""

import abc
import math
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from macrodyn_lib.lattice import Patch, Patching
from macrodyn_lib.records import Trajectories

UNLIMITED = np.iinfo(np.int64).max  # events


class MicroscopicSystem(abc.ABC):
    """A lattice of sites with stochastic dynamics; concrete systems are frozen dataclasses.

    A system needs the five methods below. ``periodic`` says whether the lattice wraps around;
    ``observables_are_site_means`` that every observable is the mean of a one-site function, for
    which the increment of a patch needs the patch alone; ``interaction_range`` how many sites
    away rates and observables look, if physics is the same at each site (None: it is not, or they
    look everywhere). A patch then evolves in a frame of so many frozen sites, not in the lattice.
    """

    observable_names: ClassVar[tuple[str, ...]]
    periodic: ClassVar[bool] = True
    observables_are_site_means: ClassVar[bool] = False
    interaction_range: ClassVar[int | None] = None

    @property
    @abc.abstractmethod
    def lattice_shape(self) -> tuple[int, ...]:
        """Sites along each axis."""

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Axes of one state: those of the lattice, then the fields of a site if it has several."""
        return self.lattice_shape

    @abc.abstractmethod
    def resized(self, size: int) -> Self:
        """The same physics on a lattice of another size."""

    @abc.abstractmethod
    def initial_states(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, *lattice): states from far from equilibrium, to start trajectories.

        A system may add keyword options with defaults.
        """

    @abc.abstractmethod
    def simulate(
        self,
        states: np.ndarray,
        times: np.ndarray,
        rng: np.random.Generator,
        *,
        keep_states: bool = False,
    ) -> Trajectories:
        """Evolve the whole lattice from time 0 and record at ``times`` (T,), ascending."""

    @abc.abstractmethod
    def evolve_patch(
        self, states: np.ndarray, patch: Patch, duration: float, rng: np.random.Generator
    ) -> np.ndarray:
        """(B, *lattice): the states with one patch evolved for ``duration``, the rest frozen."""

    @abc.abstractmethod
    def observables(self, states: np.ndarray) -> np.ndarray:
        """(B, *any lattice) -> (B, d): the macroscopic observables phi*, intensive."""

    def observable_changes(self, before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
        """Change of phi* of a lattice of which ``share`` changes as given, (B, *part) -> (B, d).

        Here for observables that are means over the sites or bonds of a lattice.
        """
        return share * (self.observables(after) - self.observables(before))

    def evolve_buffered_patch(
        self,
        states: np.ndarray,
        patch: Patch,
        rim: Patch,
        duration: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """As ``evolve_patch`` with a buffer: ``rim``, the patch and some sites around it, evolves.

        Then what is not of the patch is thrown away. A system that moves things across the edge,
        and so would lose or double them, may say otherwise what is of the patch.
        """
        evolved = self.evolve_patch(states, rim, duration, rng)
        return patch.insert(states, patch.extract(evolved))

    def evolve_patch_events(
        self, states: np.ndarray, patch: Patch, events: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ``evolve_patch`` for a number of events; returns the states and durations (B,).

        The published protocol; it needs a system with events.
        """
        raise ValueError(f"events = {events}: {type(self).__name__} has no events; give duration")

    def relax_patches(
        self,
        states: np.ndarray,
        patches: Sequence[Patch],
        duration: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Relax one patch after the other for ``duration`` each; for LocalRelax.

        Its aim is a good sample, not a path: a system may use any dynamics that leaves the law of
        the patch given its frozen surroundings invariant.
        """
        for patch in patches:
            states = self.evolve_patch(states, patch, duration, rng)
        return states

    def assembled(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Put right what tiling small states into (B, *lattice) changed, such as a composition."""
        del rng
        return states

    def rate_moments(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Drift (B, d) and covariance rate (B, d, d) of phi* in each state, from the rates.

        Raises: ValueError: the system does not know them.
        """
        raise ValueError(
            f"increments = 'rates': {type(self).__name__} has no rate_moments; use 'sampled'"
        )

    def evolve_patch_and_expect(
        self, states: np.ndarray, patch: Patch, duration: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ``evolve_patch``; also (B, d), the change of phi* that the rates promise on each path.

        Raises: ValueError: the system does not know it.
        """
        raise ValueError(
            f"increments = 'integrated': {type(self).__name__} has no evolve_patch_and_expect; use "
            "'sampled'"
        )

    def field_rates(self, states: np.ndarray) -> tuple[np.ndarray, float, float]:
        """x += h f(x) + s sqrt(h) xi in every component: f (B, *state), s^2, and the time step h.

        For systems of continuous fields whose observables are linear in the state; it makes rate
        increments of closures possible.

        Raises: ValueError: not such a system.
        """
        raise ValueError(
            f"increments = 'rates': {type(self).__name__} has no field_rates, as closures need; "
            "use 'sampled'"
        )

    def upsampled(self, states: np.ndarray, factor: int) -> np.ndarray:
        """Enlarge (B, *lattice) by ``factor`` along each axis: every site becomes a block."""
        for axis in range(1, states.ndim):
            states = np.repeat(states, factor, axis=axis)
        return states


def evolve_one_patch(
    system: MicroscopicSystem,
    states: np.ndarray,
    patch: Patch,
    patching: Patching,
    duration: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """(B, *lattice): the states with ``patch`` evolved under the boundary rule of ``patching``."""
    if patching.boundary != "buffer":
        return system.evolve_patch(states, patch, duration, rng)
    rim = patching.rim(patch, periodic=system.periodic)
    return system.evolve_buffered_patch(states, patch, rim, duration, rng)


def spins_of_magnetization(
    count: int,
    lattice_shape: tuple[int, ...],
    magnetization: float | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """(count, *lattice) int8: up spins placed at random; None: M uniform in (-1, 1) per state."""
    if magnetization is not None and not -1 <= magnetization <= 1:
        raise ValueError(f"magnetization = {magnetization}: must lie in [-1, 1]")
    n = math.prod(lattice_shape)
    targets = rng.uniform(-1, 1, count) if magnetization is None else magnetization
    n_up = np.rint(n * (1 + np.broadcast_to(targets, count)) / 2).astype(np.int64)
    spins = np.where(np.arange(n) < n_up[:, None], 1, -1).astype(np.int8)
    return rng.permuted(spins, axis=1).reshape(count, *lattice_shape)


def check_number(
    name: str, value: float, *, above: float = -math.inf, at_least: float = -math.inf
) -> None:
    """Raise ValueError unless ``value`` is finite, > ``above`` and >= ``at_least``."""
    if not (math.isfinite(value) and value > above and value >= at_least):
        bound = f" and > {above:g}" if above > -math.inf else ""
        bound += f" and >= {at_least:g}" if at_least > -math.inf else ""
        raise ValueError(f"{name} = {value}: must be finite{bound}")


def check_integer(name: str, value: int, at_least: int = 1) -> None:
    """Raise ValueError unless ``value`` is an integer >= ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise ValueError(f"{name} = {value!r}: must be an integer >= {at_least}")


def check_states(states: np.ndarray, state_shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``states`` is (B, *state_shape) and finite."""
    if states.ndim != 1 + len(state_shape) or states.shape[1:] != state_shape:
        raise ValueError(f"states has shape {states.shape}: must be (B, {state_shape})")
    if np.issubdtype(states.dtype, np.floating) and not np.isfinite(states).all():
        raise ValueError("states has non-finite entries (NaN or infinity): all must be finite")


def check_times(times: np.ndarray) -> np.ndarray:
    """``times`` as float64 (T,); raise ValueError unless finite, ascending and >= 0."""
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times, prepend=0.0) < 0).any():
        raise ValueError(f"times = {times}: must be one axis of ascending numbers >= 0")
    return times
