"""Rejection-free kinetic Monte Carlo of spins that all see the same mean field.

The rate of a flip depends on the spin's own value and on the number of up spins N of the whole
lattice alone, so both rates come in as tables over N: ``up_spin_rates[N]``, ``down_spin_rates[N]``.
"""

import math

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def evolve_spins_inplace(
    spins: np.ndarray,
    up_counts: np.ndarray,
    up_spin_rates: np.ndarray,
    down_spin_rates: np.ndarray,
    duration: float,
    max_events: int,
    rng: np.random.Generator,
    elapsed: np.ndarray,
) -> None:
    """Evolve the given spins of each replica; all other spins of the lattice stay frozen.

    Two buckets (up, down) in one index array make an event O(1). Stops exactly at ``duration``,
    or with ``max_events`` flips, whichever comes first.

    spins (B, m) int8, changed; up_counts (B,) int64, up spins of the whole lattice at the start;
    tables (n + 1,); elapsed (B,), written: the physical time that passed.
    """
    n_spins = spins.shape[1]
    order = np.empty(n_spins, dtype=np.int64)
    for replica in range(spins.shape[0]):
        n_up = 0
        for site in range(n_spins):  # without a branch: spins are as good as random
            is_up = int(spins[replica, site] > 0)
            order[(n_up if is_up else n_spins - 1 - site + n_up)] = site
            n_up += is_up
        lattice_up = up_counts[replica]
        time, events = 0.0, 0
        while events < max_events:
            rate_up = n_up * up_spin_rates[lattice_up]
            rate = rate_up + (n_spins - n_up) * down_spin_rates[lattice_up]
            # at very low temperature every rate may underflow: then nothing ever happens
            waiting_time = -math.log(1.0 - rng.random()) / rate if rate > 0 else math.inf
            if time + waiting_time >= duration:  # also where both are infinite
                time = duration
                break
            time += waiting_time
            events += 1
            if rng.random() * rate < rate_up:
                chosen = int(rng.random() * n_up)
                n_up -= 1
                lattice_up -= 1
                order[chosen], order[n_up] = order[n_up], order[chosen]
                spins[replica, order[n_up]] = -1
            else:
                chosen = n_up + int(rng.random() * (n_spins - n_up))
                order[chosen], order[n_up] = order[n_up], order[chosen]
                spins[replica, order[n_up]] = 1
                n_up += 1
                lattice_up += 1
        elapsed[replica] = time


@numba.njit(nogil=True, cache=True)
def count_up(spins: np.ndarray, counts: np.ndarray) -> None:
    """Number of up spins of each replica: spins (B, m) int8, counts (B,) int64, written."""
    for replica in range(spins.shape[0]):
        total = 0
        for site in range(spins.shape[1]):
            total += spins[replica, site] > 0
        counts[replica] = total


@numba.njit(nogil=True, cache=True)
def simulate_counts(
    up_counts: np.ndarray,
    n_sites: int,
    up_spin_rates: np.ndarray,
    down_spin_rates: np.ndarray,
    times: np.ndarray,
    rng: np.random.Generator,
    recorded: np.ndarray,
) -> None:
    """Birth-death chain of the number of up spins: the exact lumping of the spin dynamics.

    up_counts (B,) int64 at time 0; times (T,) ascending, >= 0; recorded (B, T) int64, written:
    the count at each time.
    """
    for replica in range(up_counts.shape[0]):
        count = up_counts[replica]
        time, index = 0.0, 0
        while index < times.shape[0]:
            rate_up = count * up_spin_rates[count]
            rate = rate_up + (n_sites - count) * down_spin_rates[count]
            time += -math.log(1.0 - rng.random()) / rate if rate > 0 else math.inf
            while index < times.shape[0] and times[index] < time:
                recorded[replica, index] = count
                index += 1
            count += -1 if rng.random() * rate < rate_up else 1
