"""The pair model's law: hops and exchanges against the enumerated Boltzmann law and each other.

Chi-square tests pass for p > 1e-4, their false-alarm rate. The z-scores of short-range order pass
below 3: nine of them, a false alarm in 40.
"""

import dataclasses

import numpy as np
import oracles
import pytest

from macrodyn_lib.lattice import Patch
from macrodyn_lib.systems.barriers import PAIR_FILE, read_pair_coefficients
from macrodyn_lib.systems.nbmota import NbMoTa

SYSTEM = NbMoTa(cells=4, temperature=2500.0, barrier_model="pair")
BOX = Patch(start=(3, 1, 2), shape=(1, 2, 3), lattice_shape=(4, 4, 4))  # around the corner
LIKE = [0, 3, 5]  # NbNb, MoMo, TaTa: the other three follow from the sum rules


def arrangements():
    """Placements of 1 vacancy, 1 Nb and 10 Mo in the box that hops reach from one of them, (S, 12).

    A site with a single neighbour in the box keeps its atom: who gets in there cannot get out past
    the vacancy. So not all placements are reached.
    """
    cells = np.stack(np.unravel_index(np.arange(12), (*BOX.shape, 2)), axis=1)
    voxels = 2 * cells[:, :3] + cells[:, 3:]
    bonds = (np.abs(voxels[:, None] - voxels[None]) == 1).all(axis=2)
    start = (2, 0, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2)
    reached, waiting = {start}, [start]
    while waiting:
        sites = waiting.pop()
        hole = sites.index(0)
        for neighbour in np.flatnonzero(bonds[hole]):
            moved = list(sites)
            moved[hole], moved[neighbour] = moved[neighbour], 0
            if tuple(moved) not in reached:
                reached.add(tuple(moved))
                waiting.append(tuple(moved))
    return np.array(sorted(reached), dtype=np.uint8)


def frozen_surroundings():
    states = SYSTEM.initial_states(1, np.random.default_rng(5))
    states[states == 0] = 3
    return states


@pytest.fixture(scope="module")
def energies():
    """H of the whole lattice for each arrangement in the box."""
    pairs, _ = read_pair_coefficients(PAIR_FILE)
    result = []
    for sites in arrangements():
        state = BOX.insert(frozen_surroundings(), sites.reshape(1, 1, 2, 3, 2))[0]
        result.append(oracles.pair_energy(oracles.alloy_grid(state), pairs.shells, pairs.energies))
    return np.array(result)


def boltzmann_law(energies, temperature):
    weights = np.exp(-(energies - energies.min()) / (oracles.BOLTZMANN * temperature))
    return weights / weights.sum()


@pytest.mark.parametrize("moves", ["hops", "exchange"])
def test_box_reaches_the_boltzmann_law(moves, energies):
    """Independent replicas, each after some 3000 hops or 30 exchanges per site."""
    system, rng = dataclasses.replace(SYSTEM, relaxation=moves), np.random.default_rng(1)
    start = BOX.insert(frozen_surroundings(), arrangements()[7].reshape(1, 1, 2, 3, 2))
    duration = 2e-7 if moves == "hops" else 30.0
    states = system.relax_patches(np.repeat(start, 3000, axis=0), [BOX], duration, rng)
    digits = 4 ** np.arange(12)
    codes = BOX.extract(states).reshape(len(states), 12).astype(int) @ digits
    known = arrangements().astype(int) @ digits
    among_them = np.isin(codes, known)  # exchanges reach others too
    assert among_them.all() or moves == "exchange"
    order = np.argsort(known)
    drawn = order[np.searchsorted(known[order], codes[among_them])]
    assert oracles.p_of_counts(drawn, boltzmann_law(energies, 2500.0)) > 1e-4
    assert oracles.p_of_counts(drawn, boltzmann_law(energies, 1500.0)) < 1e-8  # planted


@pytest.mark.parametrize("temperature", [1200.0, 2000.0, 3000.0])
def test_hops_and_exchanges_have_the_same_short_range_order(temperature):
    """Time averages of the kinetics against Metropolis exchanges, 250 sites."""
    system = NbMoTa(cells=5, temperature=temperature, barrier_model="pair")
    rng = np.random.default_rng(2)
    start = system.exchange_chains(
        system.initial_states(16, rng), 40, 1, rng, keep_states=True
    ).states[:, -1]
    metropolis = system.exchange_chains(start, 2, 100, rng).observables.mean(axis=1)
    hop = 1 / (8e13 * np.exp(-1.65 / (oracles.BOLTZMANN * temperature)))  # about; E is 1.65 eV
    times = np.linspace(0, 40_000 * hop, 401)[1:]
    kinetics = system.simulate(start, times, rng).observables.mean(axis=1)
    errors = np.sqrt((metropolis.var(axis=0, ddof=1) + kinetics.var(axis=0, ddof=1)) / 16)
    z = ((metropolis.mean(axis=0) - kinetics.mean(axis=0)) / errors)[LIKE]
    assert np.abs(z).max() < 3
    hotter = dataclasses.replace(system, temperature=1.1 * temperature)  # planted
    other = hotter.exchange_chains(start, 2, 100, rng).observables.mean(axis=1)
    errors = np.sqrt((other.var(axis=0, ddof=1) + kinetics.var(axis=0, ddof=1)) / 16)
    assert np.abs((other.mean(axis=0) - kinetics.mean(axis=0)) / errors)[LIKE].max() > 3
