"""What a job's row carries as JSON: arguments, metadata, and what its handler answered."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel, ValidationError

from jangada.errors import FieldError, json_pointer
from jangada.jobs.errors import (
    ArgumentsNotUnderstood,
    InvalidConcurrencyKey,
    JobNotStorable,
    JobTooLarge,
)
from jangada.jobs.schemas import JobArgs

MAX_ARGS_BYTES: Final = 64 * 1024
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_RESULT_BYTES: Final = 256 * 1024
MAX_KEY_LENGTH: Final = 200
MAX_DEPTH: Final = 64
"""Of arguments that come as JSON; it takes a level of the stack to write and to read each."""

_UNSTORABLE: Final = re.compile("[\\0\ud800-\udfff]")

type Result = BaseModel | Mapping[str, Any] | None


def encode_args(args: JobArgs) -> dict[str, Any]:
    """Arguments as they are stored. Raises `JobTooLarge` beyond 64 KiB, `JobNotStorable`."""
    stored: dict[str, Any] = json.loads(args_json(args))  # orjson makes floats of long integers
    return stored


def args_json(args: JobArgs) -> str:
    """As `encode_args`, as text."""
    encoded = args.model_dump_json()
    # Most need no closer look; a character has at most four bytes.
    if len(encoded) > MAX_ARGS_BYTES // 4 or "\\u0000" in encoded:
        _check_args(args.kind, encoded.encode())
    return encoded


def decode_args[A: JobArgs](model: type[A], stored: Mapping[str, Any]) -> A:
    """Arguments as their handler takes them. Raises `ArgumentsNotUnderstood`, naming each fault."""
    try:
        return model.model_validate(stored)
    except ValidationError as error:
        faults = [
            FieldError(json_pointer(fault["loc"]), fault["type"], fault["msg"])
            for fault in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        text = "; ".join(f"{fault.pointer or 'all'}: {fault.detail}" for fault in faults)
        detail = f"This release of {model.kind} doesn't take its arguments: {text}."
        raise ArgumentsNotUnderstood(detail, errors=faults) from None


def encode_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as it is stored. Raises `JobTooLarge` beyond 16 KiB, `JobNotStorable`."""
    if not metadata:
        return {}
    encoded = json.dumps(dict(metadata)).encode()
    _check(encoded, MAX_METADATA_BYTES, "The metadata", "/metadata")
    stored: dict[str, Any] = json.loads(encoded)
    return stored


def check_args(kind: str, args: Mapping[str, Any]) -> None:
    """That arguments which are JSON already can be stored. Raises as `encode_args`."""
    if _is_deeper(args, MAX_DEPTH):
        raise _not_storable(kind, f"are nested more than {MAX_DEPTH} levels deep")
    try:
        encoded = json.dumps(args, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        _check_args(kind, encoded.encode())
    except UnicodeEncodeError as error:
        raise _not_storable(kind, "hold half of a character (a lone surrogate)") from error
    except ValueError as error:
        raise _not_storable(kind, "hold a number that JSON doesn't have") from error


def _not_storable(kind: str, why: str) -> JobNotStorable:
    detail = f"The arguments of {kind} {why}."
    return JobNotStorable(detail, errors=[FieldError("/args", JobNotStorable.code, detail)])


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, Mapping | list):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def _check_args(kind: str, encoded: bytes) -> None:
    _check(encoded, MAX_ARGS_BYTES, f"The arguments of {kind}", "/args")


def concurrency_key(args: JobArgs, given: str | None = None) -> str | None:
    """The key of a job: the one that is given, or what its kind makes of the arguments.

    Raises `InvalidConcurrencyKey`.
    """
    make = args.concurrency.key if args.concurrency else None
    key = make(args) if given is None and make is not None else given
    check_key(key)
    return key


def check_key(key: str | None) -> None:
    """Raises `InvalidConcurrencyKey`."""
    if key is not None and (len(key) > MAX_KEY_LENGTH or _UNSTORABLE.search(key)):
        detail = (
            f"A concurrency key has at most {MAX_KEY_LENGTH} characters, none of them NUL or half "
            "of one (a lone surrogate)."
        )
        fault = FieldError("/concurrency_key", InvalidConcurrencyKey.code, detail)
        raise InvalidConcurrencyKey(detail, errors=[fault])


def encode_result(result: Result) -> str | None:
    """A handler's result as JSON. Raises `JobTooLarge` beyond 256 KiB, `JobNotStorable`."""
    if result is None:
        return None
    value = result.model_dump(mode="json") if isinstance(result, BaseModel) else dict(result)
    encoded = orjson.dumps(value)
    _check(encoded, MAX_RESULT_BYTES, "The result", "/result")
    return encoded.decode()


def _check(encoded: bytes, at_most: int, what: str, pointer: str) -> None:
    if len(encoded) > at_most:
        detail = f"{what} are {len(encoded)} bytes of JSON; at most {at_most} fit."
        raise JobTooLarge(detail, errors=[FieldError(pointer, JobTooLarge.code, detail)])
    # An even number of backslashes before it makes \u0000 six harmless characters.
    if b"\\u0000" in encoded.replace(b"\\\\", b""):
        detail = f"{what} hold a NUL character, which PostgreSQL cannot store."
        raise JobNotStorable(detail, errors=[FieldError(pointer, JobNotStorable.code, detail)])
