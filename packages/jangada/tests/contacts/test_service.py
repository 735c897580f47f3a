"""Verbs on contacts: normal forms, keys, searching, and imports as records."""

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.contacts import service
from jangada.contacts.errors import (
    ContactExists,
    ContactInvalid,
    ContactNotFound,
    ImportNotFound,
    ImportUnderWay,
)
from jangada.contacts.models import Contact, ImportReject
from jangada.contacts.reasons import Reason
from jangada.contacts.schemas import ContactCreate, ContactFilter, ContactPatch
from jangada.crud import PageRequest
from jangada.db import new_id
from jangada.errors import JangadaError
from jangada.files.models import File
from jangada.jobs.models import Job
from jangada.runtime import Runtime
from jangada.tenants.models import Tenant
from jangada.testing import make_person

if TYPE_CHECKING:
    from packages.jangada.tests.contacts.conftest import Importer

pytestmark = pytest.mark.anyio

PHONE = "+5511987654321"


async def create(session: AsyncSession, tenant: Tenant, **values: Any) -> Contact:  # noqa: ANN401 - of any field
    return await service.create_contact(session, tenant.id, ContactCreate(**values), region="BR")


async def change(
    session: AsyncSession,
    contact: Contact,
    **values: Any,  # noqa: ANN401 - of any field
) -> Contact:
    changes = ContactPatch(**values)
    return await service.update_contact(
        session, contact.tenant_id, contact.id, changes, region="BR"
    )


async def test_a_contact_is_stored_in_normal_form(session: AsyncSession, tenant: Tenant) -> None:
    made = await create(
        session,
        tenant,
        name=" ANA Joa\u0303o ",
        email="Ana@Example.com",
        phone="(11) 98765-4321",
        company="'=Acme",
        attributes={" Notes ": " x ", "blank": " "},
    )
    assert (made.name, made.name_key) == ("ANA João", "ana joao")
    assert (made.email, made.phone, made.company) == ("ana@example.com", PHONE, "=Acme")
    assert made.attributes == {"Notes": "x"}
    assert await service.get_contact(session, tenant.id, made.id) is made


@pytest.mark.parametrize(
    ("values", "pointer", "reason"),
    [
        ({"name": "Ana"}, "", Reason.MISSING_KEY),
        ({"email": " "}, "", Reason.MISSING_KEY),
        ({"email": "ana at example.com"}, "/email", Reason.INVALID_EMAIL),
        ({"phone": "12"}, "/phone", Reason.INVALID_PHONE),
        (
            {"email": "a@b.co", "attributes": {f"a{i}": "x" * 9_000 for i in range(9)}},
            "/attributes",
            Reason.ATTRIBUTES_TOO_LARGE,
        ),
    ],
)
async def test_what_can_not_be_is_refused_by_field(
    *, session: AsyncSession, tenant: Tenant, values: dict[str, Any], pointer: str, reason: Reason
) -> None:
    with pytest.raises(ContactInvalid) as raised:
        await create(session, tenant, **values)
    assert [(fault.pointer, fault.code) for fault in raised.value.errors] == [(pointer, reason)]


@pytest.mark.parametrize(
    "values",
    [
        {"name": "a\0b"},
        {"name": "x" * 301},
        {"company": "x" * 301},
        {"attributes": {"": "x"}},
        {"attributes": {"x" * 201: "x"}},
        {"attributes": {"x": "y" * 10_001}},
        {"attributes": {str(number): "x" for number in range(513)}},
        {"nickname": "Ana"},
    ],
)
async def test_what_is_no_contact_at_all_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ContactCreate(email="a@b.co", **values)
    with pytest.raises(ValidationError):
        ContactPatch(**values)


async def test_a_key_is_taken_once(runtime: Runtime, tenant: Tenant) -> None:
    async with runtime.database.transaction(tenant.id) as session:
        await create(session, tenant, email="a@b.co", phone=PHONE)
        await create(session, tenant, phone=PHONE)
        other = await create(session, tenant, email="c@d.co", phone=PHONE)
    taken: list[tuple[dict[str, Any], str]]
    taken = [({"email": "A@B.co", "phone": "11 2345-6789"}, "/email"), ({"phone": PHONE}, "/phone")]
    for values, pointer in taken:
        async with runtime.database.transaction(tenant.id) as session:
            with pytest.raises(ContactExists) as refused:
                await create(session, tenant, **values)
            assert [fault.pointer for fault in refused.value.errors] == [pointer]
    for address, pointer in (("a@b.co", "/email"), (None, "/phone")):
        async with runtime.database.transaction(tenant.id) as session:
            with pytest.raises(ContactExists) as refused:
                await change(session, other, email=address)
            assert [fault.pointer for fault in refused.value.errors] == [pointer]
            await create(session, tenant, email=f"{new_id().hex}@b.co")
    async with runtime.database.read(tenant.id) as session:
        kept = await service.get_contact(session, tenant.id, other.id)
        assert (kept.email, kept.phone) == ("c@d.co", PHONE)
        assert len((await session.scalars(service.visible(tenant.id))).all()) == 5


async def test_another_tenant_may_have_the_same(runtime: Runtime, tenant: Tenant) -> None:
    other = (await make_person(runtime.database, "Bia")).tenant
    async with runtime.database.transaction(tenant.id) as session:
        await create(session, tenant, email="a@b.co")
    async with runtime.database.transaction(other.id) as session:
        made = await create(session, other, email="a@b.co")
    async with runtime.database.transaction(tenant.id) as session:
        for act in (service.get_contact, service.delete_contact):
            with pytest.raises(ContactNotFound):
                await act(session, tenant.id, made.id)


async def test_a_patch_changes_what_it_names(session: AsyncSession, tenant: Tenant) -> None:
    made = await create(
        session,
        tenant,
        name="Ana",
        email="a@b.co",
        phone=PHONE,
        company="Acme",
        attributes={"a": "1", "b": "2"},
    )
    await change(session, made, name="Eva", attributes={"a": None, "b": "3", "c": "4"})
    assert (made.name, made.name_key, made.email, made.company) == ("Eva", "eva", "a@b.co", "Acme")
    assert made.attributes == {"b": "3", "c": "4"}
    await change(session, made, name=None, email=None, company=None, attributes=None)
    assert (made.name, made.email, made.company, made.attributes) == ("", None, "", {})
    with pytest.raises(ContactInvalid):
        await change(session, made, phone=None)


async def test_a_contact_is_deleted_once(session: AsyncSession, tenant: Tenant) -> None:
    made = await create(session, tenant, email="a@b.co")
    await service.delete_contact(session, tenant.id, made.id)
    with pytest.raises(ContactNotFound):
        await service.delete_contact(session, tenant.id, made.id)


async def found(session: AsyncSession, tenant: Tenant, runtime: Runtime, **filter: str) -> str:
    """The first letters of the names that a list shows, over pages of two."""
    names, cursor = "", None
    while True:
        page = await service.list_contacts(
            session,
            tenant.id,
            ContactFilter(**filter),
            PageRequest(runtime.cursors, limit=2, cursor=cursor),
        )
        names += "".join(contact.name[0] for contact in page.data)
        cursor = page.next_cursor
        if cursor is None:
            return names


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        ({}, "DCBÁ"),
        ({"q": "a"}, "Á"),
        ({"q": "ANÁ l"}, "Á"),
        ({"q": "Lima"}, ""),
        ({"q": "b@"}, "B"),
        ({"q": "+5511"}, "CB"),
        ({"q": "c%"}, ""),
        ({"q": "c_"}, "C"),
        ({"email": "B@x.co "}, "B"),
        ({"phone": PHONE}, "C"),
        ({"company": "Acme"}, "DB"),
        ({"company": "acme"}, ""),
        ({"company": "Acme", "q": "d"}, "D"),
    ],
)
async def test_contacts_are_found_by_prefix_and_filter(
    *,
    session: AsyncSession,
    tenant: Tenant,
    runtime: Runtime,
    filter: dict[str, str],
    names: str,
) -> None:
    await create(session, tenant, name="Ána Lima", email="z@x.co")
    await create(session, tenant, name="Bia", email="b@x.co", phone="+551133334444", company="Acme")
    await create(session, tenant, name="C_o", phone=PHONE)
    await create(session, tenant, name="Duo", email="y@x.co", company="Acme")
    assert await found(session, tenant, runtime, **filter) == names


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        ({"q": "ana"}, "ix_contacts_names"),
        ({"email": "a5@b.co"}, "uq_contacts_tenant_id_email"),
        ({"phone": PHONE}, "ix_contacts_tenant_id_phone"),
    ],
)
async def test_searches_use_their_indexes_under_row_level_security(
    importer: "Importer", runtime: Runtime, filter: dict[str, str], index: str
) -> None:
    rows = "".join(f"N{n},a{n}@b.co,+55119{87650000 + n}\n" for n in range(3_000))
    await importer(f"name,email,phone\n{rows}")
    scope = ContactFilter(**filter)(service.visible(importer.tenant_id))
    async with runtime.database.transaction(importer.tenant_id) as session:
        await session.execute(text("ANALYZE contacts"))
        connection = await session.connection()
        engine = connection.engine.sync_engine
        known = scope.compile(engine, compile_kwargs={"literal_binds": True})
        plan = await session.scalars(text(f"EXPLAIN {known}".replace(":", r"\:")))
        assert index in "\n".join(plan)
        unknown = scope.compile(dialect=postgresql.dialect(paramstyle="numeric_dollar"))
        kept = await connection.exec_driver_sql(f"EXPLAIN (GENERIC_PLAN) {unknown}")
        assert index in "\n".join(row[0] for row in kept), "as a connection keeps it"


async def test_an_import_is_a_record_with_its_job(importer: "Importer", runtime: Runtime) -> None:
    job = await importer.start("email\na@b.co\n", delimiter=",", mapping={"email": "email"})
    async with runtime.database.read(importer.tenant_id) as session:
        started, of = await service.get_import(session, importer.tenant_id, job.id)
        assert (started.id, of.id, of.kind, of.queue) == (
            job.id,
            job.id,
            "contacts.import",
            "imports",
        )
        assert of.args["options"]["delimiter"] == ","
        file = await session.get(File, (importer.tenant_id, started.file_id))
        assert file is not None
        with pytest.raises(ImportNotFound):
            await service.get_import(session, importer.tenant_id, new_id())


async def test_without_a_commit_there_is_no_import(importer: "Importer", runtime: Runtime) -> None:
    class Lost(JangadaError):
        code = "test.lost"

    job = await importer.start("email\na@b.co\n")
    with pytest.raises(Lost):
        async with runtime.database.transaction(importer.tenant_id) as session:
            started, _ = await service.get_import(session, importer.tenant_id, job.id)
            file = await session.get_one(File, (importer.tenant_id, started.file_id))
            again = await service.start_import(session, file, importer.options(validate_only=True))
            raise Lost("after everything")
    async with runtime.database.read(importer.tenant_id) as session:
        assert await session.get(Job, (importer.tenant_id, again.id)) is None


async def test_an_import_that_is_over_can_be_deleted(
    importer: "Importer", runtime: Runtime
) -> None:
    """Its job is no matter of retention until then."""
    job = await importer.start("email\na@b.co\nbad\n")
    async with runtime.database.transaction(importer.tenant_id) as session:
        with pytest.raises(ImportUnderWay):
            await service.delete_import(session, importer.tenant_id, job.id)
    await importer.run(job)
    async with runtime.database.transaction(importer.tenant_id) as session:
        assert (await session.get_one(Job, (importer.tenant_id, job.id))).kept
        await service.delete_import(session, importer.tenant_id, job.id)
    async with runtime.database.read(importer.tenant_id) as session:
        assert not (await session.get_one(Job, (importer.tenant_id, job.id))).kept
        assert (await session.scalars(select(ImportReject))).all() == []
        with pytest.raises(ImportNotFound):
            await service.get_import(session, importer.tenant_id, job.id)
    assert len(await importer.contacts()) == 1


async def end(runtime: Runtime, job: Job, days_ago: int) -> None:
    async with runtime.database.transaction(job.tenant_id) as session:
        await session.execute(
            update(Job)
            .where(Job.id == job.id)
            .values(state="discarded", finished_at=text(f"now() - interval '{days_ago} days'"))
        )


async def files_of(runtime: Runtime, tenant_id: UUID) -> int:
    async with runtime.database.read(tenant_id) as session:
        return len((await session.scalars(select(File.id))).all())


async def test_a_failed_imports_file_goes_with_it(importer: "Importer", runtime: Runtime) -> None:
    job = await importer.start("nothing\n")
    await end(runtime, job, days_ago=0)
    async with runtime.database.transaction(importer.tenant_id) as session:
        await service.delete_import(session, importer.tenant_id, job.id)
    assert await files_of(runtime, importer.tenant_id) == 0


async def test_files_of_failed_imports_make_room_after_a_week(
    importer: "Importer", runtime: Runtime
) -> None:
    for days_ago in (6, 8):
        await end(runtime, await importer.start("nothing\n"), days_ago)
    assert await files_of(runtime, importer.tenant_id) == 2
    await importer.start("email\na@b.co\n")
    assert await files_of(runtime, importer.tenant_id) == 2
