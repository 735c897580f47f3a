"""A name server for one cluster: the addresses of its Services, and nothing else of the world.

`names.py KUBECONFIG ADDRESS` answers for `NAME.NAMESPACE.svc.cluster.local`, over UDP and TCP. It
knows ClusterIPs; it doesn't know headless Services, ports or pods.
"""

import asyncio
import socket
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, override

from cluster.api import Api, Object

ZONE: Final = "svc.cluster.local"
DNS: Final = 53
HEADER: Final = struct.Struct("!6H")
QUESTION: Final = struct.Struct("!2H")
ANSWER: Final = struct.Struct("!HHHIH")
A: Final = 1
ANY: Final = 255
INTERNET: Final = 1
LIFE: Final = 5
AUTHORITATIVE: Final = 0x8400
ASKED_RECURSION: Final = 0x0100
NO_SUCH_NAME: Final = 3
REFUSED_FORM: Final = 1
SAME_NAME: Final = 0xC00C
"""The name of the question, which begins behind the header."""


class Book:
    """The names that are known now; a thread of its own keeps them."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.names: Mapping[str, str] = {}
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        for services in self._api.states("services", everywhere=True):
            self.names = dict(_named(each) for each in services.values() if _has_address(each))


def _has_address(service: Object) -> bool:
    return service["spec"].get("clusterIP") not in (None, "", "None")


def _named(service: Object) -> tuple[str, str]:
    head = service["metadata"]
    return f"{head['name']}.{head['namespace']}.{ZONE}", service["spec"]["clusterIP"]


def asked(query: bytes) -> tuple[str, int, bytes]:
    """The name and the type of a question, and its bytes."""
    labels, at = [], HEADER.size
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
        at += length + 1
    kind, _ = QUESTION.unpack_from(query, at + 1)
    return ".".join(labels), kind, query[HEADER.size : at + 1 + QUESTION.size]


def is_inside(names: Mapping[str, str], name: str) -> bool:
    """Whether it is a part of the tree, with names under it only."""
    return name == ZONE or any(known.endswith(f".{name}") for known in names)


def answer(names: Mapping[str, str], query: bytes) -> bytes:
    identity, flags, *_ = HEADER.unpack_from(query)
    flags = AUTHORITATIVE | flags & ASKED_RECURSION
    try:
        name, kind, question = asked(query)
    except (IndexError, struct.error):
        return HEADER.pack(identity, flags | REFUSED_FORM, 0, 0, 0, 0)
    address = names.get(name)
    if address is None and not is_inside(names, name):
        flags |= NO_SUCH_NAME
    if address is None or kind not in (A, ANY):
        return HEADER.pack(identity, flags, 1, 0, 0, 0) + question
    record = ANSWER.pack(SAME_NAME, A, INTERNET, LIFE, 4) + socket.inet_aton(address)
    return HEADER.pack(identity, flags, 1, 1, 0, 0) + question + record


class Datagrams(asyncio.DatagramProtocol):
    """One question, one answer."""

    def __init__(self, book: Book) -> None:
        self._book = book

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport), "of a datagram's endpoint"
        self._transport = transport

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) >= HEADER.size:
            self._transport.sendto(answer(self._book.names, data), addr)


class Streams:
    """Questions over TCP, each behind its length."""

    def __init__(self, book: Book) -> None:
        self._book = book

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                said = answer(self._book.names, await reader.readexactly(length))
                writer.write(struct.pack("!H", len(said)) + said)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def main(arguments: Sequence[str]) -> None:
    book, address = Book(Api(Path(arguments[0]))), arguments[1]
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Datagrams(book), local_addr=(address, DNS))
    server = await asyncio.start_server(Streams(book), address, DNS)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
