"""`jangada-operator explain POOL`: why a pool has the size that it has, in words and numbers."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Any, Final

import typer

from jangada_operator.kube import Json, Kube, KubeError, Misconfigured, Refused
from jangada_operator.login import find_login, own_namespace
from jangada_operator.workerpool.spec import GROUP, PLURAL, VERSION, InvalidSpec, Pool, read_pool
from jangada_queue.policy.wanted import Wanted
from jangada_queue.policy.what_if import size_for

EXIT_ERROR: Final = 1
EXIT_UNAVAILABLE: Final = 69  # EX_UNAVAILABLE of sysexits.h: trying again later may help
SHOWN: Final = 10


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
        changed = changed_by(body, changes or ())
        told = read_pool(body)
        what_if = read_pool(changed) if changes else None
    except InvalidSpec as error:
        raise failed(str(error), EXIT_ERROR) from error
    except KubeError as error:
        is_wrong = isinstance(error, Refused | Misconfigured)
        raise failed(str(error), EXIT_ERROR if is_wrong else EXIT_UNAVAILABLE) from error
    if as_json:
        typer.echo(json.dumps(summary(body, what_if), indent=2))
    else:
        typer.echo("\n".join(lines(told, body.get("status") or {}, what_if)))


async def _fetch(namespace: str | None, name: str) -> Json:
    place = namespace or own_namespace()
    async with Kube.open(find_login) as kube:
        return await kube.get(f"/apis/{GROUP}/{VERSION}/namespaces/{place}/{PLURAL}/{name}")


def changed_by(body: Json, changes: Iterator[str] | list[str] | tuple[()]) -> Json:
    """The resource with fields of its spec set. Raises `InvalidSpec`."""
    changed = deepcopy(body)
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise InvalidSpec(f"{change!r} is no change: write FIELD=VALUE, replicas.max=20")
        *parents, last = path.split(".")
        part = changed["spec"]
        for name in parents:
            part = part.setdefault(name, {})
            if not isinstance(part, dict):
                raise InvalidSpec(f"{path} can't be changed here: {name} has no fields")
        part[last] = _value(text)
    return changed


def _value(text: str) -> object:
    """A number or a truth value where it is one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def summary(body: Json, what_if: Pool | None) -> Json:
    status = body.get("status") or {}
    found: Json = {
        "pool": f"{body['metadata']['namespace']}/{body['metadata']['name']}",
        "lastDecision": status.get("lastDecision"),
        "decisions": status.get("decisions") or [],
        "conditions": status.get("conditions") or [],
    }
    inputs = _inputs(status)
    if what_if is not None and inputs:
        found["whatIf"] = {"to": size_for(what_if.wanted, inputs, time.time())[0]}
    return found


def lines(pool: Pool, status: Mapping[str, Any], what_if: Pool | None) -> Iterator[str]:
    """What is printed."""
    wanted, last = pool.wanted, status.get("lastDecision")
    within = wanted.start_within.total_seconds()
    yield f"{pool.key.namespace}/{pool.key.name} scales Deployment {pool.deployment}"
    yield (
        f"  wants jobs of {', '.join(pool.queues)} to start within {within:g} s, "
        f"with {wanted.least} to {wanted.most} replicas"
    )
    for each in status.get("conditions") or ():
        if (each["type"] in {"Ready", "SignalsFresh"}) != (each["status"] == "True"):
            said = each.get("message") or each["reason"]
            yield f"  {each['type']} is {each['status']} since {each['lastTransitionTime']}: {said}"
    if last is None:
        yield "Nothing was decided yet."
        return
    yield ""
    yield f"{last['time']}: {last['from']} → {last['to']} ({last['reason']})"
    yield f"  {last['message']}"
    yield from _figures(_inputs(status))
    if what_if is not None:
        yield from _what_if(what_if.wanted, _inputs(status))
    yield from _past(status.get("decisions") or ())


def _figures(inputs: Mapping[str, float]) -> Iterator[str]:
    if not inputs:
        return
    yield ""
    yield (
        f"  {inputs['arrival_per_second']:g} jobs/s × {inputs['service_seconds']:g} s, seen as far "
        f"ahead as a start takes: {inputs['slots_for_arrivals']:.1f} slots"
    )
    yield (
        f"  {inputs['backlog']:g} wait (the oldest for {inputs['oldest_wait_seconds']:g} s), "
        f"{inputs['running']:g} run, {inputs['due_soon']:g} fall due; "
        f"{inputs['backlog_expected']:g} will wait when help is there: "
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


def _what_if(wanted: Wanted, inputs: Mapping[str, float]) -> Iterator[str]:
    if not inputs:
        yield "The last decision has no figures to ask about."
        return
    size, need = size_for(wanted, inputs, time.time())
    yield ""
    yield (
        f"With the changed spec: {size} ({need.stream:.1f} slots for what comes, "
        f"{need.backlog:.1f} for what waits, {need.stuck} stuck)"
    )


def _past(decisions: Any) -> Iterator[str]:  # noqa: ANN401 - of a status
    if not decisions:
        return
    yield ""
    yield "Before:"
    for each in decisions[-SHOWN:]:
        step = f"{each['from']} → {each['to']}"
        yield f"  {each['time']}  {step}  {each['reason']}: {each['message']}"


def _inputs(status: Mapping[str, Any]) -> dict[str, float]:
    inputs = (status.get("lastDecision") or {}).get("inputs") or {}
    return {_snake(name): value for name, value in inputs.items()}


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def failed(text: str, code: int) -> typer.Exit:
    typer.echo(f"Error: {text}", err=True)
    return typer.Exit(code)
