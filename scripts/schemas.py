"""Tells whether objects are what the API servers of Kubernetes' releases take, without a server.

The schemas of Kubernetes are those that `kubernetes-validate` brings, in the strict form: a field
that nobody knows is a fault. WorkerPools are held against our own definition, as strictly. What
rules (CEL), other objects and admission have to say, only a server knows.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import workerpool_page
from chart import Object
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

MINORS: Final = range(32, 38)
"""Of Kubernetes 1: from the oldest that the chart installs on to the newest that is known."""

type Schema = Mapping[str, Any]
type Known = Registry[bool | Schema]


class UnknownKind(Exception):
    """No schema says what such an object is like."""


def faults(found: Object, minor: int) -> list[str]:
    """What a server of 1.`minor` has to say of an object. Raises `UnknownKind`."""
    validator = _validator(found["apiVersion"], found["kind"], minor)
    name = f"{found['kind']}/{found['metadata']['name']}"
    return [
        f"{name}: {each.json_path.removeprefix('$.')}: {each.message}"
        for each in validator.iter_errors(found)
    ]


@cache
def _validator(version: str, kind: str, minor: int) -> Draft202012Validator:
    if version.startswith("jangada.dev/"):
        return Draft202012Validator(_worker_pool(version, kind))
    group, _, plain = version.rpartition("/")
    # apps/v1 is apps-v1 there, policy.k8s.io/v1 is policy-v1, and v1 is v1.
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], plain) if part)
    try:
        schema = json.loads((_folder(minor) / f"{name}.json").read_text("utf-8"))
    except FileNotFoundError:
        raise UnknownKind(f"Kubernetes 1.{minor} has no {kind} of {version}") from None
    return Draft202012Validator(schema, registry=_definitions(minor))


def _folder(minor: int) -> Traversable:
    schemas = files("kubernetes_validate") / "kubernetes-json-schema"
    return schemas / f"v1.{minor}.0-local-strict"


@cache
def _definitions(minor: int) -> Known:
    text = (_folder(minor) / "_definitions.json").read_text("utf-8")
    empty: Known = Registry()
    return Resource.from_contents(json.loads(text)) @ empty


def _worker_pool(version: str, kind: str) -> Schema:
    spec = workerpool_page.definition()["spec"]
    versions = {f"{spec['group']}/{each['name']}": each for each in spec["versions"]}
    if version not in versions or kind != spec["names"]["kind"]:
        raise UnknownKind(f"we define no {kind} of {version}")
    schema = versions[version]["schema"]["openAPIV3Schema"]
    everywhere: Schema = {name: {} for name in ("apiVersion", "kind", "metadata")}
    return closed({**schema, "properties": {**everywhere, **schema["properties"]}})


def closed(schema: Schema) -> Schema:
    """The same, but that an object has no fields other than those it says."""
    return dict(_closed(schema))


def _closed(schema: Schema) -> Iterator[tuple[str, Any]]:
    for name, value in schema.items():
        match name, value:
            case "properties", Mapping():
                yield name, {each: closed(inner) for each, inner in value.items()}
                yield "additionalProperties", False
            case "items", Mapping():
                yield name, closed(value)
            case _:
                yield name, value
