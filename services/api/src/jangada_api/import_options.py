"""The query parameters of an import: how the file is to be read and merged."""

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import Depends, Query
from pydantic import TypeAdapter, ValidationError

from jangada.contacts.errors import (
    UnknownDelimiter,
    UnknownEncoding,
    UnknownMapping,
    UnknownRegion,
)
from jangada.contacts.phones import is_region
from jangada.contacts.reading.columns import Field
from jangada.contacts.reading.decoding import MAX_ENCODING_CHARS, known_encoding
from jangada.contacts.schemas import Delimiter, ImportOptions, OnConflict
from jangada.errors import FieldError
from jangada_api.state import RuntimeDep

MAX_MAPPING_CHARS: Final = 16_384
MAPPING_EXAMPLE: Final = '{"Correo": "email", "Teléfono": "phone", "Interno": null}'

_NAMES: Final[Mapping[str, Delimiter]] = {
    ",": ",",
    ";": ";",
    "\t": "\t",
    "|": "|",
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "pipe": "|",
}
_MAPPING: Final = TypeAdapter(dict[str, Field | None])


_DelimiterName = Annotated[
    str | None,
    Query(
        description="`comma`, `semicolon`, `tab` or `pipe`, or the character itself. "
        "Default: what the file shows.",
    ),
]
_EncodingName = Annotated[
    str | None,
    Query(
        max_length=MAX_ENCODING_CHARS,
        description="Such as `utf-8` or `windows-1252`. Default: what the file shows.",
    ),
]
_MappingText = Annotated[
    str | None,
    Query(
        max_length=MAX_MAPPING_CHARS,
        description="JSON: column name → field (`name`, `given_name`, `middle_name`, "
        "`family_name`, `email`, `phone`, `company`, `attribute`), or null to leave the column "
        "out. What it doesn't name is told from the column's name.",
        examples=[MAPPING_EXAMPLE],
    ),
]
_Region = Annotated[
    str | None,
    Query(
        description="Country (ISO 3166) of phones that are written without a country code. "
        "Default: a setting.",
    ),
]
_OnConflict = Annotated[
    OnConflict,
    Query(
        description="For a row whose contact exists: `update` takes over its filled cells, "
        "`skip` leaves the contact as it is.",
    ),
]
_ValidateOnly = Annotated[
    bool, Query(description="Count and reject as an import would, and change no contact.")
]


def get_import_options(
    runtime: RuntimeDep,
    *,
    delimiter: _DelimiterName = None,
    encoding: _EncodingName = None,
    mapping: _MappingText = None,
    default_region: _Region = None,
    on_conflict: _OnConflict = OnConflict.UPDATE,
    validate_only: _ValidateOnly = False,
) -> ImportOptions:
    """Raises the errors of each parameter, each named."""
    settings = runtime.settings.contacts
    return ImportOptions(
        delimiter=None if delimiter is None else _delimiter(delimiter),
        encoding=None if encoding is None else _encoding(encoding),
        mapping=None if mapping is None else _mapping(mapping),
        default_region=_region(
            settings.default_region if default_region is None else default_region
        ),
        on_conflict=on_conflict,
        validate_only=validate_only,
    )


ImportOptionsDep = Annotated[ImportOptions, Depends(get_import_options)]


def _delimiter(name: str) -> Delimiter:
    if name not in _NAMES:
        detail = f"{name!r} is no delimiter; say comma, semicolon, tab or pipe."
        raise UnknownDelimiter(detail, errors=[_fault("delimiter", UnknownDelimiter.code, detail)])
    return _NAMES[name]


def _encoding(name: str) -> str:
    try:
        return known_encoding(name)
    except UnknownEncoding as error:
        fault = _fault("encoding", error.code, error.detail)
        raise UnknownEncoding(error.detail, errors=[fault]) from error


def _mapping(text: str) -> dict[str, Field | None]:
    try:
        mapping = _MAPPING.validate_json(text)
    except ValidationError as error:
        columns = [fault["loc"][0] for fault in error.errors(include_input=False) if fault["loc"]]
        wrong = f" Not so: {', '.join(map(repr, columns))}." if columns else ""
        detail = f"The mapping must be a JSON object of columns and fields: {', '.join(Field)}."
        raise _unknown_mapping(detail + wrong) from error
    if any("\0" in column for column in mapping):
        raise _unknown_mapping("The mapping names a column with a NUL, which no file may hold.")
    return mapping


def _unknown_mapping(detail: str) -> UnknownMapping:
    return UnknownMapping(detail, errors=[_fault("mapping", UnknownMapping.code, detail)])


def _region(region: str) -> str:
    if not is_region(region):
        detail = f"{region!r} is no country with a calling code; say such as BR."
        raise UnknownRegion(detail, errors=[_fault("default_region", UnknownRegion.code, detail)])
    return region


def _fault(parameter: str, code: str, detail: str) -> FieldError:
    return FieldError(f"?{parameter}", code, detail)
