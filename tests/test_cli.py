"""The macrodyn command: what it prints, what it writes, and its exit codes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.testing
from tiny_study import NAME, store_run, workplace, write_sweep

from macrodyn_lib.cli import app
from macrodyn_lib.study import runs_root

LEVELS = f"""
notebook: {NAME}
fixed: {{preset: smoke}}
grid: {{level: [1, 2]}}
report: [mean]
"""


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
    *table, total, cost = result.output.splitlines()
    header, missing, finished = (line.split() for line in table)
    assert header == ["run", "level", "state", "seconds", "code"]
    assert missing[1:] == ["1.0", "missing"]
    assert finished == [done.name, "2.0", "done", "1.5", "aaaaaaa"]
    assert total.startswith("to do: 1 of 2 runs, about 00:05 on ")
    assert cost.split() == f"1 × 00:05 (from 1 finished run of {NAME} at preset smoke)".split()
    assert [path.name for path in (place / "runs/levels").iterdir()] == [done.name]
    assert macrodyn("status", str(place / "runs/levels.yaml")).output.splitlines() == table


def test_study_has_a_dry_run_too(place: Path) -> None:
    store_run(place / "runs" / NAME, preset="paper")
    result = macrodyn("study", "--preset", "paper", "--dry-run")
    assert (result.exit_code, result.output.splitlines()[-1]) == (
        0,
        "to do: nothing, all 1 runs are finished",
    )
    assert not (place / "runs/report.md").exists()


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
