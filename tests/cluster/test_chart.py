"""The chart on a real control plane, whose pods only seem to run, by four ways to install it."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tools
import yaml
from chart import CHART, template, values
from cluster.api import Api, Object
from cluster.bed import Bed
from cluster.pools import SLOW
from toolchain import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

WAIT = ["--wait", "--timeout", "5m"]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
ABSENT = ["edge.httpRoute.enabled=false", "monitoring.podMonitors=false", "monitoring.rules=false"]
"""What needs definitions that are of others."""

COUNTED = ["deployments", "jobs", "networkpolicies", "poddisruptionbudgets", "workerpools"]
OTHER = {"api.image.digest": "", "api.image.tag": "0.2.0"}


@dataclass(frozen=True)
class Place:
    """A namespace that is as strict as one can be, and the programs that people use in it."""

    bed: Bed
    programs: Path
    api: Api
    folder: Path

    @property
    def namespace(self) -> str:
        return self.api.namespace

    def run(self, program: Path, *arguments: str, given: str = "") -> str:
        environ = os.environ | {"KUBECONFIG": str(self.bed.admin), "HOME": str(self.folder)}
        done = subprocess.run(  # noqa: S603 - a pinned program
            [str(program), "--namespace", self.namespace, *arguments],
            env=environ,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self.run(self.programs / "kubectl", *arguments, given=given)


def built(kind: tools.ToolSet) -> Path:
    if (found := tools.find(kind)) is None:
        pytest.skip(f"helm isn't built: `make tools ARGS={kind.name}` does it")
    return found / "helm"


def chosen(changes: Mapping[str, str]) -> list[str]:
    given = [*ABSENT, *(f"{name}={value}" for name, value in changes.items())]
    return ["--values", str(values("production")), *(f"--set={each}" for each in given)]


def by_helm(place: Place, changes: Mapping[str, str], kind: tools.ToolSet) -> None:
    command = ["upgrade", "--install", "shop", str(CHART), *chosen(changes), *WAIT]
    place.run(built(kind), *command)


def by_helm_4(place: Place, changes: Mapping[str, str]) -> None:
    by_helm(place, changes, tools.CHART)


def by_helm_3(place: Place, changes: Mapping[str, str]) -> None:
    by_helm(place, changes, tools.HELM3)


def by_kubectl(place: Place, changes: Mapping[str, str]) -> None:
    """As Argo CD and Flux do it, too: rendered somewhere, applied by the server."""
    apply_definition(place)
    text = template(built(tools.CHART), *chosen(changes), "--namespace", place.namespace)
    place.kubectl("apply", "--server-side", "-f", "-", given=text)


def by_kustomize(place: Place, changes: Mapping[str, str]) -> None:
    """A copy of our overlay, as it says."""
    apply_definition(place)
    ours, overlay = ROOT / "k8s/overlays/production", place.folder / "overlay"
    overlay.mkdir(exist_ok=True)
    text = (ours / "kustomization.yaml").read_text("utf-8")
    text = text.replace("../../base", os.path.relpath(ROOT / "k8s/base", overlay))
    text = text.replace("namespace: jangada\n", f"namespace: {place.namespace}\n")
    text = text.replace("0.1.0", changes.get("api.image.tag", "0.1.0"))
    (overlay / "kustomization.yaml").write_text(text)
    place.kubectl("apply", "--server-side", "-k", str(overlay))


def apply_definition(place: Place) -> None:
    place.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "k8s/crds"))
    established = ["--for=condition=Established", "crd/workerpools.jangada.dev"]
    place.kubectl("wait", f"--timeout={SLOW:.0f}s", *established)


Install = Callable[[Place, Mapping[str, str]], None]
WAYS: list[Install] = [by_helm_4, by_helm_3, by_kubectl, by_kustomize]


@pytest.fixture
def place(bed: Bed, programs: Path, tmp_path: Path) -> Iterator[Place]:
    name = f"chart-{secrets.token_hex(3)}"
    with bed.api() as admin, admin.make_namespace(name) as api:
        admin.patch("namespaces", name, {"metadata": {"labels": RESTRICTED}})
        made = Place(bed, programs, api, tmp_path)
        claim(made)
        yield made
        admin.delete("namespaces", name)
    bed.check()


def claim(place: Place) -> None:
    """What `k8s/base` asks its users for: a volume that is there."""
    size, name = {"storage": "1Gi"}, f"files-{place.namespace}"
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    place.api.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {**spec, "capacity": size, "hostPath": {"path": "/tmp/none"}},  # noqa: S108 - nobody mounts it
        }
    )
    place.api.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "jangada-files"},
            "spec": {**spec, "resources": {"requests": size}, "volumeName": name},
        }
    )


def wait_ready(place: Place) -> None:
    # The autoscaler, whose word three is here, has its turn every 15 s.
    three = ["--for=jsonpath={.spec.replicas}=3", "--selector=app.kubernetes.io/component=api"]
    place.kubectl("wait", "--timeout=300s", *three, "deployments")
    place.kubectl("wait", "--timeout=300s", "--for=condition=Available", "deployments", "--all")
    place.kubectl("wait", "--timeout=300s", "--for=condition=Complete", "jobs", "--all")


def generations(place: Place) -> dict[tuple[str, str], Any]:
    """How often what was asked for has changed, of each object."""
    return {
        (kind, each["metadata"]["name"]): each["metadata"].get("generation")
        for kind in COUNTED
        for each in place.api.list(kind)
    }


def jobs(place: Place) -> set[str]:
    return {each["metadata"]["name"] for each in place.api.list("jobs")}


@pytest.mark.smoke
@pytest.mark.parametrize("install", [by_helm_4, by_kustomize])
def test_it_installs_and_a_second_time_changes_nothing(place: Place, install: Install) -> None:
    """What goes wrong first: an object that the server refuses, a field that two want to have."""
    install(place, {})
    wait_ready(place)
    before = generations(place)
    assert {kind for kind, _ in before} == set(COUNTED)
    install(place, {})
    assert generations(place) == before


@pytest.mark.parametrize("install", WAYS)
def test_it_installs_upgrades_and_goes_back(place: Place, install: Install) -> None:
    install(place, {})
    wait_ready(place)
    first, migrations = generations(place), jobs(place)
    assert len(migrations) == 1
    install(place, {})
    assert generations(place) == first, "nothing has changed"
    for changes in (OTHER, {}, OTHER):
        install(place, changes)
        wait_ready(place)
        assert image_of_api(place).endswith(":0.2.0") is bool(changes)


def image_of_api(place: Place) -> str:
    (found,) = place.api.list("deployments", selector="app.kubernetes.io/component=api")
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.mark.parametrize("kind", [tools.CHART, tools.HELM3], ids=lambda kind: kind.name)
def test_what_is_uninstalled_leaves_the_definition(place: Place, kind: tools.ToolSet) -> None:
    """So nobody's pools go with a release; another one finds them."""
    by_helm(place, {}, kind)
    own = {
        "apiVersion": "jangada.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": "own"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "own"},
            "queues": ["own"],
            "broker": {"secretKeyRef": {"name": "own", "key": "url"}},
            "replicas": {"min": 0, "max": 1},
        },
    }
    place.api.apply(own)
    place.run(built(kind), "uninstall", "shop", *WAIT)
    assert [each["metadata"]["name"] for each in place.api.list("workerpools")] == ["own"]
    by_helm(place, {}, kind)
    assert {each["metadata"]["name"] for each in place.api.list("workerpools")} > {"own"}


@pytest.mark.parametrize("kind", [tools.CHART, tools.HELM3], ids=lambda kind: kind.name)
def test_uploaded_files_stay_as_the_rows_that_name_them(place: Place, kind: tools.ToolSet) -> None:
    """With `dev`: the claim stays, as that of PostgreSQL does, and the next release takes it."""

    def claim() -> str:
        return str(place.api.get("persistentvolumeclaims", "shop-dev-files")["metadata"]["uid"])

    command = ["upgrade", "--install", "shop", str(CHART), "--set=dev.enabled=true"]
    place.run(built(kind), *command)
    before = claim()
    place.run(built(kind), "uninstall", "shop", *WAIT)
    assert claim() == before
    place.run(built(kind), *command)
    assert claim() == before


def test_a_release_can_be_rolled_back_by_helm(place: Place) -> None:
    by_helm_4(place, {})
    by_helm_4(place, OTHER)
    assert len(jobs(place)) == 1, "the migration of before is gone with its manifest"
    place.run(built(tools.CHART), "rollback", "shop", "1", *WAIT)
    wait_ready(place)


def test_what_was_patched_by_hand_stops_helm_4_until_it_may_take_it_back(place: Place) -> None:
    """As a runbook has it done at night; what the values say, too, stops nothing."""
    by_helm_4(place, {})
    pool = ["patch", "workerpool", "shop-worker-default", "--type=merge"]
    place.kubectl(*pool, '--patch={"spec":{"replicas":{"max":40}}}')
    said = r'conflict with "kubectl-patch" using jangada\.dev/v1alpha1: \.spec\.replicas\.max'
    for again in (["rollback", "shop", "1"], ["upgrade", "shop", str(CHART), *chosen({})]):
        with pytest.raises(AssertionError, match=said):
            place.run(built(tools.CHART), *again)
        place.run(built(tools.CHART), *again, "--force-conflicts")
        assert place.api.get("workerpools", "shop-worker-default")["spec"]["replicas"]["max"] == 30
        place.kubectl(*pool, '--patch={"spec":{"replicas":{"max":40}}}')
    place.kubectl(*pool, '--patch={"spec":{"replicas":{"max":30}}}')
    by_helm_4(place, {})


DEFINITION = "workerpools.jangada.dev"
MENDED = ["apply", "--server-side", "--force-conflicts", "-f"]


def older(folder: Path) -> Path:
    """The chart of a release whose pools had no objective yet."""
    chart = folder / "jangada"
    shutil.copytree(CHART, chart)
    path = chart / "crds/workerpools.yaml"
    definition = yaml.safe_load(path.read_text("utf-8"))
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["objective"]
    path.write_text(yaml.safe_dump(definition))
    pools = chart / "templates/workers/workerpool.yaml"
    lines = pools.read_text("utf-8").splitlines(keepends=True)
    pools.write_text("".join(each for each in lines if "objective:" not in each))
    return chart


def objectives(place: Place) -> list[Object]:
    return [each["spec"].get("objective", {}) for each in place.api.list("workerpools")]


@pytest.fixture
def aged(place: Place) -> Iterator[Place]:
    """A place with a release of the older chart, whose helm brought the older definition."""
    apply_definition(place)
    place.api.delete("customresourcedefinitions", DEFINITION)
    place.api.wait_for(
        "customresourcedefinitions", lambda one: one is None, name=DEFINITION, within=SLOW
    )
    try:
        yield place
    finally:
        apply_definition(place)


def test_with_an_older_definition_helm_4_names_what_it_lacks(aged: Place, tmp_path: Path) -> None:
    helm, chart = built(tools.CHART), older(tmp_path)
    aged.run(helm, "install", "shop", str(chart), *chosen({}), *WAIT)
    with pytest.raises(AssertionError, match=r"spec\.objective: field not declared in schema"):
        by_helm_4(aged, OTHER)
    assert objectives(aged) == [{}, {}], "the pools of before are as they were"
    assert image_of_api(aged).endswith(":0.2.0"), "all else is upgraded"
    with pytest.raises(AssertionError, match=r'conflict with "helm"'):
        aged.kubectl("apply", "--server-side", "-f", str(CHART / "crds"))
    aged.kubectl(*MENDED, str(CHART / "crds"))
    aged.bed.wait("today's definition", lambda: bool(objectives(aged)[0]))
    by_helm_4(aged, {})
    assert objectives(aged) == [{"startWithin": "5s"}, {"startWithin": "30s"}]


def test_with_an_older_definition_helm_3_drops_what_it_lacks(aged: Place, tmp_path: Path) -> None:
    """For good: what the release before had written already it doesn't write again."""
    helm, chart = built(tools.HELM3), older(tmp_path)
    aged.run(helm, "install", "shop", str(chart), *chosen({}), *WAIT)
    by_helm_3(aged, {})
    aged.kubectl(*MENDED, str(CHART / "crds"))
    aged.bed.wait("today's definition", lambda: bool(objectives(aged)[0]))
    by_helm_3(aged, {})
    assert objectives(aged) == [{"startWithin": "5s"}] * 2, "the default's, not the values'"
    aged.kubectl(*MENDED, "-", given=aged.run(helm, "get", "manifest", "shop"))
    assert objectives(aged) == [{"startWithin": "5s"}, {"startWithin": "30s"}]
