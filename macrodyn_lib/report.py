"""Collect the results of all runs in one readable report, as Markdown and as one HTML file."""

import base64
import itertools
import json
import logging
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import jinja2
from markdown_it import MarkdownIt

from macrodyn_lib.errors import ParameterError
from macrodyn_lib.parameters import NOTEBOOKS, Preset, resolve
from macrodyn_lib.provenance import commit_of, version_of
from macrodyn_lib.published import FIGURES, NUMBERS, PublishedFigure, PublishedNumber
from macrodyn_lib.study import Metric, Results, runs_root, write_atomically
from macrodyn_lib.sweeps import RunSpec, StoredRun, SweepDefinition, definitions, stored_runs

log = logging.getLogger(__name__)

TITLE = "Results of macrodyn"
HOW_TO_READ = """\
Each number stands as value ± standard error. *Reference* is what it is compared with, and *kind*
says where that comes from: an *exact* formula, a direct *simulation* of the large system, or a
*published* number. The verdict is PASS when the criterion, which stands in the notebook, holds;
*PASS, in noise* when it holds only thanks to its allowance for standard errors: the goal itself is
missed, or not resolved."""
MET = """\
*Met*: ours is no farther from the truth than the published number (for test errors: not larger), or
*met, in noise*: it is within two standard errors of the truth, which the published number, given
without an error, happens to be nearer to. The truth is that of our metric, exact or by direct
simulation; its error counts where several runs of a sweep have simulated it. *Met* does not say
that the published number is reproduced. Of the baseline (λ = 1) numbers stand without a verdict: at
our short δt it is worse than at the published one. Not in the table: short-range order by system
size (it breaks the sum rule at the two largest, see `08_nbmota`), slopes of the Binder cumulant,
and what was only read off figures."""
NOTHING = "No results yet. `make study` runs every notebook and writes them here."
PRESETS: tuple[str, ...] = get_args(Preset)


def write_report(mix_versions: bool = False) -> Path:
    """Write ``report.md`` and ``report.html`` into the folder of all results.

    Runs of a sweep that different code made stand in tables of their own, and a warning says so,
    unless ``mix_versions`` asks for one table; studies name the code of theirs.

    Returns: the path of ``report.md``. What could not be read is listed in it, and logged.
    """
    root = runs_root()
    root.mkdir(parents=True, exist_ok=True)
    text, warnings = compose(mix_versions)
    for warning in warnings:
        log.warning("%s", warning)
    write_atomically(root / "report.md", text)
    write_atomically(root / "report.html", render_html(text))
    return root / "report.md"


def compose(mix_versions: bool = False) -> tuple[str, list[str]]:
    """The report as Markdown, figures linked relative to its folder; and the warnings in it."""
    runs, warnings = stored_runs()
    warnings += [text for run in runs for text in _replaced(run)]
    by_folder = _by_folder(runs)
    studies = {name: found for name, found in by_folder.items() if name in NOTEBOOKS}
    sections = [f"# {TITLE}", HOW_TO_READ if runs else NOTHING, *_overview(studies)]
    if runs:
        sections += ["## Published numbers beside ours", MET, _published_table(by_folder)]
        sections += ["## Figures of the paper beside ours", _figures_text(studies)]
    sections += _mixed_commits(runs)
    for name, found in studies.items():
        sections += _study_section(name, found)
    sweeps = [name for name in sorted(definitions()) if (runs_root() / name).is_dir()]
    for name in sweeps:
        try:
            added, mixed = _sweep_section(name, by_folder[name], mix_versions)
        except ParameterError as error:
            warnings.append(str(error))
        else:
            sections += added
            warnings += mixed
    for name in sorted(set(by_folder) - set(studies) - set(sweeps)):
        warnings.append(f"{name}: results without a notebook or a sweep definition of that name")
    if warnings:
        sections += ["## Warnings", "\n".join(f"- {warning}" for warning in warnings)]
    return "\n\n".join(sections) + "\n", warnings


def _replaced(run: StoredRun) -> list[str]:
    """What took the place of which parameters."""
    return [
        f"{run.folder.parent.name}/{run.folder.name}: its {name} is not "
        f"{run.results.parameters[name]!r} but {value!r}; without the folder it is run again"
        for name, value in run.results.provenance.get("instead", {}).items()
    ]


def published_table() -> str:
    """Every published number beside ours, as Markdown."""
    return _published_table(_by_folder(stored_runs()[0]))


def sweep_means(name: str) -> dict[str, Metric]:
    """Each metric of a sweep over seeds: its mean over the runs that are stored (``_replicas``)."""
    runs = _replicas(_by_folder(stored_runs()[0]).get(name, []))
    of_all = set.intersection(*(set(results.metrics) for results in runs)) if runs else set()
    return {metric: _mean(_found(runs, metric)) for metric in sorted(of_all)}


def paper_figures() -> list[tuple[str, list[Path]]]:
    """What each figure of the paper shows, in words, and our stored figures of the same."""
    return _paper_figures(_by_folder(stored_runs()[0]))


def overview_table() -> str:
    """One row per study with its verdicts, as Markdown."""
    by_folder = _by_folder(stored_runs()[0])
    studies = {name: found for name, found in by_folder.items() if name in NOTEBOOKS}
    return "\n\n".join(_overview(studies)[1:]) or NOTHING


def _by_folder(runs: Iterable[StoredRun]) -> dict[str, list[StoredRun]]:
    """Runs of each study and of each sweep."""
    by_folder: dict[str, list[StoredRun]] = defaultdict(list)
    for run in runs:
        by_folder[run.folder.parent.name].append(run)
    return by_folder


def _published_table(by_folder: dict[str, list[StoredRun]]) -> str:
    header = ["study", "quantity", "where", "published", "ours", "truth", "verdict"]
    rows = [_published_row(number, by_folder.get(number.study, [])) for number in NUMBERS]
    return _table(header, rows, numbers=["published", "ours", "truth"])


def _published_row(number: PublishedNumber, runs: Sequence[StoredRun]) -> list[str]:
    cells = [f"`{number.study}`", number.what, number.where, f"{number.value:.4g}"]
    of_study = runs and number.study in NOTEBOOKS
    counted = [_representative(runs).results] if of_study else _replicas(runs)
    found = _found(counted, number.metric)
    if not found:
        return [*cells, "", "", "not run"]
    metric = _mean(found)
    ours = format_value(metric.value, metric.standard_error)
    if number.goal == "small":
        return [*cells, ours, "0", "met" if metric.value <= number.value else "**missed**"]
    if number.goal == "none":
        return [*cells, ours, "", ""]
    if metric.reference is None:
        return [*cells, ours, "", "no reference"]
    references = [one.reference for one in found if one.reference is not None]
    distance = abs(metric.value - metric.reference)
    if distance <= abs(number.value - metric.reference):
        verdict = "met"
    elif distance <= 2 * math.hypot(metric.standard_error or 0, _between(references)):
        verdict = "met, in noise"
    else:
        verdict = "**missed**"
    return [*cells, ours, format_reference(metric), verdict]


def _replicas(runs: Sequence[StoredRun]) -> list[Results]:
    """Of a sweep over seeds the newest run, and all that differ from it in nothing but the seed:
    neither in another parameter, nor in code or data. Runs of something else than what was asked
    for (``Run.instead``) are left out."""

    def kind(results: Results) -> tuple[object, ...]:
        parameters = {k: v for k, v in results.parameters.items() if k != "seed"}
        return parameters, version_of(results.provenance), results.provenance.get("data")

    every = [run.results for run in runs if "instead" not in run.results.provenance]
    newest = max(every, key=_created, default=None)
    return [results for results in every if newest and kind(results) == kind(newest)]


def _found(runs: Iterable[Results], name: str) -> list[Metric]:
    """The metric of that name in each of the runs that have it."""
    return [results.metrics[name] for results in runs if name in results.metrics]


def _paper_figures(studies: dict[str, list[StoredRun]]) -> list[tuple[str, list[Path]]]:
    return [_paper_figure(figure, studies.get(figure.notebook, [])) for figure in FIGURES]


def _paper_figure(figure: PublishedFigure, runs: Sequence[StoredRun]) -> tuple[str, list[Path]]:
    text = f"**Figure {figure.number}.** {figure.shows} Ours: `{figure.notebook}`"
    stored = _representative(runs).folder / "figures" if runs else None
    paths = [stored / f"{name}.png" for name in figure.figures] if stored else []
    found = [path for path in paths if path.is_file()]
    return text + (", " if found else ", not stored."), found


def _figures_text(studies: dict[str, list[StoredRun]]) -> str:
    lines = []
    for text, paths in _paper_figures(studies):
        links = [
            f"[{path.stem.replace('_', ' ')}](<{path.relative_to(runs_root()).as_posix()}>)"
            for path in paths
        ]
        lines.append(text + ", ".join(links) + ("." if links else ""))
    return "\n\n".join(lines)


def render_html(text: str) -> str:
    """The Markdown text as one self-contained page: figures are embedded."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("table_open", lambda *_: '<div class="table"><table>\n')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = markdown.parse(text)
    for token in (child for block in tokens for child in block.children or []):
        if token.type == "image":
            token.attrs["src"] = _data_uri(runs_root() / unquote(str(token.attrs["src"])))
    body = markdown.renderer.render(tokens, markdown.options, {})
    templates = jinja2.Environment(loader=jinja2.PackageLoader("macrodyn_lib"))
    page = templates.get_template("report.html.j2").render(title=TITLE, body=body)
    return page + "\n"


def format_value(value: float, standard_error: float | None) -> str:
    """``-0.1002 ± 0.0006``: two digits of the error, and the value to the same place."""
    if standard_error is None:
        return f"{value:.4g}"
    place = _decimals(standard_error)
    if place is None:
        return f"{value:.4g} ± {standard_error:.2g}"
    return f"{value:.{place}f} ± {standard_error:.{place}f}"


def format_reference(metric: Metric) -> str:
    """The reference, to the place of the value beside it."""
    if metric.reference is None:
        return ""
    place = None if metric.standard_error is None else _decimals(metric.standard_error)
    return f"{metric.reference:.4g}" if place is None else f"{metric.reference:.{place}f}"


def _decimals(standard_error: float) -> int | None:
    """Decimal places that show two digits of the error; None when that is no readable number."""
    if not (math.isfinite(standard_error) and standard_error > 0):
        return None
    place = max(0, 1 - math.floor(math.log10(standard_error)))
    return place if place <= 6 and standard_error < 1e6 else None


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str]) -> str:
    rules = ["---:" if name in numbers else "---" for name in header]
    lines = [header, rules, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _representative(runs: Sequence[StoredRun]) -> StoredRun:
    """The run a notebook's section shows: default parameters first, then the largest preset."""
    return max(runs, key=_rank)


def _rank(run: StoredRun) -> tuple[bool, int, str]:
    preset = run.results.parameters.get("preset")
    size = PRESETS.index(preset) if preset in PRESETS else -1
    return not _changed(run.results), size, _created(run.results)


def _created(results: Results) -> str:
    return str(results.provenance.get("created", ""))


def _changed(results: Results) -> dict[str, Any]:
    """The parameters that are not those of the preset."""
    try:
        default = resolve(results.notebook, {"preset": results.parameters.get("preset")})
    except ParameterError:
        return results.parameters
    values = default.resolved()
    return {k: v for k, v in results.parameters.items() if k not in values or values[k] != v}


def _overview(studies: dict[str, list[StoredRun]]) -> list[str]:
    if not studies:
        return []
    rows = [
        [
            f"`{name}`",
            str(run.results.parameters.get("preset", "")),
            _passed([run.results]),
            f"{_seconds(run.results):.0f}",
            commit_of(run.results.provenance),
        ]
        for name, found in studies.items()
        for run in sorted(found, key=_rank, reverse=True)
        if run is _representative(found) or not _changed(run.results)
    ]
    header = ["study", "preset", "passed", "seconds", "commit"]
    return ["## Overview", _table(header, rows, numbers=["passed", "seconds"])]


def _mixed_commits(runs: Sequence[StoredRun]) -> list[str]:
    counts = Counter(commit_of(run.results.provenance) for run in runs)
    if len(counts) < 2:
        return []
    listed = ", ".join(f"{commit} (runs: {count})" for commit, count in counts.most_common())
    return [f"**Results of different commits are mixed:** {listed}."]


def _study_section(name: str, stored: Sequence[StoredRun]) -> list[str]:
    run = _representative(stored)
    results = run.results
    changed = [f"{key} = {value}" for key, value in _changed(results).items()]
    shown = f"Preset {results.parameters.get('preset')}, {', '.join(changed) or 'its defaults'}."
    others = f" Other runs stored: {len(stored) - 1}." if len(stored) > 1 else ""
    table = _table(
        ["metric", "value", "reference", "kind", "criterion", "verdict"],
        [_metric_row(key, metric) for key, metric in results.metrics.items()],
        numbers=["value", "reference"],
    )
    return [f"## {name}", shown + others, table, *_figures(run.folder), _provenance(results)]


def _metric_row(name: str, metric: Metric) -> list[str]:
    return [
        f"`{name}`",
        format_value(metric.value, metric.standard_error),
        format_reference(metric),
        metric.reference_kind or "",
        metric.criterion.replace("<=", "≤"),
        _verdict(metric),
    ]


def _verdict(metric: Metric) -> str:
    if not metric.passed:
        return "**FAIL**"
    return "PASS, in noise" if metric.outright is False else "PASS"


def _figures(folder: Path) -> list[str]:
    paths = sorted((folder / "figures").glob("*.png"))
    captions = [path.stem.replace("_", " ") for path in paths]
    return [
        f"![{caption}](<{path.relative_to(runs_root()).as_posix()}>)\n\n*{caption}*"
        for path, caption in zip(paths, captions, strict=True)
    ]


def _provenance(results: Results) -> str:
    date = str(results.provenance.get("created", "unknown date"))[:10]
    seed = results.provenance.get("seed")
    return f"*{_made_by([results])}, {date}, seed {seed}, {_seconds(results):.1f} s.*"


def _made_by(results: Sequence[Results]) -> str:
    """Commits, and where they are known the hashes of library and notebook."""
    commits = ", ".join(sorted({commit_of(one.provenance) for one in results}))
    versions = {version_of(one.provenance) for one in results}
    hashes = sorted(version for version in versions if not version.startswith("commit"))
    return f"Commit {commits}" + (f" ({'; '.join(hashes)})" if hashes else "")


def _seconds(results: Results) -> float:
    return results.timings_s.get("total", 0.0)


def _passed(results: Sequence[Results]) -> str:
    verdicts = [metric.passed for one in results for metric in one.metrics.values()]
    return f"{sum(verdicts)} of {len(verdicts)}"


def _sweep_section(
    name: str, stored: Sequence[StoredRun], mix_versions: bool
) -> tuple[list[str], list[str]]:
    """The section, and a warning when different code made its runs.

    Raises: ParameterError: the definition does not hold any more.
    """
    definition = SweepDefinition.read(definitions()[name])
    specs = definition.expand()
    by_id = {run.folder.name: run.results for run in stored if not _replaced(run)}
    finished = [(spec, by_id[spec.run_id]) for spec in specs if spec.run_id in by_id]
    failed = [spec for spec in specs if spec.state() == "failed"]
    sections = [f"## Sweep {name}", _sweep_text(definition, len(finished), len(specs))]
    versions = _by_version(finished)
    warnings = []
    if len(versions) > 1:
        counts = "; ".join(f"{version} (runs: {len(runs)})" for version, runs in versions.items())
        together = "one table, as asked for" if mix_versions else "a table for each"
        warnings.append(f"sweep {name}: made by different code, {together}: {counts}")
    tables = [finished] if mix_versions and finished else list(versions.values())
    for runs in tables:
        sections.append(_sweep_table(definition, runs))
        sections.append(_sweep_provenance([results for _, results in runs]))
    if failed:
        sections.append("\n".join(f"- failed: `{s.run_id}` {_code(s.failure())}" for s in failed))
    return sections, warnings


def _by_version(
    finished: Sequence[tuple[RunSpec, Results]],
) -> dict[str, list[tuple[RunSpec, Results]]]:
    """Runs grouped by the code that made them, the newest code first."""
    versions: dict[str, list[tuple[RunSpec, Results]]] = defaultdict(list)
    for spec, results in sorted(finished, key=lambda run: _created(run[1]), reverse=True):
        versions[version_of(results.provenance)].append((spec, results))
    order = {spec.run_id: place for place, (spec, _) in enumerate(finished)}
    return {
        version: sorted(runs, key=lambda run: order[run[0].run_id])
        for version, runs in versions.items()
    }


def _sweep_text(definition: SweepDefinition, finished: int, planned: int) -> str:
    fixed = ", ".join(f"{key} = {value}" for key, value in definition.fixed.items())
    text = f"Notebook `{definition.notebook}`{', ' if fixed else ''}{fixed}: "
    text += f"{finished} of {planned} runs are finished."
    seeds = len(definition.all_seeds())
    if seeds > 1:
        text += (
            f" Each row is the mean over {seeds} seeds, with its standard error from"
            " within the runs, and in brackets that from the scatter between them."
        )
    return text


def _sweep_table(definition: SweepDefinition, finished: Sequence[tuple[RunSpec, Results]]) -> str:
    varying = [*definition.grid, *definition.zip]
    if not varying:
        return _seeds_table([results for _, results in finished], definition.report)
    replicas: dict[str, list[Results]] = defaultdict(list)
    values: dict[str, list[str]] = {}
    for spec, results in finished:
        key = json.dumps({k: v for k, v in spec.parameters.items() if k != "seed"})
        replicas[key].append(results)
        values[key] = [_plain(spec.parameters[name]) for name in varying]
    columns = [c for name in definition.report for c in (f"`{name}`", "reference")]
    rows = [
        [*values[key], str(len(group)), *_averaged_cells(group, definition.report), _passed(group)]
        for key, group in replicas.items()
    ]
    header = [*varying, "runs", *columns, "passed"]
    filled = [name != "reference" or any(row[i] for row in rows) for i, name in enumerate(header)]
    rows = [list(itertools.compress(row, filled)) for row in rows]
    header = list(itertools.compress(header, filled))
    return _table(header, rows, numbers=header)


def _seeds_table(runs: Sequence[Results], names: Sequence[str]) -> str:
    """A sweep over nothing but seeds: a row for each metric, and how far it is from its reference.

    The error of the difference is from the scatter of differences between runs: of both together.
    """
    rows = []
    for name in names:
        found = _found(runs, name)
        mean, reference = _average(found) if found else ("", "")
        differences = [m.value - m.reference for m in found if m.reference is not None]
        difference = (
            format_value(statistics.fmean(differences), _between(differences))
            if len(differences) > 1
            else ""
        )
        rows.append([f"`{name}`", str(len(found)), mean, reference, difference])
    header = ["metric", "runs", "mean", "reference", "difference"]
    return _table(header, rows, numbers=header[1:])


def _sweep_provenance(results: Sequence[Results]) -> str:
    seconds = sum(map(_seconds, results))
    return f"*{_made_by(results)}; {seconds:.0f} s in all runs, {_passed(results)} metrics passed.*"


def _averaged_cells(group: Sequence[Results], names: Sequence[str]) -> list[str]:
    """For each name the mean over replicas, and the mean reference."""
    cells = []
    for name in names:
        found = _found(group, name)
        cells += _average(found) if found else ["", ""]
    return cells


def _average(metrics: Sequence[Metric]) -> list[str]:
    mean, count = _mean(metrics), len(metrics)
    text = format_value(mean.value, mean.standard_error)
    if count > 1:
        between = _between([metric.value for metric in metrics])
        place = None if mean.standard_error is None else _decimals(mean.standard_error)
        text += f" ({between:.2g})" if place is None else f" ({between:.{place}f})"
    return [text, format_reference(mean)]


def _between(values: Sequence[float]) -> float:
    """Standard error of a mean over runs, from the scatter between them; 0 for a single run."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _mean(metrics: Sequence[Metric]) -> Metric:
    """Mean of one metric over runs, with its standard error from within the runs."""
    count = len(metrics)
    errors = [m.standard_error for m in metrics if m.standard_error is not None]
    references = [m.reference for m in metrics if m.reference is not None]
    return metrics[0].model_copy(
        update={
            "value": statistics.fmean(m.value for m in metrics),
            "standard_error": math.hypot(*errors) / count if len(errors) == count else None,
            "reference": statistics.fmean(references) if len(references) == count else None,
        }
    )


def _code(text: str) -> str:
    """Shown as it is, whatever signs of Markdown are in it."""
    return f"`{text.replace('`', chr(39))}`"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
