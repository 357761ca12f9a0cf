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


def test_discrepancies_shows_every_noise_scale_the_floor_and_k():
    scales = (1.0, 5.0, 20.0)
    averages = {scale: Estimate(0.01, 0.001, 4) for scale in scales}
    figure = plotting.discrepancies(
        TIMES, {scale: np.ones(5) for scale in scales}, np.full(5, 0.1), averages,
        Estimate(0.001, 0.0001, 4), n_patches=5,
    )  # fmt: skip
    assert labels(figure) == [
        ("time (1/growth rate of prey)", "squared MMD"),
        ("noise scale λ", "squared MMD, mean over time"),
    ]
    left, right = figure.axes
    assert legend(left) == ["λ = 1", "λ = 5 = K", "λ = 20", "two direct sets"]
    assert [panel.get_yscale() for panel in figure.axes] == ["log", "log"]
    assert [line.get_xdata()[0] for line in right.lines if line.get_linestyle() == ":"] == [5]


def test_phase_portraits_draw_each_start_with_its_reference():
    path = np.random.default_rng(0).uniform(size=(2, 5, 2))
    figure = plotting.phase_portraits(
        {"ours": path, "naive": path}, path, ["a", "b"], observables=("u", "v")
    )
    assert labels(figure) == [("mean of u", "mean of v")] * 2
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["a", "b"]
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_xydata(), path[1])


def test_profiles_place_cells_at_their_centres():
    figure = plotting.profiles({"small": np.array([[1.0, 2.0], [3.0, 4.0]])}, fields=("u", "v"))
    assert labels(figure) == [("position x (domain = 1)", "density")]
    u, v = figure.axes[0].lines
    np.testing.assert_array_equal(u.get_xydata(), [[0.25, 1], [0.75, 3]])
    np.testing.assert_array_equal(v.get_ydata(), [2, 4])


def test_estimates_against_a_setting_have_two_standard_errors():
    figure = plotting.estimates_against(
        [0, 2], [Estimate(0.1, 0.01, 4), Estimate(0.2, None)], 0.05, axis="closures",
        quantity="squared MMD", reference_label="floor",
    )  # fmt: skip
    assert labels(figure) == [("closures", "squared MMD")]
    (panel,) = figure.axes
    bars = panel.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(bars[0][:, 1], [0.08, 0.12])


def test_methods_against_time_have_the_colours_of_the_house():
    figure = plotting.methods_against_time(
        TIMES, {"naive": np.ones(5), "ours": np.ones(5), "direct": np.ones(5)},
        quantity="squared MMD", unit="s", title="",
    )  # fmt: skip
    colors = [line.get_color() for line in figure.axes[0].lines]
    assert colors == [plotting.NAIVE, plotting.OURS, plotting.REFERENCE]


def test_fluctuations_against_size_show_learned_exact_and_direct():
    estimates = [Estimate(0.1, 0.01, 4), Estimate(0.03, 0.003, 4)]
    figure = plotting.fluctuations_against_size(
        [10, 100], {"u": estimates, "v": estimates}, {"u": [0.1, 0.03], "v": [0.1, 0.03]},
        {"u": {10: estimates[0]}, "v": {10: estimates[0]}}, [0.1, 1.0],
    )  # fmt: skip
    assert labels(figure) == [
        ("cells n", "stationary std of the mean"), ("cells n", "seconds a snapshot"),
    ]  # fmt: skip
    assert {panel.get_xscale() for panel in figure.axes} == {"log"}
    proportional = figure.axes[1].lines[1].get_ydata()
    np.testing.assert_allclose(proportional, [0.1, 1.0])
