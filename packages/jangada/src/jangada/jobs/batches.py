"""Enqueuing many jobs by one statement.

What the jobs of a batch have in common (a *shape*: kind, queue, priority …) is sent once; each job
adds its id and its arguments. The arrays are written here as PostgreSQL reads them, since adapting
every element of them costs more than the insertion.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.db import new_id
from jangada.jobs.checks import check
from jangada.jobs.payloads import args_json, concurrency_key, encode_metadata
from jangada.jobs.schemas import JobArgs, NewJob
from jangada.jobs.tracing import current_traceparent
from jangada.jobs.uniqueness import Claim, unique_key
from jangada.telemetry import current_request_id

_INSERT: Final = text("""
    WITH shapes AS MATERIALIZED (
        SELECT shape.*, CASE WHEN scheduled_at > clock_timestamp() THEN 'scheduled'
            ELSE 'available' END AS state
        FROM json_to_recordset(CAST(:shapes AS json)) AS shape (
            number integer, kind text, queue text, priority smallint, max_attempts integer,
            kept boolean, scheduled_at timestamptz, tags text[], metadata jsonb)
    )
    INSERT INTO jobs (tenant_id, id, kind, queue, state, priority, args, max_attempts, tags,
        metadata, kept, unique_key, concurrency_key, created_by, request_id, traceparent,
        scheduled_at)
    SELECT :tenant, job.id, kind, queue, state, priority, CAST(job.args AS jsonb), max_attempts,
        tags, metadata, kept, decode(job.unique_key, 'hex'), job.concurrency_key, :created_by,
        :request_id, :traceparent, coalesce(scheduled_at, now())
    FROM unnest(CAST(:ids AS uuid[]), CAST(:args AS text[]), CAST(:numbers AS integer[]),
        CAST(:unique_keys AS text[]), CAST(:concurrency_keys AS text[]))
        AS job (id, args, number, unique_key, concurrency_key)
    JOIN shapes USING (number)
""")


class Shape(NamedTuple):
    """What a batch's jobs may have in common."""

    kind: str
    queue: str
    priority: int
    max_attempts: int
    kept: bool
    scheduled_at: str | None
    tags: tuple[str, ...]
    metadata: str

    @classmethod
    def of(cls, job: NewJob) -> Self:
        return cls(
            job.args.kind,
            job.queue_name,
            job.priority,
            job.most_attempts,
            job.args.kept,
            job.scheduled_at.isoformat() if job.scheduled_at else None,
            tuple(job.tags),
            json.dumps(encode_metadata(job.metadata)),
        )

    def record(self, number: int) -> dict[str, Any]:
        return {**self._asdict(), "number": number, "metadata": json.loads(self.metadata)}


@dataclass(slots=True)
class Batch:
    """Checked jobs, each with its id, its arguments as JSON and the number of its shape."""

    ids: list[UUID] = field(default_factory=list)
    args: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    claims: dict[int, Claim] = field(default_factory=dict)
    keys: list[str | None] = field(default_factory=list)
    _known: dict[Shape | type[JobArgs], int] = field(default_factory=dict)

    def add(self, job: JobArgs | NewJob) -> None:
        new = job if isinstance(job, NewJob) else None
        args = job.args if isinstance(job, NewJob) else job
        number = self._known.get(type(args)) if new is None else None
        if number is None or args.unique is not None:
            new = new or NewJob(args)
            number = self._number(new, is_plain=new is not job)
        id_ = (new and new.id) or new_id()
        encoded = args_json(args)
        if new is not None and (by := new.unique_by) is not None:
            key = unique_key(new, json.loads(encoded), by)
            self.claims[len(self.ids)] = Claim(key, id_, by)
        self.ids.append(id_)
        self.args.append(encoded)
        self.numbers.append(number)
        self.keys.append(concurrency_key(args, new.concurrency_key if new else None))

    def _number(self, job: NewJob, *, is_plain: bool) -> int:
        """Of its shape. What has nothing but arguments is as all of its kind."""
        check(job)
        shape = Shape.of(job)
        number = self._known.setdefault(shape, len(self.shapes))
        if number == len(self.shapes):
            self.shapes.append(shape)
        if is_plain:
            self._known[type(job.args)] = number
        return number

    def counts(self, chosen: Iterable[int]) -> Counter[tuple[str, str]]:
        """How many of those jobs there are of each queue and kind."""
        found: Counter[tuple[str, str]] = Counter()
        for number, count in Counter(self.numbers[n] for n in chosen).items():
            shape = self.shapes[number]
            found[shape.queue, shape.kind] += count
        return found

    def columns(self, chosen: Sequence[int]) -> dict[str, str]:
        """The parameters of the statement for those of the jobs."""
        claims = map(self.claims.get, chosen)
        records = [shape.record(number) for number, shape in enumerate(self.shapes)]
        return {
            "shapes": json.dumps(records),
            "ids": _array(self.ids[n].hex for n in chosen),
            "args": _array(_quoted(self.args[n]) for n in chosen),
            "numbers": _array(str(self.numbers[n]) for n in chosen),
            "unique_keys": _array("NULL" if each is None else each.key.hex() for each in claims),
            "concurrency_keys": _array(
                "NULL" if (key := self.keys[n]) is None else _quoted(key) for n in chosen
            ),
        }


async def insert(
    session: AsyncSession,
    batch: Batch,
    chosen: Sequence[int],
    *,
    tenant_id: UUID,
    created_by: UUID | None,
) -> None:
    """Insert those of the jobs."""
    common = {
        "tenant": tenant_id,
        "created_by": created_by,
        "request_id": current_request_id(),
        "traceparent": current_traceparent(),
    }
    await session.execute(_INSERT, common | batch.columns(chosen))


def _array(elements: Iterable[str]) -> str:
    return f"{{{','.join(elements)}}}"


def _quoted(element: str) -> str:
    escaped = element.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
