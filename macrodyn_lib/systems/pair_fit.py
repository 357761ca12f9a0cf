"""Fit the embedded pair model to the network: ``python -m macrodyn_lib.systems.pair_fit [FILE]``.

A pair model says  E = E0 + dH / 2  for a hop and  E' = E0 - dH / 2  for its reverse. So E - E' is
fitted by pair energies, and (E + E') / 2 by energies of the saddle: two linear least squares. The
reverse hop is looked at by the network from the other end; its own E - E' is no energy difference
exactly, and what is left over of it is part of the residual.

Needs the network's weights and some two minutes; writes the same file again from the same seed.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from macrodyn_lib.kernels.vacancy import DIRECTIONS
from macrodyn_lib.randomness import stream
from macrodyn_lib.systems.barriers import (
    PAIR_FILE,
    BarrierModel,
    PairEnergies,
    SaddleEnergies,
    barrier_model,
    linear_model,
    window_offsets,
    write_pair_coefficients,
)
from macrodyn_lib.systems.nbmota import NbMoTa

SHELLS = (3, 4, 8, 11, 12)  # the next three change the error of E - E' by 1 in 50
FARTHEST = 27  # of the orbits about a saddle; those beyond change nothing
TEMPERATURES = (600, 800, 1000, 1200, 1500, 2000, 2500, 3000)
SNAPSHOTS = 40  # at each temperature, and four times as many random solutions
MOVES = 8  # places at which the vacancy is put in each snapshot
HELD_OUT = 0.2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hops:
    """Barriers (N,) of hops and of their reverse, eV, and what surrounds them.

    species (N,) code of the hopping atom; near (N, W): species codes at the offsets from the
    vacancy, mirrored so that the hop points to (1, 1, 1).
    """

    forward: np.ndarray
    backward: np.ndarray
    species: np.ndarray
    surroundings: np.ndarray

    def select(self, rows: np.ndarray) -> "Hops":
        columns = {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}
        return Hops(**columns)


def saddle_offsets() -> np.ndarray:
    """All sites the pair model looks at for a hop to (1, 1, 1), but for the hopping atom."""
    offsets = window_offsets(SHELLS[-1], np.array([(0, 0, 0), (1, 1, 1)]))
    return offsets[(offsets != 1).any(axis=1)]


def collect_hops(model: BarrierModel, states: np.ndarray) -> Hops:
    """All eight hops of the first vacancy of each state (B, cells, cells, cells, 2)."""
    near, extents = saddle_offsets(), 2 * np.array(states.shape[1:4])
    forward, backward, species, surroundings = [], [], [], []
    for state in states:

        def at(voxels: np.ndarray, state: np.ndarray = state) -> np.ndarray:
            x, y, z = np.moveaxis(voxels % extents, -1, 0)
            return np.asarray(state[x // 2, y // 2, z // 2, x % 2])

        *cell, b = np.argwhere(state == 0)[0]
        here = 2 * np.array(cell) + b
        barriers = model.barriers(at(here + model.offsets)[None])[0]
        for d, direction in enumerate(DIRECTIONS):
            # seen from the other end, the atom at home and the vacancy have changed places
            from_there = at(here + direction + model.offsets)
            from_there[7 - d] = at(here + direction)
            forward.append(barriers[d])
            backward.append(model.barriers(from_there[None])[0, 7 - d])
            species.append(at(here + direction))
            surroundings.append(at(here + near * direction))
    columns = (np.array(column) for column in (forward, backward, species, surroundings))
    return Hops(
        **dict(zip(("forward", "backward", "species", "surroundings"), columns, strict=True))
    )


def fit_pair_model(hops: Hops) -> tuple[PairEnergies, SaddleEnergies]:
    """Least squares, of smallest norm where the data leave a choice.

    Energies of vacancies among themselves are not in the data: they are such that on average over
    species vacancies neither attract nor repel each other; at a saddle a vacancy counts as the mean
    of the three species.
    """
    near = saddle_offsets()
    here, there = np.square(near).sum(axis=1), np.square(near - 1).sum(axis=1)
    kinds = np.stack([hops.surroundings == a for a in (1, 2, 3)], axis=-1)  # (N, W, 3)
    hopping = np.stack([hops.species == a for a in (1, 2, 3)], axis=-1)  # (N, 3)

    upper = [(a, b) for a in range(3) for b in range(a, 3)]
    columns = []
    for squared in SHELLS:
        gained = kinds[:, here == squared].sum(axis=1) - kinds[:, there == squared].sum(
            axis=1, dtype=int
        )
        outer = hopping[:, :, None] * gained[:, None]
        columns += [outer[:, a, b] + (outer[:, b, a] if a != b else 0) for a, b in upper]
        columns += list(-gained.T)  # what the vacancy leaves behind
    solution = np.linalg.lstsq(np.column_stack(columns), hops.forward - hops.backward)[0]
    energies = np.zeros((len(SHELLS), 4, 4))
    for shell, values in enumerate(solution.reshape(len(SHELLS), 9)):
        for (a, b), value in zip(upper, values[:6], strict=True):
            energies[shell, a + 1, b + 1] = energies[shell, b + 1, a + 1] = value
        energies[shell, 0, 1:] = energies[shell, 1:, 0] = values[6:]
        atoms = energies[shell, 1:, 1:].mean()
        energies[shell, 0, 0] = 2 * values[6:].mean() - atoms

    ends = np.sort(np.column_stack([here, there]), axis=1)
    orbits = sorted({(int(a), int(b)) for a, b in ends if b <= FARTHEST})
    constants, saddle = np.empty(3), np.empty((len(orbits), 3, 4))
    counts = [kinds[:, (ends == orbit).all(axis=1)].sum(axis=1) for orbit in orbits]
    mean = (hops.forward + hops.backward) / 2
    for a in range(3):
        rows = hops.species == a + 1
        design = np.column_stack([np.ones(rows.sum()), *(count[rows] for count in counts)])
        solution = np.linalg.lstsq(design, mean[rows])[0]
        constants[a] = solution[0]
        saddle[:, a, 1:] = solution[1:].reshape(len(orbits), 3)
    saddle[:, :, 0] = saddle[:, :, 1:].mean(axis=2)
    return (
        PairEnergies(shells=SHELLS, energies=energies.round(9)),
        SaddleEnergies(
            orbits=tuple(orbits), constants=constants.round(9), energies=saddle.round(9)
        ),
    )


def quality(model: BarrierModel, hops: Hops) -> dict[str, tuple[float, float]]:
    """R^2 and root mean square error, eV, of barriers, of E - E' and of (E + E') / 2."""
    windows = np.ones((len(hops.species), len(model.offsets)), dtype=np.uint8)
    number = {tuple(site): index for index, site in enumerate(model.offsets.tolist())}
    for column, site in enumerate(saddle_offsets().tolist()):
        windows[:, number[tuple(site)]] = hops.surroundings[:, column]
    windows[:, 7] = hops.species  # the hop to (1, 1, 1); the other sites do not matter to it
    forward = model.barriers(windows)[:, 7]
    mirrored = windows.copy()  # the same hop from the other end: sites r and (1, 1, 1) - r
    for column, site in enumerate(saddle_offsets().tolist()):
        mirrored[:, number[tuple(1 - c for c in site)]] = hops.surroundings[:, column]
    backward = model.barriers(mirrored)[:, 7]
    result = {}
    for name, truth, fitted in (
        ("barriers", hops.forward, forward),
        ("E - E'", hops.forward - hops.backward, forward - backward),
        ("(E + E') / 2", (hops.forward + hops.backward) / 2, (forward + backward) / 2),
    ):
        error = float(np.square(truth - fitted).mean())
        result[name] = (1 - error / float(truth.var()), error**0.5)
    return result


def sampled_states(rng: np.random.Generator) -> np.ndarray:
    """1024 sites along runs with the network, and random ones, the vacancy moved about."""
    system = NbMoTa(cells=8)
    states = [system.initial_states(4 * SNAPSHOTS, rng)]
    for temperature in tqdm(TEMPERATURES, desc="runs"):
        at = dataclasses.replace(system, temperature=temperature)
        start = at.initial_states(1, rng)
        events = 100_000 if temperature < 1500 else 20_000
        kept = at.simulate_events(start, events, SNAPSHOTS, rng, keep_states=True)[2]
        assert kept is not None  # keep_states
        states.append(kept[0])
    moved = np.repeat(np.concatenate(states), MOVES, axis=0)
    for state in moved.reshape(len(moved), -1):
        vacancy, other = np.flatnonzero(state == 0)[0], rng.integers(len(state))
        state[vacancy], state[other] = state[other], state[vacancy]
    return moved


def main(path: Path) -> None:
    rng = stream(0, "pair model")
    network = barrier_model("network")
    states = sampled_states(rng)
    hops = collect_hops(network, states)
    # whole snapshots are held out, with all places of the vacancy
    held_out = np.repeat(rng.random(len(states) // MOVES) < HELD_OUT, MOVES * len(DIRECTIONS))
    pairs, saddles = fit_pair_model(hops.select(~held_out))
    scores = quality(linear_model("pair", pairs, saddles), hops.select(held_out))
    lines = [
        "Pair model of NbMoTa: E = E0 + dH / 2, fitted to the barriers of the published network.",
        "Written by macrodyn_lib.systems.pair_fit; energies in eV, distances squared in voxels^2",
        "(half a lattice parameter, 1.62 Angstrom).",
        "  pair SHELL a b V          H = sum over pairs of V",
        "  constant a c              E0 = c + sum over sites of e",
        "  saddle NEAR FAR a b e     a hops; b at these distances from the two ends",
        f"{(~held_out).sum()} hops; quality on {held_out.sum()} others, of other snapshots:",
        *(f"  {name:14} R^2 {r2:.4f}, error {rmse:.4f} eV" for name, (r2, rmse) in scores.items()),
        "",
    ]
    write_pair_coefficients(path, pairs, saddles, "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else str(PAIR_FILE)))
