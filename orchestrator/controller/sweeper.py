"""Looks for zombies beside the ticks, reports them, and gives back what may be given back."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import RootModel, ValidationError

from orchestrator.capacity.burst import in_hours
from orchestrator.capacity.override import Override, OverrideKind
from orchestrator.controller.events import EventKind, EventLog
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.memory import Memory
from orchestrator.controller.traffic import Traffic
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, Snapshot
from orchestrator.pools import exporters
from orchestrator.pools.actuator import PoolError, Unowned
from orchestrator.signals.dcgm import Gpu
from orchestrator.signals.reading import Reading
from orchestrator.zombies.find import find
from orchestrator.zombies.finding import Finding, Kind, Note
from orchestrator.zombies.reclaim import due, obstacle
from orchestrator.zombies.sweep import Endpoint, Engine, Instance, Sweep

log = logging.getLogger("orchestrator.controller")

Key = TypeVar("Key")
T = TypeVar("T")
Notebook = RootModel[dict[str, Note]]


class Sweeper:
    def __init__(
        self,
        fleet: Fleet,
        traffic: Traffic,
        memory: Memory,
        events: EventLog,
        path: Path,
    ) -> None:
        """`path`: where the notes stand between sweeps."""
        self._fleet = fleet
        self._traffic = traffic
        self._memory = memory
        self._events = events
        self._path = path
        self._notes = _read(path)
        self._gpus: dict[tuple[str, str], Reading[list[Gpu]]] = {}
        """By cluster and exporter."""
        self._adapters: dict[str, Reading[frozenset[str]]] = {}
        """By endpoint."""
        self.findings: list[Finding] = []
        self.swept_at_s: float | None = None
        self._known = {k for k, note in self._notes.items() if note.reported_s is not None}
        self._sweeping = asyncio.Lock()

    async def sweep(self, catalogue: Catalogue, snapshot: Snapshot, now_s: float) -> None:
        """One look, and an event for each zombie that is new."""
        async with self._sweeping:
            await self._sweep(catalogue, snapshot, now_s)

    async def _sweep(self, catalogue: Catalogue, snapshot: Snapshot, now_s: float) -> None:
        await self._ask(catalogue, now_s)
        sweep = self._gather(catalogue, snapshot, now_s)
        self.findings, self._notes = find(sweep, self._notes, catalogue, now_s)
        self.swept_at_s = now_s
        for finding in self.findings:
            if finding.key not in self._known:
                what = f"is a zombie ({finding.kind.value})"
                why = f"{finding.evidence}; mend: {finding.mend}"
                self._events.record(EventKind.ZOMBIE, finding.subject, what, why, now_s=now_s)
        self._known = {finding.key for finding in self.findings}
        try:
            await asyncio.to_thread(_write, self._path, self._notes)
        except OSError as error:
            log.warning("the notes on zombies are not written: %s", error.strerror)

    def give_back_due(self, catalogue: Catalogue, now_s: float) -> None:
        """What the policy gives back by itself."""
        for finding in due(self.findings, catalogue.configuration.zombies, now_s):
            self._give_back(finding, catalogue, "by policy", now_s)

    def give_back(
        self, subjects: Iterable[str], dry_run: bool, catalogue: Catalogue, now_s: float
    ) -> list[tuple[Finding, str | None]]:
        """By hand: these subjects, or all where none is given. Returns each with what stands in
        its way. Raises KeyError for a subject that is no zombie."""
        advisory = catalogue.configuration.controller.mode == "advisory"
        wanted = set(subjects)
        for subject in wanted - {f.subject for f in self.findings}:
            raise KeyError(subject)
        answers = []
        for finding in self.findings:
            if wanted and finding.subject not in wanted:
                continue
            reason = obstacle(finding, catalogue.configuration.zombies, now_s)
            if reason is None and advisory and finding.kind is Kind.IDLE:
                reason = "advisory mode: nothing is scaled"
            if reason is None and not dry_run:
                self._give_back(finding, catalogue, "by hand", now_s)
            answers.append((finding, reason))
        return answers

    def _give_back(self, finding: Finding, catalogue: Catalogue, why: str, now_s: float) -> None:
        if finding.kind is Kind.ORPHAN:
            cluster, _, name = finding.subject.partition("/")
            begun = self._fleet.release(cluster, name)
        else:
            begun = self._shrink(finding, catalogue)
        if begun:
            self._events.record(
                EventKind.ZOMBIE, finding.subject, "is given back", why, now_s=now_s
            )

    def _shrink(self, finding: Finding, catalogue: Catalogue) -> bool:
        """Fewer replicas from the next tick on. A burst that has none left to keep is released, and
        so drains as every burst does. Returns whether that changes anything."""
        candidate = catalogue.candidates[finding.endpoint or ""]
        standing = self._fleet.replicas(candidate.endpoint).standing
        target = max(standing - finding.replicas, candidate.pool.min_replicas)
        bursts = self._bursts_on(candidate, catalogue)
        bursting = [name for name, s in bursts.items() if s.phase is BurstPhase.BURSTING]
        if bursting and not target:
            for name in bursting:
                self._memory.overrides[name] = Override(kind=OverrideKind.RELEASE)
            return True
        before = self._memory.targets.get(candidate.endpoint)
        self._memory.targets[candidate.endpoint] = target
        return before != target

    async def _ask(self, catalogue: Catalogue, now_s: float) -> None:
        """Sources that the ticks do not need. One that does not answer keeps what it said, which
        grows old."""
        urls = [(c.name, url) for c in catalogue.clusters.values() for url in c.dcgm_urls]
        engines = [e for e in self._fleet.metrics if e in catalogue.candidates]
        self._gpus = {key: r for key, r in self._gpus.items() if key in urls}
        self._adapters = {e: r for e, r in self._adapters.items() if e in engines}
        session, at = self._fleet.session, {e: catalogue.candidates[e].url for e in engines}
        await asyncio.gather(
            *(_hear(self._gpus, key, exporters.gpus(session, key[1]), now_s) for key in urls),
            *(
                _hear(self._adapters, e, exporters.loaded_adapters(session, url), now_s)
                for e, url in at.items()
            ),
        )

    def _gather(self, catalogue: Catalogue, snapshot: Snapshot, now_s: float) -> Sweep:
        fleet = self._fleet
        return Sweep(
            known=Reading(frozenset(snapshot.endpoints), snapshot.created_at_s),
            endpoints={
                name: self._endpoint(candidate, catalogue, now_s)
                for name, candidate in catalogue.candidates.items()
                if candidate.cluster.kind != "openai"
            },
            instances=tuple(
                self._instance(cluster, found, now_s)
                for cluster, all_found in fleet.unowned.items()
                if cluster not in fleet.unseen
                for found in all_found
            ),
            gpus=tuple((cluster, reading) for (cluster, _), reading in self._gpus.items()),
            quotes=snapshot.quotes,
        )

    def _endpoint(self, candidate: Candidate, catalogue: Catalogue, now_s: float) -> Endpoint:
        fleet, traffic, memory = self._fleet, self._traffic, self._memory
        name, pool = candidate.endpoint, candidate.pool.name
        replicas, ready = fleet.replicas(name), fleet.ready(name, now_s)
        progress = fleet.progress(name)
        target = memory.targets.get(name, 0)
        bursts = self._bursts_on(candidate, catalogue)
        declared = any(self._is_kept(w, s, catalogue, now_s) for w, s in bursts.items())
        inflight = sum(traffic.inflight(name, now_s).values()) + traffic.queued(name, now_s)
        engine = Engine(name, max(ready, 1), fleet.heard(name), self._adapters.get(name))
        return Endpoint(
            observed_s=None if candidate.cluster.name in fleet.unseen else fleet.seen_s(name),
            ready=ready,
            starting=replicas.starting,
            target=target,
            standby=max(candidate.pool.min_replicas, target if declared else 0),
            held=pool in memory.holds or replicas.leaving > 0,
            draining=any(s.phase is BurstPhase.DRAINING for s in bursts.values()),
            # What is known to be open is open, whoever else is silent.
            open_requests=inflight if inflight or traffic.all_report(now_s) else None,
            served=traffic.served(name),
            pending_since_s=replicas.pending_since_s,
            failed=progress.failed if progress else None,
            engines=(engine,) if ready else (),
        )

    def _bursts_on(self, candidate: Candidate, catalogue: Catalogue) -> dict[str, BurstState]:
        """By workload: of all on its pool those whose replicas these are, or may be."""
        pool = candidate.pool.name
        return {
            workload: state
            for workload, state in self._memory.bursts.items()
            if state.pool == pool and catalogue.burst_candidate(workload, pool) in (candidate, None)
        }

    def _is_kept(
        self, workload: str, state: BurstState, catalogue: Catalogue, now_s: float
    ) -> bool:
        """Whether somebody has declared that the burst keeps its replicas, with work or without."""
        spec = catalogue.workloads[workload].burst if workload in catalogue.workloads else None
        if spec is None or state.phase is not BurstPhase.BURSTING:
            return False
        override = self._memory.overrides.get(workload)
        by_hand = override is not None and override.kind is not OverrideKind.RELEASE
        young = now_s - state.since_s < spec.min_dwell_s
        return by_hand or young or any(in_hours(hours, now_s) for hours in spec.schedule)

    def _instance(self, cluster: str, found: Unowned, now_s: float) -> Instance:
        said = self._fleet.unowned_metrics.get(found.url or "")
        busy: bool | None = None
        if found.endpoint is not None and self._traffic.inflight(found.endpoint, now_s):
            busy = True
        elif not found.replicas.ready + found.replicas.leaving:
            busy = False
        elif said is not None:
            busy = said.running + said.waiting > 0
        return Instance(found.name, cluster, now_s, found.endpoint, found.replicas.total, busy)


async def _hear(
    readings: dict[Key, Reading[T]], key: Key, answer: Awaitable[T], now_s: float
) -> None:
    try:
        readings[key] = Reading(await answer, now_s)
    except PoolError as error:
        log.debug("%s", error.summary)


def _read(path: Path) -> dict[str, Note]:
    """Nothing where there are none: what is suspicious is so from then on."""
    try:
        return Notebook.model_validate_json(path.read_bytes()).root
    except (OSError, ValidationError):
        return {}


def _write(path: Path, notes: dict[str, Note]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(Notebook(notes).model_dump_json())
    os.replace(draft, path)
