"""The Ising model: events, replicas, partial evolution, upsampling and closures.

L = 64, T = 2.5, h = 0.1 unless a row says otherwise; all lattices are equilibrated before the clock
starts. No other Ising code is among the pinned packages: ``heat_bath`` stands in for a peer.
"""

import itertools
import math
import os
from collections.abc import Callable
from functools import cache, partial

import joblib
import numba
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.timing import Comparison, Side, compare
from macrodyn_lib import (
    AutoencoderSettings,
    Ising,
    LocalRelax,
    MicroscopicSystem,
    Patching,
    Snapshots,
    evolve_patches,
    fit_autoencoder,
    upsample,
)
from macrodyn_lib.lattice import Patch
from macrodyn_lib.parallel import map_chunks

SYSTEM = Ising(side=64)
PATCHING = Patching(side=16)
DURATION = 0.5  # of a patch evolution; about 20 events
PATCH_EVENTS = 256  # of a patch in the published protocol
SNAPSHOTS = 6_250  # with 16 patches each: 10^5 patch evolutions
TILE, TILE_DURATION = 16, 6.2  # about 256 events a tile, as published
CLOSURE = AutoencoderSettings(dimension=2, epochs=1)
PAPER = AutoencoderSettings(
    dimension=2, channels=(32, 64, 128), decoder_channels=(128, 64, 32, 16), epochs=1
)


@cache
def equilibrated(system: Ising, count: int) -> np.ndarray:
    """States after 100 time units from M = 0.7; without a field from 300 cluster flips."""
    rng = np.random.default_rng(0)
    if system.field == 0:
        chains = system.wolff_chains(count, 1, rng, warm_up=30, keep_states=True)
        states = chains.snapshots().states
    else:
        states = system.initial_states(count, rng, magnetization=0.7)
    run = system.simulate(states, np.array([100.0]), rng, keep_states=True, multispin=True)
    return run.snapshots().states


# --- events of one lattice ----------------------------------------------------------------------


def n_fold(side: int) -> int:
    """Our events: the same work on any lattice, but for what the processor's cache holds."""
    events = max(2_000_000, 10 * side**2)  # sorting the sites into lists takes 1 % of the time
    system = SYSTEM.resized(side)
    whole = Patch(start=(0, 0), shape=(side, side), lattice_shape=(side, side))
    rng = np.random.default_rng(1)
    system.evolve_patch_events(equilibrated(system, 1), whole, events, rng)
    return events


def _rates(spins: np.ndarray) -> np.ndarray:
    neighbours = sum(np.roll(spins, step, axis) for axis in (-2, -1) for step in (-1, 1))
    rates: np.ndarray = 1 / (
        1 + np.exp(2 * spins * (neighbours + SYSTEM.field) / SYSTEM.temperature)
    )
    return rates


def plain() -> int:
    """Algorithm 2 of the paper in NumPy: all rates anew for each event."""
    events, rng, time = 2_000, np.random.default_rng(1), 0.0
    spins = equilibrated(SYSTEM, 1)[0].astype(np.int64)
    for _ in range(events):
        running = np.cumsum(_rates(spins))
        spins.flat[np.searchsorted(running, rng.random() * running[-1])] *= -1
        time -= math.log(1 - rng.random()) / running[-1]
    return events


@numba.njit
def _rate(spins: np.ndarray, r: int, c: int, field: float, temperature: float) -> float:
    side = len(spins)
    neighbours = (
        spins[r - 1, c]  # index -1 wraps
        + spins[r, c - 1]
        + spins[r + 1 if r + 1 < side else 0, c]
        + spins[r, c + 1 if c + 1 < side else 0]
    )
    return 1 / (1 + math.exp(2 * spins[r, c] * (neighbours + field) / temperature))


@numba.njit
def _fill(spins: np.ndarray, field: float, temperature: float, rates: np.ndarray) -> None:
    for r in range(len(spins)):
        for c in range(len(spins)):
            rates[r, c] = _rate(spins, r, c, field, temperature)


@numba.njit
def _plain_events(
    spins: np.ndarray,
    field: float,
    temperature: float,
    events: int,
    all_anew: bool,
    rng: np.random.Generator,
) -> float:
    side, time = len(spins), 0.0
    rates = np.empty((side, side))
    _fill(spins, field, temperature, rates)
    for _ in range(events):
        flat = rates.ravel()
        total = np.sum(flat)
        running = np.cumsum(flat / total)
        site = min(int(np.searchsorted(running, rng.random())), side**2 - 1)
        time -= math.log(1 - rng.random()) / total
        r, c = divmod(site, side)
        spins[r, c] *= -1
        if all_anew:
            _fill(spins, field, temperature, rates)
        else:
            for dr, dc in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
                row, column = (r + dr) % side, (c + dc) % side
                rates[row, column] = _rate(spins, row, column, field, temperature)
    return time


def compiled(all_anew: bool, events: int) -> int:
    """Algorithm 2 compiled; or, as in the published code, five rates anew, then sums over all."""
    spins = equilibrated(SYSTEM, 1)[0].astype(np.int64)
    rng = np.random.default_rng(1)
    _plain_events(spins, SYSTEM.field, SYSTEM.temperature, events, all_anew, rng)
    return events


# --- replicas: units of work are attempts, or time units of one replica --------------------------


def multispin(system: Ising, duration: float, unit: int = 1) -> int:
    """One word of 64 replicas."""
    states, rng = equilibrated(system, 64), np.random.default_rng(1)
    system.simulate(states, np.array([duration]), rng, multispin=True)
    return round(64 * duration) * unit


def n_fold_replicas(system: Ising, duration: float) -> int:
    states, rng = equilibrated(system, 64)[:8], np.random.default_rng(1)
    system.simulate(states, np.array([duration]), rng)
    return round(8 * duration)


@numba.njit
def _heat_bath(spins: np.ndarray, up: np.ndarray, attempts: int, rng: np.random.Generator) -> None:
    side = len(spins)
    for _ in range(attempts):
        r, c = divmod(int(rng.random() * side * side), side)
        neighbours = (
            spins[r - 1, c]
            + spins[r, c - 1]
            + spins[r + 1 if r + 1 < side else 0, c]
            + spins[r, c + 1 if c + 1 < side else 0]
        )
        spins[r, c] = 1 if rng.random() < up[(neighbours + 4) // 2] else -1


def heat_bath(system: Ising, duration: int, unit: int = 1) -> int:
    """Stand-in for a peer: heat bath of one spin after the other, at random sites, compiled."""
    spins = equilibrated(system, 64)[0].copy()
    attempts = duration * system.n_sites
    _heat_bath(spins, system._up_probabilities(), attempts, np.random.default_rng(1))
    return duration * unit


# --- patches ------------------------------------------------------------------------------------


def patches() -> int:
    """10^5 patches among frozen neighbours, nothing recorded."""
    states = equilibrated(SYSTEM, SNAPSHOTS)
    boxes = PATCHING.patches(SYSTEM.lattice_shape)

    def run(rows: slice, rng: np.random.Generator) -> None:
        for box in boxes:
            SYSTEM.evolve_patch(states[rows], box, DURATION, rng)

    map_chunks(run, len(states), np.random.default_rng(1), chunk=512)
    return len(states) * len(boxes)


def on_all_cores(side: Side) -> int:
    os.environ["MACRODYN_THREADS"] = str(joblib.cpu_count())
    try:
        return side()
    finally:
        os.environ["MACRODYN_THREADS"] = "1"


def pairs() -> int:
    """The same with increments and observables, as a user calls it."""
    snapshots = Snapshots(states=equilibrated(SYSTEM, SNAPSHOTS))
    rng = np.random.default_rng(1)
    return len(
        evolve_patches(
            SYSTEM, snapshots, PATCHING, duration=DURATION, patches_per_snapshot=16, rng=rng
        )
    )


def pairs_of_events() -> int:
    """The published protocol: 256 events in one patch of each snapshot, wrapped on itself."""
    snapshots = Snapshots(states=equilibrated(SYSTEM, SNAPSHOTS))
    wrapped, rng = Patching(side=16, boundary="periodic"), np.random.default_rng(1)
    return len(evolve_patches(SYSTEM, snapshots, wrapped, events=PATCH_EVENTS, rng=rng))


def plain_patches(record: bool, count: int = 500) -> int:
    """Algorithm 2 in NumPy, patch by patch, on a sample."""
    rng, boxes = np.random.default_rng(1), PATCHING.patches(SYSTEM.lattice_shape)
    field, temperature, records = SYSTEM.field, SYSTEM.temperature, []
    for state in equilibrated(SYSTEM, SNAPSHOTS)[:count]:
        spins, box = state.astype(np.int64), boxes[rng.integers(len(boxes))]
        rows, columns = (np.arange(start - 1, start + 17) % 64 for start in box.start)
        ringed = spins[np.ix_(rows, columns)]
        patch, time = ringed[1:-1, 1:-1], 0.0
        while True:
            vertical = ringed[:-2, 1:-1] + ringed[2:, 1:-1]
            neighbours = vertical + ringed[1:-1, :-2] + ringed[1:-1, 2:]
            rates = 1 / (1 + np.exp(2 * patch * (neighbours + field) / temperature))
            running = np.cumsum(rates)
            time -= math.log(1 - rng.random()) / running[-1]
            if time > DURATION:
                break
            site = int(np.searchsorted(running, rng.random() * running[-1]))
            patch[divmod(site, 16)] *= -1
        if record:
            evolved = spins.copy()
            evolved[box.selection[1:]] = patch
            increment = len(boxes) * (_observables(evolved) - _observables(spins))
            records.append((increment, _observables(patch)))
    return count


def _observables(spins: np.ndarray) -> np.ndarray:
    walls = [(1 - spins * np.roll(spins, 1, axis)) / 2 for axis in (0, 1)]
    return np.array([spins.mean(), np.mean(walls)])


def batched_patches(count: int = 2_000) -> int:
    """The published protocol on a batch of patches as tensors; observables left out."""
    states = PATCHING.split(equilibrated(SYSTEM, SNAPSHOTS)[:count])[:, 0]
    spins = torch.tensor(states, dtype=torch.float32)
    time, every = torch.zeros(count), torch.arange(count)
    for _ in range(PATCH_EVENTS):
        vertical = torch.roll(spins, 1, 1) + torch.roll(spins, -1, 1)
        neighbours = vertical + torch.roll(spins, 1, 2) + torch.roll(spins, -1, 2)
        rates = 1 / (1 + torch.exp(2 * spins * (neighbours + SYSTEM.field) / SYSTEM.temperature))
        total = rates.sum(dim=(1, 2))
        running = torch.cumsum(rates.flatten(1) / total[:, None], dim=1)
        site = torch.searchsorted(running, torch.rand(count, 1)).clamp(max=255)[:, 0]
        spins[every, site // 16, site % 16] *= -1
        time -= torch.log1p(-torch.rand(count)) / total
    return count


# --- upsampling ---------------------------------------------------------------------------------


class NFoldRelax(LocalRelax):
    """LocalRelax by the n-fold way, one replica after the other."""

    def __call__(
        self, system: MicroscopicSystem, states: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        tiles = Patching(side=self.side, stride=self.side // 2).patches(system.lattice_shape)
        return MicroscopicSystem.relax_patches(system, states, tiles, self.duration, rng)


def upsampled(kind: type[LocalRelax], count: int) -> int:
    """Snapshots 16^2 -> 32^2 -> 64^2, relaxed in tiles after each doubling."""
    small = Snapshots(states=equilibrated(SYSTEM.resized(16), 1024))
    relax = kind(side=TILE, duration=TILE_DURATION)
    upsample(small, to=SYSTEM, count=count, relax=relax, rng=np.random.default_rng(1))
    return count


# --- closures -----------------------------------------------------------------------------------


def closure(settings: AutoencoderSettings, count: int) -> int:
    """One pass over a sample of snapshots, validation and standardisation included."""
    snapshots = Snapshots(states=equilibrated(SYSTEM, SNAPSHOTS)[:count])
    observables = SYSTEM.observables(snapshots.states)
    fit_autoencoder(snapshots, observables, PATCHING, settings, rng=np.random.default_rng(1))
    return count


def plain_closure(count: int = 512) -> int:
    """The paper's networks, each layer in the order of the paper; one batch of 512."""
    encoder = nn.Sequential(
        *itertools.chain.from_iterable(
            (nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.LeakyReLU(0.2), nn.MaxPool2d(2))
            for a, b in itertools.pairwise((1, 32, 64, 128))
        ),
        nn.Flatten(),
        nn.Linear(512, 2),
    )
    decoder = nn.Sequential(
        nn.Linear(4, 2048),
        nn.LeakyReLU(0.2),
        nn.Unflatten(1, (128, 4, 4)),
        *itertools.chain.from_iterable(
            (_doubling(a, b), nn.BatchNorm2d(b), nn.LeakyReLU(0.2))
            for a, b in itertools.pairwise((128, 64, 32, 16))
        ),
        _doubling(16, 1),
        nn.Sigmoid(),
    )
    optimiser = torch.optim.AdamW(
        [*encoder.parameters(), *decoder.parameters()], lr=2e-4, amsgrad=True, weight_decay=0
    )
    states = equilibrated(SYSTEM, SNAPSHOTS)[:count]
    tensors = [
        torch.tensor(each, dtype=torch.float32) for each in (states, SYSTEM.observables(states))
    ]
    for x, given in DataLoader(TensorDataset(*tensors), batch_size=512, shuffle=True):
        patches = x.reshape(-1, 4, 16, 4, 16).transpose(2, 3).reshape(-1, 1, 16, 16)
        closures = encoder(patches).reshape(len(x), 16, 2).mean(dim=1)
        output = decoder(torch.cat([given, closures], dim=1))[:, 0]
        loss = nn.functional.binary_cross_entropy(output, (x + 1) / 2)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return count


def _doubling(inputs: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


# --- the rows -----------------------------------------------------------------------------------

ZERO_FIELD = {t: Ising(side=64, temperature=t, field=0.0) for t in (2.2, 2.27, 2.5)}
CRITICAL = ZERO_FIELD[2.27]
ATTEMPTS = CRITICAL.n_sites  # in one unit of time

ROWS: list[tuple[str, str, Side, Side]] = [
    ("Ising events", "events/s", partial(n_fold, 64), plain),
    ("  plain loop compiled", "events/s", partial(n_fold, 64), partial(compiled, True, 10_000)),
    ("  five rates anew", "events/s", partial(n_fold, 64), partial(compiled, False, 50_000)),
    *(
        (f"  L = {side} against L = 32", "events/s", partial(n_fold, side), partial(n_fold, 32))
        for side in (64, 128, 256, 512, 1024)
    ),
    (
        "Multi-spin against spin by spin, T = 2.27",
        "attempts/s",
        partial(multispin, CRITICAL, 1000, unit=ATTEMPTS),
        partial(heat_bath, CRITICAL, 1000, unit=ATTEMPTS),
    ),
    *(
        (
            f"  against the n-fold way, T = {t}",
            "time/s",
            partial(multispin, system, 1000),
            partial(n_fold_replicas, system, 300),
        )
        for t, system in ZERO_FIELD.items()
    ),
    (
        "N-fold way against spin by spin, T = 2.27",
        "time/s",
        partial(n_fold_replicas, CRITICAL, 300),
        partial(heat_bath, CRITICAL, 1000),
    ),
    ("Patch evolutions", "patches/s", patches, partial(plain_patches, record=False)),
    ("  all cores against one", "patches/s", partial(on_all_cores, patches), patches),
    ("Pairs", "pairs/s", pairs, partial(plain_patches, record=True)),
    ("  256 events, wrapped", "pairs/s", pairs_of_events, batched_patches),
    (
        "Upsampling, multi-spin against n-fold",
        "states/s",
        partial(upsampled, LocalRelax, 2048),
        partial(upsampled, NFoldRelax, 256),
    ),
    ("Closure training", "states/s", partial(closure, CLOSURE, 1024), plain_closure),
    (
        "  against the paper's channels",
        "states/s",
        partial(closure, CLOSURE, 1024),
        partial(closure, PAPER, 256),
    ),
]
BENCHMARKS: list[Callable[[], Comparison]] = [
    partial(compare, *row, rounds=3 if plain_closure in row else 5) for row in ROWS
]
