"""Published numbers beside ours: met, met in noise, missed, and not run."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from macrodyn_lib import alloy_study, report
from macrodyn_lib.parameters import NOTEBOOKS
from macrodyn_lib.published import FIGURES, NUMBERS
from macrodyn_lib.study import Metric, Results
from macrodyn_lib.sweeps import definitions


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MACRODYN_RUNS", str(tmp_path))
    yield tmp_path


def store(
    runs: Path,
    study: str,
    run: str = "run",
    provenance: Mapping[str, object] | None = None,
    **metrics: tuple[float, float, float | None],
) -> Path:
    folder = runs / study / run
    (folder / "figures").mkdir(parents=True)
    results = Results(
        notebook=study,
        parameters={"preset": "paper"},
        metrics={
            name.replace("__", "."): Metric(
                value=value,
                standard_error=error,
                reference=reference,
                reference_kind="exact",
                passed=True,
                criterion="",
            )
            for name, (value, error, reference) in metrics.items()
        },
        timings_s={"total": 1.0},
        provenance=dict(provenance or {}),
    )
    results.write(folder / "results.json")
    return folder


def verdicts() -> dict[str, str]:
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in report.published_table().splitlines()[2:]
    ]
    return {f"{row[0]} {row[1]}": row[-1] for row in rows}


def test_verdicts_follow_from_the_distance_to_the_truth(runs: Path) -> None:
    store(
        runs,
        "01_linear_chain",
        large__slope=(-0.0999, 0.0003, -0.1),  # published: -0.0929
        small__bias=(1.4990, 0.0015, 1.5),  # published: 1.5002, nearer by chance
        large__bias=(0.1300, 0.0004, 0.15),  # published: 0.1419
    )
    errors = {"ours": (1e-5, 1e-6, None), "naive": (0.2, 0.02, None)}
    store(runs, "03_curie_weiss", **{f"ablation__16__error__{k}": v for k, v in errors.items()})
    store(runs, "04_ising", ablation__16__error_latent__ours=(1e-2, 1e-3, None))
    found = verdicts()
    assert found["`01_linear_chain` slope, 100 particles"] == "met"
    assert found["`01_linear_chain` bias, 10 particles"] == "met, in noise"
    assert found["`01_linear_chain` bias, 100 particles"] == "**missed**"
    assert found["`03_curie_weiss` test error, patches of 16²"] == "met"
    assert found["`03_curie_weiss` test error of the baseline, patches of 16²"] == ""
    assert found["`04_ising` test error, patches of 16²"] == "**missed**"
    assert found["`06_finite_size_scaling` ν"] == "not run"


def test_figures_are_named_where_they_are_stored(runs: Path) -> None:
    folder = store(runs, "06_finite_size_scaling")
    (folder / "figures" / "figure_5.png").write_bytes(b"")
    by_number = dict(zip([f.number for f in FIGURES], report.paper_figures(), strict=True))
    assert by_number["5"][1] == [folder / "figures" / "figure_5.png"]
    assert by_number["6"][1] == [] and by_number["6"][0].endswith("not stored.")
    text, _ = report.compose()
    assert "[figure 5](<06_finite_size_scaling/run/figures/figure_5.png>)" in text


def test_of_a_sweep_the_mean_over_its_runs_counts(runs: Path) -> None:
    for run, metric in {"one": (-0.62, 0.006, -0.66), "other": (-0.70, 0.008, -0.68)}.items():
        store(runs, "nbmota_network", run, protocol__2000__MoMo=metric)  # published: -0.63708
    row = next(
        line
        for line in report.published_table().splitlines()
        if "MoMo after" in line and "2000 K" in line
    )
    assert [cell.strip() for cell in row.split("|")[4:-1]] == [
        "-0.6371", "-0.6600 ± 0.0050", "-0.6700", "met"
    ]  # fmt: skip


def test_runs_by_other_code_or_of_other_data_are_no_replicas(runs: Path) -> None:
    code = {"source_hash": "1" * 12, "notebook_hash": "0" * 12, "data": {"weights.npz": "a"}}
    others = {"data": {}}, {"source_hash": "2" * 12}
    made = [
        {**code, "created": "2030-01-03"},
        {**code, "created": "2030-01-01"},
        *({**code, "created": "2030-01-02", **other} for other in others),
        {**code, "created": "2030-01-04", "instead": {"preset": "quick"}},
    ]
    for k, provenance in enumerate(made):
        store(runs, "nbmota_network", str(k), provenance, protocol__2000__MoMo=(k, 0.1, -0.7))
    assert report.sweep_means("nbmota_network")["protocol.2000.MoMo"].value == 0.5
    warning = "nbmota_network/4: its preset is not 'paper' but 'quick'"
    assert [text.split(";")[0] for text in report.compose()[1]].count(warning) == 1


def test_the_error_of_a_truth_that_several_runs_simulated_counts(runs: Path) -> None:
    row = "`nbmota_network` δ MoMo after 5 million events at 1200 K"  # published: -1.23984
    store(runs, "nbmota_network", "one", protocol__1200__MoMo=(-1.20, 0.005, -1.265))
    assert verdicts()[row] == "**missed**"
    store(runs, "nbmota_network", "other", protocol__1200__MoMo=(-1.20, 0.005, -1.215))
    assert verdicts()[row] == "met, in noise"


def test_curves_of_the_alloy_are_means_over_the_runs_of_a_sweep(runs: Path) -> None:
    assert report.sweep_means("nbmota_network") == {}
    for k, name in enumerate(("one", "other")):
        orders = {
            f"{kind}__{at}__{pair}": (0.1 * i + k, 0.3, at + i)
            for kind in ("published_time", "sro")
            for at in (800, 1000.5, 2000)
            for i, pair in enumerate(alloy_study.PAIRS)
        }
        store(runs, "nbmota_network", name, only_here=(1.0, 0.1, None), **orders)
    store(runs, "nbmota_network", "third", **orders)  # the second again
    means = report.sweep_means("nbmota_network")
    assert "only_here" not in means and alloy_study.order_curves(means, "protocol") == {}
    for kind in ("sro", "published_time"):
        curves = alloy_study.order_curves(means, kind)
        temperatures, learned, errors = curves["learned"]
        np.testing.assert_array_equal(temperatures, [800, 1000.5, 2000])
        np.testing.assert_allclose(learned, [0.1 * np.arange(6) + 2 / 3] * 3)
        np.testing.assert_allclose(errors, 0.3 / np.sqrt(3))
        np.testing.assert_allclose(curves["direct"][1], temperatures[:, None] + np.arange(6))
        assert ("published" in curves) == (kind == "published_time")
    assert curves["published"][1][list(curves["published"][0]).index(2000), 3] == -0.63708


def test_every_published_number_has_one_row_and_a_study() -> None:
    assert len({(n.study, n.metric) for n in NUMBERS}) == len(NUMBERS)
    assert {n.study for n in NUMBERS} <= set(NOTEBOOKS) | set(definitions())
