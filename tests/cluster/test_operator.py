"""The operator on a real control plane: pools follow their queues, and nothing is interrupted."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from cluster.api import ApiError, Object
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import ACCOUNT, NAMESPACE, operator
from cluster.pools import SLOW, all_drained, pool, told, wait_condition, wait_pods, wait_told

from jangada.testing import eventually
from jangada_operator.validating import check_spec
from jangada_operator.workerpool.spec import InvalidSpec

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def running(installed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with operator(installed, tmp_path_factory.mktemp("operator")):
        yield


@pytest.mark.smoke
async def test_a_pool_follows_its_queue_and_interrupts_nothing(place: Field, running: None) -> None:
    place.deploy("worker", replicas=0, slots=1, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    ready = wait_condition(place.api, "adding", "Ready", "True", "Managed")
    assert ready["status"]["desiredReplicas"] == 0

    for _ in range(3):
        for number in range(12):
            await place.send(seconds=0.2 if number % 4 else 3.0)
        assert await place.settled(), place.last_words
    wait_pods(place, 0)

    assert all_drained(place) == []
    counts = place.ledger.audit()
    assert (counts.jobs, counts.violations, counts.repeated) == (36, 0, 0)
    last = place.api.get("workerpools", "adding")["status"]
    assert len(last["decisions"]) >= 2
    events = {each["reason"] for each in place.api.list("events")}
    assert {"ScaledUp", "ScaledDown"} <= events
    assert "Mispicked" not in events
    assert "Conflict" not in events
    (drained, *_) = told(place, "DrainStarted")
    assert "worker-" in drained


async def test_a_limit_is_an_event_when_it_begins_and_when_it_is_over(
    place: Field, running: None
) -> None:
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 0, "max": 1}))
    for _ in range(40):
        await place.send(seconds=0.5)
    assert "At most 1 are allowed." in wait_told(place, "Maximum")
    assert await place.settled()
    wait_told(place, "Unlimited")
    assert len(told(place, "Maximum")) == 1
    wait_pods(place, 0)


async def test_a_spec_that_is_broken_afterwards_is_told_once_for_each_generation(
    place: Field, running: None
) -> None:
    place.deploy("worker", replicas=1, grace=600)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 1, "max": 1}))
    wait_condition(place.api, "adding", "Ready", "True", "Managed")
    floor = {"cron": "0 8 * * *", "timeZone": "Mars/Base", "duration": "1h", "min": 1}
    how: Object = {"replicas": {"min": 1, "max": 1}}
    place.api.apply(pool("adding", "worker", place.queue, **how, floors=[floor]))
    wait_condition(place.api, "adding", "Ready", "False", "InvalidSpec")
    assert "Mars/Base" in wait_told(place, "InvalidSpec")
    place.api.apply(pool("adding", "worker", place.queue, **how))
    wait_condition(place.api, "adding", "Ready", "True", "Managed")
    wait_told(place, "Managed")
    assert len(told(place, "InvalidSpec")) == 1


async def test_a_long_job_keeps_its_pod_and_no_other(place: Field, running: None) -> None:
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    long = await place.send(gate="open")
    assert await place.started(long)
    for _ in range(6):
        await place.send(seconds=2.0)
    await eventually(lambda: len(place.ledger.jobs("end")) == 6)
    own = place.pod_of(long)["metadata"]["uid"]
    place.api.wait_for(
        "pods",
        lambda pods: [each["metadata"]["uid"] for each in pods] == [own],
        selector="app=worker",
        within=SLOW,
    )
    place.open_gate("open")
    assert await place.settled()
    wait_pods(place, 0)
    assert all_drained(place) == []
    assert place.ledger.audit().violations == 0


async def test_a_busy_worker_that_is_not_ready_isn_t_picked(place: Field, running: None) -> None:
    """A ReplicaSet would delete it first; so nobody is deleted until it is ready again."""
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 3, "max": 3}))
    await place.wait_working("worker", 3)
    long = await place.send(gate="open")
    assert await place.started(long)
    busy = place.pod_of(long)
    await eventually(partial(place.says_busy, busy))
    place.kubelet.force_ready(busy, False)
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 0, "max": 3}))
    wait_condition(place.api, "adding", "Limited", "True", "ScaleDownBlocked")
    assert len(place.pods("worker")) == 3
    wait_told(place, "ScaleDownBlocked")
    assert busy["metadata"]["name"] not in wait_told(place, "DrainStarted")
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 3, "max": 3}))
    assert wait_told(place, "DrainCancelled").startswith("2 of the pods: worker-")
    place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 0, "max": 3}))
    place.kubelet.force_ready(busy, None)
    wait_pods(place, 1)
    place.open_gate("open")
    assert await place.settled()
    wait_pods(place, 0)
    assert all_drained(place) == []
    assert place.ledger.audit().violations == 0


async def test_somebody_else_s_size_is_told_and_mended_by_draining(
    place: Field, running: None
) -> None:
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(pool("adding", "worker", place.queue))
    wait_condition(place.api, "adding", "Ready", "True", "Managed")
    place.api.scale("deployments", "worker", 3)
    await place.wait_working("worker", 3)
    wait_pods(place, 0)
    assert all_drained(place) == []
    assert "Conflict" in {each["reason"] for each in place.api.list("events")}


async def test_a_paused_pool_stays_and_a_dry_run_only_talks(place: Field, running: None) -> None:
    place.deploy("worker", replicas=1, grace=600)
    place.api.apply(pool("adding", "worker", place.queue, paused=True))
    wait_condition(place.api, "adding", "Paused", "True", "Paused")
    await place.wait_working("worker", 1)
    for _ in range(80):
        await place.send(seconds=0.5)
    place.api.apply(pool("adding", "worker", place.queue, paused=False, dryRun=True))
    place.api.wait_for(
        "workerpools",
        lambda one: one["status"].get("desiredReplicas", 0) > 1,
        name="adding",
        within=SLOW,
    )
    assert len(place.pods("worker")) == 1
    assert await place.settled()


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"scaleTargetRef": {"name": "nobody"}}, "TargetMissing"),
    ({"broker": {"secretKeyRef": {"name": "nobody", "key": "url"}}}, "SecretMissing"),
    ({"broker": {"secretKeyRef": {"name": "valkey", "key": "nothing"}}}, "SecretInvalid"),
    (
        {"floors": [{"cron": "0 8 * * *", "timeZone": "Mars/Base", "duration": "1h", "min": 1}]},
        "InvalidSpec",
    ),
    ({"floors": [{"cron": "at eight", "duration": "1h", "min": 1}]}, "InvalidSpec"),
]


async def test_what_is_missing_or_wrong_is_a_condition_that_names_it(
    place: Field, running: None
) -> None:
    place.deploy("worker", replicas=0)
    for number, (spec, reason) in enumerate(PROBLEMS):
        place.api.apply(pool(f"pool-{number}", f"worker-{number}", place.queue, **spec))
        if "scaleTargetRef" not in spec:
            place.deploy(f"worker-{number}", replicas=0)
        found = wait_condition(place.api, f"pool-{number}", "Ready", "False", reason)
        ready = next(each for each in found["status"]["conditions"] if each["type"] == "Ready")
        assert ready["message"]
        assert (found["status"]["reason"], found["status"]["message"]) == (reason, ready["message"])
    place.api.apply(pool("first", "worker", place.queue))
    wait_condition(place.api, "first", "Ready", "True", "Managed")
    place.api.apply(pool("second", "worker", place.queue))
    wait_condition(place.api, "second", "Ready", "False", "TargetTaken")


REFUSED: list[dict[str, Any]] = [
    {"queues": []},
    {"queues": ["a b"]},
    {"replicas": {"min": 3, "max": 2}},
    {"replicas": {"min": -1, "max": 2}},
    {"replicas": {"min": 0}},
    {"replicas": {"min": 0, "max": 0}},
    {"objective": {"startWithin": "soon"}},
    {"objective": {"startWithin": "1ms"}},
    {"scaleDown": {"after": "5"}},
    {"scaleDown": {"onDeadline": "Explode"}},
    {"scaleDown": {"maxDraining": 0}},
    {"scaleUp": {"maxStarting": 0}},
    {"scaleTargetRef": {"kind": "StatefulSet", "name": "worker"}},
    {"scaleTargetRef": {"name": ""}},
    {"broker": {}},
    {"slotsPerReplica": 0},
    {"floors": [{"cron": "0 8 * * *", "duration": "200h", "min": 1}]},
    {"floors": [{"cron": "0 8 * * *", "duration": "1h", "min": 99}]},
    {"paused": "yes"},
]


@pytest.mark.parametrize("spec", REFUSED, ids=str)
async def test_a_wrong_spec_is_refused_by_the_definition(
    place: Field, installed: Bed, spec: dict[str, Any]
) -> None:
    wrong = pool("wrong", "worker", place.queue, **spec)
    with pytest.raises(ApiError) as refused:
        place.api.create(wrong)
    assert refused.value.status == 422
    with pytest.raises(InvalidSpec):
        check_spec(wrong["spec"])


async def test_the_target_of_a_pool_stays(place: Field, installed: Bed) -> None:
    place.api.apply(pool("adding", "worker", place.queue))
    with pytest.raises(ApiError, match="the target can't be changed"):
        place.api.apply(pool("adding", "other", place.queue))


@pytest.mark.parametrize(
    ("verb", "group", "resource", "may"),
    [
        ("patch", "jangada.dev", "workerpools/status", True),
        ("patch", "apps", "deployments/scale", True),
        ("patch", "", "pods", True),
        ("get", "", "secrets", True),
        ("list", "", "secrets", False),
        ("delete", "", "pods", False),
        ("patch", "apps", "deployments", False),
        ("patch", "jangada.dev", "workerpools", False),
        ("delete", "jangada.dev", "workerpools", False),
        ("create", "", "pods", False),
    ],
)
def test_the_operator_may_do_what_it_does_and_no_more(
    installed: Bed, *, verb: str, group: str, resource: str, may: bool
) -> None:
    name, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": name, "namespace": "default"}
    if subresource:
        attributes["subresource"] = subresource
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    with installed.api(installed.account(NAMESPACE, ACCOUNT)) as api:
        assert api.call("POST", path, review)["status"]["allowed"] is may
