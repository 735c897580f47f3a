"""Pages that neither repeat nor miss a row, cursors that cannot be bent, and the small verbs."""

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import DateTime, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jangada import crud
from jangada.crud import (
    CursorSigner,
    InvalidCursor,
    InvalidLimit,
    Page,
    PageRequest,
    Sort,
    fetch,
    find,
    insert,
    paginate,
    patch,
)
from jangada.db import Database, new_id
from jangada.errors import NotFound
from jangada.tenants.models import Role
from jangada.testing import Person, make_person

pytestmark = pytest.mark.anyio

SIGNER = CursorSigner(b"k" * 32)


class Tables(DeclarativeBase):
    """Apart from the platform's own tables."""


class Thing(Tables):
    """One column of each type that lists are sorted by."""

    __tablename__ = "things"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    name: Mapped[str]
    number: Mapped[int]


BY_ALL = (Thing.at, Thing.name, Thing.number, Thing.id)
MOMENTS = [datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)]

# Few values, so that ties are the rule.
things = st.tuples(
    st.sampled_from(MOMENTS), st.sampled_from(["", "a", "A", "é", "z\n\"'"]), st.integers(-1, 1)
)
edits = st.one_of(things, st.integers(0, 20))


@pytest.fixture
async def shelf(database: Database) -> Database:
    async with database.engine.connect() as connection:
        await connection.run_sync(Tables.metadata.create_all)
        await connection.commit()
    return database


def thing(values: tuple[datetime, str, int]) -> Thing:
    at, name, number = values
    return Thing(id=uuid4(), at=at, name=name, number=number)


async def page_of(database: Database, sort: Sort, limit: int, cursor: str | None) -> Page[Thing]:
    async with database.system_transaction("test") as session:
        page = PageRequest(SIGNER, limit, cursor)
        return await paginate(session, select(Thing), page, sort=sort, bound_to={"shelf": 1})


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    first=st.lists(things, max_size=12),
    changes=st.lists(edits, max_size=8),
    shape=st.tuples(st.integers(1, 4), st.booleans()),
)
async def test_each_row_that_stays_is_seen_once_whatever_comes_and_goes(
    shelf: Database,
    first: list[tuple[datetime, str, int]],
    changes: list[tuple[datetime, str, int] | int],
    shape: tuple[int, bool],
) -> None:
    limit, descending = shape
    sort = Sort(BY_ALL, descending=descending)
    async with shelf.system_transaction("test") as session:
        await session.execute(delete(Thing))
        rows = [thing(values) for values in first]
        session.add_all(rows)
    staying = {row.id for row in rows}
    seen: list[Thing] = []
    cursor: str | None = None
    for _ in range(len(first) + len(changes) + 1):
        page = await page_of(shelf, sort, limit, cursor)
        seen += page.data
        assert len(page.data) <= limit
        if (cursor := page.next_cursor) is None:
            break
        if changes:
            staying -= await edit(shelf, changes.pop(), sorted(staying))
    assert cursor is None, "the pages never end"
    keys = [tuple(getattr(row, column.key) for column in BY_ALL) for row in seen]
    assert len(set(keys)) == len(keys)
    assert keys == sorted(keys, key=in_c_order, reverse=descending)
    assert staying <= {row.id for row in seen}


async def edit(
    database: Database, change: tuple[datetime, str, int] | int, present: list[UUID]
) -> set[UUID]:
    """Insert a row, or delete one; answers which of the first rows is gone."""
    async with database.system_transaction("test") as session:
        if not isinstance(change, int):
            session.add(thing(change))
            return set()
        gone = present[change % len(present) :][:1] if present else []
        await session.execute(delete(Thing).where(Thing.id.in_(gone)))
        return set(gone)


def in_c_order(key: tuple[datetime, str, int, UUID]) -> tuple[Any, ...]:
    at, name, number, id_ = key
    return at, name.encode(), number, id_


async def test_the_last_page_has_no_cursor(shelf: Database) -> None:
    async with shelf.system_transaction("test") as session:
        session.add_all([thing((MOMENTS[0], "a", 0)) for _ in range(4)])
    sort = Sort((Thing.id,))
    first = await page_of(shelf, sort, 2, None)
    last = await page_of(shelf, sort, 2, first.next_cursor)
    assert (first.has_more, last.has_more, last.next_cursor) == (True, False, None)


async def test_the_order_of_a_scope_gives_way_to_the_sort(shelf: Database) -> None:
    async with shelf.system_transaction("test") as session:
        session.add_all([thing((MOMENTS[0], "a", number)) for number in range(3)])
        scope = select(Thing).order_by(Thing.number.desc())
        page = await paginate(
            session,
            scope,
            PageRequest(SIGNER),
            sort=Sort((Thing.number, Thing.id)),
            bound_to={},
        )
    assert [row.number for row in page.data] == [0, 1, 2]


class ByName(BaseModel):
    """A filter, as features have them."""

    name: str | None = None
    since: datetime | None = None


SORT = Sort((Thing.name, Thing.id))
BOUND_TO: dict[str, Any] = {"tenant": "1", "name": None}


async def cursor_of(database: Database) -> str:
    async with database.system_transaction("test") as session:
        session.add_all([thing((MOMENTS[0], "a", 0)) for _ in range(2)])
        page = await paginate(
            session, select(Thing), PageRequest(SIGNER, 1), sort=SORT, bound_to=BOUND_TO
        )
    assert page.next_cursor is not None
    return page.next_cursor


async def accepts(
    database: Database,
    cursor: str,
    *,
    signer: CursorSigner = SIGNER,
    sort: Sort = SORT,
    bound_to: BaseModel | dict[str, Any] | None = None,
) -> bool:
    page = PageRequest(signer, 1, cursor)
    async with database.system_transaction("test") as session:
        try:
            await paginate(session, select(Thing), page, sort=sort, bound_to=bound_to or BOUND_TO)
        except InvalidCursor:
            return False
    return True


async def test_a_cursor_serves_its_own_list_only(shelf: Database) -> None:
    cursor = await cursor_of(shelf)
    assert await accepts(shelf, cursor)
    assert await accepts(shelf, cursor, bound_to={"name": None, "tenant": "1"})
    for bound_to in ({"tenant": "2", "name": None}, {"tenant": "1", "name": "a"}, {"tenant": "1"}):
        assert not await accepts(shelf, cursor, bound_to=bound_to)
    assert not await accepts(shelf, cursor, bound_to=ByName())
    assert not await accepts(shelf, cursor, sort=Sort(SORT.columns, descending=True))
    assert not await accepts(shelf, cursor, sort=Sort((Thing.number, Thing.id)))
    assert not await accepts(shelf, cursor, signer=CursorSigner(b"x" * 32))


async def test_a_cursor_of_another_entity_is_refused(shelf: Database, person: Person) -> None:
    sort = Sort((Role.name, Role.id))
    cursor = await cursor_of(shelf)
    page = PageRequest(SIGNER, 1, cursor)
    with pytest.raises(InvalidCursor):
        async with shelf.read(person.tenant_id) as session:
            await paginate(session, select(Role), page, sort=sort, bound_to=BOUND_TO)


def test_a_filter_as_a_model_binds_by_its_values() -> None:
    since = ByName(name="a", since=MOMENTS[0])
    same, other = ByName(name="a", since=MOMENTS[0]), ByName(name="b", since=MOMENTS[0])
    bindings = [crud._binding(select(Thing), SORT, each) for each in (since, same, other)]
    assert bindings[0] == bindings[1] != bindings[2]


@given(st.binary(max_size=64), st.text(max_size=64), st.integers(0, 2000), st.integers(1, 255))
def test_no_altered_or_invented_cursor_is_accepted(
    key: bytes, invented: str, place: int, change: int
) -> None:
    signer, bound_to = CursorSigner(key), b"list"
    cursor = signer.sign(["a", 1, str(UUID(int=7))], bound_to)
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    raw[place % len(raw)] ^= change
    altered = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    for wrong in (altered, invented, cursor[:-1], cursor + "A", cursor + "=", f" {cursor}"):
        with pytest.raises(InvalidCursor):
            signer.verify(wrong, bound_to)
    assert signer.verify(cursor, bound_to) == ["a", 1, str(UUID(int=7))]


def test_a_refused_cursor_points_at_the_parameter() -> None:
    with pytest.raises(InvalidCursor) as raised:
        SIGNER.verify("garbage", b"list")
    assert [fault.pointer for fault in raised.value.errors] == ["?cursor"]


@pytest.mark.parametrize("cursor", ["", "é", "\0", "A", "A" * 1_000_000, "\ud800", "../../x"])
def test_garbage_is_no_cursor(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        SIGNER.verify(cursor, b"list")


def test_the_key_of_cursors_is_not_printed() -> None:
    assert "secret" not in f"{CursorSigner(b'secret')!r}"


@pytest.mark.parametrize("limit", [-1, 0, 101, 10**9])
def test_a_page_has_one_to_a_hundred_rows(limit: int) -> None:
    with pytest.raises(InvalidLimit) as raised:
        PageRequest(SIGNER, limit)
    assert [fault.pointer for fault in raised.value.errors] == ["?limit"]


@pytest.mark.parametrize("limit", [1, 100])
def test_the_bounds_of_a_page_are_allowed(limit: int) -> None:
    assert PageRequest(SIGNER, limit).limit == limit


class RoleNotFound(NotFound):
    """As features declare theirs."""

    code = "test.role_not_found"


async def test_what_the_scope_does_not_show_is_absent(database: Database) -> None:
    one, other = await make_person(database, "One"), await make_person(database, "Other")
    async with database.system_transaction("test") as session:
        foreign = (
            await session.scalars(select(Role).where(Role.tenant_id == other.tenant_id))
        ).one()
        scope = select(Role).where(Role.tenant_id == one.tenant_id)
        assert await find(session, scope, foreign.id) is None
        with pytest.raises(RoleNotFound, match=f"There is no role {foreign.id}"):
            await fetch(session, scope, foreign.id, missing=RoleNotFound)
        assert (await fetch(session, select(Role), foreign.id)).id == foreign.id


class RolePatch(BaseModel):
    """Everything that a client may change, and nothing that it must."""

    name: str | None = None
    permissions: list[str] = []


async def test_a_patch_changes_what_was_sent_and_nothing_else(
    database: Database, person: Person
) -> None:
    async with database.transaction(person.tenant_id) as session:
        role = Role(tenant_id=person.tenant_id, id=new_id(), name="editor", permissions=["a"])
        made = await insert(session, role)
        stamped = made.updated_at
        await patch(session, made, RolePatch(name="author"))
    async with database.read(person.tenant_id) as session:
        found = await fetch(session, select(Role), role.id)
    assert (found.name, found.permissions) == ("author", ["a"])
    assert found.updated_at > stamped


async def test_constraints_speak_when_a_row_is_inserted(database: Database, person: Person) -> None:
    second = Role(tenant_id=person.tenant_id, id=new_id(), name="owner", permissions=[])
    with pytest.raises(IntegrityError, match="uq_roles_tenant_id_name"):
        async with database.transaction(person.tenant_id) as session:
            await insert(session, second)
