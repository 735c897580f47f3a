"""What keeps the operator from its cluster or its port is one line with the mend, and ends it."""

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jangada_operator.cli import build
from jangada_operator.kube import Kube
from jangada_operator.leader import Leadership
from jangada_operator.login import find_login, own_namespace
from jangada_operator.management import NoPort, serve
from jangada_operator.operating import Operator
from jangada_operator.watching import Cluster

GOOD = """\
current-context: here
contexts: [{name: here, context: {cluster: here, user: me, namespace: shop}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: me, user: {token: secret}}]
"""
CERTIFICATE = 'server: "https://127.0.0.1:1", certificate-authority: /nowhere/ca.crt'

WRONG = [
    ("a: [", "The kubeconfig is no YAML"),
    ("just text", "another shape than kubectl's"),
    ("contexts: 3\ncurrent-context: x", "another shape than kubectl's"),
    ("contexts: []", "has no current context"),
    (GOOD.replace("current-context: here", "current-context: there"), "has no 'there'"),
    (GOOD.replace("clusters: [{name: here", "clusters: [{name: there"), "has no 'here'"),
    (GOOD.replace('{server: "http://127.0.0.1:1"}', "{}"), "names no server"),
    (GOOD.replace('server: "http://127.0.0.1:1"', CERTIFICATE), "certificates for https://127."),
]


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    path.write_text(GOOD)
    return path


def refused(*arguments: str) -> str:
    """The one line that it ends with."""
    told = CliRunner().invoke(build(), [*arguments])
    assert told.exit_code not in {0, None}
    assert isinstance(told.exception, SystemExit)
    (line,) = told.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize("command", [("run",), ("explain", "adding")], ids=str)
@pytest.mark.parametrize(("written", "told"), WRONG)
def test_a_broken_kubeconfig_is_one_line(
    kubeconfig: Path, written: str, told: str, command: tuple[str, ...]
) -> None:
    kubeconfig.write_text(written)
    assert told in refused(*command)


def test_a_kubeconfig_that_isn_t_there_is_named(kubeconfig: Path) -> None:
    kubeconfig.unlink()
    assert f"{kubeconfig} can't be read (No such file or directory)" in refused("run")


def test_without_any_access_it_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "set KUBECONFIG" in refused("run")


def test_the_namespace_is_that_of_the_kubeconfig(kubeconfig: Path) -> None:
    assert own_namespace() == "shop"
    kubeconfig.write_text(GOOD.replace(", namespace: shop", ""))
    assert own_namespace() == "default"


@pytest.mark.anyio
async def test_a_taken_port_is_said(kubeconfig: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with Kube.open(find_login) as kube:
            operator = Operator(kube, Cluster(), Leadership(kube, "shop", "lease", "me"))
            with pytest.raises(NoPort, match="something else listens there"):
                async with serve(operator, "127.0.0.1", port):
                    pass
