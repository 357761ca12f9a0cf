"""Gradient steps on latent pairs: our loop, and one in the manner of the published code.

The plain side follows the published settings: a Dataset and DataLoader that hand over single pairs,
batches of 1024, AdamW with amsgrad, an unconstrained square diffusion network, and the inverse and
determinant of every covariance matrix.
"""

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from macrodyn_lib import MLPSDE, LatentPairs, TrainingSettings, fit_sde

PAIRS, DIMENSION, N_PATCHES, DURATION, EPOCHS = 50_000, 4, 16, 0.05, 4


def synthetic_pairs(patches_per_snapshot: int) -> LatentPairs:
    """Pairs of a linear SDE; the patches of one snapshot share its latent."""
    rng = np.random.default_rng(0)
    snapshots = rng.standard_normal((PAIRS // patches_per_snapshot, DIMENSION))
    latents = np.repeat(snapshots, patches_per_snapshot, axis=0)
    noise = rng.standard_normal((PAIRS, DIMENSION)) * np.sqrt(N_PATCHES * DURATION)
    return LatentPairs(
        latents=latents,
        increments=-latents * DURATION + noise,
        durations=np.full(PAIRS, DURATION),
        n_patches=N_PATCHES,
        groups=np.arange(PAIRS) // 50,
    )


DATA = synthetic_pairs(patches_per_snapshot=1)
MERGEABLE = synthetic_pairs(patches_per_snapshot=N_PATCHES)


def ours() -> int:
    """Every pair has a latent of its own: nothing to merge."""
    return _fit(DATA, rows=PAIRS)


def ours_merged() -> int:
    """All K patches of each snapshot were evolved, as in the notebooks: K pairs share a latent."""
    return _fit(MERGEABLE, rows=PAIRS // N_PATCHES)


def _fit(pairs: LatentPairs, rows: int) -> int:
    """``fit_sde`` as a user calls it, preparation of the data included."""
    batch = 4096
    steps = EPOCHS * -(-rows // batch)
    settings = TrainingSettings(steps=steps, batch=batch, check_every=steps)
    fit_sde(pairs, MLPSDE(DIMENSION), rng=np.random.default_rng(1), settings=settings)
    return EPOCHS * PAIRS


class _Pairs(Dataset):
    def __init__(self, pairs: LatentPairs) -> None:
        self.latents = torch.tensor(pairs.latents, dtype=torch.float32)
        self.after = torch.tensor(pairs.latents + pairs.increments, dtype=torch.float32)
        self.durations = torch.tensor(pairs.durations, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.durations)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.latents[index], self.after[index], self.durations[index]


def _network(outputs: int) -> nn.Sequential:
    widths = (DIMENSION, 64, 64, 64)
    hidden = [
        layer
        for inputs, width in itertools.pairwise(widths)
        for layer in (nn.Linear(inputs, width), nn.ReLU())
    ]
    return nn.Sequential(*hidden, nn.Linear(64, outputs))


def plain(pairs: LatentPairs = DATA, epochs: int = EPOCHS) -> int:
    """The published manner of training, on pairs of four latents."""
    drift, diffusion = _network(DIMENSION), _network(DIMENSION**2)
    parameters = [*drift.parameters(), *diffusion.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, amsgrad=True, weight_decay=0)
    identity = 1e-4 * torch.eye(DIMENSION)
    for _ in range(epochs):
        for z, after, duration in DataLoader(_Pairs(pairs), batch_size=1024, shuffle=True):
            sigma = diffusion(z).reshape(-1, DIMENSION, DIMENSION)
            step = duration[:, None, None]
            covariance = pairs.n_patches * sigma @ sigma.transpose(1, 2) * step + identity
            residual = (after - z - drift(z) * duration[:, None])[..., None]
            square = residual.transpose(1, 2) @ torch.inverse(covariance) @ residual
            loss = (square[:, 0, 0] + torch.log(torch.det(covariance))).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return epochs * len(pairs)
