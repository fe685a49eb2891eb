"""Runs the lines of batches beside everything else, when there is room for them or their deadline
asks for it."""

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.batch.batches import Batch
from orchestrator.batch.desk import Desk
from orchestrator.batch.jobs import work_on
from orchestrator.batch.lines import Problem
from orchestrator.batch.places import Survey, survey
from orchestrator.batch.queue import Answered, Kind, Line, Outlook, PutBack, Waiting
from orchestrator.batch.schedule import idle, needed
from orchestrator.config.data_class import DataClass
from orchestrator.gateway import metrics
from orchestrator.gateway.admission import Admission
from orchestrator.gateway.background import background
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.intake import Intake
from orchestrator.gateway.line import LineRun, NoCaller, caller_of, is_stale
from orchestrator.gateway.observer import Observer
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant
from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.gateway")

AT_REST_S, AT_WORK_S, AT_ONCE_S = 1.0, 0.25, 0.05
"""From one look at the store to the next: without batches, with some, after a change."""
BEAT_S = 1.0
TIDY_S = 60.0
PAUSE_S = 5.0
"""After a disk that could not be written."""
UNFINISHED_S = 86_400.0
"""What a crash left of a file is deleted after so long: no upload takes longer."""
FOR_GOOD = ("residency", "model_not_found", "context_length")
"""Denials that waiting does not change: such lines are run to be told so."""


@dataclass(slots=True)
class _Open:
    run: LineRun
    task: asyncio.Task[None]


class Deferred:
    """One for each gateway, over a store that those of a node share."""

    def __init__(
        self,
        directory: Path,
        exchange: Exchange,
        admission: Admission[Grant],
        intake: Intake,
        observer: Observer,
        telemetry: Telemetry,
    ) -> None:
        self.desk = Desk(directory)
        """For everything short."""
        self._back_office = Desk(directory)
        self._exchange = exchange
        self._admission = admission
        self._intake = intake
        self._observer = observer
        self._telemetry = telemetry
        telemetry.watch(metrics.BATCH_LINES_OPEN, self._open_by_workload)
        self._owner = exchange.gateway_id
        self._open: dict[tuple[str, int, int], _Open] = {}
        self._outcomes: list[tuple[Line, Answered | PutBack]] = []
        self._wake = asyncio.Event()
        self._beaten_s = 0.0
        self._tidied_s = 0.0
        self._job: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Something has changed in the store."""
        self._wake.set()

    @asynccontextmanager
    async def running(self, relay: Relay) -> AsyncIterator[None]:
        """Lines run until the context is left; what is open then is for others, at once."""
        try:
            async with background("the run of batches", partial(self._run, relay)):
                yield
        finally:
            tasks = [open_.task for open_ in self._open.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._job is not None:
                await asyncio.gather(self._job, return_exceptions=True)
            with suppress(sqlite3.Error, OSError):
                await self._record()
                await self.desk.do(self.desk.batches.drop_job, self._owner)
                await self.desk.do(self.desk.queue.leave, self._owner)
            for desk in (self.desk, self._back_office):
                await asyncio.to_thread(desk.close)

    async def _run(self, relay: Relay) -> None:
        trouble = ""
        while True:
            wait_s, before = AT_REST_S, trouble
            try:
                wait_s = await self._round(relay)
                trouble = ""
            except (sqlite3.Error, OSError) as error:
                trouble = without_text(error)
            except Exception as error:
                # Whatever it was: deadlines and revoked keys depend on this loop going on.
                log.error("a round of the batches failed: %s", without_text(error))
            if trouble != before:
                log.error("the store of batches: %s", trouble or "works again")
            await asyncio.sleep(AT_ONCE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.clear()

    async def _round(self, relay: Relay) -> float:
        """Returns when to look again, at the latest."""
        await self._record()
        now_s = time.time()
        desk = self.desk
        self._tidy(now_s)
        outlook = await desk.do(desk.queue.look, self._owner)
        await self._stop_lost(outlook, now_s)
        if not outlook.batches and not outlook.jobs:
            return AT_REST_S
        if now_s - self._beaten_s >= BEAT_S:
            self._beaten_s = now_s
            await desk.do(desk.queue.beat, self._owner, self._sent(), now_s)
            await desk.do(desk.batches.expire, now_s)
            await self._stop_unwanted(outlook, now_s)
        if outlook.jobs and (self._job is None or self._job.done()):
            self._job = asyncio.create_task(self._do_jobs())
        for kind, waiting in sorted(outlook.waiting.items(), key=_first_deadline):
            if waiting.pending:
                await self._open_lines(relay, kind, waiting, outlook, now_s)
        return AT_WORK_S

    async def _stop_lost(self, outlook: Outlook, now_s: float) -> None:
        """Lines that were dropped, or taken over while this gateway was not heard. And the other
        way round, those that it holds and knows nothing of."""
        for identity in self._open.keys() - outlook.own:
            self._open[identity].task.cancel()
        if lost := outlook.own - self._open.keys():
            await self.desk.do(self.desk.queue.let_go, lost, now_s + PAUSE_S)

    async def _stop_unwanted(self, outlook: Outlook, now_s: float) -> None:
        """Batches end with the credential that they were made with."""
        for batch_id, key_id, workload in outlook.batches:
            try:
                caller_of(self._exchange, key_id, workload)
            except NoCaller as gone:
                problem = Problem(gone.code, str(gone))
                await self.desk.do(self.desk.batches.fail, batch_id, now_s, [problem])
                self.wake()

    async def _open_lines(
        self, relay: Relay, kind: Kind, waiting: Waiting, outlook: Outlook, now_s: float
    ) -> None:
        workload = self._exchange.catalogue.workloads.get(kind.workload)
        if workload is None:
            return
        rules = workload.batch
        seen = self._survey(kind, outlook, relay.ejected())
        claim = partial(self._claim, relay, kind, now_s=now_s, of_workload=rules.max_concurrency)
        if seen.denied in FOR_GOOD and not is_stale(self._exchange):
            await claim("", waiting.pending, ())
            return
        opened = 0
        with_room: dict[str, int] = {}
        for room in seen.rooms:
            most = 0 if self._admission.queue.wanted(room.endpoint) else idle(room, rules)
            if most:
                with_room[room.endpoint] = most
        for place, most in with_room.items():
            if opened < waiting.pending:
                opened += await claim(place, waiting.pending - opened, with_room, at_place=most)
        concurrency = min(rules.max_concurrency, max(seen.slots, 1.0))
        due = needed(waiting.works, concurrency, now_s) - waiting.open - opened
        if due > 0:
            await claim("", due, ())

    async def _claim(
        self,
        relay: Relay,
        kind: Kind,
        place: str,
        count: int,
        with_room: Collection[str],
        now_s: float,
        of_workload: int,
        at_place: int | None = None,
    ) -> int:
        """Opens so many lines at most, and says how many."""
        desk = self.desk
        claimed = await desk.do(
            desk.queue.claim, self._owner, kind, place, now_s, count, of_workload, at_place
        )
        for line in claimed:
            run = LineRun(
                line, with_room, self._exchange, self._intake, relay, self._observer, desk
            )
            self._open[line.identity] = _Open(run, asyncio.create_task(self._to_its_end(run)))
        return len(claimed)

    def _survey(self, kind: Kind, outlook: Outlook, ejected: Mapping[str, str]) -> Survey:
        facts = Facts(
            workload=kind.workload,
            model=kind.model,
            claimed=DataClass(kind.data_class),
            snapshot_age_s=self._exchange.snapshot_age_s,
            inflight=self._telemetry.inflight.counts,
            excluded=ejected,
        )
        return survey(facts, self._exchange.view, self._sent(), outlook.others_sent)

    def _open_by_workload(self) -> dict[tuple[str, ...], float]:
        lines = Counter(open_.run.line.kind.workload for open_ in self._open.values())
        return {(workload,): count for workload, count in lines.items()}

    def _sent(self) -> dict[str, int]:
        """Lines that are open upstream, by endpoint."""
        return Counter(open_.run.endpoint for open_ in self._open.values() if open_.run.endpoint)

    async def _to_its_end(self, run: LineRun) -> None:
        outcome: Answered | PutBack
        try:
            outcome = await run.outcome()
        except asyncio.CancelledError:
            self._open.pop(run.line.identity, None)
            raise
        except (sqlite3.Error, OSError) as error:
            log.error("a line of %s waits: %s", run.line.batch_id, type(error).__name__)
            outcome = PutBack(PAUSE_S)
        said = "completed" if isinstance(outcome, Answered) and outcome.ok else "failed"
        said = "put_back" if isinstance(outcome, PutBack) else said
        self._telemetry.line_ended(run.line.kind.workload, said)
        self._outcomes.append((run.line, outcome))
        self.wake()

    async def _record(self) -> None:
        """Outcomes are kept until they are recorded."""
        outcomes = list(self._outcomes)
        if outcomes:
            await self.desk.do(self.desk.queue.record, outcomes, time.time())
            del self._outcomes[: len(outcomes)]
            for line, _ in outcomes:
                self._open.pop(line.identity, None)

    async def _do_jobs(self) -> None:
        desk, owner = self._back_office, self._owner
        try:
            while batch := await self._next_job():
                spec = self._exchange.catalogue.configuration.gateway
                await desk.do(work_on, batch, owner, desk.batches, desk.files, spec)
                self.wake()
        except Exception as error:
            log.error("a batch waits: %s", without_text(error))
            with suppress(sqlite3.Error, OSError):
                await desk.do(desk.batches.drop_job, owner)
            await asyncio.sleep(PAUSE_S)

    async def _next_job(self) -> Batch | None:
        desk = self._back_office
        return await desk.do(desk.batches.take_job, self._owner, time.time())

    def _tidy(self, now_s: float) -> None:
        if now_s - self._tidied_s < TIDY_S or not (self._job is None or self._job.done()):
            return
        self._tidied_s = now_s
        self._job = asyncio.create_task(self._put_away(now_s))

    async def _put_away(self, now_s: float) -> None:
        desk = self._back_office
        retention_s = self._exchange.catalogue.configuration.gateway.batches.retention_s
        try:
            await desk.do(desk.batches.forget, now_s, retention_s)
            await desk.do(desk.files.expire, now_s)
            await desk.do(desk.files.sweep, now_s, UNFINISHED_S)
        except Exception as error:
            log.error("old files and batches stay: %s", without_text(error))


def _first_deadline(item: tuple[Kind, Waiting]) -> float:
    return min(work.deadline_s for work in item[1].works)
