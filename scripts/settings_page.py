"""Writes `docs/settings.md` and `.env.example` from the settings' own descriptions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal, TypeAliasType, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from jangada.config import Settings
from jangada.environment import PREFIX, UNITS, Duration

PREFACE = """\
# Settings

Every setting is an environment variable. Sections nest with two underscores. Any variable also
works with `_FILE` appended: its value is then read from that file, as mounted secrets are. A
wrong value or an unknown name inside a section stops the start and is named;
`jangada config check` says the same without starting anything.

Durations are seconds, or a number with a unit (`500ms`, `30s`, `15m`, `1h`, `7d`), or ISO 8601.
Lists are separated by commas. `jangada up` sets what it needs by itself: for a first run on a
laptop none of these is required.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable, as a person reads about it."""

    key: str
    description: str
    kind: str
    default: str


@dataclass(frozen=True, slots=True)
class Section:
    """The settings under one heading."""

    title: str
    about: str
    settings: list[Setting]


def duration(value: timedelta) -> str:
    """The shortest way to write it: `15m`, `7d`, `250ms`."""
    for unit, seconds in sorted(UNITS.items(), key=lambda item: -item[1]):
        number = value.total_seconds() / seconds
        if number >= 1 and number == int(number):
            return f"{int(number)}{unit}"
    return f"{value.total_seconds()}s"


def default_of(field: FieldInfo) -> str:
    """The default as it would be written in the environment; empty where there is none."""
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    match value:
        case None:
            text = ""
        case bool() | dict():
            text = json.dumps(value) if value != {} else ""
        case timedelta():
            text = duration(value)
        case SecretStr():
            text = value.get_secret_value()
        case list():
            text = ",".join(str(part) for part in value)
        case _:
            text = str(value)
    return text


def _bounds(field: FieldInfo) -> str:
    limits = {}
    for each in field.metadata:
        limits.update({name: getattr(each, name) for name in ("ge", "le") if hasattr(each, name)})
    match limits:
        case {"ge": low, "le": high}:
            return f", {low:,} to {high:,}"
        case {"ge": low}:
            return f", at least {low:,}"
    return ""


def kind_of(field: FieldInfo) -> str:
    """What kind of value it takes, in words."""
    annotation: Any = field.annotation
    options = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{option}`" for option in options)
    if type(None) in get_args(annotation):
        annotation = options[0]
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(f"`{member}`" for member in annotation)
    if annotation is Duration or isinstance(annotation, TypeAliasType):
        return "duration"
    names = {
        int: f"integer{_bounds(field)}",
        bool: "`true` or `false`",
        SecretStr: "secret",
        str: "text",
    }
    origin = {list: "list", dict: "JSON object"}
    return names.get(annotation) or origin[get_origin(annotation)]


def _leaf(key: str, field: FieldInfo) -> Setting:
    return Setting(key, field.description or "", kind_of(field), default_of(field))


def sections(
    model: type[BaseModel] = Settings, prefix: str = PREFIX, title: str = "General"
) -> Iterator[Section]:
    """The settings of a model under its own heading, then those of its sections."""
    fields = {f"{prefix}{name.upper()}": field for name, field in model.model_fields.items()}
    nested = {key: field.annotation for key, field in fields.items() if _is_section(field)}
    about = "" if model is Settings else (model.__doc__ or "")
    leaves = [_leaf(key, field) for key, field in fields.items() if key not in nested]
    yield Section(title, about, leaves)
    for key, annotation in nested.items():
        words = key.removeprefix(PREFIX).replace("__", ": ").capitalize()
        yield from sections(annotation, f"{key}__", words)  # type: ignore[arg-type] # a model


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _entry(setting: Setting) -> str:
    default = f"default `{setting.default}`" if setting.default else "no default"
    return f"**`{setting.key}`** ({setting.kind}; {default})  \n{setting.description}\n"


def page() -> str:
    """`docs/settings.md`."""
    parts = [PREFACE]
    for section in sections():
        parts.append(f"## {section.title}\n")
        parts += [f"{section.about}\n"] if section.about else []
        parts += [_entry(setting) for setting in section.settings]
    return "\n".join(parts)


def example() -> str:
    """`.env.example`: every setting, commented out, with its default."""
    lines = [
        "# Every setting with its default; docs/settings.md explains them. Generated: make docs."
    ]
    for section in sections():
        lines += ["", f"# {section.title}"]
        lines += [f"#{setting.key}={setting.default}" for setting in section.settings]
    return "\n".join(lines) + "\n"
