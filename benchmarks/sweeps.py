"""A sweep of 100 tiny runs, against what two processors could do at best with the same runs.

A tiny run is a notebook with half a second of work that needs no torch. What one run takes by
itself is measured in this process, papermill loaded, half before and half after the sweep. So are
bare loops, one per processor: they meet the same competition for the processors as the sweep, and
the ratio to them is what is left to compare on a busy machine.
"""

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
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


def job(study: Path) -> execution.Job:
    return execution._job(NAME, "0123abcd", execution._environment(study.parent))


def seconds_alone(study: Path) -> list[float]:
    """Of each run by itself, kernel and imports included."""
    return [
        execution.run_notebook(spec, job(study)).seconds for spec in plan(study, range(ALONE // 2))
    ]


def seconds_in_loops(study: Path, workers: int) -> float:
    """Of as many bare loops side by side, without Dask, after a first run each."""
    count = workers * ALONE // 2
    first, rest = plan(study, range(workers)), plan(study, range(workers, workers + count))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(execution.run_notebook, first, [job(study)] * workers))
        start = time.perf_counter()
        list(pool.map(execution.run_notebook, rest, [job(study)] * count))
        return time.perf_counter() - start


def measure() -> list[Comparison]:
    """Runs a second against the ideal, and what a run costs besides its work."""
    workers = joblib.cpu_count()
    with workplace() as runs:
        loops = seconds_in_loops(runs / "loops_before", workers)  # warms the caches, too
        alone = seconds_alone(runs / "before")
        specs = plan(runs / "sweep", range(RUNS))
        start, spent = time.perf_counter(), _processor_seconds()
        outcome = execution.execute(specs, workers)
        wall, spent = time.perf_counter() - start, _processor_seconds() - spent
        alone += seconds_alone(runs / "after")
        loops += seconds_in_loops(runs / "loops_after", workers)
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
            name=f"  the same; plain: {workers} loops without Dask",
            unit="runs/s",
            ours=np.array([RUNS / wall]),
            plain=np.array([2 * (workers * ALONE // 2) / loops]),
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
