"""What a job's row carries as JSON: arguments, metadata, and what its handler answered."""

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel

from jangada.errors import FieldError
from jangada.jobs.errors import JobNotStorable, JobTooLarge
from jangada.jobs.schemas import JobArgs

MAX_ARGS_BYTES: Final = 64 * 1024
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_RESULT_BYTES: Final = 256 * 1024

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
        _check(encoded.encode(), MAX_ARGS_BYTES, f"The arguments of {args.kind}", "/args")
    return encoded


def encode_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as it is stored. Raises `JobTooLarge` beyond 16 KiB, `JobNotStorable`."""
    if not metadata:
        return {}
    encoded = json.dumps(dict(metadata)).encode()
    _check(encoded, MAX_METADATA_BYTES, "The metadata", "/metadata")
    stored: dict[str, Any] = json.loads(encoded)
    return stored


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
