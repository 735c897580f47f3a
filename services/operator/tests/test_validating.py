"""What the definition of WorkerPool refuses is refused here, too, and the field is named."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest

from jangada_operator.validating import (
    RULES,
    check_change,
    check_spec,
    problems_of,
    schema_of,
    spec_schema,
)
from jangada_operator.workerpool.spec import InvalidSpec

FLOOR = {"cron": "0 8 * * 1-5", "timeZone": "America/Sao_Paulo", "duration": "10h", "min": 2}
SPEC: dict[str, Any] = {
    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"},
    "queues": ["imports", "mail"],
    "broker": {"secretKeyRef": {"name": "valkey", "key": "url"}, "prefix": "jangada"},
    "replicas": {"min": 1, "max": 50},
    "objective": {"startWithin": "2s"},
    "scaleUp": {"maxStarting": 5},
    "scaleDown": {"after": "1m30s", "onDeadline": "Interrupt", "maxDraining": 3},
    "floors": [FLOOR],
    "slotsPerReplica": 4,
    "paused": True,
    "dryRun": True,
}


def rules(schema: Mapping[str, Any]) -> Iterator[str]:
    yield from (each["message"] for each in schema.get("x-kubernetes-validations") or ())
    for each in [*schema.get("properties", {}).values(), schema.get("items")]:
        yield from rules(each) if each else ()


def test_each_rule_of_the_definition_is_known() -> None:
    assert set(rules(spec_schema())) == set(RULES)


def test_what_an_api_server_takes_is_taken() -> None:
    smallest = {name: SPEC[name] for name in ("scaleTargetRef", "queues", "broker", "replicas")}
    assert [*problems_of(SPEC), *problems_of(smallest)] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"replicas": {"max": "many"}}, "replicas.max must be a whole number, and is 'many'"),
        ({"replicas": {"max": True}}, "replicas.max must be a whole number, and is True"),
        ({"replicas": {"max": 0}}, "replicas.max must be at least 1, and is 0"),
        ({"replicas": {"max": 10_001}}, "replicas.max must be at most 10000"),
        ({"replicas": {"min": 2}}, "replicas.max is missing"),
        ({"replicas": {"min": 3, "max": 2}}, "replicas: min must not be above max"),
        ({"replicas": {"maximum": 3, "max": 3}}, "replicas.maximum is no field: did you mean max?"),
        ({"replicas": 5}, "replicas must be an object with fields, and is 5"),
        ({"replica": {"max": 3}}, "replica is no field: did you mean replicas?"),
        ({"queues": "mail"}, "queues must be a list, and is 'mail'"),
        ({"queues": []}, "queues must have at least 1 items"),
        ({"queues": ["a", "a"]}, "queues has something twice"),
        ({"queues": ["a b"]}, "queues[0] must be like ^[A-Za-z"),
        ({"scaleTargetRef": {"name": ""}}, "scaleTargetRef.name must have at least 1 letters"),
        ({"scaleTargetRef": {"name": "w", "kind": "Job"}}, "kind must be one of Deployment, and"),
        ({"objective": {"startWithin": 5}}, "objective.startWithin must be text, and is 5"),
        ({"objective": {"startWithin": "5"}}, "a duration of at least 100ms: 5s or 1m30s"),
        ({"objective": {"startWithin": "1ms"}}, "it is '1ms'"),
        ({"scaleDown": {"after": "1d"}}, "after must be a duration: 60s or 5m, for example"),
        ({"scaleDown": {"after": "9999999h"}}, "after must be a duration"),
        ({"scaleDown": {"drainDeadline": "-1h"}}, "drainDeadline must be a duration"),
        ({"floors": [{**FLOOR, "duration": "200h"}]}, "floors[0].duration: duration must be at"),
        ({"floors": [{**FLOOR, "duration": "0s"}]}, "floors[0].duration: duration must be at"),
        ({"floors": [{**FLOOR, "min": 99}]}, "spec: no floor may be above replicas.max"),
        ({"floors": [{"cron": "0 8 * * *", "min": 1}]}, "floors[0].duration is missing"),
        ({"paused": "yes"}, "paused must be true or false, and is 'yes'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_with_its_field(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        check_spec(SPEC | change)
    assert told in str(refused.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidSpec, match=r"paused must be true or false.*dryRun must be true"):
        check_spec(SPEC | {"paused": 1, "dryRun": 0})


def test_the_target_of_a_pool_that_is_there_stays() -> None:
    changed = deepcopy(SPEC)
    changed["scaleTargetRef"]["name"] = "other"
    check_spec(changed)
    with pytest.raises(InvalidSpec, match="the target can't be changed"):
        check_change(SPEC, changed)


@pytest.mark.parametrize("path", ["floors.0.min", "replicas.max.x", "", "replicas..max", "spec"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidSpec, match=r"no field|is a list"):
        schema_of(path)
