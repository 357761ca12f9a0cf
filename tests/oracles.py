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


HOPS = list(itertools.product((-1, 1), repeat=3))  # in voxels, half a lattice parameter
BOLTZMANN = 8.617333e-5  # eV/K


def alloy_grid(state: np.ndarray) -> np.ndarray:
    """Species codes of one BCC state (X, Y, Z, 2) on its voxels (2 X, 2 Y, 2 Z); -1: no site."""
    grid = np.full([2 * extent for extent in state.shape[:3]], -1)
    grid[::2, ::2, ::2] = state[..., 0]
    grid[1::2, 1::2, 1::2] = state[..., 1]
    return grid


def alloy_state(grid: np.ndarray) -> np.ndarray:
    """The inverse of ``alloy_grid``."""
    return np.stack([grid[::2, ::2, ::2], grid[1::2, 1::2, 1::2]], axis=-1).astype(np.uint8)


def neighbour_shell(grid: np.ndarray, voxel: tuple[int, ...], squared: int) -> list[int]:
    """Species at a squared distance from a voxel, periodic."""
    reach = math.isqrt(squared)
    return [
        int(
            grid[
                tuple((c + o) % extent for c, o, extent in zip(voxel, way, grid.shape, strict=True))
            ]
        )
        for way in itertools.product(range(-reach, reach + 1), repeat=3)
        if sum(o * o for o in way) == squared and len({o % 2 for o in way}) == 1
    ]


def pair_energy(grid: np.ndarray, shells: tuple[int, ...], energies: np.ndarray) -> float:
    """H = sum over pairs of V_shell(a, b), from every site in turn."""
    return sum(
        energies[number, grid[voxel], kind] / 2
        for voxel in map(tuple, np.argwhere(grid >= 0).tolist())
        for number, squared in enumerate(shells)
        for kind in neighbour_shell(grid, voxel, squared)
    )


def network_barriers(
    grid: np.ndarray, vacancy: tuple[int, ...], weights: dict[str, np.ndarray]
) -> np.ndarray:
    """Barriers of the eight hops by the published network: 729 inputs, dense, in float64.

    The 9^3 window holds species codes; voxels beyond 7.5 Angstrom (21 voxels^2), without a site or
    with a vacancy are 0. For each hop it is turned in the xy plane, and flipped along z, so that
    the hop points to (1, 1, 1).
    """
    axes = [np.arange(c - 4, c + 5) % extent for c, extent in zip(vacancy, grid.shape, strict=True)]
    offsets = np.stack(np.meshgrid(*3 * [np.arange(-4, 5)], indexing="ij"))
    window = np.where((offsets**2).sum(axis=0) <= 21, np.maximum(grid[np.ix_(*axes)], 0), 0)
    barriers = []
    for way in HOPS:
        quarter_turns = {(-1, -1): 2, (-1, 1): -1, (1, -1): 1, (1, 1): 0}[way[:2]]
        cube = np.rot90(window, quarter_turns, axes=(0, 1))
        if way[2] < 0:
            cube = cube[:, :, ::-1]
        if cube[5, 5, 5] == 0:
            barriers.append(math.inf)
            continue
        x = cube.ravel().astype(float)
        for layer in range(4):
            x = x @ weights[f"dense{layer}_weight"].astype(float) + weights[f"dense{layer}_bias"]
            gamma, beta, mean, variance = (
                weights[f"bn{layer}_{part}"].astype(float)
                for part in ("gamma", "beta", "mean", "var")
            )
            x = np.maximum(gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta, 0)
        barriers.append(float((x @ weights["dense4_weight"] + weights["dense4_bias"])[0]))
    return np.array(barriers)


def alloy_kmc(
    state: np.ndarray,
    barriers,
    temperature: float,
    events: int,
    rng: np.random.Generator,
    active: np.ndarray | None = None,
    start: tuple[int, ...] = (0, 0, 0),
    mean_waits: bool = False,
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Residence-time algorithm for all vacancies of one BCC state, everything anew each event.

    rate = 1e13 exp(-E / (k_B T)) for ``barriers(grid, voxel)`` (8,); zero onto another vacancy and
    out of the sites where ``active`` (a state of booleans) is False, where vacancies stand still.
    Vacancies are numbered in C order of the cells, counted from ``start``, corner before centre.
    Returns the state, the time of each event, and the events (vacancy, hop). Draws: wait, choice.
    """
    grid, time, times, log = alloy_grid(state), 0.0, [], []
    free = np.ones(grid.shape, bool) if active is None else alloy_grid(active) == 1
    cells = np.argwhere((state == 0) & (True if active is None else active)).tolist()
    cells.sort(key=lambda c: [(c[i] - start[i]) % state.shape[i] for i in range(3)] + [c[3]])
    vacancies = [tuple(int(2 * c + b) for c in cell) for *cell, b in cells]
    for _ in range(events):
        rates = np.zeros((len(vacancies), 8))
        for v, voxel in enumerate(vacancies):
            energies = barriers(grid, voxel)
            for d, way in enumerate(HOPS):
                target = tuple((c + o) % e for c, o, e in zip(voxel, way, grid.shape, strict=True))
                if grid[target] > 0 and free[target]:
                    rates[v, d] = 1e13 * math.exp(-energies[d] / (BOLTZMANN * temperature))
        running = np.cumsum(rates.ravel())
        time += 1 / running[-1] if mean_waits else -math.log(1 - rng.random()) / running[-1]
        chosen = int(np.searchsorted(running, rng.random() * running[-1], side="right"))
        v, d = divmod(chosen, 8)
        voxel = vacancies[v]
        target = tuple((c + o) % e for c, o, e in zip(voxel, HOPS[d], grid.shape, strict=True))
        grid[voxel], grid[target] = grid[target], 0
        vacancies[v] = target
        times.append(time)
        log.append((v, d))
    return alloy_state(grid), np.array(times), log


def saddle_energy(
    grid: np.ndarray,
    vacancy: tuple[int, ...],
    way: tuple[int, ...],
    orbits: tuple[tuple[int, int], ...],
    constants: np.ndarray,
    energies: np.ndarray,
) -> float:
    """E0 of a hop: a constant, and for each site one energy by its distances from the two ends."""
    target = tuple((c + o) % e for c, o, e in zip(vacancy, way, grid.shape, strict=True))
    a = grid[target] - 1
    total = float(constants[a])
    for offset in itertools.product(range(-6, 7), repeat=3):
        here = sum(o * o for o in offset)
        there = sum((o - w) ** 2 for o, w in zip(offset, way, strict=True))
        near_far = (min(here, there), max(here, there))
        if len({o % 2 for o in offset}) == 1 and 0 not in near_far and near_far in orbits:
            site = tuple((c + o) % e for c, o, e in zip(vacancy, offset, grid.shape, strict=True))
            total += energies[orbits.index(near_far), a, grid[site]]
    return total
