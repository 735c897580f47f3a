"""One operator acts, the others wait: a lease of `coordination.k8s.io`, held and renewed.

As client-go's `leaderelection` does it: whoever holds the lease writes the time into it every
`RETRY`; who sees it unchanged for its whole duration, by its own clock, takes it over with the
resource version that it saw, so that of two only one succeeds. A holder that couldn't renew for
`RENEW` stops before anybody else may begin.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from jangada_operator.kube import Json, Kube, KubeError, Refused

DURATION: Final = 10
"""Seconds that a lease lasts which nobody renews."""

RENEW: Final = 7.0
RETRY: Final = 2.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Leadership:
    """Whether this process leads. `is_held` is true only while it is sure of it."""

    kube: Kube
    namespace: str
    name: str
    identity: str
    _sure_until: float = 0.0
    _seen: tuple[str, str] | None = None
    _seen_at: float = 0.0
    _trouble: str = ""
    """What was said last of why it can't be renewed: it is said once, not every two seconds."""
    _awaited: str = ""
    """Who was said to hold it."""

    @property
    def is_held(self) -> bool:
        return time.monotonic() < self._sure_until

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    async def run(self) -> None:
        """Hold it, or wait for it, until cancelled."""
        while True:
            before, asked = self.is_held, time.monotonic()
            try:
                self._sure_until = asked + RENEW if await self._hold_or_take() else 0.0
            except KubeError as error:
                if (trouble := str(error)) != self._trouble:
                    log.warning("the leader lease can't be renewed: %s", trouble)
                    self._trouble = trouble
            else:
                self._trouble = ""
            if before != self.is_held:
                log.info("%s leads%s", self.identity, "" if self.is_held else " no more")
            elif not self.is_held:
                self._tell_holder()
            await asyncio.sleep(RETRY)

    def _tell_holder(self) -> None:
        """Who waits says for whom, once."""
        holder = "" if self._seen is None else self._seen[0]
        if holder and holder not in {self.identity, self._awaited}:
            log.info("%s waits: %s holds %s/%s", self.identity, holder, self.namespace, self.name)
        self._awaited = holder

    async def give_up(self) -> None:
        """Let another one lead at once."""
        if not self.is_held:
            return
        self._sure_until = 0.0
        try:
            lease = await self.kube.get(f"{self._path}/{self.name}")
            if lease["spec"].get("holderIdentity") == self.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self.kube.replace(f"{self._path}/{self.name}", lease)
        except KubeError as error:
            log.warning("the leader lease is left to end: %s", error)

    async def _hold_or_take(self) -> bool:
        try:
            lease = await self.kube.get(f"{self._path}/{self.name}")
        except Refused as error:
            if not error.is_missing:
                raise
            return await self._created()
        return await self._taken(lease) if self._may_take(lease["spec"]) else False

    def _may_take(self, spec: Json) -> bool:
        holder = spec.get("holderIdentity") or ""
        seen = (holder, spec.get("renewTime") or "")
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        duration = spec.get("leaseDurationSeconds") or DURATION
        return holder in {"", self.identity} or now - self._seen_at > duration

    async def _taken(self, lease: Json) -> bool:
        before = lease["spec"].get("holderIdentity")
        changes = lease["spec"].get("leaseTransitions") or 0
        lease["spec"] = self._spec() | {
            "acquireTime": lease["spec"].get("acquireTime") or _now(),
            "leaseTransitions": changes,
        }
        if before != self.identity:
            lease["spec"] |= {"acquireTime": _now(), "leaseTransitions": changes + 1}
        return await self._written(self.kube.replace(f"{self._path}/{self.name}", lease))

    async def _created(self) -> bool:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": self._spec() | {"acquireTime": _now(), "leaseTransitions": 0},
        }
        try:
            return await self._written(self.kube.create(self._path, body))
        except Refused as error:
            if not error.is_missing:
                raise
            text = f"there is no namespace {self.namespace}: make it, or set --lease-namespace"
            raise KubeError(text) from error

    @staticmethod
    async def _written(writing: Awaitable[Json]) -> bool:
        try:
            await writing
        except Refused as error:
            if error.is_conflict:
                return False
            raise
        return True

    def _spec(self) -> Json:
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION,
            "renewTime": _now(),
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
