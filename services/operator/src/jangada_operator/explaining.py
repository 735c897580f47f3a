"""`jangada-operator explain POOL`: why a pool has the size that it has, in words and numbers."""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Annotated, Any, Final, NamedTuple

import typer

from jangada_operator.exits import failed, refused
from jangada_operator.kube import Json, Kube, KubeError
from jangada_operator.login import find_login, own_namespace
from jangada_operator.validating import KINDS, check_change, schema_of
from jangada_operator.workerpool.reasons import State
from jangada_operator.workerpool.spec import GROUP, PLURAL, VERSION, InvalidSpec, Pool, read_pool
from jangada_queue.policy.wanted import Wanted
from jangada_queue.policy.what_if import size_for

SHOWN: Final = 10

FIGURES: Final = frozenset(
    {
        *("arrival_per_second", "service_seconds", "service_variation", "slots_for_arrivals"),
        *("backlog", "backlog_expected", "oldest_wait_seconds", "slots_for_backlog", "due_soon"),
        *("running", "occupied", "in_flight", "stuck", "slots_per_replica"),
        *("serving", "starting", "draining", "start_seconds"),
    }
)
"""What is said of a decision. One that another release has made may lack some: it has none then."""


def explain(
    pool: Annotated[str, typer.Argument(help="The WorkerPool's name.", metavar="POOL")],
    *,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Its namespace. Default: your kubeconfig's."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--dry-run",
            metavar="FIELD=VALUE",
            help="What another spec would make of the last figures: objective.startWithin=2s. "
            "More than once for several fields.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say why a pool has its size: the last decision with its figures, and how it came there."""
    try:
        body = asyncio.run(_fetch(namespace, pool))
        told = read_pool(body)
        what_if = read_pool(changed_by(body, changes)) if changes else None
    except InvalidSpec as error:
        raise failed(str(error)) from error
    except KubeError as error:
        raise refused(error) from error
    if as_json:
        typer.echo(json.dumps(summary(body, what_if), indent=2))
    else:
        typer.echo("\n".join(lines(told, body.get("status") or {}, what_if)))


async def _fetch(namespace: str | None, name: str) -> Json:
    place = namespace or own_namespace()
    async with Kube.open(find_login) as kube:
        return await kube.get(f"/apis/{GROUP}/{VERSION}/namespaces/{place}/{PLURAL}/{name}")


def changed_by(body: Json, changes: Iterable[str]) -> Json:
    """The resource with fields of its spec set. Raises `InvalidSpec`, as an API server would."""
    changed = deepcopy(body)
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise InvalidSpec(f"{change!r} is no change: write FIELD=VALUE, replicas.max=20")
        path = path.removeprefix(".").removeprefix("spec.")
        value = _value(path, text)
        *parents, last = path.split(".")
        part = changed["spec"]
        for name in parents:
            part = part.setdefault(name, {})
        part[last] = value
    check_change(body["spec"], changed["spec"])
    return changed


def _value(path: str, text: str) -> object:
    """Text where the field holds text, and JSON elsewhere."""
    schema = schema_of(path)
    if schema["type"] == "string":
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        words = KINDS[schema["type"]][1]
        as_json = ", in JSON" if schema["type"] in {"array", "object"} else ""
        raise InvalidSpec(f"{path} must be {words}{as_json}, and is {text!r}") from error


def summary(body: Json, what_if: Pool | None) -> Json:
    status = body.get("status") or {}
    found: Json = {
        "pool": f"{body['metadata']['namespace']}/{body['metadata']['name']}",
        "lastDecision": status.get("lastDecision"),
        "decisions": status.get("decisions") or [],
        "conditions": status.get("conditions") or [],
        "dryRun": (body.get("spec") or {}).get("dryRun", False),
    }
    decision, inputs = _latest_figures(status)
    if what_if is not None and inputs:
        size, _ = size_for(what_if.wanted, inputs, time.time())
        found["whatIf"] = {"to": size, "figuresOf": decision["time"]}
    return found


def lines(pool: Pool, status: Json, what_if: Pool | None) -> Iterator[str]:
    """What is printed."""
    last = status.get("lastDecision")
    yield from _about(pool)
    yield from _trouble(status.get("conditions") or ())
    figures = _latest_figures(status)
    if last is None:
        yield "Nothing is decided while it isn't Ready." if status else "Nothing was decided yet."
    else:
        yield ""
        yield f"{last['time']}: {last['from']} → {last['to']} ({last['reason']})"
        yield f"  {last['message']}"
    yield from _figures(figures, is_old=figures.decision is not last)
    if what_if is not None:
        yield from _what_if(what_if.wanted, figures)
    yield from _past(status.get("decisions") or ())


def _about(pool: Pool) -> Iterator[str]:
    wanted = pool.wanted
    within = wanted.start_within.total_seconds()
    yield f"{pool.key.namespace}/{pool.key.name} scales Deployment {pool.deployment}"
    yield (
        f"  wants jobs of {', '.join(pool.queues)} to start within {within:g} s, "
        f"with {wanted.least} to {wanted.most} replicas"
    )
    if pool.is_dry_run:
        yield "  is a dry run (spec.dryRun): it decides what is below, and nothing is done"
    if wanted.is_paused:
        yield "  is paused (spec.paused): the size stays"


def _trouble(conditions: Sequence[Json]) -> Iterator[str]:
    for each in conditions:
        is_wrong = (each["type"] in {"Ready", "SignalsFresh"}) != (each["status"] == "True")
        if is_wrong and each["reason"] != State.NOT_READ:
            said = each.get("message") or each["reason"]
            yield f"  {each['type']} is {each['status']} since {each['lastTransitionTime']}: {said}"


class _Figures(NamedTuple):
    """What a decision was made by; nothing where none has figures."""

    decision: Json
    inputs: Mapping[str, float]


def _latest_figures(status: Json) -> _Figures:
    """Those of the last decision; if it had none, because signals were stale, the ones before."""
    last = status.get("lastDecision")
    for decision in ([last] if last else []) + [*reversed(status.get("decisions") or ())]:
        inputs = {_snake(name): value for name, value in (decision.get("inputs") or {}).items()}
        if inputs.keys() >= FIGURES:
            return _Figures(decision, inputs)
    return _Figures({}, {})


def _figures(figures: _Figures, *, is_old: bool) -> Iterator[str]:
    inputs = figures.inputs
    if not inputs:
        return
    yield ""
    if is_old:
        yield f"  Old figures, of {figures.decision['time']}: no later decision has any."
    yield (
        f"  {inputs['arrival_per_second']:g} jobs/s × {inputs['service_seconds']:g} s, seen as far "
        f"ahead as a start takes: {inputs['slots_for_arrivals']:.1f} slots"
    )
    yield (
        f"  {inputs['backlog']:g} wait (the oldest for {inputs['oldest_wait_seconds']:g} s), "
        f"{inputs['running']:g} run, {inputs['due_soon']:g} fall due; "
        f"an estimated {inputs['backlog_expected']:.4g} still wait when others could be there: "
        f"{inputs['slots_for_backlog']:.1f} slots"
    )
    if inputs["stuck"]:
        yield f"  {inputs['stuck']:g} run far longer than usual: a slot each"
    need = inputs["stuck"] + max(inputs["slots_for_arrivals"], inputs["slots_for_backlog"])
    each = inputs["slots_per_replica"]
    yield f"  {need:.1f} slots of {each:g} a replica: {need / each:.2f} replicas"
    yield (
        f"  {inputs['serving']:g} serve ({inputs['starting']:g} of them are starting, which takes "
        f"{inputs['start_seconds']:g} s), {inputs['draining']:g} drain"
    )


def _what_if(wanted: Wanted, figures: _Figures) -> Iterator[str]:
    yield ""
    if not figures.inputs:
        yield "No decision has figures to ask about yet."
        return
    size, need = size_for(wanted, figures.inputs, time.time())
    yield (
        f"With the changed spec, by the figures of {figures.decision['time']}: {size} "
        f"({need.stream:.1f} slots for what comes, {need.backlog:.1f} for what waits, "
        f"{need.stuck} stuck)"
    )


def _past(decisions: Any) -> Iterator[str]:  # noqa: ANN401 - of a status
    if not decisions:
        return
    yield ""
    yield "Before:"
    for each in decisions[-SHOWN:]:
        step = f"{each['from']} → {each['to']}"
        yield f"  {each['time']}  {step}  {each['reason']}: {each['message']}"


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
