"""A study of a second's work, for the tests of sweeps: its parameters and its notebook.

The notebook imports this module in its kernel, so the tests put the folder on PYTHONPATH.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from macrodyn_lib import parameters, study

NAME = "10_tiny"


class TinyParameters(parameters.StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"steps": 3},
        "quick": {"steps": 30},
        "paper": {"steps": 300},
    }
    level: Annotated[float, Field(ge=0, le=10)] = 1
    label: str = "plain"
    # what the notebook does in the middle
    behaviour: Literal[
        "fine", "raise", "silent", "die", "kill_worker", "kill_once", "stop", "stop_once",
        "hold", "exhaust", "fill", "wait",
    ] = "fine"  # fmt: skip
    steps: Annotated[int, Field(ge=1)]


CELLS = [
    """preset: str | None = None
seed: int = 0
output_dir: str | None = None
level: float = 1
label: str = "plain"
behaviour: str = "fine"
steps: int | None = None""",
    """import tiny_study
from macrodyn_lib import study
tiny_study.register()
run = study.begin("10_tiny", globals())""",
    "tiny_study.act(run)",
    "run.behaviour == 'silent' or run.finish()",
]


def register() -> None:
    parameters.NOTEBOOKS[NAME] = TinyParameters


def act(run: Any) -> None:
    """The middle of the notebook: misbehave as told, else report numbers and a figure."""
    from matplotlib.figure import Figure

    from macrodyn_lib.statistics import Estimate

    place = run.folder.parent
    begun = f"{run.behaviour} {run.level:g}"
    log_start(place, begun)
    if run.behaviour == "raise":
        raise ValueError(f"level {run.level} is\ntoo high")
    if run.behaviour == "die":
        os.kill(os.getpid(), 9)
    if run.behaviour == "kill_worker" or (
        run.behaviour == "kill_once" and starts(place, begun) == 1
    ):
        kill_worker()
        wait_for(lambda: False)  # until this kernel notices that its worker is gone
    if run.behaviour == "hold":
        hold_interpreter(place)
    if run.behaviour == "stop" or (run.behaviour == "stop_once" and starts(place, begun) == 1):
        os.kill(os.getpid(), signal.SIGSTOP)
    if run.behaviour == "exhaust":
        exhaust_memory()
    if run.behaviour == "fill":
        (run.folder / "arrays.npz").write_bytes(bytes(2**20))
    if run.behaviour == "wait":
        wait_for((place / "go").exists)
    noise = 0.01 * run.seed
    run.check("mean", Estimate(run.level + noise, 0.02), reference=run.level, kind="exact", z=3)
    run.check("published", 0.5, reference=0.75, kind="published", absolute=0.1)
    run.figure(Figure(figsize=(1, 1)), "mean_and_level")


def kill_worker() -> None:
    os.kill(int(os.environ["JPY_PARENT_PID"]), 9)


def hold_interpreter(place: Path) -> None:
    """Kill the worker and never return, as a long loop of compiled code; note the process."""
    import ctypes

    with (place / "kernels.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    kill_worker()
    ctypes.PyDLL(None).pause()


def exhaust_memory() -> None:
    """Ask for more memory than the operating system grants this process."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
    bytearray(2**33)


def log_start(folder: Path, text: str) -> None:
    """One line per start, to count how often runs were begun."""
    with (folder / "starts.txt").open("a") as file:
        file.write(f"{text}\n")


def starts(folder: Path, text: str | None = None) -> int:
    """How many runs were begun, of all or of one text."""
    path = folder / "starts.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return len(lines) if text is None else lines.count(text)


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def write_notebook(
    folder: Path,
    cells: Sequence[str] = CELLS,
    name: str = NAME,
    tags: Sequence[str] = ("parameters",),
) -> None:
    import nbformat

    folder.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    notebook.cells[0].metadata["tags"] = list(tags)
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    nbformat.write(notebook, folder / f"{name}.ipynb")


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """Notebooks and results in a folder of their own, which holds the tiny notebook alone."""
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(parameters.NOTEBOOKS, NAME, TinyParameters)
        patch.setenv("MACRODYN_NOTEBOOKS", str(folder / "notebooks"))
        patch.setenv("MACRODYN_RUNS", str(folder / "runs"))
        patch.delenv("MACRODYN_PRESET", raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        write_notebook(folder / "notebooks")
        (folder / "runs").mkdir(exist_ok=True)
        yield folder


def write_sweep(folder: Path, text: str, name: str = "levels") -> Path:
    path = folder / "runs" / f"{name}.yaml"
    path.write_text(text)
    return path


def store_run(
    folder: Path, commit: str = "a" * 40, hashes: dict[str, str] | None = None, **given: Any
) -> Path:
    """Put the results of a run in place without running it; returns its folder."""
    values = parameters.resolve(NAME, given)
    values = parameters.resolve(NAME, values.resolved())
    target = folder / parameters.run_id(NAME, values)
    (target / "figures").mkdir(parents=True)
    level = values.resolved()["level"]
    mean = study.Metric(
        value=level + 0.01 * values.seed,
        standard_error=0.02,
        reference=level,
        reference_kind="exact",
        passed=True,
        criterion="|value - reference| <= 3 standard errors",
    )
    published = study.Metric(
        value=0.5,
        standard_error=None,
        reference=0.75,
        reference_kind="published",
        passed=False,
        criterion="|value - reference| <= 0.1",
    )
    results = study.Results(
        notebook=NAME,
        parameters=values.resolved(),
        metrics={"mean": mean, "published": published},
        timings_s={"total": 1.5},
        provenance={
            "seed": values.seed,
            "git_commit": commit,
            "dirty": False,
            "created": "2030-01-02T03:04:05+00:00",
            **(hashes or {}),
        },
    )
    results.write(target / "results.json")
    (target / "figures" / "mean_and_level.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    return target
