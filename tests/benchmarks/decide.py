"""`decide()` on a large company: 500 workloads, 50 pools, 40 variants; the same with ten times the
pools; beside it `cedarpy`, where it is installed, authorizing the same lasting constraints.

A new snapshot comes every 1,000 decisions, as it would at 1,000 requests/s: most decisions are the
first of their kind on their snapshot.
"""

import argparse
import gc
import importlib.util
import json
import random
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import (
    BurstPhase,
    BurstState,
    EndpointState,
    Quote,
    Snapshot,
)
from orchestrator.policy.view import View

DECISIONS_PER_SNAPSHOT = 1000
LABELS = [c.label for c in DataClass]
CERTIFICATIONS = ["ISO27001", "C5", "HIPAA"]


def company(workloads: int, pools: int, variants: int, seed: int = 0) -> Catalogue:
    """Ten zones; eight models, whose variants run on a quarter of the pools each."""
    chance = random.Random(seed)
    zones = [
        {
            "name": f"zone-{i}",
            "jurisdiction": ["DE", "FR", "US", "IN"][i % 4],
            "max_data_class": LABELS[3] if i < 3 else LABELS[chance.randint(1, 3)],
            "certifications": chance.sample(CERTIFICATIONS, chance.randint(1, 3)),
        }
        for i in range(10)
    ]
    clusters = [
        {"name": f"cluster-{i}", "zone": f"zone-{i}", "kind": "ray", "url": "http://127.0.0.1:1"}
        for i in range(10)
    ]
    accelerators = ["H100", "L40S"]
    made_pools = [
        {
            "name": f"pool-{i}",
            "cluster": f"cluster-{i % 10}",
            "accelerator": accelerators[i % 2],
            "min_replicas": i % 3 and 1,
            "max_replicas": 8,
            "provision_s": 120,
            "price": {"fixed_usd_per_gpu_hour": round(chance.uniform(1, 5), 2)},
        }
        for i in range(pools)
    ]
    names = [p["name"] for p in made_pools]
    models: list[dict[str, Any]] = [{"name": f"model-{i}", "variants": []} for i in range(8)]
    for i in range(variants):
        models[i % 8]["variants"].append(
            {
                "name": f"variant-{i}",
                "weights": "org/m",
                "quality": [1.0, 0.9, 0.8][i % 3],
                "pools": chance.sample(names, pools // 4),
                "max_model_len": 32768,
                "max_num_seqs": 64,
                "performance": [
                    {
                        "accelerator": a,
                        "prefill_tokens_per_s": 9000,
                        "decode_tokens_per_s": 2500,
                        "itl_s": 0.012,
                        "source": "invented",
                    }
                    for a in accelerators
                ],
            }
        )
    zone_names = [z["name"] for z in zones]
    made_workloads = []
    for i in range(workloads):
        allowed = chance.sample(zone_names, chance.randint(2, 6))
        rented = [n for j, n in enumerate(names) if not j % 3 and zone_names[j % 10] in allowed]
        made_workloads.append(
            {
                "name": f"workload-{i}",
                "data_class": LABELS[chance.randint(0, 3)],
                "models": [f"model-{m}" for m in chance.sample(range(8), 2)],
                "allowed_zones": allowed,
                "preferred_zones": allowed[:1],
                "certifications": chance.sample(CERTIFICATIONS, chance.randint(0, 1)),
                "slo": {"ttft_p95_s": 2, "itl_p95_s": 0.05},
                "price_ceiling": {"usd_per_gpu_hour": 4},
                "burst": {"pools": chance.sample(rented, min(3, len(rented))), "ttft_p95_s": 2},
            }
        )
    return Catalogue(
        Configuration.model_validate(
            {
                "zones": zones,
                "clusters": clusters,
                "pools": made_pools,
                "models": models,
                "workloads": made_workloads,
                "gateway": {"url": "http://127.0.0.1:1", "cluster": "cluster-0"},
                "controller": {"url": "http://127.0.0.1:2"},
            }
        ),
        "bench",
    )


def snapshot(catalogue: Catalogue, chance: random.Random, version: int) -> Snapshot:
    return Snapshot(
        version=version,
        config_version=catalogue.version,
        created_at_s=version,
        endpoints={
            e: EndpointState(
                ready_replicas=chance.randint(0, 3),
                inflight={"other": chance.randint(0, 150)},
                slot_s=chance.uniform(1, 10),
            )
            for e in catalogue.candidates
        },
        quotes={
            p: Quote(
                usd_per_gpu_hour=chance.uniform(1, 5), source="m", fetched_at_s=0, valid_to_s=1e12
            )
            for p in catalogue.pools
        },
        bursts={
            w: BurstState(phase=BurstPhase.BURSTING, pool=chance.choice(catalogue.burst_pools(w)))
            for w in catalogue.workloads
            if chance.random() < 0.3
        },
    )


def facts(catalogue: Catalogue, chance: random.Random) -> Facts:
    workload = chance.choice(catalogue.configuration.workloads)
    return Facts(
        workload.name,
        chance.choice(workload.models),
        content=DataClass(chance.choice([0, 0, 0, 0, 2])),
        prompt_tokens=chance.randint(10, 4000),
        max_tokens=chance.randint(10, 1000),
        inflight=catalogue.counts({}) + chance.randint(0, 20),
    )


def measure(catalogue: Catalogue, decisions: int) -> dict[str, float]:
    """Microseconds, and how many candidates an average decision had."""
    chance = random.Random(1)
    views = [View(catalogue, snapshot(catalogue, chance, v)) for v in range(10)]
    asked = [facts(catalogue, chance) for _ in range(decisions)]
    for question in asked:
        decide(question, views[0])
    times_us = np.empty(decisions)
    candidates = granted = 0
    gc.disable()
    for number, question in enumerate(asked):
        view = views[number // DECISIONS_PER_SNAPSHOT % len(views)]
        started = time.perf_counter()
        decision = decide(question, view)
        times_us[number] = (time.perf_counter() - started) * 1e6
        granted += decision.grant is not None
        candidates += len(decision.question.selection.candidates) if decision.question else 0
    gc.enable()
    started = time.perf_counter()
    View(catalogue, views[0].snapshot)
    return {
        "p50_us": float(np.quantile(times_us, 0.5)),
        "p99_us": float(np.quantile(times_us, 0.99)),
        "granted": granted / decisions,
        "candidates": candidates / decisions,
        "endpoints": len(catalogue.candidates),
        "new_view_ms": (time.perf_counter() - started) * 1e3,
    }


def cedar(catalogue: Catalogue, decisions: int) -> dict[str, float]:
    """The lasting constraints of one (workload, endpoint) pair, by Cedar policies."""
    import cedarpy  # type: ignore[import-untyped]

    policies = """
        permit(principal, action == Action::"run", resource)
        when { principal.allowed_zones.contains(resource.zone)
               && context.data_class <= resource.max_data_class
               && resource.certifications.containsAll(principal.certifications)
               && resource.quality >= principal.min_quality };
    """
    chance = random.Random(1)
    times_us = []
    for _ in range(decisions):
        workload = chance.choice(catalogue.configuration.workloads)
        candidate = chance.choice(catalogue.by_model[workload.models[0]])
        entities = json.dumps(
            [
                {
                    "uid": {"type": "Workload", "id": workload.name},
                    "attrs": {
                        "allowed_zones": workload.allowed_zones,
                        "certifications": workload.certifications,
                        "min_quality": round(workload.min_quality * 1000),
                    },
                    "parents": [],
                },
                {
                    "uid": {"type": "Endpoint", "id": candidate.endpoint},
                    "attrs": {
                        "zone": candidate.zone.name,
                        "max_data_class": int(candidate.zone.max_data_class),
                        "certifications": candidate.zone.certifications,
                        "quality": round(candidate.variant.quality * 1000),
                    },
                    "parents": [],
                },
            ]
        )
        request = {
            "principal": f'Workload::"{workload.name}"',
            "action": 'Action::"run"',
            "resource": f'Endpoint::"{candidate.endpoint}"',
            "context": {"data_class": int(workload.data_class)},
        }
        started = time.perf_counter()
        cedarpy.is_authorized(request, policies, entities)
        times_us.append((time.perf_counter() - started) * 1e6)
    return {
        "p50_us": float(np.quantile(times_us, 0.5)),
        "p99_us": float(np.quantile(times_us, 0.99)),
        "candidates": 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    base, tenfold = company(500, 50, 40), company(500, 500, 40)
    report = {
        "50 pools": measure(base, options.decisions),
        "500 pools": measure(tenfold, options.decisions),
    }
    if importlib.util.find_spec("cedarpy"):
        report["cedarpy, one candidate"] = cedar(base, min(5000, options.decisions))
    if options.json:
        print(json.dumps(report, indent=2))
        return
    table = Table("", "p50", "p99", "candidates left", "granted", "endpoints", "new view")
    for name, figures in report.items():
        table.add_row(
            name,
            f"{figures['p50_us']:.1f} µs",
            f"{figures['p99_us']:.1f} µs",
            f"{figures['candidates']:.1f}",
            f"{figures.get('granted', float('nan')):.0%}",
            f"{figures.get('endpoints', 0):.0f}",
            f"{figures.get('new_view_ms', float('nan')):.2f} ms",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
