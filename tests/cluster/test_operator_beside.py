"""Two operators of different leases beside each other: each acts on its own pools."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cluster.api import Object
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import ACCOUNT, LEASE, NAMESPACE, Operator, operator
from cluster.pools import all_drained, pool, told, wait_condition, wait_pods

from jangada.local.process import wait_until
from jangada.testing import eventually
from jangada_operator.workerpool.spec import OPERATOR

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(600)]

OTHER = "other"
STARTING = 120.0


@pytest.fixture
def both(installed: Bed, tmp_path: Path) -> Iterator[tuple[Operator, Operator]]:
    """As two releases in a namespace have them; the second's role is for a lease of its own."""
    with installed.api() as api:
        role = api.get("roles", f"{ACCOUNT}-leader", namespace=NAMESPACE)
        more = [{**role["rules"][1], "resourceNames": [LEASE, OTHER]}]
        rules = {"rules": [role["rules"][0], *more]}
        api.patch("roles", f"{ACCOUNT}-leader", rules, namespace=NAMESPACE)
        with (
            operator(installed, tmp_path, 1) as first,
            operator(installed, tmp_path, 2, lease=OTHER) as second,
        ):
            for each in (first, second):
                assert wait_until(partial(leads, each), STARTING)
            yield first, second
        api.patch("roles", f"{ACCOUNT}-leader", {"rules": role["rules"]}, namespace=NAMESPACE)


def leads(running: Operator) -> bool:
    return " leads" in running.log.read_text("utf-8")


def named(found: Object, lease: str | None) -> Object:
    labels = {} if lease is None else {OPERATOR: lease}
    return {**found, "metadata": {**found["metadata"], "labels": labels}}


def looks_after(place: Field, running: Operator) -> bool:
    """Whether it looks after the pool of the field."""
    if "listens on port" not in running.log.read_text("utf-8"):
        return False
    return f'namespace="{place.namespace}"' in running.metrics()


async def test_a_pool_that_names_its_operator_is_left_to_it(
    place: Field, both: tuple[Operator, Operator]
) -> None:
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(named(pool("adding", "worker", place.queue), OTHER))
    wait_condition(place.api, "adding", "Ready", "True", "Managed")
    job = await place.send(seconds=0.1)
    assert await place.started(job), place.last_words
    assert [looks_after(place, each) for each in both] == [False, True]

    place.api.apply(named(pool("adding", "worker", place.queue), LEASE))
    await eventually(partial(looks_after, place, both[0]))
    await eventually(lambda: not looks_after(place, both[1]))
    wait_pods(place, 0)
    assert all_drained(place) == []
    assert told(place, "Conflict") == []


async def test_a_pool_that_names_none_is_everybody_s(
    place: Field, both: tuple[Operator, Operator]
) -> None:
    """So one operator, however it is called, looks after pools that people make themselves."""
    place.deploy("worker", replicas=0, grace=600)
    place.api.apply(named(pool("adding", "worker", place.queue), None))
    for each in both:
        await eventually(partial(looks_after, place, each))
