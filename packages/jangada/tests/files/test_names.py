"""File names and media types that come from outside."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jangada.files.names import safe_media_type, safe_name


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("contacts.csv", "contacts.csv"),
        ("Relatório março (1).csv", "Relatório março (1).csv"),
        ("e\u0301.csv", "é.csv"),
        ("C:\\Users\\ana\\contacts.csv", "contacts.csv"),
        ("../../../etc/cron.d/x", "x"),
        ("a/..", "upload"),
        (".htaccess", "htaccess"),
        ("a.csv. . ", "a.csv"),
        ("a\r\nSet-Cookie: x=1", "aSet-Cookie_ x=1"),
        ("\u202eexe.csv\u2066\u200f", "exe.csv"),
        ("a\u2028b\u2029c", "abc"),
        ("\ud800a", "a"),
        (" \t\n", "upload"),
        ('a<b>:"|?*.csv', "a_b______.csv"),
        ("a" * 300 + ".csv", "a" * 251 + ".csv"),
        ("é" * 200 + ".csv", "é" * 125 + ".csv"),
        ("x." + "y" * 300, "x." + "y" * 253),
    ],
)
def test_a_name_is_made_safe(raw: str, kept: str) -> None:
    assert safe_name(raw) == kept


@given(st.text(st.characters(), max_size=600))
def test_no_name_is_a_path_or_hides_anything(raw: str) -> None:
    name = safe_name(raw)
    assert 1 <= len(name.encode()) <= 255
    assert not set(name) & set('/\\<>:"|?*\x00')
    assert name not in {".", ".."}
    assert all(unicodedata.category(char)[0] != "C" for char in name)
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("text/csv", "text/csv"),
        ("Text/CSV; charset=utf-8", "text/csv"),
        ("application/vnd.ms-excel", "application/vnd.ms-excel"),
        ("", "application/octet-stream"),
        ("text", "application/octet-stream"),
        ("text/html\r\nX: y", "application/octet-stream"),
        ("text/" + "x" * 300, "application/octet-stream"),
    ],
)
def test_a_media_type_is_one_or_unknown(raw: str, kept: str) -> None:
    assert safe_media_type(raw) == kept
