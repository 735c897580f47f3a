"""`jangada schedules`: what an operator sees and does, over all tenants."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from anyio import to_thread
from sqlalchemy import select

from jangada.config import Settings
from jangada.db import Database, new_id
from jangada.jobs.delivery.kinds import KindFacts
from jangada.jobs.delivery.workers import NewWorker, register
from jangada.jobs.models import Job
from jangada.testing import MASTER_KEY, Person, make_person

pytestmark = pytest.mark.anyio

type Schedules = Callable[..., Awaitable[Any]]


@pytest.fixture
async def known(database: Database) -> None:
    facts = [KindFacts("test.report", "reports", 20)]
    worker = NewWorker(new_id(), "pod", "host", 1, "0", ["default"], 4, facts)
    async with database.direct() as connection:
        await register(connection, worker)


@pytest.fixture
async def schedules(
    program: Callable[..., Any],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    known: None,
) -> Schedules:
    """`jangada schedules …` against the test's own database."""
    monkeypatch.setenv("JANGADA_DATABASE__URL", settings.database.url.get_secret_value())
    monkeypatch.setenv("JANGADA_VALKEY__URL", settings.valkey.url.get_secret_value())
    monkeypatch.setenv("JANGADA_AUTH__MASTER_KEY", MASTER_KEY)

    async def run(*arguments: str) -> Any:  # noqa: ANN401 - as the program's fixture has it
        return await to_thread.run_sync(program, "schedules", *arguments)

    return run


async def create(schedules: Schedules, tenant: UUID, *more: str) -> dict[str, Any]:
    given = ("tide", "0 8 * * 1-5", "--kind", "test.report", "--tenant", str(tenant))
    ended = await schedules("create", *given, "--json", *more)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


async def test_a_schedule_is_made_shown_and_deleted(schedules: Schedules, person: Person) -> None:
    made = await create(
        schedules,
        person.tenant_id,
        *("--args", '{"city": "[bold]Recife"}', "--timezone", "America/Sao_Paulo"),
    )
    assert (made["queue"], made["timezone"], made["misfire"]) == (
        "reports",
        "America/Sao_Paulo",
        "once",
    )
    shown = json.loads((await schedules("show", made["id"], "--json")).out)
    assert shown == made
    text = (await schedules("show", made["id"])).out
    assert 'args {"city":"[bold]Recife"}' in text
    assert (await schedules("delete", made["id"])).code == 0
    gone = await schedules("show", made["id"])
    assert (gone.code, gone.err.strip()) == (1, f"jangada: There is no schedule {made['id']}.")


async def test_schedules_of_every_tenant_are_listed(
    schedules: Schedules, database: Database
) -> None:
    tenants = [(await make_person(database, name)).tenant_id for name in ("One", "Other")]
    made = [await create(schedules, tenant) for tenant in tenants]
    await schedules("pause", made[0]["id"])
    heading, *lines = (await schedules("list")).out.splitlines()
    assert heading.split()[:3] == ["id", "name", "cron"]
    assert [line.split()[0] for line in lines] == [each["id"] for each in made[::-1]]
    assert "paused" in lines[1]
    for options, expected in (
        (["--tenant", str(tenants[0])], [made[0]["id"]]),
        (["--paused"], [made[0]["id"]]),
        (["--active"], [made[1]["id"]]),
        (["--kind", "test.other"], []),
    ):
        listed = (await schedules("list", "--json", *options)).out.splitlines()
        assert [json.loads(line)["id"] for line in listed] == expected


async def test_a_schedule_is_paused_resumed_and_run(
    schedules: Schedules, person: Person, database: Database
) -> None:
    made = await create(schedules, person.tenant_id, "--paused")
    assert made["paused_at"] is not None
    resumed = json.loads((await schedules("resume", made["id"], "--json")).out)
    assert resumed["paused_at"] is None
    assert "fires next at" in (await schedules("resume", made["id"])).out
    paused = await schedules("pause", made["id"])
    assert paused.out.strip() == f"Schedule {made['id']} is paused."
    ran = json.loads((await schedules("run", made["id"], "--json")).out)
    async with database.read(person.tenant_id) as session:
        jobs = list(await session.scalars(select(Job.id)))
    assert jobs == [UUID(ran["last_job_id"])]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tide", "61 * * * *", "--kind", "test.report"], "no meaning as cron"),
        (["tide", "@daily", "--kind", "test.unknown"], "cannot be scheduled"),
        (["tide", "@daily", "--kind", "test.report", "--args", "{"], "Invalid value"),
        (["tide", "@daily", "--kind", "test.report", "--args", "[]"], "Invalid value"),
    ],
)
async def test_what_is_wrong_is_named(
    schedules: Schedules, person: Person, arguments: list[str], said: str
) -> None:
    ended = await schedules("create", *arguments, "--tenant", str(person.tenant_id))
    assert ended.code in {1, 2}
    assert said in ended.err


async def test_what_does_not_exist_is_not_found(schedules: Schedules) -> None:
    for verb in ("show", "pause", "resume", "run", "delete"):
        assert (await schedules(verb, str(uuid4()))).code == 1
