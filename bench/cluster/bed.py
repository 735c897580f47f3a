"""The control plane: etcd, API server, controller manager, scheduler, and kwok for the nodes.

All of it listens on loopback only and dies with this process. Ports are held for as long as the
bed stands, so the API server comes back where it was. Data is not worth flushing, so all is killed:
asked to end, an API server would wait for its watches for a minute.
"""

import json
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import httpx

from cluster.api import Api, ApiError, Object
from cluster.certificates import ACCOUNTS, ADDRESS, write_certificates
from jangada.local.logs import open_log, tail
from jangada.local.process import Child, Command, plain_environ, wait_until

STAGES: Final = Path(__file__).with_name("stages.yaml")
STARTING: Final = 120.0
"""Seconds that each step of the start may take on a busy machine."""

MASTERS: Final = "system:masters"
USERS: Final[Mapping[str, str]] = {
    "admin": MASTERS,
    "kubelet": MASTERS,
    "kwok": MASTERS,
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
SIZE: Final = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
LABELS: Final = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
FAST: Final = (
    "--leader-elect=false",
    "--secure-port=0",
    "--kube-api-qps=200",
    "--kube-api-burst=400",
)


class BedFailed(Exception):
    """Something of the control plane did not start or died; with its last words."""


class Bed:
    """One control plane in one folder; `programs` is where its binaries are.

    Its nodes are made up. A bed with another sort of node says otherwise by what follows, and by
    `placed` and `start_nodes`.
    """

    users: Mapping[str, str] = USERS
    """Who has a kubeconfig, and of which group they are."""
    addresses: Sequence[str] = ()
    """Where the API server is, beside loopback."""
    apiserver_options: Sequence[str] = ()
    """What it is told beside what all are told; the last word on an option holds."""

    def __init__(self, folder: Path, programs: Path, *, nodes: int = 1) -> None:
        self.folder = folder
        self._programs = programs
        self._nodes = nodes
        self._children: dict[str, Child] = {}
        self._held: list[socket.socket] = []
        self._apiserver: list[str] = []
        self.port = 0
        self.admin = folder / "admin.kubeconfig"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when a pod could be made and would run."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_certificates(self.folder, addresses=self.addresses)
        client, peer, self.port = (self._hold_port() for _ in range(3))
        self._write_users()
        self.spawn("etcd", *_etcd_options(client, peer))
        self._apiserver = [*_apiserver_options(client, self.port), *self.apiserver_options]
        self.start_apiserver()
        self._start_controllers()
        self.start_nodes()
        with self.api() as api:
            self.wait("the nodes", lambda: self.are_ready(api))
            account = ("serviceaccounts", "default")
            self.wait("controllers", lambda: api.find(*account, namespace="default") is not None)

    def stop(self) -> None:
        """Return when all of it is gone; the logs stay."""
        for child in reversed(self._children.values()):
            child.stop(())
        self._children.clear()
        for held in self._held:
            held.close()
        self._held.clear()

    def start_apiserver(self) -> None:
        """Return when it answers."""
        self.spawn("kube-apiserver", *self._apiserver)
        with self.api() as api:
            self.wait("the API server", api.is_ready)

    def stop_apiserver(self) -> None:
        """As if its machine had gone: everything else goes on, and finds nobody."""
        self._children.pop("kube-apiserver").stop(())

    @contextmanager
    def outage(self) -> Iterator[None]:
        """No API server inside of it."""
        self.stop_apiserver()
        try:
            yield
        finally:
            self.start_apiserver()

    def api(self, kubeconfig: Path | None = None) -> Api:
        """A client, the administrator's unless said otherwise."""
        return Api(kubeconfig or self.admin)

    def account(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a token of a ServiceAccount, which may do what its roles say."""
        body: Object = {"spec": {"expirationSeconds": 24 * 3600}}
        with self.api() as api:
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
            token: str = api.call("POST", path, body)["status"]["token"]
        return self._kubeconfig(f"{namespace}-{name}", token, namespace)

    @property
    def pids(self) -> Mapping[str, int]:
        return {name: child.pid for name, child in self._children.items()}

    def dead(self) -> Sequence[str]:
        """What has ended by itself."""
        return [name for name, child in self._children.items() if not child.is_running]

    def check(self) -> None:
        """Raise `BedFailed` when something has ended by itself."""
        if dead := self.dead():
            said = "\n".join(f"{name} ended:\n{tail(self.log(name))}" for name in dead)
            raise BedFailed(said)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def wait(self, what: str, is_there: Callable[[], bool]) -> None:
        """Wait until it is there; raises `BedFailed` when something dies first."""
        answer = ""

        def ended() -> bool:
            nonlocal answer
            try:
                return bool(self.dead()) or is_there()
            except (httpx.TransportError, ApiError) as error:
                answer = str(error)
            return False

        in_time = wait_until(ended, STARTING)
        self.check()
        if not in_time:
            said = "\n".join(f"{name}:\n{tail(self.log(name), 5)}" for name in self._children)
            raise BedFailed(f"No sign of {what} after {STARTING:.0f} s. {answer}\n{said}")

    def _hold_port(self) -> int:
        """A port that nobody else is given, though our servers may listen on it."""
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((ADDRESS, 0))
        self._held.append(held)
        port: int = held.getsockname()[1]
        return port

    def _write_users(self) -> None:
        tokens = {user: secrets.token_urlsafe(24) for user in self.users}
        rows = (f'{tokens[user]},{user},{user},"{group}"\n' for user, group in self.users.items())
        path = self.folder / "tokens.csv"
        path.touch(0o600)
        path.write_text("".join(rows))
        for user, token in tokens.items():
            self._kubeconfig(user.rpartition(":")[2], token)

    def _kubeconfig(self, name: str, token: str, namespace: str = "default") -> Path:
        cluster = {
            "server": f"https://{ADDRESS}:{self.port}",
            "certificate-authority": str(self.folder / "ca.crt"),
        }
        context = {"cluster": "bed", "user": name, "namespace": namespace}
        path = self.folder / f"{name}.kubeconfig"
        path.touch(0o600)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bed", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "bed", "context": context}],
            "current-context": "bed",
        }
        path.write_text(json.dumps(content))
        return path

    def spawn(
        self,
        name: str,
        *options: str,
        program: Path | None = None,
        environ: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start something that belongs to the bed, works in its folder and ends with it."""
        command = Command(
            argv=self.placed(name, [str(program or self._programs / name), *options]),
            environ={**plain_environ(), **(environ or {})},
            folder=self.folder,
            death_signal=death_signal,
        )
        with open_log(self.log(name)) as output:
            self._children[name] = Child(command, output=output, pass_fds=pass_fds)

    def placed(self, name: str, argv: list[str]) -> list[str]:  # noqa: ARG002 - for other beds
        """The command that runs this one where it belongs: here."""
        return argv

    def _start_controllers(self) -> None:
        """Controllers and scheduler; nodes stay ready also on a machine that is starved."""
        self.spawn(
            *("kube-controller-manager", *FAST, "--kubeconfig=kube-controller-manager.kubeconfig"),
            *("--use-service-account-credentials", "--root-ca-file=ca.crt"),
            f"--service-account-private-key-file={ACCOUNTS}.key",
            *("--node-monitor-grace-period=1h", "--concurrent-gc-syncs=5"),
        )
        self.spawn("kube-scheduler", *FAST, "--kubeconfig=kube-scheduler.kubeconfig")

    def start_nodes(self) -> None:
        """Return when their objects are there, or are about to be."""
        port = free_port()
        self.spawn(
            *("kwok", "--kubeconfig=kwok.kubeconfig", f"--config={STAGES}", "--manage-all-nodes"),
            *("--node-lease-duration-seconds=40", f"--node-ip={ADDRESS}", f"--node-port={port}"),
            f"--server-address={ADDRESS}:{port}",
            *("--tls-cert-file=server.crt", "--tls-private-key-file=server.key"),
        )
        with self.api() as api:
            for number in range(self._nodes):
                api.create(node(f"node-{number}"))

    def are_ready(self, api: Api) -> bool:
        """Whether pods could run on all nodes."""
        found = api.list("nodes")
        return bool(found) and all(map(is_ready, found))


def _etcd_options(client: int, peer: int) -> list[str]:
    ours, theirs = f"http://{ADDRESS}:{client}", f"http://{ADDRESS}:{peer}"
    return [
        *("--data-dir=etcd", "--log-level=warn", "--unsafe-no-fsync", "--socket-reuse-port"),
        *(f"--listen-client-urls={ours}", f"--advertise-client-urls={ours}"),
        *(f"--listen-peer-urls={theirs}", f"--initial-advertise-peer-urls={theirs}"),
        f"--initial-cluster=default={theirs}",
    ]


def _apiserver_options(etcd: int, port: int) -> list[str]:
    return [
        *(f"--etcd-servers=http://{ADDRESS}:{etcd}", "--endpoint-reconciler-type=none"),
        *(f"--bind-address={ADDRESS}", f"--secure-port={port}", "--permit-port-sharing"),
        *(f"--advertise-address={ADDRESS}", "--service-cluster-ip-range=10.96.0.0/16"),
        *("--tls-cert-file=server.crt", "--tls-private-key-file=server.key"),
        *("--client-ca-file=ca.crt", "--token-auth-file=tokens.csv", "--anonymous-auth=false"),
        *("--authorization-mode=Node,RBAC", "--allow-privileged=true"),
        f"--service-account-key-file={ACCOUNTS}.pub",
        f"--service-account-signing-key-file={ACCOUNTS}.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        *("--proxy-client-cert-file=proxy.crt", "--proxy-client-key-file=proxy.key"),
        *("--requestheader-client-ca-file=ca.crt", "--requestheader-allowed-names=front-proxy"),
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ]


def free_port() -> int:
    """A port that was free a moment ago, for a program that can't share one."""
    with socket.create_server((ADDRESS, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def node(name: str) -> Object:
    status = {"allocatable": SIZE, "capacity": SIZE}
    metadata = {"name": name, "labels": {**LABELS, "kubernetes.io/hostname": name}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}


def is_ready(node: Object) -> bool:
    """Whether the scheduler may use it."""
    conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and not node["spec"].get("taints")
