"""The Lua scripts: one for each step of the protocol, so that it happens whole or not at all."""

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

_FOLDER: Final = files("jangada_queue") / "lua"
_NEEDS: Final = re.compile(r"-- needs (.*)\n")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name under which a server remembers it."""

    text: str
    sha: str


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


@cache
def script(name: str) -> Script:
    """The script `lua/<name>.lua`, in front of it the prelude and what its first line needs."""
    own = _read(name)
    needed = _NEEDS.match(own)
    parts = ["prelude", *(needed[1].split(", ") if needed else ())]
    text = "\n".join([*map(_read, parts), own])
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
