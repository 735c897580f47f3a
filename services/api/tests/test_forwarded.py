"""Whose address counts."""

from ipaddress import ip_network

import pytest
from starlette.types import Scope

from jangada_api.forwarded import client_address

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::1]"], "2001:db8::1"),
        (None, ["198.51.100.1"], None),
    ],
)
def test_forwarded_addresses_count_only_from_trusted_proxies(
    peer: str | None, forwarded: list[str], expected: str | None
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope: Scope = {"type": "http", "client": peer and (peer, 1), "headers": headers}
    assert client_address(scope, PROXIES) == expected


def test_without_trusted_proxies_only_the_peer_counts() -> None:
    headers = [(b"x-forwarded-for", b"198.51.100.1")]
    scope: Scope = {"type": "http", "client": ("10.0.0.1", 1), "headers": headers}
    assert client_address(scope, []) == "10.0.0.1"
