"""File names that come from outside, made safe to keep and to show.

A name never reaches the store: blobs are named by ids. It is shown to people, logged nowhere, and
sent back in `Content-Disposition`, so nothing in it may act as a path, a line break or a change of
the writing direction.
"""

import re
import unicodedata
from typing import Final

MAX_BYTES: Final = 255  # what common file systems take
MAX_EXTENSION: Final = 16
DEFAULT: Final = "upload"
_RESERVED: Final = re.compile(r'[<>:"|?*]')
_MEDIA_TYPE: Final = re.compile(
    r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}"
)
UNKNOWN_MEDIA_TYPE: Final = "application/octet-stream"


def safe_name(raw: str) -> str:
    """The last part of the path, without anything invisible; `upload` where nothing is left."""
    name = re.split(r"[/\\]", raw)[-1]
    visible = unicodedata.normalize("NFC", "".join(char for char in name if _is_visible(char)))
    return _shortened(_RESERVED.sub("_", visible).strip(" .")) or DEFAULT


def _is_visible(char: str) -> bool:
    """No controls, formats (they turn the direction), surrogates, private use; no line breaks."""
    category = unicodedata.category(char)
    return not category.startswith("C") and category not in {"Zl", "Zp"}


def _shortened(name: str) -> str:
    """At most 255 bytes of UTF-8; a short extension survives."""
    if len(name.encode()) <= MAX_BYTES:
        return name
    stem, _, extension = name.rpartition(".")
    if not stem or len(extension) > MAX_EXTENSION:
        stem, suffix = name, ""
    else:
        suffix = f".{extension}"
    room = MAX_BYTES - len(suffix.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + suffix


def safe_media_type(raw: str) -> str:
    """The type without its parameters; `application/octet-stream` for what is no media type."""
    essence = raw.partition(";")[0].strip().lower()
    return essence if _MEDIA_TYPE.fullmatch(essence) else UNKNOWN_MEDIA_TYPE
