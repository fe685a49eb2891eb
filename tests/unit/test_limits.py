"""Requests and tokens a minute: what is let through, what is told, what is given back."""

import fcntl
import multiprocessing
import os
import threading
import time
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from orchestrator.gateway import windows
from orchestrator.gateway.dialects import ENDPOINTS, Asked
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.limits import (
    GUESSED_TOKENS,
    Limiter,
    Reservation,
    Subject,
    duration,
    tokens_to_reserve,
)
from orchestrator.gateway.request import InferenceRequest
from orchestrator.gateway.windows import Windows

T = 1000.5
"""A moment of the clock."""


def caller(requests: int | None = None, tokens: int | None = None, name: str = "a") -> Subject:
    return Subject(name, "Your", requests, tokens)


def admit(limiter: Limiter, *subjects: Subject, tokens: int = 0, at_s: float = T) -> Reservation:
    """Raises ApiError."""
    reserved = limiter.reserve(list(subjects), tokens, at_s)
    limiter.verdict(reserved, at_s)
    return reserved


def refusal(limiter: Limiter, *subjects: Subject, tokens: int = 0, at_s: float = T) -> ApiError:
    with pytest.raises(ApiError) as caught:
        admit(limiter, *subjects, tokens=tokens, at_s=at_s)
    assert caught.value.status == 429
    assert caught.value.code == "rate_limit_exceeded"
    return caught.value


def test_a_minute_lets_through_what_the_limit_says(tmp_path: Path) -> None:
    with Limiter(tmp_path) as limiter:
        for second in range(3):
            admit(limiter, caller(3), at_s=T + second)
        refused = refusal(limiter, caller(3), at_s=T + 10)
        assert refused.type == "requests"
        wait_s = int(refused.headers["retry-after"])
        assert 50 <= wait_s <= 51
        refusal(limiter, caller(3), at_s=T + 59)
        admit(limiter, caller(3), at_s=T + 10 + wait_s)


def test_what_is_refused_does_not_count(tmp_path: Path) -> None:
    with Limiter(tmp_path) as limiter:
        admit(limiter, caller(1))
        for second in range(60):
            refusal(limiter, caller(1), at_s=T + second)
        admit(limiter, caller(1), at_s=T + 61)


def test_the_tighter_of_two_limits_decides_and_is_told(tmp_path: Path) -> None:
    key, workload = caller(5, name="key"), Subject("workload", "The workload's", 2, 1000)
    with Limiter(tmp_path) as limiter:
        admit(limiter, key, workload, tokens=10)
        reserved = limiter.reserve([key, workload], 10, T)
        told = dict(limiter.verdict(reserved, T))
        assert told[b"x-ratelimit-limit-requests"] == b"2"
        assert told[b"x-ratelimit-remaining-requests"] == b"0"
        assert told[b"x-ratelimit-limit-tokens"] == b"1000"
        assert told[b"x-ratelimit-remaining-tokens"] == b"980"
        assert told[b"x-ratelimit-reset-requests"] == b"1m1s"
        assert "The workload's limit of 2 requests" in refusal(limiter, key, workload).message
        # What the workload refused took nothing of the key's.
        for _ in range(3):
            admit(limiter, key)
        refusal(limiter, key)


def test_tokens_that_were_not_used_are_given_back(tmp_path: Path) -> None:
    with Limiter(tmp_path) as limiter:
        reserved = admit(limiter, caller(tokens=100), tokens=90)
        assert refusal(limiter, caller(tokens=100), tokens=20).type == "tokens"
        limiter.settle(reserved, 10, T + 5)
        admit(limiter, caller(tokens=100), tokens=90, at_s=T + 5)
        refusal(limiter, caller(tokens=100), tokens=1, at_s=T + 5)


def test_tokens_beyond_what_was_reserved_count_from_when_they_are_known(tmp_path: Path) -> None:
    with Limiter(tmp_path) as limiter:
        reserved = admit(limiter, caller(tokens=100), tokens=10)
        limiter.settle(reserved, 95, T + 50)
        refusal(limiter, caller(tokens=100), tokens=20, at_s=T + 100)
        admit(limiter, caller(tokens=100), tokens=100, at_s=T + 111)


def test_a_request_that_ends_after_its_minute_gives_nothing_back_twice(tmp_path: Path) -> None:
    with Limiter(tmp_path) as limiter:
        long = admit(limiter, caller(tokens=100), tokens=100)
        admit(limiter, caller(tokens=100), tokens=60, at_s=T + 64)
        limiter.settle(long, 0, T + 64)
        refusal(limiter, caller(tokens=100), tokens=50, at_s=T + 64)


def test_a_request_larger_than_the_whole_limit_is_told_so_and_counts_nothing(
    tmp_path: Path,
) -> None:
    with Limiter(tmp_path) as limiter:
        refused = refusal(limiter, caller(5, 100), tokens=101)
        assert "101 tokens" in refused.message
        assert "retry-after" not in refused.headers
        admit(limiter, caller(1, 100), tokens=100)


def test_an_engine_that_counts_absurdly_harms_no_other_count(tmp_path: Path) -> None:
    with Limiter(tmp_path) as limiter:
        reserved = admit(limiter, caller(5, 100), tokens=1)
        limiter.settle(reserved, 2**53, T)
        assert refusal(limiter, caller(5, 100), tokens=1).type == "tokens"
        admit(limiter, caller(2))


def test_replicas_count_together_and_what_one_that_crashed_counted_ends_with_the_minute(
    tmp_path: Path,
) -> None:
    with Limiter(tmp_path) as one:
        with Limiter(tmp_path) as other:
            admit(one, caller(3))
            admit(other, caller(3))
            admit(other, caller(3))
            refusal(one, caller(3))
        refusal(one, caller(3), at_s=T + 1)
        with Limiter(tmp_path) as after:
            refusal(after, caller(3), at_s=T + 59)
            for limiter in (one, after, after):
                admit(limiter, caller(3), at_s=T + 61)
            refusal(one, caller(3), at_s=T + 61)


def test_counts_of_an_earlier_boot_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    monkeypatch.setattr(windows, "_BOOT_ID", boot)
    folder = tmp_path / "limits"
    with Limiter(folder) as limiter:
        admit(limiter, caller(1))
        boot.write_text("second\n")
        with Limiter(folder) as other:
            admit(other, caller(1))
            assert (folder / "first").exists(), "a gateway counts there"
    with Limiter(folder):
        assert not (folder / "first").exists()


def test_a_subject_that_is_idle_gives_its_place_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "SLOTS", 2)
    with Limiter(tmp_path) as one, Limiter(tmp_path) as two:
        for limiter in (one, two):
            for name in ("a", "b"):
                admit(limiter, caller(9, name=name))
        with pytest.raises(OSError, match="2 subjects"):
            admit(one, caller(9, name="c"))
        later_s = T + windows.IDLE_S + 2
        admit(two, caller(1, name="c"), at_s=later_s)
        # The other gateway knows the place by the subject that had it.
        admit(one, caller(1, name="a"), at_s=later_s)
        refusal(one, caller(1, name="c"), at_s=later_s)
        refusal(two, caller(1, name="a"), at_s=later_s)


def test_a_lock_that_somebody_holds_delays_a_request_for_a_moment_alone(tmp_path: Path) -> None:
    with Limiter(tmp_path) as limiter:
        admit(limiter, caller(9))
        with Windows(tmp_path)._alone():
            admit(limiter, caller(9))
            with pytest.raises(OSError, match="lock"):
                admit(limiter, caller(9, name="new"))
        admit(limiter, caller(9, name="new"))


def test_a_lock_that_somebody_holds_is_waited_for_by_one_request_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = time.sleep

    def paused(pause_s: float) -> None:
        pauses.append(pause_s)
        sleep(pause_s)

    monkeypatch.setattr(windows.time, "sleep", paused)
    monkeypatch.setattr(windows, "PATIENT_AGAIN_S", 1e9)
    with Limiter(tmp_path) as limiter:
        with Windows(tmp_path)._alone():
            with pytest.raises(OSError, match="lock"):
                admit(limiter, caller(9, name="first"))
            assert pauses
            waited = len(pauses)
            for number in range(50):
                with pytest.raises(OSError, match="lock"):
                    admit(limiter, caller(9, name=f"next-{number}"))
            assert len(pauses) == waited
        admit(limiter, caller(9, name="first"))


@pytest.mark.parametrize("failing", ["add", "total", "total of the other"])
def test_what_could_not_be_counted_whole_is_not_counted_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    key, workload = caller(1, 100, "key"), Subject("workload", "The workload's", 1, 100)
    method, bad = failing.split()[0], "key" if failing == "total" else "workload"
    works = getattr(Windows, method)

    def fails(self: Windows, subject: str, *rest: int) -> object:
        # What was counted can be taken back all the same.
        if subject == bad and (method == "total" or rest[1] > 0):
            raise OSError("lock")
        return works(self, subject, *rest)

    with Limiter(tmp_path) as limiter:
        monkeypatch.setattr(Windows, method, fails)
        for _ in range(3):
            with pytest.raises(OSError, match="lock"):
                admit(limiter, key, workload, tokens=90)
        monkeypatch.undo()
        admit(limiter, key, workload, tokens=90)
        refusal(limiter, key)
        refusal(limiter, workload)


def hammer(folder: Path, limit: int, admitted: "Queue[int]") -> None:
    count = refused = 0
    with Limiter(folder) as limiter:
        while refused < 2000:
            try:
                admit(limiter, caller(limit), at_s=time.monotonic())
            except ApiError:
                refused += 1
            else:
                count += 1
                refused = 0
    admitted.put(count)


def test_processes_that_count_at_the_same_time_let_through_no_more_than_the_limit(
    tmp_path: Path,
) -> None:
    limit, started_s = 3000, time.monotonic()
    context = multiprocessing.get_context("spawn")
    admitted: Queue[int] = context.Queue()
    running = [context.Process(target=hammer, args=(tmp_path, limit, admitted)) for _ in range(4)]
    for process in running:
        process.start()
    total = sum(admitted.get(timeout=120) for _ in running)
    for process in running:
        process.join()
    windows_passed = 1 + int((time.monotonic() - started_s) // windows.WINDOW_S)
    assert 0.9 * limit <= total <= limit * windows_passed


def request(path: str, body: bytes, **asked: int) -> InferenceRequest:
    return InferenceRequest(ENDPOINTS[path], Asked(**asked), "m", {}, body)


def test_a_request_reserves_its_prompt_and_the_most_that_its_choices_may_take() -> None:
    chat = "/v1/chat/completions"
    assert tokens_to_reserve(request(chat, b"a" * 400, max_tokens=50, choices=3), 10_000) == 250
    guessed = tokens_to_reserve(request(chat, b"a" * 400), 10_000)
    assert guessed == 100 + GUESSED_TOKENS


def test_a_guess_makes_no_request_too_large() -> None:
    chat = "/v1/chat/completions"
    assert tokens_to_reserve(request(chat, b"a" * 40), 100) == 100
    assert tokens_to_reserve(request(chat, b"a" * 4000), 100) == 1000


def test_durations_are_written_as_openai_writes_them() -> None:
    assert [duration(s) for s in (0, 1, 59, 60, 61, 360)] == [
        b"0s",
        b"1s",
        b"59s",
        b"1m0s",
        b"1m1s",
        b"6m0s",
    ]


def test_the_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    with Limiter(tmp_path):
        for folder, _, names in os.walk(tmp_path):
            for name in names:
                assert os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0


def test_a_gateway_that_begins_waits_for_the_lock_of_another(tmp_path: Path) -> None:
    with Limiter(tmp_path):
        (lock,) = tmp_path.glob("*/lock")
        with lock.open("rb+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            threading.Timer(0.2, fcntl.flock, (held, fcntl.LOCK_UN)).start()
            with Limiter(tmp_path) as other:
                admit(other, caller(1), at_s=time.monotonic())
