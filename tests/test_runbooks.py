"""What somebody is told to do in the night can be done: commands, options and pages exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
from toolchain import ROOT

from jangada.cli import build

BOOKS: Final = sorted((ROOT / "docs/runbooks").glob("*.md"))
CODE: Final = re.compile(r"```\n(?P<block>.*?)```|`(?P<inline>[^`\n]+)`", re.DOTALL)
OURS: Final = re.compile(r"(?:^|-- |\$ )jangada (?P<words>[a-z][^|]*)")
LINK: Final = re.compile(r"\]\((?P<page>[^)#]*)(?:#(?P<section>[^)]*))?\)")


def commands(book: Path) -> Iterator[str]:
    """Calls of `jangada`, without the word itself."""
    for found in CODE.finditer(book.read_text("utf-8")):
        for line in (found["block"] or found["inline"]).splitlines():
            if ours := OURS.search(line):
                yield ours["words"]


def fault(words: list[str]) -> str | None:
    """What of a call doesn't exist, if anything."""
    command: Any = typer.main.get_command(build(words[0]))
    while (inside := getattr(command, "commands", None)) is not None and words:
        if words[0] not in inside:
            return words[0]
        command, words = inside[words[0]], words[1:]
    options = {name for each in command.params for name in each.opts}
    return next((one for one in words if one.startswith("-") and one not in options), None)


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_every_command_of_a_runbook_exists(book: Path) -> None:
    assert [(call, wrong) for call in commands(book) if (wrong := fault(call.split()))] == []


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert fault(["queue", "statistics"]) == "statistics"
    assert fault(["jobs", "list", "--status", "dead"]) == "--status"
    assert fault(["jobs", "list", "--state", "discarded"]) is None


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in titles}


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_every_page_that_a_runbook_names_is_there(book: Path) -> None:
    for found in LINK.finditer(book.read_text("utf-8")):
        page = book if not found["page"] else (book.parent / found["page"]).resolve()
        assert page.is_file(), found[0]
        assert not found["section"] or found["section"] in anchors(page), found[0]


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_every_code_of_an_error_is_one(book: Path) -> None:
    known = (ROOT / "docs/errors.md").read_text("utf-8")
    domains = set(re.findall(r"`([a-z_]+)\.[a-z_]+` \|", known))
    text = book.read_text("utf-8")
    for domain, name in re.findall(r"`([a-z_]+)\.([a-z_]+)`", text):
        assert domain not in domains or f"`{domain}.{name}`" in known, f"{domain}.{name}"
