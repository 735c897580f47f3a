"""Runs a process for each pod that is labelled for it, on whichever fake node it was put.

Each pod has an address of its own in 127.0.0.0/8, so many may listen on one port: what serves
something binds to its `status.podIP`. The environment of a container is what its pod says, beside
little that an image would say; nothing of the test's own environment gets there.
"""

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import httpx
from chaos.forkserver import FOLDERS, Launch, start, told_before

from cluster.api import Api, Object
from cluster.containers import PROCESS
from cluster.life import Exit, Life, Machine, Nobody, Witness
from jangada.local.logs import tail
from jangada.local.process import plain_environ

BENCH: Final = Path(__file__).parent.parent
MOST: Final = 254
"""Pods at once; each has an address that ends in its number."""

BACKOFF: Final = (1.0, 30.0)


def image() -> dict[str, str]:
    """What an image with this Python, our packages and the programs of the bench would say."""
    return {**told_before(os.environ), **plain_environ(), FOLDERS: str(BENCH)}


class Kubelet:
    """The kubelet of all nodes of a bed; `api` is its own client, which it closes."""

    def __init__(
        self,
        api: Api,
        folder: Path,
        *,
        launch: Launch = start,
        witness: Witness | None = None,
        backoff: tuple[float, float] = BACKOFF,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._api = api
        self._machine = Machine(
            api=api,
            probing=httpx.Client(trust_env=False),
            launch=launch,
            folder=folder,
            environ=image(),
            witness=witness or Nobody(),
            backoff=backoff,
        )
        self._lives: dict[str, Life] = {}
        self._network = api.port
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watches pods", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """As if the node lost power: every process is killed, its pod stays as it was."""
        self._is_stopping.set()
        self._thread.join()
        lives = list(self._lives.values())
        for life in lives:
            life.tell(None)
        for life in lives:
            life.join()
        self._machine.probing.close()
        self._api.close()

    def exits(self, namespace: str) -> Sequence[Exit]:
        """How processes of its pods ended so far, in order."""
        return [each for each in self._machine.exits if each.namespace == namespace]

    @property
    def troubles(self) -> Sequence[BaseException]:
        """What went wrong in here; there should be none."""
        return self._machine.troubles

    def running(self, namespace: str) -> Mapping[str, Life]:
        """The pods whose process is up, by uid."""
        return {
            uid: life
            for uid, life in list(self._lives.items())
            if life.namespace == namespace and life.is_running
        }

    def life(self, pod: Object) -> Life:
        """What is done for a pod: its log, its processes, and the means to hurt them."""
        return self._lives[pod["metadata"]["uid"]]

    def force_ready(self, pod: Object, is_ready: bool | None) -> None:
        """Have it ready or not, whatever its probe says; None ends that."""
        self.life(pod).force(is_ready)

    def crash(self, pod: Object) -> None:
        """Kill its processes, as the kernel does when memory is out."""
        self.life(pod).signal(signal.SIGKILL)

    def last_words(self, namespace: str) -> str:
        """The ends of the logs of its pods, for messages."""
        logs = sorted(self._machine.folder.glob(f"{namespace}.*.log"))
        return "\n".join(f"{log.stem}:\n{tail(log)}" for log in logs)

    def _run(self) -> None:
        try:
            for pods in self._api.states("pods", selector=PROCESS, everywhere=True):
                if self._is_stopping.is_set():
                    return
                self._follow(pods)
        except BaseException as error:  # noqa: BLE001 - told to whoever runs the test
            self._machine.troubles.append(error)

    def _follow(self, pods: Mapping[str, Object]) -> None:
        """Tell each life how its pod is now, and begin those that are new."""
        for uid, life in list(self._lives.items()):
            life.tell(pods.get(uid))
            if life.is_over and uid not in pods:
                del self._lives[uid]
        for uid, pod in pods.items():
            if uid not in self._lives and pod["spec"].get("nodeName"):
                if (address := next(self._free_addresses(), None)) is None:
                    raise OverflowError(f"more than {MOST} pods at once")
                self._lives[uid] = Life(self._machine, pod, address)

    def _free_addresses(self) -> Iterator[str]:
        """Beds that stand at once have different ports, and so different networks."""
        taken = {life.address for life in self._lives.values()}
        network = f"127.{self._network >> 8}.{self._network & 255}"
        addresses = (f"{network}.{number}" for number in range(1, MOST + 1))
        return (address for address in addresses if address not in taken)
