"""Reads settings from the environment: files in place of values, faults that name their key.

Any key also works with `_FILE` appended: its value is then that file's content, as mounted secrets
are. A fault names the key and never the value, which may be a secret.
"""

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, override

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource

from jangada.errors import FieldError, Invalid

PREFIX = "JANGADA_"

EXTRA_KEYS = frozenset({"JANGADA_TOKEN"})
"""Variables that commands read and that are no settings."""

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class InvalidSettings(Invalid):
    """The environment holds wrong settings; `errors` names each key."""

    code = "settings.invalid"


def _duration(value: object) -> object:
    """Plain numbers are seconds; `500ms`, `30s`, `15m`, `1h`, `7d` and ISO 8601 are understood."""
    if not isinstance(value, str):
        return value
    for suffix, unit in {**UNITS, "": 1}.items():
        number = value.removesuffix(suffix).strip()
        if value.endswith(suffix) and number.replace(".", "", 1).isdigit():
            return timedelta(seconds=float(number) * unit)
    return value


def comma_separated(value: object) -> object:
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def json_object(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


type Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))]


def keys_of(model: type[BaseModel], prefix: str = PREFIX) -> Iterator[str]:
    """Every environment variable that the model reads, without the `_FILE` forms."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, f"{key}__")
        else:
            yield key


def unknown_keys_of(
    model: type[BaseModel], environ: Mapping[str, str]
) -> Iterator[tuple[str, str | None]]:
    """Keys outside the model's sections that it doesn't read, each with the nearest one it does."""
    known = list(keys_of(model))
    sections = tuple(f"{PREFIX}{name.upper()}" for name in model.model_fields)
    inside = tuple(f"{section}__" for section in sections)
    for key in sorted(environ):
        if not key.startswith(PREFIX) or key in EXTRA_KEYS or key in sections:
            continue
        if key.removesuffix("_FILE") in known or key.startswith(inside):
            continue
        yield key, _nearest(key, known)


def _nearest(key: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, known, 1)), None)


def _fault(key: str, detail: str) -> InvalidSettings:
    return InvalidSettings(f"{key}: {detail}", errors=[FieldError(key, "settings.invalid", detail)])


def _with_files(model: type[BaseModel], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with each `KEY_FILE` replaced by `KEY` and the file's content."""
    resolved = dict(environ)
    for key in keys_of(model):
        path = resolved.pop(f"{key}_FILE", None)
        if path is None:
            continue
        if key in resolved:
            raise _fault(key, f"{key} and {key}_FILE are both set; unset one")
        try:
            resolved[key] = Path(path).read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise _fault(f"{key}_FILE", f"cannot be read: {error}") from error
    return resolved


class EnvironmentVariables(EnvSettingsSource):
    """pydantic-settings' own source, on an environment whose `_FILE` keys are resolved."""

    @override
    def _load_env_vars(self) -> Mapping[str, str | None]:
        resolved = _with_files(self.settings_cls, os.environ)
        return {key.lower(): value for key, value in resolved.items()}


def explain(error: ValidationError, model: type[BaseSettings]) -> InvalidSettings:
    """The same faults, each with its key and without its value."""
    known = list(keys_of(model))
    faults = []
    for fault in error.errors(include_input=False, include_url=False, include_context=False):
        key = PREFIX + "__".join(str(part).upper() for part in fault["loc"])
        detail = fault["msg"]
        if fault["type"] == "extra_forbidden":
            match = _nearest(key, known)
            detail = f"no such setting; did you mean {match}?" if match else "no such setting"
        faults.append(FieldError(key, "settings.invalid", detail))
    text = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults)
    return InvalidSettings(text, errors=faults)
