"""Committed notebooks: in step with their text, executed, and built to one plan.

nbval passes a cell that was stored without output, and a stored FAIL as well; hence these checks.
"""

import ast
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NO_METRICS = {"90_report"}  # collects the results of the others
MAX_LINES = 15

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_notebook_with_metrics = pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.stem not in NO_METRICS], ids=lambda path: path.stem
)


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str, list[str]]]:
    return [
        (c.cell_type, c.source.rstrip(), sorted(c.metadata.get("tags", []))) for c in notebook.cells
    ]


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def verdicts(path: Path) -> list[str]:
    """Lines that the last cell printed when the notebook was committed."""
    outputs = code_cells(path)[-1].outputs
    return "".join(o.get("text", "") for o in outputs).splitlines()


def prints_always(source: str) -> bool:
    """Whether the cell calls print outside any function, loop or condition."""
    calls = [s.value for s in ast.parse(source).body if isinstance(s, ast.Expr)]
    return any(
        isinstance(c, ast.Call) and isinstance(c.func, ast.Name) and c.func.id == "print"
        for c in calls
    )


def test_every_notebook_has_its_pair() -> None:
    stems = {path.stem for path in NOTEBOOKS}
    assert stems
    assert stems == {path.stem for path in FOLDER.glob("*.py")}


@each_notebook
def test_pair_has_equal_cells(path: Path) -> None:
    assert cells(jupytext.read(path)) == cells(jupytext.read(path.with_suffix(".py")))


@each_notebook
def test_parameters_cell_is_first_and_literal(path: Path) -> None:
    first = code_cells(path)[0]
    assert "parameters" in first.metadata.get("tags", [])
    assert "import" not in first.source
    names = []
    for statement in ast.parse(first.source).body:
        # `name: type = literal` or `name = literal`, so that an unknown parameter can be told
        assert isinstance(statement, ast.Assign | ast.AnnAssign), ast.unparse(statement)
        assert statement.value is not None, ast.unparse(statement)
        ast.literal_eval(statement.value)
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        names.append(ast.unparse(target))
    assert {"preset", "seed", "output_dir"} <= set(names)
    assert sum("parameters" in c.metadata.get("tags", []) for c in code_cells(path)) == 1


@each_notebook
def test_code_cells_are_short(path: Path) -> None:
    steps = code_cells(path)[1:]  # the parameters, one a line, come first
    long = [c.source for c in steps if len(c.source.splitlines()) > MAX_LINES]
    assert long == []


@each_notebook
def test_stored_run_is_complete_and_without_error(path: Path) -> None:
    filled = [c for c in code_cells(path) if c.source.strip()]
    errors = [o.evalue for c in filled for o in c.outputs if o.output_type == "error"]
    assert errors == []
    assert [c.source for c in filled if c.execution_count is None] == []
    assert [c.source for c in filled if prints_always(c.source) and not c.outputs] == []


@each_notebook_with_metrics
def test_last_cell_stores_one_verdict_per_line(path: Path) -> None:
    lines = verdicts(path)
    assert lines
    assert [line for line in lines if not re.fullmatch(r"(PASS|FAIL) \S+", line)] == []
    # nbval compares these lines at every preset
    assert "nbval-ignore-output" not in code_cells(path)[-1].metadata.get("tags", [])


@each_notebook_with_metrics
def test_every_stored_fail_is_explained(path: Path) -> None:
    decisions = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    failed = [line.removeprefix("FAIL ") for line in verdicts(path) if line.startswith("FAIL ")]
    assert [name for name in failed if name not in decisions] == []
