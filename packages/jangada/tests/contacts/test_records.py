"""Lines, cells, and the line at which each record begins."""

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jangada.contacts.errors import RecordTooLong, UnbalancedQuote
from jangada.contacts.reading.records import MAX_RECORD_CHARS, LineSplitter, RecordReader

ENDS = ["\n", "\r\n", "\r"]


def pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def records(
    text: str, *, delimiter: str = ",", size: int = 5, piece: int = 1 << 16, skipped: int = 0
) -> list[tuple[int, list[str]]]:
    reader = RecordReader(LineSplitter().blocks(pieces(text, piece)), delimiter, skipped=skipped)
    return [
        pair for batch in reader.batches(size) for pair in zip(batch.lines, batch.rows, strict=True)
    ]


@pytest.mark.parametrize("end", ENDS)
def test_every_line_end_ends_a_record(end: str) -> None:
    assert records(f"a,b{end}c,d{end}{end}e,f") == [
        (1, ["a", "b"]),
        (2, ["c", "d"]),
        (3, []),
        (4, ["e", "f"]),
    ]


@pytest.mark.parametrize("end", ENDS)
def test_a_quoted_cell_keeps_its_line_breaks(end: str) -> None:
    text = f'a,"x{end}y"{end}"p{end}{end}q",b{end}c,d{end}'
    for piece in (1, 2, 3, 100):
        assert records(text, piece=piece) == [
            (1, ["a", f"x{end}y"]),
            (3, [f"p{end}{end}q", "b"]),
            (6, ["c", "d"]),
        ]


def test_line_numbers_go_on_over_batches_and_skipped_lines() -> None:
    text = 'a\n"b\nb"\nc\n"d\nd"\ne\n'
    expected = [(2, "a"), (3, "b\nb"), (5, "c"), (6, "d\nd"), (8, "e")]
    for size in range(1, 7):
        found = records(text, size=size, skipped=1)
        assert [(line, row[0]) for line, row in found] == expected


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('"say ""hi""",b', ['say "hi"', "b"]),
        ('5" pipe,b', ['5" pipe', "b"]),
        ('a, "b, c"', ["a", "b, c"]),
        ('"a" tail,b', ["a tail", "b"]),
        ("a\x0bb\u2028c\x85d,e", ["a\x0bb\u2028c\x85d", "e"]),
        ('"",', ["", ""]),
    ],
)
def test_cells_are_read_leniently(text: str, row: list[str]) -> None:
    assert records(text) == [(1, row)]


cells = st.text(st.sampled_from('ab,;"\n\r é\u2028'), max_size=6)
tables = st.lists(st.lists(cells, min_size=1, max_size=4), min_size=1, max_size=12)


@given(tables, st.sampled_from([",", ";", "\t", "|"]), st.integers(1, 40), st.integers(1, 6))
def test_what_is_written_is_read_again(
    rows: list[list[str]], delimiter: str, piece: int, size: int
) -> None:
    """Quoted in full, as programs do that quote at all; at any chunking and any batch size."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    found = records(text.getvalue(), delimiter=delimiter, piece=piece, size=size)
    assert [row for _, row in found] == rows
    lines = text.getvalue().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line, row in found:
        assert lines[line - 1].startswith('"' + row[0].replace('"', '""')[:1].strip("\r\n"))


@pytest.mark.parametrize("size", [1, 2, 3, 10])
@pytest.mark.parametrize("tail", ['b,"never', 'b,"never\nends\n', 'b,"', '"', '"\n'])
def test_a_quote_that_never_ends_is_named_by_its_line(size: int, tail: str) -> None:
    with pytest.raises(UnbalancedQuote, match=r"begins in line 4"):
        records(f'h\n"x\ny"\n{tail}', size=size)


def test_a_stray_quote_does_not_swallow_the_file_into_memory() -> None:
    """After it everything is inside out: each line end is within quotes."""
    text = 'h\nok,1\n"x' + '","y\nx' * 200_000
    with pytest.raises(UnbalancedQuote, match=r"begins in line 3"):
        records(text, piece=1 << 16)


def test_a_cell_without_end_is_refused() -> None:
    with pytest.raises(RecordTooLong, match="Line 2 "):
        records("h\n" + "x" * 140_000 + "\n")


def test_a_quoted_cell_without_end_is_an_unbalanced_quote() -> None:
    with pytest.raises(UnbalancedQuote, match="line 2 "):
        records('h\n"' + "abc\n" * 50_000)


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(RecordTooLong, match=f"Line 2 is longer than {MAX_RECORD_CHARS:,}"):
        records("h\n" + "x," * MAX_RECORD_CHARS, piece=1 << 18)


def test_a_batch_is_bounded_in_characters_too() -> None:
    line = ",".join(["x" * 1_000] * 60) + "\n"
    reader = RecordReader(LineSplitter().blocks(pieces(line * 600, 1 << 18)), ",")
    sizes = [len(batch.rows) for batch in reader.batches(5_000)]
    assert sum(sizes) == 600
    assert max(sizes) < 200
