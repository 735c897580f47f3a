"""The chart's alerts on series as Prometheus would have them: which fire, and which don't."""

import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import tools
import yaml
from chart import objects, template, values
from toolchain import ROOT

FAILS, WAIT = "JangadaApiFails", "JangadaJobsWait"
DISCARDED, NONE = "JangadaJobsDiscarded", "JangadaNoDispatcher"
SEVERITY: Final = {FAILS: "critical", WAIT: "critical", DISCARDED: "warning", NONE: "critical"}

type Series = Mapping[str, str]


def promtool() -> str:
    if (found := shutil.which("promtool")) is None:
        pytest.skip("promtool isn't installed: whether the alerts fire isn't tested")
    return found


def rule() -> Mapping[str, Any]:
    if (found := tools.find(tools.CHART)) is None:
        pytest.skip("helm isn't built: `make tools ARGS=chart` does it")
    everything = objects("production", found / "helm")
    return next(each for each in everything if each["kind"] == "PrometheusRule")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule()["spec"]), encoding="utf-8")
    return tmp_path


def run(*arguments: str, folder: Path) -> None:
    done = subprocess.run(  # noqa: S603 - Prometheus' own checks
        [promtool(), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def of(metric: str, pod: str, release: str = "shop", **labels: str) -> str:
    """A series as a PodMonitor's scrape has it."""
    known = {"namespace": "team", "app_kubernetes_io_instance": release, "pod": pod, **labels}
    return metric + "{" + ",".join(f'{name}="{value}"' for name, value in known.items()) + "}"


def requests(pod: str, status: int, release: str = "shop") -> str:
    name = "http_server_request_duration_seconds_count"
    return of(name, pod, release, http_route="/v1/jobs", http_response_status_code=str(status))


def ready(pod: str, release: str = "shop") -> str:
    return of("jangada_api_ready", pod, release)


def waits(pod: str, queue: str = "default", release: str = "shop") -> str:
    return of("jangada_queue_oldest_wait_seconds", pod, release, queue=queue)


def dead(pod: str, queue: str = "default", release: str = "shop") -> str:
    return of("jangada_queue_dead", pod, release, queue=queue)


def discarded(pod: str, kind: str = "mail", release: str = "shop") -> str:
    known = {"queue": "default", "kind": kind, "outcome": "discarded"}
    return of("jangada_job_total", pod, release, **known)


def looks(pod: str, release: str = "shop") -> str:
    return of("jangada_queue_waiting", pod, release, queue="default")


@dataclass(frozen=True)
class Case:
    """What is there each minute, and for which queues an alert fires at one of them, if any."""

    what: str
    alert: str
    series: Series
    minute: int
    fires: Collection[str | None] = ()


WELL = {ready("a"): "1x60", ready("b"): "1x60"}
OTHERS = {
    ready("z", "other"): "0x60",
    requests("z", 500, "other"): "0+600x60",
    waits("z", release="other"): "9999x60",
    dead("z", release="other"): "0+1x60",
    discarded("z", release="other"): "0+1x60",
}

CASES: Final = (
    Case(
        "one replica of two answers 12 % with 5xx",
        FAILS,
        {**WELL, requests("a", 200): "0+60x60", requests("b", 200): "0+45x60"}
        | {requests("b", 500): "0+15x60"},
        12,
        [None],
    ),
    Case(
        "not before it has lasted for five minutes",
        FAILS,
        {**WELL, requests("a", 200): "0+60x60", requests("a", 500): "0x20 15+15x40"},
        25,
    ),
    Case(
        "4 % of all answers",
        FAILS,
        {**WELL, requests("a", 200): "0+48x60", requests("b", 500): "0+2x60"},
        30,
    ),
    Case(
        "all answers of a request a minute",
        FAILS,
        {**WELL, requests("a", 500): "0+1x60"},
        30,
    ),
    Case(
        "a replica that had failures starts anew",
        FAILS,
        {**WELL, requests("a", 200): "0+60x60", requests("b", 500): "9000x15 0x45"},
        20,
    ),
    Case(
        "failures go on over restarts",
        FAILS,
        {**WELL, requests("a", 200): "0+30x60"}
        | {requests("b", 500): "0+30x9 0+30x9 0+30x9 0+30x9 0+30x9"},
        28,
        [None],
    ),
    Case(
        "no replica is ready, and nobody is sent to them",
        FAILS,
        {ready("a"): "1x10 0x50", ready("b"): "1x10 0x50", requests("a", 200): "0+60x10 600x50"},
        17,
        [None],
    ),
    Case("one replica isn't ready", FAILS, {ready("a"): "0x60", ready("b"): "1x60"}, 30),
    Case("no API is scraped", FAILS, {}, 6, [None]),
    Case("another release fails", FAILS, {**WELL, **OTHERS}, 30),
    Case(
        "the oldest job of one queue is due for too long",
        WAIT,
        {waits("a"): "0x60", waits("a", "mail"): "0+60x60", waits("b", "mail"): "0+60x60"},
        9,
        ["mail"],
    ),
    Case("it waits so long for a moment", WAIT, {waits("a"): "0x9 200x3 0x40"}, 12),
    Case("all begin within two minutes", WAIT, {waits("a"): "110x60"}, 30),
    Case(
        "what one dispatcher that is gone said last doesn't count",
        WAIT,
        {waits("a"): "500x3 stale", waits("b"): "0x60"},
        12,
    ),
    Case("another release's jobs wait", WAIT, {waits("a"): "0x60", **OTHERS}, 30),
    Case("a job is discarded", DISCARDED, {dead("a"): "0x30 1x30"}, 35, ["default"]),
    Case(
        "dispatchers see it one after the other",
        DISCARDED,
        {dead("a"): "7x30 8x30", dead("b"): "7x31 8x29"},
        31,
        ["default"],
    ),
    Case("it was discarded half an hour ago", DISCARDED, {dead("a"): "0x10 1x50"}, 40),
    Case("dead letters are redriven", DISCARDED, {dead("a"): "9x30 0x30", dead("b"): "9x60"}, 32),
    Case(
        "they are redriven and die again",
        DISCARDED,
        {dead("a"): "9x30 0x3 9x27"},
        36,
        ["default"],
    ),
    Case(
        "a new dispatcher begins with those of before",
        DISCARDED,
        {dead("a"): "9x20 stale", dead("b"): "_x21 9x39"},
        25,
    ),
    Case(
        "10,000 of several queues are counted, whichever",
        DISCARDED,
        {dead("a"): "6000x30 7000x30", dead("a", "mail"): "4000x30 3000x30"},
        32,
    ),
    Case("a worker's first one", DISCARDED, {discarded("w"): "_x30 1x30"}, 31, ["default"]),
    Case("a worker's first one is long ago", DISCARDED, {discarded("w"): "_x9 1x51"}, 31),
    Case("a worker's next one", DISCARDED, {discarded("w"): "5x30 6x30"}, 32, ["default"]),
    Case("a worker starts anew", DISCARDED, {discarded("w"): "5x30 0x30"}, 32),
    Case(
        "a worker starts anew and discards",
        DISCARDED,
        {discarded("w"): "5x30 0x1 1x29"},
        33,
        ["default"],
    ),
    Case(
        "poison beyond what is counted, in whichever queue",
        DISCARDED,
        {dead("a"): "10000x60", of("jangada_job_poisoned_total", "a"): "0x30 1x30"},
        32,
        [None],
    ),
    Case(
        "poison in a queue that is known",
        DISCARDED,
        {dead("a"): "0x30 1x30", of("jangada_job_poisoned_total", "a"): "0x30 1x30"},
        32,
        ["default"],
    ),
    Case("another release's jobs are discarded", DISCARDED, {dead("a"): "0x60", **OTHERS}, 30),
    Case("nothing is scraped", NONE, {}, 4, [None]),
    Case("one dispatcher of two goes", NONE, {looks("a"): "0x5 stale", looks("b"): "0x60"}, 20),
    Case("both go", NONE, {looks("a"): "0x5 stale", looks("b"): "0x9 stale"}, 13, [None]),
    Case("both go, for a minute", NONE, {looks("a"): "0x5 stale", looks("b"): "_x8 0x50"}, 7),
    Case("another release's work", NONE, {looks("z", "other"): "0x60"}, 20, [None]),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}-{case.what}")
def test_an_alert_fires_when_it_is_meant_to(case: Case, folder: Path) -> None:
    expected = [
        {
            "alertname": case.alert,
            "alertstate": "firing",
            "severity": SEVERITY[case.alert],
            "namespace": "team",
            "release": "shop",
            **({} if queue is None else {"queue": queue}),
        }
        for queue in case.fires
    ]
    question = {
        "expr": f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}',
        "eval_time": f"{case.minute}m",
        "exp_samples": [{"labels": series("ALERTS", each), "value": 1} for each in expected],
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": each, "values": case.series[each]} for each in case.series],
        "promql_expr_test": [question],
    }
    asked = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    run("test", "rules", "test.yaml", folder=folder)


def series(metric: str, labels: Mapping[str, str]) -> str:
    return metric + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def test_every_alert_is_a_rule_that_prometheus_takes(folder: Path) -> None:
    run("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml", folder=folder)


def test_every_alert_has_cases_and_says_what_a_client_notices() -> None:
    (group,) = rule()["spec"]["groups"]
    assert {each["alert"]: each["labels"]["severity"] for each in group["rules"]} == SEVERITY
    for alert in SEVERITY:
        assert {bool(case.fires) for case in CASES if case.alert == alert} == {True, False}
    for each in group["rules"]:
        said = each["annotations"]
        assert set(said) == {"summary", "description", "runbook_url"}
        assert re.search("[Cc]lients|Jobs are accepted", said["description"]), each["alert"]


def test_every_alert_has_a_runbook() -> None:
    (group,) = rule()["spec"]["groups"]
    for each in group["rules"]:
        url = each["annotations"]["runbook_url"]
        name = url.removeprefix("https://github.com/jangada/jangada/blob/main/")
        assert (ROOT / name).is_file(), url


def test_the_runbooks_may_be_elsewhere() -> None:
    if (found := tools.find(tools.CHART)) is None:
        pytest.skip("helm isn't built: `make tools ARGS=chart` does it")
    place = "https://wiki.example/jangada/"
    given = ["--values", str(values("production")), f"--set=monitoring.runbookUrl={place}"]
    text = template(found / "helm", *given)
    assert f"runbook_url: {place}no-dispatcher.md" in text
