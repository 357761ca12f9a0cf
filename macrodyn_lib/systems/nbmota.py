"""The NbMoTa alloy: short-range order of a BCC solid solution, changed by vacancies that hop."""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import ClassVar, Literal, Self, final

import numpy as np

from macrodyn_lib.errors import WeightsNotFoundError
from macrodyn_lib.kernels import vacancy as kernels
from macrodyn_lib.lattice import Patch
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.records import Trajectories
from macrodyn_lib.systems.barriers import SPECIES, BarrierModel, barrier_model
from macrodyn_lib.systems.base import (
    UNLIMITED,
    MicroscopicSystem,
    check_integer,
    check_number,
    check_states,
    check_times,
)

ATTEMPT_RATE = 1e13  # 1/s
BOLTZMANN = 8.617333e-5  # eV/K
SITES_PER_VACANCY = 1024
SMALLEST = 4  # cells: on shorter edges a pair of sites would meet itself around the lattice


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NbMoTa(MicroscopicSystem):
    """Equimolar NbMoTa on a periodic BCC lattice; atoms change places with vacancies.

        rate of a hop = 1e13/s exp(-E / (k_B T)),   k_B = 8.617333e-5 eV/K

    cells: cubic cells along each edge, n = 2 cells^3 sites; temperature T in K; unit of time: s.
    barrier_model: "network" (published; without its weights "pair" takes its place, with a
    warning), "pair" (embedded), another registered name, or a ``BarrierModel``.
    relaxation: what LocalRelax does: "hops" of vacancies, its duration in seconds; or "exchange" of
    any two sites of a tile (needs a model with pair energies), its duration in attempts per site.

    States are uint8 species codes (B, cells, cells, cells, 2): axes x, y, z, then corner and centre
    of the cell; 0 vacancy, 1 Nb, 2 Mo, 3 Ta. Patches are boxes of cells.
    Observables, with P_ab the neighbours b of all atoms a: delta_ab = P_ab / n_a - 8/3, for
    ab = NbNb, NbMo, NbTa, MoMo, MoTa, TaTa; about 0 in a random solution.

    Source: paper Sec. III.3, Eq. 30 (with the published code's normalisation), published code.
    """

    cells: int
    temperature: float = 2000.0
    barrier_model: str | BarrierModel = "network"
    relaxation: Literal["hops", "exchange"] = "hops"

    observable_names: ClassVar[tuple[str, ...]] = ("NbNb", "NbMo", "NbTa", "MoMo", "MoTa", "TaTa")
    interaction_range: ClassVar[int] = 2  # cells: all that rates and observables see

    def __post_init__(self) -> None:
        check_integer("cells", self.cells, at_least=SMALLEST)
        check_number("temperature", self.temperature, above=0)
        if not isinstance(self.barrier_model, str | BarrierModel):
            raise ValueError(
                f"barrier_model = {self.barrier_model!r}: must be a name or a BarrierModel"
            )
        if self.barrier_model == "network":
            try:
                barrier_model("network")
            except WeightsNotFoundError as error:
                warnings.warn(f"{error}. Using barrier_model = 'pair' instead.", stacklevel=3)
                object.__setattr__(self, "barrier_model", "pair")
        if self.model.reach > 2 * NbMoTa.interaction_range:
            raise ValueError(
                f"barrier_model = {self.model.name!r}: sees {self.model.reach} voxels far, must be "
                f"<= {2 * NbMoTa.interaction_range}"
            )
        if self.relaxation not in ("hops", "exchange"):
            raise ValueError(f"relaxation = {self.relaxation!r}: must be 'hops' or 'exchange'")
        if self.relaxation == "exchange" and self.model.pairs is None:
            raise ValueError(
                f"relaxation = 'exchange': needs pair energies, which {self.model.name!r} lacks"
            )

    @property
    def model(self) -> BarrierModel:
        """The barrier model itself."""
        if isinstance(self.barrier_model, BarrierModel):
            return self.barrier_model
        return barrier_model(self.barrier_model)

    @property
    def lattice_shape(self) -> tuple[int, ...]:
        return (self.cells,) * 3

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (*self.lattice_shape, 2)

    @property
    def n_sites(self) -> int:
        return 2 * self.cells**3

    @property
    def n_vacancies(self) -> int:
        """One of 1024 sites, at least one."""
        return max(self.n_sites // SITES_PER_VACANCY, 1)

    def resized(self, size: int) -> Self:
        return dataclasses.replace(self, cells=size)

    def composition(self) -> np.ndarray:
        """Sites by species code (4,): vacancies; Nb, and as many Mo, a third of the atoms; Ta."""
        third = (self.n_sites - self.n_vacancies) // 3
        return np.array(
            [self.n_vacancies, third, third, self.n_sites - self.n_vacancies - 2 * third]
        )

    def initial_states(
        self, count: int, rng: np.random.Generator, *, atoms: np.ndarray | None = None
    ) -> np.ndarray:
        """Random solutions of the nominal composition, (count, cells, cells, cells, 2).

        atoms: one arrangement (cells, cells, cells, 2) for all instead, e.g. from a file. If it has
        no vacancy, they take the places of atoms: on a regular grid of eight cells from the origin
        on, as published, or where that does not fit, at random.
        """
        if atoms is None:
            codes = np.repeat(np.arange(4, dtype=np.uint8), self.composition())
            states = rng.permuted(np.tile(codes, (count, 1)), axis=1)
            return states.reshape(count, *self.state_shape)
        self._check(atoms[None])
        states = np.repeat(np.asarray(atoms, dtype=np.uint8)[None], count, axis=0)
        if (atoms == 0).any():
            return states
        if self.cells % 8 == 0:
            states[:, ::8, ::8, ::8, 0] = 0
        else:
            for state in states.reshape(count, -1):
                state[rng.choice(self.n_sites, self.n_vacancies, replace=False)] = 0
        return states

    def observables(self, states: np.ndarray) -> np.ndarray:
        """(B, *any cells, 2) -> (B, 6): short-range order; the lattice is taken as periodic."""
        if states.ndim != 5 or states.shape[4] != 2:
            raise ValueError(f"states has shape {states.shape}: must be (B, X, Y, Z, 2)")
        _check_codes(states)
        flat = np.ascontiguousarray(states).reshape(len(states), -1)
        bonds = np.empty((len(states), kernels.BOND_TYPES), dtype=np.int64)
        atoms = np.empty((len(states), 4), dtype=np.int64)
        kernels.count_batch(flat, states.shape[1:4], bonds, atoms)
        return _short_range_order(bonds, atoms)

    def observable_changes(self, before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
        """Of a part of a lattice of nominal composition: its own may differ.

        A patch conserves atoms, so only the numerator of P_ab / n_a changes.
        """
        if share == 1:
            return self.observables(after) - self.observables(before)
        own = np.stack([(before == a).sum(axis=(1, 2, 3, 4)) for a in (1, 1, 1, 2, 2, 3)], axis=1)
        nominal = (1 - 1 / SITES_PER_VACANCY) / 3 * math.prod(before.shape[1:])
        return share * own / nominal * (self.observables(after) - self.observables(before))

    def simulate(
        self,
        states: np.ndarray,
        times: np.ndarray,
        rng: np.random.Generator,
        *,
        keep_states: bool = False,
        description: str | None = None,
    ) -> Trajectories:
        """Vacancy kinetic Monte Carlo from time 0; exact at every time of ``times``, in s."""
        times = check_times(times)
        _, observables, kept = self._run(
            states, times, UNLIMITED, False, rng, keep_states, description
        )
        return Trajectories(times=times, observables=observables, states=kept)

    def simulate_events(
        self,
        states: np.ndarray,
        events: int,
        records: int,
        rng: np.random.Generator,
        *,
        mean_waits: bool = False,
        keep_states: bool = False,
        description: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """As the published runs: recorded every ``events`` hops, at times that are random.

        mean_waits: each wait is its mean 1 / R, which has less noise.
        Returns: times (B, records) s, observables (B, records, 6), states or None. States seen
            after a number of events are weighted by their rates, not by time.
        """
        check_integer("events", events)
        check_integer("records", records)
        stops = np.full(records, math.inf)
        return self._run(states, stops, events, mean_waits, rng, keep_states, description)

    def evolve_patch(
        self, states: np.ndarray, patch: Patch, duration: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Vacancies of one patch hop for ``duration``, s; they cannot leave ("ghost")."""
        check_number("duration", duration, above=0)
        return self._evolve(states, patch, duration, UNLIMITED, False, rng)[0]

    def evolve_buffered_patch(
        self,
        states: np.ndarray,
        patch: Patch,
        rim: Patch,
        duration: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """The vacancies that start in ``patch`` hop for ``duration``, s, anywhere in ``rim``.

        A patch owns vacancies, not sites: every hop of the lattice is then one of exactly one
        patch, also across the edge, and atoms are conserved. Other vacancies stand still.
        """
        check_number("duration", duration, above=0)
        self._check(states, patch, rim)
        evolved = np.array(states, dtype=np.uint8, order="C")
        flat = evolved.reshape(len(states), -1)
        self._hop(
            flat, self.lattice_shape, self._box(rim), np.array([duration]), UNLIMITED, False, rng,
            home=self._box(patch),
        )  # fmt: skip
        return evolved

    def evolve_patch_events(
        self,
        states: np.ndarray,
        patch: Patch,
        events: int,
        rng: np.random.Generator,
        *,
        mean_waits: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ``evolve_patch`` for a number of hops; infinite durations where none is possible."""
        check_integer("events", events)
        return self._evolve(states, patch, math.inf, events, mean_waits, rng)

    def relax_patches(
        self,
        states: np.ndarray,
        patches: Sequence[Patch],
        duration: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Hops or exchanges in one patch after the other, as ``relaxation`` says."""
        check_number("duration", duration, above=0)
        wrapped = any(patch.boundary == "periodic" for patch in patches)
        if wrapped and self.relaxation == "hops":
            return MicroscopicSystem.relax_patches(self, states, patches, duration, rng)
        self._check(states, *patches)
        relaxed = np.array(states, dtype=np.uint8, order="C")
        flat = relaxed.reshape(len(states), -1)
        for patch in patches:  # in place: a tile costs what is in it, not what is around it
            if self.relaxation == "exchange":
                self._exchange(flat, patch, duration, 0, rng)
                continue
            self._hop(
                flat,
                self.lattice_shape,
                self._box(patch),
                np.array([duration]),
                UNLIMITED,
                False,
                rng,
            )
        return relaxed

    def exchange_chains(
        self,
        states: np.ndarray,
        sweeps: float,
        records: int,
        rng: np.random.Generator,
        *,
        keep_states: bool = False,
        description: str | None = None,
    ) -> Trajectories:
        """Equilibrium of the pair energies by Metropolis exchanges of any two sites.

        Records every ``sweeps`` attempts per site; "times" count attempts per site, not time.

        Raises: ValueError: the barrier model has no pair energies.
        """
        check_number("sweeps", sweeps, above=0)
        check_integer("records", records)
        self._check(states)
        whole = Patch(start=(0, 0, 0), shape=self.lattice_shape, lattice_shape=self.lattice_shape)

        def run(rows: slice, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
            current = np.array(states[rows], dtype=np.uint8, order="C")
            flat = current.reshape(len(current), -1)
            atoms = np.array([np.bincount(state, minlength=4) for state in flat])[:, None]
            if not keep_states:
                bonds = self._exchange(flat, whole, sweeps, records, generator)
                return current, _short_range_order(bonds, atoms)
            kept, orders = [], []
            for _ in range(records):
                bonds = self._exchange(flat, whole, sweeps, 1, generator)
                orders.append(_short_range_order(bonds, atoms))
                kept.append(current.copy())
            return np.stack(kept, axis=1), np.concatenate(orders, axis=1)

        parts = map_chunks(run, len(states), rng, chunk=1, description=description)
        return Trajectories(
            times=sweeps * np.arange(1, records + 1),
            observables=np.concatenate([order for _, order in parts]),
            states=np.concatenate([kept for kept, _ in parts]) if keep_states else None,
        )

    def assembled(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Recolour random atoms until there are as many of each species as ``composition`` says.

        Vacancies stay as they are. Source: published code (Nb against Mo, then Mo against Ta).
        """
        self._check(states)
        states = np.array(states, dtype=np.uint8)
        for state in states.reshape(len(states), -1):
            counts = np.bincount(state, minlength=4)
            wanted = self.composition()[1:]
            if counts[0] != self.n_vacancies:  # tiles of another vacancy fraction
                third = (self.n_sites - counts[0]) // 3
                wanted = np.array([third, third, self.n_sites - counts[0] - 2 * third])
            surplus = counts[1:] - wanted
            colours = np.repeat(np.arange(1, 4, dtype=np.uint8), np.maximum(-surplus, 0))
            chosen = [
                rng.choice(np.flatnonzero(state == a + 1), surplus[a], replace=False)
                for a in range(3)
                if surplus[a] > 0
            ]
            if chosen:
                state[np.concatenate(chosen)] = rng.permutation(colours)
        return states

    def upsampled(self, states: np.ndarray, factor: int) -> np.ndarray:
        """An alloy is not enlarged site by site: use ``tile_snapshots``."""
        raise ValueError(f"factor = {factor}: an alloy is tiled, not replicated; tile_snapshots")

    def _run(
        self,
        states: np.ndarray,
        stops: np.ndarray,
        max_events: int,
        mean_waits: bool,
        rng: np.random.Generator,
        keep_states: bool,
        description: str | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        self._check(states)
        whole = (0, 0, 0, *self.lattice_shape)

        def run(rows: slice, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
            flat = np.array(states[rows], dtype=np.uint8).reshape(-1, self.n_sites)
            atoms = np.array([np.bincount(state, minlength=4) for state in flat])
            kept = np.empty(
                (len(flat), len(stops) if keep_states else 0, self.n_sites), dtype=np.uint8
            )
            counts = np.empty((len(flat), len(stops), kernels.BOND_TYPES), dtype=np.int64)
            times = self._hop(
                flat, self.lattice_shape, whole, stops, max_events, mean_waits, generator, kept,
                counts,
            )  # fmt: skip
            return times, _short_range_order(counts, atoms[:, None]), kept

        parts = map_chunks(run, len(states), rng, chunk=1, description=description)
        times, observables, kept = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not keep_states:
            return times, observables, None
        return times, observables, kept.reshape(*kept.shape[:2], *self.state_shape)

    def _hop(
        self,
        flat: np.ndarray,
        shape: Sequence[int],
        box: Sequence[int],
        stops: np.ndarray,
        max_events: int,
        mean_waits: bool,
        rng: np.random.Generator,
        kept: np.ndarray | None = None,
        counts: np.ndarray | None = None,
        log: np.ndarray | None = None,
        home: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Evolve flat states (B, n) in place and fill what is given; returns the times (B, T)."""
        model, count = self.model, len(flat)
        times = np.empty((count, len(stops)))
        kept = np.empty((count, 0, flat.shape[1]), dtype=np.uint8) if kept is None else kept
        if counts is None:
            counts = np.empty((count, 0, kernels.BOND_TYPES), dtype=np.int64)
        log = np.empty((count, 0, 2), dtype=np.int64) if log is None else log
        model.kernel(
            kernels.lattice_of(shape, box, model.reach, home),
            model.hops(ATTEMPT_RATE, 1 / (BOLTZMANN * self.temperature)),
            flat, stops, max_events, mean_waits, rng, times, counts, kept, log,
        )  # fmt: skip
        return times

    def _evolve(
        self,
        states: np.ndarray,
        patch: Patch,
        duration: float,
        max_events: int,
        mean_waits: bool,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        self._check(states, patch)
        wrapped = patch.boundary == "periodic"
        if wrapped and min(patch.shape) < SMALLEST:
            raise ValueError(f"patch shape = {patch.shape}: sides must be >= {SMALLEST} to wrap")
        part = patch.extract(states) if wrapped else np.array(states, order="C")
        part = part.astype(np.uint8, copy=False)
        flat, shape = part.reshape(len(part), -1), part.shape[1:4]
        start = (0, 0, 0) if wrapped else tuple(np.mod(patch.start, self.cells).tolist())
        box = (*start, *patch.shape)
        elapsed = self._hop(flat, shape, box, np.array([duration]), max_events, mean_waits, rng)
        return patch.insert(states, part) if wrapped else part, elapsed[:, 0]

    def _exchange(
        self,
        flat: np.ndarray,
        patch: Patch,
        sweeps: float,
        records: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Change flat states (B, n) in place; bonds by type (B, records, 6) (0 records: once)."""
        pairs, model = self.model.pairs, self.model.name
        if pairs is None:
            raise ValueError(f"barrier_model = {model!r}: exchanges need pair energies")
        if patch.boundary == "periodic":
            raise ValueError("boundary = 'periodic': exchanges are for patches among frozen sites")
        offsets, shells = pairs.neighbours()
        counts = np.empty((len(flat), records, kernels.BOND_TYPES), dtype=np.int64)
        kernels.exchange_inplace(
            kernels.lattice_of(self.lattice_shape, self._box(patch), int(np.abs(offsets).max())),
            offsets, shells, pairs.energies, 1 / (BOLTZMANN * self.temperature),
            math.ceil(2 * sweeps * patch.n_sites), flat, rng, counts,
        )  # fmt: skip
        return counts

    def _box(self, patch: Patch) -> tuple[int, ...]:
        """First cell of a patch, in the lattice, and its cells along each axis."""
        return (*np.mod(patch.start, self.cells).tolist(), *patch.shape)

    def _check(self, states: np.ndarray, *patches: Patch) -> None:
        """The kernels trust shapes and values: here they are looked at."""
        check_states(states, self.state_shape)
        _check_codes(states)
        for patch in patches:
            if patch.lattice_shape != self.lattice_shape:
                raise ValueError(
                    f"patch is of a lattice {patch.lattice_shape}: must be of {self.lattice_shape}"
                )
            if max(patch.shape) > self.cells:
                raise ValueError(
                    f"patch has shape {patch.shape}: sides must be <= cells = {self.cells}"
                )


def _check_codes(states: np.ndarray) -> None:
    """Raise ValueError unless ``states`` are species codes, with which kernels index tables."""
    if states.dtype != np.uint8 or (states > 3).any():
        raise ValueError(
            f"states has dtype {states.dtype} and values {np.unique(states)[-3:]}: must be "
            f"uint8, 0 for a vacancy and 1 to 3 for {', '.join(SPECIES)}"
        )


def _short_range_order(bonds: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """delta_ab (..., 6) from bonds by type (..., 6) and sites by species code (..., 4)."""
    neighbours = bonds * (2, 1, 1, 2, 1, 2)  # a bond between like atoms is a neighbour twice
    with np.errstate(divide="ignore", invalid="ignore"):
        return neighbours / atoms[..., [1, 1, 1, 2, 2, 3]] - 8 / 3
