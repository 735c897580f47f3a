"""What goes through the queue for a job: which start of which job it is, and no arguments."""

from typing import Final, Self
from uuid import UUID

import msgspec
import orjson

from jangada_queue.messages import Claim, Offer

ALONE_FROM: Final = 2
"""From so many crashes on a job runs alone in its process.

Its neighbours in a process that dies are innocent, so only a crash alone tells that it is poison.
"""


class UnreadableTicket(Exception):
    """A message that holds no ticket. It may be forgotten: the job's row is the truth."""


class Ticket(msgspec.Struct, frozen=True):
    """A hint that a job may be started: `attempt` is the row's, before the start."""

    tenant_id: UUID
    job_id: UUID
    attempt: int
    kind: str
    is_alone: bool = False
    is_limited: bool = False
    concurrency_key: str = ""

    def offer(self) -> Offer:
        body = {
            "tenant_id": str(self.tenant_id),
            **({"alone": True} if self.is_alone else {}),
            **({"limited": self.concurrency_key} if self.is_limited else {}),
        }
        return Offer(self.key, self.kind, orjson.dumps(body))

    @property
    def key(self) -> str:
        return f"{self.job_id}:{self.attempt}"

    @classmethod
    def read(cls, message: Claim | Offer) -> Self:
        """Raises `UnreadableTicket`."""
        try:
            job_id, attempt = message.key.split(":")
            body = orjson.loads(message.body)
            return cls(
                tenant_id=UUID(body["tenant_id"]),
                job_id=UUID(job_id),
                attempt=int(attempt),
                kind=message.kind,
                is_alone=bool(body.get("alone", False)),
                is_limited="limited" in body,
                concurrency_key=str(body.get("limited", "")),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableTicket(f"The message {message.key} is no ticket.") from error
