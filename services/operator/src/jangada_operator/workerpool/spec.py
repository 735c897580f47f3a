"""A `WorkerPool` as its owner wrote it, read into what the policy wants.

The resource definition refuses most of what is wrong before it gets here. What it can't see (an
unknown time zone, a definition of another release) is refused here, with the field's path.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from jangada_operator.durations import parse_duration
from jangada_queue.cron import Cron
from jangada_queue.policy.wanted import Floor, OnDeadline, ScaleDown, Wanted

GROUP: Final = "jangada.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "workerpools"
KIND: Final = "WorkerPool"
API_VERSION: Final = f"{GROUP}/{VERSION}"

OPERATOR: Final = f"{GROUP}/operator"
"""A label of a pool: the lease of the operators that look after it; without it all do."""

PREFIX: Final = "jangada"
"""Of all keys of a queue, where nobody says otherwise."""


class InvalidSpec(ValueError):
    """A field has no meaning; the text names it and says how to mend it."""


@dataclass(frozen=True, slots=True, order=True)
class PoolKey:
    """Which pool."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class SecretKey:
    """Where the broker's URL is kept."""

    name: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What is to be done with one WorkerPool."""

    key: PoolKey
    uid: str
    generation: int
    created: str
    deployment: str
    queues: tuple[str, ...]
    broker: SecretKey
    prefix: str
    wanted: Wanted
    is_dry_run: bool


def read_pool(body: Mapping[str, Any]) -> Pool:
    """Raises `InvalidSpec`."""
    metadata, spec = body["metadata"], body.get("spec") or {}
    secret = _field(spec, "broker", "secretKeyRef")
    return Pool(
        key=PoolKey(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        created=metadata.get("creationTimestamp", ""),
        deployment=_field(spec, "scaleTargetRef", "name"),
        queues=tuple(dict.fromkeys(_field(spec, "queues"))),
        broker=SecretKey(_field(secret, "name"), _field(secret, "key")),
        prefix=spec["broker"].get("prefix", PREFIX),
        wanted=_wanted(spec),
        is_dry_run=spec.get("dryRun", False),
    )


def _wanted(spec: Mapping[str, Any]) -> Wanted:
    replicas, objective = spec.get("replicas") or {}, spec.get("objective") or {}
    up, down = spec.get("scaleUp") or {}, spec.get("scaleDown") or {}
    default, defaults = ScaleDown(), Wanted(most=1)
    return _made(
        ".spec",
        lambda: Wanted(
            least=replicas.get("min", 0),
            most=_field(spec, "replicas", "max"),
            start_within=_span(objective, "objective", "startWithin", defaults.start_within),
            most_starting=up.get("maxStarting"),
            slots=spec.get("slotsPerReplica", defaults.slots),
            scale_down=ScaleDown(
                after=_span(down, "scaleDown", "after", default.after),
                drain_deadline=_span(down, "scaleDown", "drainDeadline", default.drain_deadline),
                on_deadline=OnDeadline(down.get("onDeadline", default.on_deadline)),
                most_draining=down.get("maxDraining"),
            ),
            floors=tuple(_floor(at, each) for at, each in enumerate(spec.get("floors") or ())),
            is_paused=spec.get("paused", False),
        ),
    )


def _floor(number: int, floor: Mapping[str, Any]) -> Floor:
    path = f".spec.floors[{number}]"
    return _made(
        path,
        lambda: Floor(
            Cron.parse(_field(floor, "cron"), floor.get("timeZone", "UTC")),
            parse_duration(_field(floor, "duration")),
            _field(floor, "min"),
        ),
    )


def _span(part: Mapping[str, Any], parent: str, name: str, default: timedelta) -> timedelta:
    if name not in part:
        return default
    return _made(f".spec.{parent}.{name}", lambda: parse_duration(part[name]))


def _field(part: Any, *path: str) -> Any:  # noqa: ANN401 - as it was written
    for name in path:
        if not isinstance(part, Mapping) or name not in part:
            raise InvalidSpec(f"{'.'.join(path)} is missing")
        part = part[name]
    return part


def _made[T](path: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except InvalidSpec:
        raise
    except (ValueError, TypeError) as error:
        raise InvalidSpec(f"{path}: {error}") from error
