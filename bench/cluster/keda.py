"""KEDA beside a bed: its operator and its metrics adapter run as processes, against its API server.

The API server reaches the adapter through a Service that is an external name, since endpoints can't
be loopback addresses. What KEDA scales by it reads itself, from a server on this machine.
"""

import re
import shutil
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from cluster.api import Api, Object
from cluster.bed import Bed, free_port
from cluster.certificates import ADDRESS

NAMESPACE: Final = "keda"
SERVICE: Final = "keda-metrics-apiserver"
DEFINITION: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = "v1beta1"
LOGIN: Final = "redis"
"""The name of what KEDA signs in with to the server that it reads."""

ENVIRON: Final = {
    "POD_NAMESPACE": NAMESPACE,
    "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
    "WATCH_NAMESPACE": "",
}


def start_keda(bed: Bed, programs: Path) -> None:
    """Return when a ScaledObject would be heeded; it ends with the bed."""
    certificates = bed.folder / "keda"
    certificates.mkdir()
    for ours, theirs in (("ca.crt",) * 2, ("server.crt", "tls.crt"), ("server.key", "tls.key")):
        shutil.copy(bed.folder / ours, certificates / theirs)
    metrics, port = f"{ADDRESS}:{free_port()}", free_port()
    with bed.api() as api:
        api.make_namespace(NAMESPACE).close()
        for path in (programs / "definitions").iterdir():
            define(api, path.read_text("utf-8"))
        api.kind("scaledobjects.keda.sh")
        operator = _operator_options(bed, certificates, metrics)
        bed.spawn("keda-operator", *operator, program=programs / "operator", environ=ENVIRON)
        adapter = _adapter_options(bed, certificates, metrics, port)
        bed.spawn("keda-adapter", *adapter, program=programs / "adapter", environ=ENVIRON)
        for manifest in _registration(port):
            api.apply(manifest)
        bed.wait("KEDA's metrics", lambda: is_available(api))


def define(api: Api, text: str) -> None:
    """Make a CustomResourceDefinition; too long for an annotation, it is applied by the server."""
    name = re.search(r"^  name: (\S+)$", text, re.MULTILINE)
    assert name is not None, text
    api.call("PATCH", f"{DEFINITION}/{name[1]}", text, form="apply", fieldManager="keda")


def is_available(api: Api) -> bool:
    """Whether the API server has reached the adapter."""
    found = api.find("APIService", f"{VERSION}.{GROUP}")
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(each["type"] == "Available" and each["status"] == "True" for each in conditions)


def scaled_object(
    name: str,
    *,
    most: int,
    triggers: list[Object],
    **spec: Any,  # noqa: ANN401 - the spec's own
) -> Object:
    """For the Deployment of the same name; from none, looked at every second."""
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"name": name},
            "pollingInterval": 1,
            "cooldownPeriod": 5,
            "minReplicaCount": 0,
            "maxReplicaCount": most,
            "triggers": triggers,
            **spec,
        },
    }


def stream_trigger(api: Api, url: str, stream: str, length: int) -> Object:
    """A trigger of so many entries a replica; how to sign in to the server is put beside it."""
    about = urlsplit(url)
    api.secret(LOGIN, password=unquote(about.password or ""))
    parameter = {"parameter": "password", "name": LOGIN, "key": "password"}
    api.apply(
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "TriggerAuthentication",
            "metadata": {"name": LOGIN},
            "spec": {"secretTargetRef": [parameter]},
        }
    )
    metadata = {"address": about.path, "stream": stream, "streamLength": str(length)}
    return {
        "type": "redis-streams",
        "metadata": metadata,
        "authenticationRef": {"name": LOGIN},
    }


def _operator_options(bed: Bed, certificates: Path, metrics: str) -> list[str]:
    return [
        *(f"--kubeconfig={bed.admin}", "--leader-elect=false", f"--cert-dir={certificates}"),
        f"--metrics-bind-address={ADDRESS}:{free_port()}",
        f"--health-probe-bind-address={ADDRESS}:{free_port()}",
        f"--metrics-service-bind-address={metrics}",
        *("--enable-webhook-patching=false", "--enable-apiservice-patching=false"),
    ]


def _adapter_options(bed: Bed, certificates: Path, metrics: str, port: int) -> list[str]:
    roles = ("lister-kubeconfig", "kubeconfig", "authentication-kubeconfig")
    return [
        *(f"--{role}={bed.admin}" for role in (*roles, "authorization-kubeconfig")),
        *(f"--bind-address={ADDRESS}", f"--secure-port={port}", f"--port={free_port()}"),
        *(f"--tls-cert-file={certificates}/tls.crt", f"--cert-dir={certificates}"),
        f"--tls-private-key-file={certificates}/tls.key",
        *(f"--client-ca-file={certificates}/ca.crt", f"--metrics-service-address={metrics}"),
    ]


def _registration(port: int) -> list[Object]:
    service = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": SERVICE, "namespace": NAMESPACE},
            "spec": service,
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{VERSION}.{GROUP}"},
            "spec": {
                "service": {"name": SERVICE, "namespace": NAMESPACE, "port": port},
                "group": GROUP,
                "version": VERSION,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
            },
        },
    ]
