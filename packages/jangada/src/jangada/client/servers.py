"""Addresses of servers. Tokens and passwords travel encrypted, or do not leave the machine."""

import re
from ipaddress import ip_address
from typing import Final

import httpx

from jangada.client.errors import ServerInvalid

SECURE: Final = "https"
_HOST: Final = re.compile(rb"[a-z0-9._:-]+")
SCHEMES: Final = (SECURE, "http")


def server_url(raw: str, *, allow_http: bool = False) -> str:
    """The server's address as `scheme://host[:port][/path]`, always written the same way.

    Without a scheme it is https, on this machine http. Raises `ServerInvalid` for anything else,
    and for http to another machine unless that is allowed.
    """
    url = _parse(raw if "://" in raw else f"{_usual_scheme(raw)}://{raw}")
    is_plain = _HOST.fullmatch(url.raw_host) and not (url.userinfo or url.query or url.fragment)
    if url.scheme not in SCHEMES or not is_plain:
        raise ServerInvalid(f"{raw} is no address of a server: give one as https://host.")
    if url.scheme != SECURE and not allow_http and not is_this_machine(url.host):
        raise ServerInvalid(
            f"{raw} would send tokens and passwords unencrypted. Use https, or --insecure-http "
            f"where nobody else can listen."
        )
    return str(url).rstrip("/")


def is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _usual_scheme(raw: str) -> str:
    return "http" if is_this_machine(_parse(f"https://{raw}").host) else SECURE


def _parse(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ServerInvalid(f"{text} is no address of a server ({error}).") from None
