from pathlib import Path

import pytest

from jangada_operator.simulation.recorded import BadTraceError, read_trace


def written(folder: Path, text: str) -> Path:
    path = folder / "monday.csv"
    path.write_text(text, "utf-8")
    return path


def test_a_trace_begins_with_its_first_job(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "at,seconds\n12.5,3\n10,0.5\n\n40,1\n"))
    assert trace.name == "monday"
    assert trace.arrivals == [0, 2.5, 30]
    assert trace.services == [0.5, 3, 1]
    assert trace.seconds == 30
    assert trace.kind(0) == "job"


def test_times_and_kinds_are_read(tmp_path: Path) -> None:
    text = (
        "at,seconds,kind\n"
        "2026-03-01T12:00:00Z,1,mail\n"
        "2026-03-01T13:00:01.5+01:00,2,import\n"
        "2026-03-01 12:00:03,3,mail\n"
    )
    trace = read_trace(written(tmp_path, text))
    assert trace.arrivals == [0, 1.5, 3]
    assert [trace.kind(job) for job in range(3)] == ["mail", "import", "mail"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "monday.csv, line 1: the header must be `at,seconds` or `at,seconds,kind`"),
        ("1,2\n", "monday.csv, line 1: the header must be"),
        ("at,seconds\n", "monday.csv has no jobs: add one a line below its header"),
        ("at,seconds\n1,2\n1\n", "line 3: has 1 values where the header names 2"),
        ("at,seconds\n1,2,3\n", "line 2: has 3 values where the header names 2"),
        ("at,seconds\nnoon,2\n", "line 2: `at` is 'noon': write seconds, as 12.5, or a time"),
        ("at,seconds\nnan,2\n", "line 2: `at` is 'nan'"),
        ("at,seconds\n1,-2\n", "line 2: `seconds` is '-2': write how long the job ran, as 0.25"),
        ("at,seconds\n1,inf\n", "line 2: `seconds` is 'inf'"),
        ("at,seconds\n1,\n", "line 2: `seconds` is ''"),
        ("at,seconds\n1,1\n2026-03-01,1\n", "line 3: `at` must be in seconds in all lines"),
        ("at,seconds,kind\n1,1,\n", "line 2: `kind` is empty: name it, or leave the column out"),
        ('at,seconds\n"1,1\n', "line 2: unexpected end of data: look at its quotation marks"),
    ],
)
def test_an_error_names_the_line_and_how_to_mend_it(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(BadTraceError) as raised:
        read_trace(written(tmp_path, text))
    assert message in str(raised.value)


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTraceError, match=r"tuesday\.csv can't be read: No such file"):
        read_trace(tmp_path / "tuesday.csv")


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "monday.csv"
    path.write_bytes("at,seconds,kind\n1,1,größe\n".encode("latin-1"))
    with pytest.raises(BadTraceError, match="save it as UTF-8"):
        read_trace(path)
