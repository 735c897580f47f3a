"""Reads settings from the environment: files in place of values, faults that name their key.

Any key also works with `_FILE` appended: its value is then that file's content, as mounted secrets
are. A fault names the key and never the value, which may be a secret.
"""

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from email.errors import MessageError
from email.headerregistry import Address
from pathlib import Path
from typing import Annotated, Final, override
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, EnvSettingsSource

from jangada.errors import FieldError, Invalid

PREFIX = "JANGADA_"

EXTRA_KEYS = frozenset({"JANGADA_TOKEN", "JANGADA_READY_FD"})
"""Variables that are no settings: a command line's own, and what a supervisor tells its child."""

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_WRITTEN_MAILBOX = re.compile(r"(?:(?P<name>[^<>]*)(?P<open><))?(?P<spec>[^<>]+)(?(open)>)")
_WRITTEN_DURATION = re.compile(rf"([0-9]+(?:\.[0-9]+)?)\s*({'|'.join(UNITS)})?")

LONGEST_FILE = 1024 * 1024


class InvalidSettings(Invalid):
    """The environment holds wrong settings; `errors` names each key."""

    code = "settings.invalid"


class Section(BaseModel):
    """A group of settings; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


OBJECT_STORES: Final = ("s3://", "gs://", "az://", "abfss://")


def _duration(value: object) -> object:
    """Plain numbers are seconds; `500ms`, `30s`, `15m`, `1h`, `7d` and ISO 8601 are understood."""
    written = _WRITTEN_DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if written is None:
        return value
    try:
        return timedelta(seconds=float(written[1]) * UNITS[written[2] or "s"])
    except OverflowError:
        raise ValueError("is longer than a duration can be") from None


def comma_separated(value: object) -> object:
    """`a, b`; a JSON list is understood, too."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def json_object(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


def postgresql_url(value: SecretStr | None) -> SecretStr | None:
    """Refuse what libpq does not understand; its own message would quote the URL."""
    if value is None:
        return None
    url = value.get_secret_value()
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must be a postgresql:// URL")
    try:
        ports = conninfo_to_dict(url).get("port") or ""
        [int(port) for port in str(ports).split(",") if port]
    except (psycopg.Error, ValueError):
        raise ValueError("is no URL that libpq understands") from None
    return value


def valkey_url(value: SecretStr) -> SecretStr:
    """Refuse what redis-py does not understand; its own message would quote the URL."""
    from redis.connection import parse_url  # noqa: PLC0415 - not every command pays for it

    url = value.get_secret_value()
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must be a redis://, rediss:// or unix:// URL")
    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        raise ValueError("is no URL that redis-py understands") from None
    return value


def storage_url(value: str) -> str:
    """Refuse a store that there isn't."""
    if not value.startswith(("file://", *OBJECT_STORES)):
        raise ValueError(f"must begin with file://, {', '.join(OBJECT_STORES)}")
    return value


def http_url(value: str | None) -> str | None:
    """Refuse what no HTTP client could send to."""
    if value is not None and not re.match(r"https?://[^/\s]", value):
        raise ValueError("must be an http:// or https:// URL")
    return value


def phone_region(value: str) -> str:
    """Refuse a country whose phone numbers nobody knows."""
    from phonenumbers import SUPPORTED_REGIONS  # noqa: PLC0415 - not every command pays for it

    if value not in SUPPORTED_REGIONS:
        raise ValueError("must be a country's two capital letters (ISO 3166), such as BR")
    return value


def smtp_url(value: SecretStr | None) -> SecretStr | None:
    """Refuse what names no mail server; the standard library's own message would quote the URL."""
    if value is None:
        return None
    url = value.get_secret_value()
    if not url.startswith(("smtp://", "smtps://")):
        raise ValueError("must be an smtp:// or smtps:// URL")
    if not _is_plain(url) or not _names_a_server(url):
        raise ValueError("must be a scheme, perhaps user and password, a host, perhaps a port")
    if bool(urlsplit(url).username) != bool(urlsplit(url).password):
        raise ValueError("must have both a user and a password, or neither")
    return value


def _is_plain(url: str) -> bool:
    """Whether it has no spaces and control characters: the standard library drops some unasked."""
    return " " not in url and all(text.isprintable() for text in (url, unquote(url)))


def _names_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:  # also of a host that DNS could not carry, and of a port that is no number
        return False
    return bool(host) and port != 0 and parts.path in {"", "/"} and not parts.query + parts.fragment


def mailbox(text: str) -> Address:
    """`Shop <no-reply@shop.example>` or an address alone, with the domain as DNS has it.

    Any domain will do, since mail inside a company may have one that the world doesn't know. Raises
    `ValueError`, which does not quote the text.
    """
    written = _WRITTEN_MAILBOX.fullmatch(text.strip()) if text.isprintable() else None
    name, spec = written.group("name", "spec") if written else (None, "")
    try:
        address = Address(addr_spec=spec)
        domain = address.domain.encode("idna").decode()
    except (ValueError, IndexError, MessageError):
        raise ValueError("must be an address such as `Shop <no-reply@shop.example>`") from None
    return Address((name or "").strip(' "'), address.username, domain)


def sender_address(value: str) -> str:
    """Refuse what mail cannot come from."""
    mailbox(value)
    return value


type Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))]

type Retention = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta(0))]
"""How long something is kept; zero is for ever."""


def keys_of(model: type[BaseModel], prefix: str = PREFIX) -> Iterator[str]:
    """Every environment variable that the model reads, without the `_FILE` forms."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, f"{key}__")
        else:
            yield key


def misread_sections(model: type[BaseModel], environ: Mapping[str, str]) -> list[FieldError]:
    """The sections that are given as a whole and hold no JSON."""
    detail = "a section given as a whole must be a JSON object"
    given = [key for key in _sections_of(model) if key in environ]
    return [
        FieldError(key, InvalidSettings.code, detail) for key in given if not _is_json(environ[key])
    ]


def _sections_of(model: type[BaseModel], prefix: str = PREFIX) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"{prefix}{name.upper()}"
            yield from _sections_of(field.annotation, f"{prefix}{name.upper()}__")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def unknown_keys_of(
    model: type[BaseModel], environ: Mapping[str, str]
) -> Iterator[tuple[str, str | None]]:
    """Keys outside the model's sections that it doesn't read, each with the nearest one it does."""
    known = list(keys_of(model))
    sections = {f"{PREFIX}{name.upper()}" for name in model.model_fields} - set(known)
    inside = tuple(f"{section}__" for section in sections)
    for key in sorted(environ):
        if not key.startswith(PREFIX) or key in EXTRA_KEYS or key in sections:
            continue
        if key.removesuffix("_FILE") in known or key.startswith(inside):
            continue
        yield key, _nearest(key, known)


def _nearest(key: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, known, 1)), None)


def faulty(faults: list[FieldError]) -> InvalidSettings:
    """The error that names all of them."""
    text = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults)
    return InvalidSettings(text, errors=faults)


def _with_files(model: type[BaseModel], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with each `KEY_FILE` replaced by `KEY` and the file's content."""
    resolved = dict(environ)
    faults = []
    for key in keys_of(model):
        path = resolved.pop(f"{key}_FILE", None)
        if path is None:
            continue
        if key in resolved:
            detail = f"{key} and {key}_FILE are both set; unset one"
            faults.append(FieldError(key, InvalidSettings.code, detail))
            continue
        try:
            resolved[key] = _content(path)
        except (OSError, ValueError) as error:
            # Neither the path, which may be a secret set in the wrong variable, nor the content.
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text of at most 1 MiB"
            detail = f"cannot be read: {reason}"
            faults.append(FieldError(f"{key}_FILE", InvalidSettings.code, detail))
    if faults:
        raise faulty(faults)
    return resolved


def _content(path: str) -> str:
    with Path(path).open("rb") as file:
        content = file.read(LONGEST_FILE + 1)
    if len(content) > LONGEST_FILE:
        raise ValueError("too long")
    return content.decode("utf-8").strip("\r\n")


class EnvironmentVariables(EnvSettingsSource):
    """pydantic-settings' own source, on an environment whose `_FILE` keys are resolved."""

    @override
    def _load_env_vars(self) -> Mapping[str, str | None]:
        ours = {key: value for key, value in os.environ.items() if _is_ours(key)}
        return {key.lower(): value for key, value in _with_files(self.settings_cls, ours).items()}


def _is_ours(key: str) -> bool:
    """`jangada_api__port` is another variable than `JANGADA_API__PORT`, and nobody's."""
    return key.startswith(PREFIX) and key == key.upper()


def explain(error: ValidationError, model: type[BaseSettings]) -> InvalidSettings:
    """The same faults, each with its key and without its value."""
    known = list(keys_of(model))
    faults: dict[str, FieldError] = {}
    for fault in error.errors(include_input=False, include_url=False, include_context=False):
        parts = [str(part).upper() for part in fault["loc"]]
        key = _variable(parts, known)
        detail = fault["msg"]
        if fault["type"] == "extra_forbidden":
            match = _nearest(key, known)
            detail = f"no such setting; did you mean {match}?" if match else "no such setting"
        # A value that may be of several types has one fault per type: the first says enough.
        faults.setdefault(key, FieldError(key, InvalidSettings.code, detail))
    return faulty(list(faults.values()))


def _variable(parts: list[str], known: list[str]) -> str:
    """The variable that a fault lies in: a list's or an object's own parts are none."""
    keys = [PREFIX + "__".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return next((key for key in keys if key in known), keys[-1])
