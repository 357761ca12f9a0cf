"""The macrodyn command: what it prints, what it writes, and its exit codes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer.testing
from tiny_study import NAME, starts, store_run, workplace, write_sweep

from macrodyn_lib.cli import app
from macrodyn_lib.study import runs_root

LEVELS = f"""
notebook: {NAME}
fixed: {{preset: smoke}}
grid: {{level: [1, 2]}}
report: [mean]
"""
COMMAND = "import tiny_study; tiny_study.register(); from macrodyn_lib.cli import app; app()"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with workplace(tmp_path):
        yield tmp_path


def macrodyn(*arguments: str) -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(app, arguments)


def test_help_does_not_load_the_library() -> None:
    heavy = "{'numpy', 'torch', 'numba', 'pandas', 'pydantic', 'distributed', 'papermill'}"
    code = f"import sys, macrodyn_lib.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert "sweep" in macrodyn("--help").output


def test_dry_run_lists_runs_and_starts_none(place: Path) -> None:
    write_sweep(place, LEVELS)
    done = store_run(place / "runs/levels", preset="smoke", level=2)
    result = macrodyn("sweep", "levels", "--dry-run")
    assert result.exit_code == 0
    header, missing, finished = (line.split() for line in result.output.splitlines())
    assert header == ["run", "level", "state", "seconds"]
    assert missing[1:] == ["1.0", "missing"]
    assert finished == [done.name, "2.0", "done", "1.5"]
    assert [path.name for path in (place / "runs/levels").iterdir()] == [done.name]
    assert macrodyn("status", str(place / "runs/levels.yaml")).output == result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sweep", "nowhere"), "sweep = 'nowhere': must be a YAML file or one of"),
        (("status", "nowhere"), "sweep = 'nowhere': must be a YAML file or one of"),
        (("sweep", "levels"), "parameter level = 11: Input should be less than or equal to 10"),
        (("study", "--preset", "huge"), "parameter preset = 'huge': Input should be 'smoke'"),
    ],
)
def test_wrong_input_ends_with_one_line_and_code_2(
    place: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_sweep(place, LEVELS.replace("2]", "11]"))
    result = macrodyn(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert [path.name for path in runs_root().iterdir()] == ["levels.yaml"]


def test_study_skips_what_is_finished_and_writes_the_report(place: Path) -> None:
    store_run(place / "runs" / NAME, preset="quick")
    result = macrodyn("study", "--preset", "quick")
    assert result.exit_code == 0, result.output
    assert "runs: 0 done, 0 failed, 1 finished already" in result.output
    assert f"## {NAME}" in (place / "runs/report.md").read_text()


@pytest.mark.notebook
def test_sweep_with_a_failing_run_does_the_rest_and_ends_with_code_1(place: Path) -> None:
    write_sweep(place, LEVELS.replace("level: [1, 2]", "behaviour: [raise, fine]"))
    result = macrodyn("sweep", "levels", "--workers", "2")
    assert result.exit_code == 1
    assert "runs: 1 done, 1 failed, 0 finished already" in result.stdout
    (failed,) = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert failed.endswith(": ValueError: level 1.0 is too high")
    report = (place / "runs/report.md").read_text()
    assert "1 of 2 runs are finished" in report
    assert "ValueError: level 1.0 is too high" in report
    assert "ValueError: level 1.0 is too high" in macrodyn("status", "levels").stderr


@pytest.mark.slow
@pytest.mark.notebook
def test_interrupt_keeps_finished_runs_and_removes_the_others(place: Path) -> None:
    write_sweep(place, LEVELS.replace("level: [1, 2]", "behaviour: [fine, sleep]"))
    command = [sys.executable, "-c", COMMAND, "sweep", "levels", "--workers", "1"]
    # a group of its own, all of which gets the signal, as from a terminal
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, process_group=0, cwd=place,
        # a shell starts background jobs with the signal ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    folder = place / "runs/levels"
    wait_for(lambda: (folder / "starts.txt").exists() and starts(folder) == 2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted: finished runs stay" in errors
    assert "Traceback" not in errors
    left = sorted(path.name for path in folder.iterdir())
    assert len(left) == 2  # the finished run and starts.txt
    assert (folder / left[0] / "results.json").is_file()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
