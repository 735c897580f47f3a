"""One pod as a process: started, restarted, probed, asked to end, killed, and its object removed.

A life looks at what is so and does the next thing, again and again; news wake it. So an API server
that is away stops nothing: the process goes on, and what could not be said is said later.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import psutil
from chaos.forkserver import Forked, Launch

from cluster.api import GONE, NOT_FOUND, Api, ApiError, Object
from cluster.containers import (
    CannotStart,
    Probe,
    argv_of,
    container_of,
    environ_of,
    grace_of,
    probe_of,
    start_delay_of,
)
from cluster.status import is_deleted, now, status_of
from jangada.local.logs import open_log
from jangada.local.process import Child, Command

RETRY: Final = 0.2
"""Seconds until what failed is tried again."""

CONFLICT: Final = 409
NO_LONGER: Final = (NOT_FOUND, CONFLICT, GONE)
"""How the API server says that the object is another one by now, or none."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How one process of a pod ended."""

    namespace: str
    pod: str
    uid: str
    code: int
    was_asked: bool
    """Its pod was being deleted; else it ended by itself."""
    was_killed: bool
    """It had not ended within its grace."""
    held: int | None
    """Jobs that it was running when it was asked to end, where a witness knows."""
    seconds: float
    """From SIGTERM to the end, or from the start where nobody had asked."""

    @property
    def was_in_order(self) -> bool:
        """By itself, and well. Before it listens for SIGTERM it ends by that, and holds nothing."""
        began = (self.code, self.held) != (-signal.SIGTERM, 0)
        return not self.was_killed and (self.code == 0 or not began)

    @property
    def was_drained(self) -> bool:
        """It had nothing to do any more when it was asked to end."""
        return self.was_asked and self.held == 0


class Witness(Protocol):
    """Knows what the processes of pods do, and writes down what is done to them."""

    def held(self, pod: Object, pids: Sequence[int]) -> int | None: ...
    def killing(self, pod: Object, pids: Sequence[int]) -> None: ...
    def ended(self, pod: Object, pids: Sequence[int]) -> None: ...


class Nobody:
    """Knows nothing."""

    def held(self, pod: Object, pids: Sequence[int]) -> int | None:  # noqa: ARG002 - the seam's
        return None

    def killing(self, pod: Object, pids: Sequence[int]) -> None:
        """It is written nowhere."""

    def ended(self, pod: Object, pids: Sequence[int]) -> None:
        """It is written nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What all lives share."""

    api: Api
    probing: httpx.Client
    launch: Launch
    folder: Path
    environ: Mapping[str, str]
    """What the image gives each container."""
    witness: Witness
    backoff: tuple[float, float]
    """Seconds before the first restart, which double up to the second figure."""
    exits: list[Exit] = field(default_factory=list)
    troubles: list[BaseException] = field(default_factory=list)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [pid, *(child.pid for child in parent.children(recursive=True))]
    return []


class Life:
    """One pod, from the moment that it has a node until its object is gone; a thread of its own."""

    def __init__(self, machine: Machine, pod: Object, address: str) -> None:
        self.machine, self.address = machine, address
        self.name: str = pod["metadata"]["name"]
        self.namespace: str = pod["metadata"]["namespace"]
        self.uid: str = pod["metadata"]["uid"]
        self.forced: bool | None = None
        self.restarts = 0
        self._pod: Object | None = pod
        self._last_seen = pod
        self._news = threading.Event()
        self._program: Child | Forked | None = None
        self._pids: Sequence[int] = ()
        self._probe: Probe | None = None
        self._in_a_row = 0
        self._passes = False
        self._start_at = time.monotonic() + start_delay_of(pod)
        self._started_at = self._probe_at = self._asked_at = math.inf
        self._pause = machine.backoff[0]
        self._was_killed = self._is_over = False
        self._held: int | None = None
        self._state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self._last_state: Object = {}
        self._was_ready, self._ready_since = False, now()
        self._published: Object = {}
        self._thread = threading.Thread(target=self._run, name=f"runs {self.name}", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._program is not None and self._program.is_running

    @property
    def was_asked(self) -> bool:
        """Its process was sent SIGTERM."""
        return not math.isinf(self._asked_at)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def pids(self) -> list[int]:
        """Its processes, now."""
        return family(self._program.pid) if self._program is not None else []

    @property
    def log(self) -> Path:
        return self.machine.folder / f"{self.namespace}.{self.name}.log"

    def tell(self, pod: Object | None) -> None:
        """The object as it is now; None when there is none any more."""
        if pod is not self._pod:
            self._pod = pod
            self._news.set()

    def force(self, is_ready: bool | None) -> None:
        """Be ready, or not, whatever a probe says; None gives the word back to it."""
        self.forced = is_ready
        self._news.set()

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes, as something outside of the cluster does it."""
        pids = self.pids
        if number == signal.SIGKILL:
            self.machine.witness.killing(self._last_seen, pids)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_over:
                self._news.clear()
                due = self._turn()
                pause = due - time.monotonic()
                self._news.wait(None if math.isinf(pause) else max(pause, 0))
        except BaseException as error:  # noqa: BLE001 - told to whoever runs the test
            self.machine.troubles.append(error)
        finally:
            if self._program is not None and self._program.is_running:
                self.signal(signal.SIGKILL)

    def _turn(self) -> float:
        """Do what is to be done now; answers when to look again, if nothing happens before."""
        try:
            due = self._step()
            if not self._is_over and self._pod is not None:
                self._publish()
        except httpx.TransportError:
            return time.monotonic() + RETRY
        except ApiError as error:
            if error.status not in NO_LONGER:
                return time.monotonic() + RETRY
            return time.monotonic() + 1
        return due

    def _step(self) -> float:
        pod, at = self._pod, time.monotonic()
        if self._program is not None and not self._program.is_running:
            self._bury(at)
        if pod is None:
            return self._vanish()
        self._last_seen = pod
        if is_deleted(pod):
            return self._end(pod, at)
        if self._program is None:
            return self._begin(pod, at)
        return self._look(at)

    def _begin(self, pod: Object, at: float) -> float:
        """Start the process, unless it is to wait or has done its work."""
        if self._phase(pod) != "Running" or at < self._start_at:
            return self._start_at if self._phase(pod) == "Running" else math.inf
        try:
            self._launch(pod)
        except (CannotStart, OSError) as error:
            reason = {"reason": "CreateContainerConfigError", "message": str(error)}
            self._state = {"waiting": reason}
            self._start_at = at + 1
            return self._start_at
        self._started_at, self._asked_at = at, math.inf
        self._was_killed, self._held, self._pids = False, None, ()
        self._passes, self._in_a_row = False, 0
        self._state = {"running": {"startedAt": now()}}
        return self._look(at)

    def _launch(self, pod: Object) -> None:
        container = container_of(pod)
        seen = {**pod, "status": {**pod.get("status", {}), "podIP": self.address}}
        own = environ_of(seen, container, self._lookup)
        command = Command(
            argv=argv_of(container, own),
            environ={**self.machine.environ, "HOSTNAME": self.name, **own},
            folder=Path(container.get("workingDir", self.machine.folder)),
            death_signal=signal.SIGKILL,
        )
        self._probe = probe_of(container)
        if self._last_state:
            self.restarts += 1
        with open_log(self.log) as output:
            program = self.machine.launch(command, output.fileno(), ())
        self._program = program
        self._probe_at = time.monotonic() + (self._probe.delay if self._probe else math.inf)
        program.ended.add_done_callback(lambda _: self._news.set())

    def _lookup(self, kind: str, name: str) -> Object | None:
        return self.machine.api.find(kind, name, namespace=self.namespace)

    def _look(self, at: float) -> float:
        """Probe, when it is time to."""
        probe = self._probe
        if probe is None:
            self._passes = True
            return math.inf
        if at < self._probe_at:
            return self._probe_at
        passes = self._answers(probe)
        self._in_a_row = self._in_a_row + 1 if passes != self._passes else 0
        if self._in_a_row >= (probe.successes if passes else probe.failures):
            self._passes, self._in_a_row = passes, 0
        self._probe_at = at + probe.period
        return self._probe_at

    def _answers(self, probe: Probe) -> bool:
        url = f"http://{self.address}:{probe.port}{probe.path}"
        try:
            return self.machine.probing.get(url, timeout=probe.timeout).status_code < 400  # noqa: PLR2004 - as a kubelet
        except httpx.HTTPError:
            return False

    def _end(self, pod: Object, at: float) -> float:
        """SIGTERM, SIGKILL after the grace, and the object goes once the process has."""
        if self._program is not None:
            if not self.was_asked:
                self._pids = self.pids
                self._held = self.machine.witness.held(pod, self._pids)
                self._asked_at = at
                self._program.send(signal.SIGTERM)
            if at < self._asked_at + grace_of(pod):
                return self._asked_at + grace_of(pod)
            self._kill()
            return math.inf
        try:
            self._publish()
            how: dict[str, Any] = {"namespace": self.namespace, "grace": 0, "uid": self.uid}
            self.machine.api.delete("pods", self.name, **how)
        except ApiError as error:
            if error.status not in NO_LONGER:
                raise
        self._is_over = True
        return at

    def _vanish(self) -> float:
        """The object is gone before the process: it was deleted by force."""
        if self._program is None:
            self._is_over = True
            return 0
        self._kill()
        return math.inf

    def _kill(self) -> None:
        self._was_killed = True
        self._pids = self.pids
        self.signal(signal.SIGKILL)

    def _bury(self, at: float) -> None:
        """Note how the process ended, and when the next one may start."""
        assert self._program is not None, "asked only then"
        code, was_asked = self._program.ended.result(), self.was_asked
        since = self._asked_at if was_asked else self._started_at
        self.machine.witness.ended(self._last_seen, self._pids or [self._program.pid])
        self.machine.exits.append(
            Exit(
                *(self.namespace, self.name, self.uid, code, was_asked),
                *(self._was_killed, self._held, at - since),
            )
        )
        self._program = None
        terminated = {"exitCode": code if code >= 0 else 128 - code, "finishedAt": now()}
        reason = "Completed" if code == 0 else "Error"
        self._last_state = self._state = {"terminated": {**terminated, "reason": reason}}
        first, longest = self.machine.backoff
        was_calm = at - self._started_at > 2 * longest
        pause = first if was_calm else self._pause
        self._pause, self._start_at = min(2 * pause, longest), at + pause

    def _phase(self, pod: Object) -> str:
        """Running also while it waits for a restart."""
        policy, ended = pod["spec"].get("restartPolicy", "Always"), self._last_state
        if not ended or policy == "Always" or self._program is not None:
            return "Running"
        if ended["terminated"]["exitCode"] == 0:
            return "Succeeded"
        return "Failed" if policy == "Never" else "Running"

    def _publish(self) -> None:
        """Say how the pod is, when that has changed."""
        if (status := self._status(self._last_seen)) != self._published:
            body = {"status": status, "metadata": {"uid": self.uid}}
            how = {"form": "strategic", "namespace": self.namespace, "subresource": "status"}
            self.machine.api.patch("pods", self.name, body, **how)
            self._published = status

    def _status(self, pod: Object) -> Object:
        is_ready = self.is_running and (self._passes if self.forced is None else self.forced)
        if is_ready != self._was_ready:
            self._was_ready, self._ready_since = is_ready, now()
        return status_of(
            pod,
            address=self.address,
            phase=self._phase(pod),
            ready=(is_ready, self._ready_since),
            restarts=self.restarts,
            state=self._state,
            last_state=self._last_state,
        )
