"""What goes through a queue: an offer on the way in, a claim on the way out."""

from dataclasses import dataclass

import msgspec


class Offer(msgspec.Struct, frozen=True):
    """A message to publish.

    `key` names one start of one piece of work: while it is in the window it isn't published again.
    Workers take only the `kind`s that they know. `body` is opened by the worker alone.
    """

    key: str
    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class OnOffer:
    """What is published and not acknowledged, and what the last round left as its `turn`.

    `keys` are those of the whole window. `messages` are those in the stream, if they were asked
    for: waiting and claimed ones, in their order, without what is parked.
    """

    waiting: int
    turn: str
    keys: frozenset[str]
    messages: tuple[Offer, ...]


class Claim(msgspec.Struct, frozen=True):
    """A message that this worker holds under a lease until it acknowledges or releases it."""

    queue: str
    id: str
    key: str
    kind: str
    body: bytes
    losses: int = 0
    """How many leases it has outlived, where Valkey counts them."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The answer to one claim: at most as many as asked for, none when the pod is draining."""

    claims: tuple[Claim, ...]
    waiting: int
    is_draining: bool


@dataclass(frozen=True, slots=True)
class Published:
    """How many offers were new, and how many messages wait now."""

    published: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Depth:
    """What is in a queue now, and its totals since the server's data began."""

    waiting: int
    claimed: int
    parked: int
    window: int
    published_total: int
    expired_total: int
    unreadable_total: int
