"""The NbMoTa alloy: events of the vacancy kinetics, T = 2000 K unless a row says otherwise.

The plain side is the published algorithm: for every event the eight barriers of every vacancy anew,
by the dense network on 729 inputs, in NumPy and single precision. Rows of the network need its
weights; lattices have evolved for 20 000 hops per vacancy before the clock starts.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np

from benchmarks.timing import Comparison, compare
from macrodyn_lib import NbMoTa
from macrodyn_lib.errors import WeightsNotFoundError
from macrodyn_lib.kernels.vacancy import DIRECTIONS
from macrodyn_lib.systems import barriers
from macrodyn_lib.systems.nbmota import ATTEMPT_RATE, BOLTZMANN

PAIR = NbMoTa(cells=8, barrier_model="pair")
QUARTER_TURNS = {(-1, -1): 2, (-1, 1): -1, (1, -1): 1, (1, 1): 0}


@cache
def evolved(cells: int, temperature: float = 2000.0) -> np.ndarray:
    """One state, (1, cells, cells, cells, 2), by the pair model."""
    system = NbMoTa(cells=cells, temperature=temperature, barrier_model="pair")
    rng = np.random.default_rng(0)
    events = min(20_000 * system.n_vacancies, 1_000_000)
    run = system.simulate_events(system.initial_states(1, rng), events, 1, rng, keep_states=True)
    assert run[2] is not None  # keep_states
    return run[2][:, 0]


def ours(system: NbMoTa, events: int) -> int:
    states = evolved(system.cells, system.temperature)
    system.simulate_events(states, events, 1, np.random.default_rng(1))
    return events


def plain(cells: int, temperature: float, events: int) -> int:
    """The published algorithm, on the grid of voxels."""
    weights = barriers.load_weights()
    layers = [
        (
            weights[f"dense{layer}_weight"], weights[f"dense{layer}_bias"],
            *(weights[f"bn{layer}_{part}"] for part in ("gamma", "beta", "mean", "var")),
        )
        for layer in range(4)
    ]  # fmt: skip
    state, rng, time = evolved(cells, temperature)[0], np.random.default_rng(1), 0.0
    grid = np.zeros((2 * cells,) * 3, dtype=np.float32)
    grid[::2, ::2, ::2], grid[1::2, 1::2, 1::2] = state[..., 0], state[..., 1]
    offsets = np.moveaxis(np.indices((9, 9, 9)), 0, -1).reshape(729, 3) - 4
    inside = (np.square(offsets).sum(axis=1) <= 21).astype(np.float32)
    numbers = np.arange(729).reshape(9, 9, 9)
    turned = [np.rot90(numbers, QUARTER_TURNS[i, j])[:, :, ::k].ravel() for i, j, k in DIRECTIONS]
    order = np.array(turned)  # of the 729 inputs, for each direction
    vacancies = np.array([2 * np.array(cell) + b for *cell, b in np.argwhere(state == 0)])
    for _ in range(events):
        x, y, z = np.moveaxis((vacancies[:, None] + offsets) % (2 * cells), -1, 0)
        cubes = (grid[x, y, z] * inside)[:, order]
        x = cubes.reshape(-1, 729)
        blocked = x[:, 81 * 5 + 9 * 5 + 5] == 0
        for weight, bias, gamma, beta, mean, variance in layers:
            x = x @ weight + bias
            x = np.maximum(gamma * (x - mean) / np.sqrt(variance + np.float32(1e-5)) + beta, 0)
        energies = (x @ weights["dense4_weight"] + weights["dense4_bias"])[:, 0].astype(float)
        energies[blocked] = np.inf
        running = np.cumsum(ATTEMPT_RATE * np.exp(-energies / (BOLTZMANN * temperature)))
        v, d = divmod(int(np.searchsorted(running, rng.random() * running[-1])), 8)
        time -= math.log(1 - rng.random()) / running[-1]
        old, new = vacancies[v], (vacancies[v] + DIRECTIONS[d]) % (2 * cells)
        grid[tuple(old)], grid[tuple(new)] = grid[tuple(new)], 0
        vacancies[v] = new
    return events


def _network_rows() -> list[Callable[[], Comparison]]:
    try:
        model = barriers.barrier_model("network")
    except WeightsNotFoundError:
        return []
    network = NbMoTa(cells=8, barrier_model=model)
    no_memory = dataclasses.replace(network, barrier_model=dataclasses.replace(model, memory=0))
    cold, large = dataclasses.replace(network, temperature=800.0), network.resized(16)
    one, eight = partial(plain, 8, 2000.0, 500), partial(plain, 16, 2000.0, 200)
    rows = [
        ("network, 1 vacancy in 1024", partial(ours, network, 50_000), one),
        ("  without memory of windows", partial(ours, no_memory, 20_000), one),
        ("  at 800 K", partial(ours, cold, 100_000), partial(plain, 8, 800.0, 500)),
        ("network, 8 vacancies in 8192", partial(ours, large, 50_000), eight),
        ("pair model, 1 vacancy in 1024", partial(ours, PAIR, 300_000), one),
        ("pair model, 8 vacancies in 8192", partial(ours, PAIR.resized(16), 300_000), eight),
    ]
    sizes = [
        (f"network, n = {2 * cells**3} against n = 8192",
         partial(ours, network.resized(cells), 50_000), partial(ours, large, 50_000))
        for cells in (8, 32, 64)
    ]  # fmt: skip
    return [partial(compare, name, "events/s", *sides) for name, *sides in rows + sizes]


def rows() -> list[Callable[[], Comparison]]:
    """All of them; those of the network only where its weights are."""
    return [
        *_network_rows(),
        *(
            partial(
                compare,
                f"pair model, n = {2 * cells**3} against n = 8192",
                "events/s",
                partial(ours, PAIR.resized(cells), 300_000),
                partial(ours, PAIR.resized(16), 300_000),
            )
            for cells in (8, 32, 64)
        ),
    ]
