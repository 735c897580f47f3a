"""Which encoding a file has, and where it stops being text."""

import codecs
import encodings
import re
import tracemalloc
from collections.abc import Iterable
from contextlib import suppress
from pkgutil import iter_modules

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jangada.contacts.errors import EmptyFile, NotText, NulByte, Undecodable, UnknownEncoding
from jangada.contacts.reading import decoding
from jangada.contacts.reading.decoding import Decoder, known_encoding, split_head
from jangada.contacts.reading.records import LineSplitter

TEXT = "nome;e-mail;telefone\nJoão Araújo;joao@exemplo.com.br;(11) 98765-4321\n"


def chunked(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def read(chunks: Iterable[bytes], encoding: str | None = None) -> tuple[str, str]:
    """The text of a file, and what it was read as."""
    head, rest = split_head(chunks)
    decoder = Decoder(head, encoding)
    lines = LineSplitter().blocks(decoder.texts([head, *rest]))
    return "".join(line for block in lines for line in block), decoder.encoding


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode(), "utf-8"),
        (codecs.BOM_UTF8 + TEXT.encode(), "utf-8"),
        (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"), "utf-16-le"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16-be"),
        (TEXT.encode("utf-16-le"), "utf-16-le"),
        (TEXT.encode("utf-16-be"), "utf-16-be"),
        (TEXT.encode("windows-1252"), "windows-1252"),
    ],
)
def test_the_encoding_is_found(data: bytes, encoding: str) -> None:
    assert read([data]) == (TEXT, encoding)


@pytest.mark.parametrize(
    ("given_name", "data"),
    [
        ("utf-8", codecs.BOM_UTF8 + TEXT.encode()),
        ("utf-8", TEXT.encode()),
        ("utf-8-sig", codecs.BOM_UTF8 + TEXT.encode()),
        ("UTF-16", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")),
        ("utf-16-le", codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le")),
        ("utf-16-be", TEXT.encode("utf-16-be")),
        ("latin-1", TEXT.encode("latin-1")),
        ("cp850", TEXT.encode("cp850")),
        ("mac-roman", TEXT.encode("mac-roman")),
    ],
)
def test_a_given_encoding_is_taken(given_name: str, data: bytes) -> None:
    assert read([data], given_name)[0] == TEXT


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_text_in_utf_8_is_read_whatever_the_chunks(text: str) -> None:
    data = codecs.BOM_UTF8 + text.encode()
    for size in (1, 3, 7):
        assert read(chunked(data, size))[0] == text


def test_an_accent_far_into_the_file_still_means_windows_1252() -> None:
    text = "nome;e-mail\n" + "Ana;ana@example.com\n" * 20_000 + "José;jose@example.com\n"
    assert read(chunked(text.encode("windows-1252"), 10_000)) == (text, "windows-1252")


def test_a_half_character_at_the_end_of_a_chunk_can_be_windows_1252() -> None:
    """0xE3 begins a character of UTF-8 and is ã in Windows-1252: the next chunk tells."""
    text = "n" * 65_535 + "ã;e-mail\nJoão;joao@example.com\n"
    data = text.encode("windows-1252")
    assert data[65_535] == 0xE3
    assert read([data[:65_536], data[65_536:]]) == (text, "windows-1252")


@pytest.mark.parametrize(
    ("data", "line", "offset"),
    [
        ("ação\nlinha\n".encode() + b"x\xffy\n", 3, 14),
        (codecs.BOM_UTF8 + b"a\nb\n\xe9\n", 3, 7),
        (codecs.BOM_UTF16_LE + "a\nb".encode("utf-16-le") + b"\x00\xd8\x41\x00", 2, 8),
        (b"nome\r\n" + "Имя;Почта\r\nИван;и\r\n".encode("windows-1251") * 20, 2, 6),
        (b"Jos\xe9\nb\x81c\n" * 9, 1, 3),
        ("ação\nfim".encode() + b"\xc3", 2, 10),
    ],
)
def test_bytes_that_are_no_text_are_named_by_line_and_offset(
    data: bytes, line: int, offset: int
) -> None:
    with pytest.raises(Undecodable, match=rf"In line {line}, at byte {offset} ") as told:
        read([data])
    assert re.search(r"the byte 0x[0-9A-F]{2} is not [a-z]+-\d", str(told.value))


def test_a_byte_that_windows_1252_lacks_is_named_far_into_the_file() -> None:
    data = "José da Conceição\n".encode("windows-1252") + b"Ana\n" * 50_000 + b"x\x81\n"
    with pytest.raises(Undecodable, match=r"In line 50002, at byte 200,019 "):
        read(chunked(data, 4_096))


def test_the_offset_counts_the_chunks_before() -> None:
    data = "ç\n".encode() * 50_000 + b"\xff\n"
    with pytest.raises(Undecodable, match=r"In line 50001, at byte 150,000 "):
        read(chunked(data, 4_096))


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_nul_byte_ends_the_reading(mark: bytes) -> None:
    with pytest.raises(NulByte, match=rf"In line 3, at byte {len(mark) + 7} "):
        read([mark + "ã\nb\r\nc\0d".encode()])


@pytest.mark.parametrize(
    "head",
    [
        b"PK\x03\x04rest",
        b"\xd0\xcf\x11\xe0rest",
        b"%PDF-1.7",
        b"\x1f\x8b\x08",
        b"\x89PNG\r\n",
        b"\xff\xd8\xff\xe0",
        b"SQLite format 3\0",
    ],
)
def test_a_file_that_is_only_called_csv_is_refused(head: bytes) -> None:
    with pytest.raises(NotText, match="not a CSV file"):
        read([head])


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(EmptyFile):
        read([b"", b""])


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", "utf-7", "idna", "a\0b", "x" * 99])
def test_what_is_no_encoding_of_text_is_refused(name: str) -> None:
    with pytest.raises(UnknownEncoding):
        known_encoding(name)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Windows-1252", "cp1252"),
        ("UTF8", "utf-8"),
        ("iso-8859-15", "iso8859-15"),
        ("utf-8-sig", "utf-8-sig"),
        ("KOI8-U", "koi8-u"),
    ],
)
def test_encodings_have_many_names(name: str, known: str) -> None:
    assert known_encoding(name) == known


def test_every_encoding_of_text_that_python_has_is_known() -> None:
    for module in iter_modules(encodings.__path__):
        with suppress(LookupError):
            found = codecs.lookup(module.name).name
            if found.startswith(decoding._ENCODINGS):
                assert known_encoding(module.name) == found


def test_names_of_no_encoding_are_not_kept() -> None:
    """Python keeps each name that it was ever asked for, known or not."""
    tracemalloc.start()
    try:
        for number in range(2_000):
            with pytest.raises(UnknownEncoding):
                known_encoding(f"x{number:_<1000}")
            assert known_encoding("utf" + "-" * number + "8") == "utf-8"
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()
