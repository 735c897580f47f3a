"""The Lua scripts: one for each step of the protocol, so that it happens whole or not at all."""

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

_FOLDER: Final = files("jangada_queue") / "lua"
_NEEDS: Final = re.compile(r"-- needs (.*)\n")
_FLAGS: Final = re.compile(r"(?:-- needs .*\n)?-- flags (.*)\n")
"""https://valkey.io/topics/lua-api/#script_flags: a server that is full refuses what takes memory,
but for scripts that say they may. Ours do that help to empty it, or whose keys don't grow with it.
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name under which a server remembers it."""

    text: str
    sha: str


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


@cache
def script(name: str) -> Script:
    """The script `lua/<name>.lua`, in front of it the prelude and what its first lines ask for."""
    own = _read(name)
    needed = _NEEDS.match(own)
    parts = ["prelude", *(needed[1].split(", ") if needed else ())]
    flags = _FLAGS.match(own)
    begin = [f"#!lua flags={flags[1]}"] if flags else []
    text = "\n".join([*begin, *map(_read, parts), own])
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
