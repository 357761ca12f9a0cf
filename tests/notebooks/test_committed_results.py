"""Committed results: valid, of clean code, and the same as in the notebooks and in the README."""

import re
from pathlib import Path

import pytest
from test_pairs import verdicts

from macrodyn_lib.parameters import NOTEBOOKS, resolve, run_id
from macrodyn_lib.report import format_reference, format_value
from macrodyn_lib.study import ROOT, Results

STUDIES = sorted(NOTEBOOKS)
# Verdicts that a larger preset alone can give
UNLISTED = (
    r"variant\.|scaling\.\d|slowest_time\.|(upsampled|true\.\w+)\.relaxation_time"
    r"|lag\.|size\.(65536|524288)"  # 08: listed are 1400 and 2000 K
    r"|(sum_rules|sro|relaxation_time|from_random|protocol|published_time)\.(?!1400|2000)\d{3}"
    r"|local_relax\.|\w+\.beside_direct"
)


def paper_results(notebook: str) -> Results:
    """The run of preset paper with default parameters."""
    name = run_id(notebook, resolve(notebook, {"preset": "paper"}))
    return Results.read(ROOT / "papermill_runs" / notebook / name / "results.json")


@pytest.mark.parametrize("notebook", STUDIES)
def test_committed_run_is_of_committed_code(notebook: str) -> None:
    provenance = paper_results(notebook).provenance
    assert provenance["git_commit"] and not provenance["dirty"]


@pytest.mark.parametrize("notebook", STUDIES)
def test_last_cell_of_notebook_shows_the_verdicts_of_the_committed_run(notebook: str) -> None:
    """All but those that only the larger presets have, as they change the effort of a study."""
    expected = [
        f"{'PASS' if metric.passed else 'FAIL'} {name}"
        for name, metric in paper_results(notebook).metrics.items()
        if not re.match(UNLISTED, name)
    ]
    assert verdicts(ROOT / "notebooks" / f"{notebook}.ipynb") == expected


@pytest.mark.parametrize("notebook", STUDIES)
def test_every_metric_has_a_standard_error(notebook: str) -> None:
    metrics = paper_results(notebook).metrics
    assert [name for name, metric in metrics.items() if metric.standard_error is None] == []


def test_readme_shows_the_committed_numbers() -> None:
    text = Path(ROOT / "README.md").read_text(encoding="utf-8")
    table = text.split("<!-- results table -->")[1].split("<!-- end of results table -->")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    rows = [row for row in rows if row and row[0] in NOTEBOOKS]
    assert len(rows) >= 10
    for notebook, name, value, reference, *_ in rows:
        metric = paper_results(notebook).metrics[name]
        assert (value, reference) == (
            format_value(metric.value, metric.standard_error),
            format_reference(metric),
        ), name
