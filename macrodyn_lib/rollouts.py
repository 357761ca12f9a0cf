"""Sample paths of a fitted SDE, and of an ensemble of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from tqdm.auto import tqdm

from macrodyn_lib.errors import DivergedError
from macrodyn_lib.fitting import FittedSDE, Normalisation
from macrodyn_lib.parallel import map_tasks
from macrodyn_lib.statistics import (
    Estimate,
    jackknife,
    mean_estimate,
    relative_error,
    relaxation_time,
)

# A path further than this from its start, in units of the training spread, has left the model.
DIVERGED = 1e6


class MacroscopicSDE(Protocol):
    """What a rollout needs of a fitted SDE, in physical units."""

    @property
    def dimension(self) -> int: ...

    @property
    def normalisation(self) -> Normalisation: ...

    def drift(self, latents: np.ndarray) -> np.ndarray: ...

    def diffusion(self, latents: np.ndarray) -> np.ndarray: ...


def rollout(
    fitted: MacroscopicSDE,
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
             drift of the training data. Each interval between times is cut into equal steps.
    Returns: (B, T, d).
    Raises:  DivergedError: a path left the finite numbers or 10^6 training spreads; it carries the
             step and the last good states.  ValueError: shapes disagree.
    """
    state = np.array(start, dtype=np.float64)
    times = np.asarray(times, dtype=np.float64)
    if state.ndim != 2 or state.shape[1] != fitted.dimension or not np.isfinite(state).all():
        raise ValueError(f"start has shape {state.shape}: must be finite, (B, {fitted.dimension})")
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times, prepend=0.0) < 0).any():
        raise ValueError(f"times = {times}: must be one axis of ascending numbers >= 0")
    if max_step is None:
        rate = _fastest_rate(fitted)
        max_step = 0.05 / rate if rate > 0 else np.inf
    if not max_step > 0:
        raise ValueError(f"max_step = {max_step}: must be > 0")
    paths = np.empty((len(state), len(times), fitted.dimension))
    limit = DIVERGED * fitted.normalisation.scale
    evaluate = _Tabulated if fitted.dimension == 1 else _Networks
    drift_and_kick = evaluate(fitted).drift_and_kick
    step = 0
    intervals = enumerate(np.diff(times, prepend=0.0))
    hidden = True if description is None else None
    for index, interval in tqdm(intervals, total=len(times), desc=description, disable=hidden):
        n_steps = max(int(np.ceil(interval / max_step - 1e-9)), int(interval > 0))
        for _ in range(n_steps):
            h = interval / n_steps
            drift, kick = drift_and_kick(state, rng.standard_normal(state.shape))
            moved = state + h * drift + np.sqrt(h) * kick
            if not (np.abs(moved - fitted.normalisation.shift) < limit).all():
                raise DivergedError("rollout", step, state)
            state, step = moved, step + 1
        paths[:, index] = state
    return paths


class _Networks:
    """Drift and noise of a step, from the networks."""

    def __init__(self, fitted: MacroscopicSDE):
        self.fitted = fitted

    def drift_and_kick(self, z: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """mu(z) and L(z) xi, each (B, d), for standard normal noise xi (B, d)."""
        return self.fitted.drift(z), (self.fitted.diffusion(z) @ noise[..., None])[..., 0]


class _Tabulated:
    """The same for one latent, read off the networks once on a fine grid.

    A rollout evaluates them 10^4 times; linear interpolation on 2^14 points over +-8 training
    spreads is exact to about 10^-7 of their curvature. Beyond the grid the networks are asked.
    """

    def __init__(self, fitted: MacroscopicSDE):
        shift, scale = fitted.normalisation.shift[0], fitted.normalisation.scale[0]
        self.networks = _Networks(fitted)
        self.grid = shift + scale * np.linspace(-8, 8, 2**14)
        self.drifts = fitted.drift(self.grid[:, None])[:, 0]
        self.diffusions = fitted.diffusion(self.grid[:, None])[:, 0, 0]

    def drift_and_kick(self, z: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if z.min() < self.grid[0] or z.max() > self.grid[-1]:
            return self.networks.drift_and_kick(z, noise)
        drift = np.interp(z[:, 0], self.grid, self.drifts)
        diffusion = np.interp(z[:, 0], self.grid, self.diffusions)
        return drift[:, None], diffusion[:, None] * noise


def _fastest_rate(fitted: MacroscopicSDE) -> float:
    """Largest relaxation rate of the linear part of the drift, by differences over the data."""
    shift, scale = fitted.normalisation.shift, fitted.normalisation.scale
    offsets = np.concatenate([np.diag(scale), -np.diag(scale)])
    drifts = fitted.drift(shift + offsets)
    d = fitted.dimension
    jacobian = (drifts[:d] - drifts[d:]) / (2 * scale[:, None])
    return float(np.abs(np.linalg.eigvals(jacobian)).max())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EnsemblePaths:
    """Rollouts of the members of an ensemble from the same starts.

    times: (T,), equally spaced.  paths: (R, B, n, T, d): members, starts, replicas, times, latents.
    Means are means over the members. Standard deviations and correlations are those of one member's
    paths about its own mean: the members' spread is not noise of the system but the uncertainty of
    the fit, and makes the standard errors.

    whole: (B, n', T, d) or None, paths of one more fit, to the data of all members together.
    """

    times: np.ndarray
    paths: np.ndarray
    whole: np.ndarray | None = None

    def quoted(self, estimator: Callable[[np.ndarray], float]) -> Estimate:
        """An estimator of paths (any number of members, B, n, T, d) and its standard error.

        Of all members pooled, by jackknife; with ``whole`` of that, which has less noise of the
        fit and so less bias where the estimator is not linear, the error being that of the mean
        of the members' own estimates.
        """
        if self.whole is None:
            return jackknife(self.paths, estimator)
        members = mean_estimate(np.array([estimator(member[None]) for member in self.paths]))
        return dataclasses.replace(members, value=float(estimator(self.quoted_paths)))

    @property
    def quoted_paths(self) -> np.ndarray:
        """(R or 1, B, n, T, d): the paths that quoted values are of."""
        return self.paths if self.whole is None else self.whole[None]

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean over members and replicas (B, T, d), and its standard error over members."""
        by_member = self.paths.mean(axis=2)
        return by_member.mean(axis=0), by_member.std(axis=0, ddof=1) / np.sqrt(len(by_member))

    def stds(self) -> np.ndarray:
        """Standard deviation of a member's replicas, root mean square over members, (B, T, d)."""
        return np.sqrt(self.paths.var(axis=2, ddof=1).mean(axis=0))

    def error(self, true_mean: np.ndarray, every: int = 1) -> Estimate:
        """Test error of the paper against the true mean (B, T, d*), at each ``every``-th time.

        Only the first d* components count: closures have no unit.
        """
        means = self.paths[..., : true_mean.shape[2]].mean(axis=2)[:, :, ::every]
        truth = true_mean[:, ::every]
        return jackknife(means, lambda kept: relative_error(kept.mean(axis=0), truth))

    def mean_at(self, start: int, time: float, component: int = 0) -> Estimate:
        """Mean from one start at the time nearest to ``time``."""
        values = self.paths[:, start, :, self._index(time), component]
        return mean_estimate(values.mean(axis=1))

    def std_at(self, start: int, time: float, component: int = 0) -> Estimate:
        """Standard deviation of a member's replicas from one start, at the time nearest."""
        return _pooled_std(self.paths[:, start, :, self._index(time), component])

    def stationary(self, component: int = 0) -> np.ndarray:
        """Second half of every path, (R, B n, T/2): stationary if relaxation is short of that."""
        return late_half(self.paths, component)

    def stationary_mean(self, component: int = 0) -> Estimate:
        return mean_estimate(self.stationary(component).mean(axis=(1, 2)))

    def stationary_std(self, component: int = 0) -> Estimate:
        late = self.stationary(component)
        return _pooled_std(late.reshape(len(late), -1))

    def relaxation_time(self, component: int = 0, absolute: bool = False) -> Estimate:
        """1/e time of the stationary autocorrelation of a component, or of its modulus."""
        late = self.stationary(component)
        late = np.abs(late) if absolute else late
        late = late - late.mean(axis=(1, 2), keepdims=True)
        spacing = float(self.times[1] - self.times[0])
        return jackknife(
            late, lambda kept: relaxation_time(kept.reshape(-1, kept.shape[-1]), spacing)
        )

    def in_sets(self, size: int) -> "EnsemblePaths":
        """The replicas of each member in sets of ``size`` (at most), each a member of its own.

        Standard errors are then those of finitely many paths, and hardly those of the fit.
        """
        members, starts, replicas, *rest = self.paths.shape
        size = min(size, replicas)
        count = replicas // size
        kept = self.paths[:, :, : count * size].reshape(members, starts, count, size, *rest)
        paths = kept.swapaxes(1, 2).reshape(members * count, starts, size, *rest)
        return EnsemblePaths(times=self.times, paths=paths)

    def pooled(self) -> np.ndarray:
        """Paths of all members from each start, (B, n R, T, d), one of each member in turn."""
        members, starts, replicas, *rest = self.paths.shape
        return self.paths.transpose(1, 2, 0, 3, 4).reshape(starts, replicas * members, *rest)

    def until(self, time: float) -> "EnsemblePaths":
        """The paths up to ``time``."""
        kept = self.times <= time
        return EnsemblePaths(times=self.times[kept], paths=self.paths[:, :, :, kept])

    def longest_lag(self) -> float:
        """The longest relaxation time that ``relaxation_time`` can see, a quarter of the paths."""
        late = self.paths.shape[3] - self.paths.shape[3] // 2
        return float(self.times[1] - self.times[0]) * (late // 2 - 1)

    def _index(self, time: float) -> int:
        return int(np.abs(self.times - time).argmin())


def late_half(paths: np.ndarray, component: int) -> np.ndarray:
    """One component over the second half of paths (R, B, n, T, d): (R, B n, T/2)."""
    late = paths[..., paths.shape[3] // 2 :, component]
    return late.reshape(len(late), -1, late.shape[-1])


def _pooled_std(values: np.ndarray) -> Estimate:
    """Root of the mean over members of the variance of their values (R, n)."""
    return jackknife(values.var(axis=1, ddof=1), lambda kept: float(np.sqrt(kept.mean())))


def rollout_ensemble(
    members: Sequence[FittedSDE],
    *,
    start: np.ndarray,
    replicas: int,
    times: np.ndarray,
    rng: np.random.Generator,
    max_step: float | None = None,
    description: str | None = None,
) -> EnsemblePaths:
    """``replicas`` paths from each start (B, d) by each member, in one stream of draws a member."""
    repeated = np.repeat(start, replicas, axis=0)
    tasks = [
        (member, repeated, times, generator, max_step)
        for member, generator in zip(members, rng.spawn(len(members)), strict=True)
    ]
    hidden = True if description is None else None
    paths = map_tasks(_member_paths, tasks, description=description, hidden=hidden)
    shape = (len(members), len(start), replicas, len(times), start.shape[1])
    return EnsemblePaths(times=np.asarray(times), paths=np.stack(paths).reshape(shape))


def _member_paths(
    member: FittedSDE,
    start: np.ndarray,
    times: np.ndarray,
    rng: np.random.Generator,
    max_step: float | None,
) -> np.ndarray:
    return rollout(member, start=start, times=times, rng=rng, max_step=max_step)
