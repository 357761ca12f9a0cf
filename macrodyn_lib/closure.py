"""Closures learned from snapshots, and from patch pairs to latent pairs.

The latent state is z = (phi*(x), phi_hat(x)): given observables and, if wanted, closures, means
over the patches of a function of one patch. Three are offered: ``fit_block_closure`` and, for two
fields, ``fit_two_field_closure`` here, both in closed form, and the paper's ``autoencoder``.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pandas as pd

from macrodyn_lib.lattice import Patching
from macrodyn_lib.records import LatentPairs, PatchPairs, Snapshots

ROWS = 1024  # snapshots whose moments are taken together, a few megabytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockClosure:
    """phi_hat = weights' (g - centre), g the second moments of block means in a patch.

    At each block edge l = 1, 2, 4, ... the patch is cut into blocks; g has the mean square of the
    block means and the mean product of neighbouring ones, along the axes and along the diagonals.

    weights: (features, d_hat).  centre: (features,).  names: of the features.
    """

    weights: np.ndarray
    centre: np.ndarray
    names: tuple[str, ...]

    @property
    def dimension(self) -> int:
        return int(self.weights.shape[1])

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """(B, *patch) -> (B, d_hat)."""
        return (_block_moments(patches)[0] - self.centre) @ self.weights


def fit_block_closure(
    snapshots: Snapshots, observables: np.ndarray, patching: Patching, dimension: int
) -> BlockClosure:
    """The directions in which the block moments vary most when the observables are known.

    The moments g of every snapshot, in units of their standard deviation, less their best cubic fit
    in phi*, and the principal components of what remains: the linear counterpart of an autoencoder
    that is given phi*. Each closure has variance 1 over the snapshots.

    Args:   snapshots: (N, *lattice).  observables: (N, d*), phi* of them.  dimension: d_hat >= 1.
    Raises: ValueError: dimension out of range for the number of moments.
    """
    parts: list[np.ndarray] = []
    names: tuple[str, ...] = ()
    for rows in range(0, len(snapshots), ROWS):
        patches = patching.split(snapshots.states[rows : rows + ROWS])
        values, names = _block_moments(patches.reshape(-1, *patches.shape[2:]))
        parts.append(values.reshape(*patches.shape[:2], -1).mean(axis=1))
    moments = np.concatenate(parts)
    spread = moments.std(axis=0)
    varies = spread > 1e-12
    scale = np.where(varies, spread, np.inf)
    y = (observables - observables.mean(axis=0)) / observables.std(axis=0)
    powers = [
        y[:, chosen].prod(axis=1)
        for order in range(4)
        for chosen in itertools.combinations_with_replacement(range(y.shape[1]), order)
    ]
    design = np.column_stack(powers)
    standard = (moments - moments.mean(axis=0)) / scale
    residual = standard - design @ np.linalg.lstsq(design, standard, rcond=None)[0]
    _, sizes, directions = np.linalg.svd(residual, full_matrices=False)
    most = int((sizes > 1e-6 * sizes[0]).sum())  # the others are sums of these but for rounding
    if not 1 <= dimension <= most:
        raise ValueError(f"dimension = {dimension}: must be 1 to {most}, the independent moments")
    components = directions[:dimension]
    weights = components.T / scale[:, None]
    weights = weights / ((moments - moments.mean(axis=0)) @ weights).std(axis=0)
    return BlockClosure(weights=weights, centre=moments.mean(axis=0), names=names)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TwoFieldClosure:
    """Second moments of two fields u, v in a patch, taken as one complex field.

        zeta = (u - centre_u) / scale_u + i (v - centre_v) / scale_v

    The closures are, in this order, Im <zeta^2>, Re <zeta^2>, <|zeta|^2>, means over the sites of a
    patch, and the same for means over blocks of ``edge`` sites. Where one spatial pattern f with
    amplitudes (A, B) dominates, <zeta^2> = (A + iB)^2 <f^2>: the first two know the amplitudes up
    to a common sign, and the third adds little; (A^2, B^2) alone would leave the sign of A B open.

    centre, scale: (2,).  edge: sites in a block.  dimension: how many closures.
    """

    centre: np.ndarray
    scale: np.ndarray
    edge: int
    dimension: int

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """(B, side, 2) -> (B, d_hat)."""
        fine = (patches - self.centre) / self.scale
        moments = _two_field_moments(fine)
        if self.dimension > 3:
            blocks = fine.reshape(len(fine), -1, self.edge, 2).mean(axis=2)
            moments = np.column_stack([moments, _two_field_moments(blocks)])
        return moments[:, : self.dimension]

    def derivatives(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (B, side, 2, d_hat) and Laplacian (d_hat,) in the fields of the patch."""
        fine = (patches - self.centre) / self.scale
        blocks = fine.reshape(len(fine), -1, self.edge, 2).mean(axis=2)
        gradients, laplacians = [], []
        for fields, length in ((fine, 1), (np.repeat(blocks, self.edge, axis=1), self.edge)):
            first, second = 2 * np.moveaxis(fields, -1, 0) / patches.shape[1]
            by_first = np.stack([second, first, first], axis=-1)
            by_second = np.stack([first, -second, second], axis=-1)
            gradients.append(np.stack([by_first, by_second], axis=2) / self.scale[:, None])
            inverse = 2 / np.square(self.scale) / length
            laplacians.append([0.0, inverse[0] - inverse[1], inverse[0] + inverse[1]])
        gradient = np.concatenate(gradients, axis=-1)[..., : self.dimension]
        return gradient, np.concatenate(laplacians)[: self.dimension]


def fit_two_field_closure(
    snapshots: Snapshots, patching: Patching, dimension: int
) -> TwoFieldClosure:
    """Centre and scale of the two fields from the snapshots: mean, and spread over a snapshot.

    Blocks are the longest that divide a patch into at least four.

    Args:   snapshots: (N, n, 2).  patching: of a line of n sites.  dimension: d_hat, 1 to 6.
    Raises: ValueError: dimension out of range for this patch.
    """
    side = int(np.max(patching.side))
    edge = max(length for length in range(1, max(side // 4, 1) + 1) if side % length == 0)
    most = 6 if edge > 1 else 3
    if not 1 <= dimension <= most:
        raise ValueError(f"dimension = {dimension}: must be 1 to {most} for patches of {side}")
    spread = np.sqrt(snapshots.states.var(axis=1).mean(axis=0))
    return TwoFieldClosure(
        centre=snapshots.states.mean(axis=(0, 1)), scale=spread, edge=edge, dimension=dimension
    )


def _two_field_moments(fields: np.ndarray) -> np.ndarray:
    """(B, sites, 2) -> (B, 3): Im <zeta^2>, Re <zeta^2>, <|zeta|^2>."""
    first, second = (np.square(fields[..., field]).mean(axis=1) for field in (0, 1))
    product = (fields[..., 0] * fields[..., 1]).mean(axis=1)
    return np.column_stack([2 * product, first - second, first + second])


def correlations(latents: np.ndarray, known: dict[str, np.ndarray], first: int) -> Any:
    """Correlation coefficients of the closures z[:, first:] with known quantities, as a table.

    Args: latents: (N, d).  known: name -> (N,).
    """
    closures = latents[:, first:]
    rows = {
        name: [np.corrcoef(values, closure)[0, 1] for closure in closures.T]
        for name, values in known.items()
    }
    columns = [f"closure {index + 1}" for index in range(closures.shape[1])]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _block_moments(patches: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Second moments of block means: (B, *patch) -> (B, features), and their names."""
    fields, edge = patches.astype(np.float32), 1
    axes = tuple(range(1, patches.ndim))
    columns, names = [], []
    while True:
        sides = fields.shape[1:]
        columns.append(np.square(fields).mean(axis=axes))
        names.append(f"square, blocks of {edge}")
        if min(sides) > 1:
            along = [
                (np.delete(fields, 0, axis) * np.delete(fields, -1, axis)).mean(axis=axes)
                for axis in axes
            ]
            columns.append(np.mean(along, axis=0))
            names.append(f"neighbours, blocks of {edge}")
            if len(axes) == 2:
                up = fields[:, 1:, 1:] * fields[:, :-1, :-1]
                down = fields[:, 1:, :-1] * fields[:, :-1, 1:]
                columns.append((up + down).mean(axis=axes) / 2)
                names.append(f"diagonals, blocks of {edge}")
        if any(side % 2 for side in sides):
            break
        for axis in axes:
            halved = (*fields.shape[:axis], fields.shape[axis] // 2, 2, *fields.shape[axis + 1 :])
            fields = fields.reshape(halved).mean(axis=axis + 1)
        edge *= 2
    return np.column_stack(columns).astype(np.float64), tuple(names)


def encode(pairs: PatchPairs) -> LatentPairs:
    """Latent pairs of the method: z = phi(x), Delta z_I of mean mu dt and covariance K Sigma dt.

    Source: paper Eq. 3.
    """
    return LatentPairs(
        latents=pairs.observables,
        increments=pairs.increments,
        twins=pairs.twin_increments,
        durations=pairs.durations,
        n_patches=pairs.n_patches,
        groups=pairs.groups,
    )


def encode_naive(pairs: PatchPairs) -> LatentPairs:
    """Latent pairs of the baseline: the evolved patch is taken for the whole, noise scale 1.

    z_{t+dt} = phi(x_{t+dt,I}) without subtracting phi(x_{t,I}), so that the static difference
    between a patch and the lattice counts as noise. Source: paper Eq. 9 and Sec. III.
    """
    return LatentPairs(
        latents=pairs.observables,
        increments=pairs.patch_observables - pairs.observables,
        durations=pairs.durations,
        n_patches=1,
        groups=pairs.groups,
    )
