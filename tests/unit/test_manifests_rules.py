"""Alert rules and dashboards: they ask for metrics that exist, and fire when they should."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.config.load import load
from orchestrator.controller import metrics as controller
from orchestrator.gateway import metrics as gateway
from orchestrator.manifests.alerts import bucket, groups
from orchestrator.manifests.dashboards import dashboards

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "clusters" / "kubernetes"
CONFIGURATION = load(CONFIG).configuration
GROUPS = groups(CONFIGURATION)
RULES = [rule for group in GROUPS for rule in group["rules"]]
METRICS = {m.name: m for m in (*gateway.CATALOGUE, *controller.CATALOGUE)}
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool; it comes with the package 'prometheus'"
)


def expressions() -> Iterable[str]:
    yield from (rule["expr"] for rule in RULES)
    for dashboard in dashboards().values():
        for panel in dashboard["panels"]:
            yield from (target["expr"] for target in panel["targets"])


def promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_metric_that_is_asked_for_exists_and_has_the_labels() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for expr in expressions():
        bare = re.sub(r'"[^"]*"', '""', expr)
        for name in re.findall(r"[a-z_:]*(?:orchestrator|gen_ai)[a-z0-9_:]*", bare):
            if ":" in name:
                assert name in recorded, expr
                continue
            metric = METRICS.get(name) or METRICS.get(re.sub(r"_(bucket|count|sum)$", "", name))
            assert metric is not None, f"{name}: {expr}"
            assert (metric.kind == "histogram") == (metric.name != name), expr
        for name, matchers in re.findall(r"((?:orchestrator|gen_ai)[a-z0-9_]*)\{([^}]*)\}", bare):
            metric = METRICS.get(name) or METRICS[re.sub(r"_(bucket|count|sum)$", "", name)]
            for label in re.findall(r"([a-z_]+)[=!]", matchers):
                assert label in (*metric.labels, "le"), expr
        for by in re.findall(r"by \(([^)]*)\)", bare):
            known = {label for m in METRICS.values() for label in m.labels} | {"le"}
            assert set(re.split(", *", by)) <= known, expr


def test_every_metric_of_ours_is_on_a_dashboard_or_in_a_rule() -> None:
    asked = "\n".join(expressions())
    left_out = {name for name in METRICS if name not in asked}
    assert left_out == {
        "orchestrator_refused_connections_total",
        "gen_ai_client_token_usage",
        "orchestrator_batch_lines_open",
        "orchestrator_open_requests",
        "orchestrator_published_snapshot_version",
    }


def test_an_objective_between_two_bounds_counts_no_answer_as_late_that_is_not() -> None:
    assert bucket(gateway.FIRST_TOKEN, 1) == 1
    assert bucket(gateway.FIRST_TOKEN, 2) == 2.5
    assert bucket(gateway.FIRST_TOKEN, 61) is None


def test_rules_are_printed_as_they_are_shipped() -> None:
    printed = CliRunner().invoke(app, ["manifests", "rules", "--config", str(CONFIG)])
    assert yaml.safe_load(printed.stdout) == {"groups": GROUPS}


def test_dashboards_are_written_for_grafana(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["manifests", "dashboards", "--out", str(tmp_path)])
    assert done.exit_code == 0
    written = {file.name: json.loads(file.read_text()) for file in tmp_path.iterdir()}
    assert written == dashboards()
    for dashboard in written.values():
        places = [tuple(p["gridPos"].values()) for p in dashboard["panels"]]
        assert len(set(places)) == len(places)


@needs_promtool
def test_rules_and_dashboards_are_promql(tmp_path: Path) -> None:
    asked = [expr.replace("$__rate_interval", "5m") for expr in expressions()]
    drawn = [{"record": f"drawn:{n}", "expr": expr} for n, expr in enumerate(asked)]
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [*GROUPS, {"name": "drawn", "rules": drawn}]}))
    assert f"{len(RULES) + len(drawn)} rules found" in promtool("check", "rules", str(rules))


Series = dict[str, str]
Case = tuple[str, Series, str, list[dict[str, str]]]


def requests(good: str, bad: str) -> Series:
    name = 'orchestrator_requests_total{workload="assistant",gateway="g",code=%s}'
    return {name % '"200"': good, name % '"503"': bad}


def latency(what: str, bound: str, within: str, every: str) -> Series:
    name = f'gen_ai_server_{what}_seconds_%s{{workload="assistant",gateway="g"%s}}'
    return {name % ("bucket", f',le="{bound}"'): within, name % ("count", ""): every}


def ttft(within: str, every: str) -> Series:
    return latency("time_to_first_token", "1.0", within, every)


def everywhere(**labels: str) -> list[dict[str, str]]:
    """Alerts of all windows."""
    pages = [{**labels, **PAGE, "window": window} for window in ("1h", "6h")]
    return pages + [{**labels, **TICKET, "window": window} for window in ("1d", "3d")]


def fires(**labels: str) -> list[dict[str, str]]:
    return [labels]


BURSTS = 'orchestrator_burst_transitions_total{workload="assistant",phase="bursting"}'
PAGE, TICKET = {"severity": "page"}, {"severity": "ticket"}
ASSISTANT = {"workload": "assistant"}
CHAT = {"pool": "onprem-h100", "variant": "chat-8b-fp8"}
CASES: list[Case] = [
    # 2 % of the answers fail, the objective is 0.1 %: twenty times what the budget allows.
    (
        "AvailabilityBurn",
        requests("0+98x50", "0+2x50"),
        "40m",
        everywhere(**ASSISTANT),
    ),
    # 0.2 %: no page, a ticket.
    (
        "AvailabilityBurn",
        requests("0+998x50", "0+2x50"),
        "40m",
        [{**ASSISTANT, **TICKET, "window": "3d"}],
    ),
    ("AvailabilityBurn", requests("0+1000x50", "0x50"), "40m", []),
    # It was bad for an hour and is over: the short window says so.
    (
        "AvailabilityBurn",
        requests("0+50x60 3000+100x300", "0+50x60 3000+0x300"),
        "1h20m",
        [
            {**ASSISTANT, **PAGE, "window": "6h"},
            {**ASSISTANT, **TICKET, "window": "1d"},
            {**ASSISTANT, **TICKET, "window": "3d"},
        ],
    ),
    (
        "TtftBurn",
        ttft("0+20x50", "0+100x50"),
        "40m",
        everywhere(objective_s="1", **ASSISTANT),
    ),
    ("TtftBurn", ttft("0+96x50", "0+100x50"), "40m", []),
    (
        "ItlBurn",
        latency("time_per_output_token", "0.1", "0+20x50", "0+100x50"),
        "40m",
        everywhere(objective_s="0.1", **ASSISTANT),
    ),
    ("GatewayDown", {}, "2m", fires(**PAGE)),
    ("GatewayDown", {'orchestrator_snapshot_version{gateway="g"}': "1x10"}, "2m", []),
    (
        "SnapshotOld",
        {'orchestrator_snapshot_age_seconds{gateway="g"}': "0+20x10"},
        "5m",
        fires(**PAGE),
    ),
    ("SnapshotOld", {'orchestrator_snapshot_age_seconds{gateway="g"}': "1x10"}, "5m", []),
    (
        "AuditRecordsLost",
        {'orchestrator_records_lost{gateway="g",record="audit"}': "1x10"},
        "1m",
        fires(**PAGE),
    ),
    ("AuditRecordsLost", {'orchestrator_records_lost{record="usage"}': "1x10"}, "1m", []),
    (
        "RecordsLost",
        {'orchestrator_records_lost{gateway="g",record="usage"}': "1x10"},
        "1m",
        fires(record="usage", **TICKET),
    ),
    (
        "EndpointEjected",
        {'orchestrator_ejected_endpoints{pool="onprem-h100",variant="chat-8b-fp8"}': "1x20"},
        "15m",
        fires(**CHAT, **TICKET),
    ),
    (
        "ClassifierFails",
        {'orchestrator_content_findings_total{finding="timeout"}': "0+5x20"},
        "15m",
        fires(**TICKET),
    ),
    ("ControllerDown", {'orchestrator_leader{pod="a"}': "0x10"}, "3m", fires(**PAGE)),
    ("ControllerDown", {'orchestrator_leader{pod="a"}': "1x10"}, "3m", []),
    (
        "TwoLeaders",
        {'orchestrator_leader{pod="a"}': "1x10", 'orchestrator_leader{pod="b"}': "1x10"},
        "3m",
        fires(**PAGE),
    ),
    ("TicksStopped", {"orchestrator_last_tick_timestamp_seconds": "0x10"}, "5m", fires(**PAGE)),
    ("TicksStopped", {"orchestrator_last_tick_timestamp_seconds": "0+60x10"}, "5m", []),
    (
        "TicksSlow",
        {
            'orchestrator_tick_duration_seconds_bucket{le="1.0"}': "0x40",
            'orchestrator_tick_duration_seconds_bucket{le="2.5"}': "0+30x40",
            'orchestrator_tick_duration_seconds_bucket{le="+Inf"}': "0+30x40",
        },
        "30m",
        fires(**TICKET),
    ),
    (
        "AuditNotAnchored",
        {"orchestrator_audit_anchored_timestamp_seconds": "60x40"},
        "20m",
        fires(**PAGE),
    ),
    ("AuditNotAnchored", {"orchestrator_audit_anchored_timestamp_seconds": "0x40"}, "20m", []),
    (
        "PriceStale",
        {
            'orchestrator_quote_usable{pool="cloud-h100-spot"}': "0x20",
            'orchestrator_quote_usable{pool="onprem-h100"}': "1x20",
        },
        "10m",
        fires(pool="cloud-h100-spot", **TICKET),
    ),
    (
        "BudgetNearlySpent",
        {
            'orchestrator_budget_left_usd{workload="assistant"}': "20x10",
            'orchestrator_budget_usd_per_day{workload="assistant"}': "400x10",
        },
        "1m",
        fires(**ASSISTANT, **TICKET),
    ),
    (
        "BudgetSpent",
        {'orchestrator_budget_left_usd{workload="assistant"}': "-1x10"},
        "1m",
        fires(**ASSISTANT, **TICKET),
    ),
    (
        "BurstFlaps",
        {BURSTS: "0+1x10 10x100"},
        "30m",
        fires(**ASSISTANT, **TICKET),
    ),
    (
        "BurstFlaps",
        {BURSTS: "0x10 2x100"},
        "30m",
        [],
    ),
    (
        "DrainLong",
        {'orchestrator_burst_phase{workload="assistant",phase="draining"}': "1x30"},
        "15m",
        fires(phase="draining", **ASSISTANT, **TICKET),
    ),
    (
        "ReplicasMissing",
        {
            'orchestrator_replicas_ready{pool="onprem-h100",variant="chat-8b-fp8"}': "1x40",
            'orchestrator_replicas_target{pool="onprem-h100",variant="chat-8b-fp8"}': "2x40",
        },
        "20m",
        fires(**CHAT, **TICKET),
    ),
    (
        "Zombies",
        {'orchestrator_zombies{kind="idle"}': "1x30", 'orchestrator_zombies{kind="ghost"}': "0x30"},
        "15m",
        fires(kind="idle", **TICKET),
    ),
]


@needs_promtool
def test_alerts_fire_for_what_they_are_about_and_for_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": GROUPS}))
    texts = {
        (rule["alert"], rule["labels"].get("window"), rule["labels"]["severity"]): rule[
            "annotations"
        ]
        for rule in RULES
        if "alert" in rule
    }

    def annotations(name: str, labels: dict[str, str]) -> dict[str, str]:
        found = texts[name, labels.get("window"), labels["severity"]]
        return {
            key: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda m: labels.get(m[1], ""), text)
            for key, text in found.items()
        }

    tests: list[dict[str, Any]] = [
        {
            "name": f"{number}: {name}",
            "interval": "1m",
            "input_series": [{"series": s, "values": v} for s, v in series.items()],
            "alert_rule_test": [
                {
                    "eval_time": at,
                    "alertname": f"Orchestrator{name}",
                    "exp_alerts": [
                        {
                            "exp_labels": labels,
                            "exp_annotations": annotations(f"Orchestrator{name}", labels),
                        }
                        for labels in expected
                    ],
                }
            ],
        }
        for number, (name, series, at, expected) in enumerate(CASES)
    ]
    cases = tmp_path / "cases.yaml"
    cases.write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )
    promtool("test", "rules", str(cases))


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    alerts = {rule["alert"].removeprefix("Orchestrator") for rule in RULES if "alert" in rule}
    assert alerts == {name for name, _, _, expected in CASES if expected}
