"""The Ising model on a square lattice with Glauber dynamics (paper Sec. III.2)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np
from scipy.special import expit

from macrodyn_lib.kernels import ising as kernels
from macrodyn_lib.kernels import multispin
from macrodyn_lib.lattice import Patch
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.records import Trajectories
from macrodyn_lib.systems.base import (
    UNLIMITED,
    MicroscopicSystem,
    check_integer,
    check_number,
    check_states,
    check_times,
)
from macrodyn_lib.systems.spins import SpinSystem

WORD = 64  # replicas per machine word in multi-spin coding
NEIGHBOUR_SUMS = 2 * np.arange(5) - 4  # of 4 spins, by how many of them are up


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ising(SpinSystem):
    """H = -sum_<ij> s_i s_j - h sum_i s_i; spin i flips at rate 1 / (1 + exp(dH_i / T)).

    side: side^2 spins on a periodic square lattice, each bond counted once; temperature T > 0 and
    field h in units of the coupling J = 1 (k_B = 1); unit of time: one attempted flip per spin.
    States are int8 +-1, (B, side, side). Observables: the magnetization M, mean of s_i, and the
    domain-wall density rho, the fraction of misaligned bonds (at h = 0 the energy per site is
    -2 + 4 rho).

    Source: paper Eq. 23, 24 and Algorithm 2; facts on conventions in docs/decisions.md.
    """

    temperature: float = 2.5

    observable_names: ClassVar[tuple[str, ...]] = ("M", "rho")
    interaction_range: ClassVar[int | None] = 1
    smallest_side: ClassVar[int] = 2

    def observables(self, states: np.ndarray) -> np.ndarray:
        """(B, *any lattice) -> (B, 2): M and rho; the lattice is taken as periodic."""
        counts = np.empty((len(states), 2), dtype=np.int64)
        kernels.count_batch(np.ascontiguousarray(states, dtype=np.int8), counts)
        return self._observables_of(counts, math.prod(states.shape[1:]))

    def simulate(
        self,
        states: np.ndarray,
        times: np.ndarray,
        rng: np.random.Generator,
        *,
        keep_states: bool = False,
        multispin: bool = False,
        description: str | None = None,
    ) -> Trajectories:
        """Continuous-time Glauber dynamics from time 0; exact at every time of ``times``.

        Default: the n-fold way, replicas independent. ``multispin``: some 15 times faster for many
        replicas; each replica has exactly the same law, but every 64 in a row share the order and
        the times of their attempts, so averages over replicas have standard errors over words:
        rows 0 to 63, 64 to 127, ... are independent of each other.
        """
        self._check(states)
        times = check_times(times)
        if multispin:
            return self._simulate_words(states, times, rng, keep_states, description)
        rates, n_kept = self._rates(), len(times) if keep_states else 0

        def run(rows: slice, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            batch = np.ascontiguousarray(states[rows], dtype=np.int8)
            counts = np.empty((len(batch), len(times), 2), dtype=np.int64)
            kept = np.empty((len(batch), n_kept, *self.lattice_shape), dtype=np.int8)
            kernels.simulate(batch, rates, times, generator, counts, kept)
            return counts, kept

        parts = map_chunks(run, len(states), rng, chunk=8, description=description)
        return self._trajectories(times, parts, keep_states)

    def evolve_patch_and_expect(
        self, states: np.ndarray, patch: Patch, duration: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ``evolve_patch``; also the change of (M, rho) that the rates promise along each path.

        int_0^dt b(x_s) ds with b = sum over sites i of the patch of r_i [phi(x^i) - phi(x)].

        Returns: the states, and (B, 2).
        Raises:  ValueError: the patch wraps on itself, where rates are not those of the lattice.
        """
        check_number("duration", duration, above=0)
        if patch.boundary == "periodic":
            raise ValueError("boundary = 'periodic': no changes can be expected; must be 'ghost'")
        occupation = np.empty((len(states), kernels.CLASSES))
        evolved, _ = self._evolve(states, patch, duration, UNLIMITED, rng, occupation)
        return evolved, occupation * self._rates() @ self._jumps()

    def relax_patches(
        self,
        states: np.ndarray,
        patches: Sequence[Patch],
        duration: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Glauber dynamics in one patch after the other, 64 replicas at once (multi-spin)."""
        if any(patch.boundary == "periodic" for patch in patches):
            return MicroscopicSystem.relax_patches(self, states, patches, duration, rng)
        self._check(states, patches)
        check_number("duration", duration, above=0)
        if len(patches) == 0:
            return states
        words = _pack(states)
        boxes = np.array([(*np.mod(patch.start, self.side), *patch.shape) for patch in patches])
        means = duration * boxes[:, 2] * boxes[:, 3]
        attempts = rng.poisson(means, size=(len(words), len(boxes)))
        multispin.relax_boxes(words, boxes, self._thresholds(), attempts, _seeds(words, rng))
        return _unpack(words, len(states))

    def relaxing_rates(
        self,
        states: np.ndarray,
        patches: Sequence[Patch],
        duration: float,
        rounds: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Rounds of ``relax_patches``, with the rates after each of them; no state is kept.

        Many records of (M, rho) and their rates cost little beside the relaxation itself.

        Returns: the last states, and of all rounds the observables (B, rounds, 2) and their
                 ``rate_moments``, (B, rounds, 2) and (B, rounds, 2, 2).
        """
        self._check(states, patches)
        check_number("duration", duration, above=0)
        check_integer("rounds", rounds)
        words = _pack(states)
        boxes = np.array([(*np.mod(patch.start, self.side), *patch.shape) for patch in patches])
        means = duration * boxes[:, 2] * boxes[:, 3]
        attempts = rng.poisson(means, size=(len(words), rounds, len(boxes)))
        counts = np.empty((len(words), WORD, rounds, kernels.CLASSES), dtype=np.int64)
        seeds = _seeds(words, rng)
        multispin.relax_and_count(words, boxes, self._thresholds(), attempts, seeds, counts)
        counts = counts.reshape(-1, rounds, kernels.CLASSES)[: len(states)]
        drift, covariance = self._moments_of(counts)
        up = counts[..., 5:].sum(axis=-1)
        misaligned = counts @ np.concatenate([np.arange(5), 4 - np.arange(5)]) // 2
        observables = self._observables_of(np.stack([up, misaligned], axis=-1), self.n_sites)
        return _unpack(words, len(states)), (observables, drift, covariance)

    def rate_moments(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Drift and covariance rate of (M, rho) of each state, computed from the flip rates.

            b = sum_i r_i [phi(x^i) - phi(x)],   S = sum_i r_i [phi(x^i) - phi(x)] [..]'

        Returns: (B, 2) and (B, 2, 2), per unit of time.
        Source:  generator of the jump process; docs/method.md, "Rate increments".
        """
        self._check(states)
        counts = np.empty((len(states), kernels.CLASSES), dtype=np.int64)
        kernels.count_classes(np.ascontiguousarray(states, dtype=np.int8), counts)
        return self._moments_of(counts)

    def wolff_chains(
        self,
        chains: int,
        samples: int,
        rng: np.random.Generator,
        *,
        clusters: int = 10,
        warm_up: int = 200,
        keep_states: bool = False,
        description: str | None = None,
    ) -> Trajectories:
        """Equilibrium samples at zero field by single-cluster updates (Wolff 1989).

        Independent chains start from aligned spins, up or down, make ``warm_up`` updates of
        ``clusters`` clusters each, and record after each further one; "times" count updates, not
        time. From random spins the first clusters would be tiny: at side 128 near T_c thousands
        of them leave the chain disordered, where a hundred forget the aligned start.

        Raises: ValueError: the field is not zero.
        """
        if self.field != 0:
            raise ValueError(f"field = {self.field}: cluster updates need field = 0")
        for name, value in (("chains", chains), ("samples", samples), ("clusters", clusters)):
            check_integer(name, value)
        check_integer("warm_up", warm_up, at_least=0)
        probability = -math.expm1(-2 / self.temperature)

        def run(rows: slice, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            spins = np.full(self.lattice_shape, generator.choice([-1, 1]), dtype=np.int8)
            counts = np.empty((1, samples, 2), dtype=np.int64)
            kept = np.empty((1, samples if keep_states else 0, *self.lattice_shape), np.int8)
            kernels.flip_wolff_clusters(spins, probability, warm_up * clusters, generator)
            for index in range(samples):
                kernels.flip_wolff_clusters(spins, probability, clusters, generator)
                counts[0, index] = kernels.count_up_and_misaligned(spins)
                if keep_states:
                    kept[0, index] = spins
            return counts, kept

        parts = map_chunks(run, chains, rng, chunk=1, description=description)
        return self._trajectories(np.arange(samples, dtype=np.float64), parts, keep_states)

    def _simulate_words(
        self,
        states: np.ndarray,
        times: np.ndarray,
        rng: np.random.Generator,
        keep_states: bool,
        description: str | None,
    ) -> Trajectories:
        thresholds, n_kept = self._thresholds(), len(times) if keep_states else 0
        means = self.n_sites * np.diff(times, prepend=0.0)

        def run(rows: slice, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            count = len(states[rows])
            words = _pack(states[rows])
            attempts = generator.poisson(means, size=(len(words), len(times)))
            counts = np.empty((len(words), WORD, len(times), 2), dtype=np.int64)
            kept = np.empty((len(words), n_kept, *self.lattice_shape), dtype=np.uint64)
            seeds = _seeds(words, generator)
            multispin.simulate(words, thresholds, attempts, seeds, counts, kept)
            spins = np.empty((count, n_kept, *self.lattice_shape), dtype=np.int8)
            for index in range(n_kept):
                spins[:, index] = _unpack(kept[:, index], count)
            return counts.reshape(len(words) * WORD, len(times), 2)[:count], spins

        parts = map_chunks(run, len(states), rng, chunk=WORD, description=description)
        return self._trajectories(times, parts, keep_states)

    def _trajectories(
        self, times: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]], keep_states: bool
    ) -> Trajectories:
        counts = np.concatenate([part[0] for part in parts])
        return Trajectories(
            times=times,
            observables=self._observables_of(counts, self.n_sites),
            states=np.concatenate([part[1] for part in parts]) if keep_states else None,
        )

    def _observables_of(self, counts: np.ndarray, n_sites: int) -> np.ndarray:
        return counts * (2 / n_sites, 1 / (2 * n_sites)) - (1.0, 0.0)

    def _moments_of(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Drift and covariance rate by how many spins are in each class, (..., 10)."""
        jumps = self._jumps()
        squares = jumps[:, :, None] * jumps[:, None, :]
        weights = counts * self._rates()
        return weights @ jumps, np.tensordot(weights, squares, axes=1)

    def _check(self, states: np.ndarray, patches: Sequence[Patch] = ()) -> None:
        """The kernels trust shapes and values: here they are looked at."""
        check_states(states, self.lattice_shape)
        if not (np.abs(states) == 1).all():
            raise ValueError(f"states has values {np.unique(states)[:5]}: spins must be -1 or 1")
        for patch in patches:
            if patch.lattice_shape != self.lattice_shape or max(patch.shape) > self.side:
                raise ValueError(
                    f"patch {patch.shape} is of a lattice {patch.lattice_shape}: must be of "
                    f"{self.lattice_shape}"
                )

    def _evolve(
        self,
        states: np.ndarray,
        patch: Patch,
        duration: float,
        max_events: int,
        rng: np.random.Generator,
        occupation: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        self._check(states, [patch])
        evolved = np.array(states, dtype=np.int8, order="C")
        elapsed = np.empty(len(states))
        wrapped = patch.boundary == "periodic"
        if wrapped and min(patch.shape) < 2:
            raise ValueError(f"patch shape = {patch.shape}: sides must be >= 2 to wrap on itself")
        row, column = (first % self.side for first in patch.start)
        height, width = patch.shape
        box = (row, column, height, width)
        if occupation is None:
            occupation = np.empty((0, kernels.CLASSES))
        kernels.evolve_box_inplace(
            evolved, box, wrapped, self._rates(), duration, max_events, rng, elapsed, occupation
        )
        return evolved, elapsed

    def _up_probabilities(self) -> np.ndarray:
        """Heat bath: probability of up after an attempt, by how many neighbours are up, (5,)."""
        return np.asarray(expit(2 * (NEIGHBOUR_SUMS + self.field) / self.temperature))

    def _rates(self) -> np.ndarray:
        """Flip rates by class, (10,): spins down with 0 to 4 neighbours up, then spins up."""
        local_field = 2 * (NEIGHBOUR_SUMS + self.field) / self.temperature
        return np.concatenate([expit(local_field), expit(-local_field)])

    def _jumps(self) -> np.ndarray:
        """Change of (M, rho) by a flip, by class, (10, 2)."""
        # a spin down with k neighbours up turns 2 - k ... of its 4 bonds: aligned 4 - k become k
        down = np.column_stack([np.full(5, 2.0), -NEIGHBOUR_SUMS / 2.0])
        return np.concatenate([down, -down]) / self.n_sites

    def _thresholds(self) -> np.ndarray:
        """Bits of the five probabilities, highest first, each spread over a word: (64, 5)."""
        scaled = [min(int(p * 2.0**64), 2**64 - 1) for p in self._up_probabilities()]
        bits = np.array([[value >> (63 - bit) & 1 for value in scaled] for bit in range(64)])
        return np.where(bits == 1, np.uint64(2**64 - 1), np.uint64(0))


def _pack(states: np.ndarray) -> np.ndarray:
    """Spins (B, R, C) to words (ceil(B / 64), R, C) uint64; the first replica fills what is left.

    Replica 64 w + k is bit k of word w.
    """
    missing = -len(states) % WORD
    up = np.concatenate([states, np.repeat(states[:1], missing, axis=0)]) > 0
    octets = np.packbits(up, axis=0, bitorder="little").reshape(-1, 8, *states.shape[1:])
    return np.ascontiguousarray(np.moveaxis(octets, 1, -1)).view("<u8")[..., 0].astype(np.uint64)


def _unpack(words: np.ndarray, count: int) -> np.ndarray:
    """Words (W, R, C) to the spins of the first ``count`` replicas, int8."""
    octets = words.astype("<u8")[..., None].view(np.uint8)
    octets = np.moveaxis(octets, -1, 1).reshape(-1, *words.shape[1:])
    up = np.unpackbits(octets, axis=0, count=count, bitorder="little")
    return (2 * up.astype(np.int8) - 1).astype(np.int8)


def _seeds(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(2**64, size=(len(words), 4), dtype=np.uint64)
