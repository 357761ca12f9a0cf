"""Reproduction: a repeated run is compared bit by bit, then within its standard errors."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.testing
from tiny_study import NAME, store_run, workplace

from macrodyn_lib import reproduction
from macrodyn_lib.cli import app
from macrodyn_lib.execution import SweepOutcome
from macrodyn_lib.reproduction import Comparison
from macrodyn_lib.study import Metric
from macrodyn_lib.sweeps import RunSpec


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with workplace(tmp_path):
        yield tmp_path


@pytest.fixture
def no_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repetition gives what ``store_run`` stores, and fails at level 9, without a kernel."""

    def execute(specs: list[RunSpec], workers: int) -> SweepOutcome:
        (spec,) = specs
        if spec.parameters["level"] == 9:
            return SweepOutcome(failed=[(spec, "ValueError: too high")])
        store_run(spec.study, **spec.parameters)
        return SweepOutcome(done=specs)

    monkeypatch.setattr(reproduction, "execute", execute)


def macrodyn(*arguments: str) -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(app, arguments)


def edit(folder: Path, value: float, name: str = "mean") -> None:
    """Change a metric of a stored run."""
    path = folder / "results.json"
    content = json.loads(path.read_text())
    content["metrics"][name]["value"] = value
    path.write_text(json.dumps(content))


def metric(value: float, standard_error: float | None) -> Metric:
    return Metric(
        value=value,
        standard_error=standard_error,
        reference=None,
        reference_kind=None,
        passed=True,
        criterion="",
    )


@pytest.mark.parametrize(
    ("stored", "repeated", "verdict"),
    [
        (metric(1.0, 0.3), metric(1.0, 0.3), "equal"),
        (metric(1.0, None), metric(1.0, None), "equal"),
        (metric(1.0, 0.3), metric(1.0, 0.31), "agrees"),  # only the value is the same
        (metric(1.0, 0.3), metric(1.0 + 1e-16 * 4, 0.3), "agrees"),
        (metric(1.0, 0.3), metric(2.49, 0.4), "agrees"),  # combined 0.5, allowed 1.5
        (metric(1.0, 0.3), metric(2.51, 0.4), "different"),
        (metric(1.0, None), metric(1.0 + 1e-15, None), "different"),  # no error to allow for it
        (metric(1.0, 0.3), None, "different"),
        (None, metric(1.0, 0.3), "different"),
    ],
)
def test_verdict_is_by_bits_then_by_combined_standard_errors(
    stored: Metric | None, repeated: Metric | None, verdict: str
) -> None:
    assert Comparison("mean", stored, repeated).verdict == verdict


@pytest.mark.notebook
def test_run_is_repeated_bit_by_bit_beside_the_stored_one(place: Path) -> None:
    folder = store_run(place / "runs/levels", preset="smoke", level=2, seed=3)
    before = (folder / "results.json").read_bytes()
    result = macrodyn("reproduce", folder.name)
    assert result.exit_code == 0, result.output
    assert "metrics: 2 equal, 0 agrees, 0 different" in result.stdout
    assert "made by other git_commit: " + "a" * 40 in result.stdout
    scratch = place / "runs/.reproduced"
    (repeated,) = scratch.glob(f"{folder.name}-*/levels/{folder.name}/executed.ipynb")
    assert f"repeated in {repeated.parent}" in result.stdout
    assert (folder / "results.json").read_bytes() == before
    assert macrodyn("report").exit_code == 0  # the repetition is no result
    assert "runs: 2" not in (place / "runs/report.md").read_text()


@pytest.mark.usefixtures("no_execution")
@pytest.mark.parametrize(
    ("value", "code", "line"),
    [
        (2.0, 0, "equal     mean"),
        (2.05, 3, "agrees    mean: 2.05 -> 2.0 (1.8 combined standard errors)"),
        (2.09, 1, "different mean: 2.09 -> 2.0 (3.2 combined standard errors)"),
    ],
)
def test_exit_code_tells_the_worst_verdict(place: Path, value: float, code: int, line: str) -> None:
    folder = store_run(place / "runs/levels", preset="smoke", level=2)
    edit(folder, value)
    result = macrodyn("reproduce", f"levels/{folder.name}")
    assert result.exit_code == code, result.output
    assert line in result.stdout.splitlines()
    edit(folder, 0.6, "published")  # has no standard error
    assert macrodyn("reproduce", folder.name).exit_code == 1


@pytest.mark.usefixtures("no_execution")
def test_run_without_metrics_is_equal_to_its_repetition(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store_run(place / "runs/levels", preset="smoke", level=2)
    monkeypatch.setattr(reproduction, "compare", lambda *_: [])
    assert macrodyn("reproduce", folder.name).exit_code == 0


@pytest.mark.usefixtures("no_execution")
def test_repetition_that_fails_ends_with_code_1(place: Path) -> None:
    folder = store_run(place / "runs/levels", preset="smoke", level=9)
    result = macrodyn("reproduce", folder.name)
    assert (result.exit_code, result.stdout) == (1, "failed: ValueError: too high\n")


@pytest.mark.usefixtures("no_execution")
def test_repetitions_of_one_run_do_not_share_a_folder(place: Path) -> None:
    folder = store_run(place / "runs/levels", preset="smoke")
    repetitions = [reproduction.reproduce(folder.name).repeated for _ in range(2)]
    folders = {repeated.folder for repeated in repetitions if repeated is not None}
    assert len(folders) == 2
    assert all((each / "results.json").is_file() for each in folders)


def test_repetition_without_results_and_without_a_failure_is_a_failure(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store_run(place / "runs/levels", preset="smoke")
    monkeypatch.setattr(reproduction, "execute", lambda specs, workers: SweepOutcome(skipped=specs))
    result = macrodyn("reproduce", folder.name)
    assert (result.exit_code, result.stdout) == (1, "failed: its results are not there\n")


def test_run_to_repeat_must_be_one(place: Path) -> None:
    folder = store_run(place / "runs/levels", preset="smoke")
    store_run(place / "runs" / NAME, preset="smoke")
    result = macrodyn("reproduce", folder.name)
    assert result.exit_code == 2
    assert f"one finished run of {NAME}/{folder.name}, levels/{folder.name}" in result.stderr
    assert "run = 'nowhere': must be the id" in macrodyn("reproduce", "nowhere").stderr
