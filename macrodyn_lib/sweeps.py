"""Many runs of a notebook: described in YAML, checked as a whole, executed through Dask.

A run is its parameters: its id is a hash of the notebook's name and its resolved parameters, and it
is finished when its folder holds a valid results.json. A run works in a hidden folder, which is
renamed at the end; so an interrupted sweep leaves nothing half-written, and starts again where it
was. What failed stays in ``<run id>.failed`` until the next attempt.
"""

import ast
import contextlib
import itertools
import json
import logging
import os
import shutil
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import nbformat
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from tqdm.auto import tqdm

from macrodyn_lib.errors import ParameterError
from macrodyn_lib.parallel import thread_count
from macrodyn_lib.parameters import NOTEBOOKS, resolve, run_id
from macrodyn_lib.study import ROOT, Results, notebooks_root, runs_root

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

Values = Annotated[list[Any], Field(min_length=1)]
State = Literal["done", "failed", "missing"]
# the sweep sets these itself: from its keys seed and replicas, and from its own name
RESERVED = ("seed", "output_dir")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run: a notebook with all its parameters resolved, and the folder of its study."""

    notebook: str
    parameters: dict[str, Any]
    run_id: str
    study: Path

    @property
    def folder(self) -> Path:
        """Where the finished run lies."""
        return self.study / self.run_id

    @property
    def failed_folder(self) -> Path:
        """Where the last failed attempt lies."""
        return self.study / f"{self.run_id}.failed"

    def results(self) -> Results | None:
        """The stored results, or None when this run is not finished."""
        return _matching_results(self, self.folder)

    def state(self) -> State:
        if self.results() is not None:
            return "done"
        return "failed" if self.failed_folder.is_dir() else "missing"

    def failure(self) -> str:
        """Why the last attempt failed, in one line."""
        try:
            return (self.failed_folder / "traceback.txt").read_text().splitlines()[-1]
        except (OSError, IndexError):
            return "unknown"


class SweepDefinition(BaseModel):
    """The content of a sweep's YAML file: a notebook, and which parameters to combine.

    Every value in ``grid`` meets every other; the lists in ``zip`` are walked side by side. Each
    combination runs ``replicas`` times, replica r with the seed ``seed + r``. ``report`` names the
    metrics that the report shows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    notebook: str
    seed: Annotated[int, Field(ge=0)] = 0
    fixed: dict[str, Any] = {}
    grid: dict[str, Values] = {}
    zip: dict[str, Values] = {}
    replicas: Annotated[int, Field(ge=1)] = 1
    report: list[str] = []
    _path: Path = PrivateAttr(Path("sweep.yaml"))

    @model_validator(mode="after")
    def _names_are_given_once(self) -> "SweepDefinition":
        names = [*self.fixed, *self.grid, *self.zip]
        for name in names:
            if name in RESERVED:
                raise ValueError(f"{name}: not among the parameters; the sweep sets it itself")
            if names.count(name) > 1:
                raise ValueError(f"{name}: must stand in one of fixed, grid, zip, not in several")
        return self

    @model_validator(mode="after")
    def _zipped_lists_are_of_one_length(self) -> "SweepDefinition":
        lengths = {name: len(values) for name, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"zip has lists of lengths {lengths}: they must be of one length")
        return self

    @classmethod
    def read(cls, path: Path) -> "SweepDefinition":
        """Raises: ParameterError: one line: the file, the key, its value and what is allowed."""
        try:
            definition = cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(f"{path}: cannot be read ({_one_line(error)})") from None
        except yaml.YAMLError as error:
            raise ParameterError(f"{path}: must be YAML ({_one_line(error)})") from None
        except ValidationError as error:
            explained = "; ".join(_explain(detail) for detail in error.errors())
            raise ParameterError(f"{path}: {explained}") from None
        definition._path = path
        if path.stem in NOTEBOOKS:
            raise ParameterError(f"{path}: the name belongs to a notebook's own runs; take another")
        return definition

    @property
    def study(self) -> Path:
        """Folder of the runs: named as the file, in the folder of all results."""
        return runs_root().resolve() / self._path.stem

    def varying(self) -> list[str]:
        """Names of the parameters that differ between runs."""
        return [*self.grid, *self.zip, *(["seed"] if self.replicas > 1 else [])]

    def expand(self) -> list[RunSpec]:
        """All runs, each of them validated.

        Raises: ParameterError: a parameter is unknown or out of range, two runs are the same, or
                the notebook does not declare what is to be set.
        """
        try:
            check_notebook(self.notebook)
            specs = [plan_run(self.notebook, given, self.study) for given in self._combinations()]
            _refuse_duplicates(specs, self.varying())
        except ParameterError as error:
            raise ParameterError(f"{self._path}: {error}") from None
        return specs

    def status(self) -> pd.DataFrame:
        """One row per run: id, the parameters that vary, state, and seconds when it is done."""
        return pd.DataFrame([_status_row(spec, self.varying()) for spec in self.expand()])

    def _combinations(self) -> Iterator[dict[str, Any]]:
        axes = [[{name: value} for value in values] for name, values in self.grid.items()]
        rows = [
            dict(zip(self.zip, values, strict=True))
            for values in zip(*self.zip.values(), strict=True)
        ]
        seeds = [{"seed": self.seed + replica} for replica in range(self.replicas)]
        for parts in itertools.product(*axes, rows or [{}], seeds):
            yield {k: v for part in (self.fixed, *parts) for k, v in part.items()}


@dataclass(slots=True, kw_only=True)
class SweepOutcome:
    """What became of the runs; ``skipped`` were finished before."""

    done: list[RunSpec] = field(default_factory=list)
    skipped: list[RunSpec] = field(default_factory=list)
    failed: list[tuple[RunSpec, str]] = field(default_factory=list)


def definitions() -> dict[str, Path]:
    """Name -> YAML file, of the sweeps of this checkout and of the folder of results."""
    folders = (ROOT / "papermill_runs", runs_root())
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def find_definition(name: str) -> Path:
    """The YAML file of a sweep, from its path or its name.

    Raises: ParameterError: there is none.
    """
    if Path(name).is_file():
        return Path(name)
    known = definitions()
    if name not in known:
        raise ParameterError(
            f"sweep = {name!r}: must be a YAML file or one of {', '.join(known) or '(none yet)'}"
        )
    return known[name]


def study_runs(preset: str) -> list[RunSpec]:
    """Every notebook with its default parameters at one preset.

    Raises: ParameterError: unknown preset, or a notebook that does not declare its parameters.
    """
    names = [path.stem for path in sorted(notebooks_root().glob("*.ipynb"))]
    studies = [name for name in names if name in NOTEBOOKS]
    for name in studies:
        check_notebook(name)
    root = runs_root().resolve()
    return [plan_run(name, {"preset": preset}, root / name) for name in studies]


def plan_run(notebook: str, given: Mapping[str, Any], study: Path) -> RunSpec:
    """Raises: ParameterError: a parameter is unknown or out of range."""
    parameters = resolve(notebook, given)
    return RunSpec(
        notebook=notebook,
        parameters=parameters.resolved(),
        run_id=run_id(notebook, parameters),
        study=study,
    )


def check_notebook(notebook: str) -> None:
    """Compare the notebook's parameters cell with its parameters; papermill itself only warns.

    Raises: ParameterError: no such notebook, no parameters cell, or a parameter missing in it.
    """
    if notebook not in NOTEBOOKS:
        raise ParameterError(f"notebook = {notebook!r}: must be one of {', '.join(NOTEBOOKS)}")
    path = notebooks_root() / f"{notebook}.ipynb"
    try:
        declared = _declared_parameters(path)
    except OSError as error:
        raise ParameterError(f"notebook = {notebook!r}: {_one_line(error)}") from None
    except (ValueError, SyntaxError) as error:
        raise ParameterError(f"notebook = {notebook!r}: {path}: {_one_line(error)}") from None
    missing = [name for name in NOTEBOOKS[notebook].model_fields if name not in declared]
    if missing:
        raise ParameterError(
            f"notebook = {notebook!r}: its parameters cell lacks {', '.join(missing)}"
        )


def _declared_parameters(path: Path) -> set[str]:
    """Names assigned in the parameters cell; papermill's inspection misses ``int | None``.

    Raises: OSError, ValueError, SyntaxError.
    """
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            names = [
                node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)
            ]
            return {node.id for node in names if isinstance(node.ctx, ast.Store)}
    raise ValueError("no code cell has the tag 'parameters'")


def execute(specs: Sequence[RunSpec], workers: int, scheduler: str | None = None) -> SweepOutcome:
    """Run what is not finished, in worker processes, with a progress bar.

    A failed run is recorded and the others go on; so is a run whose worker died again and again
    (Dask tries four times). On an interrupt finished runs stay and unfinished folders go.

    Args:    workers: number of local processes.  scheduler: address of a Dask cluster to use in
             their place; it must see the same files.
    Raises:  ParameterError: no scheduler answers.  KeyboardInterrupt.
    """
    outcome = SweepOutcome()
    to_do: list[RunSpec] = []
    for spec in {spec.folder: spec for spec in specs}.values():
        (to_do if spec.results() is None else outcome.skipped).append(spec)
    for spec in to_do:
        if spec.folder.exists():
            log.warning("%s has no valid results.json: it will be replaced", spec.folder)
    if to_do:
        _execute_missing(to_do, min(workers, len(to_do)), scheduler, outcome)
    return outcome


def _execute_missing(
    specs: Sequence[RunSpec], workers: int, scheduler: str | None, outcome: SweepOutcome
) -> None:
    from distributed import as_completed

    attempt = uuid.uuid4().hex[:8]  # marks the unfinished folders that are ours
    threads = max(1, thread_count() // workers) if scheduler is None else 1
    try:
        with _connect(workers, scheduler) as client, _progress(specs, outcome) as bar:
            arguments = (attempt, _environment(threads), notebooks_root().resolve())
            futures = {
                client.submit(run_notebook, spec, *arguments, pure=False): spec for spec in specs
            }
            for future in as_completed(futures):
                _note(future, futures[future], attempt, outcome)
                _show_counts(bar, outcome)
    finally:
        for study in {spec.study for spec in specs}:
            for leftover in study.glob(f".*.partial-{attempt}-*"):
                shutil.rmtree(leftover, ignore_errors=True)


def _environment(threads: int) -> dict[str, str]:
    """What each kernel sees: runs are parallel among themselves, so each keeps to its share."""
    return {
        "OMP_NUM_THREADS": "1",
        "MACRODYN_THREADS": str(threads),
        "MACRODYN_RUNS": str(runs_root().resolve()),
        "TQDM_DISABLE": "1",
        # the kernel of this interpreter, not one of the same name elsewhere
        "JUPYTER_PREFER_ENV_PATH": "1",
    }


@contextlib.contextmanager
def _connect(workers: int, scheduler: str | None) -> Iterator["Client"]:
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler)
        except (OSError, ValueError) as error:
            raise ParameterError(
                f"scheduler = {scheduler!r}: must be the address of a running Dask scheduler, "
                f"like tcp://HOST:8786 ({_one_line(error)})"
            ) from None
        with client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # any free port, and seen from this machine alone
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _progress(specs: Sequence[RunSpec], outcome: SweepOutcome) -> Any:
    skipped = len(outcome.skipped)
    bar = tqdm(total=len(specs) + skipped, initial=skipped, unit="run")
    _show_counts(bar, outcome, finished=0)
    return bar


def _show_counts(bar: Any, outcome: SweepOutcome, finished: int = 1) -> None:
    counts = {name: len(getattr(outcome, name)) for name in ("done", "failed", "skipped")}
    bar.set_postfix(counts, refresh=False)
    bar.update(finished)


def _note(future: "Future", spec: RunSpec, attempt: str, outcome: SweepOutcome) -> None:
    try:
        reason = future.result()
    except Exception as error:  # the worker died, or could not write what it had
        reason = _keep_failure_of_worker(spec, attempt, error)
    if reason is None:
        outcome.done.append(spec)
    else:
        outcome.failed.append((spec, reason))


def run_notebook(
    spec: RunSpec, attempt: str, environment: Mapping[str, str], notebooks: Path
) -> str | None:
    """Execute one run in this process; returns why it failed, or None.

    papermill calls the notebook of a killed kernel completed, so only results.json counts.
    """
    import papermill

    os.environ.update(environment)
    logging.getLogger("papermill").setLevel(logging.ERROR)  # the parameters are checked already
    folder = spec.study / f".{spec.run_id}.partial-{attempt}-{uuid.uuid4().hex[:8]}"
    _start_folder(spec, folder)
    try:
        papermill.execute_notebook(
            notebooks / f"{spec.notebook}.ipynb",
            folder / "executed.ipynb",
            parameters=spec.parameters | {"output_dir": str(folder)},
            kernel_name="python3",
            cwd=notebooks,
            progress_bar=False,
            extra_arguments=["--log-level=CRITICAL"],
        )
        if _matching_results(spec, folder) is None:
            raise RuntimeError("the notebook ended without a valid results.json of this run")
    except Exception as error:
        return _keep_failure(spec, folder, error)
    _publish(spec, folder)
    return None


def _start_folder(spec: RunSpec, folder: Path) -> None:
    folder.mkdir(parents=True)
    content = {"notebook": spec.notebook, "parameters": spec.parameters}
    (folder / "parameters.json").write_text(json.dumps(content, indent=1) + "\n")


def _publish(spec: RunSpec, folder: Path) -> None:
    """Rename to the final name; what stands there without valid results gives way."""
    if spec.results() is not None:  # another sweep was quicker
        shutil.rmtree(folder)
        return
    if spec.folder.exists():
        spec.folder.rename(folder.with_name(f"{folder.name}-replaced"))
    folder.rename(spec.folder)
    shutil.rmtree(spec.failed_folder, ignore_errors=True)


def _keep_failure(spec: RunSpec, folder: Path, error: Exception) -> str:
    """Keep the folder of a failed run with its traceback, whose last line is returned."""
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        text, reason = str(error), _one_line(f"{error.ename}: {error.evalue}")
    else:
        text = "".join(traceback.format_exception(error))
        reason = _one_line(f"{type(error).__name__}: {error}")
    (folder / "traceback.txt").write_text(f"{text.rstrip()}\n\n{reason}\n")
    shutil.rmtree(spec.failed_folder, ignore_errors=True)
    folder.rename(spec.failed_folder)
    return reason


def _keep_failure_of_worker(spec: RunSpec, attempt: str, error: Exception) -> str:
    unfinished = sorted(spec.study.glob(f".{spec.run_id}.partial-{attempt}-*"))
    if unfinished:
        return _keep_failure(spec, unfinished[-1], error)
    folder = spec.study / f".{spec.run_id}.partial-{attempt}-none"
    _start_folder(spec, folder)
    return _keep_failure(spec, folder, error)


def _matching_results(spec: RunSpec, folder: Path) -> Results | None:
    try:
        results = Results.read(folder / "results.json")
    except (OSError, ValueError):
        return None
    matches = (results.notebook, results.parameters) == (spec.notebook, spec.parameters)
    return results if matches else None


def _refuse_duplicates(specs: Sequence[RunSpec], varying: Sequence[str]) -> None:
    seen: set[str] = set()
    for spec in specs:
        if spec.run_id in seen:
            values = ", ".join(f"{name} = {spec.parameters[name]!r}" for name in varying)
            raise ParameterError(f"{values}: is there twice; each combination must differ")
        seen.add(spec.run_id)


def _status_row(spec: RunSpec, varying: Sequence[str]) -> dict[str, Any]:
    results = spec.results()
    seconds = "" if results is None else f"{results.timings_s.get('total', 0):.1f}"
    values = {name: spec.parameters[name] for name in varying}
    return {"run": spec.run_id, **values, "state": spec.state(), "seconds": seconds}


def _explain(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        allowed = ", ".join(SweepDefinition.model_fields)
        return f"unknown key {name!r} = {detail['input']!r}: allowed are {allowed}"
    if detail["type"] == "missing":
        return f"key {name} is required"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message
    return f"{name or 'content'} = {detail['input']!r}: {message}"


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:300]
