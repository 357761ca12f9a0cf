"""The ``macrodyn`` command: parse arguments, call the library, print, set the exit code.

The library is imported inside the commands, so that ``--help`` is quick.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from macrodyn_lib.sweeps import RunSpec

FAILED, WRONG_INPUT, AGREES = 1, 2, 3
INTERRUPTED, TERMINATED = 130, 143  # as shells report SIGINT and SIGTERM

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Definition = Annotated[str, typer.Argument(help="A YAML file, or the name of one, as NAME.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Local processes [default: one per processor].")
]
Scheduler = Annotated[
    str | None, typer.Option(help="Use this Dask cluster instead, as tcp://HOST:PORT.")
]

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List the runs and what they will cost, start none.")
]
MixVersions = Annotated[
    bool,
    typer.Option("--mix-versions", help="Put runs of a sweep made by different code in one table."),
]


@app.callback()
def main() -> None:
    """Run the studies, sweep their parameters, and report the results."""


@app.command()
def sweep(
    definition: Definition,
    workers: Workers = None,
    scheduler: Scheduler = None,
    dry_run: DryRun = False,
) -> None:
    """Run every combination of a sweep that is not finished, then write the report."""
    with _exit_codes():
        from macrodyn_lib import sweeps

        read = sweeps.SweepDefinition.read(sweeps.find_definition(definition))
        if dry_run:
            _echo_plan(read.expand(), read.varying(), workers)
        else:
            _execute_and_report([read.expand()], workers, scheduler)


@app.command()
def status(definition: Definition) -> None:
    """Show which runs of a sweep are done, running, failed or missing."""
    with _exit_codes():
        from macrodyn_lib import sweeps

        read = sweeps.SweepDefinition.read(sweeps.find_definition(definition))
        specs = read.expand()
        typer.echo(sweeps.status_table(specs, read.varying()).to_string(index=False))
        for spec in specs:
            if spec.state() == "failed":
                _echo_failure(spec, spec.failure())


@app.command()
def report(mix_versions: MixVersions = False) -> None:
    """Write report.md and report.html from the results at hand."""
    with _exit_codes():
        _write_report(mix_versions)


@app.command()
def study(
    preset: Annotated[str, typer.Option(help="Effort: smoke, quick or paper.")] = "quick",
    workers: Workers = None,
    dry_run: DryRun = False,
) -> None:
    """Run every notebook with its default parameters, then write the report."""
    with _exit_codes():
        from macrodyn_lib import sweeps

        specs = sweeps.study_runs(preset)
        if dry_run:
            _echo_plan(specs, ["preset"], workers)
        else:
            # what collects the others comes last, and whether they fail or not
            others = [spec for spec in specs if not spec.collects]
            collecting = [spec for spec in specs if spec.collects]
            _execute_and_report([others, collecting], workers, None)


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="Id of a finished run, or STUDY/ID.")],
) -> None:
    """Repeat a finished run beside it and compare each metric.

    Ends with 0 when every bit is the same, 3 when all agree within their standard errors, else 1.
    """
    with _exit_codes():
        from macrodyn_lib import reproduction

        result = reproduction.reproduce(run)
        typer.echo("\n".join(result.describe()))
        if result.failure is not None or result.verdict == "different":
            raise typer.Exit(FAILED)
        if result.verdict == "agrees":
            raise typer.Exit(AGREES)


def _echo_plan(specs: Sequence["RunSpec"], varying: Sequence[str], workers: int | None) -> None:
    from macrodyn_lib import sweeps
    from macrodyn_lib.parallel import thread_count

    typer.echo(sweeps.status_table(specs, varying).to_string(index=False))
    typer.echo("\n".join(sweeps.describe_cost(specs, workers or thread_count())))


def _execute_and_report(
    parts: Sequence[Sequence["RunSpec"]], workers: int | None, scheduler: str | None
) -> None:
    """One part after the other, then the report; ends with a failure if any run failed."""
    from macrodyn_lib import execution
    from macrodyn_lib.parallel import thread_count

    outcomes = [execution.execute(part, workers or thread_count(), scheduler) for part in parts]
    done = sum(len(outcome.done) for outcome in outcomes)
    skipped = sum(len(outcome.skipped) for outcome in outcomes)
    failed = [failure for outcome in outcomes for failure in outcome.failed]
    typer.echo(f"runs: {done} done, {len(failed)} failed, {skipped} finished already")
    for spec, reason in failed:
        _echo_failure(spec, reason)
    _write_report(mix_versions=False)
    if failed:
        raise typer.Exit(FAILED)


def _echo_failure(spec: "RunSpec", reason: str) -> None:
    typer.echo(f"failed: {spec.notebook} {spec.run_id}: {reason}", err=True)
    typer.echo(f"        {spec.failed_folder}", err=True)


def _write_report(mix_versions: bool) -> None:
    from macrodyn_lib.report import write_report

    path = write_report(mix_versions)
    typer.echo(f"report: {path} and {path.with_suffix('.html').name}")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems send it before they kill: to be treated as an interrupt."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo("interrupted: finished runs stay, the same command does the rest", err=True)
        code = TERMINATED if isinstance(interrupt, _Terminated) else INTERRUPTED
        raise typer.Exit(code) from None
    except OSError as error:  # such as a full disk
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
    except ValueError as error:
        from macrodyn_lib.errors import ParameterError

        if not isinstance(error, ParameterError):
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(WRONG_INPUT) from None


if __name__ == "__main__":
    app()
