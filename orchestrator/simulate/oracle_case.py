"""What the oracle is asked about a simulation: its trace, its fleet, its prices.

The answer is below the cost of every policy that keeps each pool at its minimum and serves each
workload's share in time, by the rules of the simulation itself:

- A prompt token takes its reading time, whatever else a replica does. A decoding step is shared by
  its batch: equally, or by what each holds of the KV cache, whichever comes to more over the trace.
  Batches are as large as a replica takes, and no larger than the ITL objective allows on average.
- Kinds are a workload's requests of about one size, with about as long an answer. What one of them
  takes at an endpoint is the least that any of its bucket does beside its work at the first, so
  that no choice of requests for an endpoint is better than a share of the kind.
- Requests whose objectives no replica can meet even alone are the first that are missed.
- A pool's minimum stands from the beginning and is paid for until the last arrival. It is an
  endpoint of its own, without a price, beside what is ordered over it.
- Replicas that drain are paid for and work beside those that follow them: a pool without known
  supply has twice its maximum, but for one that never changes.
- Prices and supply are those of the ticks. What has no price costs nothing.
- An order takes no less than `SHORTEST` of its pool's time.

Left out is that an answer that goes on, after a loss or for having made way, has its next token for
the prompt's reading: where prompts are a few tokens long this can be less work.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.policy.arrays import Bools, Floats, Ints
from orchestrator.simulate.capacity_model import SPREAD
from orchestrator.simulate.fleet_model import FleetModel
from orchestrator.simulate.oracle_terms import Demand, Supply, slack_buckets
from orchestrator.simulate.run import Arrivals, Setting
from orchestrator.simulate.tables import NOBODY

SHORTEST = math.exp(-3 * SPREAD)
"""Of `provision_s`: one in seven hundred is there sooner."""
SIZES = (0.5, 0.8, 0.95, 0.99)
"""Quantiles of a workload's work that part its kinds: those missed are the largest."""
LENGTHS = (0.5, 0.9)
"""Of its answers' tokens, by which their time is parted: short ones have little to be late in."""
MIXES = (1 / 3, 2 / 3)
"""Of the prompt's share of the work, where endpoints differ in what suits them."""
SAMPLE = 200_000
"""Requests, at most, by which kinds are parted."""
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Case:
    demand: Demand
    supply: Supply
    bucket_s: float
    pools: tuple[str, ...]
    """(E)"""
    gpus: Floats
    """(E), of a replica."""
    hopeless: Floats
    """(G), the share of each workload's requests that nobody can serve in time."""
    arrived: Ints
    """(G)"""


def case_of(
    setting: Setting,
    blocks: Iterable[Arrivals],
    attainment: Mapping[str, float],
    bucket_s: float,
) -> Case:
    """`blocks` are gone through several times. `attainment`: by workload, of all that arrive.
    ValueError where nothing arrives, or a bucket is not made of whole ticks."""
    model = FleetModel(setting.catalogue)
    ticks = round(bucket_s / setting.tick_s)
    if ticks < 1 or not math.isclose(ticks * setting.tick_s, bucket_s):
        raise ValueError(f"a bucket has to be of whole ticks of {setting.tick_s:g} s")
    last_s = end_s(blocks)
    groups = [
        _Group(model, number, sample)
        for number, sample in enumerate(_samples(blocks, len(model.workloads)))
    ]
    first_kinds = np.cumsum([0, *(group.kinds for group in groups)])
    arrived_buckets = int(last_s // bucket_s) + 1
    filled = _Filled(int(first_kinds[-1]), len(model.candidates), arrived_buckets)
    arrived, hopeless = np.zeros(len(groups), np.int64), np.zeros(len(groups))
    for block in blocks:
        for number, group in enumerate(groups):
            of = _of_group(block, number)
            arrived[number] += len(of.arrival_s)
            in_time = group.in_time(of)
            hopeless[number] += (~in_time).sum()
            of = _chosen(of, in_time)
            if len(of.arrival_s):
                bucket = (of.arrival_s // bucket_s).astype(np.int64)
                filled.add(first_kinds[number] + group.kind(of), bucket, group.work_s(of), of)
    allowed_s = np.concatenate(
        [
            group.allowed_s(filled.longest[first:last])
            for group, first, last in zip(groups, first_kinds, first_kinds[1:], strict=False)
        ]
    )
    slack = np.array([slack_buckets(s, bucket_s) for s in allowed_s], np.int64)
    buckets = arrived_buckets + int(slack.max(initial=0))
    places = list(_places(setting, model, (buckets, ticks), last_s))
    candidates = [model.candidates[place.number] for place in places]
    share = hopeless / np.maximum(arrived, 1)
    asked = np.array([attainment[w.name] for w in model.workloads])
    return Case(
        demand=filled.demand(
            group=np.repeat(np.arange(len(groups)), np.diff(first_kinds)),
            endpoint=np.array([place.number for place in places], np.int64),
            slack=slack,
            attainment=np.clip((asked - ROUNDING) / np.maximum(1 - share, ROUNDING), 0.0, 1.0),
            buckets=buckets,
        ),
        supply=_supply(places),
        bucket_s=bucket_s,
        pools=tuple(candidate.pool.name for candidate in candidates),
        gpus=np.array([float(candidate.pool.gpus_per_replica) for candidate in candidates]),
        hopeless=share,
        arrived=arrived,
    )


def end_s(blocks: Iterable[Arrivals]) -> float:
    """When the last request arrives. ValueError where none does."""
    ends_s = [float(block.arrival_s[-1]) for block in blocks if len(block.arrival_s)]
    if not ends_s:
        raise ValueError("nothing arrives: there is no bound to what that costs")
    return max(ends_s)


class _Group:
    """A workload: what its requests take where, and the kinds that they are of."""

    def __init__(self, model: FleetModel, number: int, sample: Arrivals) -> None:
        self._group = model.state.groups[number]
        self._has_itl = model.workloads[number].slo.itl_p95_s is not None
        self._total_s = float(self._group["total_s"])
        places = model.state.places[self._group["takes_smaller"], number].tolist()
        places = [place for place in places if place != NOBODY]
        self._places = np.array(
            [place for place in places if model.candidates[place].performance is not None],
            np.int64,
        )
        self._endpoints = len(model.candidates)
        self._at = model.state.endpoints[self._places]
        self._by_cache = np.zeros(len(self._places), np.bool_)
        self._sizes, self._lengths, self._mixes = np.empty(0), np.empty(0), np.empty(0)
        sample = _chosen(sample, self.in_time(sample))
        if len(sample.arrival_s):
            steps = np.maximum(sample.output_tokens - 1, 0)[:, None]
            equal, cached = (steps * self._step_s(sample, by) for by in (False, True))
            self._by_cache = cached.sum(axis=0) > equal.sum(axis=0)
            work_s = self.work_s(sample)[:, self._places]
            ratio = work_s / work_s[:, :1]
            if (ratio.max(axis=0) > 1.01 * ratio.min(axis=0)).any():
                self._mixes = np.unique(np.quantile(self._mix(sample), MIXES))
            self._sizes = np.unique(np.quantile(work_s[:, 0], SIZES))
            self._lengths = np.unique(np.quantile(sample.output_tokens, LENGTHS))

    @property
    def kinds(self) -> int:
        return (len(self._sizes) + 1) * (len(self._lengths) + 1) * (len(self._mixes) + 1)

    def in_time(self, of: Arrivals) -> Bools:
        """Whether any replica meets the objectives, if it does nothing else."""
        if not len(self._places):
            return np.zeros(len(of.arrival_s), np.bool_)
        read_s = of.prompt_tokens * self._at["read_s"].min()
        is_quick = self._at["step_s"].min() <= self._group["itl_slo_s"] * (1 + ROUNDING)
        is_read = read_s <= self._group["ttft_slo_s"] * (1 + ROUNDING)
        fits = of.prompt_tokens + of.output_tokens <= self._at["context_tokens"].max()
        in_time: Bools = fits & is_read & (is_quick | (of.output_tokens <= 1))
        return in_time

    def kind(self, of: Arrivals) -> Ints:
        size = np.searchsorted(self._sizes, self.work_s(of)[:, self._places[0]])
        mix = np.searchsorted(self._mixes, self._mix(of))
        length = np.searchsorted(self._lengths, of.output_tokens)
        kind: Ints = (size * (len(self._lengths) + 1) + length) * (len(self._mixes) + 1) + mix
        return kind

    def work_s(self, of: Arrivals) -> Floats:
        """(N, E), replica-seconds; infinity where they may not go."""
        step_s = np.where(self._by_cache, self._step_s(of, True), self._step_s(of, False))
        work_s = np.full((len(of.arrival_s), self._endpoints), np.inf)
        work_s[:, self._places] = (
            of.prompt_tokens[:, None] * self._at["read_s"]
            + np.maximum(of.output_tokens - 1, 0)[:, None] * step_s
        )
        return work_s

    def allowed_s(self, longest: Floats) -> Floats:
        """(K), from arrival to the last token of an answer that is in time, by the tokens of the
        longest."""
        ttft_s, steps = float(self._group["ttft_slo_s"]), np.maximum(longest - 1, 0)
        if self._has_itl:
            return np.minimum(ttft_s + steps * float(self._group["itl_slo_s"]), self._total_s)
        # It may break off, or make way for others, as often as that happens.
        return np.where(steps, self._total_s, ttft_s)

    def _mix(self, of: Arrivals) -> Floats:
        """The prompt's share of the work at the first place."""
        mix: Floats = of.prompt_tokens * self._at["read_s"][0] / self.work_s(of)[:, self._places[0]]
        return mix

    def _step_s(self, of: Arrivals, by_cache: bool) -> Floats:
        """(N, places), what a token takes of the steps that it shares."""
        alone_s, more_s = self._at["step_s"], self._at["step_more_s"]
        batch = self._at["sequences"].astype(float)
        if self._has_itl:
            spare_s = float(self._group["itl_slo_s"]) - alone_s
            fits = np.divide(spare_s, more_s, out=np.full_like(batch, np.inf), where=more_s > 0)
            batch = np.clip(1 + fits, 1, batch)
        # Where batches are no gain the least is that of a token alone.
        equal = np.minimum(alone_s, (alone_s + more_s * (batch - 1)) / batch)
        if not by_cache:
            return np.broadcast_to(equal, (len(of.arrival_s), len(equal)))
        # What it holds grows by its answer: half of that on average. One larger than the cache,
        # which is alone in it, holds no less than its prompt.
        fits_whole = (of.prompt_tokens + of.output_tokens)[:, None] <= self._at["kv_tokens"]
        grown = np.where(fits_whole, of.output_tokens[:, None] / 2, 0.0)
        held = (of.prompt_tokens[:, None] + grown) / self._at["kv_tokens"]
        shared = more_s + (alone_s - more_s) * np.minimum(held, 1)
        step_s: Floats = np.where(alone_s > more_s, shared, equal)
        return step_s


class _Filled:
    """Requests by kind and bucket of arrival."""

    def __init__(self, kinds: int, endpoints: int, buckets: int) -> None:
        self._shape = (kinds, buckets)
        self.longest = np.zeros(kinds)
        """Answer of each kind, tokens."""
        self._requests, self._work_s, self._largest_s = np.zeros((3, kinds * buckets))
        self._ratio = np.full((kinds * buckets, endpoints), np.inf)

    def add(self, kind: Ints, bucket: Ints, work_s: Floats, of: Arrivals) -> None:
        first = int(np.flatnonzero(np.isfinite(work_s[0]))[0])
        size_s, at = work_s[:, first], kind * self._shape[1] + bucket
        np.add.at(self._requests, at, 1.0)
        np.add.at(self._work_s, at, size_s)
        np.maximum.at(self._largest_s, at, size_s)
        np.maximum.at(self.longest, kind, of.output_tokens)
        for endpoint in np.flatnonzero(np.isfinite(work_s[0])):
            np.minimum.at(self._ratio[:, endpoint], at, work_s[:, endpoint] / size_s)

    def demand(
        self, group: Ints, endpoint: Ints, slack: Ints, attainment: Floats, buckets: int
    ) -> Demand:
        kinds, arrived = self._shape
        work_s = self._ratio.copy()
        np.multiply(work_s, self._work_s[:, None], out=work_s, where=np.isfinite(work_s))
        mean_s = self._work_s / np.maximum(self._requests, 1)
        spread = np.maximum(self._largest_s / np.where(mean_s > 0, mean_s, 1.0), 1.0)
        later = ((0, 0), (0, buckets - arrived))
        by_place = work_s.reshape(kinds, arrived, -1).transpose(0, 2, 1)[:, endpoint]
        return Demand(
            group=group,
            requests=np.pad(self._requests.reshape(self._shape), later),
            work_s=np.pad(by_place, ((0, 0), *later), constant_values=np.inf),
            slack=slack,
            attainment=attainment,
            spread=np.pad(spread.reshape(self._shape), later, constant_values=1.0),
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """An endpoint as the oracle has it: what stands of it, or what is ordered over that."""

    number: int
    usd: Floats
    """(T), per replica-hour."""
    most: Floats
    """(T)"""
    provision_s: float = 0.0
    sunk_usd_per_hour: float = 0.0
    standing: float = 0.0


def _places(
    setting: Setting, model: FleetModel, shape: tuple[int, int], last_s: float
) -> Iterator[_Place]:
    """`shape`: buckets, ticks in each."""
    ticks, tick_s = shape[0] * shape[1], setting.tick_s
    at_s: Floats = np.arange(ticks + 1, dtype=np.float64) * tick_s
    # A start that never comes is given up, and not paid for until it is ordered anew.
    is_paid = (at_s[:-1] <= last_s) & (not setting.troubles.failed_starts)
    for name, members in setting.catalogue.by_pool.items():
        pool = setting.catalogue.pools[name]
        usd = _priced(setting, name, at_s[:-1]) * pool.gpus_per_replica
        offered = _offered(setting, name, at_s[:-1])
        standing = np.minimum(pool.min_replicas, offered)
        # Of a supply that is short each of them has its part.
        paid = np.minimum(pool.min_replicas, offered / max(len(members), 1)) * is_paid
        is_fixed = pool.min_replicas == pool.max_replicas
        over = 0 if is_fixed else 2 * pool.max_replicas - pool.min_replicas
        for candidate in members:
            if pool.min_replicas:
                yield _Place(
                    candidate.number,
                    usd=np.zeros(shape[0]),
                    most=standing.reshape(shape).mean(axis=1),
                    sunk_usd_per_hour=float((usd * paid).sum()) / ticks,
                    standing=pool.min_replicas,
                )
            if over:
                ordered = np.minimum(offered - standing, over)
                yield _Place(
                    candidate.number,
                    usd=usd.reshape(shape).min(axis=1),
                    most=ordered.reshape(shape).mean(axis=1),
                    provision_s=pool.provision_s * SHORTEST,
                )


def _supply(places: Sequence[_Place]) -> Supply:
    return Supply(
        usd_per_replica_hour=np.array([p.usd for p in places]),
        min_replicas=np.zeros(len(places)),
        max_replicas=np.array([p.most for p in places]),
        provision_s=np.array([p.provision_s for p in places]),
        sunk_usd_per_hour=np.array([p.sunk_usd_per_hour for p in places]),
        standing=np.array([p.standing for p in places]),
    )


def _priced(setting: Setting, pool: str, at_s: Floats) -> Floats:
    """USD per GPU-hour; nothing where there is no price."""
    usd = [setting.prices.usd_per_gpu_hour(pool, now_s) for now_s in at_s.tolist()]
    return np.nan_to_num(np.array(usd, np.float64))


def _offered(setting: Setting, pool: str, at_s: Floats) -> Floats:
    """Replicas that the pool can have at a time; infinity: nobody knows of a limit."""
    if pool not in setting.supply:
        return np.full(len(at_s), np.inf)
    series = setting.supply[pool]
    offered = np.array([series.at(now_s) for now_s in at_s.tolist()], np.float64)
    return np.floor(np.nan_to_num(offered))


def _samples(blocks: Iterable[Arrivals], groups: int) -> Iterator[Arrivals]:
    every = 1 + sum(len(b.arrival_s) for b in blocks) // SAMPLE
    thin = Arrivals(
        *(
            np.concatenate(columns)
            for columns in zip(
                *([column[::every].copy() for column in block] for block in blocks), strict=True
            )
        )
    )
    for group in range(groups):
        yield _of_group(thin, group)


def _of_group(block: Arrivals, group: int) -> Arrivals:
    return _chosen(block, block.group == group)


def _chosen(of: Arrivals, which: Bools) -> Arrivals:
    arrival_s, prompt_tokens, output_tokens, group = of
    return Arrivals(arrival_s[which], prompt_tokens[which], output_tokens[which], group[which])
