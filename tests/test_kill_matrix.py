"""What the kill matrix says is shown by a test is shown by one that exists."""

import re

from toolchain import ROOT

PAGE = (ROOT / "docs/kill-matrix.md").read_text("utf-8")
NOTHING_TO_SHOW = "it keeps nothing of ours"


def rows() -> list[list[str]]:
    """The cells of each row, but for heads and their rules."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and line[2] != "|"]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_test_that_is_named_exists() -> None:
    folders = (*ROOT.glob("packages/*/tests"), *ROOT.glob("services/*/tests"), ROOT / "tests")
    sources = [path.read_text("utf-8") for each in folders for path in each.rglob("test_*.py")]
    known = set(re.findall(r"def (test_\w+)", "\n".join(sources)))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named - known == set()
    assert len(named) > 40


def test_every_storm_that_is_named_exists() -> None:
    storms = (ROOT / "bench/chaos").glob("platform_*.py")
    known = {name for path in storms for name in re.findall(r'"(P\d+)"', path.read_text("utf-8"))}
    assert set(re.findall(r"\bP\d+\b", PAGE)) - known == set()


def test_every_row_says_what_shows_it_or_that_nothing_does() -> None:
    assert len(rows()) > 25
    for cells in rows():
        shown = cells[-1]
        assert re.search(r"`test_|\bP\d|[Nn]ot tested", shown) or NOTHING_TO_SHOW in cells[1], cells
