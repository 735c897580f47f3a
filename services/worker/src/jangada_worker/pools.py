"""`jangada pools`: the pools of processes of this installation, as `kubectl get wp` has others."""

import asyncio
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from jangada.config import load_settings
from jangada_queue.client import QueueClient
from jangada_queue.connection import open_client
from jangada_queue.errors import QueueUnavailable
from jangada_queue.pools import PoolStatus, read_pools

EXIT_UNAVAILABLE: Final = 69  # EX_UNAVAILABLE of sysexits.h: trying again later may help
COLUMNS: Final = ("name", "replicas", "desired", "draining", "backlog", "busy", "why", "message")


def pools(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show how many worker processes there are, how many are wanted, and why."""
    url = load_settings().valkey.url.get_secret_value()
    try:
        found = asyncio.run(_read(url))
    except QueueUnavailable as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(EXIT_UNAVAILABLE) from error
    if as_json:
        for each in found:
            typer.echo(msgspec.json.encode(each).decode())
    elif found:
        Console().print(_table(found))
    else:
        typer.echo(
            "No pool: worker processes follow the queues with JANGADA_WORKER__MIN_PROCESSES."
        )


async def _read(url: str) -> list[PoolStatus]:
    async with open_client(url) as redis:
        return await read_pools(QueueClient(redis))


def _table(found: list[PoolStatus]) -> Table:
    table = Table(*COLUMNS, box=None, header_style="bold")
    for each in found:
        size = f"{each.replicas} of {each.least}..{each.most}"
        busy = f"{each.busy} of {each.slots}"
        figures = (size, str(each.desired), str(each.draining), str(each.backlog), busy)
        table.add_row(each.name, *figures, each.why, each.message)
    return table
