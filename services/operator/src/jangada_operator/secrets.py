"""The brokers' URLs, from the secrets that pools name.

Only `get` on secrets is needed: each is read when a pool first names it, and again after a while,
sooner where its broker doesn't answer.
"""

import base64
import binascii
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from jangada_operator.kube import Kube, Refused
from jangada_operator.workerpool.reasons import Trouble
from jangada_operator.workerpool.spec import Pool
from jangada_operator.workerpool.status import Problem

FRESH: Final = 60.0
FRESH_IN_TROUBLE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """A URL, or why there is none."""

    url: str
    problem: Problem | None
    at: float


@dataclass(slots=True)
class Secrets:
    """What was read, and when."""

    kube: Kube
    clock: Callable[[], float] = time.monotonic
    _found: dict[tuple[str, str, str], Found] = field(default_factory=dict)

    async def url_of(self, pool: Pool, *, is_in_trouble: bool) -> str | Problem:
        """The URL of the pool's broker, or why it can't be had.

        A secret that is missing or wrong is trouble by itself: it is soon read again.
        """
        name = (pool.key.namespace, pool.broker.name, pool.broker.key)
        found = self._found.get(name)
        is_in_trouble = is_in_trouble or (found is not None and found.problem is not None)
        fresh = FRESH_IN_TROUBLE if is_in_trouble else FRESH
        if found is None or self.clock() - found.at > fresh:
            found = self._found[name] = await self._read(*name)
        return found.problem or found.url

    async def _read(self, namespace: str, name: str, key: str) -> Found:
        now = self.clock()
        where = f"secret {name} in namespace {namespace}"
        try:
            secret = await self.kube.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except Refused as error:
            if error.is_missing:
                return Found(
                    "", Problem(Trouble.SECRET_MISSING, f"There is no {where}: create it."), now
                )
            if error.is_forbidden:
                text = f"The operator may not read the {where}: let its role get secrets there."
                return Found("", Problem(Trouble.FORBIDDEN, text), now)
            raise
        data = (secret.get("data") or {}).get(key)
        if data is None:
            has = ", ".join(sorted(secret.get("data") or ())) or "none"
            text = f"The {where} has no key {key}; its keys are: {has}."
            return Found("", Problem(Trouble.SECRET_INVALID, text), now)
        try:
            return Found(base64.b64decode(data, validate=True).decode().strip(), None, now)
        except (binascii.Error, UnicodeDecodeError):
            text = f"The key {key} of the {where} is no text: it should be redis://…"
            return Found("", Problem(Trouble.SECRET_INVALID, text), now)
