"""What a job's row carries as JSON: arguments, metadata, and what its handler answered."""

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel

from jangada.errors import FieldError
from jangada.jobs.errors import InvalidConcurrencyKey, JobNotStorable, JobTooLarge
from jangada.jobs.schemas import JobArgs

MAX_ARGS_BYTES: Final = 64 * 1024
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_RESULT_BYTES: Final = 256 * 1024
MAX_KEY_LENGTH: Final = 200

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
    try:
        encoded = json.dumps(args, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    except ValueError as error:
        detail = f"The arguments of {kind} hold a number that JSON doesn't have."
        fault = FieldError("/args", JobNotStorable.code, detail)
        raise JobNotStorable(detail, errors=[fault]) from error
    _check_args(kind, encoded.encode("utf-8", "replace"))


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
    if key is not None and (len(key) > MAX_KEY_LENGTH or "\0" in key):
        detail = f"A concurrency key has at most {MAX_KEY_LENGTH} characters, none of them NUL."
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
