"""The definition of WorkerPool: what was ever written under one is good under the next."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from jangada_operator.definition import (
    SCHEMA,
    dropped,
    fields_of,
    manifest,
    schema,
    schema_of,
    unknown_fields,
)
from jangada_operator.workerpool.spec import read_pool

FIRST = Path(__file__).parent / "definitions/first.yaml"
"""The first that was ever applied anywhere."""

UPPER = {"maximum", "maxLength", "maxItems"}
LOWER = {"minimum", "minLength", "minItems"}
SMALLEST = {
    "scaleTargetRef": {"name": "worker"},
    "queues": ["adding"],
    "broker": {"secretKeyRef": {"name": "valkey", "key": "url"}},
    "replicas": {"max": 3},
}
"""All that the first definition asked for."""


def spec_of(text: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema_of(yaml.safe_load(text))["properties"]["spec"]
    return found


def narrowed(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Where something that was good isn't any more."""
    yield from (f"{path}.{name} is required" for name in _new(before, now, "required"))
    yield from (f"{path} isn't {each} any more" for each in _new(now, before, "enum"))
    for name in ("type", "pattern", "x-kubernetes-validations"):
        if name in now and before.get(name) != now[name]:
            yield f"{path} has another {name}"
    for name in UPPER & now.keys():
        if now[name] < before.get(name, math.inf):
            yield f"{path} has a smaller {name}"
    for name in LOWER & now.keys():
        if now[name] > before.get(name, 0):
            yield f"{path} has a larger {name}"
    for name, field in before.get("properties", {}).items():
        if (found := now.get("properties", {}).get(name)) is None:
            yield f"{path}.{name} is gone"
        else:
            yield from narrowed(field, found, f"{path}.{name}")
    if "items" in before:
        yield from narrowed(before["items"], now.get("items", {}), f"{path}[]")


def _new(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> list[str]:
    return [each for each in now.get(name, ()) if each not in before.get(name, ())]


def test_what_was_good_once_is_good_today() -> None:
    """Within a version nothing is taken away: else an object could be read and not be written."""
    assert list(narrowed(spec_of(FIRST.read_text("utf-8")), spec_of(manifest()))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"required": ["name", "namespace"]}, ".namespace is required"),
        ({"properties": {}}, ".name is gone"),
        (
            {"properties": {"name": {"type": "string", "maxLength": 63}}},
            ".name has a smaller maxLength",
        ),
        ({"properties": {"name": {"type": "integer"}}}, ".name has another type"),
    ],
)
def test_what_is_taken_away_is_noticed(change: dict[str, Any], said: str) -> None:
    before = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "maxLength": 253}},
    }
    assert [*narrowed(before, {**before, **change})] == [said]


def test_a_pool_of_the_first_definition_is_understood() -> None:
    metadata = {"namespace": "shop", "name": "adding", "uid": "1"}
    pool = read_pool({"metadata": metadata, "spec": SMALLEST})
    assert (pool.deployment, pool.wanted.most) == ("worker", 3)


@pytest.mark.parametrize(
    "said", [{}, [], {"components": None}, {"components": {"schemas": {SCHEMA: None}}}]
)
def test_an_answer_that_is_no_schema_says_nothing(said: object) -> None:
    """Pools are looked after all the same: whoever compares only informs."""
    assert dropped(schema(), said) is None


def test_fields_that_another_definition_drops_are_named_without_those_inside() -> None:
    ours = schema()
    theirs = schema_of(yaml.safe_load(manifest()))
    assert unknown_fields(ours, theirs) == []
    del theirs["properties"]["spec"]["properties"]["floors"]
    del theirs["properties"]["spec"]["properties"]["scaleDown"]["properties"]["onDeadline"]
    del theirs["properties"]["status"]["properties"]["lastDecision"]
    assert unknown_fields(ours, theirs) == [
        ".spec.scaleDown.onDeadline",
        ".spec.floors",
        ".status.lastDecision",
    ]
    assert ".spec.floors[].cron" in set(fields_of(ours["properties"]["spec"], ".spec"))
