"""Every manifest that we ship or show, as the API servers of six minors of Kubernetes read it."""

import copy
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, Object, parsed
from schemas import MINORS, UnknownKind, faults
from toolchain import ROOT

SNAPSHOTS = sorted(CHART.glob("tests/*.rendered.yaml"))
SHIPPED = [*SNAPSHOTS, *CHART.glob("crds/*.yaml"), *ROOT.glob("k8s/**/*.yaml")]
GUIDES = sorted(ROOT.glob("docs/guides/*.md"))
NOT_COVERED = {
    "Application": "of Argo CD",
    "Cluster": "of CloudNativePG",
    "GitRepository": "of Flux",
    "HelmRelease": "of Flux",
    "HTTPRoute": "of Gateway API, whose definition comes with a gateway",
    "Kustomization": "read by kustomize, or of Flux",
    "PodMonitor": "of the Prometheus operator",
    "ScheduledBackup": "of CloudNativePG",
    "PrometheusRule": "of the Prometheus operator; tests/test_alerts.py has promtool read it",
}
"""Kinds that nobody holds against a schema here, and why."""


def shown(guide: Path) -> str:
    """The manifests of a guide; other YAML in it is values or the like."""
    found = re.findall(r"^```yaml\n(.*?)^```", guide.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return "\n---\n".join(text for text in found if text.startswith("apiVersion:"))


@cache
def manifests() -> dict[str, list[Object]]:
    """All objects, by the file that has them; values of charts aren't any."""
    files = {str(path.relative_to(ROOT)): parsed(path.read_text("utf-8")) for path in SHIPPED}
    guides = {str(path.relative_to(ROOT)): parsed(shown(path)) for path in GUIDES}
    found = {
        name: [each for each in objects if "apiVersion" in each]
        for name, objects in (files | guides).items()
    }
    return {name: objects for name, objects in found.items() if objects}


def objects() -> Iterator[Object]:
    for each in manifests().values():
        yield from each


def wrong(found: Object, minor: int) -> list[str]:
    return [] if found["kind"] in NOT_COVERED else faults(found, minor)


@pytest.mark.parametrize("minor", MINORS)
def test_every_manifest_is_what_a_server_of_that_minor_takes(minor: int) -> None:
    assert len(manifests()) > 12
    found = [
        f"{name}: {fault}"
        for name, objects in manifests().items()
        for each in objects
        for fault in wrong(each, minor)
    ]
    assert found == []


def test_what_is_not_covered_is_named_once() -> None:
    kinds = {each["kind"] for each in objects()}
    assert kinds >= NOT_COVERED.keys()
    for each in objects():
        if each["kind"] in NOT_COVERED:
            with pytest.raises(UnknownKind):
                faults(each, MINORS[-1])


def test_the_minors_are_those_from_the_charts_to_the_newest_that_is_known() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["kubeVersion"] == f">=1.{MINORS[0]}.0-0"
    assert version("kubernetes-validate").startswith(f"1.{MINORS[-1]}.")


def a(kind: str) -> Any:  # noqa: ANN401 - a test changes some field of it
    """One of our objects, to be changed."""
    return copy.deepcopy(next(each for each in objects() if each["kind"] == kind))


def container(found: Any) -> Any:  # noqa: ANN401 - as above
    return found["spec"]["template"]["spec"]["containers"][0]


Change = Callable[[Any], object]
WRONG: list[tuple[str, Change, str]] = [
    ("Deployment", lambda it: it["spec"].update(replica=3), "spec: .*'replica' was unexpected"),
    ("Deployment", lambda it: container(it).update(livenesProbe={}), "'livenesProbe'"),
    (
        "Deployment",
        lambda it: container(it)["ports"][0].update(containerPort="http"),
        "containerPort",
    ),
    ("Deployment", lambda it: it["spec"].pop("selector"), "'selector' is a required"),
    ("NetworkPolicy", lambda it: it["spec"].update(policyTypes="Ingress"), "policyTypes"),
    ("Role", lambda it: it["rules"][0].update(verb=["get"]), "'verb' was unexpected"),
    ("CustomResourceDefinition", lambda it: it["spec"].update(scoped=True), "'scoped'"),
    ("WorkerPool", lambda it: it["spec"].update(replica={}), "spec: .*'replica' was unexpected"),
    (
        "WorkerPool",
        lambda it: it["spec"]["replicas"].update(maximum=3),
        "spec.replicas: .*'maximum'",
    ),
    ("WorkerPool", lambda it: it["spec"].update(queues=[]), "spec.queues"),
    ("WorkerPool", lambda it: it["spec"].pop("broker"), "'broker' is a required"),
    ("WorkerPool", lambda it: it["spec"]["scaleTargetRef"].update(kind="StatefulSet"), "kind"),
]


@pytest.mark.parametrize(("kind", "change", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_a_wrong_field_is_found(kind: str, change: Change, said: str) -> None:
    found = a(kind)
    assert faults(found, MINORS[0]) == []
    change(found)
    told = faults(found, MINORS[0])
    assert any(re.search(said, each) for each in told), told


def test_what_one_minor_doesnt_know_another_may() -> None:
    """So it is the minor's own schema that is asked."""
    found = a("Deployment")
    spec = found["spec"]["template"]["spec"]
    spec["hostnameOverride"] = "shop"
    assert [bool(faults(found, minor)) for minor in MINORS] == [True, True, *[False] * 4]


def test_another_version_of_ours_is_none() -> None:
    found = a("WorkerPool") | {"apiVersion": "jangada.dev/v1"}
    with pytest.raises(UnknownKind):
        faults(found, MINORS[0])
