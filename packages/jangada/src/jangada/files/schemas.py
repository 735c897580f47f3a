"""What the delivery hands over of an upload."""

from collections.abc import AsyncIterator, Buffer
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Label:
    """What the sender calls the file: for people to read. It never names anything in the store."""

    name: str
    media_type: str


class Incoming(Protocol):
    """A file that is being sent.

    `announced_bytes` is the most it can have, as far as its sender said so; nothing has been read
    for it. The label is known once the first chunk has been read, and surely after the last.
    """

    @property
    def announced_bytes(self) -> int | None:
        """The file's size at most; None where the sender didn't say."""

    @property
    def label(self) -> Label:
        """Its name and media type."""

    def chunks(self) -> AsyncIterator[Buffer]:
        """Its content, once; an error of it ends the upload and passes through."""
