"""The two autoscalers: how each runs beside a bed, and what it is told of the Deployment."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tools
from cluster.api import Object
from cluster.bed import Bed
from cluster.field import Field
from cluster.keda import scaled_object, start_keda, stream_trigger
from cluster.operators import install, operator
from cluster.pools import pool, wait_condition

NAME: Final = "worker"
SLOTS: Final = 1
MOST: Final = 12


@dataclass(frozen=True, slots=True)
class Contestant:
    """An autoscaler."""

    name: str
    running: Callable[[Bed, Path], AbstractContextManager[None]]
    """Beside a bed; what it writes goes into the folder."""
    manage: Callable[[Field], None]
    """Tell it of the Deployment; returns when it looks after it."""


@contextmanager
def _jangada(bed: Bed, folder: Path) -> Iterator[None]:
    install(bed, tools.ensure(tools.CONTROL))
    with operator(bed, folder):
        yield


def _make_pool(place: Field) -> None:
    limits = {"min": 0, "max": MOST}
    spec = {"replicas": limits, "slotsPerReplica": SLOTS, "scaleDown": {}}
    place.api.apply(pool(NAME, NAME, place.queue, **spec))
    wait_condition(place.api, NAME, "Ready", "True", "Managed")


@contextmanager
def _keda(bed: Bed, folder: Path) -> Iterator[None]:
    """It ends with the bed, and writes into the bed's folder."""
    del folder
    start_keda(bed, tools.ensure(tools.KEDA))
    yield


def _make_scaled_object(place: Field) -> None:
    keys = place.client.keys(place.queue)
    streams = (keys.stream, keys.returned)
    triggers = [stream_trigger(place.api, place.url, stream, SLOTS) for stream in streams]
    defaults = {"pollingInterval": 30, "cooldownPeriod": 300}
    place.api.apply(scaled_object(NAME, most=MOST, triggers=triggers, **defaults))
    place.api.wait_for("scaledobjects.keda.sh", _is_ready, name=NAME)


def _is_ready(found: Object | None) -> bool:
    """KEDA gives a condition a reason only when it knows one."""
    told = ((found or {}).get("status") or {}).get("conditions") or ()
    return any((each["type"], each["status"]) == ("Ready", "True") for each in told)


JANGADA: Final = Contestant("Jangada", _jangada, _make_pool)
KEDA: Final = Contestant("KEDA", _keda, _make_scaled_object)
CONTESTANTS: Final = (JANGADA, KEDA)
