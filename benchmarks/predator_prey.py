"""The predator-prey SPDE: steps, patch pairs and training, and a published package on our pairs.

The plain side is in the manner of the published code: fields padded by replication, a convolution
[1, -2, 1] and normal noise for whole batches in NumPy (single steps of patches likewise), one patch
a snapshot; training as in ``benchmarks.training``, on pairs of this system.

``python -m benchmarks.predator_prey`` compares drift and diffusion with those that
StochasticForceInference (``pip install -e '.[peers]'``) finds from the same latent pairs.
"""

import importlib.util
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.timing import Comparison, compare
from benchmarks.training import plain as published_training
from macrodyn_lib import (
    MLPSDE,
    LatentPairs,
    Patching,
    PredatorPrey,
    Snapshots,
    TrainingSettings,
    averaged_increments,
    encode,
    evolve_patches,
    fit_sde,
    latent_states,
)
from macrodyn_lib.closure import fit_two_field_closure

SYSTEM, BATCH = PredatorPrey(n_cells=200), 50
PATCHING = Patching(side=40)
# Of the published 100. Rates are per pair; ours include preparing the data, done once however long
# the training: as if 20 epochs were all. The plain side prepares nothing.
EPOCHS, PLAIN_EPOCHS = 20, 1


def _snapshots(trajectories: int, seed: int) -> Snapshots:
    rng = np.random.default_rng(seed)
    states = SYSTEM.initial_states(trajectories, rng)
    return SYSTEM.simulate(states, np.arange(0, 12, 0.2), rng, keep_states=True).snapshots()


def steps() -> int:
    """Whole-lattice steps of a batch, compiled."""
    count = 2000
    states = SYSTEM.initial_states(BATCH, np.random.default_rng(0))
    SYSTEM.simulate(states, np.array([count * 0.01]), np.random.default_rng(1))
    return BATCH * 200 * count


def plain_steps() -> int:
    """The same in the manner of the published code."""
    count, rng = 200, np.random.default_rng(1)
    states = SYSTEM.initial_states(BATCH, np.random.default_rng(0)).transpose(0, 2, 1)
    for _ in range(count):
        states = _plain_step(states, np.pad(states, ((0, 0), (0, 0), (1, 1)), mode="edge"), rng)
    return BATCH * 200 * count


def _plain_step(states: np.ndarray, padded: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    u, v = states[:, 0], states[:, 1]
    second = padded[:, :, :-2] - 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    rates = np.stack([u * (1 - u - v), 3 * v * (u - 0.4) + second[:, 1]], axis=1)
    return states + 0.01 * rates + 0.02 * 0.1 * rng.standard_normal(states.shape)


SNAPSHOTS = _snapshots(10, 2)


def pairs() -> int:
    """Every patch of every snapshot evolved for one step, twice."""
    evolve_patches(
        SYSTEM, SNAPSHOTS, PATCHING, duration=0.01, patches_per_snapshot=5, twins=True,
        rng=np.random.default_rng(3),
    )  # fmt: skip
    return len(SNAPSHOTS) * 10


def plain_pairs() -> int:
    """One random patch a snapshot, one snapshot after the other."""
    rng = np.random.default_rng(3)
    for state in SNAPSHOTS.states:
        fields = np.pad(state.T, ((0, 0), (1, 1)), mode="edge")
        start = 40 * int(rng.integers(5))
        window = fields[None, :, start : start + 42]
        before = window[:, :, 1:-1]
        after = _plain_step(before, window, rng)
        _ = after.mean(axis=2) - before.mean(axis=2)
    return len(SNAPSHOTS)


def latent_pairs(snapshots: Snapshots, seed: int) -> LatentPairs:
    """Pairs of all patches, with two closures."""
    closure = fit_two_field_closure(snapshots, PATCHING, 2)
    found = evolve_patches(
        SYSTEM, snapshots, PATCHING, duration=0.01, patches_per_snapshot=5, twins=True,
        closure=closure, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return encode(found)


TRAINING = latent_pairs(_snapshots(160, 4), 5)


def training() -> int:
    """Our epochs: the K pairs of a snapshot share its latent and merge.

    A step takes a batch of merged rows; counted are the pairs in the batches of all steps.
    """
    pairs_per_row, batch = 5, 4096
    steps = EPOCHS * len(TRAINING) // (pairs_per_row * batch)
    settings = TrainingSettings(steps=steps, batch=batch, check_every=steps)
    fit_sde(TRAINING, MLPSDE(4), rng=np.random.default_rng(1), settings=settings)
    return steps * batch * pairs_per_row


def plain_training() -> int:
    """Epochs in the published manner, of the same pairs, one by one."""
    return published_training(TRAINING, epochs=PLAIN_EPOCHS)


BENCHMARKS: list[Callable[[], Comparison]] = [
    lambda: compare("SPDE, cell steps, n = 200", "cells/s", steps, plain_steps),
    lambda: compare("SPDE, patch pairs, K = 5", "pairs/s", pairs, plain_pairs),
    lambda: compare("SPDE, SDE training, pairs of K = 5", "pairs/s", training, plain_training),
]


def _errors(
    drift: np.ndarray, covariance: np.ndarray, true_drift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors of drift (root mean square) and of the diagonal of Sigma, of (u, v)."""
    off = drift[:, :2] - true_drift
    relative = np.sqrt(np.square(off).mean(axis=0) / np.square(true_drift).mean(axis=0))
    exact = SYSTEM.noise**2 / SYSTEM.n_cells
    return relative, covariance[:, [0, 1], [0, 1]].mean(axis=0) / exact - 1


def compare_peer() -> None:
    """Print drift and diffusion errors of ours and of StochasticForceInference, same pairs.

    Truth: the exact drift of the means in direct snapshots of other trajectories, and s^2 / n.
    Both see one-step pairs (z, z + Delta z_I). The package knows nothing of K: its diffusion is
    printed as it comes, and over K.
    """
    torch.set_num_threads(1)
    fitting, testing = _snapshots(160, 6), _snapshots(40, 7)
    closure = fit_two_field_closure(fitting, PATCHING, 2)
    sampled = evolve_patches(
        SYSTEM, fitting, PATCHING, duration=0.01, patches_per_snapshot=5, twins=True,
        closure=closure, rng=np.random.default_rng(8),
    )  # fmt: skip
    found = encode(sampled)
    latents = latent_states(SYSTEM, testing.states, PATCHING, closure)
    truth, _ = SYSTEM.rate_moments(testing.states)
    print(
        f"{len(found)} twin pairs, d = 4, K = 5, dt = 0.01 (ours: the same and many continuations)"
    )

    def show(name: str, errors: tuple[np.ndarray, np.ndarray], seconds: float) -> None:
        drift, diffusion = (", ".join(f"{100 * x:+.2f} %" for x in part) for part in errors)
        print(f"{name:38} drift off by {drift}; diffusion by {diffusion}; {seconds:.0f} s")

    settings = TrainingSettings(steps=1500, learning_rate=0.01, batch=4096)
    many, _ = averaged_increments(
        SYSTEM, fitting, PATCHING, duration=0.01, continuations=32, closure=closure,
        rng=np.random.default_rng(9),
    )  # fmt: skip
    for name, data in (("ours, MLP", found), ("ours, MLP, 32 continuations", many)):
        started = time.perf_counter()
        model = MLPSDE(4, hidden=(32, 32))
        fit = fit_sde(data, model, rng=np.random.default_rng(1), settings=settings)
        elapsed = time.perf_counter() - started
        show(name, _errors(fit.drift(latents), fit.covariance(latents), truth), elapsed)
    if importlib.util.find_spec("SFI") is None:
        print("StochasticForceInference is not installed (pip install -e '.[peers]'): skipped")
        return
    started = time.perf_counter()
    drift, covariance = _stochastic_force_inference(found, latents)
    elapsed = time.perf_counter() - started
    show("StochasticForceInference, cubic", _errors(drift, covariance, truth), elapsed)
    show("  the same, diffusion / K", _errors(drift, covariance / 5, truth), elapsed)


def _stochastic_force_inference(
    pairs: LatentPairs, latents: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Drift (N, d) and covariance (N, d, d) that the package infers from the pairs, at latents.

    Its trajectories need three points: z, z + Delta, z + Delta + Delta', the twin being the second
    increment. (Increments are a hundredth of the spread of z.) Latents are normalised, since the
    package computes in single precision; its D is half of our Sigma.
    """
    from SFI import OverdampedLangevinInference, TrajectoryCollection
    from SFI.bases import monomials_up_to

    assert pairs.twins is not None
    shift, scale = pairs.latents.mean(axis=0), pairs.latents.std(axis=0)
    steps = [(pairs.latents - shift) / scale, pairs.increments / scale, pairs.twins / scale]
    points = np.cumsum(steps, axis=0)  # (3, N, d)
    inference = OverdampedLangevinInference(
        TrajectoryCollection.from_arrays(X=points, dt=float(pairs.durations[0]))
    )
    inference.compute_diffusion_constant("MSD")
    basis = monomials_up_to(order=3, dim=pairs.dimension, rank="vector")
    inference.infer_force_linear(basis, preset="KM")
    drift = np.asarray(inference.force_inferred((latents - shift) / scale)) * scale
    covariance = 2 * np.asarray(inference.diffusion_average) * np.outer(scale, scale)
    return drift, np.broadcast_to(covariance, (len(latents), *covariance.shape))


if __name__ == "__main__":
    compare_peer()
