"""How much of each limited kind may still start: counted by the dispatcher, granted by the grant.

Both ask the same object, filled from the same rows. The dispatcher's answer is a forecast, so that
the window isn't filled with what couldn't start; the grant's, under the lock of the kinds, counts.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from jangada.jobs.delivery.connection import Connection
from jangada.jobs.delivery.kinds import KindLimits

_RUNNING: Final[LiteralString] = """
    SELECT kind, tenant_id, coalesce(concurrency_key, '') AS concurrency_key,
        id || ':' || attempt - 1 AS key
    FROM jobs WHERE state = 'running' AND kind = ANY (%s::text[])
"""

# Starts are counted in sixtieths of the period. Whatever may have begun within the last period is
# counted, so no stretch of that length ever has more; the price is a sixtieth of the rate.
_STARTS: Final[LiteralString] = """
    SELECT kind, bucket, sum(starts)::integer AS starts,
        min(at) + rate_period + rate_period / 60 - clock_timestamp() AS until_fewer
    FROM job_starts JOIN job_kinds USING (kind)
    WHERE kind = ANY (%(kinds)s::text[]) AND bucket = ANY (%(buckets)s::text[])
        AND at > clock_timestamp() - rate_period - rate_period / 60
    GROUP BY kind, bucket, rate_period
"""

_COUNT: Final[LiteralString] = """
    INSERT INTO job_starts (kind, bucket, at, starts)
    SELECT kind, bucket, at, count(*) FROM (
        SELECT kind, CASE WHEN rate_per_tenant THEN tenant_id::text ELSE '' END AS bucket,
            date_bin(rate_period / 60, started_at, timestamptz 'epoch') AS at
        FROM unnest(%(tenants)s::uuid[], %(ids)s::uuid[]) AS granted (tenant_id, id)
        JOIN jobs USING (tenant_id, id) JOIN job_kinds USING (kind)
        WHERE rate_starts IS NOT NULL
    ) started GROUP BY kind, bucket, at
    ON CONFLICT (kind, bucket, at) DO UPDATE SET starts = job_starts.starts + excluded.starts
"""

EVERYBODY: Final = ""
"""The bucket of a rate limit that isn't per tenant."""


@dataclass(frozen=True, slots=True)
class Usage:
    """One start of a limited kind that runs, or is on its way: `key` names it among all."""

    kind: str
    tenant_id: UUID
    concurrency_key: str
    key: str


@dataclass(frozen=True, slots=True)
class Starts:
    """How many starts a bucket's rate limit counts, and how long until it counts fewer."""

    kind: str
    bucket: str
    starts: int
    until_fewer: timedelta


@dataclass(slots=True)
class Allowance:
    """What the limits leave. Kinds without one are always allowed.

    `until_more` is how long it is until a rate limit allows something that was refused.
    """

    limits: Mapping[str, KindLimits]
    until_more: timedelta | None = None
    _running: Counter[str] = field(default_factory=Counter)
    _of_key: Counter[tuple[str, UUID, str]] = field(default_factory=Counter)
    _recorded: dict[tuple[str, str], int] = field(default_factory=dict)
    _to_come: Counter[tuple[str, str]] = field(default_factory=Counter)
    _waits: dict[tuple[str, str], timedelta] = field(default_factory=dict)

    def count_running(self, usages: Iterable[Usage]) -> None:
        """These hold a place already, and were counted as starts when they did."""
        for usage in usages:
            self._occupy(usage.kind, usage.tenant_id, usage.concurrency_key)

    def count_promised(self, usages: Iterable[Usage]) -> None:
        """These will start before anything that is asked for from now on."""
        for usage in usages:
            if (limits := self.limits.get(usage.kind)) is not None:
                self._occupy(usage.kind, usage.tenant_id, usage.concurrency_key)
                self._to_come[usage.kind, _bucket(limits, usage.tenant_id)] += 1

    def count_starts(self, starts: Iterable[Starts]) -> None:
        for each in starts:
            self._recorded[each.kind, each.bucket] = each.starts
            self._waits[each.kind, each.bucket] = each.until_fewer

    def take(self, kind: str, tenant_id: UUID, concurrency_key: str) -> bool:
        """Whether such a job may start; then it has taken its place."""
        limits = self.limits.get(kind)
        if limits is None:
            return True
        if not (
            _is_below(self._running[kind], limits.concurrency_limit)
            and _is_below(
                self._of_key[kind, tenant_id, concurrency_key], limits.concurrency_per_key
            )
            and self._has_rate(limits, _bucket(limits, tenant_id))
        ):
            return False
        self._occupy(kind, tenant_id, concurrency_key)
        self._to_come[kind, _bucket(limits, tenant_id)] += 1
        return True

    def exhausted(self) -> list[str]:
        """The kinds of which nothing may start, whosever it is."""
        return [
            kind
            for kind, limits in self.limits.items()
            if not _is_below(self._running[kind], limits.concurrency_limit)
            or not (limits.rate_per_tenant or self._has_rate(limits, EVERYBODY))
        ]

    def _occupy(self, kind: str, tenant_id: UUID, concurrency_key: str) -> None:
        self._running[kind] += 1
        self._of_key[kind, tenant_id, concurrency_key] += 1

    def _has_rate(self, limits: KindLimits, bucket: str) -> bool:
        place = limits.kind, bucket
        if _is_below(self._recorded.get(place, 0) + self._to_come[place], limits.rate_starts):
            return True
        if (wait := self._waits.get(place)) is not None:
            self.until_more = min(wait, self.until_more or wait)
        return False


def _is_below(count: int, limit: int | None) -> bool:
    return limit is None or count < limit


def _bucket(limits: KindLimits, tenant_id: UUID) -> str:
    return str(tenant_id) if limits.rate_per_tenant else EVERYBODY


async def measure(
    connection: Connection, limits: Mapping[str, KindLimits], promised: Iterable[Usage] = ()
) -> Allowance:
    """What the limits leave beside what runs, was started, and is promised but doesn't run yet.

    Part of a transaction. Limits per tenant are measured by `measure_tenants`.
    """
    allowance = Allowance(limits)
    if limits:
        running = await _read_running(connection, limits)
        started = {usage.key for usage in running}
        allowance.count_running(running)
        allowance.count_promised(usage for usage in promised if usage.key not in started)
        shared = [kind for kind, each in limits.items() if not each.rate_per_tenant]
        allowance.count_starts(await _read_starts(connection, shared, [EVERYBODY]))
    return allowance


async def measure_tenants(
    connection: Connection, allowance: Allowance, tenants: Collection[UUID]
) -> None:
    """Learn what was started of these tenants, where a rate limit is per tenant."""
    kinds = [kind for kind, limits in allowance.limits.items() if limits.rate_per_tenant]
    if kinds:
        buckets = [str(tenant) for tenant in tenants]
        allowance.count_starts(await _read_starts(connection, kinds, buckets))


async def count_granted(
    connection: Connection, allowance: Allowance, jobs: Collection[tuple[UUID, UUID]]
) -> None:
    """Count the starts of these jobs (tenant and id), of the kinds that have a rate limit."""
    if any(limits.rate_starts for limits in allowance.limits.values()):
        parameters = {"tenants": [tenant for tenant, _ in jobs], "ids": [job for _, job in jobs]}
        await connection.execute(_COUNT, parameters)


async def _read_running(connection: Connection, kinds: Iterable[str]) -> list[Usage]:
    async with connection.cursor(row_factory=class_row(Usage)) as cursor:
        await cursor.execute(_RUNNING, (list(kinds),))
        return await cursor.fetchall()


async def _read_starts(
    connection: Connection, kinds: Collection[str], buckets: Sequence[str]
) -> list[Starts]:
    async with connection.cursor(row_factory=class_row(Starts)) as cursor:
        await cursor.execute(_STARTS, {"kinds": list(kinds), "buckets": list(buckets)})
        return await cursor.fetchall()
