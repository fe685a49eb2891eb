"""How fast the simulator is, beside the same model written plainly in SimPy; and a planner's tick.

The SimPy program takes the same requests, speeds, queues and decisions: each of its requests is
decided by `decide()` as it is, each replica is a process. It has a fleet that never changes, which
spares it what the simulator does at ticks.
"""

import argparse
import gc
import random
import resource
import time
from collections import deque
from collections.abc import Generator, Iterator
from heapq import heappop, heappush
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import simpy
from rich.console import Console
from rich.table import Table

from orchestrator.capacity.forecast import SHARES, Forecast
from orchestrator.capacity.planner import Decided, Observation, plan
from orchestrator.config.load import load
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import EndpointState, Quote, Snapshot
from orchestrator.policy.view import View
from orchestrator.simulate.baselines import BASELINES
from orchestrator.simulate.fleet_model import BATCH_TOKENS
from orchestrator.simulate.policies import CapacityPolicy, Planner
from orchestrator.simulate.prices import Prices, Series
from orchestrator.simulate.run import Arrivals, Setting, simulate
from tests.benchmarks.decide import company

EXAMPLE = Path(__file__).parents[2] / "clusters" / "example"
EPOCH_S = 1_760_000_000.0
MODELS = ("chat-small", "chat-large", "coder", "clinical-notes")
BLOCK = 65_536


def example() -> Catalogue:
    loaded = load(EXAMPLE)
    return Catalogue(loaded.configuration, loaded.version)


def arrivals(catalogue: Catalogue, duration_s: float, rps: float, seed: int) -> Iterator[Arrivals]:
    """A rate that swings with the day by half, log-normal lengths, workloads at random."""
    chance = np.random.default_rng(seed)
    groups = [i for i, w in enumerate(catalogue.configuration.workloads) if w.models[0] in MODELS]
    now_s = 0.0
    while now_s < duration_s:
        level = 1 + 0.5 * np.sin(2 * np.pi * now_s / 86_400)
        gaps_s = chance.gamma(0.7, 1 / (0.7 * rps * level), BLOCK)
        at_s = now_s + np.cumsum(gaps_s)
        now_s = float(at_s[-1])
        at_s = at_s[at_s < duration_s]
        n = len(at_s)
        if n:
            yield Arrivals(
                at_s,
                np.clip(chance.lognormal(6, 1, n).round(), 1, 8000),
                np.clip(chance.lognormal(4.7, 1, n).round(), 1, 2000),
                chance.choice(groups, n),
            )


def setting(catalogue: Catalogue, tick_s: float) -> Setting:
    chance = random.Random(0)
    given = {}
    for pool in catalogue.configuration.pools:
        if pool.price.tokens is None:
            usd = 1.1 if "l40s" in pool.name else 2.6
            hours = range(24 * 15)
            given[pool.name] = Series(
                [h * 3600.0 for h in hours], [usd * chance.uniform(0.8, 1.2) for _ in hours]
            )
    prices = Prices(catalogue.configuration, given, EPOCH_S)
    return Setting(catalogue, prices, EPOCH_S, tick_s=tick_s)


class PlainReplica:
    """Goes by steps, as `simulate.kernel.replica` does; its KV cache is never full."""

    def __init__(self, env: simpy.Environment, fleet: "PlainFleet", candidate: Candidate) -> None:
        self.env, self.fleet, self.candidate = env, fleet, candidate
        performance = candidate.performance
        assert performance is not None
        n = candidate.variant.max_num_seqs
        self.step_s = performance.itl_s
        self.more_s = max(n / performance.decode_tokens_per_s - self.step_s, 0) / max(n - 1, 1)
        self.read_s = 1 / performance.prefill_tokens_per_s
        given = candidate.variant.engine_args.get("max_num_batched_tokens", BATCH_TOKENS)
        self.batch_tokens = int(given)
        self.waiting: deque[PlainRequest] = deque()
        self.reading: list[PlainRequest] = []
        self.ends: list[tuple[float, int, PlainRequest]] = []
        self.progress = 0.0
        self.changed = env.event()
        env.process(self.run())

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.reading) + len(self.ends)

    def take(self, request: "PlainRequest") -> None:
        self.waiting.append(request)
        self.changed.succeed()
        self.changed = self.env.event()

    def read(self) -> float:
        """Tokens of prompts that the next step reads."""
        budget = tokens = self.batch_tokens - len(self.ends)
        limit = self.candidate.variant.max_num_seqs
        for request in self.reading:
            piece = min(request.unread_tokens, budget)
            request.unread_tokens -= piece
            budget -= piece
        while self.waiting and budget > 0 and len(self.reading) + len(self.ends) < limit:
            request = self.waiting.popleft()
            piece = min(request.unread_tokens, budget)
            request.unread_tokens -= piece
            budget -= piece
            self.reading.append(request)
        return tokens - budget

    def run(self) -> Generator[Any, Any, None]:
        while True:
            tokens = self.read()
            step_s = tokens * self.read_s
            if self.ends:
                step_s += self.step_s + self.more_s * (len(self.ends) - 1)
            if not step_s:
                yield self.changed
                continue
            steps = 1.0
            if tokens:
                yield self.env.timeout(step_s)
            else:
                began_s, steps = self.env.now, self.ends[0][0] - self.progress
                yield self.env.timeout(steps * step_s) | self.changed
                if self.waiting and len(self.ends) < self.candidate.variant.max_num_seqs:
                    passed = ceil((self.env.now - began_s) / step_s - 1e-9)
                    steps = min(steps, max(passed, 1))
                left_s = began_s + steps * step_s - self.env.now
                if left_s > 0:
                    yield self.env.timeout(left_s)
            self.progress += steps
            self.end()

    def end(self) -> None:
        """Of a step: who has been read has its first token, who has all its tokens is gone."""
        for request in [r for r in self.reading if not r.unread_tokens]:
            self.reading.remove(request)
            request.first_token_s = self.env.now
            ends_at = self.progress + request.output_tokens - 1
            heappush(self.ends, (ends_at, request.number, request))
        while self.ends and self.ends[0][0] <= self.progress:
            _, _, request = heappop(self.ends)
            self.fleet.ended(self, request)


class PlainRequest:
    def __init__(
        self, number: int, group: int, at_s: float, prompt_tokens: float, output_tokens: float
    ) -> None:
        self.number, self.group, self.arrival_s = number, group, at_s
        self.prompt_tokens, self.output_tokens = prompt_tokens, output_tokens
        self.unread_tokens = prompt_tokens
        self.first_token_s = 0.0


class PlainFleet:
    def __init__(self, env: simpy.Environment, catalogue: Catalogue, target: Setting) -> None:
        self.env, self.catalogue = env, catalogue
        self.workloads = catalogue.configuration.workloads
        self.replicas: dict[str, list[PlainReplica]] = {
            e: [PlainReplica(env, self, c) for _ in range(c.pool.max_replicas)]
            for e, c in catalogue.candidates.items()
            if c.pool.min_replicas and c.performance is not None
        }
        self.inflight = np.zeros(len(catalogue.candidates), np.int64)
        self.queues: list[list[PlainRequest]] = [[] for _ in self.workloads]
        self.served = self.in_slo = 0
        states = {
            e: EndpointState(ready_replicas=len(self.replicas.get(e, ())))
            for e in catalogue.candidates
        }
        self.view = View(
            catalogue,
            Snapshot(
                config_version=catalogue.version,
                created_at_s=0,
                endpoints=states,
                quotes=target.prices.quotes(0.0),
            ),
            "plain",
        )

    def arrive(self, blocks: Iterator[Arrivals]) -> Generator[Any, Any, None]:
        number = 0
        for block in blocks:
            for at_s, prompt, output, group in zip(*block, strict=True):
                yield self.env.timeout(max(at_s - self.env.now, 0))
                number += 1
                request = PlainRequest(number, int(group), float(at_s), prompt, output)
                self.queues[group].append(request)
                if len(self.queues[group]) == 1:
                    self.serve(int(group))

    def serve(self, group: int) -> bool:
        request, workload = self.queues[group][0], self.workloads[group]
        facts = Facts(
            workload=workload.name,
            model=workload.models[0],
            prompt_tokens=int(request.prompt_tokens),
            inflight=self.inflight,
        )
        decision = decide(facts, self.view)
        if decision.grant is None:
            return False
        self.queues[group].pop(0)
        candidate = decision.grant.candidate
        self.inflight[candidate.number] += 1
        min(self.replicas[candidate.endpoint], key=lambda r: r.load).take(request)
        return True

    def ended(self, replica: PlainReplica, request: PlainRequest) -> None:
        self.inflight[replica.candidate.number] -= 1
        self.served += 1
        slo = self.workloads[request.group].slo
        self.in_slo += request.first_token_s - request.arrival_s <= slo.ttft_p95_s
        for group in sorted(
            range(len(self.queues)), key=lambda g: self.workloads[g].priority, reverse=True
        ):
            while self.queues[group] and self.serve(group):
                pass


def plain(target: Setting, blocks: Iterator[Arrivals]) -> int:
    """Requests that were served."""
    env = simpy.Environment()
    fleet = PlainFleet(env, target.catalogue, target)
    env.process(fleet.arrive(blocks))
    env.run()
    return fleet.served


def planner_ticks(ticks: int) -> np.ndarray[Any, Any]:
    """Seconds that each took: 50 pools, 40 variants, 100 workloads that may burst."""
    catalogue, chance = company(100, 50, 40), random.Random(0)
    decided, now_s, times_s = Decided(), EPOCH_S, []
    forecasts: dict[str, Forecast] = {}
    for tick in range(ticks):
        endpoints = {}
        for endpoint, candidate in catalogue.candidates.items():
            ready = chance.randint(0, candidate.pool.max_replicas)
            endpoints[endpoint] = EndpointState(
                ready_replicas=ready,
                running=chance.randint(0, 64 * ready),
                waiting=chance.choice([0, 0, 0, 50]),
                ttft_p95_s=chance.choice([None, 0.5, 5.0]),
            )
        replicas = {e: s.ready_replicas for e, s in endpoints.items()}
        quotes = {
            pool: Quote(
                usd_per_gpu_hour=chance.uniform(1, 5),
                source="market",
                fetched_at_s=now_s,
                valid_to_s=now_s + 60,
            )
            for pool in catalogue.pools
        }
        if tick % 10 == 0:
            # A forecaster's step.
            forecasts = {
                workload: Forecast(
                    tuple(sorted(chance.uniform(0, 20) for _ in SHARES)), 900, 180, 1.2
                )
                for workload in catalogue.workloads
            }
        seen = Observation(endpoints, replicas, quotes, {}, tick, replicas, forecasts=forecasts)
        began_s = time.perf_counter()
        planned = plan(catalogue, seen, decided, now_s)
        times_s.append(time.perf_counter() - began_s)
        decided = Decided(
            planned.bursts, planned.targets, {}, planned.provisions, excess=planned.excess
        )
        now_s += 1
    return np.array(times_s)


def measured(
    name: str, policy: CapacityPolicy, target: Setting, hours: float, rps: float, table: Table
) -> float:
    gc.collect()
    began_s = time.perf_counter()
    tally = simulate(target, arrivals(target.catalogue, hours * 3600, rps, 0), policy)
    wall_s = time.perf_counter() - began_s
    arrived = sum(w.arrived for w in tally.workloads.values())
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table.add_row(
        name,
        f"{hours:g} h",
        f"{arrived:,}",
        f"{wall_s:.1f}",
        f"{arrived / wall_s:,.0f}",
        f"{resident:.0f}",
    )
    return arrived / wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rps", type=float, default=30)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--tick-s", type=float, default=10)
    parser.add_argument("--simpy-hours", type=float, default=0.25)
    asked = parser.parse_args()
    console, catalogue = Console(), example()
    target = setting(catalogue, asked.tick_s)
    simulate(target, arrivals(catalogue, 60, 10, 1), Planner(catalogue))  # compiles
    table = Table("simulator", "time", "requests", "wall s", "requests/s", "RSS MB")
    static = BASELINES["static"]
    measured("planner", Planner(catalogue), target, asked.hours / 4, asked.rps, table)
    measured("planner", Planner(catalogue), target, asked.hours, asked.rps, table)
    ours = measured("static", static(catalogue), target, asked.hours, asked.rps, table)
    short = measured("static", static(catalogue), target, asked.simpy_hours, asked.rps, table)
    began_s = time.perf_counter()
    served = plain(target, arrivals(catalogue, asked.simpy_hours * 3600, asked.rps, 0))
    wall_s = time.perf_counter() - began_s
    plainly = served / wall_s
    table.add_row(
        "SimPy, static",
        f"{asked.simpy_hours:g} h",
        f"{served:,}",
        f"{wall_s:.1f}",
        f"{plainly:,.0f}",
        "",
    )
    console.print(table)
    console.print(
        f"static beside SimPy: {short / plainly:.1f}x on the same requests, {ours / plainly:.1f}x "
        "on the long trace"
    )
    times_ms = planner_ticks(500) * 1000
    console.print(
        f"planner tick, 50 pools, 40 variants: p50 {np.median(times_ms):.1f} ms, p99 "
        f"{np.quantile(times_ms, 0.99):.1f} ms"
    )


if __name__ == "__main__":
    main()
