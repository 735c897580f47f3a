"""What follows a commit, and only a commit: others are told, and what happened is counted.

Both are gathered in the session while its transaction goes on; a rollback drops them.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

_NOTICES: Final = "jangada.notices"
_TALLIES: Final = "jangada.tallies"


@dataclass(frozen=True, slots=True)
class Notice:
    """What the fast path is told after a commit: `wake` a queue, or `cancel` a running job.

    `offer` wakes a queue, too: for one message, which is what it is `about`. Equal notices of a
    transaction are one.
    """

    topic: str
    subject: str
    about: Hashable = None


type Notify = Callable[[frozenset[Notice]], Awaitable[None]]
type Tally = Callable[[Mapping[tuple[str, ...], int]], None]
"""Takes how often each thing happened in one transaction."""


def notice(session: AsyncSession, topic: str, subject: str, *, about: Hashable = None) -> None:
    """Have the fast path told after this transaction commits."""
    session.info.setdefault(_NOTICES, set()).add(Notice(topic, subject, about))


def take_notices(session: AsyncSession) -> frozenset[Notice]:
    return frozenset(session.info.pop(_NOTICES, ()))


def tally(session: AsyncSession, *what: str, times: int = 1) -> None:
    """Have something counted after this transaction commits."""
    session.info.setdefault(_TALLIES, Counter())[what] += times


def take_tallies(session: AsyncSession) -> Mapping[tuple[str, ...], int]:
    found: Mapping[tuple[str, ...], int] = session.info.pop(_TALLIES, {})
    return found
