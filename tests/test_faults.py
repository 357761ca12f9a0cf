"""Sweeps as a user starts them, in processes of their own, with what may happen to these."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from tiny_study import NAME, starts, wait_for, workplace, write_sweep

from macrodyn_lib.sweeps import RunSpec, SweepDefinition

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX"),
]
COMMAND = "import tiny_study; tiny_study.register(); from macrodyn_lib.cli import app; app()"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with workplace(tmp_path):
        yield tmp_path


def plan(place: Path, text: str) -> list[RunSpec]:
    given = f"notebook: {NAME}\npreset: smoke\n{text}"
    return SweepDefinition.read(write_sweep(place, given)).expand()


def start(place: Path, *options: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """``macrodyn sweep levels`` in a group of its own, as a terminal makes one."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", COMMAND, "sweep", "levels", *options],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
        # a shell starts background jobs with the signal ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def run(place: Path, *options: str, before: Sequence[str] = ()) -> tuple[int, str, str]:
    return finish(start(place, *options, before=before))


def send(number: int, to: str, process: subprocess.Popen[str]) -> None:
    """As a shell does, a terminal, or SLURM, which knows all processes of a job."""
    if to == "sweep":
        process.send_signal(number)
    elif to == "group":
        os.killpg(process.pid, number)
    else:
        main = psutil.Process(process.pid)
        for each in [main, *main.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)


@pytest.mark.parametrize(
    ("number", "to", "code"),
    [
        (signal.SIGINT, "group", 130),
        (signal.SIGTERM, "sweep", 143),
        (signal.SIGTERM, "group", 143),
        (signal.SIGTERM, "everyone", 143),
    ],
    ids=["SIGINT-group", "SIGTERM-sweep", "SIGTERM-group", "SIGTERM-everyone"],
)
def test_signal_keeps_finished_runs_removes_the_others_and_the_next_sweep_does_them(
    place: Path, number: int, to: str, code: int
) -> None:
    specs = plan(place, "grid: {behaviour: [fine, wait]}")
    process = start(place, "--workers", "1")
    wait_for(lambda: starts(specs[0].study) == 2)
    send(number, to, process)
    returned, _, errors = finish(process)
    assert returned == code, errors
    assert "interrupted: finished runs stay" in errors
    assert "Traceback" not in errors
    assert [spec.state() for spec in specs] == ["done", "missing"]
    left = {path.name for path in specs[0].study.iterdir()}
    assert left == {specs[0].run_id, "starts.txt"}
    (specs[0].study / "go").touch()
    returned, out, errors = run(place, "--workers", "1")
    assert (returned, out.splitlines()[0]) == (
        0,
        "runs: 1 done, 0 failed, 1 finished already",
    ), errors
    assert starts(specs[0].study, "fine 1") == 1
    assert [spec.state() for spec in specs] == ["done", "done"]


def test_sweep_goes_on_after_it_was_killed_with_all_its_processes(place: Path) -> None:
    specs = plan(place, "grid: {behaviour: [fine, wait]}")
    process = start(place, "--workers", "1")
    wait_for(lambda: starts(specs[0].study) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    assert len(specs[1].unfinished()) == 1  # nobody was left to remove it
    assert specs[0].state() == "done"
    (specs[0].study / "go").touch()
    code, out, errors = run(place, "--workers", "1")
    assert (code, out.splitlines()[0]) == (0, "runs: 1 done, 0 failed, 1 finished already"), errors
    assert starts(specs[0].study, "fine 1") == 1
    assert specs[1].unfinished() == []


def test_two_sweeps_at_once_share_the_runs(place: Path) -> None:
    specs = plan(place, "fixed: {behaviour: wait}\ngrid: {level: [1, 2, 3, 4]}")
    both = [start(place, "--workers", "1") for _ in range(2)]
    # one run each; what the other one works on is left to it
    wait_for(lambda: starts(specs[0].study) == 2)
    (specs[0].study / "go").touch()
    ended = [finish(process) for process in both]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert starts(specs[0].study) == 4
    done = [int(out.split()[1]) for _, out, _ in ended]
    already = [int(out.split()[5]) for _, out, _ in ended]
    assert sum(done) == 4 and min(done) >= 1
    assert [d + a for d, a in zip(done, already, strict=True)] == [4, 4]
    assert [spec.state() for spec in specs] == ["done"] * 4


def small_disk(folder: Path) -> list[str]:
    """Start a command with ``folder`` on a file system of 512 KiB, where that is allowed."""
    mount = f"mount -t tmpfs -o size=512k tmpfs '{folder}'"
    # what is on the full disk is seen inside alone, so it is copied out at the end
    script = f'{mount} && cp -a "{folder}.start/." "{folder}" && "$@"; code=$?; '
    script += f'cp -a "{folder}" "{folder}.end"; exit $code'
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    allowed = shutil.which("unshare") and subprocess.run(
        [*namespace, "sh", "-c", mount], capture_output=True
    ).returncode == 0  # fmt: skip
    return [*namespace, "sh", "-c", script, "sh"] if allowed else []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("disk", "No space left on device"), ("file-size-limit", "File too large")],
)
def test_full_disk_fails_what_does_not_fit_and_keeps_the_rest(
    place: Path, kind: str, reason: str
) -> None:
    """And with space again the same command does what has failed."""
    runs = place / "runs"
    specs = plan(place, "grid: {behaviour: [fine, fill, raise]}")
    if kind == "disk":
        mounted = small_disk(runs)
        if not mounted:
            pytest.skip("no small disk: this system does not let unshare mount a tmpfs")
        shutil.copytree(runs, f"{runs}.start")
        code, out, errors = run(place, "--workers", "1", before=mounted)
        shutil.rmtree(runs)
        shutil.copytree(f"{runs}.end", runs)
    else:  # no file may be larger than 512 KiB
        limit = ["sh", "-c", 'ulimit -f 1024; "$@"', "sh"]
        code, out, errors = run(place, "--workers", "1", before=limit)
    assert code == 1, errors
    assert "runs: 1 done, 2 failed, 0 finished already" in out
    assert reason in errors
    assert [spec.state() for spec in specs] == ["done", "failed", "failed"]
    assert reason in specs[1].failure()
    assert starts(specs[0].study) == 3
    plan(place, "grid: {behaviour: [fine, fill]}")  # the third one fails always
    code, out, errors = run(place, "--workers", "1")
    assert (code, out.splitlines()[0]) == (0, "runs: 1 done, 0 failed, 1 finished already"), errors
    assert [spec.state() for spec in specs] == ["done", "done", "failed"]
    assert starts(specs[0].study, "fine 1") == 1


class Cluster:
    """A scheduler in a process of its own; nobody starts a worker again that dies."""

    def __init__(self, place: Path):
        self.place, self.file = place, place / "scheduler.json"
        self.processes: list[subprocess.Popen[str]] = []
        self.scheduler = self._start("scheduler", "--port", "0")

    @property
    def address(self) -> str:
        wait_for(self.file.exists)
        return str(json.loads(self.file.read_text())["address"])

    def add_workers(self, count: int) -> None:
        for _ in range(count):
            self._start("worker", "--nthreads", "1", "--no-nanny")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        options = ["--scheduler-file", str(self.file), "--interface", "lo", "--no-dashboard"]
        command = [sys.executable, "-m", "dask", *arguments, *options]
        process = subprocess.Popen(command, cwd=self.place, stderr=subprocess.DEVNULL, text=True)
        self.processes.append(process)
        return process


@pytest.fixture
def cluster(place: Path) -> Iterator[Cluster]:
    with contextlib.closing(Cluster(place)) as made:
        yield made


def test_sweep_waits_for_the_workers_of_a_scheduler_and_says_so(
    place: Path, cluster: Cluster
) -> None:
    specs = plan(place, "grid: {level: [1, 2, 3]}")
    process = start(place, "--scheduler", cluster.address)
    assert process.stderr is not None
    said = f"{cluster.address} has no workers yet: the runs wait for some to join"
    assert any(said in line for line in process.stderr)
    cluster.add_workers(2)
    code, out, errors = finish(process)
    assert (code, out.splitlines()[0]) == (0, "runs: 3 done, 0 failed, 0 finished already"), errors
    assert "no workers" not in errors
    assert [spec.state() for spec in specs] == ["done"] * 3
    assert starts(specs[0].study) == 3


def test_sweep_goes_on_without_a_killed_worker_and_says_when_the_scheduler_is_gone(
    place: Path, cluster: Cluster
) -> None:
    specs = plan(place, "zip: {level: [1, 2, 3], behaviour: [kill_once, fine, wait]}")
    # two are left of three: one waits for ever, one does the rest, in whatever order they come
    cluster.add_workers(3)
    process = start(place, "--scheduler", cluster.address)
    wait_for(lambda: [spec.state() for spec in specs] == ["done", "done", "running"])
    cluster.scheduler.kill()
    code, _, errors = finish(process)
    assert (code, errors.splitlines()[-1]) == (
        1,
        "error: the scheduler is gone; the same command does the rest",
    )
    assert starts(specs[0].study, "kill_once 1") == 2
    assert starts(specs[0].study, "fine 2") == 1
    assert specs[2].unfinished() == []
