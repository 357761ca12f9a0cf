"""Execute runs through Dask, so that whatever dies, no finished run is lost or repeated.

A run works in a hidden folder, which is renamed at the end: so nothing half-written ever stands
under a run's name. It holds the run's lock meanwhile: so two sweeps at once share the work. What
failed stays in ``<run id>.failed``, with its notebook and traceback, until the next attempt.
"""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sys
import threading
import time
import traceback
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import filelock
import nbformat
import psutil
from tqdm import tqdm

from macrodyn_lib import provenance
from macrodyn_lib.errors import ParameterError
from macrodyn_lib.parallel import thread_count
from macrodyn_lib.study import notebooks_root, write_atomically
from macrodyn_lib.sweeps import RunSpec, one_line, run_costs

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

REFRESH = 1.0  # seconds between looks at what goes on elsewhere
WORKERLESS = 300  # looks without any local worker after which none is expected to come back
ATTEMPTS = 4  # deaths of the worker that a run may cause before it counts as failed
AGAIN = 10  # submissions of a run whose worker dies before the run begins
PATIENCE = 600.0  # seconds after which kernels that use no processor are taken to hang
IDLE = 0.01  # part of a processor that an idle kernel stays below
LOOKS = 20  # how often it is looked at meanwhile
# The kernel of a killed worker must not go on beside the next one. By itself it looks each second
# whether its worker is there, but not while compiled code holds the interpreter; so Linux is asked
# to kill it with its worker (1: PR_SET_PDEATHSIG, 9: SIGKILL).
DIE_WITH_WORKER = (
    ["--IPKernelApp.exec_lines=__import__('ctypes').CDLL(None).prctl(1, 9);"]
    if sys.platform == "linux"
    else []
)
# every pool that numpy, torch or numba may start in a kernel
POOLS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@dataclass(slots=True, kw_only=True)
class SweepOutcome:
    """What became of the runs; ``skipped`` were finished before, or by another sweep meanwhile."""

    done: list[RunSpec] = field(default_factory=list)
    skipped: list[RunSpec] = field(default_factory=list)
    failed: list[tuple[RunSpec, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended; ``elsewhere``: another process has the run's lock."""

    state: Literal["done", "skipped", "failed", "elsewhere"]
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """What the runs of one notebook share: its content, so that edits meanwhile change nothing."""

    content: str
    notebook_hash: str
    folder: Path
    attempt: str  # marks the unfinished folders that are ours
    environment: Mapping[str, str]
    patience: float  # seconds


def execute(specs: Sequence[RunSpec], workers: int, scheduler: str | None = None) -> SweepOutcome:
    """Run what is not finished, in worker processes, with a progress bar.

    A failed run is recorded and the others go on; so is a run whose worker died ``ATTEMPTS`` times.
    A run that another sweep works on is waited for, and done here if that one does not finish it.
    On an interrupt finished runs stay and unfinished folders go.

    Args:    workers: number of local processes.  scheduler: address of a Dask cluster to use in
             their place; it must see the same files.
    Raises:  ParameterError: no scheduler answers.  OSError: the scheduler or all workers are gone.
             KeyboardInterrupt.
    """
    outcome = SweepOutcome()
    to_do: list[RunSpec] = []
    for spec in {spec.folder: spec for spec in specs}.values():
        (to_do if spec.results() is None else outcome.skipped).append(spec)
    for spec in to_do:
        if spec.folder.exists() and spec.results_in(spec.folder) is None:
            log.warning("%s has no valid results.json: it will be set aside", spec.folder)
    if to_do:
        _execute_missing(to_do, min(workers, len(to_do)), scheduler, outcome)
    return outcome


def _execute_missing(
    specs: Sequence[RunSpec], workers: int, scheduler: str | None, outcome: SweepOutcome
) -> None:
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    attempt = uuid.uuid4().hex[:8]
    environment = _environment(specs[0].study.parent)
    if scheduler is None:
        environment["MACRODYN_THREADS"] = str(max(1, thread_count() // workers))
        if data := os.environ.get("MACRODYN_DATA"):  # kernels start in the notebooks' folder
            environment["MACRODYN_DATA"] = str(Path(data).resolve())
    jobs = {name: _job(name, attempt, environment) for name in {spec.notebook for spec in specs}}
    costs = run_costs(specs)
    # the longest first, so that none is left alone at the end
    specs = sorted(specs, key=lambda spec: -costs[spec.kind].seconds)
    try:
        with (
            _connect(workers, scheduler) as client,
            Progress(
                specs, outcome, client, {k: cost.seconds for k, cost in costs.items()}, attempt
            ) as progress,
        ):
            _drive(specs, jobs, client, outcome, progress)
    except (CancelledError, CommClosedError):  # one or the other, as it happens
        raise OSError("the scheduler is gone; the same command does the rest") from None
    finally:
        for study in {spec.study for spec in specs}:
            for leftover in study.glob(f".*.partial-{attempt}-*"):
                shutil.rmtree(leftover, ignore_errors=True)


def _job(notebook: str, attempt: str, environment: Mapping[str, str]) -> Job:
    folder = notebooks_root().resolve()
    content = (folder / f"{notebook}.ipynb").read_text(encoding="utf-8")
    document = nbformat.reads(content, as_version=4)
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None  # megabytes of stored figures
    stripped = nbformat.writes(document)
    notebook_hash = provenance.notebook_hash(content)
    return Job(stripped, notebook_hash, folder, attempt, environment, PATIENCE)


def _environment(runs: Path) -> dict[str, str]:
    """What each kernel sees: runs are parallel among themselves, so each keeps to its share."""
    return {
        **dict.fromkeys(POOLS, "1"),
        "OMP_WAIT_POLICY": "PASSIVE",
        "MACRODYN_RUNS": str(runs),
        "TQDM_DISABLE": "1",
        # the kernel of this interpreter, not one of the same name elsewhere
        "JUPYTER_PREFER_ENV_PATH": "1",
    }


@contextlib.contextmanager
def _connect(workers: int, scheduler: str | None) -> Iterator["Client"]:
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler)
        except (OSError, ValueError) as error:
            raise ParameterError(
                f"scheduler = {scheduler!r}: must be the address of a running Dask scheduler, "
                f"like tcp://HOST:8786 ({one_line(error)})"
            ) from None
        with client:
            if not client.nthreads():
                log.warning("%s has no workers yet: the runs wait for some to join", scheduler)
            yield client
        return
    settings = {
        # by default a worker that dies twice within 15 s may never be started again
        "distributed.deploy.lost-worker-timeout": "1000 days",
        # the profiler and the clock of the event loops take a tenth of two cores from the runs
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "1s",
    }
    with (
        dask.config.set(settings),
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


def _drive(
    specs: Sequence[RunSpec],
    jobs: Mapping[str, Job],
    client: "Client",
    outcome: SweepOutcome,
    progress: "Progress",
) -> None:
    """Submit all runs, note how they end, and come back to those that another sweep works on."""
    from distributed import wait

    def submit(spec: RunSpec) -> "Future":
        return client.submit(run_notebook, spec, jobs[spec.notebook], pure=False)

    pending = {submit(spec): spec for spec in specs}
    submissions = Counter(spec.folder for spec in specs)
    elsewhere: list[RunSpec] = []
    workerless = 0
    while pending or elsewhere:
        try:
            ended = wait(list(pending), REFRESH, "FIRST_COMPLETED").done if pending else set()
        except TimeoutError:
            ended = set()
        for future in ended:
            spec = pending.pop(future)
            attempt = jobs[spec.notebook].attempt
            ending = _ending(future, spec, attempt, submissions[spec.folder])
            future.release()  # else Dask would execute it again when its worker dies
            if ending is None:
                pending[submit(spec)] = spec
                submissions[spec.folder] += 1
            elif ending.state == "elsewhere":
                elsewhere.append(spec)
            else:
                _note(spec, ending, outcome)
                progress.note(spec, ending)
        if not ended:
            free = [spec for spec in elsewhere if not spec.is_locked()]
            pending |= {submit(spec): spec for spec in free}
            elsewhere = [spec for spec in elsewhere if spec not in free]
            if not pending:
                time.sleep(REFRESH)
        progress.show()
        # workers of a cluster may be long in coming, ours start again within seconds
        alone = client.cluster is not None and not ended and not client.nthreads()
        workerless = workerless + 1 if alone else 0
        if workerless > WORKERLESS:
            raise OSError("no worker process can be started any more; the same command goes on")


def _ending(future: "Future", spec: RunSpec, attempt: str, submissions: int) -> Ending | None:
    """How it ended; None when it is to be submitted again.

    Dask blames the death of a worker on all runs that waited in its queue, too, so that the folders
    tell how often this one had begun.

    Raises: CancelledError, CommClosedError: the scheduler is gone; says nothing about the run.
    """
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        ending: Ending = future.result()
    except (CancelledError, CommClosedError):
        raise
    except Exception as error:  # its worker died, or it could not make its folder
        begun = [f for f in spec.unfinished() if f.name.startswith(f"{_prefix(spec, attempt)}-")]
        tried = max(map(_try_number, begun), default=0)
        if isinstance(error, KilledWorker) and (tried < ATTEMPTS and submissions < AGAIN):
            return None
        return Ending("failed", _record_failure(spec, begun, attempt, error))
    return ending


def _record_failure(spec: RunSpec, begun: Sequence[Path], attempt: str, error: Exception) -> str:
    if begun:
        return _keep_failure(spec, begun[-1], error)
    try:
        with spec.lock().acquire(blocking=False):
            return _keep_failure(spec, _start_folder(spec, attempt), error)
    except OSError as problem:  # a full disk; or another sweep has the lock
        return _not_recorded(_reason_and_traceback(error)[0], problem)


def _note(spec: RunSpec, ending: Ending, outcome: SweepOutcome) -> None:
    if ending.state == "failed":
        outcome.failed.append((spec, ending.reason))
    else:
        (outcome.done if ending.state == "done" else outcome.skipped).append(spec)


class Progress:
    """A bar with what runs and the time left, and a line for each run that ended."""

    def __init__(
        self,
        specs: Sequence[RunSpec],
        outcome: SweepOutcome,
        client: "Client",
        costs: Mapping[tuple[str, str], float],
        attempt: str,
    ):
        self.outcome, self.client, self.costs, self.attempt = outcome, client, costs, attempt
        self.left = list(specs)
        self.labels = _labels(specs)
        self.measured: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.since: dict[RunKey, float] = {}
        self.terminal = sys.stderr.isatty()
        skipped = len(outcome.skipped)
        self.bar = tqdm(
            total=len(specs) + skipped,
            initial=skipped,
            bar_format="{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )
        self._describe()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def note(self, spec: RunSpec, ending: Ending) -> None:
        self.left.remove(spec)
        if ending.state == "done":
            self.measured[spec.kind].append(ending.seconds)
        time_taken = f" {ending.seconds:.1f} s" if ending.seconds else ""
        text = f"{ending.state:8}{spec.run_id} {self.labels[_key(spec)]}{time_taken}"
        self.bar.write(f"{text} {ending.reason}".rstrip(), file=sys.stderr)
        self._describe()
        self.bar.update()

    def show(self) -> None:
        """Bring the clock up to date, where somebody looks at it."""
        if self.terminal:
            self._describe()
            self.bar.refresh()

    def _describe(self) -> None:
        now = time.monotonic()
        running = _running(self.left, self.attempt)
        self.since = {key: self.since.get(key, now) for key in running}
        ages = {key: now - since for key, since in self.since.items()}
        shown = ", ".join(f"{key[1]} {age:.0f} s" for key, age in list(ages.items())[:2])
        counts = [f"{len(self.outcome.done)} done", f"{len(self.outcome.failed)} failed"]
        counts.append(f"{len(ages)} running{f' ({shown})' if shown else ''}")
        left = tqdm.format_interval(self._seconds_left(sum(ages.values())))
        self.bar.set_postfix_str(", ".join([*counts, f"about {left} left"]), refresh=False)

    def _seconds_left(self, spent: float) -> float:
        """By the runs of this sweep that are done, or as estimated before the first one is."""
        workers = max(1, sum(self.client.nthreads().values()))
        whole = 0.0
        for spec in self.left:
            times = self.measured[spec.kind]
            whole += sum(times) / len(times) if times else self.costs[spec.kind]
        return max(0.0, whole - spent) / min(workers, max(1, len(self.left)))


RunKey = tuple[str, str]  # study and run id


def _key(spec: RunSpec) -> RunKey:
    return spec.study.name, spec.run_id


def _labels(specs: Sequence[RunSpec]) -> dict[RunKey, str]:
    """The parameters in which the runs differ; of different notebooks their names."""
    if len({spec.notebook for spec in specs}) > 1:
        return {_key(spec): spec.notebook for spec in specs}
    values = {name: [spec.parameters[name] for spec in specs] for name in specs[0].parameters}
    varying = [name for name, given in values.items() if any(v != given[0] for v in given)]
    return {
        _key(spec): " ".join(f"{name}={spec.parameters[name]}" for name in varying)
        for spec in specs
    }


def _running(specs: Sequence[RunSpec], attempt: str) -> list[RunKey]:
    """Those that this attempt works on, or another sweep; one look at each study's folder.

    What a killed sweep has left there belongs to neither.
    """
    begun: dict[RunKey, set[str]] = defaultdict(set)  # by which attempts
    for study in {spec.study for spec in specs}:
        for path in study.glob(".*.partial-*"):
            run, rest = path.name[1:].split(".partial-")
            begun[study.name, run].add(rest.split("-")[0])
    return [
        _key(spec)
        for spec in specs
        if attempt in begun[_key(spec)] or (begun[_key(spec)] and spec.is_locked())
    ]


# --- in the worker ------------------------------------------------------------------------------


def run_notebook(spec: RunSpec, job: Job) -> Ending:
    """Execute one run in this process, unless another one has its lock or has finished it."""
    try:
        with spec.lock().acquire(blocking=False):
            ending = _recorded(spec, job.attempt)
            if ending is None and spec.results() is not None:
                ending = Ending("skipped")
            if ending is None:
                folder = _start_folder(spec, job.attempt)
                start = time.perf_counter()
                reason = _attempt(spec, job, folder)
                seconds = time.perf_counter() - start
                ending = Ending("failed" if reason else "done", reason or "", seconds)
                _record(spec, job.attempt, ending)
            return ending
    except filelock.Timeout:
        return Ending("elsewhere")


def _record(spec: RunSpec, attempt: str, ending: Ending) -> None:
    """Beside the lock: Dask executes again what ended in a worker that dies soon after."""
    with contextlib.suppress(OSError):  # on a full disk it would be executed again
        content = json.dumps([attempt, dataclasses.asdict(ending)])
        write_atomically(spec.ending_file, content)


def _recorded(spec: RunSpec, attempt: str) -> Ending | None:
    """How the run ended in this sweep already."""
    try:
        recorded, ending = json.loads(spec.ending_file.read_text(encoding="utf-8"))
        return Ending(**ending) if recorded == attempt else None
    except (OSError, ValueError, TypeError):
        return None


def _attempt(spec: RunSpec, job: Job, folder: Path) -> str | None:
    """Why it failed, or None.

    papermill calls the notebook of a killed kernel completed, so only results.json counts.
    A kernel that hangs is tried once more.
    """
    os.environ.update(job.environment)
    # on a cluster whoever starts the workers may give each of them more
    threads = os.environ.setdefault("MACRODYN_THREADS", "1")
    logging.getLogger("papermill").setLevel(logging.ERROR)  # the parameters are checked already
    # A kernel without processes of its own need not tidy up for a second: its files are written.
    shutdown = "immediate" if threads == "1" else "graceful"
    try:
        try:
            _execute(spec, job, folder, shutdown)
        except HungKernelError:
            _execute(spec, job, folder, shutdown)
        if spec.results_in(folder) is None:
            raise RuntimeError("the notebook ended without a valid results.json of this run")
    except Exception as error:
        return _keep_failure(spec, folder, error)
    _publish(spec, folder)
    return None


class HungKernelError(RuntimeError):
    """The kernel was killed, since it did nothing for too long."""


def _execute(spec: RunSpec, job: Job, folder: Path, shutdown: str) -> None:
    """Raises: HungKernelError, and what papermill raises."""
    import papermill

    private = {"output_dir": str(folder), "_notebook_hash": job.notebook_hash}
    with _hung_kernels_killed(job.patience):
        papermill.execute_notebook(
            nbformat.reads(job.content, as_version=4),
            folder / "executed.ipynb",
            parameters=spec.parameters | private,
            kernel_name="python3",
            cwd=job.folder,
            progress_bar=False,
            start_timeout=300,  # a busy machine is no failure
            shutdown_kernel=shutdown,
            extra_arguments=["--log-level=CRITICAL", *DIE_WITH_WORKER],
        )


@contextlib.contextmanager
def _hung_kernels_killed(patience: float) -> Iterator[None]:
    """Kill the kernels of this worker when for so long none of them has used a processor.

    Rarely a kernel and its client wait for each other for ever, and neither can know. Looks are
    counted in place of seconds: a sweep that was stopped and goes on must not take that for idling.

    Raises: HungKernelError: it was done.
    """
    ended, killed = threading.Event(), threading.Event()

    def watch() -> None:
        before, idle = 0.0, 0
        while not ended.wait(patience / LOOKS):
            kernels = psutil.Process().children(recursive=True)
            used = sum(map(_processor_seconds, kernels))
            if abs(used - before) > IDLE * patience:
                before, idle = used, 0
            elif (idle := idle + 1) == LOOKS:
                killed.set()
                for kernel in kernels:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        kernel.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        if not killed.is_set():
            raise
        message = f"the kernel hung: it used no processor for {patience:g} s and was killed"
        raise HungKernelError(message) from error
    finally:
        ended.set()
        watcher.join()


def _processor_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _prefix(spec: RunSpec, attempt: str) -> str:
    return f".{spec.run_id}.partial-{attempt}"


def _start_folder(spec: RunSpec, attempt: str) -> Path:
    """A new folder for the holder of the lock; others lost theirs, and their kernels with it."""
    killed = spec.unfinished()
    ours = [folder for folder in killed if folder.name.startswith(_prefix(spec, attempt))]
    number = 1 + max(map(_try_number, ours), default=0)
    for folder in killed:
        shutil.rmtree(folder, ignore_errors=True)
    folder = spec.study / f"{_prefix(spec, attempt)}-{number}"
    folder.mkdir(parents=True)
    content = {"notebook": spec.notebook, "parameters": spec.parameters}
    text = json.dumps(content, indent=1) + "\n"
    (folder / "parameters.json").write_text(text, encoding="utf-8")
    return folder


def _try_number(folder: Path) -> int:
    return int(folder.name.split("-")[2])


def _publish(spec: RunSpec, folder: Path) -> None:
    """Rename to the final name; what stands there gives way, and is kept if it is not valid."""
    if spec.folder.exists():
        valid = spec.results_in(spec.folder) is not None
        name = f"{folder.name}-replaced" if valid else folder.name.replace("partial", "invalid")
        replaced = folder.with_name(name)
        spec.folder.rename(replaced)
        folder.rename(spec.folder)
        if valid:
            shutil.rmtree(replaced, ignore_errors=True)
    else:
        folder.rename(spec.folder)
    shutil.rmtree(spec.failed_folder, ignore_errors=True)


def _keep_failure(spec: RunSpec, folder: Path, error: Exception) -> str:
    """Keep the folder of a failed run with its traceback, whose last line is returned.

    Where the disk is full, only as much of it as fits.
    """
    reason, text = _reason_and_traceback(error)
    if not folder.exists():
        return f"{reason} (its folder was taken away: the sweep was interrupted)"
    try:
        _write_failure(spec, folder, text)
    except OSError:
        try:
            shutil.rmtree(folder)
            _write_failure(spec, folder, text)
        except OSError as problem:
            shutil.rmtree(folder, ignore_errors=True)
            return _not_recorded(reason, problem)
    return reason


def _not_recorded(reason: str, problem: OSError) -> str:
    return f"{reason} (could not be recorded: {one_line(problem)})"


def _write_failure(spec: RunSpec, folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "traceback.txt").write_text(text, encoding="utf-8")
    shutil.rmtree(spec.failed_folder, ignore_errors=True)
    folder.rename(spec.failed_folder)


def _reason_and_traceback(error: Exception) -> tuple[str, str]:
    """One line, and the whole traceback ending in that line."""
    from distributed import KilledWorker
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        text, reason = str(error), one_line(f"{error.ename}: {error.evalue}")
    else:
        text = "".join(traceback.format_exception(error))
        reason = one_line(f"{type(error).__name__}: {error}")
    if isinstance(error, DeadKernelError):
        reason += " (killed from outside; mostly the system does so when memory runs out)"
    if isinstance(error, KilledWorker):
        reason = "KilledWorker: its worker was killed each time it was tried"
    return reason, f"{text.rstrip()}\n\n{reason}\n"
