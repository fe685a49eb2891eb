"""A simulation's report adds up, and its page shows it without trusting a name."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate import summary
from orchestrator.simulate.baselines import BASELINES
from orchestrator.simulate.page import page
from orchestrator.simulate.policies import CapacityPolicy, Planner
from orchestrator.simulate.prices import Prices, Series
from orchestrator.simulate.report import Simulated, cloud_pools, policies_of, report_of
from orchestrator.simulate.run import Arrivals, Setting, simulate
from orchestrator.simulate.tables import ITL, TTFT, quantile_s
from orchestrator.simulate.tally import MOST_WINDOWS
from tests.worlds import timed

EPOCH_S = 1_700_000_000.0
WORLD = timed()
ABOUT = {"trace": "t.csv", "start": "2026-01-05", "seed": 0}
MAKES: dict[str, Callable[[Catalogue], CapacityPolicy]] = {"planner": Planner, **BASELINES}


def ran(
    policy: str = "planner", requests: int = 400, over_s: float = 200, usd: float = 2.0
) -> Simulated:
    """Many of the assistant and a few records."""
    blocks = [
        Arrivals(
            np.linspace(0, over_s, requests),
            np.full(requests, 500.0),
            np.full(requests, 150.0),
            np.array([number % 4 == 0 for number in range(requests)], np.int64),
        )
    ]
    prices = Prices(WORLD.configuration, {"cloud-gpu": Series([0.0], [usd])}, EPOCH_S)
    tally = simulate(Setting(WORLD, prices, EPOCH_S), blocks, MAKES[policy](WORLD))
    return Simulated(policy, tally, 0.5)


BURST = ran()
REPORT = report_of([BURST], ABOUT)


def test_pools_to_which_somebody_bursts_are_cloud() -> None:
    assert cloud_pools(WORLD) == {"cloud-gpu"}
    assert {n: of["side"] for n, of in REPORT["by_pool"].items()} == {
        "home-gpu": "onprem",
        "cloud-gpu": "cloud",
    }


def test_cost_adds_up_by_side_pool_and_hour() -> None:
    cost = REPORT["cost_usd"]
    pools = REPORT["by_pool"]
    assert cost["cloud"] > 0
    assert cost["cloud"] == pytest.approx(pools["cloud-gpu"]["usd"])
    assert cost["onprem"] == pytest.approx(pools["home-gpu"]["usd"])
    assert cost["total"] == pytest.approx(sum(of["usd"] for of in pools.values()))
    by_hour = sum(sum(hour.values()) for hour in REPORT["usd_by_hour"])
    assert cost["total"] == pytest.approx(by_hour)


def test_the_home_pool_is_paid_from_beginning_to_end() -> None:
    home = REPORT["by_pool"]["home-gpu"]
    assert home["gpu_hours"] == pytest.approx(REPORT["duration_s"] / 3600)
    assert home["usd"] == pytest.approx(0.5 * home["gpu_hours"])


def test_every_request_is_counted_once_by_workload() -> None:
    workloads = REPORT["by_workload"].values()
    assert REPORT["requests"] == 400 == sum(of["arrived"] for of in workloads)
    assert REPORT["shed"] == sum(of["shed"] for of in workloads)
    assert all(of["arrived"] == of["served"] + of["shed"] for of in workloads)
    within = sum(of["slo_attainment"] * of["arrived"] for of in workloads)
    assert REPORT["slo_attainment"] == pytest.approx(within / 400)


def test_shares_by_zone_give_the_share_of_the_cloud() -> None:
    workloads = REPORT["by_workload"]
    assert workloads["records"]["share_by_zone"] == {"onprem": 1.0}
    assistant = workloads["assistant"]["share_by_zone"]
    assert sum(assistant.values()) == pytest.approx(1)
    sent = {name: sum(of.by_zone.values()) for name, of in BURST.tally.workloads.items()}
    cloud = assistant["cloud"] * sent["assistant"] / sum(sent.values())
    assert REPORT["cloud_fraction"] == pytest.approx(cloud)


def test_bursts_and_reversals_are_counted() -> None:
    assert REPORT["bursts"] >= 1
    hours = REPORT["duration_s"] / 3600
    assert REPORT["reversals_per_hour"] == pytest.approx(BURST.tally.reversals / hours)
    assert REPORT["residency_violations"] == 0


@pytest.mark.parametrize("policy", MAKES)
def test_a_pool_is_idle_for_no_longer_than_it_is_paid(policy: str) -> None:
    report = report_of([ran(policy)], ABOUT)
    for of in report["by_pool"].values():
        assert 0 <= of["idle_gpu_hours"] <= of["gpu_hours"] + 1e-9
        assert of["unpriced_gpu_hours"] == 0
    assert not summary.warnings([report])


def test_without_requests_everything_paid_is_idle_and_every_objective_held() -> None:
    report = report_of([ran(requests=0)], ABOUT)
    assert report["slo_attainment"] == 1
    assert report["cloud_fraction"] == 0
    assert report["idle_gpu_hours"] == pytest.approx(report["gpu_hours"])
    assert ET.fromstring(page([ran(requests=0)], report).partition("\n")[2]) is not None


def test_replicas_without_a_price_are_told() -> None:
    report = report_of([ran("failover", usd=float("nan"))], ABOUT)
    cloud = report["by_pool"]["cloud-gpu"]
    assert (cloud["usd"], cloud["gpu_hours"]) == (0, 0)
    assert cloud["unpriced_gpu_hours"] == pytest.approx(report["duration_s"] / 3600)
    (warning,) = summary.warnings([report])
    assert "--prices" in warning
    assert "no price by the hour" in page([ran("failover", usd=float("nan"))], report)


def test_several_policies_are_reported_in_their_order() -> None:
    report = report_of([BURST, ran("static")], ABOUT)
    assert [of["policy"] for of in policies_of(report)] == ["planner", "static"]
    assert policies_of(report)[0] == REPORT
    assert policies_of(REPORT) == [REPORT]


@pytest.mark.parametrize("over_s", [200, 3 * MOST_WINDOWS])
def test_windows_of_latency_hold_every_answer(over_s: float) -> None:
    tally = ran(over_s=over_s).tally
    for of in (TTFT, ITL):
        for workload in range(2):
            curve = tally.p95_s(of, workload)
            times_s = [now_s for now_s, _ in curve]
            assert len(curve) <= MOST_WINDOWS
            assert times_s == sorted(set(times_s))
            assert times_s[-1] <= tally.duration_s
            whole = quantile_s(tally.model.state.latency[of, workload], 0.95)
            assert whole is not None
            assert max(value_s for _, value_s in curve) >= whole


@pytest.mark.parametrize("policies", [["planner"], ["planner", "static", "keda-queue"]])
def test_the_page_is_whole_and_needs_nothing_from_elsewhere(policies: list[str]) -> None:
    runs = [ran(policy) for policy in policies]
    text = page(runs, report_of(runs, ABOUT))
    root = ET.fromstring(text.partition("\n")[2])
    assert root.tag == "html"
    assert len(root.findall(".//{http://www.w3.org/2000/svg}svg")) == 1
    assert "<script" not in text
    # Names of namespaces are addresses that nobody asks.
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.search(r'https?://|(?:src|href)="(?!#)|url\((?!#)', outside)
    for word in ("t.csv", "v1", "seed 0", *policies, "assistant", "records", "home-gpu"):
        assert word in text


def test_what_comes_from_outside_is_escaped() -> None:
    about = ABOUT | {"trace": "<script>alert('&')</script>.csv"}
    text = page([BURST], report_of([BURST], about))
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;.csv" in text
    nasty: dict[str, Any] = report_of([BURST], ABOUT)
    nasty["by_workload"]["<b>&"] = nasty["by_workload"]["records"]
    assert "<td>&lt;b&gt;&amp;</td>" in page([BURST], nasty)


def test_the_same_run_gives_the_same_page() -> None:
    assert page([ran()], REPORT) == page([BURST], REPORT)
