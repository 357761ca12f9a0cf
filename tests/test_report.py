"""The report: the numbers and figures of the runs, as Markdown and as one HTML file."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_study import NAME, store_run, workplace, write_sweep

from macrodyn_lib.report import format_reference, format_value, write_report
from macrodyn_lib.study import Metric


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    with workplace(tmp_path):
        yield tmp_path / "runs"


def report() -> tuple[str, str]:
    path = write_report()
    return path.read_text(), path.with_suffix(".html").read_text()


def row(text: str, first: str) -> list[str]:
    """Cells of the table row that begins with ``first``."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    cells = re.split(r"(?<!\\)\|", line)
    return [cell.strip() for cell in cells[1:-1]]


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (-0.100234, 0.00061, "-0.10023 ± 0.00061"),
        (12.3456, 1.234, "12.3 ± 1.2"),
        (48.04, 2.94, "48.0 ± 2.9"),
        (1234.5, 96.2, "1234 ± 96"),
        (98765.4, 4321.0, "98765 ± 4321"),
        (0.012345, None, "0.01235"),
        (0.5, 0.0, "0.5 ± 0"),
        (1.6e-10, 3e-12, "1.6e-10 ± 3e-12"),
    ],
)
def test_value_is_shown_to_the_place_of_its_error(
    value: float, error: float | None, shown: str
) -> None:
    assert format_value(value, error) == shown


def test_reference_is_shown_to_the_place_of_the_value() -> None:
    metric = Metric(
        value=0.1,
        standard_error=0.02,
        reference=1 / 3,
        reference_kind="exact",
        passed=False,
        criterion="",
    )
    assert format_reference(metric) == "0.333"
    assert format_reference(metric.model_copy(update={"standard_error": None})) == "0.3333"
    assert format_reference(metric.model_copy(update={"reference": None})) == ""


def test_report_of_an_empty_folder_says_so(runs: Path) -> None:
    for text in report():
        assert "No results yet" in text
        assert "PASS" not in text


def test_report_shows_each_metric_with_reference_and_verdict(runs: Path) -> None:
    store_run(runs / NAME, preset="smoke", seed=0)
    markdown, page = report()
    criterion = r"\|value - reference\| ≤ 3 standard errors"
    assert row(markdown, "`mean`") == [
        "`mean`", "1.000 ± 0.020", "1.000", "exact", criterion, "PASS",
    ]  # fmt: skip
    assert row(markdown, "`published`")[1:4] == ["0.5", "0.75", "published"]
    assert row(markdown, "`published`")[-1] == "**FAIL**"
    assert row(markdown, f"`{NAME}`") == [f"`{NAME}`", "smoke", "1 of 2", "2", "aaaaaaa"]
    assert "Commit aaaaaaa, 2030-01-02, seed 0, 1.5 s." in markdown
    assert "<td><code>mean</code></td>" in page
    assert "|value - reference| ≤ 3 standard errors" in page
    assert "mixed" not in markdown


def test_figures_are_linked_in_markdown_and_embedded_in_html(runs: Path) -> None:
    folder = store_run(runs / NAME, preset="smoke")
    folder = folder.rename(folder.with_name("my run"))  # a name that a link has to quote
    markdown, page = report()
    (link,) = re.findall(r"!\[mean and level\]\(<(.+)>\)", markdown)
    picture = (runs / link).read_bytes()
    assert runs / link == folder / "figures/mean_and_level.png"
    assert f"data:image/png;base64,{base64.b64encode(picture).decode()}" in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []  # one file, nothing to fetch


def test_report_prefers_default_parameters_then_the_largest_preset(runs: Path) -> None:
    for given in ({"preset": "quick"}, {"preset": "smoke"}, {"preset": "paper", "level": 2}):
        store_run(runs / NAME, **given)
    markdown, _ = report()
    assert "Preset quick, its defaults. Other runs stored: 2." in markdown


def test_report_names_the_parameters_that_are_not_defaults(runs: Path) -> None:
    store_run(runs / NAME, preset="quick", level=2)
    assert "Preset quick, level = 2.0." in report()[0]


def test_sweep_table_averages_over_replicas(runs: Path) -> None:
    text = f"""
    notebook: {NAME}
    fixed: {{preset: smoke}}
    grid: {{level: [1, 2.5]}}
    replicas: 3
    report: [mean, missing]
    """
    write_sweep(runs.parent, text)
    for seed in (0, 1, 2):
        store_run(runs / "levels", preset="smoke", level=1, seed=seed)
    store_run(runs / "levels", preset="smoke", level=7)  # of an older definition
    markdown, _ = report()
    assert "3 of 6 runs are finished" in markdown
    # values 1.00, 1.01, 1.02: within 0.02/sqrt(3), between 0.01/sqrt(3)
    cells = ["1", "3", "1.010 ± 0.012 (0.006)", "1.000", "", "3 of 6"]
    assert row(markdown, "1") == cells
    # no run has the metric 'missing', so it has no column of references
    assert row(markdown, "level")[2:] == ["`mean`", "reference", "`missing`", "passed"]
    assert "Commit aaaaaaa; 4 s in all runs, 3 of 6 metrics passed." in markdown
    assert "| 7 |" not in markdown


def test_sweep_over_seeds_alone_has_a_row_for_each_metric(runs: Path) -> None:
    text = f"{{notebook: {NAME}, fixed: {{preset: smoke}}, seeds: [0, 1], report: [mean, missing]}}"
    write_sweep(runs.parent, text)
    store_run(runs / "levels", preset="smoke", seed=0)
    assert row(report()[0], "`mean`") == ["`mean`", "1", "1.000 ± 0.020", "1.000", ""]
    store_run(runs / "levels", preset="smoke", seed=1)
    markdown, _ = report()
    # values 1.00, 1.01, references 1: differences 0.00, 0.01
    expected = ["2", "1.005 ± 0.014 (0.005)", "1.000", "0.0050 ± 0.0050"]
    assert row(markdown, "`mean`") == ["`mean`", *expected]
    assert row(markdown, "`missing`") == ["`missing`", "0", "", "", ""]
    assert "3 s in all runs, 2 of 4 metrics passed.*" in markdown
    path = next(runs.glob("levels/*/results.json"))  # a run of something else than asked for
    content = json.loads(path.read_text())
    content["provenance"]["instead"] = {"label": "other"}
    path.write_text(json.dumps(content))
    markdown, _ = report()
    assert row(markdown, "`mean`")[1] == "1"
    assert f"{path.parent.name}: its label is not 'plain' but 'other'; without" in markdown


def test_report_notes_results_of_different_commits(runs: Path) -> None:
    store_run(runs / NAME, preset="smoke")
    store_run(runs / NAME, preset="quick", commit="b" * 40)
    assert "commits are mixed:** " in report()[0]
    assert "aaaaaaa (runs: 1)" in report()[0]


def hashes(letter: str) -> dict[str, str]:
    return {"source_hash": letter * 12, "notebook_hash": "0" * 12}


def test_study_names_the_code_that_made_its_results(runs: Path) -> None:
    store_run(runs / NAME, preset="smoke", hashes=hashes("1"))
    expected = "*Commit aaaaaaa (library 1111111, notebook 0000000), 2030-01-02, seed 0, 1.5 s.*"
    assert expected in report()[0]


MIXED = f"""
notebook: {NAME}
preset: smoke
seeds: [0, 1, 2]
report: [mean]
"""


def test_sweep_of_one_version_from_several_commits_is_one_table(runs: Path) -> None:
    write_sweep(runs.parent, MIXED)
    for seed, commit in ((0, "a"), (1, "b"), (2, "b")):
        store_run(
            runs / "levels", preset="smoke", seed=seed, commit=commit * 40, hashes=hashes("1")
        )
    markdown, _ = report()
    assert row(markdown, "`mean`")[1:4] == ["3", "1.010 ± 0.012 (0.006)", "1.000"]
    assert "3 of 6 metrics passed" in markdown
    assert "different code" not in markdown


def test_sweep_of_several_versions_is_not_put_in_one_table_unasked(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_sweep(runs.parent, MIXED)
    for seed, letter in enumerate("121"):
        store_run(runs / "levels", preset="smoke", seed=seed, hashes=hashes(letter))
    markdown, _ = report()
    tables = re.findall(r"^\| `mean` \| (\d) \| (.*?) \| (.*?) \|", markdown, re.MULTILINE)
    assert tables == [("2", "1.010 ± 0.014 (0.010)", "1.000"), ("1", "1.010 ± 0.020", "1.000")]
    assert "2 of 4 metrics passed" in markdown and "1 of 2 metrics passed" in markdown
    counts = (
        "library 1111111, notebook 0000000 (runs: 2); library 2222222, notebook 0000000 (runs: 1)"
    )
    warning = f"sweep levels: made by different code, a table for each: {counts}"
    assert f"- {warning}" in markdown
    assert warning in caplog.text
    mixed = write_report(mix_versions=True).read_text()
    assert row(mixed, "`mean`")[1:4] == ["3", "1.010 ± 0.012 (0.006)", "1.000"]
    assert "3 of 6 metrics passed" in mixed
    assert "made by different code, one table, as asked for: library" in mixed


def test_report_lists_what_it_cannot_read_and_ignores_unfinished_runs(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = store_run(runs / NAME, preset="smoke")
    content = (good / "results.json").read_text()
    for name in (".abc.partial-1", "abc.failed", "broken"):
        (runs / NAME / name).mkdir()
        (runs / NAME / name / "results.json").write_text(content[:100])
    store_run(runs / "orphans", preset="smoke")
    markdown, _ = report()
    warnings = markdown.split("## Warnings")[1].strip().splitlines()
    assert warnings == [
        f"- {NAME}/broken/results.json: not a valid results.json, left out",
        "- orphans: results without a notebook or a sweep definition of that name",
    ]
    assert "broken" in caplog.text


def test_report_leaves_nothing_but_its_two_files(runs: Path) -> None:
    report()
    assert sorted(path.name for path in runs.iterdir()) == ["report.html", "report.md"]
