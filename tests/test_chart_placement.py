"""Who a pod of the chart is, where it may run, and who may reach it: as values say it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chart
import pytest
import tools
from chart import VALUES, Object, parsed, template, values

type Pods = Mapping[str, Object]

OURS = {"api", "dispatcher", "worker-default", "worker-imports", "worker-fixed"}
TEAM = "example.com/team"


def helm() -> Path:
    if (found := tools.find(tools.CHART)) is None:
        pytest.skip("helm isn't built: `make tools ARGS=chart` does it")
    return found / "helm"


def objects(name: str) -> tuple[Object, ...]:
    return chart.objects(name, helm())


def component(meta: Object) -> str:
    return str(meta["labels"]["app.kubernetes.io/component"])


def pods(name: str) -> Pods:
    """Pods and templates of pods, by component."""
    templates = [each for each in objects(name) if each["kind"] == "Pod"]
    templates += [
        each["spec"]["template"] for each in objects(name) if "template" in each.get("spec", ())
    ]
    return {component(each["metadata"]): each for each in templates}


def test_a_component_has_its_own_values_instead_of_those_for_all() -> None:
    found = pods("production")
    wanted = {name: "shop-first" if name == "api" else "shop" for name in found}
    assert {name: each["spec"]["priorityClassName"] for name, each in found.items()} == wanted
    assert {name for name, each in found.items() if "tolerations" not in each["spec"]} == {
        "worker-imports"
    }
    assert {name for name, each in found.items() if "affinity" in each["spec"]} == {
        "worker-imports"
    }


def test_labels_and_annotations_are_where_values_say() -> None:
    found = pods("production")
    assert all(each["metadata"]["labels"][TEAM] == "shop" for each in objects("production"))
    assert {name for name in found if TEAM in found[name]["metadata"]["labels"]} >= OURS
    assert {name for name in found if "annotations" in found[name]["metadata"]} == OURS
    assert found["api"]["metadata"]["labels"]["example.com/tier"] == "edge"


def test_a_pods_label_wins_over_one_of_all_objects() -> None:
    given = ["dev.enabled=true", "commonLabels.tier=all", "api.podLabels.tier=edge"]
    made = parsed(template(helm(), *(f"--set={each}" for each in given)))
    api = next(
        each
        for each in made
        if each["metadata"]["name"] == "shop-api" and each["kind"] == "Deployment"
    )
    assert api["metadata"]["labels"]["tier"] == "all"
    assert api["spec"]["template"]["metadata"]["labels"]["tier"] == "edge"


@pytest.mark.parametrize("name", VALUES)
def test_what_reaches_the_files_has_an_account_for_a_clouds_identity(name: str) -> None:
    found = pods(name)
    accounts = {each: found[each]["spec"].get("serviceAccountName") for each in found}
    assert {accounts[each] for each in OURS & found.keys()} == {"shop"}
    made = {each["metadata"]["name"] for each in objects(name) if each["kind"] == "ServiceAccount"}
    assert {each for each in accounts.values() if each} == made


def test_an_account_that_is_there_already_is_taken() -> None:
    given = ["serviceAccount.create=false", "serviceAccount.name=theirs"]
    made = parsed(
        template(helm(), "--values", str(values("small")), *(f"--set={each}" for each in given))
    )
    assert "ServiceAccount" not in {each["kind"] for each in made}
    api = next(each for each in made if each["kind"] == "Deployment")
    assert api["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"


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
