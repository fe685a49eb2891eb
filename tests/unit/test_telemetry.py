"""What a gateway counts, and what it reports to the controller."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.gateway import metrics, series
from orchestrator.gateway.metrics import CATALOGUE, LABELS, OVERFLOW
from orchestrator.gateway.series import exposition
from orchestrator.gateway.telemetry import MAX_SAMPLES, Telemetry

E = "p/v"


def shown(telemetry: Telemetry, name: str) -> dict[tuple[str, ...], float]:
    """Values by labels, in the order of the catalogue."""
    families = text_string_to_metric_families(exposition({"g": telemetry.state()}).decode())
    order = {m.name: m.labels for m in CATALOGUE}
    base = name.removesuffix("_sum").removesuffix("_count")
    return {
        tuple(sample.labels[label] for label in order[base]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def test_only_streams_wait_for_a_first_token() -> None:
    telemetry = Telemetry()
    telemetry.inflight.add(E, 2)
    telemetry.opened(E, "stream", 100)
    telemetry.opened(E, "whole", None)
    report = telemetry.report(103)[E]
    assert report.waiting_ages_s == [3]


def test_the_controller_learns_what_the_endpoint_took_and_people_what_the_client_waited() -> None:
    telemetry = Telemetry()
    telemetry.opened(E, "a", 107)
    telemetry.first_token(E, "a", "w", "m", attempt_s=0.2, request_s=7.2)
    assert telemetry.report(108)[E].ttft_s == [0.2]
    name = "gen_ai_server_time_to_first_token_seconds_sum"
    assert shown(telemetry, name) == {("w", "m", "p"): 7.2}


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
            telemetry.first_token(E, attempt, "w", "m", 0.1, 0.1)
        telemetry.not_taken(telemetry.report(100))
    assert len(telemetry.report(100)[E].ttft_s) == MAX_SAMPLES


def test_cached_tokens_are_shown_apart_and_are_among_the_input() -> None:
    telemetry = Telemetry()
    telemetry.used(E, "w", "m", "z", 30, 4, 20)
    assert shown(telemetry, "orchestrator_tokens_total") == {
        ("w", "m", "z", "input"): 30,
        ("w", "m", "z", "output"): 4,
        ("w", "m", "z", "cached"): 20,
    }


def test_what_became_of_an_attempt_is_told_by_its_kind() -> None:
    telemetry = Telemetry()
    for kind, outcome in (("first", "cut"), ("continuation", "complete"), ("hedge", "cancelled")):
        telemetry.opened(E, kind, None)
        telemetry.closed(E, kind, kind, outcome, None)
    assert shown(telemetry, "orchestrator_attempts_total") == {
        ("p", "v", "first", "cut"): 1,
        ("p", "v", "continuation", "complete"): 1,
        ("p", "v", "hedge", "cancelled"): 1,
    }


def test_a_place_is_told_from_its_grant_to_its_end() -> None:
    telemetry = Telemetry()
    for change, open_there in ((1, 1), (1, 2), (-1, 1)):
        telemetry.inflight.add(E, change)
        assert telemetry.report(100)[E].inflight == open_there
        assert shown(telemetry, "orchestrator_inflight_requests") == {("p", "v"): open_there}


def test_a_gauge_is_read_when_it_is_asked_for() -> None:
    telemetry, open_requests = Telemetry(), 3
    telemetry.watch(metrics.OPEN, lambda: {(): open_requests})
    open_requests = 4
    assert shown(telemetry, "orchestrator_open_requests") == {(): 4}


def test_the_buckets_of_a_histogram_hold_what_is_at_most_their_bound() -> None:
    distribution = series.Distribution(metrics.FIRST_TOKEN)
    for value in (0.001, 0.0011, 0.005, 61):
        distribution.observe(("w", "m", "p"), value)
    text = exposition({"g": {metrics.FIRST_TOKEN.name: distribution.figures()}}).decode()
    counts = {
        sample.labels["le"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.endswith("first_token_seconds_bucket")
    }
    assert (counts["0.001"], counts["0.005"], counts["60.0"], counts["+Inf"]) == (1, 3, 3, 4)


@pytest.mark.parametrize("kind", [series.Counts, series.Distribution])
def test_a_metric_has_no_more_series_than_it_may(
    kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "MAX_SERIES", 3)
    counted = kind(metrics.QUEUE_WAIT)
    count = counted.add if kind is series.Counts else counted.observe
    for number in range(10):
        count((f"w{number}",), 1)
    count(("w0",), 1)
    figures: dict[Any, Any] = dict(counted.figures())
    assert set(figures) == {("w0",), ("w1",), ("w2",), (OVERFLOW,)}
    total = [figure[-1] if isinstance(figure, list) else figure for figure in figures.values()]
    assert total == [2, 1, 1, 7]


@pytest.mark.parametrize(
    "state",
    [
        {"orchestrator_requests_total": [[["a"], 1]]},
        {"orchestrator_requests_total": [[["a"] * 6, [1, 2]]]},
        {"gen_ai_client_token_usage": [[["w", "m", "input"], [1, 2, 3]]]},
        {"gen_ai_client_token_usage": [[["w", "m", "input"], 7]]},
        {"nothing_that_this_version_knows": [[[], 1]]},
    ],
)
def test_what_another_version_counted_in_another_shape_is_left_out(state: Any) -> None:
    assert exposition({"g": state}) == exposition({})


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=5, unique=True), st.floats(0, 1e9))
def test_whatever_a_name_is_made_of_prometheus_reads_it_back(
    names: list[str], value: float
) -> None:
    telemetry = Telemetry()
    for name in names:
        telemetry.waited(name, value)
        telemetry.answered(name, "m", "z", "p", 200, "/v1/models", 1)
    sums = shown(telemetry, "orchestrator_queue_wait_seconds_sum")
    assert sums == {(name,): value for name in names}
    requests = shown(telemetry, "orchestrator_requests_total")
    assert requests == {(n, "m", "z", "p", "200", "/v1/models"): 1 for n in names}


def test_every_label_says_where_its_values_come_from() -> None:
    used = {label for metric in CATALOGUE for label in metric.labels}
    assert used | {"gateway"} == set(LABELS)


def test_names_say_what_they_are() -> None:
    assert len({m.name for m in CATALOGUE}) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert metric.name.startswith(("orchestrator_", "gen_ai_"))
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert (metric.kind == "histogram") == bool(metric.buckets)
        assert list(metric.buckets) == sorted(set(metric.buckets))


def test_who_waits_is_shown_while_it_waits() -> None:
    telemetry = Telemetry()
    with telemetry.queued("w", 50):
        assert shown(telemetry, "orchestrator_queue_length") == {("w", "50"): 1}
    assert shown(telemetry, "orchestrator_queue_length") == {("w", "50"): 0}
    telemetry.shed("w", 50, "queue_full")
    assert shown(telemetry, "orchestrator_shed_requests_total") == {("w", "50", "queue_full"): 1}
