"""What flows between the steps of the method: frozen, shape-checked records of NumPy arrays.

Axes are always (replica or pair, time, lattice..., component). Arrays are made read-only, so a
record can be shared without fear.
"""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np


def _freeze(record: object, name: str, value: np.ndarray) -> None:
    view = np.asarray(value).view()
    view.flags.writeable = False
    object.__setattr__(record, name, view)


def _float_array(record: object, name: str, dimensions: int) -> np.ndarray:
    value = np.asarray(getattr(record, name), dtype=np.float64)
    if value.ndim != dimensions:
        raise ValueError(f"{name} has shape {value.shape}: must have {dimensions} axes")
    if not np.isfinite(value).all():
        bad = int((~np.isfinite(value)).sum())
        raise ValueError(
            f"{name} has {bad} non-finite entries (NaN or infinity): all must be finite"
        )
    _freeze(record, name, value)
    return value


def _parameter_array(record: object, parameters: np.ndarray | None, count: int) -> None:
    if parameters is not None and len(_float_array(record, "parameters", 2)) != count:
        raise ValueError(f"parameters has shape {np.shape(parameters)}: must be ({count}, p)")


def _group_array(record: object, groups: np.ndarray | None, count: int) -> None:
    groups = np.zeros(count, dtype=np.int64) if groups is None else np.asarray(groups)
    if groups.shape != (count,) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(
            f"groups has shape {groups.shape} and dtype {groups.dtype}: must be {count} integers"
        )
    _freeze(record, "groups", groups)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    """Microscopic states drawn for training, D_s or D of the paper.

    states: (N, *lattice), where sites have several fields with a last axis for these.
    groups: (N,) integers, the small trajectory each one descends from; data is split by group,
    never by row.
    """

    states: np.ndarray
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        states = np.asarray(self.states)
        if states.ndim < 2 or len(states) == 0:
            raise ValueError(f"states has shape {states.shape}: must be (N >= 1, *lattice)")
        if np.issubdtype(states.dtype, np.floating) and not np.isfinite(states).all():
            raise ValueError("states has non-finite entries (NaN or infinity): all must be finite")
        _freeze(self, "states", states)
        _group_array(self, self.groups, len(states))

    def __len__(self) -> int:
        return len(self.states)

    @property
    def lattice_shape(self) -> tuple[int, ...]:
        return tuple(self.states.shape[1:])

    def select(self, rows: np.ndarray) -> Self:
        """The snapshots of the given rows (boolean mask or indices)."""
        assert self.groups is not None  # set in __post_init__
        return dataclasses.replace(self, states=self.states[rows], groups=self.groups[rows])

    @classmethod
    def concatenate(cls, parts: Sequence["Snapshots"]) -> Self:
        """Snapshots from several sources; groups of different sources stay different."""
        groups, offset = [], 0
        for part in parts:
            assert part.groups is not None  # set in __post_init__
            groups.append(part.groups + offset)
            offset += int(part.groups.max()) + 1
        states = np.concatenate([part.states for part in parts])
        return cls(states=states, groups=np.concatenate(groups))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trajectories:
    """Observables of replicas at given times, and their states when asked for.

    times: (T,), the system's unit.  observables: (B, T, d).  states: (B, T, *lattice) or None.
    """

    times: np.ndarray
    observables: np.ndarray
    states: np.ndarray | None = None

    def __post_init__(self) -> None:
        times = _float_array(self, "times", 1)
        observables = _float_array(self, "observables", 3)
        if observables.shape[1] != len(times):
            raise ValueError(
                f"observables has shape {observables.shape}: axis 1 must be the {len(times)} times"
            )
        if self.states is not None:
            if self.states.shape[:2] != observables.shape[:2]:
                raise ValueError(
                    f"states has shape {self.states.shape}: must begin with {observables.shape[:2]}"
                )
            _freeze(self, "states", self.states)

    def snapshots(self) -> Snapshots:
        """Every state of every replica as one row; replicas are the groups."""
        if self.states is None:
            raise ValueError("states = None: simulate with keep_states=True to draw snapshots")
        replicas, count = self.states.shape[:2]
        states = self.states.reshape(replicas * count, *self.states.shape[2:])
        return Snapshots(states=states, groups=np.repeat(np.arange(replicas), count))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PatchPairs:
    """Outcome of partial evolution, one row per evolved patch.

    observables:        (N, d)  phi*(x_t) of the whole lattice.
    increments:         (N, d)  K [phi*(x with patch I evolved) - phi*(x)].
    patch_observables:  (N, d)  phi*(x_{t+dt,I}) of the evolved patch by itself (naive baseline).
    durations:          (N,)    physical time the patch evolved.
    patches:            (N,)    index I of the patch.
    n_patches:          K.
    groups:             (N,)    small trajectory of origin.
    twin_increments:    (N, d)  increments of a second, independent continuation, or None.
    """

    observables: np.ndarray
    increments: np.ndarray
    patch_observables: np.ndarray
    durations: np.ndarray
    patches: np.ndarray
    n_patches: int
    groups: np.ndarray | None = None
    twin_increments: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = _float_array(self, "observables", 2).shape
        optional = [] if self.twin_increments is None else ["twin_increments"]
        for name in ("increments", "patch_observables", *optional):
            if _float_array(self, name, 2).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}: must be {shape}")
        _check_durations(self, shape[0])
        _check_patch_count(self.n_patches)
        patches = np.asarray(self.patches)
        if patches.shape != (shape[0],):
            raise ValueError(f"patches has shape {patches.shape}: must be ({shape[0]},)")
        _freeze(self, "patches", patches)
        _group_array(self, self.groups, shape[0])

    def __len__(self) -> int:
        return len(self.durations)

    @classmethod
    def concatenate(cls, parts: Sequence["PatchPairs"]) -> Self:
        """All pairs of several records of the same kind in one; groups are kept as they are."""
        if len({part.n_patches for part in parts}) != 1:
            raise ValueError(
                f"n_patches = {[p.n_patches for p in parts]}: must be the same for all"
            )
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(cls)
            if isinstance(getattr(parts[0], field.name), np.ndarray)
        }
        return cls(**columns, n_patches=parts[0].n_patches)


def _check_durations(record: "PatchPairs | LatentPairs | IncrementMoments", count: int) -> None:
    durations = _float_array(record, "durations", 1)
    if len(durations) != count:
        raise ValueError(f"durations has shape {durations.shape}: must be ({count},)")
    if not (durations > 0).all():
        raise ValueError(f"durations has a minimum of {durations.min():g}: all must be positive")


def _check_patch_count(n_patches: int) -> None:
    if isinstance(n_patches, bool) or n_patches != int(n_patches) or n_patches < 1:
        raise ValueError(f"n_patches = {n_patches}: must be an integer >= 1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LatentPairs:
    """Latent states and the increments of one patch, the training data of the SDE.

    latents:    (N, d)  z_t.
    increments: (N, d)  Delta z_I, mean mu dt and covariance K Sigma dt (paper Eq. 3, 7).
    durations:  (N,)    dt > 0.
    n_patches:  K.
    groups:     (N,) or None  trajectory of origin; validation splits and shares keep it whole.
    twins:      (N, d) or None  increments of an independent second continuation of the same patch.
    parameters: (N, p) or None  what the dynamics depends on besides z and what does not change,
                such as a temperature.
    """

    latents: np.ndarray
    increments: np.ndarray
    durations: np.ndarray
    n_patches: int
    groups: np.ndarray | None = None
    twins: np.ndarray | None = None
    parameters: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = _float_array(self, "latents", 2).shape
        if shape[0] == 0:
            raise ValueError("latents has no rows: at least one pair is needed")
        optional = [] if self.twins is None else ["twins"]
        for name in ("increments", *optional):
            if _float_array(self, name, 2).shape != shape:
                raise ValueError(
                    f"{name} has shape {getattr(self, name).shape}: must be {shape} like latents"
                )
        _check_durations(self, shape[0])
        _check_patch_count(self.n_patches)
        _group_array(self, self.groups, shape[0])
        _parameter_array(self, self.parameters, shape[0])

    def __len__(self) -> int:
        return len(self.durations)

    @property
    def dimension(self) -> int:
        return int(self.latents.shape[1])

    @property
    def conditions(self) -> np.ndarray:
        """The parameters, (N, 0) if there are none."""
        return np.empty((len(self), 0)) if self.parameters is None else self.parameters

    def select(self, rows: np.ndarray) -> Self:
        """The pairs of the given rows (boolean mask or indices)."""
        assert self.groups is not None  # set in __post_init__
        return dataclasses.replace(
            self,
            latents=self.latents[rows],
            increments=self.increments[rows],
            durations=self.durations[rows],
            groups=self.groups[rows],
            twins=None if self.twins is None else self.twins[rows],
            parameters=None if self.parameters is None else self.parameters[rows],
        )

    def shares(self, count: int, rng: np.random.Generator) -> list[Self]:
        """Deal whole groups at random into ``count`` disjoint shares of nearly equal size.

        Raises: ValueError: fewer groups than shares.
        """
        return [self.select(rows) for rows in _deal(self.groups, count, rng)]

    def normalised(self, shift: np.ndarray, scale: np.ndarray) -> Self:
        """The same pairs in y = (z - shift) / scale."""
        return dataclasses.replace(
            self,
            latents=(self.latents - shift) / scale,
            increments=self.increments / scale,
            twins=None if self.twins is None else self.twins / scale,
        )

    def moments(self) -> "IncrementMoments":
        """Merge the pairs that share latent and duration bit for bit, of whatever group.

        The groups are lost: fit the pairs themselves, of which whole groups are held out; a fit
        merges them after that.
        """
        return IncrementMoments.of(self)


def _deal(groups: np.ndarray | None, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Masks of ``count`` disjoint shares of whole groups."""
    assert groups is not None  # set in __post_init__
    names = np.unique(groups)
    if not 1 <= count <= len(names):
        raise ValueError(f"count = {count}: must be 1 to {len(names)}, the number of groups")
    share_of_name = np.empty(len(names), dtype=np.int64)
    share_of_name[rng.permutation(len(names))] = np.arange(len(names)) % count
    share = share_of_name[np.searchsorted(names, groups)]
    return [share == k for k in range(count)]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IncrementMoments:
    """Increments of equal latent and duration, merged: all that a Gaussian likelihood sees of them.

    For pairs that share z and dt,  sum (D - mu dt)' C^-1 (D - mu dt)
    = count [ tr(C^-1 W) + (mean - mu dt)' C^-1 (mean - mu dt) ],  W the scatter about the mean,
    so merging changes no fit. With twins W is half the mean square of their difference, the
    within-patch covariance, free of the spread of the drift between patches.

    Where the simulator knows its rates, means and scatters are the drift and the covariance rate of
    each state (``rate_increments``), with durations 1 and n_patches 1.

    latents (U, d), means (U, d), scatters (U, d, d), durations (U,), counts (U,); n_patches: K;
    scatter_is_noise: W alone determines the covariance (twins), not W plus the squared residual;
    groups (U,), parameters (U, p), each or None: as in ``LatentPairs``.
    """

    latents: np.ndarray
    means: np.ndarray
    scatters: np.ndarray
    durations: np.ndarray
    counts: np.ndarray
    n_patches: int
    scatter_is_noise: bool
    groups: np.ndarray | None = None
    parameters: np.ndarray | None = None

    def __post_init__(self) -> None:
        count, dimension = _float_array(self, "latents", 2).shape
        if count == 0:
            raise ValueError("latents has no rows: at least one pair is needed")
        shapes = {"means": (count, dimension), "scatters": (count, dimension, dimension)}
        for name, shape in (shapes | {"counts": (count,)}).items():
            if _float_array(self, name, len(shape)).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}: must be {shape}")
        _check_durations(self, count)
        _check_patch_count(self.n_patches)
        _group_array(self, self.groups, count)
        _parameter_array(self, self.parameters, count)

    def __len__(self) -> int:
        return len(self.durations)

    @property
    def dimension(self) -> int:
        return int(self.latents.shape[1])

    @property
    def conditions(self) -> np.ndarray:
        """The parameters, (N, 0) if there are none."""
        return np.empty((len(self), 0)) if self.parameters is None else self.parameters

    def select(self, rows: np.ndarray) -> Self:
        """The merged increments of the given rows (boolean mask or indices)."""
        names = ("latents", "means", "scatters", "durations", "counts", "groups", "conditions")
        kept = {name: getattr(self, name)[rows] for name in names}
        parameters = kept.pop("conditions")
        return dataclasses.replace(self, **kept, parameters=parameters)

    def shares(self, count: int, rng: np.random.Generator) -> list[Self]:
        """Deal whole groups at random into ``count`` disjoint shares of nearly equal size.

        Raises: ValueError: fewer groups than shares.
        """
        return [self.select(rows) for rows in _deal(self.groups, count, rng)]

    def normalised(self, shift: np.ndarray, scale: np.ndarray) -> Self:
        """The same increments in y = (z - shift) / scale."""
        return dataclasses.replace(
            self,
            latents=(self.latents - shift) / scale,
            means=self.means / scale,
            scatters=self.scatters / np.outer(scale, scale),
        )

    def reflected(self, signs: np.ndarray) -> Self:
        """These and their mirror images z -> signs z, of half the weight each."""
        return dataclasses.replace(
            self,
            latents=np.concatenate([self.latents, signs * self.latents]),
            means=np.concatenate([self.means, signs * self.means]),
            scatters=np.concatenate([self.scatters, np.outer(signs, signs) * self.scatters]),
            durations=np.tile(self.durations, 2),
            counts=np.tile(self.counts / 2, 2),
            groups=None if self.groups is None else np.tile(self.groups, 2),
            parameters=None if self.parameters is None else np.tile(self.parameters, (2, 1)),
        )

    def moments(self) -> Self:
        return self

    def coarsened(self, width: float | np.ndarray, *, by_group: bool = False) -> Self:
        """Merge rows of one cell of edge ``width``, of equal duration and parameters.

        Each takes the mean latent of its rows, so that a drift linear within the cell fits alike; a
        curved one is off by some mu'' width^2 / 24.

        Args:   width: of all latents or of each, (d,).  by_group: rows of different groups stay
                apart; else groups are lost.
        Raises: ValueError: width not > 0.
        """
        if not np.all(np.asarray(width) > 0):
            raise ValueError(f"width = {width}: must be > 0")
        assert self.groups is not None  # set in __post_init__
        label = self.groups if by_group else np.zeros(len(self))
        cells = np.floor(self.latents / width)
        keys = np.column_stack([label, cells, self.durations, self.conditions])
        unique, inverse = np.unique(keys, axis=0, return_inverse=True)
        latents, means, scatters, squares = (
            _averages(values, inverse, len(unique), self.counts)
            for values in (
                self.latents, self.means, self.scatters,
                self.means[:, :, None] * self.means[:, None, :],
            )
        )  # fmt: skip
        if not self.scatter_is_noise:
            scatters = scatters + squares - means[:, :, None] * means[:, None, :]
        return dataclasses.replace(
            self,
            latents=latents,
            means=means,
            scatters=scatters,
            durations=unique[:, 1 + self.dimension],
            counts=np.bincount(inverse, self.counts, len(unique)),
            groups=unique[:, 0].astype(np.int64) if by_group else None,
            parameters=None if self.parameters is None else unique[:, 2 + self.dimension :],
        )

    def folded(self, signs: np.ndarray) -> Self:
        """Rows whose first latent is negative, replaced by their mirror images z -> signs z."""
        factors = np.where(self.latents[:, :1] < 0, signs, 1.0)
        return dataclasses.replace(
            self,
            latents=factors * self.latents,
            means=factors * self.means,
            scatters=factors[:, :, None] * factors[:, None, :] * self.scatters,
        )

    @classmethod
    def concatenate(cls, parts: Sequence["IncrementMoments"]) -> Self:
        """All increments of records of the same kind in one; groups are kept as they are.

        Raises: ValueError: they have not the same n_patches or scatter_is_noise.
        """
        kinds = {(part.n_patches, part.scatter_is_noise) for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"(n_patches, scatter_is_noise) = {kinds}: must be the same for all")
        names = ("latents", "means", "scatters", "durations", "counts", "groups")
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
            parameters=np.concatenate([part.conditions for part in parts]),
            n_patches=parts[0].n_patches,
            scatter_is_noise=parts[0].scatter_is_noise,
        )

    @classmethod
    def of(cls, pairs: LatentPairs) -> Self:
        """Merge the pairs that share latent, duration and parameters bit for bit."""
        keys = np.column_stack([pairs.latents, pairs.durations, pairs.conditions])
        dimension = pairs.dimension
        unique, inverse = np.unique(keys, axis=0, return_inverse=True)
        counts = np.bincount(inverse, minlength=len(unique)).astype(np.float64)

        def average(values: np.ndarray) -> np.ndarray:
            return _averages(values, inverse, len(unique))

        if pairs.twins is None:
            means = average(pairs.increments)
            deviations = pairs.increments - means[inverse]
        else:
            means = average((pairs.increments + pairs.twins) / 2)
            deviations = (pairs.increments - pairs.twins) / np.sqrt(2)
        return cls(
            latents=unique[:, :dimension],
            means=means,
            scatters=average(deviations[:, :, None] * deviations[:, None, :]),
            durations=unique[:, dimension],
            parameters=unique[:, dimension + 1 :],
            counts=counts,
            n_patches=pairs.n_patches,
            scatter_is_noise=pairs.twins is not None,
        )


def _averages(
    values: np.ndarray, labels: np.ndarray, count: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Weighted mean of the rows with each label 0 ... count - 1: (N, ...) -> (count, ...)."""
    w = np.ones(len(values)) if weights is None else weights
    columns = values.reshape(len(values), -1).T
    sums = np.stack([np.bincount(labels, w * column, count) for column in columns], axis=1)
    means = sums / np.bincount(labels, w, count)[:, None]
    return means.reshape(count, *values.shape[1:])
