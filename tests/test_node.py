"""The parts of a real node that need no node."""

import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from node import needs
from node.names import answer
from node.volumes import is_waiting, volume

NAMES = {"shop-api.shop.svc.cluster.local": "10.96.1.2"}


def query(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


@pytest.mark.parametrize(
    ("name", "kind", "code", "count"),
    [
        ("shop-api.shop.svc.cluster.local", 1, 0, 1),
        ("SHOP-API.shop.svc.cluster.local", 1, 0, 1),
        ("shop-api.shop.svc.cluster.local", 28, 0, 0),
        ("shop.svc.cluster.local", 1, 0, 0),
        ("other.shop.svc.cluster.local", 1, 3, 0),
        ("shop-api.shop.svc.cluster.local.svc.cluster.local", 1, 3, 0),
        ("example.com", 1, 3, 0),
    ],
)
def test_a_name_server_knows_services_only(name: str, kind: int, code: int, count: int) -> None:
    """No AAAA of a name that is there is no error: resolvers would give up on the name."""
    said = answer(NAMES, query(name, kind))
    identity, flags, questions, answers, _, _ = struct.unpack_from("!6H", said)
    assert (identity, flags & 0xF, questions, answers) == (7, code, 1, count)
    assert not count or said.endswith(socket.inet_aton("10.96.1.2"))


def test_nonsense_is_answered_with_an_error() -> None:
    said = answer(NAMES, struct.pack("!6H", 7, 0, 1, 0, 0, 0) + b"\x3fabc")
    assert struct.unpack_from("!6H", said)[1] & 0xF == 1


def test_a_claim_gets_a_volume_of_its_own(tmp_path: Path) -> None:
    claim: dict[str, Any] = {
        "metadata": {"name": "data", "namespace": "shop", "uid": "1-2"},
        "spec": {
            "storageClassName": "folders",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    assert is_waiting(claim)
    made = volume(claim, tmp_path / "pvc-1-2", ["node-0"])["spec"]
    assert made["claimRef"]["uid"] == "1-2"
    claim["spec"] |= {"volumeName": "pvc-1-2"}
    assert not is_waiting(claim)


def test_what_is_missing_is_said_in_words() -> None:
    """Whatever this machine has."""
    assert all(needs.missing())
