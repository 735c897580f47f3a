"""Which addresses of servers are taken, and that nothing secret leaves the machine unencrypted."""

import pytest

from jangada.client.errors import ServerInvalid
from jangada.client.servers import server_url


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("https://jangada.example.com", "https://jangada.example.com"),
        ("https://Jangada.Example.com/", "https://jangada.example.com"),
        ("https://example.com/platform/", "https://example.com/platform"),
        ("jangada.example.com", "https://jangada.example.com"),
        ("jangada.example.com:8443", "https://jangada.example.com:8443"),
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://api.localhost", "http://api.localhost"),
    ],
)
def test_an_address_is_written_one_way(raw: str, url: str) -> None:
    assert server_url(raw) == url


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "ftp://example.com",
        "https://",
        "https://ana:secret@example.com",
        "https://example.com/?token=x",
        "https://example.com/#x",
        "https://exa mple.com",
        "https://example.com:port",
    ],
)
def test_what_is_no_address_is_refused(raw: str) -> None:
    with pytest.raises(ServerInvalid, match="no address"):
        server_url(raw)


@pytest.mark.parametrize(
    "raw", ["http://example.com", "http://10.0.0.1:8000", "http://localhost.example.com"]
)
def test_http_to_another_machine_must_be_allowed(raw: str) -> None:
    with pytest.raises(ServerInvalid, match="unencrypted"):
        server_url(raw)
    assert server_url(raw, allow_http=True) == raw
