"""Sweeps: which runs a YAML file asks for, what became of each, and what the rest will cost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_study import NAME, store_run, workplace, write_notebook, write_sweep

from macrodyn_lib import provenance
from macrodyn_lib.errors import ParameterError
from macrodyn_lib.study import ROOT, Results
from macrodyn_lib.sweeps import (
    RunSpec,
    SweepDefinition,
    describe_cost,
    status_table,
    study_runs,
)

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
        ("seeds: [1, -1]", ["seeds.1", "-1", "greater than or equal to 0"]),
        ("seeds: []", ["seeds", "[]", "at least 1"]),
        ("seeds: [1, 1]", ["seed = 1", "twice"]),
        ("seeds: [1]\nreplicas: 2", ["seeds = [1]", "without seed and replicas"]),
        ("preset: huge", ["preset", "huge", "'smoke', 'quick' or 'paper'"]),
        ("preset: smoke\nfixed: {preset: quick}", ["preset", "one of fixed, grid, zip"]),
        ("- a list", ["must be YAML"]),
        ("grid: {friction: [1]}\ngrid: {friction: [2]}", ["must be YAML", "'grid' twice"]),
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


def test_results_that_cannot_be_read_are_not_taken_for_missing(place: Path) -> None:
    (spec,) = plan(place, f"notebook: {NAME}\npreset: smoke")
    path = store_run(spec.study, preset="smoke") / "results.json"
    path.unlink()
    path.symlink_to(path)  # whoever reads it, root too, meets an error
    with pytest.raises(OSError, match=str(path)):
        spec.state()
    path.unlink()
    assert spec.state() == "missing"
    path.write_bytes(b"\xff")  # not UTF-8
    assert spec.state() == "missing"
    spec.folder.rename(spec.folder.with_name("elsewhere"))
    spec.folder.touch()  # not a folder
    assert spec.state() == "missing"


def test_study_runs_are_the_notebooks_with_parameters_at_one_preset(place: Path) -> None:
    write_notebook(place / "notebooks", name="90_not_a_study")
    (spec,) = study_runs("paper")
    assert (spec.notebook, spec.parameters["steps"]) == (NAME, 300)
    assert spec.folder == place / "runs" / NAME / spec.run_id
    with pytest.raises(ParameterError, match="preset"):
        study_runs("tiny")


def test_preset_and_seeds_may_have_keys_of_their_own(place: Path) -> None:
    short = plan(place, f"notebook: {NAME}\npreset: smoke\nseeds: [5, 6]")
    long = plan(place, f"notebook: {NAME}\nfixed: {{preset: smoke}}\nseed: 5\nreplicas: 2")
    assert short == long
    assert [spec.parameters["seed"] for spec in short] == [5, 6]


LEVELS = f"notebook: {NAME}\npreset: smoke\ngrid: {{level: [1, 2, 3, 4]}}"


def test_status_tells_done_running_failed_and_missing_and_by_which_code(place: Path) -> None:
    specs = plan(place, LEVELS)
    store_run(specs[0].study, preset="smoke", level=1)
    specs[1].failed_folder.mkdir()
    with specs[2].lock():
        table = status_table(specs, ["level"])
    assert list(table["state"]) == ["done", "failed", "running", "missing"]
    assert list(table["seconds"]) == ["1.5", "", "", ""]
    assert list(table["code"]) == ["aaaaaaa", "", "", ""]
    assert [spec.state() for spec in specs] == ["done", "failed", "missing", "missing"]


def test_status_knows_results_of_the_code_as_it_is_now(place: Path) -> None:
    specs = plan(place, LEVELS)
    notebook = place / "notebooks" / f"{NAME}.ipynb"
    hashes = {
        "source_hash": provenance.source_hash(),
        "notebook_hash": provenance.notebook_hash(notebook.read_text()),
    }
    store_run(specs[0].study, preset="smoke", level=1, hashes=hashes)
    assert status_table(specs, [])["code"][0] == "as now"
    write_notebook(place / "notebooks", ["preset = seed = output_dir = None", "1 + 1"])
    assert status_table(specs, [])["code"][0] == "aaaaaaa"


def test_cost_comes_from_finished_runs_of_notebook_and_preset(place: Path) -> None:
    specs = plan(place, LEVELS)
    assert describe_cost(specs, 2) == [
        "to do: 4 of 4 runs, about 02:00 on 2 workers",
        "       4 × 01:00 (at most, the bound of preset smoke: no finished run)",
    ]
    store_run(place / "runs" / NAME, preset="smoke")  # 1.5 s, and one for the kernel
    store_run(place / "runs" / NAME, preset="quick")  # says nothing about preset smoke
    store_run(specs[0].study, preset="smoke", level=1, seed=3)
    assert describe_cost(specs, 2) == [
        "to do: 4 of 4 runs, about 00:05 on 2 workers",
        f"       4 × 00:02 (from 2 finished runs of {NAME} at preset smoke)",
    ]
    for level in (1, 2, 3):
        store_run(specs[0].study, preset="smoke", level=level)
    # one run is left, and a second worker does not make it shorter
    assert describe_cost(specs, 2)[0] == "to do: 1 of 4 runs, about 00:02 on 2 workers"
    store_run(specs[0].study, preset="smoke", level=4)
    assert describe_cost(specs, 2) == ["to do: nothing, all 4 runs are finished"]


def test_committed_runs_of_preset_paper_are_finished() -> None:
    """So that `make paper` goes on from them in a fresh clone."""
    specs = {spec.notebook: spec for spec in study_runs("paper")}
    stored = {
        path.parent.parent.name
        for path in (ROOT / "papermill_runs").glob("0*/*/results.json")
        if Results.read(path).parameters["preset"] == "paper"
    }
    assert len(stored) >= 9
    assert [name for name in stored if specs[name].state() != "done"] == []


@pytest.mark.parametrize("name", ["criticality", "criticality_256"])
def test_committed_runs_of_a_sweep_are_finished(name: str) -> None:
    specs = SweepDefinition.read(ROOT / "papermill_runs" / f"{name}.yaml").expand()
    assert [spec.run_id for spec in specs if spec.state() != "done"] == []
