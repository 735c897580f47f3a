"""The errors of the domain, one tree.

The core knows no status codes: each delivery maps the seven kinds once.

    JangadaError
    ├── Unauthenticated   who you are is not known
    ├── Forbidden         you are known and may not
    ├── NotFound          it does not exist, or not for you (invisible equals absent)
    ├── Conflict          it collides with the present state
    ├── Invalid           the input is wrong; `errors` names each fault
    ├── RateLimited       too much, try again after `retry_after`
    └── Unavailable       something that we need is absent; trying again later may help

A feature subclasses a kind and gives it a stable `code` such as `contact.not_found`; clients may
rely on it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in an input.

    `pointer` is a JSON pointer (RFC 6901) into the body (`/email`), or `?name` for a query's
    parameter.
    """

    pointer: str
    code: str
    detail: str


def json_pointer(path: Iterable[int | str]) -> str:
    """Names and numbers on the way to a value, as RFC 6901 writes it."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


class JangadaError(Exception):
    """The root of all expected errors: `detail` is safe to show, and never holds a secret."""

    code: ClassVar[str]
    quotes_content: ClassVar[bool] = False
    """Whether `detail` quotes a file or text of the user: it is then for them, never for a log."""

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after = retry_after


class Unauthenticated(JangadaError):
    """Who the caller is isn't known."""

    code = "request.unauthenticated"


class Forbidden(JangadaError):
    """The caller is known, and may not."""

    code = "request.forbidden"


class NotFound(JangadaError):
    """It does not exist, or not for the caller."""

    code = "resource.not_found"


class Conflict(JangadaError):
    """It collides with the present state."""

    code = "resource.conflict"


class Invalid(JangadaError):
    """The input is wrong; `errors` names each fault."""

    code = "request.invalid"


class RateLimited(JangadaError):
    """Too much at once; try again after `retry_after`."""

    code = "request.rate_limited"


class Unavailable(JangadaError):
    """Something that we need is absent; trying again later may help."""

    code = "service.unavailable"


KINDS: tuple[type[JangadaError], ...] = (
    Unauthenticated,
    Forbidden,
    NotFound,
    Conflict,
    Invalid,
    RateLimited,
    Unavailable,
)


def all_errors() -> Iterator[type[JangadaError]]:
    """Every error class that is imported, kinds first: for the documents and their test."""
    pending: list[type[JangadaError]] = list(KINDS)
    while pending:
        error = pending.pop(0)
        yield error
        pending.extend(error.__subclasses__())
