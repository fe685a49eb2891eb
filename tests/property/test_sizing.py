"""Whatever is forecast: a count of replicas that the pool can have; and never fewer for more load,
for a stricter objective or a dearer miss, nor more for a higher price."""

from collections.abc import Collection
from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.capacity.forecast import SHARES, Forecast
from orchestrator.capacity.sizing import Sizing
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import EndpointState
from tests.worlds import quote, roomy

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
WORKLOADS = ("assistant", "search", "records")
AWAY = ("assistant", "search")
TTFT_S = (0.01, 0.1, 0.5, 2.0, 30.0)
MISSES_USD = (1e-6, 1e-4, 1e-2, 1.0, 1e6)


@cache
def world(ttft_s: float = 2.0, miss_usd: float | None = None, cloud: int = 20) -> Catalogue:
    """Two workloads that may leave home, with these objectives, and one that may not."""
    slo: dict[str, Any] = {"ttft_p95_s": ttft_s, "itl_p95_s": 0.05, "miss_usd": miss_usd}
    return roomy(
        cloud=cloud,
        assistant={"slo": slo},
        more=[{"name": "search", "priority": 9, "slo": slo}],
    )


rates = st.sampled_from([0.0, 1e-300, 1e-6, 1e6, 1e300]) | st.floats(0, 30)
tokens = st.sampled_from([0.0, 1e-300, 1e9]) | st.floats(0, 4000)
any_forecasts = st.builds(
    Forecast,
    rps=st.tuples(*[rates] * len(SHARES)).map(lambda rps: tuple(sorted(rps))),
    prompt_tokens=tokens,
    output_tokens=tokens,
    variation=st.sampled_from([1.0, 1e6]) | st.floats(1, 20),
)
usual_forecasts = st.builds(
    Forecast,
    rps=st.tuples(*[st.floats(0, 12)] * len(SHARES)).map(lambda rps: tuple(sorted(rps))),
    prompt_tokens=st.floats(10, 4000),
    output_tokens=st.floats(1, 500),
    variation=st.floats(1, 20),
)
endpoint_states = st.builds(
    EndpointState, waiting=st.integers(0, 10**6), queued=st.integers(0, 10**6)
)
prices_usd = st.sampled_from([0.0, 1e-9, 0.5, 2.0, 9.0, 1e9])
some_away = st.sampled_from([("assistant",), ("search",), AWAY])
nobody: tuple[str, ...] = ()


def by_workload(forecasts: st.SearchStrategy[Forecast]) -> st.SearchStrategy[dict[str, Forecast]]:
    return st.fixed_dictionaries(dict.fromkeys(WORKLOADS, forecasts))


def of_one_kind(forecasts: dict[str, Forecast]) -> dict[str, Forecast]:
    """With the same requests."""
    lengths = forecasts["assistant"][1:]
    return {name: Forecast(forecast.rps, *lengths) for name, forecast in forecasts.items()}


kindred = by_workload(usual_forecasts).map(of_one_kind)


def rented(
    catalogue: Catalogue,
    forecasts: dict[str, Forecast],
    workloads: Collection[str],
    usd: float = 2.0,
    bursting: Collection[str] = nobody,
) -> int:
    quotes = {"home-gpu": quote(0.5), "cloud-gpu": quote(usd)}
    sizing = Sizing(catalogue, forecasts, {}, quotes, {}, bursting)
    found = sizing.rented_replicas(list(workloads), catalogue.candidates[CLOUD])
    assert found is not None
    return found


def louder(forecast: Forecast, factor: float) -> Forecast:
    return forecast._replace(rps=tuple(factor * rps for rps in forecast.rps))


@given(
    st.dictionaries(st.sampled_from(WORKLOADS), any_forecasts),
    st.dictionaries(st.sampled_from([HOME, CLOUD]), endpoint_states),
    st.dictionaries(st.sampled_from(["home-gpu", "cloud-gpu"]), st.builds(quote, prices_usd)),
    st.dictionaries(st.sampled_from([HOME, CLOUD]), st.integers(0, 20)),
    st.sets(st.sampled_from(AWAY)),
    some_away,
    st.builds(world, st.sampled_from(TTFT_S), st.none() | st.sampled_from(MISSES_USD)),
)
def test_every_count_is_one_that_the_pool_can_have_and_the_same_again(
    forecasts: dict[str, Forecast],
    endpoints: dict[str, EndpointState],
    quotes: dict[str, Any],
    limits: dict[str, int],
    bursting: set[str],
    workloads: tuple[str, ...],
    catalogue: Catalogue,
) -> None:
    def counts() -> tuple[dict[str, int], int | None]:
        sizing = Sizing(catalogue, forecasts, endpoints, quotes, limits, bursting)
        away = catalogue.candidates[CLOUD]
        return sizing.home_replicas(), sizing.rented_replicas(list(workloads), away)

    home, away = counts()
    assert (home, away) == counts()
    for endpoint, replicas in (*home.items(), (CLOUD, away or 0)):
        most = limits.get(endpoint, catalogue.candidates[endpoint].pool.max_replicas)
        assert isinstance(replicas, int)
        assert 0 <= replicas <= most
    assert (away is None) == any(name not in forecasts for name in workloads)
    assert bool(home) == (set(forecasts) == set(WORKLOADS))


@given(kindred, some_away, st.floats(1, 100), st.sampled_from(WORKLOADS))
def test_more_load_of_anybody_never_means_fewer(
    forecasts: dict[str, Forecast], workloads: tuple[str, ...], factor: float, louder_one: str
) -> None:
    more = {**forecasts, louder_one: louder(forecasts[louder_one], factor)}
    assert rented(world(), more, workloads) >= rented(world(), forecasts, workloads)


@given(by_workload(usual_forecasts), some_away, st.sampled_from(TTFT_S), st.sampled_from(TTFT_S))
def test_a_stricter_objective_never_means_fewer(
    forecasts: dict[str, Forecast], workloads: tuple[str, ...], one_s: float, other_s: float
) -> None:
    strict, loose = world(min(one_s, other_s)), world(max(one_s, other_s))
    assert rented(strict, forecasts, workloads) >= rented(loose, forecasts, workloads)


@given(
    by_workload(usual_forecasts),
    some_away,
    st.sampled_from(TTFT_S),
    st.sampled_from(MISSES_USD),
    st.sampled_from(MISSES_USD),
    prices_usd,
    st.sets(st.sampled_from(AWAY)),
)
def test_a_dearer_miss_never_means_fewer(
    forecasts: dict[str, Forecast],
    workloads: tuple[str, ...],
    ttft_s: float,
    one_usd: float,
    other_usd: float,
    usd: float,
    bursting: set[str],
) -> None:
    cheap, dear = world(ttft_s, min(one_usd, other_usd)), world(ttft_s, max(one_usd, other_usd))
    assert rented(dear, forecasts, workloads, usd, bursting) >= rented(
        cheap, forecasts, workloads, usd, bursting
    )


@given(
    by_workload(usual_forecasts),
    some_away,
    st.sampled_from(TTFT_S),
    st.none() | st.sampled_from(MISSES_USD),
    prices_usd,
    prices_usd,
    st.sets(st.sampled_from(AWAY)),
)
def test_a_higher_price_never_means_more(
    forecasts: dict[str, Forecast],
    workloads: tuple[str, ...],
    ttft_s: float,
    miss_usd: float | None,
    one_usd: float,
    other_usd: float,
    bursting: set[str],
) -> None:
    catalogue = world(ttft_s, miss_usd)
    low, high = min(one_usd, other_usd), max(one_usd, other_usd)
    assert rented(catalogue, forecasts, workloads, high, bursting) <= rented(
        catalogue, forecasts, workloads, low, bursting
    )


@given(by_workload(usual_forecasts), some_away, st.floats(1, 100), st.integers(1, 20))
def test_more_load_never_means_fewer_where_misses_are_dear(
    forecasts: dict[str, Forecast], workloads: tuple[str, ...], factor: float, cloud: int
) -> None:
    """Where averting a miss hardly pays, it may: a replica more is then not worth it."""
    catalogue = world(miss_usd=1.0, cloud=cloud)
    more = {name: louder(forecast, factor) for name, forecast in forecasts.items()}
    assert rented(catalogue, more, workloads) >= rented(catalogue, forecasts, workloads)
