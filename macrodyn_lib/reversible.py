"""A macroscopic SDE with detailed balance, fitted in closed form, and its stationary law.

Glauber dynamics obeys detailed balance, so conditional averages of its rates over states with the
same latents z do too: with p(z) = exp(-V(z)) the stationary law,

    mu = (div Sigma - Sigma grad V) / 2.

One scalar V takes the place of a free drift; it enters linearly, so that it is found by weighted
least squares with a ridge, and the law of the learned SDE is known without a rollout.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import final

import numpy as np
import scipy.optimize
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
from numpy.polynomial import chebyshev

from macrodyn_lib.fitting import Normalisation
from macrodyn_lib.records import IncrementMoments

COLUMNS = 40  # in which the range of r is looked up
CORRELATION = 0.98  # |Sigma_mr| is at most this part of the root of Sigma_mm Sigma_rr
NEGLIGIBLE = 1e-12  # of the largest probability of a cell: no part in the dynamics
LEAST_RIDGE = 1e-14  # of the largest squared singular value: rounding
FLOOR = 1e-3  # Sigma_mm and Sigma_rr are at least this part of their means


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Chebyshev polynomials T_a(2 (m / width)^2 - 1) T_b(y) with 2 a + b <= degree, even in m.

    y = (r - middle) / half; on the data both arguments lie between -1 and 1.
    """

    degree: int
    width: float
    middle: float
    half: float

    def _exponents(self) -> tuple[np.ndarray, np.ndarray]:
        a, b = np.indices((self.degree // 2 + 1, self.degree + 1))
        kept = 2 * a + b <= self.degree
        return a[kept], b[kept]

    def degrees(self) -> np.ndarray:
        """2 a + b of each term, (terms,)."""
        a, b = self._exponents()
        return 2.0 * a + b

    def values(self, z: np.ndarray) -> np.ndarray:
        """(N, 2) -> (N, terms)."""
        a, b = self._exponents()
        first, second = self._factors(z)
        return first[:, a] * second[:, b]

    def gradients(self, z: np.ndarray) -> np.ndarray:
        """(N, 2) -> (N, 2, terms), by m and r."""
        a, b = self._exponents()
        first, second = self._factors(z)
        by_m = _derived(first) * (4 * z[:, :1] / self.width**2)
        by_r = _derived(second) / self.half
        return np.stack([by_m[:, a] * second[:, b], first[:, a] * by_r[:, b]], axis=1)

    def _factors(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = 2 * np.square(z[:, 0] / self.width) - 1
        y = (z[:, 1] - self.middle) / self.half
        return chebyshev.chebvander(u, self.degree // 2), chebyshev.chebvander(y, self.degree)


def _derived(vandermonde: np.ndarray) -> np.ndarray:
    """Derivatives of the Chebyshev polynomials from their values, both (N, n)."""
    count = vandermonde.shape[1]
    matrix = np.zeros((count, count))
    matrix[: count - 1] = chebyshev.chebder(np.eye(count))[: count - 1]
    return vandermonde @ matrix


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReversibleSDE:
    """dz = mu(z) dt + Sigma^{1/2}(z) dB in two latents z = (m, r), with detailed balance.

    It is symmetric under m -> -m. V and Sigma are known where data were: |m| up to ``width``, r
    between ``lowest`` and ``highest`` (COLUMNS,) over columns of |m|. Beyond, paths are led back.

    potential: coefficients of V; covariance: of Sigma_mm, Sigma_rr, Sigma_mr / m, (3, terms).
    """

    basis: Basis
    potential: np.ndarray
    covariance_basis: Basis
    covariance_coefficients: np.ndarray
    means: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    normalisation: Normalisation

    @property
    def dimension(self) -> int:
        return 2

    def drift(self, latents: np.ndarray) -> np.ndarray:
        """mu(z): (N, 2) -> (N, 2), per unit of time."""
        z = self._nearest(latents)
        gradient = self.basis.gradients(z) @ self.potential
        inside = self._divergence(z) - np.einsum("nij,nj->ni", self._covariance(z), gradient)
        # back to the data at ten times the rate at which a law of this width relaxes
        rate = 5 * self.means / np.square(self.normalisation.scale)
        return inside / 2 - rate * (np.asarray(latents) - z)

    def covariance(self, latents: np.ndarray) -> np.ndarray:
        """Sigma(z): (N, 2) -> (N, 2, 2), per unit of time."""
        return self._covariance(self._nearest(latents))

    def diffusion(self, latents: np.ndarray) -> np.ndarray:
        """L(z): (N, 2) -> (N, 2, 2), lower triangular with Sigma = L L'."""
        return np.linalg.cholesky(self.covariance(latents))

    def law(self, cells: tuple[int, int] = (300, 240)) -> "StationaryLaw":
        """exp(-V) on a grid over the data; a path reflected at their edge would have this law."""
        m, r = self._grid(cells)
        z = np.stack(np.meshgrid(m, r, indexing="ij"), axis=-1).reshape(-1, 2)
        values = self.basis.values(z) @ self.potential
        seen = np.isclose(self._nearest(z), z, rtol=0, atol=1e-12).all(axis=1)
        weights = np.zeros(len(z))
        weights[seen] = np.exp(values[seen].min() - values[seen])
        return StationaryLaw(m=m, r=r, weights=(weights / weights.sum()).reshape(cells))

    def relaxation_time(self, cells: tuple[int, int] = (80, 60)) -> float:
        """1/e time of the stationary autocorrelation of |m|.

        The generator on a grid (jumps between neighbouring cells with detailed balance, of second
        order in the cell) is applied in implicit steps: no path is drawn, nothing is windowed.
        """
        law = self.law(cells)
        generator, cells_of = self._generator(law)
        weights = law.weights.ravel()[cells_of] / law.weights.ravel()[cells_of].sum()
        values = np.repeat(law.m, len(law.r))[cells_of]
        values = values - weights @ values
        variance = weights @ np.square(values)
        if not variance > 0:
            return 0.0  # all in one column: nothing moves that this grid could see
        identity = scipy.sparse.identity(len(values), format="csc")
        shift = 1e-12 * np.abs(generator.diagonal()).max()
        solved = scipy.sparse.linalg.splu((shift * identity - generator).tocsc()).solve(values)
        step = weights @ (values * (solved - weights @ solved)) / variance / 100
        stepper = scipy.sparse.linalg.splu((identity - step / 2 * generator).tocsc())
        moved, before = values, 1.0
        # a correlation that only falls has t C(t) <= integral of C, so t <= e times that at 1/e
        for index in range(1, 280):  # Crank-Nicolson
            moved = stepper.solve(moved + step / 2 * (generator @ moved))
            after = float(weights @ (values * moved) / variance)
            if after < math.exp(-1):
                return float(step * (index - (math.exp(-1) - after) / (before - after)))
            before = after
        return float(step * index)

    def _generator(self, law: "StationaryLaw") -> tuple[scipy.sparse.csc_matrix, np.ndarray]:
        """Rates between the cells that matter and hang together, and the numbers of these cells.

        Sigma is a sum over the directions v of the grid (axes and a diagonal) of c_v v v', and a
        pair of cells a step v apart exchanges at the rate c_v / 2 times sqrt(p' / p).
        """
        shape = law.weights.shape
        steps = np.array([law.m[1] - law.m[0], law.r[1] - law.r[0]])
        z = np.stack(np.meshgrid(law.m, law.r, indexing="ij"), axis=-1).reshape(-1, 2)
        sigma = (self.covariance(z) / steps / steps[:, None]).reshape(*shape, 2, 2)
        cross = sigma[..., 0, 1]
        # a wide cell asks for more than the nearest neighbours: there the axes keep a little
        axes = [
            np.maximum(sigma[..., k, k] - np.abs(cross), 0.01 * sigma[..., k, k]) for k in (0, 1)
        ]
        parts = [
            ((1, 0), axes[0]),
            ((0, 1), axes[1]),
            ((1, 1), np.maximum(cross, 0.0)),
            ((1, -1), np.maximum(-cross, 0.0)),
        ]
        number = np.arange(law.weights.size).reshape(shape)
        rows, columns, rates = [], [], []
        for (i, j), strength in parts:
            here = np.s_[: shape[0] - i, max(-j, 0) : shape[1] - max(j, 0)]
            there = np.s_[i:, max(j, 0) : shape[1] + min(j, 0)]
            p, q = law.weights[here].ravel(), law.weights[there].ravel()
            least = NEGLIGIBLE * law.weights.max()
            linked = (p > least) & (q > least)
            mean = (strength[here] + strength[there]).ravel()[linked] / 4
            ratio = np.sqrt(q[linked] / p[linked])
            a, b = number[here].ravel()[linked], number[there].ravel()[linked]
            rows += [a, b]
            columns += [b, a]
            rates += [mean * ratio, mean / ratio]
        size = law.weights.size
        matrix = scipy.sparse.csc_matrix(
            (np.concatenate(rates), (np.concatenate(rows), np.concatenate(columns))), (size, size)
        )
        _, part = scipy.sparse.csgraph.connected_components(matrix, directed=False)
        heaviest = np.argmax(np.bincount(part, law.weights.ravel()))
        kept = np.nonzero(part == heaviest)[0]
        matrix = matrix[kept][:, kept]
        matrix = matrix - scipy.sparse.diags(np.asarray(matrix.sum(axis=1)).ravel())
        return matrix.tocsc(), kept

    def _grid(self, cells: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        m = (np.arange(cells[0]) + 0.5) / cells[0] * self.basis.width
        low, high = self.lowest.min(), self.highest.max()
        return m, low + (np.arange(cells[1]) + 0.5) / cells[1] * (high - low)

    def _nearest(self, latents: np.ndarray) -> np.ndarray:
        """The latents, moved to where data were."""
        z = np.asarray(latents, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != 2:
            raise ValueError(f"latents has shape {z.shape}: must be (N, 2)")
        width = self.basis.width
        m = np.clip(z[:, 0], -width, width)
        centres = (np.arange(COLUMNS) + 0.5) / COLUMNS * width
        low, high = (np.interp(np.abs(m), centres, edge) for edge in (self.lowest, self.highest))
        return np.column_stack([m, np.clip(z[:, 1], low, high)])

    def _entries(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mm, rr, by_m = (self.covariance_basis.values(z) @ self.covariance_coefficients.T).T
        return mm, rr, z[:, 0] * by_m

    def _covariance(self, z: np.ndarray) -> np.ndarray:
        mm, rr, mr = self._entries(z)
        mm, rr = np.maximum(mm, FLOOR * self.means[0]), np.maximum(rr, FLOOR * self.means[1])
        most = CORRELATION * np.sqrt(mm * rr)
        mr = np.clip(mr, -most, most)
        return np.stack([np.stack([mm, mr], axis=-1), np.stack([mr, rr], axis=-1)], axis=-2)

    def _divergence(self, z: np.ndarray) -> np.ndarray:
        """sum_j d_j Sigma_ij, (N, 2)."""
        gradients = self.covariance_basis.gradients(z) @ self.covariance_coefficients.T  # (N, 2, 3)
        values = self.covariance_basis.values(z) @ self.covariance_coefficients[2]
        by_m = gradients[:, 0, 0] + z[:, 0] * gradients[:, 1, 2]
        by_r = gradients[:, 1, 1] + values + z[:, 0] * gradients[:, 0, 2]
        return np.column_stack([by_m, by_r])


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StationaryLaw:
    """Probabilities (cells of |m|, cells of r) of a grid with centres m and r; they add up to 1."""

    m: np.ndarray
    r: np.ndarray
    weights: np.ndarray

    @property
    def of_m(self) -> np.ndarray:
        """Probabilities of the cells of |m|."""
        return np.asarray(self.weights.sum(axis=1))

    def mean(self, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """Mean of a function of |m|."""
        return float(self.of_m @ function(self.m))

    @property
    def mean_r(self) -> float:
        return float(self.weights.sum(axis=0) @ self.r)


def fit_reversible_sde(
    moments: IncrementMoments,
    *,
    degree: int = 20,
    covariance_degree: int = 8,
    noise_scale: float | None = None,
) -> ReversibleSDE:
    """Sigma, then V with that Sigma, each by weighted least squares.

        V = argmin sum c dt |r|^2_{Sigma^-1} + a sum_k (d_k^2 V_k)^2,
        r = mean / dt - (div Sigma - Sigma grad V) / 2

    V_k is the coefficient of a polynomial of degree d_k, a the ridge that makes the data most
    probable: where data are many it is not felt, at their edge it keeps noise from digging wells.

    Args:    moments: of (m, r), with a scatter that is noise alone: rates, or merged twins.
             degree: of V; covariance_degree: of Sigma.  noise_scale: lambda; None: K, as always.
    Raises:  ValueError: other latents, or a scatter that holds the spread of the drift too.
    """
    if moments.dimension != 2:
        raise ValueError(f"moments has {moments.dimension} latents: must be 2, (m, r)")
    if not moments.scatter_is_noise:
        raise ValueError("scatter_is_noise = False: Sigma needs rates or twins")
    scale = float(moments.n_patches if noise_scale is None else noise_scale)
    moments = moments.folded(np.array([-1.0, 1.0]))
    z, durations = moments.latents, moments.durations[:, None]
    rates = moments.means / durations
    sigma = moments.scatters / (scale * durations[:, :, None])
    weights = np.sqrt(moments.counts * moments.durations)

    width, low, high = z[:, 0].max(), z[:, 1].min(), z[:, 1].max()
    shape = {"width": float(width), "middle": (low + high) / 2, "half": (high - low) / 2}
    basis = Basis(degree=covariance_degree, **shape)
    means = np.average(sigma[:, [0, 1], [0, 1]], axis=0, weights=moments.counts)
    values = basis.values(z)

    def fitted(entry: np.ndarray, size: np.ndarray, factor: np.ndarray) -> np.ndarray:
        relative = weights / np.maximum(size, FLOOR * np.average(size, weights=moments.counts))
        return _least_squares(values * (factor * relative)[:, None], entry * relative)

    mm, rr, ones = sigma[:, 0, 0], sigma[:, 1, 1], np.ones(len(z))
    covariances = [
        fitted(mm, mm, ones),
        fitted(rr, rr, ones),
        fitted(sigma[:, 0, 1], np.sqrt(mm * rr), z[:, 0]),
    ]
    lowest, highest = _ranges(z, float(width))
    blank = ReversibleSDE(
        basis=Basis(degree=degree, **shape),
        potential=np.zeros(0),
        covariance_basis=basis,
        covariance_coefficients=np.array(covariances),
        means=means,
        lowest=lowest,
        highest=highest,
        normalisation=_normalisation(moments),
    )
    root = np.linalg.cholesky(blank._covariance(z))
    target = np.linalg.solve(root, (blank._divergence(z) / 2 - rates)[..., None])[..., 0]
    design = np.einsum("nji,njk->nik", root, blank.basis.gradients(z)) / 2
    rows = (design * weights[:, None, None]).reshape(-1, design.shape[-1])
    # the constant of V has no gradient
    smooth = 1 / blank.basis.degrees()[1:] ** 2
    rest = smooth * _most_probable(rows[:, 1:] * smooth, (target * weights[:, None]).ravel())
    return dataclasses.replace(blank, potential=np.concatenate([[0.0], rest]))


def _least_squares(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.square(design).sum(axis=0))
    return np.asarray(np.linalg.lstsq(design / size, target, rcond=1e-11)[0] / size)


def _most_probable(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Ridge regression whose ridge a maximises the evidence (MacKay 1992).

    With target = X c + noise, independent and of one unknown variance, and coefficients c that are
    normal with 1/a times this variance, target is normal with covariance ~ 1 + X X' / a. Its
    likelihood, at the best variance, needs only the singular values s of X and the target in their
    directions.
    """
    rows = len(target)
    triangle = np.asarray(np.linalg.qr(np.column_stack([design, target]), mode="r"))
    u, s, vt = np.linalg.svd(triangle[:, :-1], full_matrices=False)
    within = u.T @ triangle[:, -1]
    beyond = max(np.square(triangle[:, -1]).sum() - np.square(within).sum(), 0.0)

    def surprise(log_ridge: float) -> float:
        shrunk = 1 / (1 + np.square(s) / math.exp(log_ridge))
        unexplained = beyond + np.sum(np.square(within) * shrunk)
        return float(rows * math.log(unexplained / rows) - np.log(shrunk).sum())

    most = 2 * math.log(s[0])
    bounds = (most + math.log(LEAST_RIDGE), most)
    ridge = math.exp(scipy.optimize.minimize_scalar(surprise, bounds=bounds, method="bounded").x)
    return np.asarray(vt.T @ (s * within / (np.square(s) + ridge)))


def _ranges(z: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest r in columns of |m|, an empty one as its neighbours."""
    column = np.minimum((z[:, 0] / width * COLUMNS).astype(int), COLUMNS - 1)
    low, high = np.full(COLUMNS, np.inf), np.full(COLUMNS, -np.inf)
    np.minimum.at(low, column, z[:, 1])
    np.maximum.at(high, column, z[:, 1])
    filled = np.nonzero(np.isfinite(low))[0]
    every = np.arange(COLUMNS)
    return np.interp(every, filled, low[filled]), np.interp(every, filled, high[filled])


def _normalisation(moments: IncrementMoments) -> Normalisation:
    """Spread of the data; m is symmetric about 0."""
    r = float(np.average(moments.latents[:, 1], weights=moments.counts))
    shift = np.array([0.0, r])
    squares = np.average(np.square(moments.latents - shift), axis=0, weights=moments.counts)
    return Normalisation(shift=shift, scale=np.sqrt(squares))
