"""What pools cost: fixed prices, price feeds, prices by the token, and owned hardware."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.spec.base import HttpUrl, Name, Seconds, Spec, Timezone, Usd

Positive = Annotated[float, Field(gt=0)]
QueryUrl = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(:\d+)?([/?][^\s#]*)?$")]
Pointer = Annotated[str, Field(pattern=r"^(/([^~]|~[01])*)?$")]

Unit = Literal["usd_per_gpu_hour", "usd_per_kwh", "g_per_kwh", "w"]

OPENCOST_QUERY = "max(node_gpu_hourly_cost > 0)"


class TokenPrice(Spec):
    """What an endpoint charges by the token."""

    input_usd_per_million: Usd = Field(description="of prompt tokens")
    output_usd_per_million: Usd = Field(description="of generated tokens")


class Tariff(Spec):
    """What a kWh costs; give one of the three. It may be negative."""

    usd_per_kwh: float | None = Field(default=None, description="at every hour")
    usd_per_kwh_by_hour: list[float] | None = Field(
        default=None,
        min_length=24,
        max_length=24,
        description="from midnight, in `timezone`",
    )
    timezone: Timezone = Field(
        default="UTC", description="of `usd_per_kwh_by_hour`, such as Europe/Berlin"
    )
    feed: Name | None = Field(default=None, description="a feed in `usd_per_kwh`")


class Carbon(Spec):
    """A price of what the power emits; give one of `g_per_kwh` and `feed`."""

    usd_per_tonne: Usd = Field(description="of CO2 equivalent, by a tax or of your own")
    g_per_kwh: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="what a kWh emits, in grams"
    )
    feed: Name | None = Field(default=None, description="a feed in `g_per_kwh`")


class OnPremPrice(Spec):
    """What an hour of an owned GPU costs, used or not: hardware spread over its life, and power.

    `hardware_usd / (years × 8760) + kW × pue × (USD per kWh + usd_per_tonne × g_per_kwh / 10⁶)`,
    where kW is what the GPU draws and `host_w`. Power that earns more than the hardware costs makes
    it free, never less.
    """

    hardware_usd: Usd = Field(
        description="of one GPU with its share of server, network and building"
    )
    years: Positive = Field(description="over which the hardware is written off")
    gpu_w: Annotated[float, Field(ge=0)] = Field(
        description="what the GPU draws, in watts, where `draw_feed` does not know"
    )
    draw_feed: Name | None = Field(
        default=None,
        description="a feed in `w` of one GPU, such as the query "
        "`avg(DCGM_FI_DEV_POWER_USAGE)` to a Prometheus that scrapes the DCGM exporter",
    )
    host_w: Annotated[float, Field(ge=0)] = Field(
        default=0, description="one GPU's share of what the server draws beside its GPUs"
    )
    pue: Annotated[float, Field(ge=1)] = Field(
        default=1, description="power usage effectiveness: what the site draws for each watt"
    )
    tariff: Tariff = Field(description="what a kWh costs")
    carbon: Carbon | None = Field(default=None, description="none: emissions cost nothing")


class Price(Spec):
    """Where the price of a pool comes from; give one of the four."""

    fixed_usd_per_gpu_hour: Usd | None = Field(
        default=None, description="what never changes: a contract, a list price"
    )
    feed: Name | None = Field(default=None, description="a price feed, in USD per GPU-hour")
    onprem: OnPremPrice | None = Field(default=None, description="owned hardware and its power")
    tokens: TokenPrice | None = Field(default=None, description="openai only")


class HttpSource(Spec):
    """A JSON document. Redirects are not followed, and more than 1 MiB is not read."""

    url: QueryUrl = Field(description="asked with GET; the query may be part of it")
    headers: dict[str, str] = Field(
        default={},
        description="sent with it; `${NAME}` stands for an environment variable: secrets come from "
        "there alone",
    )
    value: Pointer = Field(
        description="JSON Pointer (RFC 6901) to the figure, or to an object that has one for each "
        "pool, by the pool's name",
    )
    made_at: Pointer | None = Field(
        default=None,
        description="JSON Pointer to when it was made: seconds since the epoch, or RFC 3339",
    )


class PrometheusSource(Spec):
    """An instant query. Redirects are not followed, and more than 1 MiB is not read."""

    url: HttpUrl = Field(description="of the server, without /api/v1")
    headers: dict[str, str] = Field(default={}, description="as those of an HttpSource")
    query: Annotated[str, Field(min_length=1)] = Field(
        default=OPENCOST_QUERY,
        description="PromQL that gives one figure. The default takes OpenCost's metric for the "
        "dearest GPU that it knows; narrow it, as in "
        '`max(node_gpu_hourly_cost{instance_type="p5.48xlarge"})`',
    )
    pool_label: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        default=None,
        description="the query gives a figure for each pool, whose name this label has",
    )


class Plausible(Spec):
    """What is believed of a feed. Refused whatever stands here: what is not a number, what was made
    more than a minute from now or `max_age_s` ago, and what cannot be: a price per GPU-hour of 0 or
    less or above 1,000, a tariff beyond 20 USD per kWh, an emission or a draw below 0 or above
    5,000.

    From the first figure that is refused to the next that is believed no burst starts by the last
    good one; bursts that run go on by it. To confirm a price by hand `apply` any change of its
    feed: the next figure is then taken as its first.
    """

    lowest: float | None = Field(
        default=None, description="a lower figure is refused, however often it comes"
    )
    highest: float | None = Field(
        default=None, description="a higher figure is refused, however often it comes"
    )
    factor: Annotated[float, Field(gt=1)] = Field(
        default=2,
        description="of prices per GPU-hour: one of more than so many times the last good one, or "
        "of less than that share of it, must be confirmed",
    )
    confirmations: int = Field(
        default=3,
        ge=2,
        description="fetches in a row that confirm it, if each is within `factor` of the first",
    )


class PriceFeed(Spec):
    """A figure that changes; give one of `file`, `http` and `prometheus`. It is asked beside the
    ticks: one that hangs, fails or lies holds nothing up, and leaves its last good figure to age.
    """

    name: Name = Field(description="how prices refer to it")
    unit: Unit = Field(
        default="usd_per_gpu_hour",
        description="of its figures: a price, or for on-prem prices a tariff, an emission, a draw",
    )
    file: str | None = Field(
        default=None,
        description="CSV with the columns `time_s` and the unit; each row holds until the next, "
        "the last one for good. A relative path starts at this file's folder",
    )
    http: HttpSource | None = Field(default=None, description="a JSON document")
    prometheus: PrometheusSource | None = Field(default=None, description="an instant query")
    time_scale: Positive = Field(
        default=1, description="file only: seconds of the feed that pass in one second"
    )
    refresh_s: Seconds = Field(default=10, description="from one look at it to the next")
    timeout_s: Seconds = Field(default=5, description="for which one look may last")
    max_age_s: Seconds = Field(
        default=300, description="a quote that could not be refreshed for so long is stale"
    )
    plausible: Plausible = Field(default=Plausible(), description="what it is believed")
