"""Monitoring holds together: alerts, their tests, runbooks, dashboards and metrics name only what exists."""

import importlib
import json
import re
import subprocess
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args
from unittest.mock import patch

import asyncpg
import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from deploy.prometheus.tool import ToolMissingError, find
from services.classification.model.classifier import Classifier
from shared.bulkhead import Bulkhead
from shared.events.event import Reason
from shared.health import Health, health_routes
from shared.metrics import Metrics
from shared.settings import Settings
from shared.stream.service import Resources
from shared.topics import SERVICES as EVERY_SERVICE
from shared.topics import TOPICS

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the library's, of its own classes, when it is imported
    from deploy.grafana import generate, services

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOKS = {path.stem: path.read_text() for path in (ROOT / "deploy" / "runbooks").glob("*.md")}
INTRODUCTION = RUNBOOKS.pop("README")
SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))
CONTAINERS: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
ALERT_TESTS: list[dict[str, Any]] = [
    case
    for test in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    for case in test["alert_rule_test"]
]
DASHBOARDS: dict[str, dict[str, Any]] = {
    board["title"]: board for board in map(json.loads, (p.read_text() for p in generate.DASHBOARDS.glob("*.json")))
}

# What the public contract promises, with labels: names that others' dashboards and alerts rely on.
PROMISED: dict[str, set[str]] = {
    "inmail_events_total": {"service", "topic", "type", "result"},
    "inmail_processing_seconds": set(),
    "inmail_end_to_end_seconds": set(),
    "inmail_event_age_seconds": set(),
    "inmail_lag_records": {"topic", "partition"},
    "inmail_lag_seconds": set(),
    "inmail_batch_records": set(),
    "inmail_rebalances_total": set(),
    "inmail_fence_rejections_total": set(),
    "inmail_duplicates_total": set(),
    "inmail_parked_records": set(),
    "inmail_outbox_records": set(),
    "inmail_outbox_age_seconds": set(),
    "inmail_dead_letters_total": {"topic", "reason"},
    "inmail_pool_connections": {"state"},
    "inmail_progress_timestamp_seconds": set(),
}
PROMISED_BY_CREDITS = "inmail_ledger_imbalance_credits"
WATCHED = {
    "lag": "inmail_lag_seconds",
    "outbox age": "inmail_outbox_age_seconds",
    "dead letters": "inmail_dead_letters_total",
    "ledger imbalance": PROMISED_BY_CREDITS,
    "no progress": "inmail_progress_timestamp_seconds",
    "target down": "up",
}
# Prometheus adds these to what it scrapes, and makes these series itself.
TARGET_LABELS = {"job", "instance", "service"}
OF_PROMETHEUS = {"up": set[str](), "ALERTS": {"alertname", "alertstate"}}

each_alert = pytest.mark.parametrize("name", ALERTS)
each_runbook = pytest.mark.parametrize("name", RUNBOOKS)
each_service = pytest.mark.parametrize("service", SERVICES)


# Metrics


@cache
def exposed_by(service: str) -> dict[str, set[str]]:
    """The series that a service exposes, each with the names of its labels."""
    metrics = Metrics(service)
    spec = importlib.import_module(f"services.{service}.service").SPEC
    with patch.object(Classifier, "load"):  # it takes seconds, and brings no metric
        spec.handler(Resources(service, Settings(), metrics, cast("asyncpg.Pool", None), Bulkhead(Settings())))
    found: dict[str, set[str]] = {}
    for collector in metrics.registry._collector_to_names:
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            if family.type == "histogram":
                found |= {f"{family.name}_{part}": labels for part in ("count", "sum")}
                found |= {f"{family.name}_bucket": labels | {"le"}, family.name: labels}
            else:
                found[f"{family.name}_total" if family.type == "counter" else family.name] = labels
    return found


@cache
def known() -> dict[str, set[str]]:
    """Every series there is, with every label that it can have once it is scraped."""
    found: dict[str, set[str]] = {name: set(labels) for name, labels in OF_PROMETHEUS.items()}
    for service in SERVICES:
        found |= exposed_by(service)
    return {name: labels | TARGET_LABELS for name, labels in found.items()}


@each_service
def test_every_service_exposes_every_promised_metric_with_its_labels(service: str) -> None:
    exposed = exposed_by(service)
    assert {name: exposed.get(name) for name in PROMISED} == PROMISED
    assert (PROMISED_BY_CREDITS in exposed) == (service == "credits")


@each_service
def test_no_metric_has_a_label_that_could_hold_an_id(service: str) -> None:
    allowed = {"service", "topic", "type", "result", "partition", "reason", "state", "kind", "le"}
    assert set().union(*exposed_by(service).values()) - allowed == set()


async def test_metrics_are_served_in_the_format_that_prometheus_reads() -> None:
    app = Starlette(routes=health_routes(Health(1), Metrics("credits")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/metrics")
    served = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {name.removesuffix("_total") for name in PROMISED} - served == set()


# Queries


@dataclass(frozen=True)
class Selector:
    """A metric in a query, and the label matchers that stand in its braces."""

    metric: str
    matchers: tuple[tuple[str, str], ...]


_WORDS = {"or", "and", "unless", "offset", "by", "without", "on", "ignoring", "bool", "group_left", "group_right"}
_STRING = r'"(?:[^"\\]|\\.)*"'
_MATCHER = re.compile(rf"(\w+)\s*(?:=~|!~|!=|=)\s*({_STRING})")
_SELECTOR = re.compile(rf"(?<![\w$])([a-zA-Z_:][\w:]*)\b(?!\s*\()(?:\{{((?:{_STRING}|[^}}\"])*)\}})?")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def selectors(expr: str) -> list[Selector]:
    return [
        Selector(metric, tuple((label, value.strip('"')) for label, value in _MATCHER.findall(matchers)))
        for metric, matchers in _SELECTOR.findall(_GROUPING.sub(" ", expr))
        if metric not in _WORDS
    ]


def queries() -> Iterator[tuple[str, str]]:
    """Every query of alerts and dashboards, with where it stands."""
    for name, rule in ALERTS.items():
        yield name, rule["expr"]
    for title, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield f"{title}: {panel['title']}", target["expr"]
        for annotation in board["annotations"]["list"]:
            yield f"{title}: {annotation['name']}", annotation["expr"]
        for variable in board.get("templating", {}).get("list", ()):
            metric, label = re.findall(r"\w+", variable["query"].removeprefix("label_values"))
            yield f"{title}: ${variable['name']}", f"sum by ({label}) ({metric})"


def test_queries_are_taken_apart() -> None:
    expr = 'sum by (a, b) (rate(x_total{c="}",d!~"$e|f"}[$__rate_interval])) / on (a) y > 3 or z offset 15m unless "w"'
    assert selectors(expr.replace('unless "w"', "")) == [
        Selector("x_total", (("c", "}"), ("d", "$e|f"))),
        Selector("y", ()),
        Selector("z", ()),
    ]


def test_queries_name_metrics_and_labels_that_exist() -> None:
    faults = []
    for place, expr in queries():
        found = selectors(expr)
        assert found, place
        unknown = {s.metric for s in found} - known().keys()
        for s in found:
            unknown |= {label for label, _ in s.matchers} - known().get(s.metric, set())
        grouped = {label for labels in _GROUPING.findall(expr) for label in re.findall(r"\w+", labels)}
        unknown |= grouped - set().union(*(known().get(s.metric, set()) for s in found))
        faults += [(place, name) for name in unknown]
    assert faults == []


def test_queries_ask_for_services_topics_types_and_reasons_that_exist() -> None:
    faults = []
    for place, expr in queries():
        for given in (dict(s.matchers) for s in selectors(expr)):
            topic = given.get("topic")
            if not (
                given.get("service", "$service") in {"$service", *EVERY_SERVICE}
                and given.get("reason", "ORPHANED") in get_args(Reason)
                and (topic is None or given["type"] in TOPICS[topic].types)
            ):
                faults.append((place, given))
    assert faults == []


def test_every_metric_of_ours_is_looked_at_somewhere() -> None:
    def whole(names: Iterable[str]) -> set[str]:
        return {re.sub("_(bucket|count|sum)$", "", name) for name in names if name.startswith("inmail_")}

    asked = whole(selector.metric for _, expr in queries() for selector in selectors(expr))
    assert whole(known()) - asked == set()


# Alerts


@pytest.mark.parametrize(("what", "metric"), WATCHED.items())
def test_there_is_an_alert_for(what: str, metric: str) -> None:
    assert [name for name, rule in ALERTS.items() if metric in {s.metric for s in selectors(rule["expr"])}]


@each_alert
def test_an_alert_says_how_urgent_it_is_and_what_it_means(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    grouped = set(re.findall(r"\w+", " ".join(_GROUPING.findall(rule["expr"])))) or TARGET_LABELS
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= grouped


@each_alert
def test_an_alert_is_tested_where_it_fires_and_where_it_keeps_silent(name: str) -> None:
    fires = {bool(case.get("exp_alerts")) for case in ALERT_TESTS if case["alertname"] == name}
    # A target that is down needs no case of silence of its own: the one that fires holds other targets that do not.
    assert fires == ({True} if name == "InmailTargetDown" else {True, False})


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("InmailLag", services._LAG_SECONDS_MAX),
        ("InmailNoProgress", services._STILL_SECONDS_MAX),
        ("InmailOutboxStuck", services._OUTBOX_SECONDS_MAX),
        ("InmailFenceRejections", services._REJECTIONS_MAX),
        ("InmailRestarting", services._STARTS_MAX),
    ],
)
def test_the_dashed_lines_stand_where_the_alerts_do(name: str, limit: float) -> None:
    assert float(re.split(r">=?", ALERTS[name]["expr"])[-1]) == limit


# Dashboards


def test_dashboards_are_what_the_code_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_dashboard_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([], tmp_path) == 0
    changed, removed, *_ = sorted(tmp_path.glob("*.json"))
    changed.write_text(changed.read_text().replace("InMail", "Inmail"))
    removed.rename(tmp_path / "another.json")
    assert generate.main(["--check"], tmp_path) == 1
    said = capsys.readouterr().err
    assert [name for name in (changed.name, removed.name, "another.json") if name not in said] == []


# Runbooks


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert RUNBOOKS.keys() == ALERTS.keys()
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"deploy/runbooks/{name}.md"


@each_runbook
def test_a_runbook_says_how_to_confirm_what_to_do_and_when_to_escalate(name: str) -> None:
    text = RUNBOOKS[name]
    assert text.startswith(f"# {name}\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert [h for h in headings if h != "What to do"] == ["Confirm", "Causes, the likeliest first", "Escalate"]
    metrics = {selector.metric for selector in selectors(ALERTS[name]["expr"])}
    assert [metric for metric in metrics if f"`{metric}`" in text]


@each_runbook
def test_a_runbook_names_metrics_alerts_reasons_and_settings_that_exist(name: str) -> None:
    text = RUNBOOKS[name]
    assert set(re.findall(r"\b(?:inmail|process)_\w+", text)) - known().keys() == set()
    assert set(re.findall(r"\bInmail[A-Z]\w+", text)) - ALERTS.keys() == set()
    settings = {f"INMAIL_{field.upper()}" for field in Settings.model_fields}
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", text)) - settings - set(get_args(Reason)) == set()


@each_runbook
def test_a_runbook_names_dashboards_and_panels_that_exist(name: str) -> None:
    panels = {panel["title"] for board in DASHBOARDS.values() for panel in board["panels"]}
    named = re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", re.sub(r"```.*?```", "", RUNBOOKS[name], flags=re.DOTALL))
    assert DASHBOARDS.keys() & set(named)
    assert set(named) - panels - DASHBOARDS.keys() == set()


@pytest.mark.parametrize("text", [INTRODUCTION, *RUNBOOKS.values()], ids=["README", *RUNBOOKS])
def test_containers_and_modules_in_runbooks_exist(text: str) -> None:
    """The commands of `inmail` in all documents are looked at by test_documents.py."""
    named = re.findall(r"docker compose ([a-z]+)((?: --?[\w=-]+(?: \d+[mh])?)*)(?: ([a-z]+))?", text)
    assert {container for _, _, container in named if container} - CONTAINERS.keys() == set()
    assert {verb for verb, _, _ in named} <= {"up", "ps", "logs", "exec", "run", "restart", "start", "stop"}
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module), module


async def test_the_questions_to_the_database_are_understood(database: str) -> None:
    blocks = [sql for text in RUNBOOKS.values() for sql in re.findall(r"```sql\n(.*?)```", text, re.DOTALL)]
    assert blocks
    connection = await asyncpg.connect(database)
    try:
        for sql in blocks:
            await connection.fetch(sql)
    finally:
        await connection.close()


# Prometheus' own judgement


@pytest.fixture(scope="module")
def promtool() -> Path:
    try:
        return find("promtool")
    except ToolMissingError as error:
        pytest.skip(f"promtool is not to be had: {error}")


def run(promtool: Path, *arguments: str) -> None:
    done = subprocess.run(  # noqa: S603  fixed arguments
        [promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_finds_nothing(promtool: Path, arguments: tuple[str, ...]) -> None:
    run(promtool, *arguments)


def test_queries_of_dashboards_are_promql(promtool: Path, tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": re.sub(r"\$__\w+", "5m", expr)}
        for number, (_, expr) in enumerate(queries())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    run(promtool, "check", "rules", str(path))
