"""The Ising magnet near its critical point: what is learned at one size and temperature, and the
finite-size scaling of many such points."""

import dataclasses
import functools
import hashlib
import json
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from macrodyn_lib.errors import ParameterError
from macrodyn_lib.lattice import Patching
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.partial_evolution import averaged_increments
from macrodyn_lib.provenance import version_of
from macrodyn_lib.records import IncrementMoments, Snapshots, Trajectories
from macrodyn_lib.reversible import ReversibleSDE, fit_reversible_sde
from macrodyn_lib.rollouts import rollout
from macrodyn_lib.statistics import (
    Estimate,
    FiniteSizeData,
    binder_cumulant,
    jackknife,
    relaxation_time,
    susceptibility,
)
from macrodyn_lib.study import ROOT, Metric, Results, finished_runs, runs_root
from macrodyn_lib.systems.ising import Ising
from macrodyn_lib.upsampling import ROWS, overlapping_stride, relax_ladder, upsample

BLOCKS = 16  # independent parts of the snapshots, for standard errors
PASS = 1.25  # duration of LocalRelax per tile between two records: five attempts per site
_Metrics = Mapping[str, Metric]  # of one run, by name
QUANTITIES = ("abs_magnetization", "susceptibility", "binder")
LEVELS, SLOPES = [16, 32, 64, 128], [16, 32, 48, 64]  # sizes in the fits of the paper


def large_snapshots(
    system: Ising, small: Snapshots, duration: float, count: int, rng: np.random.Generator
) -> Snapshots:
    """Small snapshots upsampled with ``duration`` of LocalRelax per tile, each a group of its own.

    A lattice as large as the small one is not upsampled.
    """
    side = small.lattice_shape[0]
    if side == system.side:
        chosen = rng.permutation(len(small))[:count]
        return Snapshots(states=small.states[chosen], groups=np.arange(len(chosen)))
    ladder = relax_ladder(side, (duration,), longest_pass=PASS)
    large = upsample(small, to=system, count=count, relax=ladder, rng=rng)
    return Snapshots(states=large.states, groups=np.arange(count))


def relaxing_rates(
    system: Ising,
    snapshots: Snapshots,
    tile: int,
    rounds: int,
    rng: np.random.Generator,
    description: str | None = None,
) -> tuple[Snapshots, IncrementMoments]:
    """LocalRelax goes on, and the rates of every snapshot are recorded after each round.

    Local structure renews within a few rounds, the order of the whole lattice does not: for the
    conditional averages over states of equal (M, rho) each record is nearly one more snapshot.

    Returns: the last states, and the rates merged in cells of (|M|, rho), with BLOCKS groups.
    """
    side = min(tile, system.side)
    tiling = Patching(side=side, boundary="ghost", stride=overlapping_stride(system, side))
    patches = tiling.patches(system.lattice_shape, periodic=True)

    def run(rows: slice, generator: np.random.Generator) -> tuple[np.ndarray, IncrementMoments]:
        states, (z, drift, covariance) = system.relaxing_rates(
            snapshots.states[rows], patches, PASS, rounds, generator
        )
        count = z.shape[0] * rounds
        rates = IncrementMoments(
            latents=z.reshape(count, 2),
            means=drift.reshape(count, 2),
            scatters=covariance.reshape(count, 2, 2),
            durations=np.ones(count),
            counts=np.ones(count),
            n_patches=1,
            scatter_is_noise=True,
            groups=np.full(count, rows.start // ROWS % BLOCKS),
        )
        return states, in_cells(rates, system)

    parts = map_chunks(run, len(snapshots), rng, chunk=ROWS, description=description)
    last = Snapshots(states=np.concatenate([part[0] for part in parts]), groups=snapshots.groups)
    return last, in_cells(IncrementMoments.concatenate([part[1] for part in parts]), system)


def sampled_increments(
    system: Ising,
    snapshots: Snapshots,
    patch_side: int,
    duration: float,
    continuations: int,
    rng: np.random.Generator,
) -> IncrementMoments:
    """All K patches of every snapshot, each evolved by itself; merged as the rates are."""
    ours, _ = averaged_increments(
        system, snapshots, Patching(side=patch_side), duration=duration,
        continuations=continuations, rng=rng,
    )  # fmt: skip
    blocks = np.arange(len(snapshots)) // ROWS % BLOCKS
    return in_cells(dataclasses.replace(ours, groups=blocks), system)


def in_cells(moments: IncrementMoments, system: Ising) -> IncrementMoments:
    """Increments merged whose |M| and rho lie in one small cell, group by group.

    At zero field an increment and its mirror image M -> -M are one. A cell is 1/80 by 1/(10 side),
    a tenth of the widths of the law or less; its latent is the mean of what it holds.
    """
    halves = moments.folded(np.array([-1.0, 1.0]))
    return halves.coarsened(np.array([1 / 80, 0.1 / system.side]), by_group=True)


def learn(moments: IncrementMoments, system: Ising) -> ReversibleSDE:
    """The SDE of M and rho from merged increments, with lambda = K (for rates K is 1)."""
    together = dataclasses.replace(moments, groups=np.zeros(len(moments), dtype=np.int64))
    return fit_reversible_sde(in_cells(together, system))


def law_estimates(
    moments: IncrementMoments, system: Ising, *, clock: bool = False
) -> dict[str, Estimate]:
    """What the learned SDE says of equilibrium, with jackknife errors over the blocks.

    Keys: abs_magnetization, susceptibility, binder, rho; with ``clock``, which takes longest,
    relaxation_time (of |M|).
    """
    groups = moments.groups
    assert groups is not None  # set in IncrementMoments.__post_init__
    blocks = np.unique(groups)

    @functools.cache
    def values(kept: tuple[int, ...]) -> dict[str, float]:
        share = moments.select(np.isin(groups, kept))
        return of_law(learn(share, system), system, clock=clock)

    def estimate(name: str) -> Estimate:
        return jackknife(blocks, lambda kept: values(tuple(kept))[name])

    return {name: estimate(name) for name in values(tuple(blocks))}


def learned_law(
    system: Ising, snapshots: Snapshots, tile: int, rounds: int, rng: np.random.Generator
) -> dict[str, Estimate]:
    """``law_estimates``, the clock too, of rates that are recorded while LocalRelax goes on."""
    _, rates = relaxing_rates(system, snapshots, tile, rounds, rng, "record rates")
    return law_estimates(rates, system, clock=True)


def of_magnetizations(m: np.ndarray, system: Ising) -> dict[str, float]:
    """The same moments of a sample of magnetizations, any shape."""
    return {
        "abs_magnetization": float(np.abs(m).mean()),
        "susceptibility": susceptibility(m, system.n_sites, system.temperature),
        "binder": binder_cumulant(m),
    }


def of_law(fitted: ReversibleSDE, system: Ising, *, clock: bool) -> dict[str, float]:
    """Moments of the stationary law, and if asked for the relaxation time of |M|."""
    law = fitted.law()
    first, second, fourth = law.mean(np.abs), law.mean(np.square), law.mean(lambda m: m**4)
    moments = {
        "abs_magnetization": first,
        "susceptibility": system.n_sites / system.temperature * (second - first**2),
        "binder": 1 - fourth / (3 * second**2),
        "rho": law.mean_r,
    }
    return moments | ({"relaxation_time": fitted.relaxation_time()} if clock else {})


def equilibrium_states(
    system: Ising, samples: int, rng: np.random.Generator
) -> tuple[Trajectories, np.ndarray]:
    """Cluster updates: magnetizations of 32 chains, and 128 states to start dynamics from."""
    first, second = rng.spawn(2)
    chains = system.wolff_chains(32, samples, first, clusters=5, warm_up=50)
    starts = system.wolff_chains(32, 4, second, clusters=100, warm_up=5, keep_states=True)
    assert starts.states is not None  # keep_states
    order = second.permutation(128)
    return chains, starts.states.reshape(128, *system.lattice_shape)[order]


def direct_relaxation(
    system: Ising, starts: np.ndarray, window: float, rng: np.random.Generator
) -> tuple[Estimate, float]:
    """Relaxation time of |M| in direct simulation from equilibrium, and the longest it could see.

    starts: (64 words, L, L); the standard error is over groups of 16 replicas.
    """
    times = np.linspace(0, window, 401)
    run = system.simulate(starts, times, rng, multispin=True)
    m = np.abs(run.observables[..., 0])
    groups = m[: len(m) // 16 * 16].reshape(-1, 16, len(times))
    spacing = float(times[1])
    estimate = jackknife(
        groups, lambda kept: relaxation_time(kept.reshape(-1, len(times)), spacing)
    )
    return estimate, spacing * (len(times) // 2 - 1)


def against_relaxation(
    system: Ising,
    small: Snapshots,
    durations: Sequence[float],
    count: int,
    rounds: int,
    rng: np.random.Generator,
) -> dict[float, tuple[dict[str, float], dict[str, Estimate]]]:
    """For each duration of LocalRelax: moments of its snapshots, and what is learned of them."""
    results = {}
    for duration, generator in zip(durations, rng.spawn(len(durations)), strict=True):
        pool_rng, rates_rng = generator.spawn(2)
        pool = large_snapshots(system, small, duration, count, pool_rng)
        _, rates = relaxing_rates(system, pool, small.lattice_shape[0], rounds, rates_rng)
        own = of_magnetizations(system.observables(pool.states)[:, 0], system)
        results[duration] = own, law_estimates(rates, system)
    return results


def rollouts(
    fitted: ReversibleSDE, snapshots: np.ndarray, times: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Paths (B, T, 2) of the learned SDE from latents (B, 2); steps of half a unit."""
    return rollout(fitted, start=snapshots, times=times, rng=rng, max_step=0.5)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Results of ``05_ising_criticality`` over sizes and temperatures, means over seeds.

    ours, sampled, direct: by rate increments, by sampled pairs, and by cluster updates.
    relaxation: size -> the learned and the direct relaxation time at ``middle`` temperature.
    """

    ours: FiniteSizeData
    sampled: FiniteSizeData
    direct: FiniteSizeData
    relaxation: dict[int, tuple[Estimate, Estimate]]
    sizes_left_out: list[int]
    runs: int
    digest: str


def read_sweep(folder: Path, *others: Path, middle: float = 2.27) -> Sweep:
    """Collect the finished runs of a criticality sweep.

    Sizes that lack a temperature are left out. Others may have more sizes or seeds; of theirs
    the temperatures of the first count.

    Raises: ParameterError: no runs, no two sizes with the same three temperatures or more, or runs
            of one size and temperature that differ in more than the seed.
    """
    found = _points(folder)
    temperatures = sorted({temperature for _, temperature in found})
    for other in dict.fromkeys(path.resolve() for path in others):
        if other == folder.resolve():
            continue  # its runs would count twice
        for (side, temperature), runs in _points(other).items():
            if temperature in temperatures:
                found[side, temperature] += runs
    all_sizes = sorted({side for side, _ in found})
    sizes = [side for side in all_sizes if all((side, t) in found for t in temperatures)]
    if len(sizes) < 2 or len(temperatures) < 3:
        raise ParameterError(
            f"parameter sweep_dir = {str(folder)!r}: must hold runs of 05_ising_criticality at two "
            "sizes and three temperatures at least; `macrodyn sweep criticality` makes them"
        )

    def table(prefix: str) -> FiniteSizeData:
        grids, errors = {}, {}
        for name in QUANTITIES:
            cells = [[_mean(found[side, t], prefix + name) for t in temperatures] for side in sizes]
            grids[name] = np.array([[cell.value for cell in row] for row in cells])
            errors[name] = np.array([[cell.standard_error for cell in row] for row in cells])
        axes = {"sizes": np.array(sizes), "temperatures": np.array(temperatures)}
        return FiniteSizeData(**axes, **grids, errors=errors)

    nearest = min(temperatures, key=lambda t: abs(t - middle))
    return Sweep(
        ours=table(""),
        sampled=table("sampled."),
        direct=table("direct."),
        relaxation={
            side: (
                _mean(found[side, nearest], "relaxation_time"),
                _mean(found[side, nearest], "direct.relaxation_time"),
            )
            for side in sizes
        },
        sizes_left_out=[side for side in all_sizes if side not in sizes],
        runs=sum(map(len, found.values())),
        digest=_digest(found),
    )


def _points(folder: Path) -> dict[tuple[int, float], list[_Metrics]]:
    """Metrics of the finished runs of each side and temperature.

    Raises: ParameterError: runs of one of them differ in more than the seed.
    """
    found: dict[tuple[int, float], list[_Metrics]] = defaultdict(list)
    kinds: dict[tuple[int, float], dict[str, object]] = {}
    versions = set()
    for path in (run / "results.json" for run in finished_runs(folder)):
        try:
            run = Results.read(path)
        except ValueError:
            warnings.warn(f"{path}: not a valid results.json, left out", stacklevel=3)
            continue
        if run.notebook == "05_ising_criticality":
            point = (int(run.parameters["side"]), float(run.parameters["temperature"]))
            kind = {name: value for name, value in run.parameters.items() if name != "seed"}
            first = kinds.setdefault(point, kind)
            if differ := sorted(name for name in kind if kind[name] != first.get(name)):
                raise ParameterError(
                    f"{folder}: runs of side = {point[0]}, temperature = {point[1]:g} must differ "
                    f"in nothing but the seed, not in {', '.join(differ)}"
                )
            found[point].append(run.metrics)
            versions.add(version_of(run.provenance))
    if len(versions) > 1:
        made_by = "; ".join(sorted(versions))
        warnings.warn(f"{folder}: runs made by different code: {made_by}", stacklevel=3)
    return found


def _digest(found: dict[tuple[int, float], list[_Metrics]]) -> str:
    content = [
        (point, [{name: metric.model_dump() for name, metric in run.items()} for run in runs])
        for point, runs in found.items()
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _mean(runs: Sequence[_Metrics], name: str) -> Estimate:
    """Plain mean over seeds, all of the same effort; each run knows its own error by many blocks.

    Weights by those errors would favour runs that happen to see little of their own noise.
    """
    values = np.array([run[name].value for run in runs])
    errors = np.array([run[name].standard_error for run in runs], dtype=np.float64)
    return Estimate(float(values.mean()), float(np.sqrt(np.square(errors).sum())) / len(runs))


def sweep_folder(name: str) -> Path:
    """A folder of runs, or that of a sweep's name: among all results, else in the checkout."""
    folders = (Path(name), runs_root() / name, ROOT / "papermill_runs" / name)
    return next((f for f in folders if finished_runs(f)), folders[0])


def z_scores(ours: FiniteSizeData, direct: FiniteSizeData, name: str) -> np.ndarray:
    """Differences of two sets of points in combined standard errors, (S, T)."""
    combined = np.hypot(ours.errors[name], direct.errors[name])
    return np.asarray((getattr(ours, name) - getattr(direct, name)) / combined)


def published_recipe(
    data: FiniteSizeData, rng: np.random.Generator, resamples: int
) -> dict[str, Estimate]:
    """The paper's fits: levels at the temperature nearest to 2.27, sizes 16, 32, 64, 128;
    slopes of U at 2.269, sizes 16 to 64, linear in T for the smallest and cubic for the others.

    Of those sizes the ones that there are, {} where these are no two; errors by parametric
    bootstrap.
    """
    if any(np.isin(sizes, data.sizes).sum() < 2 for sizes in (LEVELS, SLOPES)):
        return {}
    draws = [_published(data), *(_published(data.resampled(rng)) for _ in range(resamples))]
    return {
        name: Estimate(value, float(np.std([draw[name] for draw in draws[1:]], ddof=1)))
        for name, value in draws[0].items()
    }


def _published(data: FiniteSizeData) -> dict[str, float]:
    column = int(np.abs(data.temperatures - 2.27).argmin())
    levels, slopes = data.select(LEVELS), data.select(SLOPES)
    steepness = []
    for size, binder in zip(slopes.sizes, slopes.binder, strict=True):
        degree = min(1 if size == slopes.sizes[0] else 3, len(data.temperatures) - 1)
        fit = np.polynomial.Polynomial.fit(data.temperatures, binder, degree)
        steepness.append(abs(float(fit.deriv()(2.269))))

    def slope(sizes: np.ndarray, values: np.ndarray) -> float:
        return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])

    return {
        "beta_over_nu": -slope(levels.sizes, levels.abs_magnetization[:, column]),
        "gamma_over_nu": slope(levels.sizes, levels.susceptibility[:, column]),
        "nu": 1 / slope(slopes.sizes, np.array(steepness)),
    }
