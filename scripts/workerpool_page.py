"""Writes `docs/workerpool.md`: the definition of WorkerPool, and the words that the operator uses.

Raises `Undescribed` for a field without a description and for a word that nobody has explained.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from types import SimpleNamespace
from typing import Any, cast

import yaml

from jangada_operator.metrics import PREFIX, PoolMetrics
from jangada_operator.operating import Operator, new_look_seconds
from jangada_operator.workerpool.reasons import Happening, State, Trouble
from jangada_queue.policy.decide import Limit, Reason

type Schema = Mapping[str, Any]

PREFACE = """\
# WorkerPool

Generated from the definition that `jangada-operator manifests --crd-only` prints, and from the
operator's code. `kubectl explain wp.spec` says the same of the cluster that you are in. How to use
it: [the guide](guides/operator.md). Pools to start from: [examples](../k8s/examples). What to do
when a pool has the wrong size: [the runbook](runbooks/pool-does-not-scale.md).

"""
CONDITIONS = """
## Conditions

`kubectl describe wp POOL` shows them. All four are there whatever is known; `SignalsFresh` and
`Limited` are about the last decision, so they say nothing while `Ready` is `False`. Of several
reasons to be `Limited` one is told: `RollingOut`, `PodsNotStarting` or `ScaleDownBlocked` before
the policy's own, in this order; the message has those of all three.

| condition | status | reason | meaning |
|---|---|---|---|
"""
DECISIONS = """
## Decisions

`status.lastDecision.reason` is what decided the size. The column `WHY` has it, too; of a pool that
isn't `Ready` it has the condition's reason, and `MESSAGE` what is wrong:

| reason | meaning |
|---|---|
"""
LIMITS = """
`status.lastDecision.limitedBy` is what kept it from the size that it needs:

| limit | meaning |
|---|---|
"""
EVENTS = """
## Events

`kubectl describe wp POOL` shows them, too. Each reason of `Ready=False` and of `Limited=True`, and
`Stale`, is also an Event when it begins: a Warning, but for `Starting` and `Draining`. `Managed`,
`Unlimited` and `Fresh` are Events when that is over, and `InvalidSpec` is one for each generation
of the spec.

Of each of these reasons, of `DrainStarted`, `DrainCancelled` and `Conflict` a pool has at most one
Event a minute. What comes too soon is told when the minute is over, if it is still so: pods
together then, as far as they still are and still do it, and a conflict not at all. An operator that
takes over doesn't repeat what the status says already.

| reason | type | meaning |
|---|---|---|
"""
METRICS = """
## Metrics

At `/metrics` of the operator's port (8081; 9000 in the chart). Figures of pools come from the
leader only, and have the labels `namespace` and `name`, those of decisions also `reason`. Counters
begin anew with each leader.

| metric | kind | meaning |
|---|---|---|
"""

TROUBLES: Mapping[StrEnum, str] = {
    Trouble.TARGET_MISSING: "There is no such Deployment in the namespace, or the operator hasn't "
    "heard of it yet.",
    Trouble.TARGET_STARTING: "The Deployment has no ReplicaSet yet.",
    Trouble.TARGET_TAKEN: "An older pool of the namespace has the same target.",
    Trouble.OTHER_AUTOSCALER: "A HorizontalPodAutoscaler, perhaps of a ScaledObject, has the same "
    "target.",
    Trouble.SECRET_MISSING: "There is no such secret in the namespace.",
    Trouble.SECRET_INVALID: "The secret lacks the key, or its value is no URL of a broker.",
    Trouble.INVALID_SPEC: "A field means nothing, though the definition lets it through: a cron "
    "expression or a time zone.",
    Trouble.FORBIDDEN: "The operator's role lacks a verb.",
    Trouble.API_UNREACHABLE: "The API server didn't answer the operator.",
    Trouble.API_REFUSED: "The API server refused something for another reason; the message is its "
    "own.",
}
STATES: Mapping[StrEnum, tuple[str, str, str]] = {
    State.MANAGED: ("Ready", "True", "The operator looks after the pool."),
    State.FRESH: ("SignalsFresh", "True", "The queues' figures are recent."),
    State.STALE: (
        "SignalsFresh",
        "False",
        "The broker or a dispatcher is silent. The size stays, or rises to a floor.",
    ),
    State.NOT_READ: ("SignalsFresh", "False", "Nothing was decided, because the pool isn't Ready."),
    State.UNLIMITED: ("Limited", "False", "The pool has the size that it needs, or will."),
    State.SCALE_DOWN_BLOCKED: (
        "Limited",
        "True",
        "Pods that are to go can't, for half a minute already; the message says why.",
    ),
    State.ROLLING_OUT: (
        "Limited",
        "True",
        "Pods are too many, and go when a rollout is done; the message says how far it is.",
    ),
    State.PODS_NOT_STARTING: (
        "Limited",
        "True",
        "Pods don't come, or don't work, for over a minute; the message has the cluster's reason.",
    ),
    State.PAUSED: ("Paused", "True", "`spec.paused` is set."),
    State.ACTIVE: ("Paused", "False", "It isn't."),
}
REASONS: Mapping[StrEnum, str] = {
    Reason.PAUSED: "The spec says that the size stays.",
    Reason.STALE: "There are no signals that can be trusted: the size stays, or rises to a floor.",
    Reason.BACKLOG: "It grows for jobs that wait.",
    Reason.ARRIVALS: "It grows for jobs that come as a stream.",
    Reason.DUE_SOON: "It grows for delayed jobs that fall due.",
    Reason.FLOOR: "It grows to `replicas.min` or to a floor.",
    Reason.MINIMUM: "It has `replicas.min` or a floor, and would need fewer.",
    Reason.COOLING: "Fewer are needed, but not for long enough yet to give the others up.",
    Reason.SURPLUS: "It shrinks: fewer were enough for `scaleDown.after`, or ten times as long "
    "where chance alone may explain it.",
    Reason.STEADY: "It has what it needs.",
    Reason.IDLE: "It has nobody, and needs nobody.",
}
BOUNDS: Mapping[StrEnum, str] = {
    Limit.MAXIMUM: "It needs more than `replicas.max`.",
    Limit.MINIMUM: "It needs fewer than `replicas.min` or a floor. Not a reason of `Limited`.",
    Limit.STARTING: "Not all that are missing may start now: `scaleUp.maxStarting`, or pods that "
    "still drain count against `replicas.max`.",
    Limit.DRAINING: "Not all that are too many may drain now: as many busy ones as "
    "`scaleDown.maxDraining` allows do already.",
}
HAPPENINGS: Mapping[StrEnum, tuple[str, str]] = {
    Happening.SCALED_UP: ("Normal", "The Deployment was asked for more replicas."),
    Happening.SCALED_DOWN: (
        "Normal",
        "The Deployment's size was lowered, by drained pods or by ones that never came.",
    ),
    Happening.CONFLICT: ("Warning", "Somebody else has changed the Deployment's size."),
    Happening.MISPICKED: ("Warning", "Another pod was deleted in place of a drained one."),
    Happening.DRAIN_STARTED: (
        "Normal",
        "Pods were asked to claim nothing; five of them are named.",
    ),
    Happening.DRAIN_CANCELLED: ("Normal", "Pods that drained claim again: they are needed."),
}


DURATION = "(ms|s|m|h)"
"""By this in its rule a text is known to be a duration."""

LENGTHS = ("minLength", "maxLength")


class Undescribed(Exception):
    """Something would stand in the page without a word about it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field, by its path from the resource on."""

    path: str
    schema: Schema
    is_required: bool


def definition() -> Schema:
    text = (files("jangada_operator") / "manifests/workerpool-crd.yaml").read_text("utf-8")
    found: Schema = yaml.safe_load(text)
    return found


def fields(schema: Schema, path: str) -> Iterator[Field]:
    """All below, each before what is in it. Raises `Undescribed`."""
    for name, each in (schema.get("properties") or {}).items():
        field = Field(f"{path}{name}", each, name in schema.get("required", ()))
        if not each.get("description"):
            raise Undescribed(f"{field.path} has no description in the definition")
        yield field
        yield from fields(each, f"{field.path}.")
        yield from fields(each.get("items") or {}, f"{field.path}[].")


def kind_of(schema: Schema) -> str:
    """What kind of value it takes, in words."""
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if any(DURATION in rule["rule"] for rule in schema.get("x-kubernetes-validations") or ()):
        return "duration"
    if "items" in schema:
        return f"list of {kind_of(schema['items'])}{_between(schema, 'minItems', 'maxItems')}"
    low, high = ("minimum", "maximum") if schema["type"] != "string" else LENGTHS
    unit = " letters" if schema["type"] == "string" and "minLength" in schema else ""
    pattern = f", `{schema['pattern']}`" if "pattern" in schema else ""
    form = f" ({schema['format']})" if schema.get("format") == "date-time" else ""
    return f"{schema['type']}{_between(schema, low, high)}{unit}{form}{pattern}"


def _between(schema: Schema, low: str, high: str) -> str:
    match schema.get(low), schema.get(high):
        case None, None:
            return ""
        case least, None:
            return f", at least {least:,}"
        case None, most:
            return f", at most {most:,}"
        case least, most:
            return f", {least:,} to {most:,}"


def page() -> str:
    """`docs/workerpool.md`."""
    found = definition()
    (version,) = found["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    everything = list(fields(schema, ""))
    parts = [
        PREFACE,
        *_names(found["spec"], version),
        *_spec(each for each in everything if each.path.startswith("spec.")),
        *_rules(schema, everything),
        *_status(each for each in everything if each.path.startswith("status.")),
        *_columns(version["additionalPrinterColumns"]),
        *_conditions(),
        *_decisions(),
        *_events(),
        *_metrics(),
    ]
    return "".join(parts)


def _names(spec: Schema, version: Schema) -> Iterator[str]:
    names = spec["names"]
    schema = version["schema"]["openAPIV3Schema"]
    short = ", ".join(f"`{name}`" for name in names["shortNames"])
    yield f"{schema['description']}\n\n| | |\n|---|---|\n"
    yield f"| `apiVersion` | `{spec['group']}/{version['name']}` |\n"
    yield f"| `kind` | `{names['kind']}` |\n"
    yield f"| for kubectl | `{names['plural']}`, `{names['singular']}`, {short} |\n"
    yield f"| scope | {spec['scope']} |\n"


def _spec(found: Iterator[Field]) -> Iterator[str]:
    yield "\n## Spec\n\n| field | type | default | meaning |\n|---|---|---|---|\n"
    for each in found:
        default = each.schema.get("default")
        text = "required" if each.is_required else "" if default in (None, {}) else _code(default)
        kind = _cell(kind_of(each.schema))
        yield f"| `{each.path.removeprefix('spec.')}` | {kind} | {text} | {_told(each.schema)} |\n"


def _rules(schema: Schema, found: list[Field]) -> Iterator[str]:
    """What the API server refuses beyond types and bounds, with what it says then."""
    yield "\n## Rules\n\nThe API server refuses what breaks one of them (CEL), and says:\n\n"
    yield "| field | message | rule |\n|---|---|---|\n"
    for each in (Field("", schema, is_required=True), *found):
        for rule in each.schema.get("x-kubernetes-validations") or ():
            text = _cell(" ".join(rule["rule"].split()))
            yield f"| `{each.path}` | {_cell(rule['message'])} | `{text}` |\n"


def _status(found: Iterator[Field]) -> Iterator[str]:
    yield "\n## Status\n\n| field | type | meaning |\n|---|---|---|\n"
    for each in found:
        if each.path.startswith("status.decisions[]."):
            continue  # they are those of lastDecision, as it says
        kind = _cell(kind_of(each.schema))
        yield f"| `{each.path.removeprefix('status.')}` | {kind} | {_told(each.schema)} |\n"


def _columns(columns: list[Schema]) -> Iterator[str]:
    yield "\n## Columns\n\nWhat `kubectl get wp` prints:\n\n| column | value | |\n|---|---|---|\n"
    for each in columns:
        wide = "with `-o wide`" if each.get("priority") else ""
        yield f"| {each['name'].upper()} | `{each['jsonPath']}` | {wide} |\n"


def _conditions() -> Iterator[str]:
    yield CONDITIONS
    states = _explained(State, STATES)
    limited = {each: text for each, text in BOUNDS.items() if each is not Limit.MINIMUM}
    rows = [(*told[:2], reason, told[2]) for reason, told in states.items()]
    rows += [("Ready", "False", each, text) for each, text in _explained(Trouble, TROUBLES).items()]
    rows += [("Limited", "True", each, text) for each, text in limited.items()]
    order = list(dict.fromkeys(row[0] for row in rows))
    for kind, status, reason, text in sorted(rows, key=lambda row: order.index(row[0])):
        yield f"| {kind} | {status} | `{reason}` | {text} |\n"


def _decisions() -> Iterator[str]:
    yield DECISIONS
    yield from (f"| `{each}` | {text} |\n" for each, text in _explained(Reason, REASONS).items())
    yield LIMITS
    yield from (f"| `{each}` | {text} |\n" for each, text in _explained(Limit, BOUNDS).items())


def _events() -> Iterator[str]:
    yield EVENTS
    for each, (kind, text) in _explained(Happening, HAPPENINGS).items():
        yield f"| `{each}` | {kind} | {text} |\n"


def _metrics() -> Iterator[str]:
    yield METRICS
    nobody = SimpleNamespace(
        leadership=SimpleNamespace(is_held=False),
        managed={},
        look_seconds=new_look_seconds(),
        errors=0,
    )
    found = list(PoolMetrics(cast("Operator", nobody)).collect())
    for each in sorted(found, key=lambda metric: not metric.name.startswith(PREFIX)):
        name = f"{each.name}_total" if each.type == "counter" else each.name
        yield f"| `{name}` | {each.type} | {each.documentation} |\n"


def _explained[T](words: type[StrEnum], meanings: Mapping[StrEnum, T]) -> Mapping[StrEnum, T]:
    if nameless := [each for each in words if each not in meanings]:
        raise Undescribed(f"{words.__name__}.{nameless[0].name} isn't explained")
    return {each: meanings[each] for each in words}


def _told(schema: Schema) -> str:
    return _cell(schema["description"])


def _code(value: object) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
