"""Many runs of a notebook, described in YAML: which runs there are, what became of each, what the
rest will cost.

A run is its parameters: its id is a hash of the notebook's name and its resolved parameters, and it
is finished when its folder holds a valid results.json. While a process works on it, that process
holds the run's lock, which the operating system takes back however the process ends.
"""

import ast
import itertools
import logging
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import filelock
import nbformat
import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from tqdm import tqdm

from macrodyn_lib import provenance
from macrodyn_lib.errors import ParameterError
from macrodyn_lib.parameters import NOTEBOOKS, Preset, resolve, run_id
from macrodyn_lib.study import ROOT, Results, finished_runs, notebooks_root, runs_root

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Values = Annotated[list[Any], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0)]
State = Literal["done", "running", "failed", "missing"]
# the sweep sets these itself: from its keys for seeds, and from its own name
RESERVED = ("seed", "output_dir")
# seconds a run may take where no finished one says how long it does
BOUNDS = {"smoke": 60, "quick": 900, "paper": 21600}
# seconds a run takes besides what its notebook measures, on free processors (docs/performance.md)
START_UP = 1.0
COLLECTING = "90_report"  # the notebook that shows what the others have stored


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

    @property
    def kind(self) -> tuple[str, str]:
        """Notebook and preset, which decide about what a run costs."""
        return self.notebook, self.parameters["preset"]

    @property
    def collects(self) -> bool:
        """Whether it shows what others have stored: it is never finished, since they change."""
        return self.notebook == COLLECTING

    def results(self) -> Results | None:
        """The stored results, or None when this run is not finished.  Raises: OSError."""
        return None if self.collects else self.results_in(self.folder)

    def results_in(self, folder: Path) -> Results | None:
        """The results in a folder, or None when there are none of this run.

        Raises: OSError: they may well be there, so that the run must not be repeated.
        """
        path = folder / "results.json"
        try:
            results = Results.read(path)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except OSError as error:
            error.filename = str(path)  # unlike opening, reading does not name it
            raise
        matches = (results.notebook, results.parameters) == (self.notebook, self.parameters)
        return results if matches else None

    def unfinished(self) -> list[Path]:
        """Folders of attempts that go on or were killed."""
        return sorted(self.study.glob(f".{self.run_id}.partial-*"))

    def lock(self) -> filelock.FileLock:
        """Held by whoever works on this run; the empty file stays.  Raises: OSError."""
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(self._lock_file)

    def state(self) -> State:
        """Raises: OSError: there may be results, but they cannot be read."""
        if self.results() is not None:
            return "done"
        if self.is_locked():
            return "running"
        return "failed" if self.failed_folder.is_dir() else "missing"

    def is_locked(self) -> bool:
        """Whether a process, of this sweep or another, works on this run."""
        if not self._lock_file.exists():
            return False
        try:
            with self.lock().acquire(blocking=False):
                return False
        except filelock.Timeout:
            return True

    def failure(self) -> str:
        """Why the last attempt failed, in one line."""
        try:
            path = self.failed_folder / "traceback.txt"
            return path.read_text(encoding="utf-8").splitlines()[-1]
        except (OSError, ValueError, IndexError):
            return "unknown"

    @property
    def ending_file(self) -> Path:
        """How the run ended in the last sweep that had it to do."""
        return self._lock_file.with_name(f"{self._lock_file.name}.json")

    @property
    def _lock_file(self) -> Path:
        return self.study.parent / ".locks" / f"{self.study.name}.{self.run_id}"


@dataclass(frozen=True, slots=True)
class StoredRun:
    """The results in one run folder."""

    folder: Path
    results: Results


def stored_runs() -> tuple[list[StoredRun], list[str]]:
    """All finished runs, and a warning for each results.json that is not valid."""
    root, runs, warnings = runs_root(), [], []
    studies = sorted(root.glob("[!.]*/"))
    for folder in (folder for study in studies for folder in finished_runs(study)):
        path = folder / "results.json"
        try:
            runs.append(StoredRun(folder, Results.read(path)))
        except (OSError, ValueError):
            warnings.append(f"{path.relative_to(root)}: not a valid results.json, left out")
    return runs, warnings


class _DistinctKeys(yaml.SafeLoader):
    """Plain YAML drops all but the last of repeated keys, and so runs."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(self.construct_object(key, deep=True), key) for key, _ in node.value]  # type: ignore[no-untyped-call]
        for place, (name, key) in enumerate(keys):
            if name in [earlier for earlier, _ in keys[:place]]:
                raise yaml.MarkedYAMLError(problem=f"{name!r} twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


class SweepDefinition(BaseModel):
    """The content of a sweep's YAML file: a notebook, and which parameters to combine.

    Every value in ``grid`` meets every other; the lists in ``zip`` are walked side by side. Each
    combination runs with each of the ``seeds``, or ``replicas`` times, replica r with the seed
    ``seed + r``. ``report`` names the metrics that the report shows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    notebook: str
    preset: Preset | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None
    seed: Seed = 0
    fixed: dict[str, Any] = {}
    grid: dict[str, Values] = {}
    zip: dict[str, Values] = {}
    replicas: Annotated[int, Field(ge=1)] = 1
    report: list[str] = []
    _path: Path = PrivateAttr(Path("sweep.yaml"))

    @model_validator(mode="after")
    def _names_are_given_once(self) -> "SweepDefinition":
        names = [*self._preset(), *self.fixed, *self.grid, *self.zip]
        for name in names:
            if name in RESERVED:
                raise ValueError(f"{name}: not among the parameters; the sweep sets it itself")
            if names.count(name) > 1:
                raise ValueError(f"{name}: must stand in one of fixed, grid, zip, not in several")
        if self.seeds is not None and self.model_fields_set & {"seed", "replicas"}:
            raise ValueError(f"seeds = {self.seeds}: must stand without seed and replicas")
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
            text = path.read_text(encoding="utf-8")
            definition = cls.model_validate(yaml.load(text, Loader=_DistinctKeys))
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(f"{path}: cannot be read ({one_line(error)})") from None
        except yaml.YAMLError as error:
            raise ParameterError(f"{path}: must be YAML ({one_line(error)})") from None
        except ValidationError as error:
            explained = "; ".join(_explain_entry(detail) for detail in error.errors())
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
        return [*self.grid, *self.zip, *(["seed"] if len(self.all_seeds()) > 1 else [])]

    def all_seeds(self) -> list[int]:
        """The seeds that each combination runs with."""
        return self.seeds or [self.seed + replica for replica in range(self.replicas)]

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

    def _combinations(self) -> Iterator[dict[str, Any]]:
        axes = [[{name: value} for value in values] for name, values in self.grid.items()]
        rows = [
            dict(zip(self.zip, values, strict=True))
            for values in zip(*self.zip.values(), strict=True)
        ]
        seeds = [{"seed": seed} for seed in self.all_seeds()]
        for parts in itertools.product(*axes, rows or [{}], seeds):
            yield {k: v for part in (self._preset(), self.fixed, *parts) for k, v in part.items()}

    def _preset(self) -> dict[str, str]:
        return {} if self.preset is None else {"preset": self.preset}


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
        raise ParameterError(f"notebook = {notebook!r}: {one_line(error)}") from None
    except (ValueError, SyntaxError) as error:
        raise ParameterError(f"notebook = {notebook!r}: {path}: {one_line(error)}") from None
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


def status_table(specs: Sequence[RunSpec], varying: Sequence[str]) -> "pd.DataFrame":
    """One row per run: id, the parameters that vary, state; of what is done seconds and code."""
    import pandas as pd  # not in the workers

    current = {name: current_version(name) for name in {spec.notebook for spec in specs}}
    rows = [_status_row(spec, varying, current[spec.notebook]) for spec in specs]
    return pd.DataFrame(rows).drop(columns=["notebook"] if len(current) == 1 else [])


def current_version(notebook: str) -> str:
    """The code that a run of the notebook would be made by now."""
    path = notebooks_root() / f"{notebook}.ipynb"
    hashes = {
        "source_hash": provenance.source_hash(),
        "notebook_hash": provenance.notebook_file_hash(path),
    }
    return provenance.version_of(hashes)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a run takes on one worker, and how that is known."""

    seconds: float
    basis: str


def run_costs(specs: Sequence[RunSpec]) -> dict[tuple[str, str], Cost]:
    """What a run of each notebook and preset costs: the median of the finished ones, else a bound.

    The parameters decide too; they are not asked, so that a sweep whose runs differ much from the
    finished ones takes longer or shorter than this says.
    """
    timings: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in stored_runs()[0]:
        kind = (run.results.notebook, str(run.results.parameters.get("preset")))
        timings[kind].append(run.results.timings_s.get("total", 0.0))
    return {spec.kind: _cost(spec.kind, timings[spec.kind]) for spec in specs}


def _cost(kind: tuple[str, str], timings: Sequence[float]) -> Cost:
    notebook, preset = kind
    if not timings:
        return Cost(BOUNDS[preset], f"at most, the bound of preset {preset}: no finished run")
    seconds = statistics.median(timings) + START_UP
    count = f"{len(timings)} finished run{'s' * (len(timings) > 1)}"
    return Cost(seconds, f"from {count} of {notebook} at preset {preset}")


def describe_cost(specs: Sequence[RunSpec], workers: int) -> list[str]:
    """What is to be done and how long it will take, in lines to be printed."""
    to_do = [spec for spec in specs if spec.results() is None]
    if not to_do:
        return [f"to do: nothing, all {len(specs)} runs are finished"]
    costs = run_costs(to_do)
    seconds = [costs[spec.kind].seconds for spec in to_do]
    # no schedule is shorter than its longest run
    wall = max(sum(seconds) / min(workers, len(to_do)), *seconds)
    lines = [
        f"to do: {len(to_do)} of {len(specs)} runs, about {tqdm.format_interval(wall)} on "
        f"{workers} worker{'s' * (workers > 1)}"
    ]
    for kind, cost in costs.items():
        count = sum(spec.kind == kind for spec in to_do)
        lines.append(f"       {count} × {tqdm.format_interval(cost.seconds)} ({cost.basis})")
    return lines


def _refuse_duplicates(specs: Sequence[RunSpec], varying: Sequence[str]) -> None:
    seen: set[str] = set()
    for spec in specs:
        if spec.run_id in seen:
            values = ", ".join(f"{name} = {spec.parameters[name]!r}" for name in varying)
            raise ParameterError(f"{values}: is there twice; each combination must differ")
        seen.add(spec.run_id)


def _status_row(spec: RunSpec, varying: Sequence[str], current: str) -> dict[str, Any]:
    results = spec.results()
    row = {"run": spec.run_id, "notebook": spec.notebook}
    row |= {name: spec.parameters[name] for name in varying}
    if results is None:
        return row | {"state": spec.state(), "seconds": "", "code": ""}
    same = provenance.version_of(results.provenance) == current
    code = "as now" if same else provenance.commit_of(results.provenance)
    seconds = f"{results.timings_s.get('total', 0):.1f}"
    return row | {"state": "done", "seconds": seconds, "code": code}


def _explain_entry(detail: Any) -> str:
    """What is wrong with an entry of a definition."""
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


def one_line(message: object) -> str:
    return " ".join(str(message).split())[:300]
