"""What goes into an image: the files that `.dockerignore` lets in, and a digest of them."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from toolchain import ROOT

IGNORE: Final = ".dockerignore"
DOCKERFILE: Final = "services/Dockerfile"

type Pattern = tuple[re.Pattern[str], bool]


def patterns(root: Path = ROOT) -> list[Pattern]:
    """The lines of `.dockerignore`, each with whether it lets in."""
    lines = (line.strip() for line in (root / IGNORE).read_text("utf-8").splitlines())
    return [_compiled(line) for line in lines if line and not line.startswith("#")]


def _compiled(line: str) -> Pattern:
    text = line.removeprefix("!")
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", text)
    special = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(special.get(part) or _literal(part) for part in parts)), text != line


def _literal(part: str) -> str:
    return part if part.startswith("[") else re.escape(part)


def is_let_in(path: str, listed: Sequence[Pattern]) -> bool:
    """Whether the last line that matches the path, or a folder that it is in, lets it in."""
    folders = path.split("/")
    places = ["/".join(folders[:count]) for count in range(1, len(folders) + 1)]
    lets_in = True
    for pattern, allows in listed:
        if any(pattern.fullmatch(place) for place in places):
            lets_in = allows
    return lets_in


def files(root: Path = ROOT) -> Iterator[str]:
    """All that is sent to the builder, sorted. A folder that is out isn't looked into."""
    listed = patterns(root)
    for folder, below, names in os.walk(root):
        inside = Path(folder).relative_to(root).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        below[:] = sorted(name for name in below if is_let_in(prefix + name, listed))
        yield from sorted(prefix + name for name in names if is_let_in(prefix + name, listed))


def fingerprint(root: Path = ROOT) -> str:
    """Of the builder's instructions and all that they may copy."""
    digest = hashlib.sha256()
    for name in (IGNORE, DOCKERFILE, *files(root)):
        path = root / name
        is_program = os.access(path, os.X_OK)
        digest.update(f"{name}\0{is_program}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
