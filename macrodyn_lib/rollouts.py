"""Sample paths of a fitted SDE."""

import numpy as np
from tqdm.auto import tqdm

from macrodyn_lib.errors import DivergedError
from macrodyn_lib.fitting import FittedSDE

# A path further than this from its start, in units of the training spread, has left the model.
DIVERGED = 1e6


def rollout(
    fitted: FittedSDE,
    *,
    start: np.ndarray,
    times: np.ndarray,
    rng: np.random.Generator,
    max_step: float | None = None,
    description: str | None = None,
) -> np.ndarray:
    """Euler-Maruyama paths  z += mu(z) h + L(z) sqrt(h) xi,  xi ~ N(0, 1).

    Args:    start: (B, d), at time 0.  times: (T,), ascending, >= 0.
             max_step: the largest h; None: 5 % of the shortest relaxation time of the linearised
             drift at the starts. Each interval between times is cut into equal steps.
    Returns: (B, T, d).
    Raises:  DivergedError: a path left the finite numbers or 10^6 training spreads; it carries the
             step and the last good states.  ValueError: shapes disagree.
    """
    state = np.array(start, dtype=np.float64)
    times = np.asarray(times, dtype=np.float64)
    if state.ndim != 2 or state.shape[1] != fitted.dimension or not np.isfinite(state).all():
        raise ValueError(f"start has shape {state.shape}: must be finite, (B, {fitted.dimension})")
    if times.ndim != 1 or (np.diff(times, prepend=0.0) < 0).any():
        raise ValueError(f"times = {times}: must be one axis of ascending numbers >= 0")
    if max_step is None:
        max_step = 0.05 / _fastest_rate(fitted)
    if not max_step > 0:
        raise ValueError(f"max_step = {max_step}: must be > 0")
    paths = np.empty((len(state), len(times), fitted.dimension))
    limit = DIVERGED * fitted.normalisation.scale
    coefficients = _Tabulated(fitted) if fitted.dimension == 1 else fitted
    step = 0
    intervals = enumerate(np.diff(times, prepend=0.0))
    hidden = True if description is None else None
    for index, interval in tqdm(intervals, total=len(times), desc=description, disable=hidden):
        n_steps = int(np.ceil(interval / max_step - 1e-9))
        for _ in range(n_steps):
            h = interval / n_steps
            kick = coefficients.diffusion(state) @ rng.standard_normal((*state.shape, 1))
            moved = state + h * coefficients.drift(state) + np.sqrt(h) * kick[..., 0]
            if not (np.abs(moved - fitted.normalisation.shift) < limit).all():
                raise DivergedError("rollout", step, state)
            state, step = moved, step + 1
        paths[:, index] = state
    return paths


class _Tabulated:
    """Drift and diffusion of one latent, read off the networks once on a fine grid.

    A rollout evaluates them 10^4 times; linear interpolation on 2^14 points over +-8 training
    spreads is exact to about 10^-7 of their curvature. Beyond the grid the networks are asked.
    """

    def __init__(self, fitted: FittedSDE):
        shift, scale = fitted.normalisation.shift[0], fitted.normalisation.scale[0]
        self.fitted = fitted
        self.grid = shift + scale * np.linspace(-8, 8, 2**14)
        self.drifts = fitted.drift(self.grid[:, None])[:, 0]
        self.diffusions = fitted.diffusion(self.grid[:, None])[:, 0, 0]

    def drift(self, z: np.ndarray) -> np.ndarray:
        if self._leaves(z):
            return self.fitted.drift(z)
        return np.interp(z[:, 0], self.grid, self.drifts)[:, None]

    def diffusion(self, z: np.ndarray) -> np.ndarray:
        if self._leaves(z):
            return self.fitted.diffusion(z)
        return np.interp(z[:, 0], self.grid, self.diffusions)[:, None, None]

    def _leaves(self, z: np.ndarray) -> bool:
        return bool(z.min() < self.grid[0] or z.max() > self.grid[-1])


def _fastest_rate(fitted: FittedSDE) -> float:
    """Largest relaxation rate of the linear part of the drift, by differences over the data."""
    shift, scale = fitted.normalisation.shift, fitted.normalisation.scale
    offsets = np.concatenate([np.diag(scale), -np.diag(scale)])
    drifts = fitted.drift(shift + offsets)
    d = fitted.dimension
    jacobian = (drifts[:d] - drifts[d:]) / (2 * scale[:, None])
    return float(np.abs(np.linalg.eigvals(jacobian)).max())
