"""What the verdict of a run under faults finds, in records that are made up."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from orchestrator.replay.observer import Sample
from tests.benchmarks.chaos import plot, verdict
from tests.benchmarks.chaos.__main__ import write
from tests.benchmarks.chaos.load import as_request, repeated
from tests.benchmarks.chaos.records import Answer, Fault, Place, Records, Request
from tests.benchmarks.chaos.schedule import NEEDS_S, deck, following
from tests.e2e.streams import Stream

HOME, CLOUD = "home", "cloud"
NAMES = ["home engine", "price lies"]


def sample(at_s: float, phase: str = "home", since_s: float = 0, **more: Any) -> Sample:
    usd, stale = more.get("usd", 2.5), more.get("stale", False)
    pool = {"replicas_ready": 1, "replicas_target": 1, "replicas": 1}
    quote = {"usd_per_gpu_hour": usd, "stale": stale}
    return Sample(
        at_s,
        {
            "pools": {HOME: pool | {"quote": None}, CLOUD: pool | {"quote": quote}},
            "bursts": {
                "assistant": {
                    "state": phase,
                    "since_s": since_s,
                    "reason": more.get("reason", ""),
                }
            },
        },
    )


def request(name: str, pool: str = HOME, at_s: float = 1010, outcome: str = "whole") -> Request:
    return Request(name, "records", pool, outcome, at_s, at_s + 2)


@pytest.fixture
def good() -> Records:
    """A run in which all is well."""
    stale = f"TTFT is high, but the quote of pool '{CLOUD}' is stale: it is 9 s old"
    return Records(
        Place("assistant", HOME, CLOUD, max_age_s=10),
        began_s=1000,
        faults=[
            Fault("home engine", HOME, 1050, 1100),
            Fault("price lies", "", 1120, 1150, "thousandth"),
        ],
        requests=[
            request("a"),
            request("b", CLOUD, 1025),
            request("c", HOME, 1049, "typed"),
            request("d", "", 1060, "refused"),
        ],
        answers=[
            *(Answer(at_s, "truth", 2.5) for at_s in range(1000, 1120, 2)),
            *(Answer(at_s, "thousandth", 0.0025) for at_s in range(1120, 1150, 2)),
            *(Answer(at_s, "truth", 2.5) for at_s in range(1150, 1200, 2)),
        ],
        samples=[
            *(sample(at_s) for at_s in range(1001, 1020)),
            *(sample(at_s, "bursting", 1019.5) for at_s in range(1020, 1060)),
            *(sample(at_s, "draining", 1060) for at_s in range(1060, 1080)),
            *(sample(at_s, "home", 1080) for at_s in range(1080, 1122)),
            *(sample(at_s, reason=stale, stale=True) for at_s in range(1122, 1150)),
        ],
        unowned=[],
        left=[],
        events_lost=0,
    )


def broken(records: Records) -> list[str]:
    return [check.claim for check in verdict.judge(records, NAMES) if not check.holds]


def test_a_run_in_which_all_is_well_holds(good: Records) -> None:
    assert not broken(good), verdict.judge(good, NAMES)


@pytest.mark.parametrize(
    "bad",
    [
        request("x", HOME, 1130, "refused"),
        request("x", "", 1130, "refused"),
        request("x", CLOUD, 1060, "typed"),
        request("x", HOME, 1101, "typed"),
        replace(request("x"), connects=2),
    ],
)
def test_a_request_that_fails_while_its_pool_is_well_is_found(good: Records, bad: Request) -> None:
    good.requests.append(bad)
    assert broken(good) == ["No request of a healthy pool fails"]


def test_refusals_in_an_outage_of_home_are_counted_apart(good: Records) -> None:
    check = verdict.judge(good, NAMES)[0]
    assert check.holds
    assert "1 refused, 1 typed" in check.evidence


@pytest.mark.parametrize("outcome", ["lost", "cut", "status 500"])
def test_even_an_outage_excuses_no_broken_stream(good: Records, outcome: str) -> None:
    good.requests.append(request("x", HOME, 1060, outcome))
    assert broken(good) == ["Every stream is whole or ends typed, and no text comes twice"]


def test_a_burst_on_a_lie_is_found(good: Records) -> None:
    good.samples.append(sample(1149, "bursting", 1140))
    assert broken(good) == ["No burst begins on a bad price"]


def test_a_burst_on_a_price_that_nobody_renewed_is_found(good: Records) -> None:
    good.samples.append(sample(1240, "bursting", 1230))
    assert broken(good) == ["No burst begins on a bad price"]


def test_a_burst_on_the_last_good_price_is_right_while_that_is_fresh(good: Records) -> None:
    good.answers += [Answer(at_s, "500", None) for at_s in range(1200, 1220, 2)]
    good.samples.append(sample(1206, "bursting", 1205))
    assert not broken(good)


def test_a_burst_by_an_answer_that_came_during_its_tick_is_right(good: Records) -> None:
    good.samples.append(sample(1151, "bursting", 1149.5))
    assert not broken(good)


def test_a_lie_that_is_published_is_found(good: Records) -> None:
    good.samples.append(sample(1145, usd=0.0025))
    assert broken(good) == ["No burst begins on a bad price"]


@pytest.mark.parametrize(
    "change",
    [
        {"unowned": ["cloud: an engine"]},
        {"unowned": None},
        {"left": ["raylet"]},
        {"left": None},
        {"events_lost": 1},
        {"open_requests": 1},
        {"faults": []},
        {"samples": []},
    ],
)
def test_what_is_left_lost_or_was_never_looked_at_fails(
    good: Records, change: dict[str, Any]
) -> None:
    assert broken(replace(good, **change))


def test_a_fault_that_does_not_pass_fails(good: Records) -> None:
    good.faults.append(Fault("home engine", HOME, 1190, None, "home is back: not in 300 s"))
    assert broken(good) == ["The faults came, and passed"]


def test_the_longest_silence_is_told_by_fault(good: Records) -> None:
    good.faults = [Fault("leader", "", 1030, 1035)]
    good.samples = [s for s in good.samples if not 1030 <= s.at_s < 1037]
    assert verdict.silences(good)["leader"] == 8


def test_the_report_and_the_timeline_are_written(good: Records, tmp_path: Path) -> None:
    write(tmp_path, good, verdict.judge(good, NAMES), {"seed": 0})
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["holds"]
    assert len(report["bursts"]) == 1
    assert report["requests"][HOME] == {"whole": 1, "typed": 1, "refused": 1}
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_anything_can_be_plotted(tmp_path: Path) -> None:
    plot.timeline(tmp_path / "t.png", Records(Place("assistant", HOME, CLOUD, 10), 0), "nothing")


def test_every_round_has_each_fault_once_and_a_seed_is_one_order() -> None:
    names = list(NEEDS_S)
    first, second = deck(7), deck(7)
    rounds = [list(islice(first, len(names))) for _ in range(3)]
    assert all(sorted(played) == sorted(names) for played in rounds)
    assert [list(islice(second, len(names))) for _ in range(3)] == rounds


def test_the_first_round_is_whole_and_later_faults_must_fit() -> None:
    names, faults = list(NEEDS_S), deck(1)
    assert [following(faults, names, n, -1) for n in range(len(names))].count(None) == 0
    assert following(faults, names, len(names), min(NEEDS_S.values()) - 1) is None
    fits = following(faults, names, len(names), 60)
    assert fits is not None
    assert NEEDS_S[fits] <= 60


def test_text_that_comes_twice_is_noticed_and_blanks_are_not() -> None:
    words = "import threading; self.assertEqual(x, 1)"
    assert repeated(f"begin {words} and {words}")
    assert not repeated(f"begin {words}")
    assert not repeated(" " * 200)


def test_more_pieces_than_tokens_are_text_that_comes_twice() -> None:
    stream = Stream("records", "x", 4, 1.0, 2.0, tokens=5, outcome="whole")
    assert as_request(stream, 1000).twice
    assert as_request(stream, 1000).started_s == 1001
