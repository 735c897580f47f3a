"""The streaming of a form's one file, however its bytes arrive."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jangada_api.uploads import FormFile, UploadMalformed

HEADERS = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
END = b"\r\n--frontier--\r\n"


class Bare:
    """A request as far as `FormFile` looks at it."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.headers: dict[str, str] = {}
        self._pieces = pieces

    async def stream(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


LOOKALIKES = st.sampled_from(
    [
        b"\r\n",
        b"\r",
        b"\n",
        b"--",
        b"--frontier",
        b"\r\n--frontie",
        b"\r\n--",
        b"x",
        b"\r\n--frontierx",
    ]
)


@given(
    st.lists(LOOKALIKES | st.binary(max_size=20), max_size=30).map(b"".join),
    st.lists(st.integers(1, 40), min_size=1, max_size=10),
)
def test_the_content_survives_however_the_body_is_cut(content: bytes, cuts: list[int]) -> None:
    """Also where it holds what looks like the boundary, short of being one."""
    if b"\r\n--frontier" in b"\r\n" + content + b"\r\n":
        return
    body = HEADERS + content + END
    pieces: list[bytes] = []
    at = 0
    while at < len(body):
        step = cuts[len(pieces) % len(cuts)]
        pieces.append(body[at : at + step])
        at += step

    async def read() -> bytes:
        file = FormFile(Bare(pieces), b"frontier", 10_000)  # type: ignore[arg-type]
        return b"".join([bytes(chunk) async for chunk in file.chunks()])

    assert asyncio.run(read()) == content


@given(st.binary(max_size=300))
def test_no_bytes_make_the_parser_fail_otherwise(body: bytes) -> None:
    async def read() -> None:
        file = FormFile(Bare([body]), b"frontier", 10_000)  # type: ignore[arg-type]
        with pytest.raises(UploadMalformed):
            _ = [chunk async for chunk in file.chunks()]

    asyncio.run(read())
