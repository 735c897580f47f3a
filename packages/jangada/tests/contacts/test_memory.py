"""Reading takes the same memory whatever the file's size and whatever its rows are made of."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

PEAK_MEBIBYTES = 130
"""Of which the interpreter with the libraries is about 45; a worker has 200 in all."""

PROGRAM = """
import re, sys
from pathlib import Path
from jangada.contacts.reading.rows import Limits
from jangada.contacts.reading.sheets import ReadingOptions, Sheet

def chunks():
    yield head
    block = unit * (1_048_576 // len(unit))
    for _ in range(8):
        yield block

cell, times = sys.argv[2], int(sys.argv[3])
head, unit = (sys.argv[1] + "\\n").encode(), ("a@b.co" + cell * times + "\\n").encode()
rows = 0
for checked in Sheet(chunks(), ReadingOptions("BR", Limits(512, 10_000))).checked():
    rows += checked.good + len(checked.rejects)
# Not getrusage: what that says begins with the size of whoever started this process.
peak = re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())
print(rows, int(peak[1]) // 1024)
"""

FILES: Mapping[str, tuple[str, str, int]] = {
    "of usual rows": ("email,name,phone", ",Ana Lima,+5511987654321", 1),
    "of many small cells": ("email" + ",c" * 511, ",xy", 511),
    "of cells beyond the header": ("email,b", ",ab", 400),
    "of over-long rows": ("email,b", ",ab", 100_000),
    "of long phones": ("email,phone", "," + "9 " * 4_000, 1),
    "of long addresses": ("name,email", "," + "a" * 9_000 + "@b.co", 1),
}


@pytest.mark.parametrize("kind", FILES)
def test_reading_takes_little_memory(kind: str) -> None:
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, *map(str, FILES[kind])],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    rows, peak = map(int, ended.stdout.split())
    assert rows > 0
    assert peak < PEAK_MEBIBYTES
