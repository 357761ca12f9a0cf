"""Sweeps: what is written in YAML is what runs, once, and nothing half-done is left behind."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import dask
import nbformat
import pytest
from distributed import LocalCluster
from tiny_study import NAME, starts, store_run, workplace, write_notebook, write_sweep

from macrodyn_lib.errors import ParameterError
from macrodyn_lib.study import Results
from macrodyn_lib.sweeps import RunSpec, SweepDefinition, SweepOutcome, execute, study_runs

GRID = f"""
notebook: {NAME}
seed: 5
fixed: {{preset: smoke}}
grid: {{level: [1, 2.5], behaviour: [fine, raise]}}
zip: {{label: [a, b], steps: [1, 2]}}
replicas: 2
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with workplace(tmp_path):
        yield tmp_path


def plan(place: Path, text: str) -> list[RunSpec]:
    return SweepDefinition.read(write_sweep(place, text)).expand()


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_expand_combines_grid_with_zip_and_seeds(place: Path) -> None:
    specs = plan(place, GRID)
    found = [
        tuple(s.parameters[k] for k in ("level", "behaviour", "label", "steps", "seed"))
        for s in specs
    ]
    expected = [
        (level, behaviour, *pair, seed)
        for level in (1.0, 2.5)
        for behaviour in ("fine", "raise")
        for pair in (("a", 1), ("b", 2))
        for seed in (5, 6)
    ]
    assert found == expected
    assert {s.folder for s in specs} == {place / "runs/levels" / s.run_id for s in specs}
    assert len({s.run_id for s in specs}) == 16


def test_run_ids_do_not_depend_on_order_or_on_how_values_are_given(place: Path) -> None:
    one = plan(place, f"notebook: {NAME}\nfixed: {{preset: smoke, level: 1, label: a}}")
    other = plan(
        place, f"fixed: {{label: a, level: 1.0, steps: 3, preset: smoke}}\nnotebook: {NAME}"
    )
    defaults = plan(place, f"notebook: {NAME}\nfixed: {{label: a, preset: smoke}}")
    assert one[0].run_id == other[0].run_id == defaults[0].run_id


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("grid: {level: [1, 11]}", ["level", "11", "less than or equal to 10"]),
        ("grid: {levle: [1]}", ["levle", "level", "behaviour"]),
        ("gird: {level: [1]}", ["gird", "level", "grid", "replicas"]),
        ("grid: {level: []}", ["grid.level", "[]", "at least 1"]),
        ("grid: {level: 3}", ["grid.level", "3", "valid list"]),
        ("grid: {level: [1, 1.0]}", ["level = 1.0", "twice"]),
        ("fixed: {level: 2}\ngrid: {level: [1]}", ["level", "one of fixed, grid, zip"]),
        ("zip: {level: [1, 2], steps: [1]}", ["'level': 2, 'steps': 1", "one length"]),
        ("fixed: {seed: 3}", ["seed", "sets it itself"]),
        ("fixed: {output_dir: here}", ["output_dir", "sets it itself"]),
        ("fixed: {preset: huge}", ["preset", "huge", "'smoke', 'quick' or 'paper'"]),
        ("replicas: 0", ["replicas", "0", "greater than or equal to 1"]),
        ("seed: -1", ["seed", "-1", "greater than or equal to 0"]),
        ("- a list", ["must be YAML"]),
    ],
)
def test_wrong_definition_is_refused_in_one_line(place: Path, text: str, named: list[str]) -> None:
    path = write_sweep(place, f"notebook: {NAME}\n{text}")
    with pytest.raises(ParameterError) as caught:
        SweepDefinition.read(path).expand()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert [word for word in named if word not in message] == []


def test_definition_must_be_a_mapping_with_a_notebook(place: Path) -> None:
    for text in ("", "just words", "[1, 2]"):
        with pytest.raises(ParameterError, match=r"levels\.yaml: content = .*dictionary"):
            plan(place, text)
    with pytest.raises(ParameterError, match="key notebook is required"):
        plan(place, "replicas: 2")
    with pytest.raises(ParameterError, match=r"nowhere\.yaml: cannot be read"):
        SweepDefinition.read(place / "nowhere.yaml")


def test_definition_may_not_take_the_name_of_a_notebook(place: Path) -> None:
    with pytest.raises(ParameterError, match="take another"):
        SweepDefinition.read(write_sweep(place, f"notebook: {NAME}", name=NAME))


def test_notebook_must_exist_and_declare_its_parameters(place: Path) -> None:
    text = f"notebook: {NAME}"
    with pytest.raises(ParameterError, match=f"'20_unknown': must be one of .*{NAME}"):
        plan(place, "notebook: 20_unknown")
    write_notebook(place / "notebooks", ["preset: str | None = None\nseed: int = 0"])
    with pytest.raises(ParameterError, match="lacks output_dir, level, label, behaviour, steps"):
        plan(place, text)
    write_notebook(place / "notebooks", ["x = 1"], tags=[])
    with pytest.raises(ParameterError, match="no code cell has the tag 'parameters'"):
        plan(place, text)
    notebook = place / "notebooks" / f"{NAME}.ipynb"
    notebook.write_text("not a notebook")
    with pytest.raises(ParameterError, match=f"notebook = '{NAME}'"):
        plan(place, text)
    notebook.unlink()
    with pytest.raises(ParameterError, match="No such file"):
        plan(place, text)


def test_results_of_other_parameters_do_not_finish_a_run(place: Path) -> None:
    one, other = plan(place, f"notebook: {NAME}\nfixed: {{preset: smoke}}\ngrid: {{level: [1, 2]}}")
    stored = store_run(one.study, preset="smoke", level=1)
    assert (one.state(), other.state()) == ("done", "missing")
    stored.rename(other.folder)
    assert (one.state(), other.state()) == ("missing", "missing")


def test_study_runs_are_the_notebooks_with_parameters_at_one_preset(place: Path) -> None:
    write_notebook(place / "notebooks", name="90_not_a_study")
    (spec,) = study_runs("paper")
    assert (spec.notebook, spec.parameters["steps"]) == (NAME, 300)
    assert spec.folder == place / "runs" / NAME / spec.run_id
    with pytest.raises(ParameterError, match="preset"):
        study_runs("tiny")


# One sweep with every kind of outcome, executed once for the tests below.
OUTCOMES = f"""
notebook: {NAME}
fixed: {{preset: smoke, level: 2}}
grid: {{behaviour: [fine, raise, silent, die]}}
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SweepOutcome]]:
    with workplace(tmp_path_factory.mktemp("executed")) as place:
        specs = plan(place, OUTCOMES)
        # a run that was finished before, and one whose results are not valid any more
        extra = plan(place, f"notebook: {NAME}\ngrid: {{level: [3, 4]}}\nfixed: {{preset: smoke}}")
        (extra[1].folder / "figures").mkdir(parents=True)
        (extra[1].folder / "results.json").write_text('{"schema_version": 1, "noteb')
        store_run(place / "runs/levels", preset="smoke", level=3)
        yield place, execute([*specs, *extra, specs[0]], workers=2)


def by_behaviour(outcome: SweepOutcome) -> dict[str, tuple[RunSpec, str]]:
    return {spec.parameters["behaviour"]: (spec, reason) for spec, reason in outcome.failed}


@pytest.mark.notebook
def test_finished_run_has_results_parameters_figures_and_notebook(
    executed: tuple[Path, SweepOutcome],
) -> None:
    _, outcome = executed
    (spec,) = [s for s in outcome.done if s.parameters["level"] == 2]
    results = Results.read(spec.folder / "results.json")
    assert results.parameters == spec.parameters
    assert results.metrics["mean"].value == 2
    stored = json.loads((spec.folder / "parameters.json").read_text())
    assert stored == {"notebook": NAME, "parameters": spec.parameters}
    assert (spec.folder / "figures/mean_and_level.png").is_file()
    assert nbformat.read(spec.folder / "executed.ipynb", 4).cells


@pytest.mark.notebook
def test_finished_run_is_not_repeated(executed: tuple[Path, SweepOutcome]) -> None:
    place, outcome = executed
    assert [s.parameters["level"] for s in outcome.skipped] == [3]
    # each of the five others was begun once, also the one asked for twice
    assert starts(place / "runs/levels") == 5
    again = execute(outcome.done, workers=2)
    assert (len(again.skipped), again.done, again.failed) == (2, [], [])
    assert starts(place / "runs/levels") == 5


@pytest.mark.notebook
def test_run_with_unreadable_results_is_executed_again(
    executed: tuple[Path, SweepOutcome],
) -> None:
    _, outcome = executed
    (spec,) = [s for s in outcome.done if s.parameters["level"] == 4]
    assert Results.read(spec.folder / "results.json").metrics["mean"].value == 4


@pytest.mark.notebook
def test_failed_run_keeps_its_traceback_and_the_others_go_on(
    executed: tuple[Path, SweepOutcome],
) -> None:
    _, outcome = executed
    spec, reason = by_behaviour(outcome)["raise"]
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
def test_killed_kernel_is_a_failure_though_papermill_calls_it_completed(
    executed: tuple[Path, SweepOutcome],
) -> None:
    spec, reason = by_behaviour(executed[1])["die"]
    assert reason.startswith("DeadKernelError")
    assert not spec.folder.exists()


@pytest.mark.notebook
def test_notebook_without_results_is_a_failure(executed: tuple[Path, SweepOutcome]) -> None:
    spec, reason = by_behaviour(executed[1])["silent"]
    assert "without a valid results.json" in reason
    assert not spec.folder.exists()


@pytest.mark.notebook
def test_no_unfinished_folder_is_left(executed: tuple[Path, SweepOutcome]) -> None:
    assert hidden(executed[0] / "runs/levels") == []


@pytest.mark.notebook
def test_status_has_one_row_per_run(executed: tuple[Path, SweepOutcome]) -> None:
    place, _ = executed
    table = SweepDefinition.read(
        write_sweep(place, OUTCOMES.replace("[fine, raise,", "[fine, sleep, raise,"))
    ).status()
    assert list(table.columns) == ["run", "behaviour", "state", "seconds"]
    states = dict(zip(table["behaviour"], table["state"], strict=True))
    failed = dict.fromkeys(("raise", "silent", "die"), "failed")
    assert states == {"fine": "done", "sleep": "missing"} | failed
    seconds = dict(zip(table["behaviour"], table["seconds"], strict=True))
    assert float(seconds["fine"]) >= 0
    assert seconds["raise"] == seconds["sleep"] == ""


@pytest.mark.slow
@pytest.mark.notebook
def test_dead_worker_is_tried_again_and_then_recorded(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    specs = plan(
        place,
        f"notebook: {NAME}\nfixed: {{preset: smoke}}\ngrid: {{behaviour: [kill_worker]}}",
    )
    specs[0].folder.mkdir(parents=True)  # somebody's unfinished folder, to be replaced
    (specs[0].failed_folder).mkdir()  # a former failure, to be replaced as well
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        caplog.at_level(logging.WARNING, logger="macrodyn_lib.sweeps"),
    ):
        outcome = execute(specs, workers=1)
    assert starts(place / "runs/levels") == 2
    ((spec, reason),) = outcome.failed
    assert reason.startswith("KilledWorker")
    assert (spec.failed_folder / "executed.ipynb").is_file()
    assert spec.failure() == reason
    assert hidden(place / "runs/levels") == []
    assert "it will be replaced" in caplog.text


@pytest.mark.notebook
def test_success_on_another_cluster_removes_the_former_failure(
    executed: tuple[Path, SweepOutcome],
) -> None:
    place, outcome = executed
    (spec,) = [s for s in outcome.done if s.parameters["level"] == 2]
    shutil.rmtree(spec.folder)
    spec.failed_folder.mkdir()
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        again = execute([spec], workers=1, scheduler=cluster.scheduler_address)
    assert (again.done, again.failed) == ([spec], [])
    assert not spec.failed_folder.exists()
    assert hidden(place / "runs/levels") == []


@pytest.mark.parametrize("address", ["nonsense://there", "tcp://127.0.0.1:1"])
def test_scheduler_that_does_not_answer_is_refused(place: Path, address: str) -> None:
    specs = plan(place, f"notebook: {NAME}")
    impatient = dask.config.set({"distributed.comm.timeouts.connect": "0.5s"})
    with impatient, pytest.raises(ParameterError, match=f"scheduler = '{address}'"):
        execute(specs, workers=1, scheduler=address)
    assert not specs[0].study.exists()
