"""A simulation: the loop of ticks around kernel, decisions and a capacity policy."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from orchestrator.capacity.load import Load, Prompts
from orchestrator.capacity.planner import Observation, Plan
from orchestrator.ledger.cost import Costs
from orchestrator.policy.arrays import Floats, Ints
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import EndpointState, Quote, Snapshot
from orchestrator.simulate import kernel
from orchestrator.simulate.capacity_model import CapacityModel, Troubles
from orchestrator.simulate.decider import Decider
from orchestrator.simulate.fleet_model import GATEWAY, FleetModel
from orchestrator.simulate.policies import CapacityPolicy
from orchestrator.simulate.prices import Prices, Series
from orchestrator.simulate.tables import NOBODY, quantiles_s
from orchestrator.simulate.tally import Tally

SLOT_STEP = 1.25
"""Slot times that decisions see are rounded to powers of it."""


class Arrivals(NamedTuple):
    """A block of a trace, in the order of time. Arrays of one length."""

    arrival_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    group: Ints
    """Numbers of workloads, in the order of the configuration."""


@dataclass(frozen=True)
class Setting:
    """Everything that a run depends on but the policy."""

    catalogue: Catalogue
    prices: Prices
    epoch_s: float
    """When it begins, in seconds since the epoch: schedules and tariffs go by it."""
    supply: Mapping[str, Series] = field(default_factory=dict)
    troubles: Troubles = field(default_factory=Troubles)
    tick_s: float = 1.0
    seed: int = 0


def simulate(
    setting: Setting,
    blocks: Iterable[Arrivals],
    policy: CapacityPolicy,
    on_progress: Callable[[float], None] = lambda now_s: None,
) -> Tally:
    """Until the trace ends and every request of it is answered or shed. The same arguments give
    the same tally. `on_progress` is told the time now and then."""
    return _Run(setting, policy).run(iter(blocks), on_progress)


class _Run:
    def __init__(self, setting: Setting, policy: CapacityPolicy) -> None:
        self._setting, self._policy = setting, policy
        catalogue = setting.catalogue
        self._model = FleetModel(catalogue)
        self._capacity = CapacityModel(
            self._model, setting.supply, setting.troubles, np.random.default_rng(setting.seed)
        )
        self._decider = Decider(self._model)
        window_s = catalogue.configuration.controller.window_s
        self._window = _Window(self._model, window_s, setting.tick_s)
        self._costs = Costs()
        self._version = 0
        self._told: tuple[object, ...] = ()
        self._states: dict[str, EndpointState] = {}
        self._seen: dict[str, tuple[dict[str, Any], EndpointState]] = {}
        self._quotes: dict[str, Quote] = {}
        self._counted = np.zeros((4, len(self._model.workloads)))
        self._prompts = Prompts(catalogue)
        self.tally = Tally(self._model, policy.name, setting.tick_s)

    def run(self, blocks: Iterator[Arrivals], on_progress: Callable[[float], None]) -> Tally:
        source = _Source(blocks)
        tick, tick_s = 0, self._setting.tick_s
        while True:
            now_s = tick * tick_s
            self._tick(now_s)
            kernel.look_through(self._model.state)
            self._advance(source, now_s + tick_s)
            tick += 1
            if tick % 64 == 0:
                on_progress(now_s)
            if source.is_empty and not self._at_work():
                self._tick(tick * tick_s)
                return self.tally.close(self._capacity)

    def _advance(self, source: "_Source", until_s: float) -> None:
        model = self._model
        source.fill(until_s)
        while True:
            source.position, why = kernel.advance(
                model.state, model.scores, *source.block, source.position, until_s
            )
            if why == kernel.DONE:
                return
            if why == kernel.UNDECIDED:
                self._decider.answer()
            elif why == kernel.FULL:
                model.more_requests()
            else:
                raise self._decider.unknown_speed()

    def _at_work(self) -> bool:
        state = self._model.state
        return bool(state.endpoints["inflight"].any() or state.groups["waiting"].any())

    def _tick(self, now_s: float) -> None:
        setting, capacity = self._setting, self._capacity
        quotes = setting.prices.quotes(now_s)
        self._charge(now_s)
        self._quotes = quotes
        capacity.pass_time(now_s, setting.tick_s)
        budget_left = self._budget_left(now_s)
        self._version += 1
        seen = self._observe(quotes, budget_left)
        planned = self._policy.plan(seen, self._version, setting.epoch_s + now_s)
        capacity.order(planned.targets, now_s)
        self._tell(planned, quotes, budget_left, now_s)
        for number in self._model.lost():
            kernel.go_on(self._model.state, number, self._decider.elsewhere(number))
        self.tally.tick(now_s, capacity, planned.bursts, quotes)

    def _observe(self, quotes: dict[str, Quote], budget_left: dict[str, float]) -> Observation:
        model, capacity = self._model, self._capacity
        self._window.take()
        queued = self._queued()
        running, waiting, ready = model.running(), model.waiting(), model.ready()
        inflight, paid = model.state.endpoints["inflight"], capacity.paid_replicas()
        ttft = self._window.ttft()
        p50_s, p95_s = quantiles_s(ttft, 0.5), quantiles_s(ttft, 0.95)
        states, replicas, standing = {}, {}, {}
        for candidate in model.candidates:
            number, endpoint = candidate.number, candidate.endpoint
            states[endpoint] = self._state(
                endpoint,
                ready_replicas=int(ready[number]),
                running=int(running[number]),
                waiting=int(waiting[number]),
                queued=queued[number],
                inflight={GATEWAY: int(inflight[number])},
                ttft_p50_s=p50_s[number],
                ttft_p95_s=p95_s[number],
                slot_s=self._window.slot_s(number),
            )
            replicas[endpoint] = int(paid[number])
            standing[endpoint] = int(ready[number]) + capacity.coming(number)
        self._states = states
        return Observation(
            endpoints=states,
            replicas=replicas,
            quotes=quotes,
            budget_left_usd=budget_left,
            oldest_snapshot=self._version - 1,
            standing=standing,
            progress=capacity.progress(),
            load=self._load(),
        )

    def _state(self, endpoint: str, **seen: Any) -> EndpointState:
        """The one of the last tick, where nothing is different."""
        before, state = self._seen.get(endpoint, (None, None))
        if state is None or before != seen:
            state = EndpointState(**seen)
            self._seen[endpoint] = (seen, state)
        return state

    def _load(self) -> dict[str, Load]:
        """Since the last tick."""
        groups = self._model.state.groups
        counted = np.array([groups[name] for name in ("arrived", "arrived_tokens", "served")])
        counted = np.vstack([counted, groups["output_tokens"]])
        since, self._counted = counted - self._counted, counted
        load = {
            workload.name: Load(*map(int, since[:, number]))
            for number, workload in enumerate(self._model.workloads)
        }
        self._prompts.add(load)
        return load

    def _queued(self) -> list[int]:
        """Requests that wait in the gateway, each at the first place of its home."""
        state = self._model.state
        queued = [0] * len(self._model.candidates)
        for group in np.flatnonzero(state.groups["waiting"]):
            number = self._model.first_home[group]
            if number != NOBODY:
                queued[number] += int(state.groups["waiting"][group])
        return queued

    def _tell(
        self, planned: Plan, quotes: dict[str, Quote], budget_left: dict[str, float], now_s: float
    ) -> None:
        """The gateway, when there is something new."""
        ready = self._model.ready()
        states = self._states
        for candidate in self._model.candidates:
            state = states[candidate.endpoint]
            serving = int(ready[candidate.number])
            if state.ready_replicas != serving:
                states[candidate.endpoint] = state.model_copy(update={"ready_replicas": serving})
        prompts = self._prompts.means()
        told = (
            tuple((s.ready_replicas, s.slot_s) for s in states.values()),
            tuple((s.phase, s.pool) for s in planned.bursts.values()),
            tuple(quotes.values()),
            tuple(prompts.values()),
            tuple(left > 0 for left in budget_left.values()),
        )
        if told == self._told:
            return
        self._told = told
        self._decider.follow(
            Snapshot(
                version=self._version,
                config_version=self._setting.catalogue.version,
                created_at_s=now_s,
                endpoints=states,
                quotes=quotes,
                bursts=planned.bursts,
                prompt_tokens=prompts,
                budget_left_usd=budget_left,
            )
        )

    def _charge(self, now_s: float) -> None:
        """For the tick that has passed, what exists at the end of it, at the prices that held."""
        if not now_s:
            return
        hours = self._setting.tick_s / 3600
        paid = self._capacity.paid_replicas()
        bursts = self.tally.bursts
        for name, pool in self._setting.catalogue.pools.items():
            members = self._setting.catalogue.by_pool[name]
            gpus = pool.gpus_per_replica * float(sum(paid[c.number] for c in members))
            if not gpus or name not in self._quotes:
                continue
            usd = gpus * hours * self._quotes[name].usd_per_gpu_hour
            bursting = [w for w, state in bursts.items() if state.pool == name]
            self._costs.add(name, usd, {}, bursting, self._setting.epoch_s + now_s)
            self.tally.charge(name, usd, gpus * hours, now_s)

    def _budget_left(self, now_s: float) -> dict[str, float]:
        spent = self._costs.today(self._setting.epoch_s + now_s)
        return {
            w.name: w.budget.usd_per_day - spent.get(w.name, 0.0)
            for w in self._model.workloads
            if w.budget is not None
        }


class _Source:
    """The trace, as far as it is needed."""

    def __init__(self, blocks: Iterator[Arrivals]) -> None:
        self._blocks = blocks
        self._more = True
        self.block = Arrivals(np.empty(0), np.empty(0), np.empty(0), np.empty(0, np.int64))
        self.position = 0

    @property
    def is_empty(self) -> bool:
        return not self._more and self.position == len(self.block.arrival_s)

    def fill(self, until_s: float) -> None:
        """So that what arrives before then is there."""
        while self._more and not (
            len(self.block.arrival_s) and self.block.arrival_s[-1] >= until_s
        ):
            following = next(self._blocks, None)
            if following is None:
                self._more = False
                return
            rest = (column[self.position :] for column in self.block)
            self.block = Arrivals(
                *(np.concatenate(pair) for pair in zip(rest, following, strict=True))
            )
            self.position = 0


class _Window:
    """What the controller's latency windows hold: TTFT, and how long slots were held."""

    def __init__(self, model: FleetModel, window_s: float, tick_s: float) -> None:
        self._model = model
        self._ticks: deque[tuple[Ints, Floats, Ints]] = deque(
            maxlen=max(1, round(window_s / tick_s))
        )
        state = model.state
        self._ttft = np.zeros_like(state.ttft)
        self._held_s = np.zeros(len(state.endpoints))
        self._held = np.zeros(len(state.endpoints), np.int64)

    def take(self) -> None:
        """What has happened since the last tick."""
        state, e = self._model.state, self._model.state.endpoints
        if len(self._ticks) == self._ticks.maxlen:
            ttft, held_s, held = self._ticks[0]
            self._ttft -= ttft
            self._held_s -= held_s
            self._held -= held
        self._ticks.append((state.ttft.copy(), e["held_s"].copy(), e["held"].copy()))
        self._ttft += state.ttft
        self._held_s += e["held_s"]
        self._held += e["held"]
        state.ttft[:] = 0
        e["held_s"] = 0
        e["held"] = 0

    def ttft(self) -> Ints:
        """By endpoint, with those who wait in the gateway for it first: at least for so long."""
        state = self._model.state
        if not state.moment["waiting"][0]:
            return self._ttft
        histograms = self._ttft.copy()
        for group in np.flatnonzero(state.groups["waiting"]):
            number = self._model.first_home[group]
            if number != NOBODY:
                kernel.waiting_ages(state, int(group), histograms[number])
        return histograms

    def slot_s(self, number: int) -> float | None:
        if not self._held[number]:
            return None
        mean_s = max(self._held_s[number] / self._held[number], 1e-3)
        return float(SLOT_STEP ** np.round(np.log(mean_s) / np.log(SLOT_STEP)))
