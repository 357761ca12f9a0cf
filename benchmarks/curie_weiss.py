"""Kinetic Monte Carlo events of the Curie-Weiss model, on one thread.

The plain side is the paper's Algorithm 2 as written: all n rates are computed anew for each event,
in NumPy or (``compiled``) in a numba loop.
"""

import math

import numba
import numpy as np

from macrodyn_lib import CurieWeiss
from macrodyn_lib.kernels import curie_weiss as kernels
from macrodyn_lib.lattice import Patch

SYSTEM = CurieWeiss(side=64)
WHOLE = Patch(start=(0, 0), shape=(64, 64), lattice_shape=(64, 64))
STATE = SYSTEM.initial_states(1, np.random.default_rng(0), magnetization=0.49)


def spins() -> int:
    """Our events that keep every spin."""
    events = 2_000_000
    SYSTEM.evolve_patch_events(STATE, WHOLE, events, np.random.default_rng(1))
    return events


def lumped() -> int:
    """Our events of the number of up spins alone, counted from the exact mean event rate."""
    duration = 1000.0
    counts = np.array([(SYSTEM.n_sites + int(STATE.sum(dtype=int))) // 2])
    recorded = np.empty((1, 1), dtype=np.int64)
    rates = SYSTEM._rates()
    times = np.array([duration])
    kernels.simulate_counts(
        counts, SYSTEM.n_sites, *rates, times, np.random.default_rng(1), recorded
    )
    up = float(counts[0])
    return int(duration * (up * rates[0][counts[0]] + (SYSTEM.n_sites - up) * rates[1][counts[0]]))


def plain() -> int:
    """Algorithm 2 in NumPy."""
    events, rng = 2_000, np.random.default_rng(1)
    s = STATE[0].ravel().astype(np.float64)
    n, time = len(s), 0.0
    for _ in range(events):
        energy_change = 2 * s * (s.mean() + SYSTEM.field) - 2 / n
        rates = 1 / (1 + np.exp(energy_change / SYSTEM.temperature))
        total = rates.sum()
        chosen = np.searchsorted(np.cumsum(rates), rng.random() * total)
        s[chosen] *= -1
        time -= math.log(1 - rng.random()) / total
    return events


def compiled() -> int:
    """Algorithm 2 in a compiled loop."""
    events = 20_000
    s = STATE[0].ravel().astype(np.float64)
    _compiled_events(s, SYSTEM.field, SYSTEM.temperature, events, np.random.default_rng(1))
    return events


@numba.njit
def _compiled_events(
    s: np.ndarray, field: float, temperature: float, events: int, rng: np.random.Generator
) -> float:
    n, time = len(s), 0.0
    cumulative = np.empty(n)
    for _ in range(events):
        magnetization = s.mean()
        total = 0.0
        for i in range(n):
            change = 2 * s[i] * (magnetization + field) - 2 / n
            total += 1 / (1 + math.exp(change / temperature))
            cumulative[i] = total
        s[np.searchsorted(cumulative, rng.random() * total)] *= -1
        time -= math.log(1 - rng.random()) / total
    return time
