"""The figures behind a size, as people are shown them and `what_if` reads them again."""

from collections.abc import Mapping

from jangada_queue.policy.loads import Crew, Demand
from jangada_queue.policy.observation import Signals
from jangada_queue.policy.staffing import Need


def inputs_of(
    crew: Crew, signals: Signals, demand: Demand, need: Need, *, start_seconds: float
) -> Mapping[str, float]:
    load = demand.load
    return {
        "arrival_per_second": load.rate,
        "service_seconds": load.service,
        "service_variation": load.variation,
        "backlog": signals.backlog,
        "backlog_expected": load.backlog,
        "held_back": demand.held_back,
        "in_flight": signals.in_flight,
        "running": load.running,
        "occupied": load.occupied,
        "stuck": load.stuck,
        "due_soon": demand.due,
        "oldest_wait_seconds": signals.oldest_wait,
        "slots_per_replica": crew.slots,
        "slots_for_arrivals": need.stream,
        "slots_for_backlog": need.backlog,
        "serving": crew.size,
        "starting": crew.starting,
        "draining": len(crew.draining),
        "start_seconds": start_seconds,
    }
