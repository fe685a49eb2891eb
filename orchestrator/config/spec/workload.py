"""What callers have: workloads, and what workloads and profiles are made of."""

from datetime import time
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec.access import Limits
from orchestrator.config.spec.base import (
    Certification,
    DataClassLabel,
    Jurisdiction,
    Name,
    Seconds,
    Share,
    Spec,
    Timezone,
)

Positive = Annotated[float, Field(gt=0)]


class Slo(Spec):
    """Service level objectives."""

    ttft_p95_s: Seconds = Field(description="time to first token")
    itl_p95_s: Seconds | None = Field(default=None, description="inter-token latency")
    deadline_s: Seconds | None = Field(
        default=None,
        description="a request whose first token cannot come by then is refused, at once where "
        "that is foreseen; none: the gateway's timeouts.first_token_s",
    )
    miss_usd: Positive | None = Field(
        default=None,
        description="what a request outside its objectives costs: replicas are rented as long as "
        "they avert more than they cost; none: as many as keep 99 % inside",
    )


class Budget(Spec):
    """What a workload may spend on burst pools and by the token; when it is spent the workload
    stays on what is paid for anyway."""

    usd_per_day: Positive = Field(description="by UTC days")


class PriceCeiling(Spec):
    """Above it, or without a price, no burst is started and no request leaves. Replicas that run
    anyway are not measured by it: they are paid for."""

    usd_per_gpu_hour: Positive | None = Field(default=None, description="of burst pools")
    usd_per_million_tokens: Positive | None = Field(
        default=None, description="of burst pools, and of endpoints that charge by the token"
    )


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Schedule(Spec):
    """Hours for which capacity is fetched ahead."""

    days: list[Day] = Field(min_length=1, description="on which the hours begin")
    start: time = Field(description="local time, such as 08:00")
    end: time = Field(description="local time; before `start`: on the next day")
    timezone: Timezone = Field(
        default="UTC", description="that the hours are in, such as Europe/Berlin"
    )


class Burst(Spec):
    """When a workload may leave its home pools, for where, and when it comes back. Where the
    variants have `performance`, it also leaves ahead of a load that is forecast not to fit at home,
    and comes back when the load fits into three quarters of it."""

    pools: list[Name] = Field(
        min_length=1, description="where it may go; the cheapest that the ceiling allows is taken"
    )
    ttft_p95_s: Seconds | None = Field(default=None, description="start above this")
    queue_per_replica: Positive | None = Field(
        default=None, description="start above this many waiting requests per home replica"
    )
    usd_per_gpu_hour_below: Positive | None = Field(
        default=None, description="start when a burst pool is offered below this"
    )
    schedule: list[Schedule] = Field(default=[], description="start, and stay, in these hours")
    sustained_s: Annotated[float, Field(ge=0)] = Field(
        default=5, description="a trigger must hold for so long; 0: it is enough to see it once"
    )
    release_utilization: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.6,
        description="come back when the home slots could hold all running requests at this share; "
        "without a forecast",
    )
    release_sustained_s: Seconds = Field(
        default=30, description="the calm that ends a burst must hold for so long"
    )
    min_dwell_s: Seconds = Field(default=60, description="shortest stay in the bursting state")
    cooldown_s: Seconds = Field(default=60, description="shortest stay at home after a burst")


class WhenInfeasible(Spec):
    """What becomes of a request that no replica can take now. In this order."""

    min_quality: Share | None = Field(
        default=None, description="a smaller variant, down to this quality"
    )
    queue_s: Annotated[float, Field(ge=0)] = Field(
        default=0,
        description="wait for a replica where none is ready, for so long; 0: refuse at once. "
        "(Where all are busy, it waits until slo.deadline_s.)",
    )


class Batch(Spec):
    """When the lines of the workload's batches run: where slots are idle, or a GPU is cheap, and in
    any case in time for their deadline."""

    max_concurrency: int = Field(
        default=32, ge=1, le=10_000, description="lines open at once, of all its batches"
    )
    keep_free: Share = Field(
        default=0.2,
        description="of an endpoint's slots: left to requests that cannot wait, unless it is cheap",
    )
    usd_per_gpu_hour_below: Positive | None = Field(
        default=None,
        description="cheap is an endpoint below this; burst pools and endpoints that charge by the "
        "token take lines only while they are cheap",
    )
    usd_per_million_tokens_below: Positive | None = Field(
        default=None, description="cheap is also an endpoint below this"
    )


class Hedge(Spec):
    """A second attempt, elsewhere, for a short request whose first one takes its time. The first
    to answer is passed on, the other is cancelled; both are paid for."""

    after_s: Seconds = Field(description="without a first token; best near the usual p95")
    max_tokens: int = Field(
        default=256, ge=1, description="for requests that ask for so many tokens at most"
    )


class Workload(Spec):
    """A caller. What it leaves out comes from the profile that it inherits, then from here."""

    name: Name = Field(description="who calls: keys, metrics and the ledger use it")
    inherits: Name | None = Field(default=None, description="a profile")
    data_class: DataClassLabel = Field(
        default=DataClass.RESTRICTED,
        description="of all its requests; their content may raise it",
    )
    markers: list[Annotated[str, Field(min_length=3)]] = Field(
        default=[], description="words or phrases that make a request as sensitive as they are"
    )
    models: list[Name] = Field(min_length=1, description="that it may ask for")
    min_quality: Share = Field(default=0.0, description="of the variants that may answer")
    allowed_zones: list[Name] = Field(
        min_length=1, description="where its requests may run; nowhere else, whatever happens"
    )
    preferred_zones: list[Name] = Field(
        default=[], description="taken first where other things are nearly equal"
    )
    jurisdictions: list[Jurisdiction] = Field(
        default=[], description="the zone's must be among them; empty: any"
    )
    certifications: list[Certification] = Field(
        default=[], description="the zone must have them all"
    )
    slo: Slo = Field(description="what it is promised")
    price_ceiling: PriceCeiling = Field(
        default=PriceCeiling(), description="the highest price at which it leaves home"
    )
    budget: Budget | None = Field(default=None, description="none: no limit but the ceiling")
    burst: Burst | None = Field(default=None, description="none: it never leaves its home pools")
    priority: int = Field(
        default=50,
        ge=0,
        le=100,
        description="who waits, goes by this; high first, strictly: nobody goes while somebody "
        "above waits for the same. Among equals, the workload that has had the fewest tokens",
    )
    limits: Limits = Field(
        default=Limits(), description="of all its callers together; a key may have its own besides"
    )
    hedge: Hedge | None = Field(default=None, description="none: one attempt at a time")
    when_infeasible: WhenInfeasible = Field(
        default=WhenInfeasible(), description="none: refuse at once"
    )
    batch: Batch = Field(default=Batch(), description="its lines in `/v1/batches`")
