"""Whether the definition of WorkerPool that the cluster has knows all of our fields.

Whoever upgrades the operator applies the definition first, since helm never changes one. Where that
was forgotten, the API server drops what the definition doesn't know: from specs, where its owner
believes it is in force, and from statuses. Nothing else breaks, so it is said, and work goes on.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from jangada_operator.kube import Kube, KubeError
from jangada_operator.workerpool.spec import API_VERSION, GROUP, KIND, PLURAL, VERSION

SCHEMAS: Final = f"/openapi/v3/apis/{API_VERSION}"
"""What every account may read, unlike definitions themselves."""

SCHEMA: Final = ".".join((*reversed(GROUP.split(".")), VERSION, KIND))
LOOK_EVERY: Final = 30.0
PARTS: Final = ("spec", "status")

type Schema = Mapping[str, Any]

log = logging.getLogger(__name__)


def manifest() -> str:
    """The definition of this release, as YAML."""
    path = files("jangada_operator") / "manifests" / "workerpool-crd.yaml"
    return path.read_text("utf-8")


def schema_of(definition: Schema) -> Schema:
    """Of the objects of a definition, which has one version."""
    (version,) = definition["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]
    return found


@cache
def schema() -> Schema:
    """Of the objects of this release's definition."""
    return schema_of(yaml.safe_load(manifest()))


def fields_of(schema: Schema, path: str = "") -> Iterator[str]:
    """The paths of all fields below an object, such as `.spec.floors[].cron`."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from fields_of(field, f"{path}.{name}")
    if isinstance(items := schema.get("items"), Mapping):
        yield from fields_of(items, f"{path}[]")


def unknown_fields(ours: Schema, theirs: Schema) -> list[str]:
    """What the other one drops: the outermost fields only."""
    known = set(fields_of(theirs))
    missing = [each for part in PARTS for each in _below(ours, part) if each not in known]
    return [
        each for each in missing if not any(each.startswith((f"{of}.", f"{of}[")) for of in missing)
    ]


def _below(schema: Schema, part: str) -> Iterator[str]:
    return fields_of(schema["properties"][part], f".{part}")


async def is_served(kube: Kube, version: str = API_VERSION, plural: str = PLURAL) -> bool:
    """Whether the cluster has the definition. Raises `KubeError` where it doesn't say.

    All groups are asked for first: of one that it hasn't got an API server answers 404 without an
    object, as any gateway might.
    """
    groups = (await kube.get("/apis"))["groups"]
    if all(each["groupVersion"] != version for group in groups for each in group["versions"]):
        return False
    found = await kube.get(f"/apis/{version}")
    return any(each["name"] == plural for each in found["resources"])


async def compare(kube: Kube) -> None:
    """Tell what the cluster's definition doesn't know, when that changes, until cancelled."""
    ours, before = schema(), ""
    while True:
        found = await _unknown(kube, ours)
        if found is not None and (text := ", ".join(found)) != before:
            _tell(text)
            before = text
        await asyncio.sleep(LOOK_EVERY)


async def _unknown(kube: Kube, ours: Schema) -> list[str] | None:
    try:
        return dropped(ours, await kube.get(SCHEMAS))
    except KubeError as error:
        log.debug("the schema of WorkerPool can't be read: %s", error)
        return None


def dropped(ours: Schema, answer: Any) -> list[str] | None:  # noqa: ANN401 - as a server says it
    """What the server's definition doesn't know; None where the answer doesn't say.

    It publishes a schema a second after its definition. What only informs ends nothing, so an
    answer of another shape is none.
    """
    try:
        return unknown_fields(ours, answer["components"]["schemas"][SCHEMA])
    except (AttributeError, KeyError, TypeError):
        return None


def _tell(text: str) -> None:
    if not text:
        log.info("the definition of WorkerPool knows all fields of this operator")
        return
    log.warning(
        "the definition of WorkerPool in this cluster is older than this operator, and the API "
        "server drops what it doesn't know: %s. Apply the one of this release: "
        "`kubectl apply --server-side --force-conflicts -f crds/` in the chart, or of what "
        "`jangada-operator manifests --crd-only` prints",
        text,
    )
