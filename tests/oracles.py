"""Slow twins of the compiled dynamics, written from the equations of the paper, and z-scores.

Nothing here imports the library. "The paper" is arXiv 2511.12842.
"""

import itertools
import math

import numpy as np
from scipy import stats


def linear_chain(
    states: np.ndarray,
    start: int,
    stop: int,
    *,
    wrapped: bool,
    n_steps: int,
    time_step: float,
    friction: float,
    coupling: float,
    noise: float,
    force: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Euler-Maruyama steps of particles start to stop - 1 among frozen others (paper App. D.2).

    dX_i = [-g X_i + sum over neighbours j of k (X_j - X_i) + F 1(i = first)] dt + s dW_i
    The ends of the chain lack a neighbour. Draws: replica, step, particle.
    """
    n_particles, length = states.shape[1], stop - start
    result = states.copy()
    for x in result:
        for _ in range(n_steps):
            kicks = rng.standard_normal(length)
            moved = []
            for i in range(start, stop):
                if wrapped:
                    neighbours = [start + (i - start + way) % length for way in (-1, 1)]
                else:
                    neighbours = [j for j in (i - 1, i + 1) if 0 <= j < n_particles]
                drift = -friction * x[i] + sum(coupling * (x[j] - x[i]) for j in neighbours)
                drift += force if i == 0 else 0.0
                moved.append(
                    x[i] + time_step * drift + noise * math.sqrt(time_step) * kicks[i - start]
                )
            x[start:stop] = moved
    return result


def curie_weiss_energy(spins: np.ndarray, field: float) -> float:
    """H = -(sum_i s_i)^2 / (2 n) - h sum_i s_i (paper App. D.1)."""
    total = int(spins.sum(dtype=np.int64))
    return -(total**2) / (2 * spins.size) - field * total


def flip_rates(spins: np.ndarray, sites: list[int], temperature: float, field: float) -> np.ndarray:
    """r_i = 1 / (1 + exp(dH_i / T)) of the given spins of one flat state, from the full energy."""
    before, rates = curie_weiss_energy(spins, field), []
    for site in sites:
        flipped = spins.copy()
        flipped[site] *= -1
        change = curie_weiss_energy(flipped, field) - before
        rates.append(1 / (1 + math.exp(change / temperature)))
    return np.array(rates)


def curie_weiss(
    spins: np.ndarray,
    sites: list[int],
    duration: float,
    temperature: float,
    field: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Spin-by-spin rejection-free Monte Carlo of some sites of one flat state (Algorithm 2)."""
    spins, time = spins.copy(), 0.0
    while True:
        rates = flip_rates(spins, sites, temperature, field)
        time += -math.log(1 - rng.random()) / rates.sum()
        if time > duration:
            return spins
        chosen = np.searchsorted(np.cumsum(rates), rng.random() * rates.sum(), side="right")
        spins[sites[chosen]] *= -1


def curie_weiss_lumped(
    n_up: int,
    n_sites: int,
    duration: float,
    temperature: float,
    field: float,
    rng: np.random.Generator,
) -> int:
    """Birth-death chain of the number of up spins; dH of a step from H(S) (paper App. D.1)."""

    def step_rate(count: int, step: int) -> float:
        total, after = 2 * count - n_sites, 2 * (count + step) - n_sites
        change = -(after**2 - total**2) / (2 * n_sites) - field * (after - total)
        candidates = count if step < 0 else n_sites - count
        return candidates / (1 + math.exp(change / temperature))

    time = 0.0
    while True:
        down, up = step_rate(n_up, -1), step_rate(n_up, 1)
        time += -math.log(1 - rng.random()) / (down + up)
        if time > duration:
            return n_up
        n_up += -1 if rng.random() * (down + up) < down else 1


def curie_weiss_generator(
    spins: np.ndarray, sites: list[int], temperature: float, field: float
) -> np.ndarray:
    """Generator Q of the given sites of one flat state, the others frozen, (2^m, 2^m).

    State b of the chain: the up spins of ``sites`` are the bits of b, site 0 highest.
    """
    size = 2 ** len(sites)
    generator = np.zeros((size, size))
    for index, values in enumerate(itertools.product((-1, 1), repeat=len(sites))):
        state = spins.copy()
        state[sites] = values
        rates = flip_rates(state, sites, temperature, field)
        for position, rate in enumerate(rates):
            generator[index, index ^ (1 << (len(sites) - 1 - position))] = rate
        generator[index, index] = -rates.sum()
    return generator


def pattern_of(spins: np.ndarray, sites: list[int]) -> np.ndarray:
    """State of ``curie_weiss_generator`` that each flat state is in, (B, n) -> (B,)."""
    weights = 2 ** np.arange(len(sites))[::-1]
    return (spins[:, sites] > 0) @ weights


def z_of_mean(samples: np.ndarray, expected: np.ndarray | float) -> np.ndarray:
    """(mean - expected) in standard errors of the mean, for independent samples along axis 0."""
    error = samples.std(axis=0, ddof=1) / math.sqrt(len(samples))
    z: np.ndarray = (samples.mean(axis=0) - expected) / error
    return z


def z_of_variance(
    samples: np.ndarray, mean: np.ndarray | float, variance: np.ndarray | float
) -> np.ndarray:
    """As ``z_of_mean`` for the mean squared deviation from a known mean."""
    return z_of_mean((samples - mean) ** 2, variance)


def p_of_counts(drawn: np.ndarray, law: np.ndarray) -> float:
    """p-value of Pearson's chi-square of drawn states (B,) against their law (S,).

    States expected less than five times are merged into one.
    """
    counts, expected = np.bincount(drawn, minlength=len(law)), len(drawn) * law
    rare = expected < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    if expected[-1] < 1e-9 * len(drawn):  # merged states that cannot happen at all
        assert counts[-1] == 0
        counts, expected = counts[:-1], expected[:-1]
    return float(stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue)


def ising_algorithm_2(
    spins: np.ndarray,
    temperature: float,
    field: float,
    time: float,
    rng: np.random.Generator,
    active: np.ndarray | None = None,
) -> tuple[np.ndarray, int]:
    """Rejection-free Monte Carlo of one Ising torus (L, L) up to ``time`` (Algorithm 2).

    r_i = 1 / (1 + exp(dH_i / T)), dH_i = 2 s_i (sum of the four neighbours + h), all computed anew
    for every event. Sites where ``active`` (L, L) is False never flip. On L = 2 a pair of
    neighbours counts twice. Returns the spins and the number of events. Draws: wait, choice.
    """
    spins, elapsed, n_events = np.array(spins, dtype=np.int64), 0.0, 0
    while True:
        neighbours = (
            np.roll(spins, 1, axis=0)
            + np.roll(spins, -1, axis=0)
            + np.roll(spins, 1, axis=1)
            + np.roll(spins, -1, axis=1)
        )
        changes = 2 * spins * (neighbours + field)
        rates = 1 / (1 + np.exp(changes / temperature))
        if active is not None:
            rates = np.where(active, rates, 0.0)
        running = np.cumsum(rates.ravel())
        total = running[-1]
        if total == 0:  # nothing can ever happen
            return spins, n_events
        elapsed += -math.log(1 - rng.random()) / total
        if elapsed > time:
            return spins, n_events
        chosen = np.searchsorted(running, rng.random() * total, side="right")
        spins.flat[chosen] *= -1
        n_events += 1


def predator_prey(
    fields: np.ndarray,
    start: int,
    stop: int,
    kicks: np.ndarray,
    *,
    wrapped: bool,
    time_step: float,
    growth: float,
    threshold: float,
    prey_diffusion: float,
    predator_diffusion: float,
    noise: float,
) -> np.ndarray:
    """Euler-Maruyama steps of cells start to stop - 1 among frozen others (paper Eq. 20, App. E).

    fields (B, n, 2), kicks (B, steps, stop - start, 2) standard normal. Matrices of the second
    difference as the paper writes them, without the cell's length; ends by replication.
    """
    n_cells, cells = fields.shape[1], np.arange(start, stop)
    left, right = np.maximum(cells - 1, 0), np.minimum(cells + 1, n_cells - 1)
    if wrapped:
        left, right = np.roll(cells, 1), np.roll(cells, -1)
    result = fields.copy()
    for step in range(kicks.shape[1]):
        u, v = result[:, cells, 0], result[:, cells, 1]
        reaction = np.stack([u * (1 - u - v), growth * v * (u - threshold)], axis=-1)
        second = result[:, left] - 2 * result[:, cells] + result[:, right]
        rates = reaction + np.array([prey_diffusion, predator_diffusion]) * second
        moved = result[:, cells] + time_step * rates
        moved = moved + noise * math.sqrt(time_step) * kicks[:, step]
        result[:, cells] = np.abs(moved)
    return result


def maximum_mean_discrepancy(
    x: np.ndarray, y: np.ndarray, bandwidths: tuple[float, ...], biased: bool
) -> float:
    """Squared MMD of a mixture of Gaussian kernels, pair by pair (paper Sec. III.1)."""

    def mean_kernel(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        values = []
        for i, j in itertools.product(range(len(a)), range(len(b))):
            if biased or not same or i != j:
                square = float(np.sum((a[i] - b[j]) ** 2))
                values.append(np.mean([math.exp(-square / (2 * s * s)) for s in bandwidths]))
        return float(np.mean(values))

    return mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
