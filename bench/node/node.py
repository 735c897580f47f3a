"""A bed whose nodes are real: containerd, kubelet, kube-proxy, cluster names and volumes.

The control plane and kube-proxy stand in the node's network, containerd and the kubelet in all of
its namespaces. `keeper.py` holds these, and undoes everything, also after a kill -9. From outside,
the API server is on the loopback as any bed's; `reach` brings anything else of the network there.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, override

from cluster.bed import MASTERS, USERS, Bed, BedFailed
from cluster.certificates import ADDRESS as LOOPBACK

from jangada.local.logs import tail
from node import keeper, needs, settings
from node.settings import ADDRESS, FIRST, MACHINES, SERVICES, Machine

HERE: Final = Path(__file__).parent
WHOLE: Final = ("containerd", "kubelet")
"""Those that stand in all namespaces of the nodes; others stand in their network only."""

READABLE: Final = ("sh", "-c", 'umask 022; exec "$@"', "sh")
"""What our servers write is private, but containers run as others and read what these make."""

ENDING: Final = 600.0
"""Seconds that ending and removing it all may take, 40,000 files on a busy disk."""


class NodeMissing(Exception):
    """A node can't be had on this machine; the message says what is missing."""


class Node(Bed):
    """A cluster of one node in one folder, or two; `binaries` has kubelet and kube-proxy."""

    users: Mapping[str, str] = {
        **{user: group for user, group in USERS.items() if user != "kwok"},
        **{f"system:node:{each.name}": "system:nodes" for each in MACHINES},
        "system:kube-proxy": "",
        "names": MASTERS,
        "volumes": MASTERS,
    }
    addresses: Sequence[str] = (ADDRESS, SERVICES)
    apiserver_options: Sequence[str] = (
        *("--bind-address=0.0.0.0", f"--advertise-address={ADDRESS}"),
        *("--endpoint-reconciler-type=lease", "--kubelet-preferred-address-types=InternalIP"),
        *("--kubelet-client-certificate=proxy.crt", "--kubelet-client-key=proxy.key"),
    )

    def __init__(self, folder: Path, programs: Path, binaries: Path) -> None:
        super().__init__(folder, programs)
        self._binaries = binaries
        self._inner = 0
        self._lifeline = ExitStack()
        self._forwards = 0
        self.place = folder / "node"
        self._images: list[tuple[Path, Sequence[str]]] = []
        self._joined: list[Machine] = []
        self.group = f"jangada-node-{secrets.token_hex(4)}"

    @override
    def start(self) -> None:
        """Return when a pod could be made and would run. Raises `NodeMissing` before all else."""
        if missing := needs.missing():
            raise NodeMissing(f"A real node takes {'; '.join(missing)}.")
        self.place.mkdir(mode=0o700, parents=True)
        self._keep()
        super().start()

    @override
    def stop(self) -> None:
        """Return when all of it is gone and undone; the logs stay."""
        self._lifeline.close()
        if (keeper := self._children.get("keeper")) is not None:
            with suppress(TimeoutError):
                keeper.ended.result(ENDING)
        super().stop()

    def _keep(self) -> None:
        """Have the namespaces made, and kept for as long as we hold the other end of a pipe."""
        reading, writing = os.pipe()
        self._lifeline.callback(os.close, writing)
        try:
            self.spawn(
                *("keeper", "-I", "-S", str(HERE / "keeper.py")),
                *(str(reading), self.group, str(self.place)),
                *(each.address for each in MACHINES),
                program=Path(sys.executable),
                environ={"PATH": needs.path()},
                pass_fds=[reading],
                death_signal=signal.SIGTERM,  # it doesn't heed it, for it has to clean up
            )
        finally:
            os.close(reading)
        self.wait("the namespaces", lambda: self.log("keeper").read_text().endswith("ready\n"))
        self._inner = int(self.log("keeper").read_text().split()[0])

    @override
    def placed(self, name: str, argv: list[str]) -> list[str]:
        if name == "keeper":
            return argv
        enter = [str(needs.program("nsenter")), f"--target={self._inner}", "--net"]
        if name.partition("-")[0] in WHOLE:
            return [*enter, "--mount", "--pid", *READABLE, *argv]
        return [*enter, *argv]

    @override
    def start_apiserver(self) -> None:
        if "forward-api" not in self._children:
            self._forward("forward-api", LOOPBACK, self.port, port=self.port)
        super().start_apiserver()

    @override
    def start_nodes(self) -> None:
        self.join(FIRST)
        proxy = self._binaries / "kube-proxy"
        options = [*settings.proxy(), f"--kubeconfig={self.folder}/kube-proxy.kubeconfig"]
        self.spawn("proxy", *options, program=proxy, environ={"PATH": needs.path()})
        nodes = [each.name for each in MACHINES]
        for name, *rest in (("names", ADDRESS), ("volumes", str(self.place / "volumes"), *nodes)):
            self.spawn(
                *(name, "-m", f"node.{name}", str(self.folder / f"{name}.kubeconfig"), *rest),
                program=Path(sys.executable),
                environ={"PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def join(self, machine: Machine) -> None:
        """Have this node as well, with the images that are loaded; it isn't ready yet."""
        plugins = needs.plugins()
        assert plugins is not None, "nothing is missing"
        place, group = self.place / machine.name, f"{self.group}/{machine.name}"
        keeper.make_groups(group)
        authority = self.folder / "ca.crt"
        settings.write(machine, place, plugins=plugins, group=group, authority=authority)
        environ = {"PATH": needs.path()}
        self.spawn(
            *(f"containerd-{machine.name}", f"--config={place}/containerd.toml"),
            program=needs.program("containerd"),
            environ=environ,
        )
        self._joined.append(machine)
        self.wait("containerd", lambda: self._has_containerd(machine))
        for archive, names in self._images:
            self._load(machine, archive, names)
        self.spawn(
            *(f"kubelet-{machine.name}", f"--config={place}/kubelet.json"),
            *(f"--hostname-override={machine.name}", f"--node-ip={machine.address}"),
            *(f"--root-dir={place}/kubelet", f"--kubeconfig={self._kubeconfig_of(machine)}"),
            program=self._binaries / "kubelet",
            environ=environ,
        )

    def leave(self, machine: Machine) -> None:
        """Have it no more; nothing runs on it. It can't be had again."""
        self._joined.remove(machine)
        for program in ("kubelet", "containerd"):
            self._children.pop(f"{program}-{machine.name}").stop(())
        with self.api() as api:
            api.delete("nodes", machine.name)

    def _kubeconfig_of(self, machine: Machine) -> Path:
        return self.folder / f"{machine.name}.kubeconfig"

    def _has_containerd(self, machine: Machine) -> bool:
        try:
            self.containerd("version", node=machine.name)
        except BedFailed:
            return False
        return True

    def containerd(self, *arguments: str, node: str = FIRST.name) -> str:
        """What a node's containerd says to a command, among what is of Kubernetes."""
        address = settings.socket(self.place / node)
        command = [str(needs.program("ctr")), f"--address={address}", "--namespace=k8s.io"]
        done = subprocess.run(  # noqa: S603 - a program of the machine
            [*command, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            log = self.log(f"containerd-{node}")
            raise BedFailed(f"ctr {' '.join(arguments)}: {done.stderr}{tail(log)}")
        return done.stdout

    def kill_container(self, node: str, name: str) -> None:
        """Kill -9 its first process, by the name that a pod's status gives: `containerd://…`."""
        container = name.rpartition("/")[2]
        self.containerd("tasks", "kill", "--signal=SIGKILL", container, node=node)

    def load(self, archive: Path, *names: str) -> None:
        """Have an image that is in an OCI archive, also under these names."""
        self._images.append((archive, names))
        for machine in self._joined:
            self._load(machine, archive, names)

    def _load(self, machine: Machine, archive: Path, names: Sequence[str]) -> None:
        said = self.containerd(
            *("images", "import", "--digests=false", str(archive)), node=machine.name
        )
        first = said.split()[1]
        for name in names:
            self.containerd("images", "tag", "--force", first, name, node=machine.name)

    @contextmanager
    def reach(self, host: str, port: int) -> Iterator[int]:
        """A port of our loopback that leads there: a Service's address, a pod's, the node's."""
        self._forwards += 1
        name = f"forward-{self._forwards}"
        reached = self._forward(name, host, port)
        try:
            yield reached
        finally:
            self._children.pop(name).stop(())

    def _forward(self, name: str, host: str, to: int, *, port: int = 0) -> int:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind((LOOPBACK, port))
            listening.listen(512)
            self.spawn(
                *(name, "-I", str(HERE / "forward.py"), str(listening.fileno()), host, str(to)),
                program=Path(sys.executable),
                pass_fds=[listening.fileno()],
            )
            found: int = listening.getsockname()[1]
            return found
