"""The dashboard, and whether its figures and those of the alerts are ones that somebody exports."""

import json
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import chart
import dashboard
import pytest
import tools
import yaml
from chart import CHART
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from jangada.db import PoolUsage
from jangada_api.management import ready_gauge
from jangada_api.middleware import HttpMetrics
from jangada_api.pool_metrics import watch_pool
from jangada_operator.metrics import PoolMetrics
from jangada_operator.operating import Operator, new_look_seconds
from jangada_worker.metrics import DispatcherMetrics, WorkerMetrics

METRIC: Final = re.compile(r"\b(?:jangada|http_server|db_client)_\w+")
SELECTED: Final = re.compile(r"([a-z_]+)\{([^}]*)\}")
LABEL: Final = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)"')
GROUPED: Final = re.compile(r"\b(?:by|on) \(([^)]*)\)")
LEGEND: Final = re.compile(r"\{\{(\w+)\}\}")
TARGET: Final = {"namespace", "pod", "app_kubernetes_io_instance", "app_kubernetes_io_component"}
"""Labels of a scraped pod: its own, and those that the PodMonitor takes from it."""

UNITS: Final = {"short", "reqps", "ops", "s", "percentunit"}


async def nobody(*_: object) -> None:
    """An application that serves nothing: its figures are there from the beginning."""


def registry() -> CollectorRegistry:
    """All figures of API, worker, dispatcher and operator, as they register them."""
    alone = CollectorRegistry(auto_describe=True)
    HttpMetrics(nobody, registry=alone)
    ready_gauge(alone)
    watch_pool(alone, lambda: PoolUsage(used=0, idle=0, maximum=1))
    WorkerMetrics(alone)
    return alone


def operator() -> PoolMetrics:
    idle = SimpleNamespace(is_held=True)
    state = SimpleNamespace(leadership=idle, managed={}, errors=0, look_seconds=new_look_seconds())
    return PoolMetrics(cast("Operator", state))


@cache
def exported() -> Mapping[str, frozenset[str]]:
    """Every series that somebody exports, with its labels."""
    dispatcher, scaling = (CollectorRegistry(auto_describe=True) for _ in range(2))
    DispatcherMetrics(dispatcher)
    scaling.register(operator())
    found: dict[str, frozenset[str]] = {}
    for each in (registry(), dispatcher, scaling):
        for collector, names in each._collector_to_names.items():
            for name in names:
                bucket = {"le"} if name.endswith("_bucket") else set()
                found[name] = frozenset(labels(collector, name) | bucket)
    return found


def labels(collector: Collector, name: str) -> set[str]:
    own = getattr(collector, "_labelnames", None)
    if own is not None:
        return set(own)
    families = [each for each in collector.collect() if name.startswith(each.name)]
    return {label for each in families for label in getattr(each, "_labelnames", ())}


def unknown(query: str) -> set[str]:
    """Metrics, and labels of them, that a query names and nobody exports."""
    metrics = set(METRIC.findall(query))
    wrong = metrics - set(exported())
    seen = {label for name in metrics - wrong for label in seen_as(exported()[name])}
    for metric, selectors in SELECTED.findall(query):
        has = seen_as(exported().get(metric, frozenset())) | TARGET
        wrong |= {f"{metric}.{label}" for label in LABEL.findall(selectors) if label not in has}
    for names in GROUPED.findall(query):
        wrong |= {label for label in re.findall(r"\w+", names) if label not in seen | TARGET}
    return wrong


def seen_as(own: Collection[str]) -> set[str]:
    """A label that a scraped pod has, too, is renamed by Prometheus."""
    return {f"exported_{label}" if label in TARGET else label for label in own}


def panels() -> list[dict[str, Any]]:
    text = dashboard.DASHBOARD.read_text("utf-8")
    return [each for each in json.loads(text)["panels"] if each["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for each in panels() for target in each["targets"]]


def helm() -> Path:
    if (found := tools.find(tools.CHART)) is None:
        pytest.skip("helm isn't built: `make tools ARGS=chart` does it")
    return found / "helm"


def objects(kind: str) -> list[Any]:
    everything = chart.objects("production", helm())
    return [each for each in everything if each["kind"] == kind]


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    for each in panels():
        assert each["title"], each
        assert each["description"].endswith("."), each["title"]
        assert each["fieldConfig"]["defaults"]["unit"] in UNITS, each["title"]
        assert each["targets"], each["title"]
        references = [target["refId"] for target in each["targets"]]
        assert len(references) == len(set(references)), each["title"]
    titles = [each["title"] for each in panels()]
    assert len(titles) == len(set(titles))


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for each in json.loads(dashboard.DASHBOARD.read_text("utf-8"))["panels"]:
        place = each["gridPos"]
        cells = product(range(place["w"]), range(place["h"]))
        own = {(place["x"] + x, place["y"] + y) for x, y in cells}
        assert not own & taken, each["title"]
        assert max(x for x, _ in own) < 24, each["title"]
        taken |= own


def test_a_dashboard_is_of_whatever_is_chosen() -> None:
    """No ids and no data source of somebody's Grafana."""
    board = json.loads(dashboard.DASHBOARD.read_text("utf-8"))
    assert not {"id", "uid"} & set(board)
    chosen = [each["name"] for each in board["templating"]["list"]]
    assert chosen == ["datasource", "namespace", "release"]
    for each in panels():
        assert "id" not in each
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for query in queries():
        used = set(re.findall(r"\$(\w+)", query)) - {"__rate_interval"}
        assert used in ({"namespace", "release"}, {"namespace"}), query
        assert ("$release" in query) is ("jangada_workerpool_" not in query), query


def test_legends_name_labels_that_are_left() -> None:
    for each in panels():
        for target in each["targets"]:
            kept = {name for names in GROUPED.findall(target["expr"]) for name in names.split(", ")}
            assert set(LEGEND.findall(target["legendFormat"])) <= kept, each["title"]


def test_every_figure_of_a_panel_is_exported() -> None:
    assert [(query, wrong) for query in queries() if (wrong := unknown(query))] == []


def test_every_figure_of_an_alert_is_exported() -> None:
    (rules,) = objects("PrometheusRule")
    asked = [each["expr"] for group in rules["spec"]["groups"] for each in group["rules"]]
    assert [(query, wrong) for query in asked if (wrong := unknown(query))] == []


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("sum(jangada_queue_wating)", "jangada_queue_wating"),
        ('sum(jangada_queue_waiting{kind="a"})', "jangada_queue_waiting.kind"),
        (
            'jangada_workerpool_backlog{exported_name="a"}',
            "jangada_workerpool_backlog.exported_name",
        ),
        ("sum by (kind) (jangada_queue_waiting)", "kind"),
    ],
)
def test_what_nobody_exports_is_noticed(query: str, wrong: str) -> None:
    assert unknown(query) == {wrong}


def test_the_labels_of_alerts_and_panels_are_those_of_the_scrape() -> None:
    (monitor,) = objects("PodMonitor")
    taken = {re.sub(r"\W", "_", each) for each in monitor["spec"]["podTargetLabels"]}
    assert taken == {each for each in TARGET if each.startswith("app_")}


def test_every_query_is_one(tmp_path: Path) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool isn't installed: nobody reads the queries")
    written = [query.replace("$__rate_interval", "5m") for query in queries()]
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(written)]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8"
    )
    done = subprocess.run(  # noqa: S603 - Prometheus' own parser
        [promtool, "check", "rules", "rules.yaml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_chart_brings_it_as_it_is() -> None:
    found = [
        each for each in objects("ConfigMap") if "grafana_dashboard" in each["metadata"]["labels"]
    ]
    (board,) = found
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = board["data"].values()
    assert text == (CHART / "dashboards/api-and-queue.json").read_text("utf-8")
