"""The pair model's law: hops and exchanges against the enumerated Boltzmann law and each other.

Chi-square tests pass for p > 1e-4, their false-alarm rate. The z-scores of short-range order pass
below 3: nine of them, a false alarm in 40.
"""

import dataclasses
import itertools

import numpy as np
import oracles
import pytest

from macrodyn_lib.lattice import Patch
from macrodyn_lib.systems.barriers import PAIR_FILE, read_pair_coefficients
from macrodyn_lib.systems.nbmota import NbMoTa

SYSTEM = NbMoTa(cells=4, temperature=2500.0, barrier_model="pair")
BOX = Patch(start=(3, 1, 2), shape=(1, 2, 2), lattice_shape=(4, 4, 4))  # around the corner
LIKE = [0, 3, 5]  # NbNb, MoMo, TaTa: the other three follow from the sum rules


def arrangements():
    """All placements of 1 vacancy, 1 Nb and 6 Mo on the eight sites of the box, (56, 8)."""
    placed = []
    for vacancy, niobium in itertools.permutations(range(8), 2):
        sites = np.full(8, 2, dtype=np.uint8)
        sites[[vacancy, niobium]] = 0, 1
        placed.append(sites)
    return np.array(placed)


def frozen_surroundings():
    states = SYSTEM.initial_states(1, np.random.default_rng(5))
    states[states == 0] = 3
    return states


def boltzmann_law(temperature):
    """Of the 56 arrangements among frozen surroundings, from H of the whole lattice."""
    pairs, _ = read_pair_coefficients(PAIR_FILE)
    energies = []
    for sites in arrangements():
        state = BOX.insert(frozen_surroundings(), sites.reshape(1, 1, 2, 2, 2))[0]
        grid = oracles.alloy_grid(state)
        energies.append(oracles.pair_energy(grid, pairs.shells, pairs.energies))
    weights = np.exp(-(np.array(energies) - min(energies)) / (oracles.BOLTZMANN * temperature))
    return weights / weights.sum()


def drawn_arrangements(states):
    """Index of the arrangement in the box of each state."""
    digits = 4 ** np.arange(8)
    codes = BOX.extract(states).reshape(len(states), 8).astype(int) @ digits
    known = arrangements().astype(int) @ digits
    order = np.argsort(known)
    return order[np.searchsorted(known[order], codes)]


@pytest.mark.parametrize("moves", ["hops", "exchange"])
def test_box_reaches_the_boltzmann_law(moves):
    """Independent replicas, each after some 200 hops or 30 exchanges per site."""
    system, rng = dataclasses.replace(SYSTEM, relaxation=moves), np.random.default_rng(1)
    start = BOX.insert(frozen_surroundings(), arrangements()[7].reshape(1, 1, 2, 2, 2))
    duration = 1e-8 if moves == "hops" else 30.0
    states = system.relax_patches(np.repeat(start, 4000, axis=0), [BOX], duration, rng)
    drawn = drawn_arrangements(states)
    assert oracles.p_of_counts(drawn, boltzmann_law(2500.0)) > 1e-4
    assert oracles.p_of_counts(drawn, boltzmann_law(1900.0)) < 1e-8  # planted


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
