"""The macrodyn command: what it prints, what it writes, and its exit codes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.testing
from tiny_study import CELLS, NAME, store_run, workplace, write_notebook, write_sweep

from macrodyn_lib import execution
from macrodyn_lib.cli import app
from macrodyn_lib.study import ROOT, Results, runs_root

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
    assert total.startswith("to do: 1 of 2 runs, about 00:02 on ")
    assert cost.split() == f"1 × 00:02 (from 1 finished run of {NAME} at preset smoke)".split()
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


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("behaviour", "code", "counts", "reason"),
    [
        ("die", 1, "1 done, 1 failed", "DeadKernelError: "),
        ("kill_worker", 1, "1 done, 1 failed", "KilledWorker: "),
        ("kill_once", 0, "2 done, 0 failed", None),
    ],
)
def test_exit_code_of_a_sweep_whose_kernel_or_worker_is_killed(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: str,
    code: int,
    counts: str,
    reason: str | None,
) -> None:
    monkeypatch.setattr(execution, "ATTEMPTS", 2)
    write_sweep(place, LEVELS.replace("level: [1, 2]", f"behaviour: [{behaviour}, fine]"))
    result = macrodyn("sweep", "levels", "--workers", "1")
    assert result.exit_code == code, result.output
    assert f"runs: {counts}, 0 finished already" in result.stdout
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ", 2)[2].startswith(str(reason)) for line in failed] == [True] * code


def test_results_that_cannot_be_read_end_the_sweep_before_anything_is_repeated(place: Path) -> None:
    write_sweep(place, LEVELS)
    path = store_run(place / "runs/levels", preset="smoke", level=2) / "results.json"
    path.unlink()
    path.symlink_to(path)
    result = macrodyn("sweep", "levels")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith(f"symbolic links: '{path}'\n")
    assert [folder.name for folder in (place / "runs/levels").iterdir()] == [path.parent.name]


COLLECTING = [
    CELLS[0].split("level")[0],
    'from macrodyn_lib import study, sweeps\nrun = study.begin("90_report", globals())',
    "tiny = [one for one in sweeps.stored_runs()[0] if one.results.notebook != run.notebook]",
    'run.check("runs", len(tiny), reference=1, kind="exact", absolute=0.5)\nrun.finish()',
]


@pytest.mark.notebook
def test_study_collects_what_there_is_each_time_it_is_called(place: Path) -> None:
    write_notebook(place / "notebooks", [*CELLS[:2], "raise ValueError('failed')"])
    write_notebook(place / "notebooks", COLLECTING, name="90_report")
    result = macrodyn("study", "--preset", "smoke")
    assert result.exit_code == 1, result.output
    assert "runs: 1 done, 1 failed, 0 finished already" in result.stdout
    (collected,) = (place / "runs/90_report").glob("*/results.json")
    assert Results.read(collected).metrics["runs"].value == 0
    store_run(place / "runs" / NAME, preset="smoke")
    result = macrodyn("study", "--preset", "smoke")
    assert result.exit_code == 0, result.output
    assert "runs: 1 done, 0 failed, 1 finished already" in result.stdout
    assert Results.read(collected).metrics["runs"].value == 1
    assert [folder.name for folder in (place / "runs/90_report").iterdir()] == [
        collected.parent.name
    ]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("sweep", "study", "code", "called"),
    [
        (0, 0, 0, ["sweep", "study"]),
        (1, 0, 1, ["sweep", "study"]),
        (0, 1, 1, ["sweep", "study"]),
        (130, 0, 130, ["sweep"]),  # interrupted: nothing more is wanted
    ],
)
def test_make_paper_goes_on_after_a_failed_sweep_and_ends_with_its_failure(
    tmp_path: Path, sweep: int, study: int, code: int, called: list[str]
) -> None:
    script = tmp_path / "macrodyn"
    lines = [
        "#!/bin/sh",
        f'echo "$1" >> "{tmp_path}/calls"',
        f'[ "$1" = sweep ] && exit {sweep}',
        f"exit {study}",
    ]
    script.write_text("\n".join(lines))
    script.chmod(0o755)
    # Under `make test` the outer make's flags would reach this one.
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    done = subprocess.run(
        ["make", "--old-file=.venv/.stamp", f"B={tmp_path}", "paper"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "calls").read_text().split() == called
    assert (done.returncode != 0) == (code != 0)
    assert code == 0 or f"Error {code}" in done.stderr
