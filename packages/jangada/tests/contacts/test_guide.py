"""What the guide and the examples promise."""

from pathlib import Path

import pytest

from jangada.contacts.errors import UnreadableFile
from jangada.contacts.reading.rows import Limits
from jangada.contacts.reading.sheets import ReadingOptions, Sheet
from jangada.contacts.reasons import Reason

DOCS = Path(__file__).parents[4] / "docs"
GUIDE = (DOCS / "guides" / "importing-contacts.md").read_text("utf-8")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_in_the_guide(reason: Reason) -> None:
    assert f"| `{reason}` |" in GUIDE


@pytest.mark.parametrize("error", UnreadableFile.__subclasses__())
def test_every_fault_of_a_file_is_in_the_guide(error: type[UnreadableFile]) -> None:
    assert f"| `{error.code}` |" in GUIDE


@pytest.mark.parametrize(
    ("name", "encoding", "delimiter", "good", "bad"),
    [
        ("apple", "utf-8", ",", 3, []),
        ("excel-pt", "windows-1252", ";", 4, ["invalid_email"]),
        ("google", "utf-8", ",", 5, ["invalid_email", "invalid_phone", "missing_key"]),
        ("hubspot", "utf-8", ",", 4, []),
        ("outlook", "utf-8", ",", 4, ["invalid_email"]),
    ],
)
def test_the_examples_are_read_as_they_are_meant(
    *, name: str, encoding: str, delimiter: str, good: int, bad: list[str]
) -> None:
    content = (DOCS / "examples" / f"{name}.csv").read_bytes()
    sheet = Sheet([content], ReadingOptions("BR", Limits(512, 10_000)))
    checked = list(sheet.checked())
    assert (sheet.encoding, sheet.delimiter) == (encoding, delimiter)
    assert sum(batch.good for batch in checked) == good
    assert [reject.reason for batch in checked for reject in batch.rejects] == bad
