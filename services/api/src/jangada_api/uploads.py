"""Turns a request into a file that is being sent, reading nothing of it before it must.

Guarantees
- Whoever asks for `IncomingDep` has the caller signed in, and media type and announced length
  checked, with 0 bytes of the body read; a client that said `Expect: 100-continue` sends none.
- The body streams: a raw one as it comes, a form's one field `file` through a parser that holds no
  more than a part's header. Nothing is copied, spooled or kept.
- What is too large ends with 413 and what stalls with 408 (the middleware's `allow_body`), what is
  no form with one file with 422, a sender that leaves with nothing.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from jangada.errors import FieldError, Invalid
from jangada.files.names import safe_media_type, safe_name
from jangada.files.schemas import Incoming, Label
from jangada_api.middleware import allow_body
from jangada_api.principal import PrincipalDep
from jangada_api.problems import (
    RequestRefused,
    refuse_content_encoding,
    too_large,
    unsupported_media_type,
)
from jangada_api.state import RuntimeDep

FORM: Final = "multipart/form-data"
FIELD: Final = "file"
RAW_TYPES: Final = (
    "text/csv",
    "text/tab-separated-values",
    "text/plain",
    "application/octet-stream",
)
FRAME_BYTES: Final = 16 * 1024
"""What boundaries and headers may add to a form's file."""
MAX_PART_HEADERS: Final = 8
MAX_PART_HEADER_BYTES: Final = 4 * 1024

REQUEST_BODY: Final[Mapping[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "text/csv": {"schema": {"type": "string", "format": "binary"}},
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                    "required": [FIELD],
                }
            },
        },
    }
}
"""For a route's `openapi_extra`: FastAPI sees no body, since none is declared."""


class UploadMalformed(Invalid):
    """The body is no `multipart/form-data` with exactly one part, the field `file`."""

    code = "upload.malformed"


async def incoming_file(
    request: Request, runtime: RuntimeDep, _signed_in: PrincipalDep
) -> Incoming:
    """The file that the request sends. Raises 413 and 415 (`RequestRefused`), `UploadMalformed`."""
    limits = runtime.settings.storage
    media_type, options = _content_type(request)
    refuse_content_encoding(request)
    if media_type != FORM and media_type not in RAW_TYPES:
        raise unsupported_media_type(*RAW_TYPES, FORM)
    is_form = media_type == FORM
    frame = FRAME_BYTES if is_form else 0
    allow_body(
        request.scope,
        max_bytes=limits.max_upload_bytes + frame,
        chunk_timeout=limits.chunk_timeout,
    )
    if is_form:
        return FormFile(request, options.get(b"boundary", b""), limits.max_upload_bytes)
    return RawFile(request, media_type)


IncomingDep = Annotated[Incoming, Depends(incoming_file)]


def _content_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    media_type, options = parse_options_header(request.headers.get("content-type"))
    return media_type.decode("latin-1"), options


def _announced(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise RequestRefused(400, "The body ended before it was complete.") from None


class RawFile:
    """A body that is the file. `Content-Disposition` may say its name."""

    def __init__(self, request: Request, media_type: str) -> None:
        self._request = request
        self.announced_bytes = _announced(request)
        disposition = request.headers.get("content-disposition", "").encode("latin-1")
        self.label = Label(_file_name(disposition), media_type)

    def chunks(self) -> AsyncIterator[bytes]:
        return _body(self._request)


class FormFile:
    """A form whose one part is the file."""

    def __init__(self, request: Request, boundary: bytes, max_bytes: int) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._part = _Part()
        self._parser = _parser(boundary, self._part)
        announced = _announced(request)
        self.announced_bytes = None if announced is None else min(announced, max_bytes)

    @property
    def label(self) -> Label:
        return self._part.label

    async def chunks(self) -> AsyncIterator[memoryview]:
        size = 0
        async for data in _body(self._request):
            for piece in self._parse(data):
                size += piece.nbytes
                if size > self._max_bytes:
                    raise too_large(self._max_bytes)
                yield piece
        if not self._part.is_complete:
            raise UploadMalformed("The form ends before its closing boundary.")

    def _parse(self, data: bytes) -> list[memoryview]:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise UploadMalformed("The body is not well-formed multipart/form-data.") from error
        return self._part.take()


def _parser(boundary: bytes, part: "_Part") -> MultipartParser:
    if not boundary:
        raise UploadMalformed("The Content-Type names no boundary.")
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": part.begin,
                "on_header_field": part.header_name,
                "on_header_value": part.header_value,
                "on_header_end": part.end_header,
                "on_headers_finished": part.end_headers,
                "on_part_data": part.data,
                "on_end": part.end,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )
    except FormParserError as error:
        raise UploadMalformed("The boundary is too long.") from error


class _Part:
    """The form's one part, as the parser calls it out; anything else is refused at its headers."""

    def __init__(self) -> None:
        self.label = Label(safe_name(""), safe_media_type(""))
        self.is_complete = False
        self._has_begun = False
        self._pieces: list[memoryview] = []
        self._name = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}

    def take(self) -> list[memoryview]:
        """What came of the content since the last look."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def begin(self) -> None:
        if self._has_begun:
            raise _unexpected("Send one part only, the file.")
        self._has_begun = True

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def end_headers(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition.decode("latin-1"))
        if kind != b"form-data" or options.get(b"name") != FIELD.encode():
            raise _unexpected(f"Send the file as the field `{FIELD}`.")
        media_type = self._headers.get(b"content-type", b"").decode("latin-1")
        self.label = Label(_file_name(disposition), safe_media_type(media_type))

    def data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(memoryview(data)[start:end])

    def end(self) -> None:
        if not self._has_begun:
            raise _unexpected(f"The form has no field `{FIELD}`.")
        self.is_complete = True


def _unexpected(detail: str) -> UploadMalformed:
    return UploadMalformed(detail, errors=[FieldError(f"/{FIELD}", UploadMalformed.code, detail)])


def _file_name(disposition: bytes) -> str:
    """The `filename` of a Content-Disposition: UTF-8 as browsers send it, else Latin-1."""
    raw = parse_options_header(disposition.decode("latin-1"))[1].get(b"filename", b"")
    try:
        return safe_name(raw.decode())
    except UnicodeDecodeError:
        return safe_name(raw.decode("latin-1"))
