"""Configurations for tests: one small world, and Hypothesis strategies for any."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from orchestrator.capacity.forecast import SHARES, Forecast
from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import (
    BurstPhase,
    BurstState,
    EndpointState,
    Quote,
    Snapshot,
)
from orchestrator.policy.view import View

LABELS = [c.label for c in DataClass]


def at_rate(rps: float, prompt_tokens: float, output_tokens: float) -> Forecast:
    """One that is certain."""
    return Forecast((rps,) * len(SHARES), prompt_tokens, output_tokens)


def small() -> Catalogue:
    """One on-prem and one cloud pool; `assistant` may burst, `records` may not."""
    return Catalogue(
        Configuration.model_validate(
            {
                "zones": [
                    {"name": "onprem", "jurisdiction": "DE", "max_data_class": "restricted"},
                    {"name": "cloud", "jurisdiction": "EU", "max_data_class": "internal"},
                ],
                "clusters": [
                    {
                        "name": name,
                        "zone": zone,
                        "kind": "ray",
                        "url": f"http://127.0.0.1:{port}",
                        "dashboard_url": f"http://127.0.0.1:{port + 100}",
                    }
                    for name, zone, port in (("home", "onprem", 8000), ("away", "cloud", 8001))
                ],
                "pools": [
                    {
                        "name": "home-gpu",
                        "cluster": "home",
                        "accelerator": "L40S",
                        "min_replicas": 1,
                        "max_replicas": 1,
                        "provision_s": 60,
                        "price": {"fixed_usd_per_gpu_hour": 0.5},
                    },
                    {
                        "name": "cloud-gpu",
                        "cluster": "away",
                        "accelerator": "L40S",
                        "max_replicas": 2,
                        "provision_s": 60,
                        "price": {"feed": "market"},
                    },
                ],
                "price_feeds": [{"name": "market", "file": "market.csv"}],
                "models": [
                    {
                        "name": "m",
                        "variants": [
                            {
                                "name": "m-fp16",
                                "weights": "org/m",
                                "pools": ["home-gpu", "cloud-gpu"],
                                "max_model_len": 4096,
                                "max_num_seqs": 4,
                            }
                        ],
                    }
                ],
                "workloads": [
                    {
                        "name": "assistant",
                        "data_class": "internal",
                        "models": ["m"],
                        "allowed_zones": ["onprem", "cloud"],
                        "slo": {"ttft_p95_s": 2},
                        "budget": {"usd_per_day": 10},
                        "price_ceiling": {"usd_per_gpu_hour": 3},
                        "burst": {
                            "pools": ["cloud-gpu"],
                            "ttft_p95_s": 1.5,
                            "queue_per_replica": 8,
                            "sustained_s": 3,
                            "release_sustained_s": 3,
                            "min_dwell_s": 30,
                            "cooldown_s": 20,
                        },
                    },
                    {
                        "name": "records",
                        "data_class": "restricted",
                        "models": ["m"],
                        "allowed_zones": ["onprem"],
                        "slo": {"ttft_p95_s": 5},
                    },
                ],
                "gateway": {"url": "http://127.0.0.1:8080", "cluster": "home"},
                "controller": {"url": "http://127.0.0.1:8100"},
            }
        ),
        "v1",
    )


def timed() -> Catalogue:
    """The small world with known speeds: one that can be simulated."""
    raw: dict[str, Any] = small().configuration.model_dump(mode="json")
    raw["models"][0]["variants"][0]["performance"] = [
        {
            "accelerator": "L40S",
            "prefill_tokens_per_s": 5000,
            "decode_tokens_per_s": 200,
            "itl_s": 0.01,
            "kv_cache_tokens": 6000,
            "source": "assumed",
        }
    ]
    raw["workloads"][0]["slo"]["itl_p95_s"] = 0.05
    return Catalogue(Configuration.model_validate(raw), "v1")


def roomy(
    *,
    home: int = 2,
    cloud: int = 20,
    assistant: Mapping[str, Any] | None = None,
    records: Mapping[str, Any] | None = None,
    more: Sequence[Mapping[str, Any]] = (),
) -> Catalogue:
    """The timed world with so many replicas, and with workloads changed. `more`: workloads that are
    the assistant but for this."""
    raw: dict[str, Any] = timed().configuration.model_dump(mode="json")
    raw["pools"][0]["max_replicas"] = home
    raw["pools"][1]["max_replicas"] = cloud
    raw["workloads"] += [{**raw["workloads"][0], **changed} for changed in more]
    raw["workloads"][0] |= assistant or {}
    raw["workloads"][1] |= records or {}
    return Catalogue(Configuration.model_validate(raw), "v1")


def quote(usd: float, now_s: float = 1000, valid_s: float = 300) -> Quote:
    return Quote(
        usd_per_gpu_hour=usd, source="market", fetched_at_s=now_s, valid_to_s=now_s + valid_s
    )


def snapshot(
    *,
    home_ready: int = 1,
    cloud_ready: int = 0,
    burst: BurstPhase = BurstPhase.HOME,
    usd: float = 2.0,
    budget_left_usd: float = 10,
) -> Snapshot:
    """A state of the small world."""
    return Snapshot(
        version=7,
        config_version="v1",
        created_at_s=1000,
        endpoints={
            "home-gpu/m-fp16": EndpointState(ready_replicas=home_ready),
            "cloud-gpu/m-fp16": EndpointState(ready_replicas=cloud_ready),
        },
        quotes={"home-gpu": quote(0.5), "cloud-gpu": quote(usd)},
        bursts={
            "assistant": BurstState(
                phase=burst, pool=None if burst is BurstPhase.HOME else "cloud-gpu"
            )
        },
        budget_left_usd={"assistant": budget_left_usd},
    )


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    """Any configuration, contradictory ones included: decisions must be safe on all of them."""
    zones = [
        {
            "name": f"z{i}",
            "jurisdiction": draw(st.sampled_from(["DE", "US"])),
            "max_data_class": draw(st.sampled_from(LABELS)),
            "certifications": draw(some(["C5", "HIPAA"])),
        }
        for i in range(draw(st.integers(1, 4)))
    ]
    zone_names = [z["name"] for z in zones]
    clusters = [
        {
            "name": f"c{i}",
            "zone": draw(st.sampled_from(zone_names)),
            "kind": draw(st.sampled_from(["ray", "openai"])),
            "url": f"http://127.0.0.1:{9000 + i}",
        }
        for i in range(draw(st.integers(1, 4)))
    ]
    prices = [
        {"fixed_usd_per_gpu_hour": 1},
        {"tokens": {"input_usd_per_million": 1, "output_usd_per_million": 3}},
    ]
    pools = [
        {
            "name": f"p{i}",
            "cluster": draw(st.sampled_from(clusters))["name"],
            "accelerator": "A100",
            "min_replicas": draw(st.integers(0, 1)),
            "max_replicas": 4,
            "provision_s": 60,
            "price": draw(st.sampled_from(prices)),
        }
        for i in range(draw(st.integers(1, 5)))
    ]
    pool_names = [p["name"] for p in pools]
    models = [
        {
            "name": f"m{i}",
            "variants": [
                {
                    "name": f"m{i}v{j}",
                    "weights": "org/m",
                    "quality": draw(st.sampled_from([0.5, 1.0])),
                    "pools": draw(some(pool_names, least=1)),
                    "max_model_len": draw(st.sampled_from([1024, 8192])),
                    "max_num_seqs": 4,
                    "performance": draw(st.sampled_from([[], [PERFORMANCE]])),
                }
                for j in range(draw(st.integers(1, 2)))
            ],
        }
        for i in range(draw(st.integers(1, 2)))
    ]
    workloads = []
    for i in range(draw(st.integers(1, 3))):
        burst = None
        if draw(st.booleans()):
            burst = {"pools": draw(some(pool_names, least=1)), "ttft_p95_s": 1}
        workloads.append(
            {
                "name": f"w{i}",
                "data_class": draw(st.sampled_from(LABELS)),
                "models": [m["name"] for m in models],
                "min_quality": draw(st.sampled_from([0.0, 0.8])),
                "when_infeasible": draw(st.sampled_from([{}, {"min_quality": 0.4}])),
                "allowed_zones": draw(some(zone_names, least=1)),
                "preferred_zones": draw(some(zone_names)),
                "jurisdictions": draw(some(["DE", "US"])),
                "certifications": draw(some(["C5", "HIPAA"])),
                "slo": draw(
                    st.sampled_from([{"ttft_p95_s": 1}, {"ttft_p95_s": 1, "itl_p95_s": 0.1}])
                ),
                "price_ceiling": draw(st.sampled_from(CEILINGS)),
                "burst": burst,
            }
        )
    return Catalogue(
        Configuration.model_validate(
            {
                "zones": zones,
                "clusters": clusters,
                "pools": pools,
                "models": models,
                "workloads": workloads,
                "gateway": {"url": "http://127.0.0.1:8080", "cluster": "c0"},
                "controller": {"url": "http://127.0.0.1:8100"},
            }
        ),
        "any",
    )


def some(values: list[str], least: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=least, unique=True)


PERFORMANCE = {
    "accelerator": "A100",
    "prefill_tokens_per_s": 8000,
    "decode_tokens_per_s": 1000,
    "itl_s": 0.01,
    "source": "invented",
}
CEILINGS: list[dict[str, float]] = [
    {},
    {"usd_per_gpu_hour": 2},
    {"usd_per_million_tokens": 2},
    {"usd_per_gpu_hour": 2, "usd_per_million_tokens": 0.5},
]


@st.composite
def snapshots(draw: st.DrawFn, catalogue: Catalogue) -> Snapshot:
    """Any state of a fleet: prices, health and burst states as they come."""
    phases = st.sampled_from(list(BurstPhase))
    return Snapshot(
        version=draw(st.integers(0, 9)),
        config_version=catalogue.version,
        created_at_s=0,
        endpoints={
            endpoint: EndpointState(
                ready_replicas=draw(st.integers(0, 2)),
                inflight={"other": draw(st.integers(0, 50))},
                slot_s=draw(st.none() | st.floats(0.01, 60)),
            )
            for endpoint in catalogue.candidates
            if draw(st.booleans())
        },
        quotes={p: quote(draw(st.floats(0, 10))) for p in catalogue.pools if draw(st.booleans())},
        bursts={
            w: BurstState(phase=draw(phases), pool=draw(st.sampled_from(list(catalogue.pools))))
            for w in catalogue.workloads
            if draw(st.booleans())
        },
        budget_left_usd={
            w: draw(st.floats(-5, 5)) for w in catalogue.workloads if draw(st.booleans())
        },
    )


@st.composite
def questions(draw: st.DrawFn) -> tuple[Facts, View]:
    """Any request, to a gateway that holds any state of any fleet."""
    catalogue = draw(catalogues())
    endpoints = list(catalogue.candidates)
    excluded = draw(st.sets(st.sampled_from(endpoints), max_size=2))
    label = st.sampled_from(DataClass)
    facts = Facts(
        workload=draw(st.sampled_from(list(catalogue.workloads))),
        model=draw(st.sampled_from([*catalogue.by_model, "unheard-of"])),
        claimed=draw(label),
        session=draw(label),
        content=draw(label),
        max_tokens=draw(st.sampled_from([0, 2000, 100_000])),
        prompt_tokens=draw(st.sampled_from([0, 500])),
        snapshot_age_s=draw(st.sampled_from([0, 1e6])),
        inflight=catalogue.counts({e: draw(st.integers(0, 50)) for e in endpoints}),
        excluded=dict.fromkeys(excluded, "failed"),
        affinity={e: 0.5 for e in endpoints if draw(st.booleans())},
        smaller_variant=draw(st.booleans()),
    )
    return facts, View(catalogue, draw(snapshots(catalogue)))
