"""The ``macrodyn`` command: parse arguments, call the library, print, set the exit code.

The library is imported inside the commands, so that ``--help`` is quick.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from macrodyn_lib.sweeps import RunSpec

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Definition = Annotated[str, typer.Argument(help="A YAML file, or the name of one, as NAME.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Local processes [default: one per processor].")
]
Scheduler = Annotated[
    str | None, typer.Option(help="Use this Dask cluster instead, as tcp://HOST:PORT.")
]


@app.callback()
def main() -> None:
    """Run the studies, sweep their parameters, and report the results."""


@app.command()
def sweep(
    definition: Definition,
    workers: Workers = None,
    scheduler: Scheduler = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs, start none.")] = False,
) -> None:
    """Run every combination of a sweep that is not finished, then write the report."""
    with _exit_codes():
        from macrodyn_lib import sweeps

        read = sweeps.SweepDefinition.read(sweeps.find_definition(definition))
        specs = read.expand()
        if dry_run:
            typer.echo(read.status().to_string(index=False))
        else:
            _execute_and_report(specs, workers, scheduler)


@app.command()
def status(definition: Definition) -> None:
    """Show which runs of a sweep are done, failed or missing."""
    with _exit_codes():
        from macrodyn_lib import sweeps

        read = sweeps.SweepDefinition.read(sweeps.find_definition(definition))
        typer.echo(read.status().to_string(index=False))
        for spec in read.expand():
            if spec.state() == "failed":
                _echo_failure(spec, spec.failure())


@app.command()
def report() -> None:
    """Write report.md and report.html from the results at hand."""
    with _exit_codes():
        _write_report()


@app.command()
def study(
    preset: Annotated[str, typer.Option(help="Effort: smoke, quick or paper.")] = "quick",
    workers: Workers = None,
) -> None:
    """Run every notebook with its default parameters, then write the report."""
    with _exit_codes():
        from macrodyn_lib import sweeps

        _execute_and_report(sweeps.study_runs(preset), workers, None)


def _execute_and_report(
    specs: Sequence["RunSpec"], workers: int | None, scheduler: str | None
) -> None:
    from macrodyn_lib import sweeps
    from macrodyn_lib.parallel import thread_count

    outcome = sweeps.execute(specs, workers or thread_count(), scheduler)
    counts = f"{len(outcome.done)} done, {len(outcome.failed)} failed"
    typer.echo(f"runs: {counts}, {len(outcome.skipped)} finished already")
    for spec, reason in outcome.failed:
        _echo_failure(spec, reason)
    _write_report()
    if outcome.failed:
        raise typer.Exit(FAILED)


def _echo_failure(spec: "RunSpec", reason: str) -> None:
    typer.echo(f"failed: {spec.notebook} {spec.run_id}: {reason}", err=True)
    typer.echo(f"        {spec.failed_folder}", err=True)


def _write_report() -> None:
    from macrodyn_lib.report import write_report

    path = write_report()
    typer.echo(f"report: {path} and {path.with_suffix('.html').name}")


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted: finished runs stay, the same command does the rest", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except ValueError as error:
        from macrodyn_lib.errors import ParameterError

        if not isinstance(error, ParameterError):
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(WRONG_INPUT) from None


if __name__ == "__main__":
    app()
