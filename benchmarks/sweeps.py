"""A sweep of 100 tiny runs, against what two processors could do at best with the same runs.

A tiny run is a notebook with half a second of work that needs no torch. What one run takes by
itself is measured in this process, papermill loaded, half before and half after the sweep.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import joblib
import nbformat
import numpy as np
from pydantic import Field

from benchmarks.timing import Comparison
from macrodyn_lib import execution, parameters
from macrodyn_lib.provenance import ROOT
from macrodyn_lib.sweeps import RunSpec, plan_run

NAME = "10_tiny_benchmark"
RUNS, ALONE = 100, 10
GOAL = 3.0  # seconds a run may cost besides its work


class TinyParameters(parameters.StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"seconds": 0.5}}
    seconds: Annotated[float, Field(gt=0)]


CELLS = [
    'preset = "smoke"\nseed = 0\noutput_dir = None\nseconds = None',
    f"""from benchmarks import sweeps
from macrodyn_lib import study
sweeps.register()
run = study.begin("{NAME}", globals())""",
    "sweeps.work(run)",
    "run.finish()",
]


def register() -> None:
    parameters.NOTEBOOKS[NAME] = TinyParameters


def work(run: Any) -> None:
    """So many seconds of processor time, whatever else the machine does."""
    rng = run.stream("work")
    end, draws = time.process_time() + run.seconds, []
    while time.process_time() < end:
        draws.append(rng.standard_normal(10_000).mean())
    run.check("mean", float(np.mean(draws)), reference=0.0, absolute=0.1)


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder with the tiny notebook alone, and kernels that find this module."""
    register()
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "MACRODYN_NOTEBOOKS": folder,
            "MACRODYN_RUNS": f"{folder}/runs",
            "PYTHONPATH": str(ROOT),
        }
        nbformat.write(notebook, f"{folder}/{NAME}.ipynb")
        try:
            yield Path(folder) / "runs"
        finally:
            os.environ.clear()
            os.environ.update(before)
            del parameters.NOTEBOOKS[NAME]


def plan(study: Path, seeds: Sequence[int]) -> list[RunSpec]:
    return [plan_run(NAME, {"preset": "smoke", "seed": seed}, study) for seed in seeds]


def seconds_alone(study: Path, seeds: Sequence[int]) -> list[float]:
    """Of each run by itself, kernel and imports included."""
    environment = execution._environment(study.parent)
    job = execution._job(NAME, "0123abcd", environment)
    return [execution.run_notebook(spec, job).seconds for spec in plan(study, seeds)]


def measure() -> list[Comparison]:
    """Runs a second against the ideal, and what a run costs besides its work."""
    workers = joblib.cpu_count()
    with workplace() as runs:
        seconds_alone(runs / "warm", [0])
        alone = seconds_alone(runs / "before", range(ALONE // 2))
        specs = plan(runs / "sweep", range(RUNS))
        start = time.perf_counter()
        outcome = execution.execute(specs, workers)
        wall = time.perf_counter() - start
        alone += seconds_alone(runs / "after", range(ALONE // 2))
        assert len(outcome.done) == RUNS, outcome.failed
        results = [spec.results() for spec in specs]
        worked = sum(found.timings_s["total"] for found in results if found is not None)
    ideal = workers / np.mean(alone)
    overhead = (workers * wall - worked) / RUNS
    return [
        Comparison(
            name=f"sweep of {RUNS} tiny runs; plain: {workers} x alone",
            unit="runs/s",
            ours=np.array([RUNS / wall]),
            plain=np.array([ideal]),
        ),
        Comparison(
            name="  seconds a run besides its work; plain: goal",
            unit="s",
            ours=np.array([overhead]),
            plain=np.array([GOAL]),
        ),
    ]
