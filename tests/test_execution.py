"""Execution: every kind of ending, really produced, and no finished run lost or repeated."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dask
import distributed  # its settings must be there before a test changes one
import nbformat
import psutil
import pytest
from tiny_study import (
    CELLS,
    NAME,
    starts,
    store_run,
    wait_for,
    workplace,
    write_notebook,
    write_sweep,
)

from macrodyn_lib import execution
from macrodyn_lib.errors import ParameterError
from macrodyn_lib.execution import SweepOutcome, execute
from macrodyn_lib.study import Results
from macrodyn_lib.sweeps import RunSpec, SweepDefinition, status_table, stored_runs


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with workplace(tmp_path):
        yield tmp_path


def plan(place: Path, text: str) -> list[RunSpec]:
    given = f"notebook: {NAME}\npreset: smoke\n{text}"
    return SweepDefinition.read(write_sweep(place, given)).expand()


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# One sweep with every kind of ending, executed once for the tests below. Its workers are killed
# again and again while other runs wait in their queues.
ENDINGS = """
fixed: {level: 2}
grid:
  behaviour:
    [fine, kill_worker, hold, raise, silent, die, exhaust, kill_once, stop, stop_once]
"""
INVALID = '{"schema_version": 1, "noteb'


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SweepOutcome]]:
    with workplace(tmp_path_factory.mktemp("executed")) as place, pytest.MonkeyPatch.context() as p:
        p.setattr(execution, "ATTEMPTS", 2)
        p.setattr(execution, "PATIENCE", 20)
        specs = plan(place, ENDINGS)
        # a run that was finished before, and one whose results are not valid any more
        extra = plan(place, "grid: {level: [3, 4]}")
        (extra[1].folder / "figures").mkdir(parents=True)
        (extra[1].folder / "results.json").write_text(INVALID)
        store_run(place / "runs/levels", preset="smoke", level=3)
        specs[0].failed_folder.mkdir()  # a former failure
        # what a sweep left that was killed with all its processes
        (place / "runs/levels" / f".{specs[0].run_id}.partial-0123abcd-1").mkdir()
        # every death of a worker is blamed on all runs in its queue
        with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
            yield place, execute([*specs, *extra, specs[0]], workers=2)


def failed(outcome: SweepOutcome, behaviour: str) -> tuple[RunSpec, str]:
    (found,) = [each for each in outcome.failed if each[0].parameters["behaviour"] == behaviour]
    return found


def done(outcome: SweepOutcome, behaviour: str, level: float = 2) -> RunSpec:
    (found,) = [
        spec
        for spec in outcome.done
        if (spec.parameters["behaviour"], spec.parameters["level"]) == (behaviour, level)
    ]
    return found


@pytest.mark.notebook
def test_finished_run_has_results_parameters_figures_and_notebook(
    executed: tuple[Path, SweepOutcome],
) -> None:
    spec = done(executed[1], "fine")
    results = Results.read(spec.folder / "results.json")
    assert results.parameters == spec.parameters
    assert results.metrics["mean"].value == 2
    stored = json.loads((spec.folder / "parameters.json").read_text())
    assert stored == {"notebook": NAME, "parameters": spec.parameters}
    assert (spec.folder / "figures/mean_and_level.png").is_file()
    assert nbformat.read(spec.folder / "executed.ipynb", 4).cells
    assert not spec.failed_folder.exists()


@pytest.mark.notebook
def test_every_run_ends_once_and_begins_as_often_as_it_must(
    executed: tuple[Path, SweepOutcome],
) -> None:
    place, outcome = executed
    assert [s.parameters["level"] for s in outcome.skipped] == [3]
    assert (len(outcome.done), len(outcome.failed)) == (4, 7)
    for behaviour in ("fine", "raise", "silent", "die", "exhaust"):
        assert starts(place / "runs/levels", f"{behaviour} 2") == 1
    assert starts(place / "runs/levels", "fine 4") == 1
    assert starts(place / "runs/levels", "fine 3") == 0
    assert starts(place / "runs/levels", "kill_worker 2") == 2
    assert starts(place / "runs/levels", "hold 2") == 2
    assert starts(place / "runs/levels", "kill_once 2") == 2
    assert starts(place / "runs/levels", "stop 2") == 2
    assert starts(place / "runs/levels", "stop_once 2") == 2
    before = starts(place / "runs/levels")
    again = execute(outcome.done, workers=2)
    assert (len(again.skipped), again.done, again.failed) == (4, [], [])
    assert starts(place / "runs/levels") == before


@pytest.mark.notebook
def test_run_with_invalid_results_is_executed_again_and_what_was_there_is_kept(
    executed: tuple[Path, SweepOutcome],
) -> None:
    spec = done(executed[1], "fine", level=4)
    assert Results.read(spec.folder / "results.json").metrics["mean"].value == 4
    (kept,) = spec.study.glob(f".{spec.run_id}.invalid-*")
    assert (kept / "results.json").read_text() == INVALID
    stored, warnings = stored_runs()
    assert spec.folder in [run.folder for run in stored]
    assert (kept in [run.folder for run in stored], warnings) == (False, [])


@pytest.mark.notebook
def test_failed_run_keeps_its_traceback_and_notebook(executed: tuple[Path, SweepOutcome]) -> None:
    spec, reason = failed(executed[1], "raise")
    assert reason == "ValueError: level 2.0 is too high"
    text = (spec.failed_folder / "traceback.txt").read_text()
    assert "tiny_study.act(run)" in text
    assert "\x1b" not in text
    assert text.endswith(f"\n{reason}\n")
    assert json.loads((spec.failed_folder / "parameters.json").read_text())["notebook"] == NAME
    outputs = [
        output
        for cell in nbformat.read(spec.failed_folder / "executed.ipynb", 4).cells
        for output in cell.get("outputs", [])
    ]
    assert "ValueError" in [output.get("ename") for output in outputs]
    assert (spec.state(), spec.failure()) == ("failed", reason)
    assert not spec.folder.exists()


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        # papermill calls the notebook of a killed kernel completed
        ("die", "DeadKernelError"),
        ("exhaust", "MemoryError"),
        ("silent", "RuntimeError: the notebook ended without a valid results.json"),
        ("kill_worker", "KilledWorker"),
        ("hold", "KilledWorker"),
        ("stop", "HungKernelError: the kernel hung: it used no processor for 20 s"),
    ],
)
def test_run_that_dies_is_a_failure_with_its_reason(
    executed: tuple[Path, SweepOutcome], behaviour: str, expected: str
) -> None:
    """``exhaust`` meets a limit on memory; where there is none, the system kills: ``die``."""
    spec, reason = failed(executed[1], behaviour)
    assert reason.startswith(expected)
    assert spec.failure() == reason
    assert (spec.failed_folder / "executed.ipynb").is_file()
    assert not spec.folder.exists()


@pytest.mark.notebook
@pytest.mark.parametrize("behaviour", ["kill_once", "stop_once"])
def test_run_that_is_hindered_once_is_done(
    executed: tuple[Path, SweepOutcome], behaviour: str
) -> None:
    assert done(executed[1], behaviour).results() is not None


@pytest.mark.notebook
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels end when they look up")
def test_kernel_ends_with_its_killed_worker_even_if_it_holds_the_interpreter(
    executed: tuple[Path, SweepOutcome],
) -> None:
    kernels = (executed[0] / "runs/levels/kernels.txt").read_text().split()
    assert len(kernels) == 2
    wait_for(lambda: not any(is_alive(int(kernel)) for kernel in kernels), seconds=20)


def is_alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.notebook
def test_no_unfinished_folder_is_left(executed: tuple[Path, SweepOutcome]) -> None:
    left = hidden(executed[0] / "runs/levels")
    assert [name for name in left if ".invalid-" not in name] == []


def test_running_is_what_this_attempt_works_on_or_another_sweep(place: Path) -> None:
    """Not what a sweep has left that was killed."""
    specs = plan(place, "grid: {level: [1, 2, 3, 4]}")
    for spec, attempt in zip(specs, ["0123abcd", "4567cdef", "4567cdef"], strict=False):
        (spec.study / f".{spec.run_id}.partial-{attempt}-1").mkdir(parents=True)
    with specs[1].lock():
        running = execution._running(specs, "0123abcd")
    assert running == [("levels", spec.run_id) for spec in specs[:2]]


def test_cancelled_run_is_not_a_failed_one(place: Path) -> None:
    """A lost scheduler cancels the futures, at times between looking and asking how they ended."""
    (spec,) = plan(place, "")
    with distributed.Client(processes=False, n_workers=1, dashboard_address=None) as client:
        future = client.submit(int)
        distributed.wait([future])
        future.cancel()
        with pytest.raises(distributed.CancelledError):
            execution._ending(future, spec, "0123abcd", 1)
    assert spec.state() == "missing"


@pytest.mark.notebook
def test_edits_of_the_notebook_do_not_reach_running_sweeps(place: Path) -> None:
    study = place / "runs/levels"
    specs = plan(place, "grid: {level: [1, 2]}\nfixed: {behaviour: wait}")
    original = execution._job(NAME, "", {}).notebook_hash

    def edit() -> None:
        wait_for(lambda: starts(study))
        write_notebook(place / "notebooks", [*CELLS[:2], "raise ValueError('edited')", CELLS[3]])
        (study / "go").touch()

    editor = threading.Thread(target=edit)
    editor.start()
    outcome = execute(specs, workers=1)
    editor.join()
    assert (outcome.done, outcome.failed) == (specs, [])
    assert [notebook_hash(spec) for spec in specs] == [original] * 2


def notebook_hash(spec: RunSpec) -> str:
    results = spec.results()
    assert results is not None
    return str(results.provenance["notebook_hash"])


@pytest.mark.notebook
def test_notebook_edited_between_two_sweeps_makes_only_what_was_missing(place: Path) -> None:
    before = plan(place, "grid: {level: [1]}")
    assert execute(before, workers=1).done == before
    stored = (before[0].folder / "results.json").read_bytes()
    write_notebook(place / "notebooks", [*CELLS[:3], "# edited\nrun.finish()"])
    both = plan(place, "grid: {level: [1, 2]}")
    outcome = execute(both, workers=1)
    assert (outcome.skipped, outcome.done, outcome.failed) == ([both[0]], [both[1]], [])
    assert (both[0].folder / "results.json").read_bytes() == stored
    assert starts(both[0].study) == 2
    assert notebook_hash(both[0]) != notebook_hash(both[1])
    first, second = status_table(both, [])["code"]
    assert first != "as now"
    assert second == "as now"


@pytest.mark.notebook
def test_kernels_of_two_workers_share_the_processors(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processors, two workers: each kernel has one thread in every pool. It finds the data."""
    count = [
        "if run.level == 1:",
        "    import json, numba, torch, threadpoolctl, numpy",
        "    from macrodyn_lib.parallel import thread_count",
        "    pools = [pool['num_threads'] for pool in threadpoolctl.threadpool_info()]",
        "    own = [thread_count(), torch.get_num_threads(), numba.get_num_threads()]",
        "    (run.folder / 'threads.json').write_text(json.dumps([*own, *pools]))",
        "    import os",
        "    (run.folder / 'data.txt').write_text(os.environ['MACRODYN_DATA'])",
    ]
    write_notebook(place / "notebooks", [*CELLS[:2], "\n".join(count), CELLS[3]])
    for name in [*execution.POOLS, "OMP_WAIT_POLICY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MACRODYN_THREADS", "2")
    monkeypatch.setenv("MACRODYN_DATA", "weights")  # relative to where the sweep was started
    specs = plan(place, "grid: {level: [1, 2]}")
    assert execute(specs, workers=2).failed == []
    threads = json.loads((specs[0].folder / "threads.json").read_text())
    assert len(threads) > 3
    assert set(threads) == {1}
    assert Path((specs[0].folder / "data.txt").read_text()) == Path.cwd() / "weights"


@pytest.mark.parametrize("address", ["nonsense://there", "tcp://127.0.0.1:1"])
def test_scheduler_that_does_not_answer_is_refused(place: Path, address: str) -> None:
    specs = plan(place, "")
    impatient = dask.config.set({"distributed.comm.timeouts.connect": "0.5s"})
    with impatient, pytest.raises(ParameterError, match=f"scheduler = '{address}'"):
        execute(specs, workers=1, scheduler=address)
    assert not specs[0].study.exists()
