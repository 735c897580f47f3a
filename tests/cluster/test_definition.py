"""A definition of WorkerPool that is older than the operator, and what becomes of its pools."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.api import ApiError, Object
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import install, operator
from cluster.pools import pool, wait_condition, wait_pods
from toolchain import ROOT

from jangada.testing import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(600)]

FIRST = ROOT / "services/operator/tests/definitions/first.yaml"
LATER = ("floors", "dryRun")
"""Fields of a spec that the older definition hasn't got."""

EARLIER = {"cooldown": {"type": "string"}}
"""A field that it has, and today's hasn't."""


def older() -> Object:
    made: Object = yaml.safe_load(FIRST.read_text("utf-8"))
    spec = schema_of(made)["properties"]["spec"]
    for name in LATER:
        del spec["properties"][name]
    del spec["x-kubernetes-validations"]
    spec["properties"] |= copy.deepcopy(EARLIER)
    del schema_of(made)["properties"]["status"]["properties"]["lastDecision"]
    return made


def schema_of(definition: Object) -> Any:  # noqa: ANN401 - as deep as it is
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def apply(bed: Bed, programs: Path, text: str) -> None:
    """As people do; what the last one of theirs had and this one hasn't is gone."""
    subprocess.run(  # noqa: S603 - a pinned program
        [str(programs / "kubectl"), "apply", "--server-side", "--force-conflicts", "-f", "-"],
        input=text.encode(),
        env={**os.environ, "KUBECONFIG": str(bed.admin)},
        check=True,
        capture_output=True,
    )


def todays() -> str:
    run = [sys.executable, "-m", "jangada_operator.cli", "manifests", "--crd-only"]
    return subprocess.run(run, capture_output=True, check=True, text=True).stdout  # noqa: S603 - our own


def knows(bed: Bed, field: str) -> bool:
    """Whether the API server takes a field that is written: a definition takes effect soon."""
    with bed.api() as api:
        try:
            answer = api.call("GET", "/openapi/v3/apis/jangada.dev/v1alpha1")
        except ApiError:  # nothing is published of a definition that is quite new
            return False
    found = answer["components"]["schemas"]["dev.jangada.v1alpha1.WorkerPool"]
    return field in found["properties"]["spec"]["properties"]


@pytest.fixture
def aged(installed: Bed, programs: Path) -> Iterator[Bed]:
    """A bed with the older definition; today's comes back."""
    apply(installed, programs, json.dumps(older()))
    try:
        yield installed
    finally:
        install(installed, programs)


@pytest.fixture
def undefined(installed: Bed, programs: Path) -> Iterator[Bed]:
    """A bed without a definition; today's comes back."""
    with installed.api() as api:
        api.delete("customresourcedefinitions", "workerpools.jangada.dev")
    try:
        yield installed
    finally:
        install(installed, programs)


async def test_an_operator_waits_for_its_definition(
    place: Field, undefined: Bed, programs: Path, tmp_path: Path
) -> None:
    """Of a group that isn't there an API server says so without an object."""
    with operator(undefined, tmp_path, 1) as running:
        said = partial(running.log.read_text, "utf-8")
        await eventually(lambda: "waiting for the definition of WorkerPool" in said())
        assert "can't be looked for" not in said()
        apply(undefined, programs, todays())
        await eventually(lambda: knows(undefined, "floors"))
        place.deploy("worker", replicas=0, grace=600)
        place.api.apply(pool("waited", "worker", place.queue, replicas={"min": 1, "max": 8}))
        wait_condition(place.api, "waited", "Ready", "True", "Managed")


async def test_a_pool_of_an_older_definition_outlives_its_upgrade(
    place: Field, aged: Bed, programs: Path, tmp_path: Path
) -> None:
    """Under it the operator works, and says what it lacks; under today's it goes on from there."""
    await eventually(lambda: knows(aged, "cooldown"))
    place.deploy("worker", replicas=0, grace=600)
    old = pool("adding", "worker", place.queue, cooldown="5m")
    uid = place.api.apply(old)["metadata"]["uid"]
    with operator(aged, tmp_path, 1) as running:
        said = partial(running.log.read_text, "utf-8")
        await eventually(lambda: "older than this operator" in said())
        assert all(each in said() for each in (".spec.floors, .spec.dryRun,", ".lastDecision"))
        await works(place)
        before = place.api.get("workerpools", "adding")
        assert before["spec"]["cooldown"] == "5m"
        assert before["status"]["decisions"]
        assert "lastDecision" not in before["status"], "what it doesn't know isn't kept"

        apply(aged, programs, todays())
        await eventually(lambda: "knows all fields" in said())
        after = place.api.get("workerpools", "adding")
        assert (after["metadata"]["uid"], after["metadata"]["generation"]) == (uid, 1)
        assert "cooldown" not in after["spec"]
        kept = len(before["status"]["decisions"])
        assert after["status"]["decisions"][:kept] == before["status"]["decisions"]
        await works(place)
        assert place.api.get("workerpools", "adding")["status"]["lastDecision"]
    with operator(aged, tmp_path, 2):
        place.api.apply(pool("adding", "worker", place.queue, replicas={"min": 1, "max": 8}))
        wait_pods(place, 1)
        wait_condition(place.api, "adding", "Ready", "True", "Managed")
    assert place.ledger.audit().violations == 0


async def works(place: Field) -> None:
    """Whether the pool grows for a job, and gives back what that needed."""
    job = await place.send(seconds=0.1)
    assert await place.started(job), place.last_words
    assert await place.settled()
    wait_pods(place, 0)


async def test_what_a_definition_doesn_t_know_is_dropped_or_refused(
    place: Field, aged: Bed
) -> None:
    """By who asks: people's programs ask for strictness, and the field is named to them."""
    await eventually(lambda: knows(aged, "cooldown"))
    new = pool("adding", "worker", place.queue, dryRun=True)
    path = f"/apis/jangada.dev/v1alpha1/namespaces/{place.namespace}/workerpools"
    with pytest.raises(ApiError, match=r"spec\.dryRun"):
        place.api.call("POST", path, new, fieldValidation="Strict")
    assert "dryRun" not in place.api.create(new)["spec"]
