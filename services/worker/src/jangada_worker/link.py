"""What parent and child say to each other, as JSON lines on a socket pair.

Writing never blocks: a child that holds the interpreter lock must not stop its parent, which beats
for it. Each side takes the end of the other's stream as the end of the other.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec

from jangada.jobs.delivery.kinds import KindFacts
from jangada_queue.processes import whole_lines
from jangada_queue.workers import RunningWork

LONGEST_LINE = 4 * 1024 * 1024


class Identity(msgspec.Struct, tag=True, frozen=True):
    """To the child: the id it is registered under. A second one means that it was declared dead."""

    worker: UUID


class CancelJobs(msgspec.Struct, tag=True, frozen=True):
    """To the child: somebody asked for these to stop."""

    jobs: list[UUID]


class Drain(msgspec.Struct, tag=True, frozen=True):
    """To the child: claim nothing more, give running jobs so many seconds, then exit."""

    seconds: float


class HandBack(msgspec.Struct, tag=True, frozen=True):
    """To the child: as `Drain`, but at once."""


class Flagged(msgspec.Struct, tag=True, frozen=True):
    """To the child: the pod's drain flag has changed; empty means that there is none."""

    flag: str


class Ready(msgspec.Struct, tag=True, frozen=True):
    """To the parent: the child can run these kinds; an attempt may take so many seconds."""

    kinds: list[KindFacts]
    timeouts: dict[str, float]


class Report(msgspec.Struct, tag=True, frozen=True):
    """To the parent: what runs now, whether a claim is under way, and the flag seen before that."""

    running: list[RunningWork]
    claiming: int
    drain: str


class Observation(msgspec.Struct, frozen=True):
    """One ended attempt."""

    queue: str
    kind: str
    outcome: str
    seconds: float
    waited_seconds: float


class Observations(msgspec.Struct, tag=True, frozen=True):
    """To the parent: attempts that ended since the last time, and what their handlers committed."""

    ended: list[Observation]
    tallies: list[tuple[tuple[str, ...], int]]


class Farewell(msgspec.Struct, tag=True, frozen=True):
    """To the parent: the child ends in order. Without it an end is a crash, whatever the code."""


type ToChild = Identity | CancelJobs | Drain | HandBack | Flagged
type ToParent = Ready | Report | Observations | Farewell


class Link[Incoming, Outgoing]:
    """One end of the socket pair."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: msgspec.json.Decoder[Incoming],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder

    def send(self, message: Outgoing) -> None:
        """Queue a message; one to a peer that is gone is lost without a word."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def messages(self) -> AsyncIterator[Incoming]:
        """What the peer says, until it is gone."""
        try:
            async for line in whole_lines(self._reader):
                yield self._decoder.decode(line)
        except ConnectionError:
            return

    async def flush(self) -> None:
        """Return when everything sent is in the socket, or the peer is gone."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def close(self) -> None:
        self._writer.close()


async def parent_end(end: socket.socket) -> Link[ToParent, ToChild]:
    reader, writer = await asyncio.open_connection(sock=end, limit=LONGEST_LINE)
    return Link(reader, writer, msgspec.json.Decoder(ToParent))


async def child_end(end: socket.socket) -> Link[ToChild, ToParent]:
    reader, writer = await asyncio.open_connection(sock=end, limit=LONGEST_LINE)
    return Link(reader, writer, msgspec.json.Decoder(ToChild))
