"""The control loop: observe, plan, execute, publish."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from orchestrator.capacity.planner import Decided, Observation, plan
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.memory import Memory
from orchestrator.controller.metrics import ControllerMetrics, Tick
from orchestrator.controller.traffic import Traffic
from orchestrator.ledger.audit_anchors import Head
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, EndpointState, Hold, Quote, Snapshot
from orchestrator.signals.latency import mean, quantile
from orchestrator.signals.prices import FeedError, FileFeed
from orchestrator.signals.report import GatewayReport

log = logging.getLogger("orchestrator.controller")

MAX_GAP_S = 3600
"""Without a controller for longer, nobody knows any more what ran for how long."""


class Controller:
    def __init__(self, catalogue: Catalogue, fleet: Fleet, memory_path: Path, now_s: float) -> None:
        self._catalogue = catalogue
        self._applied: Catalogue | None = None
        """Rules that are taken up at the next tick."""
        self._fleet = fleet
        self.metrics = ControllerMetrics()
        self._memory_path = memory_path
        self._memory = Memory.read(memory_path)
        self._memory.follow(catalogue, now_s)
        fleet.warm.update(self._memory.warm)
        configuration = catalogue.configuration
        self._traffic = Traffic(
            configuration.controller.window_s, configuration.policy.snapshot_stale_s
        )
        self._feeds = {f.name: FileFeed(f, now_s) for f in configuration.price_feeds}
        # Versions rise over restarts too, or gateways could hold one that means another state.
        self.snapshot = Snapshot(
            version=max(int(now_s), self._memory.version),
            config_version=catalogue.version,
            created_at_s=now_s,
        )
        self._published = False

    @property
    def config_version(self) -> str:
        """Of the rules that the next tick goes by."""
        return (self._applied or self._catalogue).version

    def adopt(self, catalogue: Catalogue) -> None:
        """Other rules from the next tick on: a tick that runs ends by those that it began with."""
        self._applied = catalogue

    def _take_up(self, catalogue: Catalogue, now_s: float) -> None:
        """What was measured, spent and started is kept."""
        configuration = catalogue.configuration
        self._catalogue = catalogue
        self._fleet.follow(catalogue)
        self._memory.follow(catalogue, now_s)
        self._traffic.follow(
            configuration.controller.window_s, configuration.policy.snapshot_stale_s
        )
        feeds = {f.name: FileFeed(f, now_s) for f in configuration.price_feeds}
        unchanged = {n: f for n, f in self._feeds.items() if n in feeds and f.spec == feeds[n].spec}
        self._feeds = feeds | unchanged

    def audit_heads(self) -> list[Head]:
        """The ends of the gateways' audit chains, as they report them."""
        return [
            Head(gateway, report.audit_head.seq, report.audit_head.hash)
            for gateway, report in self._traffic.reports().items()
            if report.audit_head is not None
        ]

    async def run(self) -> None:
        """Ticks until cancelled; a tick that fails is logged and the next one tries again."""
        self.metrics.leader.set(1)
        while True:
            try:
                with self.metrics.tick_duration_s.time():
                    await self.tick(time.time())
            except Exception:
                self.metrics.tick_failures.inc()
                log.exception("a tick failed")
            await asyncio.sleep(self._catalogue.configuration.controller.tick_s)

    async def tick(self, now_s: float) -> None:
        if self._applied is not None:
            applied, self._applied = self._applied, None
            self._take_up(applied, now_s)
        await self._fleet.observe(now_s)
        if not self._fleet.is_known(now_s):
            return
        quotes = self._quotes(now_s)
        endpoints = {e: self._endpoint(e, now_s) for e in self._catalogue.candidates}
        budget_left = self._budget_left(now_s)
        memory, candidates = self._memory, self._catalogue.candidates
        replicas = {e: self._fleet.replicas(e) for e in candidates}
        progress = {e: self._fleet.progress(e) for e in candidates}
        limit_s = self._catalogue.configuration.controller.drain_timeout_s
        observation = Observation(
            endpoints=endpoints,
            replicas={e: found.total for e, found in replicas.items()},
            quotes=quotes,
            budget_left_usd=budget_left,
            oldest_snapshot=self._traffic.oldest_snapshot(now_s),
            standing={e: found.standing for e, found in replicas.items()},
            progress={e: found for e, found in progress.items() if found is not None},
            unheard=self._fleet.unheard(now_s, limit_s),
            held=frozenset(memory.holds),
        )
        decided = Decided(
            memory.bursts, memory.targets, memory.draining_published, memory.provisions
        )
        planned = plan(self._catalogue, observation, decided, now_s)
        version = self.snapshot.version + 1
        for workload, state in planned.bursts.items():
            before = memory.bursts.get(workload)
            if before is None or before.phase is not state.phase:
                log.info("%s is %s: %s", workload, state.phase.value, state.reason)
            elif state.phase is BurstPhase.DRAINING and before.reason != state.reason:
                log.warning("%s still drains: %s", workload, state.reason)
            if state.phase is BurstPhase.DRAINING:
                memory.draining_published.setdefault(workload, version)
            else:
                memory.draining_published.pop(workload, None)
        memory.bursts, memory.targets = planned.bursts, planned.targets
        memory.provisions = planned.provisions
        memory.warm, memory.version = sorted(self._fleet.warm), version
        self._charge(quotes, now_s)
        # Before anybody can act on it: a controller that comes after must know what this one said.
        await asyncio.to_thread(memory.write, self._memory_path)
        self.snapshot = Snapshot(
            version=version,
            config_version=self._catalogue.version,
            created_at_s=now_s,
            endpoints=endpoints,
            quotes=quotes,
            holds=dict(memory.holds),
            bursts=planned.bursts,
            budget_left_usd=budget_left,
        )
        self._published = True
        self.metrics.show(
            Tick(
                self._catalogue,
                self.snapshot,
                planned.targets,
                observation.replicas,
                memory.costs.by_pool,
                len(self._traffic.reports()),
            )
        )
        given_up = frozenset(e for e, p in planned.provisions.items() if p.given_up(now_s))
        self._fleet.set_targets(planned.targets, given_up, now_s)

    def exchange(self, report: GatewayReport, now_s: float) -> Snapshot | None:
        """None, and the report is not taken, while this controller does not know the fleet yet:
        gateways keep what they have."""
        if not self._published:
            return None
        self._traffic.take(report, now_s)
        return self.snapshot

    def hold(self, pool: str, hold: Hold | None) -> None:
        """From the next tick on, also after a restart. None: no more. Raises KeyError for a pool
        that is not configured."""
        if pool not in self._catalogue.pools:
            raise KeyError(pool)
        if hold is None:
            self._memory.holds.pop(pool, None)
        else:
            self._memory.holds[pool] = hold
        log.info("pool %s: %s", pool, hold.value if hold else "resumed")

    def published(self) -> Snapshot | None:
        return self.snapshot if self._published else None

    def state(self) -> dict[str, Any]:
        """Everything that `status` shows."""
        snapshot, now_s = self.snapshot, time.time()
        costs = self._memory.costs
        away = {p for w in self._catalogue.workloads for p in self._catalogue.burst_pools(w)}
        return {
            "time_s": now_s,
            "config_version": snapshot.config_version,
            "snapshot_version": snapshot.version,
            "gateways": {
                gateway: {
                    "config_version": report.config_version,
                    "snapshot_version": report.snapshot_version,
                }
                for gateway, report in self._traffic.reports().items()
            },
            "pools": {name: self._pool_state(name, now_s) for name in self._catalogue.pools},
            "bursts": {
                name: {
                    "state": state.phase.value,
                    "pool": state.pool,
                    "since_s": state.since_s,
                    "reason": state.reason,
                }
                for name, state in snapshot.bursts.items()
            },
            "cost_usd": {
                "total": sum(costs.by_pool.values()),
                "cloud": sum(usd for pool, usd in costs.by_pool.items() if pool in away),
                "by_pool": costs.by_pool,
                "by_workload": costs.by_workload,
            },
        }

    def _pool_state(self, pool: str, now_s: float) -> dict[str, Any]:
        candidates = self._catalogue.by_pool[pool]
        quote = self.snapshot.quotes.get(pool)
        variants = {}
        for c in candidates:
            state = self.snapshot.endpoints.get(c.endpoint, EndpointState())
            variants[c.variant.name] = {
                "ready": state.ready_replicas,
                "target": self._memory.targets.get(c.endpoint, 0),
                "replicas": self._fleet.replicas(c.endpoint).total,
                "running": state.running,
                "waiting": state.waiting,
                "queued": state.queued,
                "inflight": sum(state.inflight.values()),
                "ttft_p50_s": state.ttft_p50_s,
                "ttft_p95_s": state.ttft_p95_s,
                "failure": self._fleet.failures.get(c.endpoint),
            }
        return {
            "zone": candidates[0].zone.name if candidates else None,
            "accelerator": self._catalogue.pools[pool].accelerator,
            "hold": self._memory.holds.get(pool),
            "replicas_ready": sum(v["ready"] for v in variants.values()),
            "replicas_target": sum(v["target"] for v in variants.values()),
            "replicas": sum(v["replicas"] for v in variants.values()),
            "quote": quote.model_dump() | {"stale": quote.valid_to_s < now_s} if quote else None,
            "variants": variants,
        }

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

    def _quotes(self, now_s: float) -> dict[str, Quote]:
        for feed in self._feeds.values():
            try:
                feed.refresh(now_s)
            except FeedError as error:
                log.warning("price feed %s: %s", feed.spec.name, error)
        quotes = {}
        for pool in self._catalogue.configuration.pools:
            fixed, feed_name = pool.price.fixed_usd_per_gpu_hour, pool.price.feed
            if fixed is not None:
                quotes[pool.name] = Quote(
                    usd_per_gpu_hour=fixed,
                    source="configuration",
                    fetched_at_s=now_s,
                    valid_to_s=float(2**53),
                )
            elif feed_name is not None:
                feed = self._feeds[feed_name]
                usd = feed.usd_per_gpu_hour(now_s)
                if usd is not None:
                    quotes[pool.name] = Quote(
                        usd_per_gpu_hour=usd,
                        source=feed_name,
                        fetched_at_s=feed.fetched_at_s,
                        valid_to_s=feed.fetched_at_s + feed.spec.max_age_s,
                    )
        return quotes

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
        since_s = now_s if self._memory.charged_to_s is None else self._memory.charged_to_s
        hours = min(max(now_s - since_s, 0), MAX_GAP_S) / 3600
        self._memory.charged_to_s = now_s
        tokens = self._traffic.take_tokens()
        for name, pool in self._catalogue.pools.items():
            endpoints = [c.endpoint for c in self._catalogue.by_pool[name]]
            gpus = pool.gpus_per_replica * sum(self._fleet.replicas(e).total for e in endpoints)
            if not gpus or name not in quotes:
                continue
            used: dict[str, int] = {}
            for endpoint in endpoints:
                for workload, count in tokens.get(endpoint, {}).items():
                    used[workload] = used.get(workload, 0) + count
            bursting = [w for w, s in self._memory.bursts.items() if s.pool == name]
            usd = gpus * hours * quotes[name].usd_per_gpu_hour
            self._memory.costs.add(name, usd, used, bursting, now_s)
