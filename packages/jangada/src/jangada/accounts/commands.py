"""The commands `jangada gen-secret` and `jangada keys`."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from jangada.accounts import keyring
from jangada.accounts.models import SigningKey
from jangada.runtime import Runtime, open_runtime
from jangada.starting import start

_SECRET_BYTES: Final = 64

keys = typer.Typer(no_args_is_help=True, help="The keys that sign access tokens.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def register(app: typer.Typer) -> None:
    """Entry point of the group `jangada.commands`."""
    app.command("gen-secret")(gen_secret)
    app.add_typer(keys, name="keys")


def gen_secret() -> None:
    """Print 64 bytes that nobody can guess, fit for JANGADA_AUTH__MASTER_KEY."""
    # Three random bytes are four printed characters, which need no quoting anywhere.
    typer.echo(secrets.token_urlsafe(_SECRET_BYTES * 3 // 4))


@keys.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """Show the published keys, newest first."""
    _show(_run(keyring.list_keys), as_json=as_json)


@keys.command("rotate")
def rotate(
    *,
    now: Annotated[
        bool, typer.Option("--now", help="Sign with the new key at once, not after 10 minutes.")
    ] = False,
    discard_old: Annotated[
        bool,
        typer.Option(
            "--discard-old",
            help="Delete the old keys: their access tokens die and clients refresh. For a key that "
            "leaked, or after replacing the master key.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a new key. Nobody is signed out: the old one stays until its tokens have expired."""

    async def make(runtime: Runtime) -> list[SigningKey]:
        ahead = keyring.AT_ONCE if now else keyring.PUBLISH_AHEAD
        return [await keyring.rotate(runtime, publish_ahead=ahead, discard_old=discard_old)]

    _show(_run(make), as_json=as_json)


def _run[T](work: Callable[[Runtime], Awaitable[T]]) -> T:
    async def run() -> T:
        service = "jangada-keys"
        async with open_runtime(start(service), application_name=service) as runtime:
            return await work(runtime)

    return asyncio.run(run())


def _show(rows: list[SigningKey], *, as_json: bool) -> None:
    values = [_values(row) for row in rows]
    if as_json:
        typer.echo(json.dumps(values))
        return
    table = Table("kid", "algorithm", "signs from", "published until")
    for row in values:
        table.add_row(row["kid"], row["algorithm"], row["signs_from"], row["expires_at"] or "")
    Console().print(table)


def _values(row: SigningKey) -> dict[str, str | None]:
    return {
        "kid": str(row.id),
        "algorithm": row.algorithm,
        "signs_from": row.signs_from.isoformat(),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
    }
