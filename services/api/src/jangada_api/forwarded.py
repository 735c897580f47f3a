"""The client's address: the peer's, or what proxies that the settings trust say of it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

type Address = IPv4Address | IPv6Address
type Networks = Sequence[IPv4Network | IPv6Network]


def client_address(scope: Scope, trusted: Networks) -> str | None:
    """The nearest address that is not a trusted proxy; None where there is no peer (a socket).

    `X-Forwarded-For` is read from the right and only as far as each hop is trusted: everything to
    the left of the first foreign hop was written by it, and may be a lie.
    """
    peer = scope.get("client")
    nearest = _parse(peer[0]) if peer else None
    if nearest is None:
        return None
    for hop in _forwarded(scope):
        if not _is_trusted(nearest, trusted):
            break
        if (address := _parse(hop)) is None:
            break
        nearest = address
    return str(nearest)


def _forwarded(scope: Scope) -> list[str]:
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == _FORWARDED_FOR]
    return [hop for hop in reversed(",".join(lines).split(",")) if hop.strip()]


_FORWARDED_FOR = b"x-forwarded-for"


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text.strip().strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(address: Address, trusted: Networks) -> bool:
    return any(address.version == network.version and address in network for network in trusted)
