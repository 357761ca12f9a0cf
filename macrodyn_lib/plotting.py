"""One function per figure; each takes finished numbers and returns a figure, computing nothing new.

One colour per meaning everywhere (Okabe-Ito, safe for colour-blind readers): reference black,
our method blue, naive baseline orange, small system green.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

REFERENCE, OURS, NAIVE, SMALL, MUTED = "#000000", "#0072B2", "#D55E00", "#009E73", "#999999"


def panels(
    columns: int, *, width: float = 4.4, height: float = 3.4
) -> tuple[Figure, Sequence[Axes]]:
    """A row of panels in the house style; the figure is shown once, by the cell that returns it."""
    figure, axes = plt.subplots(
        1, columns, figsize=(width * columns, height), layout="constrained", squeeze=False
    )
    for panel in axes[0]:
        panel.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure, list(axes[0])


def band(
    panel: Axes,
    x: np.ndarray,
    mean: np.ndarray,
    half_width: np.ndarray,
    *,
    color: str,
    label: str,
    dashed: bool = False,
) -> None:
    """A line with a band of +- ``half_width`` around it."""
    panel.plot(x, mean, color=color, label=label, lw=1.6, ls="--" if dashed else "-")
    panel.fill_between(x, mean - half_width, mean + half_width, color=color, alpha=0.18, lw=0)


def label(panel: Axes, x: str, y: str, title: str = "", *, legend: bool = True) -> None:
    """Axis labels with units, and the claim of the panel as its title."""
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.set_title(title, fontsize=9, loc="left")
    if legend:
        panel.legend(frameon=False, fontsize=8)


def mean_and_std_paths(
    times: np.ndarray,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    reference: tuple[np.ndarray, np.ndarray],
    *,
    observable: str,
    unit: str,
    title: str = "",
) -> Figure:
    """Mean and standard deviation of an observable against time (the paper's figure 9).

    curves: label -> (mean (T,), std (T,)).  reference: exact or direct (mean, std).
    """
    figure, (left, right) = panels(2)
    colors = dict(zip(curves, (OURS, NAIVE, SMALL), strict=False))
    for name, (mean, std) in curves.items():
        band(left, times, mean, std, color=colors[name], label=name)
        right.plot(times, std, color=colors[name], label=name, lw=1.6)
    mean, std = reference
    left.plot(times, mean, color=REFERENCE, ls="--", lw=1.3, label="exact")
    right.plot(times, std, color=REFERENCE, ls="--", lw=1.3, label="exact")
    label(left, f"time ({unit})", f"mean of {observable} (band: ± 1 std)", title)
    label(right, f"time ({unit})", f"standard deviation of {observable}", legend=False)
    return figure


def drift_and_diffusion(
    z: np.ndarray,
    fits: Mapping[str, tuple[np.ndarray, np.ndarray]],
    exact: tuple[np.ndarray, np.ndarray],
    *,
    observable: str,
    n_sites: int,
) -> Figure:
    """Learned drift and covariance beside the exact ones, over the range of the snapshots.

    z (P,).  fits: label -> (drifts (R, P), covariances (R, P)) of the ensemble members; bands show
    two standard errors of their mean.
    """
    figure, axes = panels(2)
    colors = dict(zip(fits, (OURS, NAIVE), strict=False))
    for name, values in fits.items():
        for panel, members, factor in zip(axes, values, (1, n_sites), strict=True):
            error = members.std(axis=0, ddof=1) / np.sqrt(len(members))
            mean = members.mean(axis=0)
            band(panel, z, factor * mean, 2 * factor * error, color=colors[name], label=name)
    for panel, curve, factor in zip(axes, exact, (1, n_sites), strict=True):
        panel.plot(z, factor * curve, color=REFERENCE, ls="--", lw=1.3, label="exact")
    label(axes[0], observable, f"drift μ({observable}) (1/time)", "Drift")
    label(axes[1], observable, f"n Σ({observable}) (1/time)", "Diffusion", legend=False)
    return figure


def snapshot_histograms(
    values: Mapping[str, np.ndarray], *, observable: str, title: str = ""
) -> Figure:
    """Where the training snapshots lie: density of an observable for each pool."""
    figure, (panel,) = panels(1, width=5.5)
    low, high = min(v.min() for v in values.values()), max(v.max() for v in values.values())
    for (name, pool), color in zip(values.items(), (SMALL, OURS), strict=False):
        panel.hist(
            pool,
            bins=60,
            range=(low, high),
            density=True,
            histtype="step",
            color=color,
            lw=1.6,
            label=name,
        )
    label(panel, observable, f"density of {observable}", title)
    return figure


def errors_against_patch_side(
    sides: Sequence[int],
    estimates: Mapping[str, tuple[np.ndarray, np.ndarray]],
    published: Mapping[str, Sequence[float]] | None,
    *,
    title: str = "",
) -> Figure:
    """Test error against the size of a patch (the paper's figure 8), logarithmic in both.

    estimates: label -> (errors (S,), standard errors (S,)).  published: label -> errors (S,).
    """
    figure, (panel,) = panels(1, width=5.5)
    sites = np.square(sides)
    for (name, (value, error)), color in zip(estimates.items(), (OURS, NAIVE), strict=False):
        panel.errorbar(
            sites, value, yerr=error, color=color, marker="o", ms=4, capsize=2, label=name
        )
    for (name, numbers), color in zip((published or {}).items(), (OURS, NAIVE), strict=False):
        panel.plot(sites, numbers, color=color, marker="s", ms=4, ls=":", alpha=0.6, label=name)
    panel.set(xscale="log", yscale="log", xticks=sites, xticklabels=[f"{side}²" for side in sides])
    panel.minorticks_off()
    panel.invert_xaxis()
    label(panel, "sites in a patch, n/K", "test error (relative)", title)
    return figure


def lag_time(
    durations: np.ndarray,
    measured: tuple[np.ndarray, np.ndarray],
    predicted: tuple[np.ndarray, np.ndarray] | None,
    *,
    chosen: float,
    unit: str,
    title: str = "",
    quantity: str = "relaxation time / exact",
) -> Figure:
    """Learned over true relaxation time against the duration of partial evolution.

    measured: (ratios (D,), standard errors (D,)).  predicted: (durations (P,), ratios (P,)), if
    theory knows them.
    """
    figure, (panel,) = panels(1, width=5.5)
    panel.axhline(1, color=MUTED, lw=1)
    panel.axvline(chosen, color=MUTED, lw=1, ls=":", label=f"chosen δt = {chosen:g}")
    if predicted is not None:
        panel.plot(*predicted, color=REFERENCE, ls="--", lw=1.3, label="exact prediction")
    value, error = measured
    panel.errorbar(durations, value, yerr=error, color=OURS, marker="o", ms=4, ls="", capsize=2,
                   label="learned")  # fmt: skip
    panel.set_xscale("log")
    label(panel, f"duration δt of partial evolution ({unit})", quantity, title)
    return figure


def sample_paths(
    panel: Axes, times: np.ndarray, paths: np.ndarray, *, color: str, name: str
) -> None:
    """A few single paths (P, T) in one colour."""
    lines = panel.plot(times, paths.T, color=color, lw=0.7, alpha=0.7)
    lines[0].set_label(name)


def heat_map(panel: Axes, state: np.ndarray, title: str, **options: Any) -> None:
    """One lattice state (L, L) as an image."""
    panel.imshow(state, cmap="cividis", vmin=-1, vmax=1, interpolation="nearest", **options)
    panel.set(xticks=[], yticks=[])
    panel.set_title(title, fontsize=9, loc="left")


def estimates_beside_references(
    estimates: Mapping[str, tuple[float, float, float]],
    exact: float,
    *,
    quantity: str,
    title: str = "",
) -> Figure:
    """A few estimates with two standard errors, each beside its own prediction and the exact value.

    estimates: label -> (value, standard error, prediction).
    """
    figure, (panel,) = panels(1, width=5.5)
    panel.axhline(exact, color=MUTED, lw=1, label="exact")
    for x, (value, error, prediction) in enumerate(estimates.values()):
        first = x == 0
        panel.plot(x, prediction, color=REFERENCE, marker="_", ms=26, ls="",
                   label="predicted" if first else None)  # fmt: skip
        panel.errorbar(x, value, yerr=2 * error, color=OURS, marker="o", ms=4, capsize=3, ls="",
                       label="learned ± 2 s.e." if first else None)  # fmt: skip
    panel.set_xticks(range(len(estimates)), list(estimates))
    panel.set_xlim(-0.6, len(estimates) - 0.4)
    label(panel, "", quantity, title)
    return figure


def drift_and_prediction(
    z: np.ndarray,
    drifts: tuple[np.ndarray, np.ndarray],
    times: np.ndarray,
    learned: tuple[np.ndarray, np.ndarray],
    exact: tuple[np.ndarray, np.ndarray],
    *,
    title: str,
) -> Figure:
    """Learned and exact drift (P,) beside the predicted and exact mean and std (T,) of M."""
    figure, (left, right) = panels(2)
    for values, color, style, name in zip(
        drifts, (OURS, REFERENCE), ("-", "--"), ("learned", "exact"), strict=True
    ):
        left.plot(z, values, color=color, ls=style, lw=1.5, label=name)
    left.axhline(0, color=MUTED, lw=0.8)
    band(right, times, *learned, color=OURS, label="learned")
    for shift in (-1, 0, 1):
        right.plot(times, exact[0] + shift * exact[1], color=REFERENCE, ls="--", lw=1)
    label(left, "M", "drift μ(M) (1/time)", title)
    label(right, "time (flips per spin)", "M, mean ± 1 std", legend=False)
    right.set_ylim(-1, 1)
    return figure


def drift_overview(
    z: np.ndarray,
    drifts: Mapping[tuple[float, int], np.ndarray],
    exact: Mapping[float, np.ndarray],
) -> Figure:
    """Learned drifts (P,) for each temperature and patch side, beside the exact ones (P,)."""
    figure, axes = panels(len(exact), width=3.2, height=3)
    sides = sorted({side for _, side in drifts})
    colors = dict(zip(sides, ("#56B4E9", OURS, SMALL), strict=False))
    for panel, (temperature, curve) in zip(axes, exact.items(), strict=True):
        for side in sides:
            panel.plot(z, drifts[temperature, side], color=colors[side], label=f"{side}² spins")
        panel.plot(z, curve, color=REFERENCE, ls="--", lw=1.3, label="exact")
        panel.axhline(0, color=MUTED, lw=0.8)
        label(panel, "M", "drift μ(M) (1/time)", f"T = {temperature:g}", legend=panel is axes[0])
    return figure


def path_grid(
    times: np.ndarray,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    reference: tuple[np.ndarray, np.ndarray],
    *,
    observables: Sequence[str],
    unit: str,
    title: str = "",
) -> Figure:
    """Mean and standard deviation of each observable against time (the paper's figure 4).

    curves: label -> (means (T, d), stds (T, d)).  reference: those of direct simulation.
    """
    figure, axes = panels(2 * len(observables), width=3.4, height=3.0)
    for index, name in enumerate(observables):
        left, right = axes[2 * index : 2 * index + 2]
        for (which, (mean, std)), color in zip(curves.items(), (OURS, NAIVE), strict=False):
            band(left, times, mean[:, index], std[:, index], color=color, label=which)
            right.plot(times, std[:, index], color=color, lw=1.6)
        for panel, values in zip((left, right), reference, strict=True):
            panel.plot(times, values[:, index], color=REFERENCE, ls="--", lw=1.3, label="direct")
        label(left, f"time ({unit})", f"mean of {name} (band: ± 1 std)", title, legend=index == 0)
        label(right, f"time ({unit})", f"std of {name}", legend=False)
        title = ""
    return figure


def paths_from_starts(
    times: np.ndarray,
    learned: tuple[np.ndarray, np.ndarray],
    direct: tuple[np.ndarray, np.ndarray],
    *,
    starts: Sequence[float],
    observables: Sequence[str],
    unit: str,
) -> Figure:
    """Bands of mean +- 1 std against time: a row for each observable, a column for each start.

    learned, direct: means and stds, (B, T, d).  starts: M(0), (B,).
    """
    figure, grid = plt.subplots(
        len(observables), len(starts), figsize=(1 + 1.6 * len(starts), 2.2 * len(observables)),
        layout="constrained", sharex=True, sharey="row", squeeze=False,
    )  # fmt: skip
    plt.close(figure)
    for row, (axes, name) in enumerate(zip(grid, observables, strict=True)):
        for column, panel in enumerate(axes):
            panel.spines[["top", "right"]].set_visible(False)
            mean, std = (values[column, :, row] for values in learned)
            band(panel, times, mean, std, color=OURS, label="learned")
            mean, std = (values[column, :, row] for values in direct)
            panel.plot(times, mean, color=REFERENCE, ls="--", lw=1.3, label="direct")
            for shift in (-1, 1):
                panel.plot(times, mean + shift * std, color=REFERENCE, ls=":", lw=0.8)
            title = f"M(0) = {starts[column]:g}" if row == 0 else ""
            side = f"{name} (mean ± 1 std)" if column == 0 else ""
            bottom = f"time ({unit})" if name == observables[-1] and column == 0 else ""
            label(panel, bottom, side, title, legend=row == column == 0)
    return figure


def quality_of_snapshots(
    pools: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], magnetization_range: float = 1.0
) -> Figure:
    """Upsampled snapshots beside true ones (the first pool, black).

    pools: label -> (correlation function (R,), structure factor (k,), magnetizations (N,)).
    """
    figure, (left, middle, right) = panels(3, width=3.8, height=3.2)
    shades = plt.get_cmap("cividis")(np.linspace(0, 0.85, max(len(pools) - 1, 1)))
    colors = [REFERENCE, *(to_hex(shade) for shade in shades)]
    bins = np.linspace(-magnetization_range, magnetization_range, 60).tolist()
    for (name, (correlation, factor, m)), color in zip(pools.items(), colors, strict=True):
        style: dict[str, Any] = {"color": color, "label": name}
        style["lw"] = 2.2 if color == REFERENCE else 1.3
        left.plot(correlation, **style)
        middle.semilogy(np.arange(1, len(factor)), factor[1:], **style)
        right.hist(m, bins=bins, density=True, histtype="step", **style)
    label(left, "distance r (sites)", "C(r) = ⟨s(0) s(r)⟩", "Two-point correlation")
    label(middle, "j, with k = 2πj/L", "S(k)", "Structure factor", legend=False)
    label(right, "M", "density of M", "Magnetization", legend=False)
    return figure


def variants(
    results: Mapping[str, Mapping[str, tuple[float, float]]],
    references: Mapping[str, float | None],
    *,
    title: str = "",
) -> Figure:
    """Each quantity for a few variants of the method, with two standard errors; logarithmic where
    positive values span more than a factor of 30.

    results: variant -> quantity -> (value, standard error).  references: quantity -> line or None.
    """
    figure, axes = panels(len(references), width=3.6, height=0.8 + 0.36 * len(results))
    for panel, (quantity, reference) in zip(axes, references.items(), strict=True):
        if reference is not None:
            panel.axvline(reference, color=REFERENCE, ls="--", lw=1.3)
        for row, result in enumerate(results.values()):
            value, error = result[quantity]
            panel.errorbar(value, -row, xerr=2 * error, color=OURS, marker="o", ms=4, capsize=2)
        values = [result[quantity][0] for result in results.values()]
        if min(values) > 0 and max(values) > 30 * min(values):
            panel.set_xscale("log")
        panel.set_yticks([-row for row in range(len(results))], list(results))
        if panel is not axes[0]:
            panel.set_yticklabels([])
        label(panel, quantity, "", title, legend=False)
        title = ""
    return figure


def _law(panel: Axes, paths: Any, *, color: str, name: str, dashed: bool = False) -> None:
    """Density of M over the second half of ``EnsemblePaths``, made symmetric: at zero field both
    signs have the same law."""
    m = paths.quoted_paths[..., len(paths.times) // 2 :, 0]
    both = np.concatenate([m.ravel(), -m.ravel()])
    density, edges = np.histogram(both, bins=80, range=(-1.05, 1.05), density=True)
    middles = (edges[1:] + edges[:-1]) / 2
    panel.plot(middles, density, color=color, label=name, lw=1.6, ls="--" if dashed else "-")


def laws_and_paths(settings: Mapping[str, tuple[Any, Any]], *, unit: str) -> Figure:
    """Equilibrium law of M and a few sample paths for each setting (the paper's figure 10).

    settings: title -> (learned, direct) ``EnsemblePaths``.
    """
    figure, axes = panels(2 * len(settings), width=2.9, height=2.7)
    for index, (title, (learned, direct)) in enumerate(settings.items()):
        left, right = axes[2 * index : 2 * index + 2]
        _law(left, learned, color=OURS, name="learned")
        _law(left, direct, color=REFERENCE, name="direct", dashed=True)
        shown = learned.quoted_paths[0, 0, :3, :, 0]
        sample_paths(right, learned.times, shown, color=OURS, name="learned")
        right.set_ylim(-1.05, 1.05)
        label(left, "M", "density of M", title, legend=index == 0)
        label(right, f"time ({unit})", "M", legend=False)
    return figure


def nine_laws(rows: Mapping[str, str], cells: Mapping[str, Any], direct: Any) -> Figure:
    """Equilibrium law of M, learned and direct, for each cell (the paper's figure 11).

    rows: row title -> letters of its cells.  cells: letter -> ``EnsemblePaths``.
    """
    columns = ("conventional", "baseline", "ours")
    figure, grid = plt.subplots(
        len(rows), 3, figsize=(9, 2.3 * len(rows)), layout="constrained", sharex=True
    )
    plt.close(figure)
    for axes, (title, letters) in zip(grid, rows.items(), strict=True):
        for panel, letter, column in zip(axes, letters, columns, strict=True):
            panel.spines[["top", "right"]].set_visible(False)
            _law(panel, cells[letter], color=OURS, name="learned")
            _law(panel, direct, color=REFERENCE, name="direct", dashed=True)
            label(panel, "M" if title == list(rows)[-1] else "", "density of M",
                  f"({letter}) {title}: {column}", legend=letter == "a")  # fmt: skip
    return figure


def noise_scales(
    curves: Mapping[tuple[str, float], Mapping[float, Mapping[str, Any]]],
) -> Figure:
    """Distances from direct simulation against lambda / K, a line for each boundary and duration.

    curves: (boundary, duration) -> lambda / K -> {"law", "autocorrelation"} -> Estimate.
    """
    figure, axes = panels(2, width=5)
    boundaries = list(dict.fromkeys(boundary for boundary, _ in curves))
    durations = list(dict.fromkeys(duration for _, duration in curves))
    colors = dict(zip(boundaries, (OURS, SMALL, NAIVE), strict=False))
    styles = dict(zip(durations, ("-", "--", ":"), strict=False))
    quantities = ("law", "autocorrelation")
    names = ("Wasserstein-1 distance of the law of |M|", "mean difference of autocorrelations")
    for panel, quantity, name in zip(axes, quantities, names, strict=True):
        for (boundary, duration), by_ratio in curves.items():
            ratios = list(by_ratio)
            values = [by_ratio[ratio][quantity].value for ratio in ratios]
            errors = [by_ratio[ratio][quantity].standard_error for ratio in ratios]
            panel.errorbar(ratios, values, yerr=errors, color=colors[boundary], marker="o", ms=3,
                           ls=styles[duration], capsize=2,
                           label=f"{boundary}, δt = {duration:g}")  # fmt: skip
        panel.set(xscale="log", xticks=ratios, xticklabels=[f"{ratio:g}" for ratio in ratios])
        panel.minorticks_off()
        label(panel, "noise scale λ / K", name, legend=False)
    handles, lines = axes[0].get_legend_handles_labels()
    figure.legend(handles, lines, frameon=False, fontsize=8, loc="outside right center")
    return figure


def profiles(states: Mapping[str, np.ndarray], *, fields: Sequence[str]) -> Figure:
    """Fields along the domain, one panel a state: title -> (n, fields)."""
    figure, axes = panels(len(states), width=3.4, height=2.8)
    for panel, (title, state) in zip(axes, states.items(), strict=True):
        for name, values, color in zip(fields, state.T, (SMALL, "#CC79A7"), strict=True):
            panel.plot((np.arange(len(values)) + 0.5) / len(values), values, color=color, lw=1.0,
                       label=name)  # fmt: skip
        label(panel, "position x (domain = 1)", "density", title, legend=panel is axes[0])
    return figure


def phase_portraits(
    curves: Mapping[str, np.ndarray],
    direct: np.ndarray,
    titles: Sequence[str],
    *,
    observables: tuple[str, str],
) -> Figure:
    """Mean paths in the plane of two observables, one panel a start.

    curves: label -> (B, T, 2).  direct: (B, T, 2), the reference.
    """
    figure, axes = panels(len(titles), width=3.4, height=3.2)
    for index, (panel, title) in enumerate(zip(axes, titles, strict=True)):
        for (name, paths), color in zip(curves.items(), (OURS, NAIVE), strict=False):
            panel.plot(*paths[index].T, color=color, lw=1.8, label=name)
        panel.plot(*direct[index].T, color=REFERENCE, ls="--", lw=1.2, label="direct")
        panel.plot(*direct[index, 0], color=REFERENCE, marker="o", ms=4)
        label(panel, f"mean of {observables[0]}", f"mean of {observables[1]}", title,
              legend=index == 0)  # fmt: skip
    return figure


def discrepancies(
    times: np.ndarray,
    by_scale: Mapping[float, np.ndarray],
    floor: np.ndarray,
    averages: Mapping[float, Any],
    average_floor: Any,
    *,
    n_patches: int,
) -> Figure:
    """Squared MMD against time for each lambda, and its mean against lambda (the paper's figure 2).

    by_scale: lambda -> (T,).  floor: (T,), between direct sets.  averages: lambda -> Estimate.
    """
    figure, (left, right) = panels(2, width=5.4)
    shades = plt.get_cmap("cividis")(np.linspace(0, 0.9, len(by_scale)))
    for (scale, values), shade in zip(by_scale.items(), shades, strict=True):
        chosen = scale == n_patches
        left.plot(times, values, color=OURS if chosen else to_hex(shade), lw=2.6 if chosen else 1.1,
                  label=f"λ = {scale:g}" + (" = K" if chosen else ""))  # fmt: skip
    left.plot(times, floor, color=REFERENCE, ls="--", lw=1.3, label="two direct sets")
    scales = list(averages)
    right.errorbar(
        scales,
        [averages[scale].value for scale in scales],
        yerr=[2 * averages[scale].standard_error for scale in scales],
        color=OURS, marker="o", ms=4, capsize=2, label="learned (± 2 s.e.)",
    )  # fmt: skip
    right.axhline(average_floor.value, color=REFERENCE, ls="--", lw=1.3, label="two direct sets")
    right.axvline(n_patches, color=MUTED, ls=":", lw=1.2, label=f"K = {n_patches}")
    right.set_xscale("log")
    right.set_xticks(scales, [f"{scale:g}" for scale in scales])
    right.minorticks_off()
    for panel in (left, right):
        panel.set_yscale("log")
    label(left, "time (1/growth rate of prey)", "squared MMD", "Laws of the latents", legend=False)
    # beside the panel: curves of all heights leave no room inside
    left.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    label(right, "noise scale λ", "squared MMD, mean over time")
    return figure


def methods_against_time(
    times: np.ndarray, curves: Mapping[str, np.ndarray], *, quantity: str, unit: str, title: str
) -> Figure:
    """A positive quantity against time, logarithmic: label -> (T,); "direct" is the reference."""
    figure, (panel,) = panels(1, width=5.5)
    colors = {"ours": OURS, "naive": NAIVE, "direct": REFERENCE}
    for name, values in curves.items():
        panel.plot(times, values, color=colors[name], ls="--" if name == "direct" else "-",
                   lw=1.6, label=name)  # fmt: skip
    panel.set_yscale("log")
    label(panel, f"time ({unit})", quantity, title)
    return figure


def estimates_against(
    x: Sequence[float],
    estimates: Sequence[Any],
    reference: float,
    *,
    axis: str,
    quantity: str,
    reference_label: str,
    title: str = "",
    log_x: bool = False,
    log_y: bool = True,
) -> Figure:
    """Estimates with two standard errors against a setting, and a reference line."""
    figure, (panel,) = panels(1, width=5.5)
    values = [estimate.value for estimate in estimates]
    errors = [2 * (estimate.standard_error or 0) for estimate in estimates]
    panel.errorbar(x, values, yerr=errors, color=OURS, marker="o", ms=4, capsize=2,
                   label="learned (± 2 s.e.)")  # fmt: skip
    panel.axhline(reference, color=REFERENCE, ls="--", lw=1.3, label=reference_label)
    panel.set(yscale="log" if log_y else "linear", xscale="log" if log_x else "linear")
    panel.set_xticks(x, [f"{value:g}" for value in x])
    panel.minorticks_off()
    label(panel, axis, quantity, title)
    return figure


def fluctuations_against_size(
    sizes: Sequence[int],
    learned: Mapping[str, Sequence[Any]],
    exact: Mapping[str, Sequence[float]],
    direct: Mapping[str, Mapping[int, Any]],
    seconds: Sequence[float],
) -> Figure:
    """Stationary standard deviations against the number of cells, and the cost of a snapshot."""
    figure, (left, right) = panels(2, width=4.8)
    for name, color in zip(learned, (OURS, SMALL), strict=True):
        values = [estimate.value for estimate in learned[name]]
        errors = [2 * estimate.standard_error for estimate in learned[name]]
        left.plot(sizes, exact[name], color=color, ls="--", lw=1.2, label=f"{name}, exact (linear)")
        left.errorbar(sizes, values, yerr=errors, color=color, marker="o", ms=4, ls="", capsize=2,
                      label=f"{name}, learned")  # fmt: skip
        runs = direct[name]
        left.plot(list(runs), [runs[size].value for size in runs], color=REFERENCE, marker="x",
                  ms=7, ls="", label="direct" if color == OURS else None)  # fmt: skip
    right.plot(sizes, seconds, color=OURS, marker="o", ms=4, label="measured")
    right.plot(sizes, seconds[-1] * np.array(sizes) / sizes[-1], color=MUTED, ls=":",
               label="proportional to n")  # fmt: skip
    for panel in (left, right):
        panel.set(xscale="log", yscale="log")
    label(left, "cells n", "stationary std of the mean", "Fluctuations fall as n^(-1/2)")
    label(right, "cells n", "seconds a snapshot", "Upsample, relax, evolve patches")
    return figure


# One colour and marker per lattice size (the paper's four, and larger ones).
SIZES = {16: ("#0072B2", "o"), 32: ("#009E73", "s"), 48: ("#D55E00", "^"), 64: ("#E69F00", "D"),
         128: ("#CC79A7", "v"), 256: ("#56B4E9", "P")}  # fmt: skip


def law_and_potential(
    law: Any,
    samples: Mapping[str, tuple[np.ndarray, str]],
    *,
    title: str = "",
) -> Figure:
    """Density of |M|, and the potential V = -ln p(M, rho) of the learned SDE.

    law: its ``StationaryLaw``.  samples: name -> (magnetizations, colour), drawn as histograms.
    """
    figure, (left, right) = panels(2)
    for name, (magnetizations, color) in samples.items():
        density, edges = np.histogram(np.abs(magnetizations), 50, (0, law.m[-1]), density=True)
        left.stairs(density, edges, color=color, label=name, lw=1.3)
    left.plot(law.m, law.of_m / (law.m[1] - law.m[0]), color=OURS, lw=1.6, label="learned")
    label(left, "|M|", "density of |M|", title)
    with np.errstate(divide="ignore"):
        potential = -np.log(law.weights)
    potential = np.ma.masked_invalid(potential - potential.min())
    shown = right.contourf(law.m, law.r, potential.T, levels=np.arange(0, 13, 1.0), cmap="cividis")
    figure.colorbar(shown, ax=right, label="V (in units of T)")
    label(right, "|M|", "domain-wall density ρ", "The potential that the rates know", legend=False)
    return figure


def rollouts_and_law(times: np.ndarray, paths: np.ndarray, law: Any) -> Figure:
    """Paths of M (B, T) of a learned SDE, and the law of their second half beside its own."""
    figure, (left, right) = panels(2)
    sample_paths(left, times, paths[:3], color=OURS, name="learned")
    label(left, "time (flips per spin)", "M", "Paths of the learned SDE", legend=False)
    late = np.abs(paths[:, paths.shape[1] // 2 :])
    density, edges = np.histogram(late, 50, (0, law.m[-1]), density=True)
    right.stairs(density, edges, color=MUTED, lw=1.3, label="its rollouts")
    right.plot(law.m, law.of_m / (law.m[1] - law.m[0]), color=OURS, lw=1.6, label="exp(-V)")
    label(right, "|M|", "density of |M|", "One law by both ways")
    return figure


def against_relaxation(
    results: Mapping[float, tuple[Mapping[str, float], Mapping[str, Any]]],
    references: Mapping[str, Any],
) -> Figure:
    """Quantities learned from snapshots that LocalRelax healed for some time, and their own.

    results: duration -> (moments of the snapshots, learned Estimates).
    """
    figure, axes = panels(len(references), width=3.6, height=3.0)
    durations = list(results)
    for panel, (name, reference) in zip(axes, references.items(), strict=True):
        panel.axhline(reference.value, color=REFERENCE, ls="--", lw=1.3, label="cluster updates")
        own = [snapshots[name] for snapshots, _ in results.values()]
        panel.plot(durations, own, color=MUTED, marker="s", ms=4, lw=1, label="the snapshots")
        learned = [estimates[name] for _, estimates in results.values()]
        errors = [2 * estimate.standard_error for estimate in learned]
        panel.errorbar(durations, [estimate.value for estimate in learned], yerr=errors, color=OURS,
                       marker="o", ms=4, capsize=2, label="learned ± 2 s.e.")  # fmt: skip
        panel.set_xscale("symlog", linthresh=1)
        label(panel, "LocalRelax per tile (flips per spin)", name, legend=panel is axes[0])
    return figure


def critical_scaling(
    ours: Any,
    direct: Any,
    levels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    exponents: Mapping[str, Any],
    critical_temperature: float,
) -> Figure:
    """The paper's figure 5: |M| and X against L, U against T, its slope against L.

    ours, direct: ``FiniteSizeData``.  levels: "ours", "direct" -> ``levels_and_slopes``.
    exponents: of ours, by name.
    """
    figure, axes = panels(4, width=3.5, height=3.2)
    titles = {
        "beta_over_nu": ("β/ν", lambda line: np.exp(line[:, 0]), "⟨|M|⟩ at Tc"),
        "gamma_over_nu": ("γ/ν", lambda line: np.exp(line[:, 0]), "susceptibility at Tc"),
        "nu": ("ν", lambda line: line[:, 0], "|dU/dT| at Tc"),
    }
    for panel, column, (key, (symbol, shown, name)) in zip(
        (axes[0], axes[1], axes[3]), range(3), titles.items(), strict=True
    ):
        for which, color, marker in (("direct", REFERENCE, "x"), ("ours", OURS, "o")):
            line = levels[which][column]
            error = line[:, 1] * (shown(line) if column < 2 else 1)
            sizes = (ours if which == "ours" else direct).sizes
            panel.errorbar(sizes, shown(line), yerr=2 * error, color=color, marker=marker, ms=5,
                           ls="", capsize=2,
                           label="learned" if which == "ours" else "cluster updates")  # fmt: skip
        line = levels["ours"][column]
        value = exponents[key].value
        power = {"beta_over_nu": -value, "gamma_over_nu": value, "nu": 1 / value}[key]
        sizes = ours.sizes.astype(float)
        middle = np.average(np.log(shown(line)) - power * np.log(sizes))
        panel.plot(sizes, np.exp(middle) * sizes**power, color=OURS, lw=1)
        panel.set(xscale="log", yscale="log")
        panel.set_xticks(sizes, [f"{size:g}" for size in sizes])
        panel.minorticks_off()
        low, high = panel.get_ylim()
        steps = range(1, 10) if high < 3 * low else (1, 2, 5)  # else there would be hardly a tick
        panel.yaxis.set_major_locator(LogLocator(subs=steps))
        panel.yaxis.set_major_formatter("{x:g}")
        label(panel, "L", name, f"{symbol} = {exponents[key]}", legend=panel is axes[0])
    _size_lines(axes[2], ours, direct, "binder", lambda size, t: t, lambda size, y: y)
    axes[2].axvline(critical_temperature, color=MUTED, ls="--", lw=1)
    label(axes[2], "T", "Binder cumulant U", "Lines: cluster updates; points: learned")
    return figure


def data_collapse(
    ours: Any, direct: Any, critical_temperature: float, beta_over_nu: float, gamma_over_nu: float
) -> Figure:
    """The paper's figure 6: |M| and X against T, and scaled with exact exponents (nu = 1)."""
    figure, axes = panels(4, width=3.5, height=3.2)

    def scaled(size: float, t: np.ndarray) -> np.ndarray:
        return (t - critical_temperature) * size

    for index, (name, power, text) in enumerate((
        ("abs_magnetization", beta_over_nu, ("⟨|M|⟩", "⟨|M|⟩ L^(β/ν)")),
        ("susceptibility", -gamma_over_nu, ("susceptibility X", "X L^(-γ/ν)")),
    )):  # fmt: skip
        raw, collapsed = axes[2 * index : 2 * index + 2]
        _size_lines(raw, ours, direct, name, lambda size, t: t, lambda size, y: y)
        label(raw, "T", text[0], "", legend=index == 0)
        _size_lines(
            collapsed, ours, direct, name, scaled, lambda size, y, power=power: y * size**power
        )
        label(collapsed, "(T − Tc) L", text[1], "Collapse with exact exponents", legend=False)
    axes[2].set_yscale("log")
    return figure


def _size_lines(panel: Axes, ours: Any, direct: Any, name: str, x: Any, y: Any) -> None:
    """A quantity over temperature for each size: points with two standard errors, and lines."""
    for data, learned in ((direct, False), (ours, True)):
        for row, size in enumerate(data.sizes):
            color, marker = SIZES.get(int(size), (MUTED, "."))
            values, errors = y(size, getattr(data, name)[row]), y(size, data.errors[name][row])
            at = x(size, data.temperatures)
            if learned:
                panel.errorbar(at, values, yerr=2 * errors, color=color, marker=marker, ms=4, ls="",
                               capsize=2, label=f"L = {size}")  # fmt: skip
            else:
                panel.plot(at, values, color=color, lw=1)


def relaxation_against_size(
    relaxation: Mapping[int, tuple[Any, Any]], *, title: str = ""
) -> Figure:
    """Relaxation time of |M| against L, learned and direct; guides of slope 7/4 and 13/6."""
    figure, (panel,) = panels(1)
    sizes = np.array(list(relaxation), dtype=np.float64)
    for column, color, marker, name in ((1, REFERENCE, "x", "direct"), (0, OURS, "o", "learned")):
        pairs = [estimates[column] for estimates in relaxation.values()]
        values = np.array([pair.value for pair in pairs])
        errors = [2 * (pair.standard_error or 0) for pair in pairs]
        panel.errorbar(sizes, values, yerr=errors, color=color, marker=marker, ms=5, ls="",
                       capsize=2, label=name)  # fmt: skip
        power, text = (7 / 4, "L^(7/4)") if column == 0 else (13 / 6, "L^(13/6)")
        panel.plot(sizes, values[0] * (sizes / sizes[0]) ** power, color=color, lw=1, ls=":",
                   label=text)  # fmt: skip
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(sizes, [f"{size:g}" for size in sizes])
    panel.minorticks_off()
    label(panel, "L", "relaxation time of |M| (flips per spin)", title)
    return figure


PAIR_COLORS = ("#0072B2", "#56B4E9", "#009E73", "#D55E00", "#E69F00", "#CC79A7")


def order_against_temperature(
    panels_of: Mapping[str, Mapping[str, Any]], *, pairs: Sequence[str], titles: Sequence[str]
) -> Figure:
    """Short-range order of six pairs against temperature, one panel for each set of curves.

    panels_of: panel -> curves: name -> (temperatures (T,), order (T, 6), standard errors or None).
    A curve called "direct ..." is drawn as markers, "published" dotted, others as lines.
    """
    figure, axes = panels(len(panels_of), width=5.0, height=4.2)
    for panel, curves, title in zip(axes, panels_of.values(), titles, strict=True):
        for name, (temperatures, order, error) in curves.items():
            marked = name.startswith("direct")
            style = ":" if name == "published" else ("" if marked else "-")
            for k, color in enumerate(PAIR_COLORS):
                panel.errorbar(
                    temperatures, order[:, k], yerr=None if error is None else 2 * error[:, k],
                    color=color, ls=style, marker="o" if marked else "", ms=4, lw=1.3, capsize=2,
                )  # fmt: skip
            panel.plot([], [], color=MUTED, ls=style, marker="o" if marked else "", label=name)
        for pair, color in zip(pairs, PAIR_COLORS, strict=True):
            panel.plot([], [], color=color, lw=4, label=pair)
        panel.axhline(0, color=MUTED, lw=0.6)
        label(panel, "temperature (K)", "short-range order δ", title, legend=False)
    axes[-1].legend(frameon=False, fontsize=7, ncols=2, loc="upper right")
    return figure


def relaxation_curves(
    times: np.ndarray,
    sizes: Mapping[str, tuple[Any, Any]],
    *,
    observable: str,
    title: str,
) -> Figure:
    """Mean and band of one standard deviation, learned beside direct, a panel for each size.

    sizes: title -> ((mean, std) learned, (mean, std) direct), each (T,).
    """
    figure, axes = panels(len(sizes), width=3.2, height=3.0)
    for panel, (name, (learned, direct)) in zip(axes, sizes.items(), strict=True):
        band(panel, times, *learned, color=OURS, label="learned")
        band(panel, times, *direct, color=REFERENCE, label="direct", dashed=True)
        panel.sharey(axes[0])
        label(panel, "time (s)", observable, name, legend=panel is axes[0])
    figure.suptitle(title, fontsize=9)
    return figure


def lag_times(
    hops: Sequence[float],
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    diffusion: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    chosen: float,
    title: str,
) -> Figure:
    """Learned over direct relaxation time, and learned diffusion, against the lag in hops.

    curves, diffusion: boundary -> (values (H,), standard errors (H,)).
    """
    figure, axes = panels(2, width=4.6)
    for panel, values in zip(axes, (curves, diffusion), strict=True):
        for (name, (value, error)), color in zip(
            values.items(), (OURS, NAIVE, SMALL), strict=False
        ):
            panel.errorbar(hops, value, yerr=2 * error, color=color, marker="o", ms=4, lw=1.2,
                           capsize=2, label=name)  # fmt: skip
        panel.set_xscale("log")
        panel.set_xticks(hops, [f"{count:g}" for count in hops])
        panel.minorticks_off()
        panel.axvline(chosen, color=MUTED, lw=1, ls=":", label="chosen")
    axes[0].axhline(1, color=MUTED, lw=1)
    label(axes[0], "duration δt (hops of a vacancy)", "relaxation time, learned / direct", title)
    label(axes[1], "duration δt (hops of a vacancy)", "n Σ(MoMo) (1/hop)", legend=False)
    return figure


def alloy_views(states: Mapping[str, np.ndarray], positions: np.ndarray) -> Figure:
    """Where the Mo atoms of each configuration are, coloured by sublattice: one colour is order.

    states: title -> (cells, cells, cells, 2) species codes.  positions: (sites, 3), Angstrom.
    """
    figure = plt.figure(figsize=(4.6 * len(states), 4.4), layout="constrained")
    plt.close(figure)
    for index, (name, state) in enumerate(states.items()):
        panel: Any = figure.add_subplot(1, len(states), index + 1, projection="3d")
        molybdenum = state.ravel() == 2
        for sublattice, color in ((0, OURS), (1, NAIVE)):
            chosen = molybdenum & (np.arange(state.size) % 2 == sublattice)
            where = ("Mo on corners", "Mo on centres")[sublattice]
            panel.scatter(*positions[chosen].T, s=16, color=color, label=where, linewidths=0)
        panel.set_title(name, fontsize=9, loc="left")
        panel.set(xlabel="x (Å)", ylabel="y (Å)", zlabel="z (Å)")
        panel.set_box_aspect(None, zoom=0.85)  # else the label of z is cut off
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def potentials(
    grids: tuple[np.ndarray, np.ndarray],
    surfaces: Mapping[str, np.ndarray],
    minima: Mapping[str, tuple[float, float]],
    *,
    axes_names: tuple[str, str],
) -> Figure:
    """Contours of a potential above its minimum, a panel for each temperature, in equal colours.

    grids: (X,), (Y,).  surfaces: title -> (Y, X).  minima: title -> direct mean, marked.
    """
    figure, axes = panels(len(surfaces), width=3.6, height=3.2)
    above = {name: surface - surface.min() for name, surface in surfaces.items()}
    levels = np.geomspace(1, max(10.0, *(part.max() for part in above.values())), 13)
    for panel, (name, part) in zip(axes, above.items(), strict=True):
        drawn = panel.contourf(
            *grids, np.maximum(part, 1), levels=levels, cmap="cividis", norm=LogNorm()
        )
        panel.plot(*minima[name], marker="x", color=NAIVE, ls="", label="direct equilibrium")
        label(panel, f"δ {axes_names[0]}", f"δ {axes_names[1]}", name, legend=False)
    axes[0].legend(fontsize=8, facecolor="white", framealpha=0.9)
    bar = figure.colorbar(drawn, ax=axes, label="V above its minimum, at least 1")
    bar.set_ticks([10.0**k for k in range(int(np.log10(levels[-1])) + 1)])
    return figure
