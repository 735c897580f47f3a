"""Redaction: what may be said about a value in a log line or a span.

Three rules, because patterns alone cannot know a password when they see one:

1. Values that come with a name (`log.info("…", token=…)`) are masked when the name is sensitive,
   and reduced to the name of their type when they are not plain data.
2. Texts are scrubbed of what has a recognisable form: e-mail addresses, JWTs, long random
   strings, credentials in URLs, query strings, `password=…`.
3. The message of an exception is shown only for types that are known to speak of identifiers and
   never of values; otherwise only its type and the lines of code it passed are. PostgreSQL's
   DETAIL, which quotes rows, never is.
"""

import re
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from types import TracebackType
from uuid import UUID

from pydantic import ValidationError

from jangada.errors import JangadaError

MASK = "[redacted]"
WITHHELD = "(message withheld)"
TEXT_LIMIT = 4_000
ITEM_LIMIT = 50
DEPTH_LIMIT = 4
FRAME_LIMIT = 40
REPORT_LIMIT = 16_000

_SENSITIVE_NAME = re.compile(
    r"passw|passphrase|secret|token|authorization|cookie|credential|api_?key|private|master_?key"
    r"|e_?mail|conninfo|dsn|^(?:otp|body|headers?|query|query_string|params|parameters|payload|form)$"
    r"|^(?:input|args|row|cell|url)$",
    re.IGNORECASE,
)

# Lookbehind and possessive runs keep each pattern linear on hostile text.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL), MASK),
    (re.compile(r"(?<=://)[^/\s@]*+@"), f"{MASK}@"),
    (re.compile(r"(?<=[\w/])\?[^\s\"'>]*=[^\s\"'>]*"), f"?{MASK}"),
    (re.compile(r"\b(?:bearer|basic|digest)\s+[\w.~+/=-]+", re.IGNORECASE), MASK),
    (re.compile(r"\beyJ[\w-]{6,}+\.[\w.-]*"), MASK),
    (re.compile(r"\$argon2\S*"), MASK),
    (
        re.compile(
            r"((?:passw(?:or)?d|passwd|pwd|passphrase|secret|token|authorization|cookie|credential"
            r"|(?:api|access|private|master)[_-]?key)[\"'\w-]*+\s*+[=:]\s*+)"
            r"(?:\"[^\"]*+\"?|'[^']*+'?|[^\s,;&})\]]++)",
            re.IGNORECASE,
        ),
        rf"\g<1>{MASK}",
    ),
    (re.compile(r"\bexception=(\w+)\([^\n]*"), r"exception=\1"),
    (
        re.compile(
            r"(?<![^\s<>\"'(),;:\[\]])(?:\"[^\"\n]{0,64}+\"|[^\s<>\"'(),;:\[\]@]*+)"
            r"@[^\s<>\"'(),;:\[\]]++"
        ),
        MASK,
    ),
    (re.compile(r"(?<![\w.%+\\-])[\w.+-]++(?:%40|\\u0040)[\w.%+-]++"), MASK),
    (
        re.compile(r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{40,}+"),
        MASK,
    ),
)

_SUSPICIOUS = re.compile(r"[@?=:%$]|eyJ|\\u0040|-----|bearer|basic|digest|[\w-]{40}", re.IGNORECASE)
"""What each pattern needs at least: most texts have none of it, and are let through at once."""


def scrub(text: str) -> str:
    """The text without addresses, tokens, credentials and query strings, cut to a bound."""
    cut = text[:TEXT_LIMIT] + "…" if len(text) > TEXT_LIMIT else text
    if not _SUSPICIOUS.search(cut):
        return cut
    for pattern, replacement in _PATTERNS:
        cut = pattern.sub(replacement, cut)
    return cut


type Plain = bool | int | float | str | list[Plain] | dict[str, Plain] | None


def redact(value: object, name: str = "", depth: int = 0) -> Plain:
    """Reduce a value that goes by `name` to plain data that is safe to log."""
    if value is None or type(value) in (bool, int, float):
        return value  # type: ignore[return-value]
    if _SENSITIVE_NAME.search(name):
        return MASK
    if isinstance(value, str) and not isinstance(value, Enum):
        return scrub(value)
    for types, reduce in _REDUCTIONS:
        if isinstance(value, types):
            return reduce(value, depth)
    return f"<{type(value).__qualname__}>"


def _mapping(value: Mapping[object, object], depth: int) -> Plain:
    if depth >= DEPTH_LIMIT:
        return "{…}"
    items = [(str(key), item) for key, item in list(value.items())[:ITEM_LIMIT]]
    return {scrub(key): redact(item, key, depth + 1) for key, item in items}


def _items(value: Collection[object], depth: int) -> Plain:
    if depth >= DEPTH_LIMIT:
        return "[…]"
    return [redact(item, depth=depth + 1) for item in list(value)[:ITEM_LIMIT]]


type _Reduction = tuple[tuple[type, ...], Callable[..., Plain]]

_REDUCTIONS: tuple[_Reduction, ...] = (
    ((UUID, Decimal, IPv4Address, IPv6Address, IPv4Network, IPv6Network), lambda v, _: str(v)),
    ((datetime, date, time), lambda v, _: v.isoformat()),
    ((timedelta,), lambda v, _: v.total_seconds()),
    ((Enum,), lambda v, depth: redact(v.value, depth=depth)),
    ((PurePath,), lambda v, _: scrub(str(v))),
    ((BaseException,), lambda v, _: describe(v)),
    ((type,), lambda v, _: v.__qualname__),
    ((Mapping,), _mapping),
    ((list, tuple, set, frozenset), _items),
)

_SPEAKS_OF_IDENTIFIERS = frozenset(
    {
        "builtins.ArithmeticError",
        "builtins.AttributeError",
        "builtins.ImportError",
        "builtins.IndexError",
        "builtins.MemoryError",
        "builtins.NameError",
        "builtins.NotImplementedError",
        "builtins.RecursionError",
        "builtins.TypeError",
        "alembic.util.exc.CommandError",
        "redis.exceptions.ConnectionError",
        "redis.exceptions.TimeoutError",
        "sqlalchemy.exc.TimeoutError",
    }
)
"""Exceptions whose messages name code, hosts or limits, never data. Subclasses count."""

_SQLSTATE_CLASSES_WITHOUT_VALUES = frozenset(
    {"08", "23", "25", "28", "3D", "40", "42", "53", "54", "55", "57", "58", "XX"}
)
"""PostgreSQL's primary message in these classes names objects.

Class 22 (data exception) quotes the value.
"""


def _qualified(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is(error: BaseException, names: Collection[str]) -> bool:
    return any(_qualified(kind) in names for kind in type(error).__mro__)


def _postgresql(error: BaseException) -> str:
    """The SQLSTATE and the names of what it is about.

    DETAIL, HINT, CONTEXT and the statement quote data and stay out.
    """
    state = getattr(error, "sqlstate", None)
    if state is None:
        return scrub(str(error)) if _is(error, ("psycopg.OperationalError",)) else WITHHELD
    report = getattr(error, "diag", None)
    parts = [f"[{state}]"]
    if state[:2] in _SQLSTATE_CLASSES_WITHOUT_VALUES:
        parts.append(scrub(getattr(report, "message_primary", None) or ""))
    names = ("constraint_name", "schema_name", "table_name", "column_name", "datatype_name")
    found = ((name, getattr(report, name, None)) for name in names)
    parts.extend(f"{name.removesuffix('_name')}={scrub(value)}" for name, value in found if value)
    return " ".join(part for part in parts if part)


def _operating_system(error: OSError) -> str:
    if error.errno is None:
        return WITHHELD if error.args else ""
    where = f": {scrub(str(error.filename))}" if error.filename is not None else ""
    return f"[Errno {error.errno}] {scrub(error.strerror or '')}{where}"


def _driver(error: BaseException) -> str:
    original = getattr(error, "orig", None)
    return describe(original) if isinstance(original, BaseException) else WITHHELD


def _validation(error: ValidationError) -> str:
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return ", ".join(sorted({fault["type"] for fault in faults}))


_MESSAGES: tuple[tuple[frozenset[str], Callable[[BaseException], str]], ...] = (
    (frozenset({"psycopg.Error"}), _postgresql),
    (frozenset({"sqlalchemy.exc.DBAPIError"}), _driver),
    (_SPEAKS_OF_IDENTIFIERS, lambda error: scrub(str(error))),
)


def _message(error: BaseException) -> str:
    """What may be said of an exception beside its type."""
    if isinstance(error, JangadaError):
        return f"[{error.code}] {WITHHELD if error.quotes_content else scrub(error.detail)}"
    if isinstance(error, ValidationError):
        return _validation(error)
    for names, say in _MESSAGES:
        if _is(error, names):
            return say(error)
    if isinstance(error, OSError):
        return _operating_system(error)
    return WITHHELD if error.args else ""


def describe(error: BaseException) -> str:
    """One line about an exception: its type, and as much of its message as holds no data."""
    name = _qualified(type(error)).removeprefix("builtins.")
    message = _message(error)
    return f"{name}: {message}" if message else name


def _frames(start: TracebackType | None) -> Iterator[str]:
    # Neither source lines (literals) nor locals (values) are shown.
    frames = list(traceback.walk_tb(start))
    if len(frames) > FRAME_LIMIT:
        yield f"  … {len(frames) - FRAME_LIMIT} frames left out"
    for frame, line in frames[-FRAME_LIMIT:]:
        code = frame.f_code
        yield f'  File "{code.co_filename}", line {line}, in {code.co_qualname}'


def _report(error: BaseException, seen: set[int], depth: int) -> Iterator[str]:
    seen.add(id(error))
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None and id(earlier) not in seen:
        yield from _report(earlier, seen, depth)
        yield "which led to"
    yield from _frames(error.__traceback__)
    yield describe(error)
    if isinstance(error, BaseExceptionGroup) and depth < DEPTH_LIMIT:
        for member in error.exceptions[:ITEM_LIMIT]:
            if id(member) not in seen:
                yield from (f"  | {line}" for line in _report(member, seen, depth + 1))


def describe_traceback(error: BaseException) -> str:
    """The whole story of an exception: causes first, then where it passed, then what it was."""
    text = "\n".join(_report(error, set(), 0))
    return text if len(text) <= REPORT_LIMIT else "…" + text[-REPORT_LIMIT:]
