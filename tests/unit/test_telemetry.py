"""What a gateway reports to the controller."""

from orchestrator.gateway.telemetry import MAX_SAMPLES, Telemetry

E = "p/v"


def test_only_streams_wait_for_a_first_token() -> None:
    telemetry = Telemetry()
    telemetry.opened(E, "stream", 100)
    telemetry.opened(E, "whole", None)
    report = telemetry.report(103)[E]
    assert report.inflight == 2
    assert report.waiting_ages_s == [3]


def test_the_controller_learns_what_the_endpoint_took_and_people_what_the_client_waited() -> None:
    telemetry = Telemetry()
    telemetry.opened(E, "a", 107)
    telemetry.first_token(E, "a", "w", attempt_s=0.2, request_s=7.2)
    assert telemetry.report(108)[E].ttft_s == [0.2]
    assert 'seconds_sum{pool="p",workload="w"} 7.2' in telemetry.exposition(1, {}).decode()


def test_figures_are_reported_once_or_again_when_they_were_not_taken() -> None:
    telemetry = Telemetry()
    telemetry.used(E, "w", "m", "z", 3, 4)
    lost = telemetry.report(100)
    telemetry.used(E, "w", "m", "z", 1, 1)
    telemetry.not_taken(lost)
    assert telemetry.report(101)[E].tokens == {"w": 9}
    assert telemetry.report(102) == {}


def test_a_gateway_that_is_cut_off_for_long_keeps_no_more_than_it_may() -> None:
    telemetry = Telemetry()
    for _ in range(3):
        for attempt in range(MAX_SAMPLES):
            telemetry.first_token(E, attempt, "w", 0.1, 0.1)
        telemetry.not_taken(telemetry.report(100))
    assert len(telemetry.report(100)[E].ttft_s) == MAX_SAMPLES


def test_lost_records_are_shown() -> None:
    shown = Telemetry().exposition(1, {"usage": 3, "audit": 0}).decode()
    assert 'orchestrator_records_lost{record="usage"} 3.0' in shown


def test_who_waits_is_shown_while_it_waits_and_for_how_long_it_did() -> None:
    telemetry = Telemetry()
    labels = 'priority="50",workload="w"'
    with telemetry.queued("w", 50):
        assert (
            f"orchestrator_queued_requests{{{labels}}} 1.0" in telemetry.exposition(1, {}).decode()
        )
    shown = telemetry.exposition(1, {}).decode()
    assert f"orchestrator_queued_requests{{{labels}}} 0.0" in shown
    assert f"orchestrator_queue_time_seconds_count{{{labels}}} 1.0" in shown
    telemetry.shed("w", 50, "queue_full")
    shown = telemetry.exposition(1, {}).decode()
    assert 'shed_requests_total{priority="50",reason="queue_full",workload="w"} 1.0' in shown
