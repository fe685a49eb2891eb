"""What becomes of a request that no replica can take now: a smaller variant, a place in the queue,
refusal."""

import asyncio
from pathlib import Path
from typing import Any

from orchestrator.config.store import PolicyStore
from orchestrator.simulate.engine import SimulatedEngine
from orchestrator.simulate.faults import Fault
from tests.integration.engines import (
    apply,
    samples,
)
from tests.integration.waiting import made_known, stack


def test_without_patience_it_is_refused_at_once(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 10") as s:
            assert await s.ask() == (503, "")

    asyncio.run(inside())


def test_a_patient_request_waits_for_a_replica(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}") as s:
            asked = asyncio.create_task(s.ask())
            await asyncio.sleep(0.5)
            assert not asked.done()
            s.fleet.becomes("a-home/m-1")
            assert await asked == (200, "m-1")

    asyncio.run(inside())


def test_patience_ends(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 0.3}") as s:
            assert await s.ask() == (503, "")

    asyncio.run(inside())


def test_a_smaller_variant_answers_only_where_nothing_better_can(tmp_path: Path) -> None:
    async def inside() -> None:
        rules = "min_quality: 0.9\n    when_infeasible: {min_quality: 0.4}"
        async with stack(tmp_path, rules, "a-home/m-0") as s:
            assert await s.ask() == (200, "m-0")
            s.fleet.becomes("a-home/m-0", "a-home/m-1")
            await made_known(s)
            assert await s.ask() == (200, "m-1")

    asyncio.run(inside())


def test_a_smaller_variant_that_is_not_allowed_never_answers(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "min_quality: 0.9", "a-home/m-0") as s:
            assert await s.ask() == (503, "")

    asyncio.run(inside())


HOME, AWAY = "a-home/m-1", "b-away/m-1"


def test_a_refusal_for_want_of_a_replica_says_when_one_may_be_there(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 10") as s:
            answer = await s.answer()
            assert (answer.status, answer.code, answer.retry_after_s) == (503, "no_capacity", 1)

    asyncio.run(inside())


def test_the_engine_is_kept_busy_and_what_comes_then_waits_in_the_gateway(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, one_slot=True) as s:
            busy = await s.full(tokens=30)
            waiting = s.starts(3)
            await s.queued(3)
            assert len(s.home.received) == 2
            assert {a.status for a in await asyncio.gather(*busy, *waiting)} == {200}
            await s.queued(0)

    asyncio.run(inside())


def test_the_more_important_goes_first(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(
            tmp_path, "priority: 90", HOME, of_open="priority: 10", one_slot=True
        ) as s:
            busy = await s.full(tokens=30)
            low = s.starts(4, "open", content="low")
            await s.queued(4)
            high = s.starts(2, "closed", content="high")
            await s.queued(6)
            await asyncio.gather(*busy, *low, *high)
            assert asked(s.home)[2:] == ["high"] * 2 + ["low"] * 4

    asyncio.run(inside())


def asked(engine: SimulatedEngine) -> list[str]:
    return [request.body["messages"][0]["content"] for request in engine.received]


def test_of_equals_the_one_with_fewer_tokens_goes_first(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, one_slot=True) as s:
            busy = await s.full(tokens=60, behind="open")
            long = s.starts(12, "open", tokens=20, content="long")
            await s.queued(12)
            short = s.starts(24, "closed", tokens=2, content="short")
            await s.queued(36)
            await asyncio.gather(*busy, *long, *short)
            last_short = max(n for n, content in enumerate(asked(s.home)) if content == "short")
            # 24 of 8 tokens are worth 4 to 5 of 44; in the order of arrival all 12 were before.
            assert 3 <= asked(s.home)[: last_short + 1].count("long") <= 7

    asyncio.run(inside())


def test_with_a_full_queue_the_least_important_is_refused_the_newest_first(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(
            tmp_path,
            "priority: 90",
            HOME,
            of_open="priority: 10",
            gateway="max_queued_requests: 2",
            one_slot=True,
        ) as s:
            busy = await s.full(tokens=60)
            (first,) = s.starts(1, "open")
            await s.queued(1)
            (second,) = s.starts(1, "open")
            await s.queued(2)
            (high,) = s.starts(1, "closed")
            refused = await second
            assert (refused.status, refused.code) == (429, "queue_full")
            assert refused.retry_after_s >= 1
            assert (await s.answer("open")).code == "queue_full"
            answers = await asyncio.gather(*busy, first, high)
            assert {a.status for a in answers} == {200}

    asyncio.run(inside())


def test_what_would_miss_its_deadline_is_told_at_once_and_when_to_come_again(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        rules = "priority: 50"
        async with stack(tmp_path, rules, HOME, one_slot=True, slot_s=15) as s:
            busy = await s.full(tokens=50)
            answer = await s.answer()
            assert not any(task.done() for task in busy)
            # One is behind the one in the slot, and this one: 30 s, of which it has 20.
            assert (answer.status, answer.code) == (429, "deadline_unreachable")
            assert answer.retry_after_s == 10
            await asyncio.gather(*busy)
            assert (await s.answer()).status == 200

    asyncio.run(inside())


def test_at_its_deadline_a_request_that_still_waits_is_refused(tmp_path: Path) -> None:
    async def inside() -> None:
        rules = "priority: 50\n    when_infeasible: {queue_s: 30}"
        async with stack(tmp_path, rules, HOME, one_slot=True) as s:
            impatient = (
                (tmp_path / "all.yaml")
                .read_text()
                .replace("slo: {ttft_p95_s: 1}", "slo: {ttft_p95_s: 1, deadline_s: 0.3}")
            )
            (tmp_path / "all.yaml").write_text(impatient)
            apply(tmp_path)
            applied: Any = PolicyStore(tmp_path).current()
            s.fleet.config_version = applied.version
            s.fleet.becomes(HOME)
            await made_known(s)
            busy = await s.full(tokens=150)
            answer = await s.answer()
            assert (answer.status, answer.code) == (429, "saturated")
            assert answer.retry_after_s >= 1
            assert not any(task.done() for task in busy)
            async with s.session.get(f"{s.url}/metrics") as shown:
                waited = samples(await shown.text(), "orchestrator_queue_wait_seconds_count")
            assert ({"workload": "closed"}, 1.0) in waited, "also of one that was refused"
            assert await s.queue_length() == 0
            for task in busy:
                task.cancel()

    asyncio.run(inside())


def test_what_waits_goes_to_a_pool_that_comes_up(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, one_slot=True) as s:
            busy = await s.full(tokens=150)
            may_leave, must_stay = s.starts(5, "open"), s.starts(2, "closed")
            await s.queued(7)
            s.fleet.becomes(HOME, AWAY)
            answers = await asyncio.gather(*may_leave)
            assert {(a.status, a.pool) for a in answers} == {(200, "b-away")}
            assert not any(task.done() for task in (*busy, *must_stay))
            for answer in await asyncio.gather(*must_stay):
                assert (answer.status, answer.pool) == (200, "a-home")

    asyncio.run(inside())


def test_the_controller_learns_who_waits_and_where_they_would_run(tmp_path: Path) -> None:
    async def inside() -> None:
        rules = "when_infeasible: {queue_s: 20}"
        async with stack(tmp_path, rules) as s:
            waiting = s.starts(3)
            await s.until(lambda: any(q for q in s.fleet.reports[-1].queues))
            await s.queued(3)
            seen = len(s.fleet.reports)
            await s.until(lambda: len(s.fleet.reports) > seen + 1)
            (queue,) = s.fleet.reports[-1].queues
            assert queue.endpoints == ["a-home/m-0", HOME]
            assert len(queue.ages_s) == 3
            s.fleet.becomes(HOME)
            assert {a.status for a in await asyncio.gather(*waiting)} == {200}
            await s.until(lambda: not s.fleet.reports[-1].queues)

    asyncio.run(inside())


def test_a_client_that_goes_away_leaves_the_queue_and_reaches_no_engine(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, one_slot=True) as s:
            busy = await s.full(tokens=40)
            (gone,) = s.starts(1, content="gone")
            await s.queued(1)
            (stays,) = s.starts(1, content="stays")
            await s.queued(2)
            gone.cancel()
            await s.queued(1)
            await asyncio.gather(*busy)
            assert (await stays).status == 200
            assert asked(s.home)[2:] == ["stays"]

    asyncio.run(inside())


def test_a_gateway_that_stops_waits_no_longer_than_those_who_wait_in_it(tmp_path: Path) -> None:
    async def inside() -> None:
        async with asyncio.timeout(30):
            async with stack(tmp_path, "when_infeasible: {queue_s: 1}") as s:
                waiting = s.starts(3)
                await s.queued(3)
            assert {(a.status, a.code) for a in await asyncio.gather(*waiting)} == {
                (503, "no_capacity")
            }

    asyncio.run(inside())


def test_one_after_a_failed_attempt_waits_for_another_endpoint_that_is_full(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, AWAY, one_slot=True) as s:
            s.away.faults.append(Fault.parse("status"))
            busy = await s.full(tokens=30)
            answer = await s.answer("open")
            assert (answer.status, answer.pool) == (200, "a-home")
            assert {a.status for a in await asyncio.gather(*busy)} == {200}

    asyncio.run(inside())


def test_an_answer_that_broke_off_goes_on_before_others_begin(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 90", HOME, AWAY, one_slot=True) as s:
            s.home.faults.append(Fault.parse("cut:80"))
            broken = asyncio.create_task(s.stream("open", tokens=100))
            await s.until(lambda: len(s.home.received) == 1)
            s.home.faults.clear()
            busy = s.starts(1, "closed", tokens=200)
            await s.until(lambda: len(s.home.received) == 2)
            busy += s.starts(2, "open", tokens=1500, content="keeps it busy")
            await s.until(lambda: len(s.away.received) == 2)
            others = s.starts(3, "open", content="other")
            await s.queued(3)
            assert (await broken).endswith(" t99")
            assert {a.status for a in await asyncio.gather(*busy, *others)} == {200}
            assert s.away.received[2].body["messages"][-1]["role"] == "assistant"

    asyncio.run(inside())
