"""The Lua scripts: one for each step of the protocol, so that it happens whole or not at all."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

_FOLDER: Final = files("jangada_queue") / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name under which a server remembers it."""

    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script `lua/<name>.lua` with what all of them share in front."""
    parts = [(_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", name)]
    text = "\n".join(parts)
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
