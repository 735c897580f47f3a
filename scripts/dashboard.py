"""Writes the chart's dashboard for Grafana, `charts/jangada/dashboards/api-and-queue.json`.

Whose figures it shows is chosen by three variables: a data source, a namespace and a release, by
the labels that the chart's PodMonitor gives. It has no ids of its own, which Grafana gives.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chart import CHART

DASHBOARD: Final = CHART / "dashboards/api-and-queue.json"
OURS: Final = 'namespace="$namespace",app_kubernetes_io_instance="$release"'
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDE: Final = 24
HEIGHT: Final = 8
LINE: Final = 120
"""What fits stands on one line."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: what it shows, in which unit, and a query for each group of lines."""

    title: str
    unit: str
    queries: Mapping[str, str]
    """By the lines' legend."""
    means: str
    width: int = 8


def of(metric: str, *labels: str) -> str:
    """Series of the chosen release."""
    return metric + "{" + ",".join((OURS, *labels)) + "}"


def rate(by: str, metric: str, *labels: str) -> str:
    return f"sum by ({by}) (rate({of(metric, *labels)}[$__rate_interval]))"


def quantile(share: float, by: str, histogram: str) -> str:
    return f"histogram_quantile({share}, {rate(f'le, {by}', f'{histogram}_bucket')})"


def queue(metric: str) -> str:
    """Every dispatcher says the same of a queue."""
    return f"max by (queue) ({of(f'jangada_queue_{metric}')})"


def pool(metric: str) -> str:
    """By the pool's own namespace: its operator may be another's."""
    return f'max by (name) (jangada_workerpool_{metric}{{exported_namespace="$namespace"}})'


REQUESTS: Final = "http_server_request_duration_seconds"
FAILED: Final = 'http_response_status_code=~"5.."'
ERRORS: Final = (
    f"(sum(rate({of(f'{REQUESTS}_count', FAILED)}[$__rate_interval])) or vector(0))"
    f" / sum(rate({of(f'{REQUESTS}_count')}[$__rate_interval]))"
)

ROWS: Final[Mapping[str, Sequence[Panel]]] = {
    "API": (
        Panel(
            "Requests",
            "reqps",
            {"{{http_route}}": rate("http_route", f"{REQUESTS}_count")},
            "Answers a second, by route.",
        ),
        Panel(
            "Error ratio",
            "percentunit",
            {"5xx": ERRORS},
            "The share of answers that are 5xx. JangadaApiFails fires above 5 %.",
        ),
        Panel(
            "In flight",
            "short",
            {
                "{{http_request_method}}": "sum by (http_request_method) "
                f"({of('http_server_active_requests')})"
            },
            "Requests under way, streams of events among them.",
        ),
        *(
            Panel(
                f"Latency, p{share * 100:.0f}",
                "s",
                {"{{http_route}}": quantile(share, "http_route", REQUESTS)},
                f"{share:.0%} of the answers of a route took no longer.",
            )
            for share in (0.5, 0.95, 0.99)
        ),
        Panel(
            "Ready",
            "short",
            {"API": f"sum({of('jangada_api_ready')})"},
            "API pods that reach PostgreSQL and find its schema.",
        ),
        Panel(
            "Connections to PostgreSQL",
            "short",
            {
                "{{state}}": f"sum by (state) ({of('db_client_connection_count')})",
                "most": f"sum({of('db_client_connection_max')})",
            },
            "Of the API's pools. With all of them used, requests wait, and then get 503.",
        ),
    ),
    "Queues": (
        Panel(
            "Waiting",
            "short",
            {"{{queue}}": queue("available"), "{{queue}}, published": queue("waiting")},
            "Jobs that may start and haven't (to 10,000), and how many of them are published.",
        ),
        Panel("Running", "short", {"{{queue}}": queue("running")}, "Jobs that run."),
        Panel(
            "Oldest wait",
            "s",
            {"{{queue}}": queue("oldest_wait_seconds")},
            "How long the oldest of those that wait has been due. JangadaJobsWait looks at it.",
        ),
        Panel(
            "Enqueued and published",
            "ops",
            {
                "{{queue}}": rate("queue", "jangada_job_enqueued_total"),
                "{{queue}}, published": rate("queue", "jangada_queue_published_total"),
            },
            "Jobs a second; what is offered at once isn't published by a dispatcher.",
        ),
        Panel("Dead", "short", {"{{queue}}": queue("dead")}, "Discarded jobs (to 10,000 in all)."),
        Panel(
            "Later, or parked",
            "short",
            {"{{queue}}, delayed": queue("delayed"), "{{queue}}, parked": queue("parked")},
            "Jobs that are due later or tried again, and messages of kinds that no worker knows.",
        ),
    ),
    "Jobs": (
        Panel(
            "Outcomes",
            "ops",
            {"{{kind}} {{outcome}}": rate("kind, outcome", "jangada_job_total")},
            "Attempts that ended, a second.",
        ),
        Panel(
            "Durations",
            "s",
            {
                "{{kind}}, p50": quantile(0.5, "kind", "jangada_job_duration_seconds"),
                "{{kind}}, p95": quantile(0.95, "kind", "jangada_job_duration_seconds"),
            },
            "How long attempts ran.",
        ),
        Panel(
            "Waits",
            "s",
            {"{{kind}}, p95": quantile(0.95, "kind", "jangada_job_queue_wait_seconds")},
            "From when a job was due to its start, of those that have started.",
        ),
    ),
    "Workers": (
        Panel(
            "Slots",
            "short",
            {"{{state}}": f"sum by (state) ({of('jangada_worker_slots')})"},
            "Slots of all workers.",
        ),
        Panel(
            "What goes wrong",
            "short",
            {
                title: f"sum(increase({of(f'jangada_{metric}_total')}[$__rate_interval]))"
                for title, metric in {
                    "processes that ended unasked": "worker_restarts",
                    "beats that PostgreSQL did not take": "worker_failed_beats",
                    "workers that fell silent": "worker_lost",
                    "jobs whose worker died": "job_crashed",
                    "jobs discarded as poison": "job_poisoned",
                    "message leases that expired": "lease_expired",
                }.items()
            },
            "All of it is dealt with; much of it is worth a look.",
            width=16,
        ),
    ),
    "Pools": (
        Panel(
            "Replicas",
            "short",
            {
                "{{name}}": pool("replicas"),
                "{{name}}, desired": pool("desired_replicas"),
                "{{name}}, most": pool("max_replicas"),
            },
            "Of all pools of the namespace.",
        ),
        Panel("Backlog", "short", {"{{name}}": pool("backlog")}, "Jobs that a pool is behind."),
        Panel("Draining", "short", {"{{name}}": pool("draining")}, "Replicas that claim nothing."),
    ),
    "Dispatchers": (
        Panel(
            "Dispatchers",
            "short",
            {"they know the queues": f"count(count by (pod) ({of('jangada_queue_waiting')}))"},
            "Those that reach PostgreSQL and Valkey. JangadaNoDispatcher fires without any.",
        ),
        Panel(
            "Schedules",
            "ops",
            {"fired": f"sum(rate({of('jangada_schedule_fired_total')}[$__rate_interval]))"},
            "Jobs that schedules enqueued, a second.",
        ),
        Panel(
            "Pruning is behind",
            "s",
            {"{{state}}": f"max by (state) ({of('jangada_job_prune_behind_seconds')})"},
            "For how long finished jobs have been waiting to be deleted.",
        ),
    ),
}


def variable(name: str, label: str, query: str, kind: str = "query") -> dict[str, Any]:
    source = {} if kind == "datasource" else {"datasource": SOURCE, "refresh": 2, "sort": 1}
    return {"name": name, "label": label, "type": kind, "query": query, **source}


def drawn(panel: Panel, x: int, y: int) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.means,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(ord("A") + number), "legendFormat": legend, "expr": expression}
            for number, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def panels() -> list[dict[str, Any]]:
    """From left to right, and a title above each group."""
    found: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": y, "w": WIDE, "h": 1}
        found.append({"type": "row", "title": title, "collapsed": False, "gridPos": place})
        y, x = y + 1, 0
        for panel in row:
            if x + panel.width > WIDE:
                x, y = 0, y + HEIGHT
            found.append(drawn(panel, x, y))
            x += panel.width
        y += HEIGHT
    return found


def dashboard() -> dict[str, Any]:
    release = 'label_values(jangada_api_ready{namespace="$namespace"}, app_kubernetes_io_instance)'
    return {
        "title": "Jangada: API and queue",
        "tags": ["jangada"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                variable("datasource", "Data source", "prometheus", "datasource"),
                variable("namespace", "Namespace", "label_values(jangada_api_ready, namespace)"),
                variable("release", "Release", release),
            ]
        },
        "panels": panels(),
    }


def written(value: Any, depth: int = 0) -> str:  # noqa: ANN401 - of many types
    """JSON for people who read its changes."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= LINE or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        inside = [f"{json.dumps(key)}: {written(each, depth + 1)}" for key, each in value.items()]
    else:
        inside = [written(each, depth + 1) for each in value]
    indent = "  " * (depth + 1)
    begin, end = ("{", "}") if isinstance(value, dict) else ("[", "]")
    lines = ",\n".join(indent + each for each in inside)
    return f"{begin}\n{lines}\n{indent[:-2]}{end}"


def page() -> str:
    return written(dashboard()) + "\n"
