"""Dead letters: messages that nobody could read, or whose leases were lost too often.

They stay until somebody redrives or forgets them.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from typing import Any, Final, Self

from jangada_queue.client import QueueClient
from jangada_queue.connection import as_bytes, as_text, command, within

PAGE: Final = 200
FIRST: Final = "-"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One of them: why it died, and the message as it was. `fields` are all but its body."""

    id: str
    died_at: datetime
    reason: str
    detail: str
    body: bytes
    fields: dict[str, str]

    @property
    def kind(self) -> str:
        """The task's name; empty where the message has none."""
        return self.fields.get("kind", "")

    @classmethod
    def of(cls, reply: Sequence[Any]) -> Self:
        id_, reason, detail, flat = reply
        message = {
            as_bytes(name).decode("utf-8", "replace"): as_bytes(value)
            for name, value in zip(flat[::2], flat[1::2], strict=True)
        }
        body = message.pop("body", b"")
        milliseconds = int(as_text(id_).partition("-")[0])
        return cls(
            id=as_text(id_),
            died_at=datetime.fromtimestamp(milliseconds / 1000, UTC),
            reason=as_text(reason),
            detail=as_text(detail),
            body=body,
            fields={name: value.decode("utf-8", "replace") for name, value in message.items()},
        )


async def dead_letters(client: QueueClient, queue: str) -> AsyncIterator[DeadLetter]:
    """All dead letters of a queue, oldest first, page by page."""
    after = FIRST
    while page := await client.run(queue, "letters", [after, PAGE]):
        for reply in page:
            yield DeadLetter.of(reply)
        after = as_text(page[-1][0])


async def find_dead_letter(client: QueueClient, queue: str, id: str) -> DeadLetter | None:
    """The dead letter of this id, or None."""
    async for letter in dead_letters(client, queue):
        if letter.id == id:
            return letter
    return None


async def redrive(client: QueueClient, queue: str, ids: Iterable[str]) -> int:
    """Put dead letters back into their queue, as if they were new; answers how many there were.

    To be repeated at will: one that was redriven is no dead letter any more.
    """
    return sum(
        [await client.run(queue, "redrive", page) for page in batched(ids, PAGE, strict=False)]
    )


async def forget(client: QueueClient, queue: str, ids: Iterable[str]) -> int:
    """Delete dead letters for good; answers how many there were."""
    key = client.keys(queue).dead
    forgotten = 0
    for page in batched(ids, PAGE, strict=False):
        async with within(client.deadline):
            forgotten += int(await command(client.redis, "XDEL", key, *page))
    return forgotten
