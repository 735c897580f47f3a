"""What a pod says is read as a kubelet reads it."""

import base64
import sys

import pytest
from cluster.api import Object
from cluster.containers import (
    CannotStart,
    argv_of,
    container_of,
    environ_of,
    expanded,
    field,
    grace_of,
    probe_of,
    start_delay_of,
)

POD: Object = {
    "metadata": {
        "name": "worker-1",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"app": "worker"},
        "annotations": {"jangada.test/start-delay": "2.5"},
    },
    "spec": {"nodeName": "node-0", "containers": [{"name": "main", "command": ["python"]}]},
    "status": {"podIP": "127.9.9.1"},
}
URL = base64.b64encode(b"redis://server").decode()
THERE: dict[tuple[str, str], Object] = {
    ("secrets", "valkey"): {"data": {"url": URL}},
    ("configmaps", "tuning"): {"data": {"SLOTS": "4", "LEVEL": "info"}},
}


def lookup(kind: str, name: str) -> Object | None:
    return THERE.get((kind, name))


def environ(*entries: Object, **more: list[Object]) -> dict[str, str]:
    return environ_of(POD, {"env": list(entries), **more}, lookup)


def reference(kind: str, name: str, key: str, **more: bool) -> Object:
    return {"name": "X", "valueFrom": {kind: {"name": name, "key": key, **more}}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.uid", "u-1"),
        ("metadata.name", "worker-1"),
        ("metadata.namespace", "shop"),
        ("metadata.labels['app']", "worker"),
        ("metadata.labels['absent']", ""),
        ("spec.nodeName", "node-0"),
        ("spec.serviceAccountName", ""),
        ("status.podIP", "127.9.9.1"),
    ],
)
def test_the_downward_api_knows_the_field(path: str, value: str) -> None:
    assert field(POD, path) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$(A)-$(B)", "1-2"),
        ("$(ABSENT)", "$(ABSENT)"),
        ("$$(A)", "$(A)"),
        ("$A", "$A"),
    ],
)
def test_variables_are_expanded(text: str, value: str) -> None:
    assert expanded(text, {"A": "1", "B": "2"}) == value


def test_the_environment_is_made_of_values_fields_secrets_and_maps() -> None:
    made = environ(
        {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "URL", "valueFrom": reference("secretKeyRef", "valkey", "url")["valueFrom"]},
        {"name": "NAME", "value": "$(UID)/$(SLOTS)"},
        {"name": "EMPTY"},
        envFrom=[{"configMapRef": {"name": "tuning"}}],
    )
    assert made == {
        "SLOTS": "4",
        "LEVEL": "info",
        "UID": "u-1",
        "URL": "redis://server",
        "NAME": "u-1/4",
        "EMPTY": "",
    }


def test_what_is_optional_may_be_missing() -> None:
    absent = {"configMapRef": {"name": "absent", "optional": True}}
    assert (
        environ(reference("secretKeyRef", "absent", "url", optional=True), envFrom=[absent]) == {}
    )


@pytest.mark.parametrize(
    "entry",
    [
        reference("secretKeyRef", "absent", "url"),
        reference("secretKeyRef", "valkey", "absent"),
        reference("configMapKeyRef", "tuning", "absent"),
        {"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ],
)
def test_a_container_waits_for_what_is_missing(entry: Object) -> None:
    with pytest.raises(CannotStart):
        environ(entry)


def test_programs_of_the_image_are_those_of_this_machine() -> None:
    taskiq = argv_of({"command": ["taskiq"], "args": ["worker", "$(APP)"]}, {"APP": "app:broker"})
    assert taskiq == [sys.executable, "-m", "taskiq", "worker", "app:broker"]
    assert argv_of({"command": ["/bin/true"]}, {}) == ["/bin/true"]


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": [{}, {}]},
        {"containers": [{}], "initContainers": [{}]},
        {"containers": [{"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]},
    ],
)
def test_a_pod_is_refused_that_needs_what_is_not_there(spec: Object) -> None:
    with pytest.raises(CannotStart):
        container_of({"metadata": {}, "spec": spec})


def test_a_container_without_a_command_is_refused() -> None:
    with pytest.raises(CannotStart):
        argv_of({"image": "example.invalid/worker:1"}, {})


def test_grace_is_what_the_deletion_says_else_what_the_pod_says() -> None:
    assert grace_of(POD) == 30
    assert grace_of({**POD, "metadata": {"deletionGracePeriodSeconds": 0}}) == 0


def test_a_start_may_be_delayed() -> None:
    assert start_delay_of(POD) == 2.5
    assert start_delay_of({"metadata": {}}) == 0


def test_a_probe_names_its_port() -> None:
    http = {"httpGet": {"path": "/health", "port": "health"}, "periodSeconds": 3}
    ports = [{"name": "health", "containerPort": 8080}]
    probe = probe_of({"readinessProbe": http, "ports": ports})
    assert probe is not None
    assert (probe.path, probe.port, probe.period, probe.failures) == ("/health", 8080, 3, 3)
    with pytest.raises(CannotStart):
        probe_of({"readinessProbe": {"exec": {"command": ["true"]}}})
    assert probe_of({}) is None
