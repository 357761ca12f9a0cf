"""The frame of a notebook: parameters in, named random streams, results.json out."""

import contextlib
import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import joblib
import numpy as np
from pydantic import BaseModel, ConfigDict

from macrodyn_lib import provenance
from macrodyn_lib.errors import ParameterError
from macrodyn_lib.parameters import NOTEBOOKS, StudyParameters, resolve, run_id
from macrodyn_lib.provenance import ROOT
from macrodyn_lib.randomness import stream

if TYPE_CHECKING:
    import pandas as pd

    from macrodyn_lib.statistics import Estimate

ReferenceKind = Literal["exact", "simulation", "published"]


def runs_root() -> Path:
    """Folder of all results: ``MACRODYN_RUNS``, else ``papermill_runs`` of this checkout."""
    return Path(os.environ.get("MACRODYN_RUNS") or ROOT / "papermill_runs")


def notebooks_root() -> Path:
    """Folder of the notebooks: ``MACRODYN_NOTEBOOKS``, else ``notebooks`` of this checkout."""
    return Path(os.environ.get("MACRODYN_NOTEBOOKS") or ROOT / "notebooks")


class Metric(BaseModel):
    """One reported number; ``criterion`` says in words what ``passed`` means."""

    model_config = ConfigDict(extra="forbid")
    value: float
    standard_error: float | None
    reference: float | None
    reference_kind: ReferenceKind | None
    passed: bool
    criterion: str

    @property
    def outright(self) -> bool | None:
        """Does the criterion hold without its allowance for noise? None: it is nothing but that.

        A goal that is missed, or not resolved, can pass for want of precision; a reader should see.
        """
        if bound := re.match(r"value (<=|>) (\S+)", self.criterion):
            limit = float(bound[2])
            return self.value <= limit if bound[1] == "<=" else self.value > limit
        if self.reference is None:
            return None
        tolerance = 0.0
        for amount, percent, what in re.findall(
            r"([\d.e+-]+)(%?)( of the reference| standard errors)?(?= \+|$)", self.criterion
        ):
            if what != " standard errors":
                tolerance += float(amount) * (abs(self.reference) / 100 if percent else 1)
        return abs(self.value - self.reference) <= tolerance if tolerance > 0 else None


class Results(BaseModel):
    """The content of results.json, schema version 1."""

    model_config = ConfigDict(extra="forbid")
    schema_version: Literal[1] = 1
    notebook: str
    parameters: dict[str, Any]
    metrics: dict[str, Metric]
    timings_s: dict[str, float]
    provenance: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Raises: pydantic.ValidationError, OSError."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """Write complete or not at all."""
        write_atomically(path, json.dumps(self.model_dump(), indent=1, allow_nan=False) + "\n")


def finished_runs(study: Path) -> list[Path]:
    """The folders of runs in that of a study or a sweep; those of attempts are left out."""
    folders = sorted(path.parent for path in study.glob("*/results.json"))
    return [f for f in folders if not f.name.startswith(".") and f.suffix != ".failed"]


def write_atomically(path: Path, text: str) -> None:
    """Write to a temporary name beside ``path``, to the disk, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Run:
    """One run of a notebook. Parameters are attributes: ``run.temperature``."""

    def __init__(self, notebook: str, parameters: StudyParameters, code: provenance.Code):
        self.notebook = notebook
        self.parameters = parameters
        self.code = code
        self.data: dict[str, str] = {}
        self.replaced: dict[str, Any] = {}
        self.metrics: dict[str, Metric] = {}
        self.unlisted: set[str] = set()
        self.timings: dict[str, float] = {}
        self.started = time.perf_counter()
        self.folder = (
            Path(parameters.output_dir)
            if parameters.output_dir is not None
            else runs_root() / notebook / run_id(notebook, parameters)
        )
        _make_writable(self.folder)

    def __getattr__(self, name: str) -> Any:
        if name in type(self.parameters).model_fields:
            return getattr(self.parameters, name)
        raise AttributeError(f"{self.notebook} has no parameter {name!r}")

    def stream(self, *names: str | int) -> np.random.Generator:
        """The random generator of a named step, from this run's seed."""
        return stream(self.parameters.seed, self.notebook, *names)

    def instead(self, **values: Any) -> None:
        """Note in the provenance what took the place of parameters, for a report to warn of."""
        asked = self.parameters.resolved()
        self.replaced = {name: value for name, value in values.items() if value != asked[name]}

    def uses(self, path: Path) -> Path:
        """Note the hash of a data file in the provenance; returns the path.  Raises: OSError."""
        self.data[path.name] = provenance.file_hash(path)
        return path

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the wall time of the block to ``timings_s``."""
        start = time.perf_counter()
        yield
        self.timings[step] = self.timings.get(step, 0.0) + time.perf_counter() - start

    def cached(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with its results kept on disk, by its arguments and the library's source.

        An entry that cannot be read is computed again, with a warning; where nothing can be
        written, nothing is kept.
        """
        location = runs_root() / ".cache" / self.code.source_hash
        try:
            location.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.warn(f"{location}: nothing is cached ({error.strerror})", stacklevel=2)
            return function
        return joblib.Memory(location, verbose=0).cache(function)  # type: ignore[no-any-return]

    def check(
        self,
        name: str,
        estimate: "Estimate | float",
        *,
        reference: "Estimate | float | None" = None,
        kind: ReferenceKind | None = None,
        z: float = 0.0,
        relative: float | None = None,
        absolute: float = 0.0,
        below: float | None = None,
        above: float | None = None,
        listed: bool = True,
    ) -> None:
        """Record a metric and its verdict.

        Against a reference: |value - reference| <= tolerance + z sigma (in standard errors of few
        members by Student's t, so that the false-alarm rate is that of z), the tolerance
        being ``absolute`` plus ``relative`` times |reference|, so that noise alone does not fail a
        run of little effort and a small error bar leaves nothing but the tolerance.
        A reference that is an estimate adds its own standard error in squares; that it may be known
        from few runs itself is not allowed for, so that then a check is stricter than z says.
        Without one: value <= ``below`` or value > ``above``, each with the same allowance for z.

        listed: False for metrics that only some presets have; ``finish`` prints no line for them.
        """
        from macrodyn_lib.statistics import Estimate  # half a second; sweeps do without

        if not isinstance(estimate, Estimate):
            estimate = Estimate(float(estimate))
        value, error = estimate.value, estimate.standard_error
        combined = error or 0.0
        if isinstance(reference, Estimate):
            combined = math.hypot(combined, reference.standard_error or 0.0)
            reference = reference.value
        if below is not None or above is not None:
            multiple = estimate.allowance(z) if z > 0 else 0.0
            slack = multiple * (error or 0.0)
            note = f" within {multiple:.2g} standard errors" if z > 0 else ""
            if below is not None:
                passed, criterion = value - slack <= below, f"value <= {below:.4g}{note}"
            else:
                assert above is not None
                passed, criterion = value + slack > above, f"value > {above:.4g}{note}"
        else:
            if reference is None or (z > 0 and error is None):
                raise ValueError(f"check {name}: needs a reference, and a standard error if z > 0")
            if not (z > 0 or absolute > 0 or relative is not None):
                raise ValueError(f"check {name}: needs z, absolute, relative, below or above")
            tolerance = absolute + (relative or 0.0) * abs(reference)
            multiple = estimate.allowance(z) if z > 0 else 0.0
            passed = abs(value - reference) <= tolerance + multiple * combined
            allowed = [f"{100 * relative:.4g}% of the reference"] if relative is not None else []
            allowed += [f"{absolute:g}"] if absolute > 0 else []
            allowed += [f"{multiple:.2g} standard errors"] if z > 0 else []
            criterion = "|value - reference| <= " + " + ".join(allowed)
        self._record(
            name, value, error, reference, kind, listed, passed=bool(passed), criterion=criterion
        )

    def report(
        self,
        name: str,
        estimate: "Estimate",
        *,
        reference: "Estimate | float | None" = None,
        kind: ReferenceKind | None = None,
        listed: bool = True,
    ) -> None:
        """Record a metric that is a finding and not a goal: it is not judged, and says so.

        listed: as in ``check``.
        """
        from macrodyn_lib.statistics import Estimate

        given = reference.value if isinstance(reference, Estimate) else reference
        self._record(
            name, estimate.value, estimate.standard_error, given, kind, listed,
            passed=True, criterion="reported, not judged",
        )  # fmt: skip

    def _record(
        self,
        name: str,
        value: float,
        error: float | None,
        reference: float | None,
        kind: ReferenceKind | None,
        listed: bool,
        **verdict: Any,
    ) -> None:
        """Raises: ValueError: a number is not finite; results.json would not hold it."""
        for what, number in (("value", value), ("standard error", error), ("reference", reference)):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"metric {name}: {what} = {number} is not finite")
        if not listed:
            self.unlisted.add(name)
        self.metrics[name] = Metric(
            value=value,
            standard_error=error,
            reference=reference,
            reference_kind=kind if reference is not None else None,
            **verdict,
        )

    def figure(self, figure: Any, name: str) -> Any:
        """Save a matplotlib figure in the run's ``figures`` folder; returns it, to be shown."""
        folder = self.folder / "figures"
        folder.mkdir(exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=90)
        return figure

    def table(self) -> "pd.DataFrame":
        """One row per metric: value, standard error, reference and verdict."""
        import pandas as pd  # a quarter of a second that not every notebook needs

        rows = {name: metric.model_dump() for name, metric in self.metrics.items()}
        table = pd.DataFrame.from_dict(rows, orient="index")
        table["passed"] = table["passed"].map({True: "PASS", False: "FAIL"})
        return table.rename(columns={"passed": "verdict"}).fillna("")

    def finish(self) -> None:
        """Write results.json; print a PASS or FAIL line for each metric that every preset has."""
        results = Results(
            notebook=self.notebook,
            parameters=self.parameters.resolved(),
            metrics=self.metrics,
            timings_s=self.timings | {"total": time.perf_counter() - self.started},
            provenance=provenance.collect(self.parameters.seed, self.code, self.data)
            | ({"instead": self.replaced} if self.replaced else {}),
        )
        results.write(self.folder / "results.json")
        for name, metric in self.metrics.items():
            if name not in self.unlisted:
                print("PASS" if metric.passed else "FAIL", name)


def begin(notebook: str, namespace: Mapping[str, Any]) -> Run:
    """Start a run from the notebook's globals, which hold its parameters.

    On the first call the namespace holds nothing else that is public, so an unknown name is a
    misspelt parameter. (When the cell is run again by hand, later cells have left their names.)
    A sweep hands over the hash of the notebook it executes, as ``_notebook_hash``; else it is taken
    from the file.

    Raises: ParameterError: names the parameter, its value and what is allowed.
    """
    fields = NOTEBOOKS[notebook].model_fields if notebook in NOTEBOOKS else {}
    first = not any(isinstance(value, Run) for value in namespace.values())
    given = {
        name: value
        for name, value in namespace.items()
        if name in fields or (first and _is_parameter(name, value))
    }
    parameters = resolve(notebook, given)
    executed = namespace.get("_notebook_hash") or provenance.notebook_file_hash(
        notebooks_root() / f"{notebook}.ipynb"
    )
    return Run(notebook, parameters, provenance.Code.current(executed))


def _is_parameter(name: str, value: object) -> bool:
    interactive = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    return not (name.startswith("_") or name in interactive or isinstance(value, ModuleType))


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ParameterError(
            f"parameter output_dir = {str(folder)!r}: must be a writable folder ({error.strerror})"
        ) from None
