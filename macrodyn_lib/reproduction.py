"""Repeat a finished run and compare it with what is stored, metric by metric."""

import math
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from macrodyn_lib.errors import ParameterError
from macrodyn_lib.execution import execute
from macrodyn_lib.study import Metric, Results, runs_root
from macrodyn_lib.sweeps import StoredRun, plan_run, stored_runs

Verdict = Literal["equal", "agrees", "different"]
# Combined standard errors up to which two values agree; with normal errors one metric in 370 of two
# independent runs lies farther apart.
ALLOWED = 3.0
# what may explain a difference
EXPLAINING = (
    "source_hash", "notebook_hash", "git_commit", "dirty", "data", "python", "packages", "machine",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric as stored and as repeated; None where it is missing."""

    name: str
    stored: Metric | None
    repeated: Metric | None

    @property
    def verdict(self) -> Verdict:
        """``equal`` to the last bit, in all that is stored, else by the distance of the values."""
        if self.stored == self.repeated:
            return "equal"
        return "agrees" if self.distance <= ALLOWED else "different"

    @property
    def distance(self) -> float:
        """Of the values, in combined standard errors; infinite without these."""
        if self.stored is None or self.repeated is None:
            return math.inf
        if self.stored.value == self.repeated.value:
            return 0.0
        errors = (self.stored.standard_error, self.repeated.standard_error)
        combined = math.hypot(*(error or 0.0 for error in errors))
        return abs(self.stored.value - self.repeated.value) / combined if combined else math.inf

    def describe(self) -> str:
        text = f"{self.verdict:10}{self.name}"
        if self.verdict == "equal":
            return text
        values = " -> ".join(
            "missing" if metric is None else f"{metric.value!r}"
            for metric in (self.stored, self.repeated)
        )
        return f"{text}: {values} ({self.distance:.2g} combined standard errors)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A run and its repetition, which is None where it failed for the given reason."""

    stored: StoredRun
    repeated: StoredRun | None
    failure: str | None

    @property
    def comparisons(self) -> list[Comparison]:
        if self.repeated is None:
            return []
        return compare(self.stored.results, self.repeated.results)

    @property
    def verdict(self) -> Verdict:
        """The worst one of all metrics; a run without any is equal to its repetition."""
        if self.repeated is None:
            return "different"
        verdicts = [comparison.verdict for comparison in self.comparisons]
        worst: Sequence[Verdict] = ("different", "agrees")
        return next((verdict for verdict in worst if verdict in verdicts), "equal")

    def describe(self) -> list[str]:
        """Lines to be printed."""
        if self.repeated is None:
            return [f"failed: {self.failure}"]
        changes = _changes(self.stored.results.provenance, self.repeated.results.provenance)
        verdicts = [comparison.verdict for comparison in self.comparisons]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("equal", "agrees", "different"))
        return [
            *(comparison.describe() for comparison in self.comparisons),
            *(f"made by other {change}" for change in changes),
            f"metrics: {counts} (agrees: within {ALLOWED:g} combined standard errors)",
            f"repeated in {self.repeated.folder}",
        ]


def reproduce(name: str) -> Reproduction:
    """Repeat the run of an id, or of STUDY/ID, in a scratch folder with an empty cache.

    Raises: ParameterError: no such run, several, or parameters that the notebook has no more.
    """
    stored = find_run(name)
    name = f"{stored.folder.name}-{uuid.uuid4().hex[:8]}"  # others may repeat the same run
    scratch = runs_root().resolve() / ".reproduced" / name
    study = scratch / stored.folder.parent.name
    spec = plan_run(stored.results.notebook, stored.results.parameters, study)
    outcome = execute([spec], workers=1)
    shutil.rmtree(scratch / ".cache", ignore_errors=True)  # only the run is to be looked at
    results = spec.results_in(spec.folder)
    if results is None:
        reason = next((reason for _, reason in outcome.failed), "its results are not there")
        return Reproduction(stored=stored, repeated=None, failure=reason)
    return Reproduction(stored=stored, repeated=StoredRun(spec.folder, results), failure=None)


def find_run(name: str) -> StoredRun:
    """Raises: ParameterError: not the name of one finished run."""
    runs = {f"{run.folder.parent.name}/{run.folder.name}": run for run in stored_runs()[0]}
    found = [key for key in runs if name in (key, key.split("/")[1])]
    if len(found) != 1:
        allowed = ", ".join(found) or ", ".join(runs) or "(none yet)"
        raise ParameterError(f"run = {name!r}: must be the id of one finished run of {allowed}")
    return runs[found[0]]


def compare(stored: Results, repeated: Results) -> list[Comparison]:
    """All metrics of either, in their order."""
    names = dict.fromkeys([*stored.metrics, *repeated.metrics])
    return [Comparison(n, stored.metrics.get(n), repeated.metrics.get(n)) for n in names]


def _changes(stored: Mapping[str, Any], repeated: Mapping[str, Any]) -> list[str]:
    """What of the provenance is not the same."""
    before, now = _flat(stored), _flat(repeated)
    return [
        f"{name}: {before.get(name, 'not recorded')} -> {now.get(name, 'none')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _flat(provenance: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key in EXPLAINING:
        value = provenance.get(key, {})
        flat |= value if isinstance(value, dict) else {key: value}
    return flat
