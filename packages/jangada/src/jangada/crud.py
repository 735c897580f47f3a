"""Typed reads and writes that every feature needs: fetch, paginate, insert, patch.

A *scope* is a `Select` of one entity that already says which rows the caller may see; it is a
required argument, so visibility cannot be forgotten. Pages are keyset pages (no OFFSET): rows that
are inserted or deleted meanwhile make no row appear twice or vanish.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Protocol
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
)
from sqlalchemy import Select, and_, or_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from jangada.db import Base
from jangada.errors import FieldError, Invalid, NotFound

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 100
_MAC_BYTES: Final = 16


def without_nul(text: str) -> str:
    """Raises `ValueError`: PostgreSQL stores no NUL, and refuses to compare with one."""
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


type FilterText = Annotated[str, StringConstraints(max_length=320), AfterValidator(without_nul)]
"""What a list is filtered by."""


def _no_number(value: object) -> object:
    if isinstance(value, int | float) or (isinstance(value, str) and _is_number(value)):
        raise ValueError("must be a date and time with a zone, such as 2026-03-01T12:00:00Z")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


type FilterMoment = Annotated[AwareDatetime, BeforeValidator(_no_number)]
"""A moment as RFC 3339 writes it; `2026` would be taken for 34 minutes after the first of 1970."""


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


NO_DEFAULT: Final = Field(json_schema_extra=_drop_default)
"""For a patch's field that can't be null: what isn't sent stays, so it has no default for clients
to fill in. What the model has in its place means nothing.
"""


class InvalidCursor(Invalid):
    """The cursor was altered, is of another list, or belongs to another filter or sort."""

    code = "page.invalid_cursor"


class InvalidLimit(Invalid):
    """A page has 1 to 100 rows."""

    code = "page.invalid_limit"


class Identified(Protocol):
    """An entity with an `id` column."""

    id: Any


@dataclass(frozen=True, slots=True)
class CursorSigner:
    """Makes cursors that a client can keep but not alter or use elsewhere (HMAC-SHA-256).

    A cursor tells the sort values of the last row, which the client has just seen.
    """

    key: bytes = field(repr=False)

    def sign(self, values: Sequence[Any], bound_to: bytes) -> str:
        payload = orjson.dumps(list(values))
        return _text(self._mac(payload, bound_to) + payload)

    def verify(self, cursor: str, bound_to: bytes) -> list[Any]:
        """The values of a cursor that `sign` made for the same list; else `InvalidCursor`."""
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError) as error:
            raise _invalid_cursor() from error
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        # Base64 reads several texts as the same bytes; only the one that we wrote is a cursor.
        is_ours = hmac.compare_digest(mac, self._mac(payload, bound_to)) and cursor == _text(raw)
        if not is_ours:
            raise _invalid_cursor()
        values: list[Any] = orjson.loads(payload)
        return values

    def _mac(self, payload: bytes, bound_to: bytes) -> bytes:
        return hmac.digest(self.key, bound_to + payload, "sha256")[:_MAC_BYTES]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _invalid_cursor() -> InvalidCursor:
    detail = "The cursor is not one of this list with this filter and sort; start without a cursor."
    return InvalidCursor(detail, errors=[FieldError("?cursor", InvalidCursor.code, detail)])


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a client asks for: at most `limit` rows (1…100) after `cursor`.

    Raises `InvalidLimit`.
    """

    signer: CursorSigner
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            detail = f"The limit must be 1 to {MAX_LIMIT}."
            fault = FieldError("?limit", InvalidLimit.code, detail)
            raise InvalidLimit(detail, errors=[fault])


@dataclass(frozen=True, slots=True)
class Page[E]:
    """One page; `next_cursor` is None on the last."""

    data: list[E]
    next_cursor: str | None

    @property
    def has_more(self) -> bool:
        return self.next_cursor is not None


@dataclass(frozen=True, slots=True)
class Sort:
    """A total order: columns that are never NULL, the last of them unique within the scope."""

    columns: tuple[InstrumentedAttribute[Any], ...]
    descending: bool = False

    @property
    def name(self) -> str:
        keys = ",".join(column.key for column in self.columns)
        return f"-{keys}" if self.descending else keys


async def fetch[E: Identified](
    session: AsyncSession, scope: Select[E], id: UUID, *, missing: type[NotFound] = NotFound
) -> E:
    """The row of the scope with this id; raises `missing` for one that is absent or invisible."""
    row = await find(session, scope, id)
    if row is None:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", scope.column_descriptions[0]["name"])
        raise missing(f"There is no {name.lower()} {id}.")
    return row


async def find[E: Identified](session: AsyncSession, scope: Select[E], id: UUID) -> E | None:
    entity = scope.column_descriptions[0]["entity"]
    row: E | None = await session.scalar(scope.where(entity.id == id))
    return row


async def paginate[E](
    session: AsyncSession,
    scope: Select[E],
    page: PageRequest,
    *,
    sort: Sort,
    bound_to: BaseModel | Mapping[str, Any],
) -> Page[E]:
    """One keyset page of the scope.

    `bound_to` holds whatever shaped the scope (tenant, filters): a cursor is refused under another.
    """
    binding = _binding(scope, sort, bound_to)
    if page.cursor is not None:
        scope = scope.where(_after(sort, page.signer.verify(page.cursor, binding)))
    ordered = [c.desc() if sort.descending else c.asc() for c in sort.columns]
    rows = list(
        await session.scalars(scope.order_by(None).order_by(*ordered).limit(page.limit + 1))
    )
    if len(rows) <= page.limit:
        return Page(rows, None)
    rows = rows[: page.limit]
    values = [getattr(rows[-1], column.key) for column in sort.columns]
    return Page(rows, page.signer.sign(values, binding))


def _binding(scope: Select[Any], sort: Sort, bound_to: BaseModel | Mapping[str, Any]) -> bytes:
    shape = bound_to.model_dump(mode="json") if isinstance(bound_to, BaseModel) else dict(bound_to)
    entity = scope.column_descriptions[0]["name"]
    text = orjson.dumps([entity, sort.name, shape], option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(text).digest()


def _after(sort: Sort, raw: list[Any]) -> Any:  # noqa: ANN401 - a SQL expression
    """Rows behind the given ones: `a > x OR (a = x AND b > y)`, for any mix of types."""
    values = [_parse(column, value) for column, value in zip(sort.columns, raw, strict=True)]
    alternatives = []
    for depth, (column, value) in enumerate(zip(sort.columns, values, strict=True)):
        equal = [c == v for c, v in zip(sort.columns[:depth], values[:depth], strict=True)]
        alternatives.append(and_(*equal, column < value if sort.descending else column > value))
    return or_(*alternatives)


def _parse(column: InstrumentedAttribute[Any], value: Any) -> Any:  # noqa: ANN401 - JSON
    python_type = column.type.python_type
    if python_type is UUID:
        return UUID(value)
    return datetime.fromisoformat(value) if python_type is datetime else value


async def insert[E: Base](session: AsyncSession, entity: E) -> E:
    """Add a row and flush, so that constraints speak now and defaults are known."""
    session.add(entity)
    await session.flush()
    return entity


async def patch[E: Base](session: AsyncSession, entity: E, changes: BaseModel) -> E:
    """Apply the fields that the client sent (JSON merge patch, RFC 7396), and flush."""
    for name in changes.model_fields_set:
        setattr(entity, name, getattr(changes, name))
    await session.flush()
    return entity
