"""The control loop: observe, plan, execute, publish."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.capacity.override import Override
from orchestrator.capacity.planner import Observation, Plan, plan
from orchestrator.controller.charges import (
    gpus,
    last_prices,
    pool_of,
    token_usd,
    used_tokens,
)
from orchestrator.controller.chronicle import Chronicle
from orchestrator.controller.clock import SteadyClock
from orchestrator.controller.events import EventKind, EventLog
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.keeper import Keeper
from orchestrator.controller.memory import Memory, PoolHold
from orchestrator.controller.metrics import ControllerMetrics, Tick
from orchestrator.controller.outlook import Outlook
from orchestrator.controller.quotes import Quotes
from orchestrator.controller.status import status
from orchestrator.controller.strays import Strays
from orchestrator.controller.sweeper import Sweeper
from orchestrator.controller.traffic import Traffic, silence_s
from orchestrator.ledger.audit_anchors import Head
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import (
    BurstPhase,
    BurstState,
    EndpointState,
    Hold,
    Quote,
    Snapshot,
)
from orchestrator.safe_log import without_text
from orchestrator.signals.latency import mean, quantile
from orchestrator.signals.report import GatewayReport

log = logging.getLogger("orchestrator.controller")

ADVISED = BurstState(reason="advisory mode: nothing is done, see 'burst status'")
UNSEEN_S = 60
"""Without a tick for longer, no condition is taken to have lasted in between."""
MAX_GAP_S = 3600
"""Without a controller for longer, nobody knows any more what ran for how long."""


class Controller:
    def __init__(
        self,
        catalogue: Catalogue,
        fleet: Fleet,
        memory_path: Path,
        now_s: float,
        events: EventLog | None = None,
        leads: Callable[[], bool] = lambda: True,
        clock: SteadyClock | None = None,
    ) -> None:
        """`events`: none: beside the memory. `leads`: whether this process may act. `clock`: that
        `now_s` was read from."""
        self._catalogue = catalogue
        self._applied: Catalogue | None = None
        """Rules that are taken up at the next tick."""
        self._fleet = fleet
        self._leads = leads
        self.metrics = ControllerMetrics()
        self.metrics.leader.set(1)
        self.events = events or EventLog(memory_path.with_name("events.jsonl"))
        self._chronicle = Chronicle(self.events)
        self._strays = Strays()
        self.clock = clock or SteadyClock()
        self._keeper = Keeper(memory_path, leads)
        self._memory = Memory.read(memory_path)
        self._looked_s = self._memory.charged_to_s
        """When the last tick was, of this controller or one before."""
        self._memory.follow(catalogue, now_s)
        fleet.warm.update(self._memory.warm)
        fleet.watch(self._memory.clusters)
        configuration = catalogue.configuration
        self._traffic = Traffic(
            configuration.controller.window_s,
            silence_s(configuration),
            None if self._memory.charged_to_s is None else now_s,
        )
        self._outlook = Outlook(catalogue, memory_path.with_name("load.npz"), now_s)
        self._quotes = Quotes(configuration, self._memory.quotes, now_s)
        path = memory_path.with_name("zombies.json")
        self._sweeper = Sweeper(fleet, self._traffic, self._memory, self.events, path)
        # Versions rise over restarts too, or gateways could hold one that means another state.
        self.snapshot = Snapshot(
            version=max(int(now_s), self._memory.version),
            config_version=catalogue.version,
            created_at_s=now_s,
        )
        self._published = False
        self._last_tick: dict[str, float] = {}
        """How long it took, and the calls that it made of clusters and engines."""

    @property
    def config_version(self) -> str:
        """Of the rules that the next tick goes by."""
        return (self._applied or self._catalogue).version

    def adopt(self, catalogue: Catalogue) -> None:
        """Other rules from the next tick on: a tick that runs ends by those that it began with."""
        self._applied = catalogue

    def _take_up(self, catalogue: Catalogue, now_s: float) -> None:
        """What was measured, spent and started is kept."""
        self.events.record(EventKind.RULES, catalogue.version, "is in force", now_s=now_s)
        configuration = catalogue.configuration
        self._catalogue = catalogue
        self._fleet.follow(catalogue)
        self._memory.follow(catalogue, now_s)
        self._traffic.follow(configuration.controller.window_s, silence_s(configuration))
        self._quotes.follow(configuration, now_s)
        self._outlook.follow(catalogue)

    def audit_heads(self) -> list[Head]:
        """The ends of the gateways' audit chains, as they report them."""
        return [
            Head(gateway, report.audit_head.seq, report.audit_head.hash)
            for gateway, report in self._traffic.reports().items()
            if report.audit_head is not None
        ]

    async def run(self) -> None:
        """Ticks until cancelled, each a `tick_s` after the one before began, or soon after its
        end where it took longer; a tick that fails is logged and the next one tries again."""
        while True:
            began_s, calls = time.monotonic(), self._fleet.calls
            try:
                with self.metrics.tick_duration_s.time():
                    await self.tick(self.clock.now_s())
            except Exception as error:
                self.metrics.tick_failures.inc()
                log.error("a tick failed: %s", without_text(error))
            self._last_tick = {
                "duration_s": round(time.monotonic() - began_s, 4),
                "calls": self._fleet.calls - calls,
            }
            self._chronicle.clock(self.clock.step_s(), self.clock.now_s())
            self.events.flush()
            tick_s = self._catalogue.configuration.controller.tick_s
            # Some rest always, or reports would wait for ticks.
            await asyncio.sleep(max(began_s + tick_s - time.monotonic(), tick_s / 10))

    async def watch(self) -> None:
        """Sweeps for zombies until cancelled; a sweep that fails is logged."""
        while True:
            await asyncio.sleep(self._catalogue.configuration.zombies.sweep_s)
            try:
                await self.sweep(self.clock.now_s())
            except Exception as error:
                log.error("a sweep failed: %s", without_text(error))

    async def sweep(self, now_s: float) -> None:
        if not self._published or not self._leads():
            return
        await self._sweeper.sweep(self._catalogue, self.snapshot, now_s)
        self.metrics.found(self._sweeper.findings)
        if self._acts and self._leads():
            self._sweeper.give_back_due(self._catalogue, now_s)

    def zombies(self) -> dict[str, Any]:
        """Those of the last sweep, and why each cannot be given back now."""
        found = self._sweeper.give_back((), True, self._catalogue, self.clock.now_s())
        return {
            "swept_at_s": self._sweeper.swept_at_s,
            "zombies": [f.model_dump(mode="json") | {"obstacle": why} for f, why in found],
        }

    async def reclaim(self, subjects: list[str], dry_run: bool) -> list[dict[str, Any]]:
        """Gives zombies back, after another look. None are named: all that may be. Raises KeyError
        for what is no zombie."""
        await self.sweep(now_s := self.clock.now_s())
        found = self._sweeper.give_back(subjects, dry_run, self._catalogue, now_s)
        return [f.model_dump(mode="json") | {"obstacle": why} for f, why in found]

    async def tick(self, now_s: float) -> None:
        if self._applied is not None:
            applied, self._applied = self._applied, None
            self._take_up(applied, now_s)
        self._quotes.refresh(now_s)
        await self._fleet.observe(now_s)
        if not self._fleet.is_known(now_s):
            return
        memory = self._memory
        self._skip_gap(now_s)
        for subject in memory.expire(now_s):
            self.events.record(EventKind.HOLD, subject, "is held no longer", "over", now_s=now_s)
        quotes = self._quotes.at(now_s)
        endpoints = {e: self._endpoint(e, now_s) for e in self._catalogue.candidates}
        budget_left = self._budget_left(now_s)
        observation = self._observation(endpoints, quotes, budget_left, now_s)
        planned = plan(self._catalogue, observation, memory.decided(), now_s)
        version = self.snapshot.version + 1
        self._chronicle.advice = not self._acts
        self._chronicle.planned(memory, planned, observation, now_s)
        self._chronicle.left(self._fleet.left, now_s)
        self._chronicle.clusters(self._fleet.unseen, now_s)
        self._chronicle.failures(self._fleet.failures, now_s)
        self._chronicle.prices(self._quotes.troubles(), now_s)
        for stray in self._strays.follow(self._fleet.unowned, version, now_s):
            self._chronicle.strayed(stray, pool_of(stray.found) in memory.prices, now_s)
        self._remember(planned, quotes, version, now_s)
        if not self._leads():
            return
        # Before anybody can act on it: a controller that comes after must know what this one said.
        await self._write(now_s)
        if not self._leads():
            return
        self.snapshot = Snapshot(
            version=version,
            config_version=self._catalogue.version,
            created_at_s=now_s,
            endpoints=endpoints,
            quotes=quotes,
            prompt_tokens=self._outlook.prompt_tokens,
            holds={pool: held.hold for pool, held in memory.holds.items()},
            bursts=planned.bursts if self._acts else dict.fromkeys(planned.bursts, ADVISED),
            budget_left_usd=budget_left,
        )
        self._published = True
        self.metrics.show(
            Tick(
                catalogue=self._catalogue,
                snapshot=self.snapshot,
                targets=planned.targets,
                existing=observation.replicas,
                cost_usd=memory.costs.by_pool,
                gateways=len(self._traffic.reports()),
                events=self.events.counts,
                clock_step_s=self.clock.step_s(),
            )
        )
        self._outlook.write_when_due(now_s)
        self._execute(planned, observation, now_s)

    def _skip_gap(self, now_s: float) -> None:
        gap_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        if not self._published or not 0 <= gap_s <= UNSEEN_S:
            self._memory.skip(gap_s)
        self._looked_s = now_s

    @property
    def _acts(self) -> bool:
        return self._catalogue.configuration.controller.mode == "active"

    def _observation(
        self,
        endpoints: dict[str, EndpointState],
        quotes: dict[str, Quote],
        budget_left: dict[str, float],
        now_s: float,
    ) -> Observation:
        fleet, limit_s = self._fleet, self._catalogue.configuration.controller.drain_timeout_s
        load = self._traffic.take_load()
        replicas = {e: fleet.replicas(e) for e in self._catalogue.candidates}
        progress = {e: fleet.progress(e) for e in self._catalogue.candidates}
        return Observation(
            endpoints=endpoints,
            replicas={e: found.total for e, found in replicas.items()},
            quotes=quotes,
            budget_left_usd=budget_left,
            oldest_snapshot=self._traffic.oldest_snapshot(now_s),
            standing={e: found.standing for e, found in replicas.items()},
            progress={e: found for e, found in progress.items() if found is not None},
            unheard=fleet.unheard(now_s, limit_s),
            held=frozenset(self._memory.holds),
            load=load,
            forecasts=self._outlook.observe(load, now_s),
        )

    def _remember(
        self, planned: Plan, quotes: dict[str, Quote], version: int, now_s: float
    ) -> None:
        memory = self._memory
        for workload, state in planned.bursts.items():
            if state.phase is BurstPhase.DRAINING:
                memory.draining_published.setdefault(workload, version)
            else:
                memory.draining_published.pop(workload, None)
        memory.bursts, memory.targets = planned.bursts, planned.targets
        # What is only advised never comes, and is no failure.
        memory.provisions = planned.provisions if self._acts else {}
        memory.excess = planned.excess
        memory.warm, memory.version = sorted(self._fleet.warm), version
        memory.drop_what_is_done()
        memory.quotes, memory.clusters = quotes, self._fleet.watched
        self._charge(quotes, now_s)

    async def _write(self, now_s: float) -> None:
        """A disk that does not take it is no reason to stand still: what exists is found again by
        whoever comes after, and is paid for from when the memory was written last."""
        try:
            await self._keeper.write(self._memory)
            self._chronicle.state("", now_s)
        except OSError as error:
            self._chronicle.state(error.strerror or type(error).__name__, now_s)

    def _execute(self, planned: Plan, observation: Observation, now_s: float) -> None:
        targets, fleet = planned.targets, self._fleet
        given_up = frozenset(e for e, p in planned.provisions.items() if p.given_up(now_s))
        short = [e for e, target in targets.items() if observation.standing[e] != target]
        for endpoint in targets.keys() - set(short):
            self._chronicle.reached(endpoint)
        orders = fleet.set_targets(targets, given_up, now_s) if self._acts else short
        for endpoint in orders:
            self._chronicle.ordered(endpoint, targets[endpoint], planned.reasons[endpoint], now_s)
        limit_s = self._catalogue.configuration.controller.drain_timeout_s
        for stray in self._strays.idle(self._traffic, fleet.unowned_metrics, limit_s, now_s):
            if not self._acts or fleet.release(stray.cluster, stray.found.name):
                self._chronicle.released(stray, now_s)

    def exchange(self, report: GatewayReport, now_s: float) -> Snapshot | None:
        """None, and the report is not taken, while this controller does not know the fleet yet:
        gateways keep what they have."""
        if not self._published:
            return None
        self._traffic.take(report, now_s)
        return self.snapshot

    async def hold(self, pool: str, hold: Hold | None, until_s: float | None = None) -> None:
        """From the next tick on, also after a restart. None: no more. Raises KeyError for a pool
        that is not configured, and OSError where it cannot be written: then it does not hold."""
        if pool not in self._catalogue.pools:
            raise KeyError(pool)

        def change(memory: Memory) -> None:
            holds = {p: held for p, held in memory.holds.items() if p != pool}
            # The rules may have changed while the disk took it.
            if hold is not None and pool in self._catalogue.pools:
                holds[pool] = PoolHold(hold=hold, until_s=until_s)
            memory.holds = holds

        await self._keeper.change(self._memory, change)
        what = f"is {hold.value}{_until(until_s)}" if hold else "is resumed"
        self.events.record(EventKind.HOLD, pool, what, "by hand", now_s=self.clock.now_s())

    async def override(self, workload: str, override: Override) -> None:
        """Somebody's word on a burst, from the next tick on, also after a restart. Raises KeyError
        for a workload that is not configured, ValueError for what the rules do not allow, and
        OSError where it cannot be written: then it does not hold."""
        if workload not in self._catalogue.workloads:
            raise KeyError(workload)
        away = self._catalogue.burst_pools(workload)
        if not away:
            raise ValueError(f"workload '{workload}' has no burst in the rules")
        if override.pool is not None and override.pool not in away:
            known = ", ".join(away)
            raise ValueError(f"workload '{workload}' may burst to {known}, not '{override.pool}'")

        def change(memory: Memory) -> None:
            memory.overrides = memory.overrides | {workload: override}

        await self._keeper.change(self._memory, change)
        where = f" to {override.pool}" if override.pool else ""
        what = f"burst: {override.kind.value}{where}{_until(override.until_s)}"
        self.events.record(EventKind.HOLD, workload, what, "by hand", now_s=self.clock.now_s())

    def published(self) -> Snapshot | None:
        return self.snapshot if self._published else None

    def state(self) -> dict[str, Any]:
        """Everything that `status` shows."""
        shown = status(
            self._catalogue,
            self.snapshot,
            self._memory,
            self._fleet,
            self._traffic,
            self._quotes,
            self._strays.known(),
            self.clock.now_s(),
        )
        return {**shown, "last_tick": self._last_tick}

    def _endpoint(self, endpoint: str, now_s: float) -> EndpointState:
        ages_s = self._traffic.waiting_ages_s(endpoint, now_s)
        queued_s = self._traffic.queued_ages_s(endpoint, now_s)
        ttft = self._traffic.ttft(endpoint).merged(now_s, [*ages_s, *queued_s])
        metrics = self._fleet.metrics.get(endpoint)
        ready = self._fleet.ready(endpoint, now_s)
        inflight = self._traffic.inflight(endpoint, now_s)
        return EndpointState(
            ready_replicas=ready,
            # The front answers for one replica; the others are taken to be like it.
            running=metrics.running * max(ready, 1) if metrics else 0,
            waiting=metrics.waiting * max(ready, 1) if metrics else len(ages_s),
            queued=self._traffic.queued(endpoint, now_s),
            inflight=inflight,
            ttft_p50_s=quantile(ttft, 0.5),
            ttft_p95_s=quantile(ttft, 0.95),
            slot_s=mean(self._traffic.slot(endpoint).merged(now_s)),
        )

    def _budget_left(self, now_s: float) -> dict[str, float]:
        costs = self._memory.costs
        today = time.strftime("%Y-%m-%d", time.gmtime(now_s))
        spent = costs.burst_today_by_workload if costs.day == today else {}
        return {
            w.name: w.budget.usd_per_day - spent.get(w.name, 0.0)
            for w in self._catalogue.configuration.workloads
            if w.budget is not None
        }

    def _charge(self, quotes: dict[str, Quote], now_s: float) -> None:
        """Replicas that exist cost their pool's price, whether they serve or not, and whether a
        controller was there to see it."""
        memory, fleet = self._memory, self._fleet
        since_s = now_s if memory.charged_to_s is None else memory.charged_to_s
        hours = min(max(now_s - since_s, 0), MAX_GAP_S) / 3600
        memory.charged_to_s = now_s
        tokens = self._traffic.take_tokens()
        unowned = [u for found in fleet.unowned.values() for u in found]
        memory.prices = last_prices(
            memory.prices, self._catalogue, quotes, unowned, bool(fleet.removed)
        )
        for pool in self._catalogue.pools:
            used = used_tokens(tokens, pool)
            by_token = token_usd(self._catalogue, pool, used)
            if by_token:
                # Each is paid for by who used it, out of its budget.
                memory.costs.add(pool, by_token, used, list(used), now_s)
        replicas = {e: fleet.replicas(e).total for e in self._catalogue.candidates}
        for pool, count in gpus(self._catalogue, replicas, unowned, memory.prices).items():
            bursting = [w for w, s in memory.bursts.items() if s.pool == pool]
            usd = count * hours * memory.prices[pool].usd_per_gpu_hour
            memory.costs.add(pool, usd, used_tokens(tokens, pool), bursting, now_s)


def _until(until_s: float | None) -> str:
    return "" if until_s is None else time.strftime(" until %H:%M:%S UTC", time.gmtime(until_s))
