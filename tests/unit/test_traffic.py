"""What the gateways report, gathered: who may still be sending, and on which snapshot."""

from orchestrator.capacity.load import Load
from orchestrator.controller.traffic import GONE_AFTER_S, NOBODY, Traffic
from orchestrator.signals.report import EndpointReport, GatewayReport, QueueReport, WorkloadReport

STALE_S = 120


def report(gateway: str, version: int, leaving: bool = False) -> GatewayReport:
    return GatewayReport(
        config_version="v1",
        gateway_id=gateway,
        snapshot_version=version,
        endpoints={"p/v": EndpointReport(inflight=2)},
        leaving=leaving,
    )


def test_the_slowest_gateway_decides_which_snapshot_all_have() -> None:
    traffic = Traffic(20, STALE_S)
    assert traffic.oldest_snapshot(0) == NOBODY
    traffic.take(report("a", 5), 0)
    traffic.take(report("b", 7), 0)
    assert traffic.oldest_snapshot(1) == 5


def test_a_silent_gateway_may_send_until_its_snapshot_is_stale() -> None:
    traffic = Traffic(20, STALE_S)
    traffic.take(report("a", 5), 0)
    for now_s in (GONE_AFTER_S + 1, STALE_S):
        traffic.take(report("b", 7), now_s)
        assert traffic.oldest_snapshot(now_s) == 5
        assert traffic.inflight("p/v", now_s) == {"b": 2}
    traffic.take(report("b", 7), STALE_S + 1)
    assert traffic.oldest_snapshot(STALE_S + 1) == 7


def test_a_gateway_that_says_goodbye_is_not_waited_for() -> None:
    traffic = Traffic(20, STALE_S)
    traffic.take(report("a", 5), 0)
    traffic.take(report("b", 7), 0)
    traffic.take(report("a", 5, leaving=True), 1)
    assert traffic.oldest_snapshot(1) == 7
    assert traffic.inflight("p/v", 1) == {"b": 2}


def test_who_waits_in_gateways_is_counted_once_and_its_age_wherever_it_could_run() -> None:
    traffic = Traffic(20, STALE_S)
    for gateway, ages_s in (("a", [1.0, 2.0, 3.0]), ("b", [4.0])):
        queue = QueueReport(endpoints=["p/v", "q/v"], ages_s=ages_s)
        traffic.take(report(gateway, 5).model_copy(update={"queues": [queue]}), 0)
    assert traffic.queued("p/v", 1) + traffic.queued("q/v", 1) == 4
    assert abs(traffic.queued("p/v", 1) - traffic.queued("q/v", 1)) <= 2
    assert sorted(traffic.queued_ages_s("q/v", 1)) == [1, 2, 3, 4]
    assert traffic.queued("elsewhere", 1) == 0
    assert traffic.queued("p/v", GONE_AFTER_S + 1) == 0


def test_where_no_gateway_reports_there_may_still_be_one_until_its_snapshot_is_stale() -> None:
    traffic = Traffic(20, STALE_S)
    assert not traffic.all_have(5, 0, STALE_S)
    assert traffic.all_have(5, 0, STALE_S + 1)
    traffic.take(report("a", 4), STALE_S + 1)
    assert not traffic.all_have(5, 0, STALE_S + 2)
    traffic.take(report("a", 5), STALE_S + 2)
    assert traffic.all_have(5, STALE_S + 1, STALE_S + 2)


def test_after_a_takeover_gateways_that_have_not_spoken_are_waited_for() -> None:
    traffic = Traffic(20, STALE_S, since_s=100)
    traffic.take(report("a", 5), 101)
    assert traffic.oldest_snapshot(102) == 0, "another may go by what was told before"
    assert not traffic.all_have(5, 0, 100 + STALE_S)
    traffic.take(report("a", 5), 100 + STALE_S)
    assert traffic.oldest_snapshot(101 + STALE_S) == 5


def test_where_none_is_left_nobody_is_waited_for() -> None:
    traffic = Traffic(20, STALE_S)
    traffic.take(report("a", 5), 0)
    assert traffic.oldest_snapshot(STALE_S) == 5
    assert traffic.oldest_snapshot(STALE_S + 1) == NOBODY


def test_rules_that_shorten_the_wait_do_not_shorten_it_for_who_is_silent() -> None:
    traffic = Traffic(20, STALE_S)
    traffic.take(report("a", 5), 0)
    traffic.follow(20, 20)
    assert traffic.oldest_snapshot(STALE_S) == 5


def test_what_arrived_at_all_gateways_is_told_once() -> None:
    traffic = Traffic(20, STALE_S)
    for gateway, requests in (("a", 1), ("b", 2), ("a", 4)):
        counts = WorkloadReport(
            requests=requests, prompt_tokens=10 * requests, answered=1, output_tokens=5
        )
        leaving = report(gateway, 5, leaving=gateway == "b")
        traffic.take(leaving.model_copy(update={"workloads": {"chat": counts}}), 0)
    assert traffic.take_load() == {"chat": Load(7, 70, 3, 15)}
    assert traffic.take_load() == {}


def test_what_arrived_while_a_gateway_was_not_heard_is_no_load_of_this_moment() -> None:
    traffic = Traffic(20, STALE_S)
    counts = WorkloadReport(requests=6, prompt_tokens=60, answered=0, output_tokens=0)
    told = report("a", 5).model_copy(update={"workloads": {"chat": counts}})
    for now_s in (0, 1, 600, 601):
        traffic.take(told, now_s)
        assert bool(traffic.take_load()) is (now_s != 600)
