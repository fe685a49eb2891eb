"""What a gateway tells the controller of what clients ask for."""

import asyncio
from pathlib import Path

from orchestrator.signals.report import WorkloadReport
from tests.integration.waiting import Stack, made_known, stack

HOME = "a-home/m-1"


def reported(s: Stack, workload: str) -> WorkloadReport:
    """Over all reports."""
    counts = WorkloadReport()
    for report in s.fleet.reports:
        more = report.workloads.get(workload, WorkloadReport())
        counts = WorkloadReport(**{n: v + getattr(more, n) for n, v in counts})
    return counts


async def ended(s: Stack, workload: str, requests: int, answered: int) -> WorkloadReport:
    """What was reported when so many requests were."""

    def is_told() -> bool:
        told = reported(s, workload)
        return (told.requests, told.answered) == (requests, answered)

    await s.until(is_told)
    return reported(s, workload)


def test_who_is_served_and_who_finds_no_place_both_have_arrived(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 10", HOME) as s:
            assert (await s.answer(tokens=7, content="a" * 400)).status == 200
            s.fleet.becomes()
            await made_known(s)
            assert (await s.answer(tokens=9, content="b" * 400)).code == "no_capacity"
            told = await ended(s, "closed", requests=2, answered=1)
            assert told.output_tokens == 7
            assert 200 <= told.prompt_tokens <= 300, "a quarter of the bodies' bytes"

    asyncio.run(inside())


def test_who_waits_has_arrived_already_and_is_answered_at_the_end(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}") as s:
            waiting = s.starts(1, tokens=3)
            await ended(s, "closed", requests=1, answered=0)
            s.fleet.becomes(HOME)
            assert (await waiting[0]).status == 200
            assert (await ended(s, "closed", requests=1, answered=1)).output_tokens == 3

    asyncio.run(inside())


def test_what_was_refused_before_it_needed_a_place_is_no_demand(tmp_path: Path) -> None:
    async def inside() -> None:
        rules = "priority: 10\n    limits: {requests_per_minute: 1}"
        async with stack(tmp_path, rules, HOME) as s:
            assert [(await s.answer()).status for _ in range(3)] == [200, 429, 429]
            s.keys["closed"] = "wrong"
            assert (await s.answer()).status == 401
            await ended(s, "closed", requests=1, answered=1)
            assert set().union(*(r.workloads for r in s.fleet.reports)) == {"closed"}

    asyncio.run(inside())
