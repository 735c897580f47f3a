"""Who a pod of the chart is, where it may run, and who may reach it: as values say it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import chart
import pytest
import tools
from chart import VALUES, Object, parsed, template, values
from toolchain import ROOT

type Pods = Mapping[str, Object]

OURS = {"api", "dispatcher", "worker-default", "worker-imports", "worker-fixed"}
IMPORTS = "worker-imports"
TEAM = "example.com/team"
TRUST = "/etc/jangada/trust"
RELOADER = "reloader.stakater.com/auto"


def helm() -> Path:
    if (found := tools.find(tools.CHART)) is None:
        pytest.skip("helm isn't built: `make tools ARGS=chart` does it")
    return found / "helm"


def objects(name: str) -> Sequence[Object]:
    return chart.objects(name, helm())


def component(meta: Object) -> str:
    return str(meta["labels"]["app.kubernetes.io/component"])


def pods(name: str) -> Pods:
    """Pods and templates of pods, by component."""
    return among(objects(name))


def among(found: Sequence[Object]) -> Pods:
    templates = [each for each in found if each["kind"] == "Pod"]
    templates += [each["spec"]["template"] for each in found if "template" in each.get("spec", ())]
    return {component(each["metadata"]): each for each in templates}


def changed(name: str, *given: str) -> Sequence[Object]:
    """What a file of values renders with some other values."""
    sets = (f"--set={each}" for each in given)
    return parsed(template(helm(), "--values", str(values(name)), *sets))


def test_a_component_has_its_own_values_instead_of_those_for_all() -> None:
    found = pods("production")
    assert {name for name in found if "tolerations" not in found[name]["spec"]} == {IMPORTS}
    assert {name for name in found if "affinity" in found[name]["spec"]} == {IMPORTS}


def test_a_priority_is_that_of_all_pods_or_of_a_component() -> None:
    found = among(changed("dev", "priorityClassName=shop", "api.priorityClassName=first"))
    wanted = {name: "first" if name == "api" else "shop" for name in found}
    assert {name: each["spec"]["priorityClassName"] for name, each in found.items()} == wanted


def test_labels_and_annotations_are_where_values_say() -> None:
    found = pods("production")
    assert all(each["metadata"]["labels"][TEAM] == "shop" for each in objects("production"))
    assert all(TEAM in each["metadata"]["labels"] for each in found.values())
    marked = [name for name in found if RELOADER in found[name]["metadata"].get("annotations", ())]
    assert set(marked) == OURS
    assert found["api"]["metadata"]["labels"]["example.com/tier"] == "edge"


def test_a_pods_label_wins_over_one_of_all_objects() -> None:
    made = changed("dev", "commonLabels.tier=all", "api.podLabels.tier=edge")
    assert {each["metadata"]["labels"]["tier"] for each in made} == {"all"}
    assert among(made)["api"]["metadata"]["labels"]["tier"] == "edge"


@pytest.mark.parametrize("name", VALUES)
def test_what_reaches_the_files_has_an_account_for_a_clouds_identity(name: str) -> None:
    found = pods(name)
    accounts = {each: found[each]["spec"].get("serviceAccountName") for each in found}
    assert {accounts[each] for each in OURS & found.keys()} == {"shop"}
    made = {each["metadata"]["name"] for each in objects(name) if each["kind"] == "ServiceAccount"}
    assert {each for each in accounts.values() if each} <= made


def test_an_account_that_is_there_already_is_taken() -> None:
    made = changed("small", "serviceAccount.create=false", "serviceAccount.name=theirs")
    assert "ServiceAccount" not in {each["kind"] for each in made}
    assert among(made)["api"]["spec"]["serviceAccountName"] == "theirs"


def test_every_container_of_ours_trusts_the_authorities_that_are_named() -> None:
    found = pods("production")
    for name in OURS | {"operator", "migrate"}:
        spec = found[name]["spec"]
        assert {"name": "trust", "configMap": {"name": "shop-authorities"}} in spec["volumes"]
        for each in [*spec.get("initContainers", ()), *spec["containers"]]:
            assert {"name": "SSL_CERT_FILE", "value": f"{TRUST}/all.pem"} in each["env"], name
            mounted = {"name": "trust", "mountPath": TRUST, "readOnly": True}
            assert mounted in each["volumeMounts"], name


def test_the_values_of_the_guide_are_taken(tmp_path: Path) -> None:
    text = (ROOT / "docs/guides/clusters.md").read_text("utf-8")
    shown = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(shown) > 6
    files = []
    for number, each in enumerate(shown):
        (tmp_path / f"{number}.yaml").write_text(each, encoding="utf-8")
        files += ["--values", str(tmp_path / f"{number}.yaml")]
    made = among(parsed(template(helm(), "--set=dev.enabled=true", *files)))
    assert "karpenter.sh/do-not-disrupt" in made["worker-long"]["metadata"]["annotations"]


def selected(policy: Object, found: Pods) -> Pods:
    wanted = policy["spec"]["podSelector"]["matchLabels"].items()
    return {name: pod for name, pod in found.items() if wanted <= pod["metadata"]["labels"].items()}


def named_ports(pod: Object) -> set[str]:
    containers: list[Any] = pod["spec"]["containers"]
    return {port["name"] for each in containers for port in each.get("ports", ())}


@pytest.mark.parametrize("name", ["dev", "production"])
def test_a_policy_lets_in_at_ports_that_its_pods_have(name: str) -> None:
    found = pods(name)
    policies = [each for each in objects(name) if each["kind"] == "NetworkPolicy"]
    for each in policies:
        chosen = selected(each, found)
        assert chosen, each["metadata"]["name"]
        for rule in each["spec"].get("ingress", ()):
            ports = {port["port"] for port in rule["ports"]}
            assert all(ports <= named_ports(pod) for pod in chosen.values()), chosen


@pytest.mark.parametrize("name", ["dev", "production"])
def test_every_pod_is_denied_what_its_own_policy_doesnt_allow(name: str) -> None:
    found = pods(name)
    policies = [each for each in objects(name) if each["kind"] == "NetworkPolicy"]
    (deny,) = (each for each in policies if len(selected(each, found)) > 1)
    assert selected(deny, found).keys() == found.keys()
    assert deny["spec"].keys() == {"podSelector", "policyTypes"}
    own = [set(selected(each, found)) for each in policies if each is not deny]
    assert sorted(name for each in own for name in each) == sorted(found)
