"""Curie-Weiss model: every spin sees the mean of all (paper App. D.1)."""

import dataclasses
import math
from typing import ClassVar, final

import numpy as np
from scipy.special import expit

from macrodyn_lib.kernels import curie_weiss as kernels
from macrodyn_lib.lattice import Patch
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.records import Trajectories
from macrodyn_lib.systems.base import UNLIMITED, check_states, check_times
from macrodyn_lib.systems.spins import SpinSystem


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CurieWeiss(SpinSystem):
    """H = -(1/2n) (sum_i s_i)^2 - h sum_i s_i; spin i flips at rate 1 / (1 + exp(dH_i / T)).

    side: n = side^2 spins, laid out on a square so that patches mean something;
    temperature T > 0 and field h in units of the coupling J = 1; unit of time: one attempted flip
    per spin. States are int8 +-1, (B, side, side). Observable: the magnetization M.

    Lumping: a flip's rate depends on the spin's value and on the number of up spins alone, so that
    number is a Markov chain by itself. ``simulate`` runs this chain when no states are asked for;
    patches keep their spins. Both have the law of the spin-by-spin process.
    """

    temperature: float = 1.1

    observable_names: ClassVar[tuple[str, ...]] = ("M",)
    observables_are_site_means: ClassVar[bool] = True

    def simulate(
        self,
        states: np.ndarray,
        times: np.ndarray,
        rng: np.random.Generator,
        *,
        keep_states: bool = False,
    ) -> Trajectories:
        """Continuous-time Glauber dynamics from time 0; exact at every time of ``times``."""
        check_states(states, self.lattice_shape)
        times = check_times(times)
        if keep_states:
            return self._simulate_spins(states, times, rng)
        up_counts = _up_counts(states)
        rates = self._rates()

        def run(rows: slice, generator: np.random.Generator) -> np.ndarray:
            counts = np.empty((len(up_counts[rows]), len(times)), dtype=np.int64)
            kernels.simulate_counts(up_counts[rows], self.n_sites, *rates, times, generator, counts)
            return counts

        counts = np.concatenate(map_chunks(run, len(states), rng, chunk=8))
        return Trajectories(times=times, observables=(2 * counts / self.n_sites - 1)[..., None])

    def observables(self, states: np.ndarray) -> np.ndarray:
        return 2 * _up_counts(states)[:, None] / math.prod(states.shape[1:]) - 1

    def _simulate_spins(
        self, states: np.ndarray, times: np.ndarray, rng: np.random.Generator
    ) -> Trajectories:
        whole = Patch(start=(0, 0), shape=self.lattice_shape, lattice_shape=self.lattice_shape)

        def run(rows: slice, generator: np.random.Generator) -> np.ndarray:
            spins = states[rows]
            kept = np.empty((len(spins), len(times), *self.lattice_shape), dtype=np.int8)
            for index, duration in enumerate(np.diff(times, prepend=0.0)):
                spins = self._evolve(spins, whole, float(duration), UNLIMITED, generator)[0]
                kept[:, index] = spins
            return kept

        kept = np.concatenate(map_chunks(run, len(states), rng, chunk=64))
        flat = kept.reshape(-1, *self.lattice_shape)
        observables = self.observables(flat).reshape(len(states), len(times), 1)
        return Trajectories(times=times, observables=observables, states=kept)

    def _evolve(
        self,
        states: np.ndarray,
        patch: Patch,
        duration: float,
        max_events: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        check_states(states, self.lattice_shape)
        values = patch.extract(states)
        spins = values.reshape(len(states), -1)
        elapsed = np.empty(len(states))
        # a patch wrapped on itself is a small system with a mean field of its own
        wrapped = patch.boundary == "periodic"
        rates = self.resized(patch.shape[0])._rates() if wrapped else self._rates()
        kernels.evolve_spins_inplace(
            spins, _up_counts(values if wrapped else states), *rates, duration, max_events, rng,
            elapsed,
        )  # fmt: skip
        return patch.insert(states, spins.reshape(values.shape)), elapsed

    def _rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Flip rates of one up spin and of one down spin, by the number of up spins, (n + 1,)."""
        n = self.n_sites
        local_field = (2 * np.arange(n + 1) - n) / n + self.field
        # flipping s changes H by 2 s (M + h) - 2/n; the last term is the spin's own share of M
        up_spin, down_spin = (
            expit(-(2 * spin * local_field - 2 / n) / self.temperature) for spin in (1, -1)
        )
        return up_spin, down_spin


def _up_counts(states: np.ndarray) -> np.ndarray:
    counts = np.empty(len(states), dtype=np.int64)
    kernels.count_up(np.ascontiguousarray(states).reshape(len(states), -1), counts)
    return counts
