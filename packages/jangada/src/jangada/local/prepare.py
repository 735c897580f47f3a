"""What has to be in the database before the platform starts: its schema and the demo account.

A program of its own, run once by `jangada up`: the supervisor itself loads none of this. It writes
one JSON line to `JANGADA_READY_FD`: what it did, or why it could not.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from jangada.accounts.errors import EmailTaken
from jangada.accounts.runtime import open_accounts
from jangada.accounts.schemas import Client, Registration
from jangada.accounts.service.registration import register
from jangada.config import Settings, load_settings
from jangada.errors import JangadaError, Unavailable
from jangada.local.errors import DataUnusable
from jangada.migrations import run
from jangada.migrations.revisions import current, head
from jangada.runtime import open_runtime
from jangada.telemetry import configure_logging


def migrate(settings: Settings) -> None:
    """Bring the schema to this release. A newer one is refused: this code may not fit it."""
    revision = current(settings.database)
    if run.is_newer(revision):
        raise DataUnusable(
            f"The database is at revision {revision}, which a newer release made; this one knows "
            f"{head()}. Nothing was changed: use the newer release, or another folder."
        )
    run.upgrade(settings.database)


async def make_demo(settings: Settings, email: str, password: str) -> None:
    """Register the demo account, unless an earlier, killed run did."""
    registration = Registration(email=email, name="Demo", password=SecretStr(password))
    async with open_runtime(settings) as runtime, open_accounts(runtime) as accounts:
        try:
            await register(accounts, registration, Client())
        except EmailTaken:
            return


async def check(settings: Settings) -> None:
    """Refuse a role that row-level security would not hold for."""
    async with open_runtime(settings) as runtime:
        await runtime.database.check_role()


def prepare(demo: Path | None) -> dict[str, Any]:
    settings = load_settings()
    configure_logging(settings.telemetry, "jangada-up")
    asyncio.run(check(settings))
    migrate(settings)
    if demo is not None:
        sign_in = json.loads(demo.read_text(encoding="utf-8"))
        asyncio.run(make_demo(settings, sign_in["email"], sign_in["password"]))
    return {}


def main() -> None:
    try:
        said = prepare(Path(sys.argv[1]) if sys.argv[1:] else None)
    except JangadaError as error:
        said = {"error": error.detail, "is_temporary": isinstance(error, Unavailable)}
    with os.fdopen(int(os.environ["JANGADA_READY_FD"]), "w") as announcement:
        announcement.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
