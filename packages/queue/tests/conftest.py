"""The protocol is what its scripts do on a server: each server that is supported is asked."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from redis import Redis

from jangada.local.valkey import EmbeddedValkey

ON_BOTH: Final = frozenset(
    {
        *("test_acl", "test_delivery", "test_emptiness", "test_kinds", "test_leases"),
        *("test_offers", "test_refusals", "test_server", "test_workers"),
    }
)
"""Modules that run the scripts; what the others look at is on our side."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Where a script runs, on Redis 7 as well."""
    name = metafunc.module.__name__.rpartition(".")[2]
    if "valkey_url" in metafunc.fixturenames and name in ON_BOTH:
        metafunc.parametrize("valkey_url", ["valkey", "redis"], indirect=True)


@pytest.fixture(scope="session")
def redis_server(servers_folder: Path) -> Iterator[EmbeddedValkey]:
    """One Redis per test process."""
    if (program := shutil.which("redis-server")) is None:
        pytest.skip("there is no redis-server to test with: apt install redis-server")
    server = EmbeddedValkey(servers_folder / "redis", durable=False, program=Path(program))
    with server:
        yield server


@pytest.fixture(scope="session")
def redis_client(redis_server: EmbeddedValkey) -> Iterator[Redis]:
    with Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def valkey_url(request: pytest.FixtureRequest) -> str:
    """An empty server."""
    name = getattr(request, "param", "valkey")
    server: EmbeddedValkey = request.getfixturevalue(f"{name}_server")
    request.getfixturevalue(f"{name}_client").flushall()
    return server.url
