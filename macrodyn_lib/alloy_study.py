"""The study of NbMoTa: one SDE of the short-range order for all temperatures and what it predicts.

The latent state is the short-range order of the three like pairs; the other three follow from sum
rules. The unit of time of the SDE at each temperature is how long a patch evolves there, a fixed
part of the relaxation time, which changes by many orders of magnitude with temperature.
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from macrodyn_lib.errors import ParameterError
from macrodyn_lib.fitting import FittedSDE, TrainingSettings, fit_ensemble
from macrodyn_lib.lattice import Patching
from macrodyn_lib.parallel import map_chunks
from macrodyn_lib.partial_evolution import averaged_increments
from macrodyn_lib.published import PUBLISHED_BY_SIZE as PUBLISHED_BY_SIZE  # for the notebook
from macrodyn_lib.published import PUBLISHED_ORDER as PUBLISHED_ORDER
from macrodyn_lib.records import IncrementMoments, Snapshots, Trajectories
from macrodyn_lib.rollouts import EnsemblePaths, rollout_ensemble
from macrodyn_lib.sde import OnsagerNetSDE
from macrodyn_lib.statistics import Estimate, binder_cumulant, jackknife, mean_estimate
from macrodyn_lib.systems.base import check_number
from macrodyn_lib.systems.nbmota import NbMoTa
from macrodyn_lib.upsampling import relaxed_until_settled, tile_snapshots

PAIRS = NbMoTa.observable_names
LIKE = (0, 3, 5)  # NbNb, MoMo, TaTa
TOGETHER = 64  # patches that one thread evolves
RECORDS = 128  # of a small run
WAITS = 20_000  # hops that tell the mean wait
FIRST_HOPS = 64  # between records, before the spacing is doubled
LED, LED_EVERY = 512, 8  # attempts per site at most, and of which late records
WAY = 3.0  # relaxation times from random solutions on: 1 - e^-3 of the way to rest
REST = 20.0, 40.0  # between these relaxation times direct runs tell the order at rest
FARTHEST = 2e7  # hops of a vacancy at most in direct runs of the large system (paper: 2e7)
HEALING = 1e6  # hops of a vacancy at most in LocalRelax by hops: what takes longer is left undone


# --- the sum rules ------------------------------------------------------------------------------


def vacancy_bonds(order: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Vacancies next to each atom a, on average: 8 neighbours less those that are atoms.

        c_a = 8 - sum_b P_ab / n_a,   P_ab = P_ba

    Args:    order: (..., 6) short-range order.  atoms: (3,) of each species.
    Returns: (..., 3).  n_a c_a is a number of bonds: a whole one, at least 0, and together at most
             8 for each vacancy.
    """
    n_nb, n_mo, n_ta = atoms
    nb_nb, nb_mo, nb_ta, mo_mo, mo_ta, ta_ta = np.moveaxis(np.asarray(order) + 8 / 3, -1, 0)
    neighbours = (
        nb_nb + nb_mo + nb_ta,
        nb_mo * n_nb / n_mo + mo_mo + mo_ta,
        nb_ta * n_nb / n_ta + mo_ta * n_mo / n_ta + ta_ta,
    )
    return 8 - np.stack(neighbours, axis=-1)


def complete_order(like: np.ndarray, bonds: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """All six of the order from that of the like pairs, (..., 3) -> (..., 6).

    bonds: (3,) the vacancies next to each atom, as of ``vacancy_bonds``.
    """
    n_nb, n_mo, n_ta = atoms
    unlike = np.array(  # what the neighbours of Nb, Mo, Ta count of NbMo, NbTa, MoTa
        [[1, 1, 0], [n_nb / n_mo, 0, 1], [0, n_nb / n_ta, n_mo / n_ta]], dtype=np.float64
    )
    left = 8 - np.asarray(bonds) - (np.asarray(like) + 8 / 3)
    nb_mo, nb_ta, mo_ta = np.moveaxis(np.linalg.solve(unlike, left[..., None])[..., 0], -1, 0)
    nb_nb, mo_mo, ta_ta = np.moveaxis(np.asarray(like), -1, 0)
    pairs = (nb_nb, nb_mo - 8 / 3, nb_ta - 8 / 3, mo_mo, mo_ta - 8 / 3, ta_ta)
    return np.stack(pairs, axis=-1)


def sum_rule_violation(order: np.ndarray, atoms: np.ndarray, n_vacancies: int) -> float:
    """How far n_a c_a is from whole numbers >= 0 of sum <= 8 n_vacancies, at most; 0: obeyed."""
    counts = vacancy_bonds(order, atoms) * np.asarray(atoms)
    broken = (
        np.abs(counts - np.rint(counts)),
        -counts,
        (counts.sum(axis=-1) - 8 * n_vacancies)[..., None],
    )
    return float(max(part.max() for part in broken))


# --- small simulations --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SmallRuns:
    """Small systems at one temperature, from random solutions until they are at rest.

    trajectories: with states, the start among them.  relaxation_time: s, 1/e time of the mean order
    of the three like pairs.  hop_time: s, one over the hops per s of a vacancy at the end, the mean
    over runs.  mean_wait: s, over these hops; more than that, since waits in traps are long.
    at_rest: whether the runs lasted as many relaxation times as asked for.
    """

    system: NbMoTa
    trajectories: Trajectories
    relaxation_time: float
    hop_time: float
    mean_wait: float
    at_rest: bool

    def snapshots(self, per_group: int) -> Snapshots:
        """All states; ``per_group`` runs make a group, from which a large state is tiled."""
        every = self.trajectories.snapshots()
        return Snapshots(states=every.states, groups=_groups(every) // per_group)

    def alike(self) -> np.ndarray:
        """For each snapshot the window of neighbouring times that it is in, the wider the later."""
        runs, records = self.trajectories.observables.shape[:2]
        windows = np.floor(6 * np.log2(1 + np.arange(records))).astype(np.int64)
        return np.tile(windows, runs)

    def late(self) -> np.ndarray:
        """Which snapshots are of the second half of the runs."""
        runs, records = self.trajectories.observables.shape[:2]
        return np.tile(np.arange(records) > records // 2, runs)

    def on_the_way(self) -> np.ndarray:
        """Which snapshots are of the first ``WAY`` relaxation times."""
        times = self.trajectories.times
        runs = len(self.trajectories.observables)
        return np.tile(times <= WAY * self.relaxation_time, runs)

    def led_on(self, per_group: int, rng: np.random.Generator) -> tuple[Snapshots, np.ndarray]:
        """Late states that exchanges lead on towards rest, where hops take too long to get there.

        After 1, 2, 4 ... ``LED`` attempts per site; also returns for each which of these it is.
        """
        at = np.arange(len(self.trajectories.times) // 2, len(self.trajectories.times), LED_EVERY)
        assert self.trajectories.states is not None  # simulate_small_runs keeps them
        states = self.trajectories.states[:, at].reshape(-1, *self.system.state_shape)
        groups = np.repeat(np.arange(len(self.trajectories.observables)) // per_group, len(at))
        rungs, done = [], 0
        for rung in range(round(math.log2(LED)) + 1):
            chains = self.system.exchange_chains(states, 2**rung - done, 1, rng, keep_states=True)
            assert chains.states is not None  # keep_states
            states, done = chains.states[:, 0], 2**rung
            rungs.append(Snapshots(states=states, groups=groups))
        labels = np.repeat(np.arange(len(rungs)), len(states))
        every = np.concatenate([rung.states for rung in rungs])
        return Snapshots(states=every, groups=np.tile(groups, len(rungs))), labels


def _groups(snapshots: Snapshots) -> np.ndarray:
    assert snapshots.groups is not None  # set in Snapshots.__post_init__
    return snapshots.groups


def simulate_small_runs(
    system: NbMoTa,
    runs: int,
    rng: np.random.Generator,
    *,
    relaxations: float,
    max_hops: float,
) -> SmallRuns:
    """Run until the time is ``relaxations`` times the relaxation time seen, in doubling steps.

    Nobody knows the relaxation time beforehand: from 3000 to 800 K it grows by nine orders of
    magnitude. Records are equally spaced; with each doubling every second one is kept.
    max_hops: of a vacancy, in the mean; where that is too short for rest, the runs are as they are.
    Hops are reckoned by the waits at the end of each step, so they are about as many.
    """
    states = system.initial_states(runs, rng)
    spacing = FIRST_HOPS / (1 / _waits(system, states, rng)).mean()
    start = Trajectories(
        times=np.zeros(1), observables=system.observables(states)[:, None], states=states[:, None]
    )
    path, hops = _continued(system, start, spacing, RECORDS, rng), float(FIRST_HOPS * RECORDS)
    while True:
        assert path.states is not None  # _continued keeps them
        relaxation = transient_time(path.times, path.observables)
        at_rest = relaxations * relaxation <= path.times[-1]
        waits = _waits(system, path.states[:, -1], rng)
        hops += path.times[-1] * (1 / waits).mean()  # of the next step, as long as all before
        if at_rest or hops > max_hops:
            break
        spacing *= 2
        every_second = Trajectories(
            times=path.times[::2], observables=path.observables[:, ::2], states=path.states[:, ::2]
        )
        path = _continued(system, every_second, spacing, RECORDS // 2, rng)
    return SmallRuns(
        system=system,
        trajectories=path,
        relaxation_time=relaxation,
        hop_time=float(1 / (1 / waits).mean()),
        mean_wait=float(waits.mean()),
        at_rest=at_rest,
    )


def _waits(system: NbMoTa, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean wait of the vacancy between hops, s, in each of the small systems."""
    times, _, _ = system.simulate_events(states, WAITS, 1, rng, mean_waits=True)
    waits: np.ndarray = times[:, 0] / WAITS
    return waits


def _continued(
    system: NbMoTa, path: Trajectories, spacing: float, records: int, rng: np.random.Generator
) -> Trajectories:
    assert path.states is not None
    times = spacing * np.arange(1, records + 1)
    more = system.simulate(path.states[:, -1], times, rng, keep_states=True)
    return Trajectories(
        times=np.concatenate([path.times, path.times[-1] + times]),
        observables=np.concatenate([path.observables, more.observables], axis=1),
        states=np.concatenate([path.states, more.states], axis=1),
    )


def transient_time(times: np.ndarray, observables: np.ndarray, final: float | None = None) -> float:
    """1/e time of the way of MoMo from the first record to ``final``, of paths (B, T, 6).

    MoMo has the most order and so the least relative noise. final: the order in equilibrium; None:
    the mean of the last quarter, whose error makes three times as large a one of the time. Paths
    that do not get so far have the last time, a lower bound, and so have paths that have not got
    anywhere (by three standard errors): vacancies that hop between two sites are not at rest.
    """
    paths = observables[:, :, LIKE[1]]
    path = paths.mean(axis=0)
    if final is None:
        ways = paths[:, -(len(times) // 4) :].mean(axis=1) - paths[:, 0]
        error = ways.std(ddof=1) / math.sqrt(len(ways)) if len(ways) > 1 else 0.0
        if abs(ways.mean()) <= 3 * error:
            return float(times[-1])
        final = float(path[0] + ways.mean())
    if path[0] == final:
        return float(times[-1])
    left = (path - final) / (path[0] - final)
    below = np.nonzero(left < math.exp(-1))[0]
    if len(below) == 0:
        return float(times[-1])
    after = int(below[0])
    high, low = left[after - 1], left[after]
    share = (high - math.exp(-1)) / (high - low)
    return float(times[after - 1] + share * (times[after] - times[after - 1]))


# --- learning -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LargeSnapshots:
    """States of a large system, tiled from small ones.

    late: of the second half of the runs.  on_the_way: from random solutions on.
    healed: whether the late ones are without seams. All others stay K periodic systems of one tile:
    taken for one lattice they have seams, which order as fast as random solutions do, and which
    hops heal in no less time than the way takes.
    """

    late: Snapshots
    on_the_way: Snapshots
    healed: bool


def _side_by_side(tiles: IncrementMoments, count: int) -> IncrementMoments:
    """Increments of large systems, each of the next ``count`` periodic ones that do not touch."""

    def mean(values: np.ndarray) -> np.ndarray:
        averaged: np.ndarray = values.reshape(-1, count, *values.shape[1:]).mean(axis=1)
        return averaged

    assert tiles.groups is not None  # set in IncrementMoments.__post_init__
    return IncrementMoments(
        latents=mean(tiles.latents),
        means=mean(tiles.means),
        scatters=mean(tiles.scatters),
        durations=tiles.durations[::count],
        counts=tiles.counts[::count],
        groups=tiles.groups[::count],
        n_patches=count,
        scatter_is_noise=tiles.scatter_is_noise,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AlloyRecipe:
    """How the dynamics of a large alloy is learned from small ones and patches.

    patch_cells: edge of a patch and of the small system.  snapshots: large ones per temperature,
    half of them on the way from random solutions to rest, half at rest.
    groups, per_group: small runs are made in so many groups of so many; a large state is tiled from
    one group, and members of the ensemble share none.  max_hops: of a vacancy in a small run.
    sweeps, relaxations: LocalRelax of those at rest, at most: exchange attempts per site and tile
    or, without pair energies, relaxation times of hops, over all of the eight tiles that a site is
    in. Less where twice as long changes nothing.
    duration: of partial evolution, in relaxation times, but no more than ``longest_hops``, unless
    that is less than ``least`` relaxation times: rollouts would take for ever. Long ones pay: what
    a patch drifts grows as dt, the noise of its hops as dt^(1/2).
    rest_weight: of a snapshot at rest in the fit, those on the way having 1. Near rest the drift is
    smallest, yet it says where rest is.
    boundary: of the patches.  evolutions: of the patches of a snapshot, of each two at least.
    members: independent fits.  hidden: of the OnsagerNetSDE.
    """

    patch_cells: int
    snapshots: int
    groups: int
    per_group: int
    members: int
    settings: TrainingSettings
    max_hops: float = 1e6
    sweeps: float = 64.0
    relaxations: float = 8.0
    duration: float = 0.05
    longest_hops: float = 3000.0
    least: float = 0.001
    rest_weight: float = 3.0
    boundary: str = "buffer(4)"
    evolutions: int = 32
    hidden: tuple[int, ...] = (32, 32)

    def but(self, **changes: object) -> "AlloyRecipe":
        """The same recipe with some ingredients changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    @property
    def patching(self) -> Patching:
        return Patching(side=self.patch_cells, boundary=self.boundary)

    def small_runs(self, system: NbMoTa, rng: np.random.Generator) -> SmallRuns:
        """Step 1, D_s. Without pair energies hops alone lead to rest, which takes twice as long."""
        return simulate_small_runs(
            system.resized(self.patch_cells), self.groups * self.per_group, rng,
            relaxations=8.0 if system.model.pairs is not None else 16.0, max_hops=self.max_hops,
        )  # fmt: skip

    def large_snapshots(
        self, system: NbMoTa, small: SmallRuns, rng: np.random.Generator
    ) -> LargeSnapshots:
        """Step 2, D: tiles of one group, and of about the same time.

        LocalRelax heals the late ones: by exchanges, which lead to the same equilibrium as hops but
        on another way; without pair energies by hops, if the runs are at rest and it takes no
        more than ``HEALING`` of them. On the way, too, exchanges lead on where the runs do not get
        to rest: else V would be anything in between.
        """
        every, alike = small.snapshots(self.per_group), small.alike()
        late, early, count = small.late(), small.on_the_way(), -(-self.snapshots // 2)
        exchange = system.model.pairs is not None
        way, stages = every.select(early), alike[early]
        if exchange and not small.at_rest:
            further, rungs = small.led_on(self.per_group, rng)
            way = Snapshots(
                states=np.concatenate([way.states, further.states]),
                groups=np.concatenate([_groups(way), _groups(further)]),
            )
            stages = np.concatenate([stages, stages.max() + 1 + rungs])

        def tiles(of: Snapshots, labels: np.ndarray) -> Snapshots:
            return tile_snapshots(of, alike=labels, to=system, count=count, rng=rng)

        latest, on_the_way = tiles(every.select(late), alike[late]), tiles(way, stages)
        hops = self.relaxations * small.relaxation_time / small.hop_time
        healed = exchange or (small.at_rest and hops <= HEALING)
        if healed and system.cells > self.patch_cells:  # one tile alone has no seams
            latest = relaxed_until_settled(
                latest,
                dataclasses.replace(system, relaxation="exchange" if exchange else "hops"),
                side=self.patch_cells,
                unit=1.0 if exchange else small.relaxation_time / 8,
                most=self.sweeps if exchange else self.relaxations,
                observable=LIKE[1],
                rng=rng,
            )
        return LargeSnapshots(late=latest, on_the_way=on_the_way, healed=healed)

    def duration_of(self, small: SmallRuns) -> float:
        """dt, s: how long a patch evolves at the temperature of these runs."""
        longest = max(self.longest_hops * small.hop_time, self.least * small.relaxation_time)
        return min(self.duration * small.relaxation_time, longest)

    def increments(
        self,
        system: NbMoTa,
        large: LargeSnapshots,
        duration: float,
        rng: np.random.Generator,
        parameters: Sequence[float] = (),
    ) -> IncrementMoments:
        """Step 3: all patches evolved; the like pairs, with time in units of the duration.

        Those of the late snapshots come first.
        """
        n_tiles = len(self.patching.patches(system.lattice_shape))
        twice = max(round(self.evolutions / (2 * n_tiles)), 1)  # continuations come as twins

        def tile_by_tile(snapshots: Snapshots) -> IncrementMoments:
            tiles = Patching(side=self.patch_cells).split(snapshots.states, system.lattice_shape)
            alone = Snapshots(
                states=tiles.reshape(-1, *tiles.shape[2:]),
                groups=np.repeat(_groups(snapshots), n_tiles),
            )
            small = system.resized(self.patch_cells)
            return _side_by_side(self._evolved(small, alone, duration, 2 * twice, rng), n_tiles)

        if large.healed:
            late = self._evolved(system, large.late, duration, 2 * twice, rng)
        else:
            late = tile_by_tile(large.late)
        both = IncrementMoments.concatenate([late, tile_by_tile(large.on_the_way)])
        like = list(LIKE)
        return dataclasses.replace(
            both,
            counts=both.counts
            * np.repeat([self.rest_weight, 1.0], [len(late), len(both) - len(late)]),
            latents=both.latents[:, like],
            means=both.means[:, like],
            scatters=both.scatters[:, like][:, :, like],
            durations=np.ones(len(both)),
            parameters=np.tile(np.asarray(parameters, dtype=np.float64), (len(both), 1)),
        )

    def _evolved(
        self,
        system: NbMoTa,
        snapshots: Snapshots,
        duration: float,
        continuations: int,
        rng: np.random.Generator,
    ) -> IncrementMoments:
        """All patches of the snapshots evolved, in threads; all six pairs."""

        def run(rows: slice, generator: np.random.Generator) -> IncrementMoments:
            return averaged_increments(
                system, snapshots.select(np.arange(rows.start, rows.stop)), self.patching,
                duration=duration, continuations=continuations, rng=generator,
            )[0]  # fmt: skip

        patches = len(self.patching.patches(system.lattice_shape))
        chunk = max(TOGETHER // patches, 1)
        return IncrementMoments.concatenate(map_chunks(run, len(snapshots), rng, chunk=chunk))

    def learn(
        self,
        system: NbMoTa,
        small: Mapping[float, SmallRuns],
        rng: np.random.Generator,
        *,
        description: str | None = None,
    ) -> "LearnedAlloy":
        """Steps 2 to 5: one SDE for the temperatures of the small runs, an ensemble of it.

        The parameter is 1000 K / T, in which rates are exponential; for a single temperature there
        is none.
        """
        large, parts = {}, []
        progress = tqdm(small.items(), desc=description, disable=None if description else True)
        for temperature, runs in progress:
            there = dataclasses.replace(system, temperature=temperature)
            large[temperature] = self.large_snapshots(there, runs, rng)
            parameters = [1000 / temperature] if len(small) > 1 else []
            unit = self.duration_of(runs)
            parts.append(self.increments(there, large[temperature], unit, rng, parameters))
        return self.fitted(system, small, large, parts, rng, description=description)

    def fitted(
        self,
        system: NbMoTa,
        small: Mapping[float, SmallRuns],
        large: Mapping[float, LargeSnapshots],
        parts: Sequence[IncrementMoments],
        rng: np.random.Generator,
        *,
        description: str | None = None,
    ) -> "LearnedAlloy":
        """Step 5 alone: of the increments of each temperature, those of late snapshots first."""
        members = fit_ensemble(
            # the same groups at every temperature, so that shares have all temperatures
            IncrementMoments.concatenate(parts),
            OnsagerNetSDE(len(LIKE), parameters=int(len(small) > 1), hidden=self.hidden),
            members=self.members,
            rng=rng,
            settings=self.settings,
            description=description,
        )
        atoms = system.composition()[1:]
        late = [system.observables(snapshots.late.states) for snapshots in large.values()]
        rest = [
            part.latents[: len(orders)].mean(axis=0)
            for part, orders in zip(parts, late, strict=True)
        ]
        order = np.argsort(list(small))
        return LearnedAlloy(
            system=system,
            members=members,
            temperatures=np.array(list(small), dtype=np.float64)[order],
            units=np.array([self.duration_of(runs) for runs in small.values()])[order],
            rest=np.array(rest)[order],
            bonds=np.array([vacancy_bonds(o, atoms).mean(axis=0) for o in late])[order],
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LearnedAlloy:
    """An ensemble of SDEs of the like pairs, at the temperatures (T,), ascending.

    units: (T,) s, the unit of time at each; rest: (T, 3), mean of the like pairs in the late
    training snapshots; bonds: (T, 3), vacancies next to each species. Between temperatures they are
    interpolated in 1 / T, units by their logarithm (Arrhenius' law).
    """

    system: NbMoTa
    members: list[FittedSDE]
    temperatures: np.ndarray
    units: np.ndarray
    rest: np.ndarray
    bonds: np.ndarray

    def at(self, temperature: float) -> list[FittedSDE]:
        """The members at a temperature; warns where that is outside the training range."""
        check_number("temperature", temperature, above=0)
        alone = len(self.temperatures) == 1
        low, high = self.temperatures[[0, -1]]
        if not low <= temperature <= high:
            known = (
                f"{low:g} K alone: nothing depends on it"
                if alone
                else f"{low:g} to {high:g} K: the model is extrapolated"
            )
            warnings.warn(
                f"temperature = {temperature:g} K lies outside the training range, {known}",
                stacklevel=2,
            )
        if alone:
            return self.members
        # not ``member.at``, which would warn of 1000 K / T, once for each member
        inverse = np.array([1000 / temperature])
        return [dataclasses.replace(member, parameters=inverse) for member in self.members]

    def unit(self, temperature: float) -> float:
        """Unit of time, s; beyond the outermost temperatures Arrhenius' law goes on."""
        if len(self.temperatures) == 1:
            return float(self.units[0])
        x, known = 1000 / temperature, 1000 / self.temperatures
        i = int(np.clip(np.searchsorted(self.temperatures, temperature), 1, len(known) - 1))
        logs = np.log(self.units)
        slope = (logs[i] - logs[i - 1]) / (known[i] - known[i - 1])
        return float(np.exp(logs[i] + slope * (x - known[i])))

    def paths(
        self,
        temperature: float,
        times: np.ndarray,
        replicas: int,
        rng: np.random.Generator,
        start: np.ndarray | None = None,
    ) -> EnsemblePaths:
        """All six of the order from ``start`` (B, 3) of the like pairs at ``times``, s.

        start: None: a random solution. Steps are one unit, for which increments were learned: then
        relaxation is right to any order of the step.
        """
        unit = self.unit(temperature)
        if start is None:
            start = np.zeros((1, len(LIKE)))
        paths = rollout_ensemble(
            self.at(temperature), start=start, replicas=replicas, times=times / unit, rng=rng,
            max_step=1.0,
        )  # fmt: skip
        bonds = self._between(self.bonds, temperature)
        six = complete_order(paths.paths, bonds, self.system.composition()[1:])
        return EnsemblePaths(times=np.asarray(times), paths=six)

    def starts(self, temperature: float) -> np.ndarray:
        """A random solution, and the mean of the training snapshots at rest: (2, 3)."""
        return np.stack([np.zeros(len(LIKE)), self._between(self.rest, temperature)])

    def _between(self, table: np.ndarray, temperature: float) -> np.ndarray:
        known = 1000 / self.temperatures[::-1]
        return np.array([np.interp(1000 / temperature, known, column[::-1]) for column in table.T])


def learned_transient_time(paths: EnsemblePaths, final: float) -> Estimate:
    """``transient_time`` of rollouts from one start, with its error over the members."""
    return mean_estimate(
        np.array([transient_time(paths.times, member[0], final) for member in paths.paths])
    )


def direct_transient_time(path: Trajectories, final: float) -> Estimate:
    """``transient_time`` of direct paths, with its error over the runs."""
    return jackknife(path.observables, lambda kept: transient_time(path.times, kept, final))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DirectRuns(Trajectories):
    """Direct runs of the large system from random solutions, for comparison only.

    late: (B, L, 6), order once they are at rest; None where exchanges tell it, or rest is too far.
    """

    late: np.ndarray | None = None


def transient(
    system: NbMoTa,
    small: SmallRuns,
    runs: int,
    rng: np.random.Generator,
    *,
    relaxations: float = 6.0,
    records: int = 61,
) -> DirectRuns:
    """Direct runs of the large system, their order at rest included for a model without energies.

    For six relaxation times, or ``FARTHEST``.

    Composition is conserved: its long waves decay by diffusion, so that order comes to rest not as
    an exponential but as t^(-3/2) in the end. Of MoMo, 3 % are missing between four and six
    relaxation times (1/e times), between the two times of ``REST`` no more than can be resolved,
    0.5 % (pair model, 2000 and 2500 K, against exchanges).
    """
    farthest = FARTHEST * small.hop_time
    times = np.linspace(0, min(relaxations * small.relaxation_time, farthest), records)
    goes_on = small.at_rest and system.model.pairs is None
    way = system.simulate(system.initial_states(runs, rng), times, rng, keep_states=goes_on)
    if way.states is None:
        return DirectRuns(times=times, observables=way.observables)
    later = np.linspace(*REST, records) * small.relaxation_time - times[-1]
    late = system.simulate(way.states[:, -1], later, rng).observables
    return DirectRuns(times=times, observables=way.observables, late=late)


def fixed_events(
    system: NbMoTa, events: int, runs: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """The published protocol: order (runs, 6) after ``events`` hops from random solutions, and the
    mean time that they take, s."""
    times, observables, _ = system.simulate_events(
        system.initial_states(runs, rng), events, 1, rng, mean_waits=True
    )
    return observables[:, 0], float(times.mean())


def published_time(small: SmallRuns, hops: float) -> float:
    """When the published predictions are read, s: ``hops`` mean waits of a vacancy in the
    snapshots that they learn from, most of them late.

    From a random solution many more hops have happened by then, as waits grow with the order.
    """
    return hops * small.mean_wait


def order_at(path: Trajectories, time: float) -> list[Estimate]:
    """Order of direct runs at a time between their records, for each pair; at most at the last."""
    columns = np.moveaxis(path.observables, 2, 1)  # (B, 6, T)
    at = [[np.interp(time, path.times, column) for column in run] for run in columns]
    return mean_order(np.array(at))


def lag_study(
    system: NbMoTa,
    recipe: AlloyRecipe,
    small: SmallRuns,
    hops: Sequence[float],
    boundaries: Sequence[str],
    times: np.ndarray,
    final: float,
    rng: np.random.Generator,
) -> dict[str, dict[str, list[Estimate]]]:
    """Fits at one temperature with patches evolved for other times, and among other boundaries.

    Returns: for each boundary by number of hops of a vacancy the learned "relaxation" time (s, from
             paths at ``times`` to the order ``final``) and "diffusion": n Sigma(MoMo) per hop, at
             the last mean order.
    """
    at, large = system.temperature, recipe.large_snapshots(system, small, rng)
    result: dict[str, dict[str, list[Estimate]]] = {}
    for boundary in boundaries:
        found: dict[str, list[Estimate]] = {"relaxation": [], "diffusion": []}
        for count in hops:
            lag = recipe.but(boundary=boundary, duration=math.inf, longest_hops=count, least=0.0)
            unit = lag.duration_of(small)
            moments = lag.increments(system, large, unit, rng)
            learned = lag.fitted(system, {at: small}, {at: large}, [moments], rng)
            paths = learned.paths(system.temperature, times, 64, rng)
            found["relaxation"].append(learned_transient_time(paths, final))
            rest = paths.paths[:, :, :, -1][..., list(LIKE)].mean(axis=(0, 1, 2))[None]
            sigma = [float(member.covariance(rest)[0, 1, 1]) for member in learned.members]
            found["diffusion"].append(mean_estimate(system.n_sites / count * np.array(sigma)))
        result[boundary] = found
    return result


def late_order(paths: EnsemblePaths, start: int = 0) -> list[Estimate]:
    """Mean of the second half of rollouts (of one time: of that) from a start, for each pair."""
    return mean_order(paths.paths[:, start, :, paths.paths.shape[3] // 2 :].mean(axis=(1, 2)))


def late_direct_order(direct: DirectRuns) -> list[Estimate]:
    """Mean of direct runs at rest, for each pair; of the last third if they do not get there."""
    late = direct.late
    if late is None:
        late = direct.observables[:, -(len(direct.times) // 3) :]
    return mean_order(late.mean(axis=1))


def mean_order(order: np.ndarray) -> list[Estimate]:
    """Mean over runs or members of their orders (B, 6), for each pair."""
    return [mean_estimate(order[:, k]) for k in range(len(PAIRS))]


def late_std_ratio(of: EnsemblePaths, to: EnsemblePaths) -> Estimate:
    """Standard deviation of TaTa late in rollouts of one size over that of another."""

    def late(paths: EnsemblePaths) -> np.ndarray:
        variances = paths.paths[..., LIKE[2]][:, 0].var(axis=1, ddof=1)
        last: np.ndarray = variances[:, -(variances.shape[1] // 3) :].mean(axis=1)
        return last

    both = np.stack([late(of), late(to)], axis=1)
    return jackknife(both, lambda kept: float(np.sqrt(kept[:, 0].mean() / kept[:, 1].mean())))


def direct_std_ratio(of: Trajectories, to: Trajectories) -> Estimate:
    """The same of direct runs; its error is that of standard deviations of so many runs."""
    deviations, errors = [], []
    for path in (of, to):
        late = path.observables[:, -(len(path.times) // 3) :, LIKE[2]]
        deviations.append(float(np.sqrt(late.var(axis=0, ddof=1).mean())))
        errors.append(math.sqrt(0.5 / (len(late) - 1)))
    ratio = deviations[0] / deviations[1]
    return Estimate(ratio, ratio * math.hypot(*errors))


def compare_size(
    system: NbMoTa,
    recipe: AlloyRecipe,
    small: SmallRuns,
    times: np.ndarray,
    rollouts: int,
    direct_runs: int,
    rng: np.random.Generator,
) -> tuple[EnsemblePaths, Trajectories]:
    """All steps at one size and temperature: learned paths, and direct ones at the same times.

    A snapshot of a large system has many patches: fewer of them are needed, as n^(-1/2), and fewer
    direct runs for equal errors.
    """
    share = (recipe.patch_cells / system.cells) ** 1.5
    least = 96 * recipe.members  # a fit to fewer knows little of the slope at rest
    snapshots = min(max(round(recipe.snapshots * share), least), recipe.snapshots)
    fewer = recipe.but(snapshots=snapshots)
    learned = fewer.learn(system, {system.temperature: small}, rng)
    paths = learned.paths(system.temperature, times, rollouts, rng)
    count = max(round(4 * direct_runs * share), 2)
    direct = system.simulate(system.initial_states(count, rng), times, rng)
    return paths, direct


def order_curves(
    metrics: Mapping[str, Any], kind: str
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Order against temperature, of the metrics ``kind.T.pair`` of ``08_nbmota``.

    kind: "sro", late; "protocol", after the hops of the published protocol; or "published_time", at
    the time of its clock. The published order is beside both of these.

    Returns: "learned", "direct" and maybe "published" -> temperatures (T,), order (T, 6), and of
             the learned order its standard errors (T, 6).  {}: there are no such metrics.
    """
    ours = (key.removeprefix(f"{kind}.") for key in metrics if key.startswith(f"{kind}."))
    names = {key.rpartition(".")[0] for key in ours}  # a temperature may have a point
    if not names:
        return {}
    temperatures = np.array(sorted(map(float, names)))
    rows = [[metrics[f"{kind}.{at:g}.{pair}"] for pair in PAIRS] for at in temperatures]
    learned, errors, direct = (
        np.array([[getattr(metric, name) for metric in row] for row in rows], dtype=np.float64)
        for name in ("value", "standard_error", "reference")
    )
    curves = {"learned": (temperatures, learned, errors), "direct": (temperatures, direct, None)}
    if kind != "sro":
        published = np.array(list(PUBLISHED_ORDER)), np.array(list(PUBLISHED_ORDER.values()))
        curves["published"] = (*published, None)
    return curves


# --- equilibrium --------------------------------------------------------------------------------


def sublattice_order(states: np.ndarray) -> np.ndarray:
    """Order of the CsCl kind: (Mo on corners - Mo on centres) / Mo, (..., X, Y, Z, 2) -> (...)."""
    molybdenum = (states == 2).sum(axis=(-4, -3, -2))
    return (molybdenum[..., 0] - molybdenum[..., 1]) / molybdenum.sum(axis=-1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Equilibrium:
    """Chains at temperatures (T,): order (T, chains, records, 6), sublattice order (T, chains,
    records), and the last state of the first chain at each, (T, *state)."""

    temperatures: np.ndarray
    order: np.ndarray
    sublattice: np.ndarray
    examples: np.ndarray

    def mean_order(self, temperature: float, component: int) -> Estimate:
        """Of one pair, with its error over the chains.

        Raises: ParameterError: there are no chains at this temperature.
        """
        if temperature not in self.temperatures:
            raise ParameterError(
                f"temperature = {temperature:g}: must be one of {self.temperatures.tolist()}"
            )
        at = int(np.argmax(self.temperatures == temperature))
        return mean_estimate(self.order[at, :, :, component].mean(axis=1))


def simulate_equilibrium(
    system: NbMoTa,
    temperatures: Sequence[float],
    *,
    chains: int,
    sweeps: int,
    records: int = 40,
    rng: np.random.Generator,
    description: str | None = None,
) -> Equilibrium:
    """Exchange Monte Carlo of the pair energies, cooled from the highest temperature.

    At each temperature a third of ``sweeps`` (attempts per site) is thrown away; the last states
    are the first of the next temperature.

    Raises: ValueError: the barrier model has no pair energies.
    """
    descending = sorted(temperatures, reverse=True)
    states = system.initial_states(chains, rng)
    orders, sublattices, examples = [], [], []
    for temperature in tqdm(descending, desc=description, disable=None if description else True):
        there = dataclasses.replace(system, temperature=float(temperature))
        first = there.exchange_chains(states, sweeps / 3, 1, rng, keep_states=True)
        assert first.states is not None  # keep_states
        kept = there.exchange_chains(
            first.states[:, 0], 2 * sweeps / 3 / records, records, rng, keep_states=True
        )
        assert kept.states is not None  # keep_states
        states = kept.states[:, -1]
        orders.append(kept.observables)
        sublattices.append(sublattice_order(kept.states))
        examples.append(states[0])
    return Equilibrium(
        temperatures=np.array(descending[::-1], dtype=np.float64),
        order=np.array(orders[::-1]),
        sublattice=np.array(sublattices[::-1]),
        examples=np.array(examples[::-1]),
    )


def ordering_temperature(small: Equilibrium, large: Equilibrium) -> Estimate:
    """Where the Binder cumulants of the sublattice order of two sizes cross, by linear pieces.

    Below it the larger system has the larger cumulant. Its error is a jackknife over the chains, as
    many of each size. Where they do not cross, the outermost temperature is a bound.

    Raises: ValueError: the temperatures of the two sizes differ.
    """
    if not np.array_equal(small.temperatures, large.temperatures):
        raise ValueError("temperatures of the two sizes differ: must be the same")

    def crossing(chains: np.ndarray) -> float:
        differences = np.array(
            [binder_cumulant(b) - binder_cumulant(a) for a, b in np.moveaxis(chains, 0, 2)]
        )
        changes = np.nonzero((differences[:-1] > 0) & (differences[1:] <= 0))[0]
        if len(changes) == 0:
            return float(small.temperatures[-1 if differences[-1] > 0 else 0])
        i = int(changes[-1])
        share = differences[i] / (differences[i] - differences[i + 1])
        low, high = small.temperatures[i : i + 2]
        return float(low + share * (high - low))

    both = np.stack([small.sublattice, large.sublattice], axis=1)  # (T, 2, chains, records)
    return jackknife(np.moveaxis(both, 2, 0), crossing)
