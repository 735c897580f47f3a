"""What a container is to be run as, read from its pod: arguments, environment, probe, grace.

As a kubelet reads it. What is not read here (volumes, init containers, limits, `preStop`, probes
other than readiness by HTTP) is not there in this cluster: a pod that needs it is refused.
"""

import base64
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.api import Object

PROCESS: Final = "jangada.test/process"
"""The label of pods that are to be processes; its value doesn't matter."""

START_DELAY: Final = "jangada.test/start-delay"
"""An annotation: seconds until the container starts, as if its image had to be fetched."""

INTERPRETER: Final[Mapping[str, Sequence[str]]] = {
    "python": (sys.executable,),
    "taskiq": (sys.executable, "-m", "taskiq"),
    "jangada": (sys.executable, "-m", "jangada"),
    "jangada-queue": (str(Path(sys.executable).with_name("jangada-queue")),),
}
"""Programs of the image; modules are what the fork server can start."""

REFUSED: Final = ("preStop", "postStart")

type Lookup = Callable[[str, str], Object | None]
"""A Secret or ConfigMap of the pod's namespace, by kind and name."""


class CannotStart(Exception):
    """The container can't be started as things are; it may be when they have changed."""


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP readiness probe, in seconds."""

    path: str
    port: int
    delay: float
    period: float
    timeout: float
    successes: int
    failures: int


def container_of(pod: Object) -> Object:
    """The pod's one container."""
    containers: list[Object] = pod["spec"]["containers"]
    if len(containers) != 1 or pod["spec"].get("initContainers"):
        raise CannotStart("a process has one container, and no init container")
    if any(hook in containers[0].get("lifecycle", {}) for hook in REFUSED):
        raise CannotStart("hooks are not run here")
    return containers[0]


def grace_of(pod: Object) -> float:
    """Seconds between SIGTERM and SIGKILL, once it is being deleted."""
    grace = pod["metadata"].get("deletionGracePeriodSeconds")
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace)


def start_delay_of(pod: Object) -> float:
    return float(pod["metadata"].get("annotations", {}).get(START_DELAY, 0))


def environ_of(pod: Object, container: Object, lookup: Lookup) -> dict[str, str]:
    """The container's variables, those that are made of others included."""
    environ: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        environ |= _all_of(source, lookup)
    for entry in container.get("env", ()):
        value = _value(pod, entry, lookup)
        if value is not None:
            environ[entry["name"]] = expanded(value, environ)
    return environ


def argv_of(container: Object, environ: Mapping[str, str]) -> list[str]:
    """Its command line, with the programs of the image where they are on this machine."""
    given = [*container.get("command", ()), *container.get("args", ())]
    if not given:
        raise CannotStart("a process needs a command: no image says what to run")
    program, *arguments = (expanded(word, environ) for word in given)
    return [*INTERPRETER.get(program, (program,)), *arguments]


def expanded(text: str, environ: Mapping[str, str]) -> str:
    """`$(NAME)` by its value, `$$(NAME)` by `$(NAME)`; unknown names stay."""

    def value(found: re.Match[str]) -> str:
        if found[0].startswith("$$"):
            return found[0][1:]
        return environ.get(found[1], found[0])

    return re.sub(r"\$?\$\(([\w.-]+)\)", value, text)


def _value(pod: Object, entry: Object, lookup: Lookup) -> str | None:
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value", ""))
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"])
    for reference, kind in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if reference in source:
            return _key_of(kind, source[reference], lookup)
    raise CannotStart(f"{entry['name']}: {', '.join(source)} is not read here")


def field(pod: Object, path: str) -> str:
    """What the downward API says of `metadata.uid`, `metadata.labels['app']`, `status.podIP`, …."""
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(pod["metadata"].get(found[1], {}).get(found[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, {})
    return value if isinstance(value, str) else ""


def _key_of(kind: str, reference: Object, lookup: Lookup) -> str | None:
    found = lookup(kind, reference["name"])
    values = {} if found is None else _texts(kind, found)
    if reference["key"] in values:
        return values[reference["key"]]
    if reference.get("optional"):
        return None
    raise CannotStart(f"{kind} {reference['name']} has no {reference['key']}")


def _all_of(source: Object, lookup: Lookup) -> dict[str, str]:
    kind, key = (
        ("secrets", "secretRef") if "secretRef" in source else ("configmaps", "configMapRef")
    )
    found = lookup(kind, source[key]["name"])
    if found is None and not source[key].get("optional"):
        raise CannotStart(f"there is no {kind} {source[key]['name']}")
    values = {} if found is None else _texts(kind, found)
    return {source.get("prefix", "") + name: text for name, text in values.items()}


def _texts(kind: str, found: Object) -> dict[str, str]:
    data: dict[str, str] = found.get("data") or {}
    if kind == "secrets":
        return {key: base64.b64decode(text).decode() for key, text in data.items()}
    return data


def probe_of(container: Object) -> Probe | None:
    """Its readiness probe; without one a container is ready while its process is up."""
    given = container.get("readinessProbe")
    if given is None:
        return None
    if "httpGet" not in given:
        raise CannotStart("readiness is probed by httpGet only")
    port = given["httpGet"]["port"]
    if isinstance(port, str):
        ports = {each.get("name"): each["containerPort"] for each in container.get("ports", ())}
        port = ports[port]
    return Probe(
        path=given["httpGet"].get("path", "/"),
        port=port,
        delay=given.get("initialDelaySeconds", 0),
        period=given.get("periodSeconds", 10),
        timeout=given.get("timeoutSeconds", 1),
        successes=given.get("successThreshold", 1),
        failures=given.get("failureThreshold", 3),
    )
