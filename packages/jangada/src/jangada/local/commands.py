"""`jangada up`: the whole platform on this machine, with one command."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from jangada.config import load_settings
from jangada.local.output import JsonOutput, TerminalOutput
from jangada.local.platforms import Options, WorkerRange
from jangada.local.up import run
from jangada.worker_settings import WorkerSettings


def register(app: typer.Typer) -> None:
    app.command("up")(up)


def up(
    *,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the API; 0 takes free ones. Default: JANGADA_API__PORT."
        ),
    ] = None,
    management_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of health and metrics; follows --port 0."),
    ] = None,
    workers: Annotated[
        WorkerRange | None,
        typer.Option(
            parser=WorkerRange.parse,
            metavar="N|MIN..MAX",
            help="Worker processes: so many, or as many as let jobs start in time. Default: what "
            "JANGADA_WORKER__PROCESSES and …MIN_PROCESSES say, else 0..4.",
        ),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Where the data lies between runs.", file_okay=False)
    ] = Path(".jangada"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the data of earlier runs first.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, for scripts.")
    ] = False,
) -> None:
    """Run the whole platform on this machine: servers, API, dispatcher and workers.

    JANGADA_DATABASE__URL and JANGADA_VALKEY__URL name servers of your own;
    PostgreSQL and Valkey are embedded otherwise.

    Ctrl-C stops everything in order; a second one does not wait for jobs.
    """
    settings = load_settings()
    taken = settings.api.port if port is None else port
    follows = 0 if port == 0 else settings.api.management_port
    options = Options(
        data_dir=data_dir,
        port=taken,
        management_port=follows if management_port is None else management_port,
        workers=workers or _configured(settings.worker),
        fresh=fresh,
    )
    output = JsonOutput() if as_json else TerminalOutput()
    raise typer.Exit(asyncio.run(run(options, settings, output)))


def _configured(worker: WorkerSettings) -> WorkerRange:
    if worker.model_fields_set & {"processes", "min_processes"}:
        return WorkerRange(worker.min_processes, worker.processes)
    return WorkerRange(0, 4)
