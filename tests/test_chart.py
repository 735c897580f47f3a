"""The chart as text: what it renders, what it refuses, and what holds for every pod of it."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import chart
import pytest
import settings_page
import tools
import yaml
from chart import CHART, VALUES, ChartError, Object, parsed, snapshots, template, values
from toolchain import ROOT

from jangada.migrations.revisions import head


def helm(kind: tools.ToolSet = tools.CHART) -> Path:
    if (found := tools.find(kind)) is None:
        pytest.skip(f"helm isn't built: `make tools ARGS={kind.name}` does it")
    return found / "helm"


def objects(name: str) -> Sequence[Object]:
    return chart.objects(name, helm())


def pods(name: str) -> Iterator[tuple[str, Object]]:
    for each in objects(name):
        template = each if each["kind"] == "Pod" else each.get("spec", {}).get("template")
        if template is not None:
            yield f"{each['kind']}/{each['metadata']['name']}", template["spec"]


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def test_what_is_rendered_is_what_was_reviewed() -> None:
    """`make docs` writes it, where the change is meant."""
    helm()
    stale = [name for name, text in snapshots().items() if text() != (ROOT / name).read_text()]
    assert stale == []


@pytest.mark.parametrize("name", VALUES)
def test_both_generations_of_helm_render_the_same(name: str) -> None:
    assert chart.objects(name, helm(tools.HELM3)) == objects(name)


WRONG: list[tuple[str, str]] = [
    ("replicas=3", "at '': additional properties 'replicas' not allowed"),
    ("api.replica=3", "at '/api': additional properties 'replica' not allowed"),
    ("api.replicas=two", "at '/api/replicas': got string, want integer"),
    ("api.image.digest=latest", "/api/image/digest"),
    ("api.resources.requests.cpu=fast", "/api/resources/requests/cpu"),
    ("settings.DEBUG=true", "additional properties 'DEBUG' not allowed"),
    ("storage.url=ftp://files", "/storage/url"),
    ("workers[0].name=default", "at '/workers/0': missing properties 'slots'"),
    ("workers[0].queues={}", "/workers/0/queues/0"),
    ("operator.replicas=0", "at '/operator/replicas': minimum: got 0, want 1"),
    ("dispatcher.replicas=0", "/dispatcher/replicas"),
    ("migrate.waitSeconds=0", "/migrate/waitSeconds"),
    ("networkPolicy.database.ports[0]=postgres", "/networkPolicy/database/ports/0"),
    ("networkPolicy.valkey.ports[0]=70000", "/networkPolicy/valkey/ports/0"),
    ("fullnameOverride=Shop", "/fullnameOverride"),
    ("dev.storage.size=big", "/dev/storage/size"),
    ("global.imageRegistry=", "/global/imageRegistry"),
    ("monitoring.oldestWaitSeconds=0", "/monitoring/oldestWaitSeconds"),
    ("monitoring.runbookUrl=runbooks", "/monitoring/runbookUrl"),
    ("edge.ingress.hosts=api.example", "/edge/ingress/hosts"),
    ("edge.httpRoute.timeouts.request=soon", "/edge/httpRoute/timeouts/request"),
    (r"podLabels.app\.kubernetes\.io/name=other", "app.kubernetes.io/name"),
    ("api.tolerations[0].effect=Never", "/api/tolerations/0/effect"),
    ("workers[0].affinity.podafinity=x", "'podafinity' not allowed"),
    ("trust.key=a/b", "/trust/key"),
    ("networkPolicy.dns.ports[0]=domain", "/networkPolicy/dns/ports/0"),
]
TOGETHER: list[tuple[str, str]] = [
    ("api.replicas=0", "at '/api/replicas': minimum: got 0, want 1"),
    ("monitoring.rules=true", "monitoring.rules needs monitoring.podMonitors"),
    ("monitoring.podMonitors=true", "monitoring.podMonitors needs networkPolicy.metricsFrom"),
    ("production=true", "production and dev.enabled exclude each other"),
    ("storage.url=s3://a,storage.existingClaim=b", "exclude each other"),
    ("edge.httpRoute.enabled=true", "needs edge.httpRoute.parentRefs"),
    ("edge.ingress.enabled=true", "needs edge.ingress.hosts"),
    ("api.autoscaling.min=20", "api.autoscaling.max is below api.autoscaling.min"),
]
"""What is wrong only with other values, of which helm says the first, or is another one above."""


def refusal(*given: str) -> str:
    with pytest.raises(ChartError) as caught:
        template(helm(), "--set", "dev.enabled=true", *(f"--set={each}" for each in given))
    return str(caught.value)


@cache
def refusals() -> str:
    """What helm says of all wrong values at once: it names each of them."""
    return refusal(*(given for given, _ in WRONG))


@pytest.mark.parametrize(("given", "said"), WRONG, ids=str)
def test_a_wrong_value_is_refused_and_named(given: str, said: str) -> None:
    assert said in refusals(), given


@pytest.mark.parametrize(("given", "said"), TOGETHER, ids=str)
def test_values_that_exclude_each_other_are_refused(given: str, said: str) -> None:
    assert said in refusal(given)


@pytest.mark.parametrize("key", ["database", "valkey", "masterKey"])
def test_what_is_needed_is_asked_for_by_its_name(key: str) -> None:
    name = f"{key}.existingSecret.name"
    with pytest.raises(ChartError, match=re.escape(name)):
        template(helm(), "--values", str(values("production")), "--set", f"{name}=")


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_may_do_as_little_as_it_can(name: str) -> None:
    """What the restricted Pod Security Standard asks for, and more."""
    for what, spec in pods(name):
        assert spec["securityContext"]["runAsNonRoot"] is True, what
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, what
        assert spec["enableServiceLinks"] is False, what
        assert spec["automountServiceAccountToken"] is ("-operator" in what), what
        for each in containers(spec):
            security = each["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}, what
            assert security["readOnlyRootFilesystem"] is True, what
            assert security["allowPrivilegeEscalation"] is False, what
            assert {"cpu", "memory"} <= set(each["resources"]["requests"]), what


@pytest.mark.parametrize("name", VALUES)
def test_graces_are_longer_than_what_they_are_for(name: str) -> None:
    for what, spec in pods(name):
        main = spec["containers"][0]
        environ = {each["name"]: each.get("value", "") for each in main.get("env", ())}
        grace = spec.get("terminationGracePeriodSeconds", 30)
        sleeps = main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        for setting in ("JANGADA_API__SHUTDOWN_TIMEOUT", "JANGADA_WORKER__DRAIN_TIMEOUT"):
            if setting in environ:
                assert sleeps + int(environ[setting].removesuffix("s")) + 10 <= grace, what


@pytest.mark.parametrize("name", VALUES)
def test_every_setting_that_is_set_is_one(name: str) -> None:
    known, operator = settings_page.page(), "JANGADA_OPERATOR_"
    for what, spec in pods(name):
        for each in containers(spec):
            names = [entry["name"] for entry in each.get("env", ())]
            assert len(names) == len(set(names)), what
            ours = [one for one in names if one.startswith("JANGADA_")]
            if not what.endswith("dev-postgres"):
                assert [one for one in ours if not (one in known or operator in one)] == [], what


@pytest.mark.parametrize("name", VALUES)
def test_the_management_port_is_in_no_service(name: str) -> None:
    ports = [
        port["targetPort"]
        for each in objects(name)
        if each["kind"] == "Service"
        for port in each["spec"]["ports"]
    ]
    assert ports
    assert "management" not in ports


@pytest.mark.parametrize("name", VALUES)
def test_nobody_says_how_many_where_somebody_else_does(name: str) -> None:
    """Else each upgrade would undo what an autoscaler has decided."""
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]
        for each in objects(name)
        if each["kind"] in {"WorkerPool", "HorizontalPodAutoscaler"}
    }
    for each in objects(name):
        if each["kind"] == "Deployment":
            assert ("replicas" in each["spec"]) is (each["metadata"]["name"] not in scaled)


@pytest.mark.parametrize("kind", ["Role", "ClusterRole"])
def test_the_operator_may_do_what_its_own_manifest_says(kind: str) -> None:
    manifest = ROOT / "services/operator/src/jangada_operator/manifests/rbac.yaml"
    theirs = parsed(manifest.read_text("utf-8"))
    wanted = next(each["rules"] for each in theirs if each["kind"] == "ClusterRole")
    name = "production" if kind == "ClusterRole" else "dev"
    found = next(
        each["rules"]
        for each in objects(name)
        if each["kind"] == kind and not each["metadata"]["name"].endswith(("-leader", "-test"))
    )
    if kind == "Role":
        named = {"resourceNames": ["shop-dev"]}
        wanted = [rule | named if rule["resources"] == ["secrets"] else rule for rule in wanted]
    assert found == wanted


@pytest.mark.parametrize("whole", ["false", "true"])
def test_pools_name_the_lease_of_the_release_s_operator(whole: str) -> None:
    """So another release's operator, in this namespace or in all, leaves them alone."""
    more = [f"--set=operator.clusterWide={whole}", "--namespace", "team"]
    found = parsed(template(helm(), "--values", str(values("dev")), *more))
    by_kind = {each["kind"]: each for each in found}
    (lease,) = (
        each["value"]
        for of in found
        for spec in [of.get("spec", {}).get("template", {}).get("spec", {})]
        for container in spec.get("containers", ())
        for each in container.get("env", ())
        if each["name"] == "JANGADA_OPERATOR_LEASE_NAME"
    )
    leader = next(each for each in found if each["metadata"]["name"] == "shop-operator-leader")
    assert leader["rules"][1]["resourceNames"] == [lease]
    assert by_kind["WorkerPool"]["metadata"]["labels"]["jangada.dev/operator"] == lease
    assert lease == ("shop-operator-of-all" if whole == "true" else "shop-operator")


@pytest.mark.parametrize("guide", ["install", "production"])
def test_the_values_of_a_guide_are_taken(guide: str, tmp_path: Path) -> None:
    page = (ROOT / f"docs/guides/{guide}.md").read_text("utf-8")
    (text,) = re.findall(r"^```yaml\n(# values\.yaml\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "values.yaml").write_text(text)
    found = parsed(template(helm(), "--values", str(tmp_path / "values.yaml")))
    assert {each["kind"] for each in found} > {"Deployment", "NetworkPolicy", "WorkerPool"}


def test_the_chart_names_the_schema_of_its_release() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["annotations"]["jangada.dev/schema"] == head()


def test_an_upgrade_leaves_the_servers_of_dev_alone() -> None:
    """And an uninstall all of what they hold, the uploaded files as well as the rows."""
    found = objects("dev")
    for each in (each for each in found if each["kind"] == "StatefulSet"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert labels.keys().isdisjoint({"app.kubernetes.io/version", "helm.sh/chart"})
        assert labels.items() >= each["spec"]["selector"]["matchLabels"].items()
    (files,) = [each for each in found if each["kind"] == "PersistentVolumeClaim"]
    assert files["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_another_image_migrates_by_another_job() -> None:
    def job(found: Sequence[Object]) -> str:
        (name,) = [each["metadata"]["name"] for each in found if each["kind"] == "Job"]
        return str(name)

    def changed(value: str) -> Sequence[Object]:
        return parsed(template(helm(), "--set", "dev.enabled=true", "--set", value))

    before = job(objects("dev"))
    assert before == job(changed("api.replicas=3")) != job(changed("api.image.tag=2.0.0"))


def test_the_values_are_few_and_each_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text("utf-8").splitlines()
    assert len(lines) <= 250
    done = subprocess.run(  # noqa: S603 - a pinned program
        [str(helm()), "lint", "--strict", str(CHART), "--set", "dev.enabled=true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", VALUES)
def test_only_tests_are_hooks(name: str) -> None:
    """What else a hook would make, an upgrade by other means than helm would miss."""
    for each in objects(name):
        hook = each["metadata"].get("annotations", {}).get("helm.sh/hook")
        assert hook == ("test" if each["metadata"]["name"].endswith("-test") else None), each
