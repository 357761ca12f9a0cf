"""Figures of tiny inputs: each panel is labelled, shows every curve, and is scaled as it says."""

import numpy as np
import pytest

from macrodyn_lib import plotting
from macrodyn_lib.rollouts import EnsemblePaths
from macrodyn_lib.statistics import Estimate

TIMES = np.arange(5.0)


def paths(seed=0):
    values = np.random.default_rng(seed).uniform(-1, 1, size=(2, 1, 4, 5, 2))
    return EnsemblePaths(times=TIMES, paths=values)


def labels(figure):
    return [(panel.get_xlabel(), panel.get_ylabel()) for panel in figure.axes]


def legend(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


def test_path_grid_shows_mean_and_std_of_each_observable():
    curve = (np.ones((5, 2)), np.full((5, 2), 0.1))
    figure = plotting.path_grid(
        TIMES, {"ours": curve, "naive": curve}, curve, observables=("M", "rho"), unit="flips"
    )
    expected = [("time (flips)", f"{what} of {name}") for name in ("M", "rho")
                for what in ("mean", "std")]  # fmt: skip
    found = [(x, y.removesuffix(" (band: ± 1 std)")) for x, y in labels(figure)]
    assert found == expected
    assert [len(panel.lines) for panel in figure.axes] == [3] * 4
    assert legend(figure.axes[0]) == ["ours", "naive", "direct"]


def test_quality_of_snapshots_draws_the_true_pool_in_black_without_k_zero():
    pool = (np.ones(4), np.array([9.0, 3.0, 2.0, 1.0]), np.linspace(-1, 1, 20))
    figure = plotting.quality_of_snapshots({"true": pool, "10": pool, "100": pool})
    assert labels(figure) == [
        ("distance r (sites)", "C(r) = ⟨s(0) s(r)⟩"),
        ("j, with k = 2πj/L", "S(k)"),
        ("M", "density of M"),
    ]
    left, middle, _ = figure.axes
    colors = [line.get_color() for line in left.lines]
    assert colors[0] == plotting.REFERENCE and len(set(colors)) == 3
    assert middle.get_yscale() == "log"
    np.testing.assert_array_equal(middle.lines[0].get_xydata(), [[1, 3], [2, 2], [3, 1]])


@pytest.mark.parametrize(
    ("values", "scale"),
    [((0.01, 0.1, 1.0), "log"), ((0.1, 0.2, 2.9), "linear"), ((-0.01, 0.1, 1.0), "linear")],
)
def test_variants_are_on_a_logarithmic_axis_where_they_span_decades(values, scale):
    results = {f"variant {v}": {"error": (v, 0.001), "time": (5.0, 0.1)} for v in values}
    figure = plotting.variants(results, {"error": None, "time": 4.0})
    assert [panel.get_xlabel() for panel in figure.axes] == ["error", "time"]
    error, time = figure.axes
    assert (error.get_xscale(), time.get_xscale()) == (scale, "linear")
    assert [text.get_text() for text in error.get_yticklabels()] == list(results)
    # dots of the three variants, and the reference where there is one
    assert [len(panel.containers) for panel in figure.axes] == [3, 3]
    assert [line.get_xdata()[0] for line in time.lines if line.get_linestyle() == "--"] == [4.0]
    assert not [line for line in error.lines if line.get_linestyle() == "--"]


def test_laws_and_paths_shows_each_setting_in_two_panels():
    settings = {"(i) small": (paths(0), paths(1)), "(ii) ours": (paths(2), paths(3))}
    figure = plotting.laws_and_paths(settings, unit="flips")
    assert labels(figure) == [("M", "density of M"), ("time (flips)", "M")] * 2
    assert [panel.get_title(loc="left") for panel in figure.axes[::2]] == list(settings)
    assert [len(panel.lines) for panel in figure.axes] == [2, 3, 2, 3]
    learned = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(learned, learned[::-1])  # both signs have the same law


def test_nine_laws_are_lettered_row_by_row():
    rows = {"true": "abc", "upsampled": "def", "naive": "ghi"}
    cells = {letter: paths(seed) for seed, letter in enumerate("abcdefghi")}
    figure = plotting.nine_laws(rows, cells, paths(99))
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    columns = ("conventional", "baseline", "ours")
    assert titles == [
        f"({letter}) {row}: {column}"
        for row, letters in rows.items()
        for letter, column in zip(letters, columns, strict=True)
    ]
    assert labels(figure) == [("", "density of M")] * 6 + [("M", "density of M")] * 3
    assert [len(panel.lines) for panel in figure.axes] == [2] * 9
    assert legend(figure.axes[0]) == ["learned", "direct"]


def test_noise_scales_have_a_line_for_each_boundary_and_duration():
    estimates = {"law": Estimate(0.2, 0.01), "autocorrelation": Estimate(0.1, 0.02)}
    curve = {0.5: estimates, 1.0: estimates, 2.0: estimates}
    curves = {("ghost", 0.5): curve, ("ghost", 2.0): curve, ("periodic", 0.5): curve}
    figure = plotting.noise_scales(curves)
    assert [x for x, _ in labels(figure)] == ["noise scale λ / K"] * 2
    assert [y for _, y in labels(figure)] == [
        "Wasserstein-1 distance of the law of |M|",
        "mean difference of autocorrelations",
    ]
    for panel, value in zip(figure.axes, (0.2, 0.1), strict=True):
        assert len(panel.containers) == 3 and panel.get_xscale() == "log"
        assert [text.get_text() for text in panel.get_xticklabels()] == ["0.5", "1", "2"]
        np.testing.assert_array_equal(panel.containers[0].lines[0].get_ydata(), [value] * 3)
    first, second, third = (c.lines[0] for c in figure.axes[0].containers)
    assert first.get_color() == second.get_color() != third.get_color()
    assert first.get_linestyle() == third.get_linestyle() != second.get_linestyle()
    assert [text.get_text() for text in figure.legends[0].get_texts()][1] == "ghost, δt = 2"
