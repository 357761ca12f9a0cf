"""A sweep of 100 tiny runs, against what two processors could do at best with the same runs.

A tiny run is a notebook with half a second of work that needs no torch. What one run takes by
itself is measured in this process, papermill loaded, half before and half after the sweep.
"""

import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import joblib
import nbformat
import numpy as np

from benchmarks.timing import Comparison
from benchmarks.tiny_notebook import CELLS, NAME, register
from macrodyn_lib import execution, parameters
from macrodyn_lib.provenance import ROOT
from macrodyn_lib.sweeps import RunSpec, plan_run

RUNS, ALONE = 100, 10
GOAL = 3.0  # seconds a run may cost besides its work


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
        start, spent = time.perf_counter(), _processor_seconds()
        outcome = execution.execute(specs, workers)
        wall, spent = time.perf_counter() - start, _processor_seconds() - spent
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
        # less at the mercy of what else the machine does
        Comparison(
            name="  the same in processor time",
            unit="s",
            ours=np.array([spent / RUNS - specs[0].parameters["seconds"]]),
            plain=np.array([GOAL]),
        ),
    ]


def _processor_seconds() -> float:
    """Of this process and of all that it or its children have started and seen end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
