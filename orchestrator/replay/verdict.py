"""What a demonstration must show, checked against what was measured."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from orchestrator.replay.client import Outcome
from orchestrator.replay.observer import Sample


@dataclass(frozen=True, slots=True)
class Check:
    claim: str
    holds: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class Scene:
    """Who plays which part."""

    bursting: str
    """The workload that bursts."""
    resident: str
    """The workload that stays at home."""
    home_pool: str
    cloud_pool: str
    ttft_p95_s: float
    """The burst trigger at home."""
    busy_until_s: float
    """When the load falls."""


def judge(
    scene: Scene,
    outcomes: Sequence[Outcome],
    samples: Sequence[Sample],
    seen_by_cloud: Collection[str],
) -> list[Check]:
    """`seen_by_cloud` are the request ids in the cloud cluster's own logs."""
    crossed_s = _first(samples, lambda s: (_p95(s, scene) or 0) > scene.ttft_p95_s)
    ready_s = _first(samples, lambda s: _ready(s, scene.cloud_pool) > 0, after_s=crossed_s)
    slow_s = _first(samples, lambda s: (_p95(s, scene) or 0) > scene.ttft_p95_s, after_s=ready_s)
    # A home that was calm before the cloud could serve was not relieved by it.
    calm_s = _first(
        samples,
        lambda s: (p95 := _p95(s, scene)) is not None and p95 <= scene.ttft_p95_s,
        after_s=slow_s if slow_s == ready_s else None,
    )
    home_s = _first(
        samples,
        lambda s: (
            s.state["bursts"][scene.bursting]["state"] == "home"
            and s.state["pools"][scene.cloud_pool]["replicas"] == 0
        ),
        after_s=ready_s,
    )
    not_ok = [o for o in outcomes if o.status != "ok"]
    served_by_cloud = {o.request_id for o in outcomes if o.pool == scene.cloud_pool}
    restricted = {o.request_id for o in outcomes if o.workload == scene.resident}
    leaked = restricted & set(seen_by_cloud)
    unrecorded = served_by_cloud - set(seen_by_cloud)
    return [
        Check(
            f"TTFT p95 on {scene.home_pool} crosses {scene.ttft_p95_s:g} s",
            crossed_s is not None,
            _at(crossed_s),
        ),
        Check(f"{scene.cloud_pool} is provisioned", ready_s is not None, _at(ready_s)),
        Check(
            f"TTFT p95 on {scene.home_pool} is back under it with the load still on",
            calm_s is not None and calm_s < scene.busy_until_s,
            f"{_at(calm_s)}; the load falls at {scene.busy_until_s:.0f} s",
        ),
        Check(
            f"{scene.cloud_pool} drains to zero when the load has fallen",
            home_s is not None and home_s > scene.busy_until_s,
            _at(home_s),
        ),
        Check(
            "no request failed or was cut",
            bool(outcomes) and not not_ok,
            f"{len(not_ok)} of {len(outcomes)}",
        ),
        Check(
            "the cloud's own logs name every request that it served",
            bool(served_by_cloud) and not unrecorded,
            f"{len(served_by_cloud) - len(unrecorded)} of {len(served_by_cloud)}",
        ),
        Check(
            f"they name no request of {scene.resident}",
            bool(restricted) and not leaked,
            f"{len(leaked)} of {len(restricted)}",
        ),
    ]


def _first(
    samples: Sequence[Sample], holds: Callable[[Sample], bool], after_s: float | None = 0.0
) -> float | None:
    """When it first held, None for never; `after_s` may be the answer for what must come before."""
    if after_s is None:
        return None
    return next((s.at_s for s in samples if s.at_s >= after_s and holds(s)), None)


def _p95(sample: Sample, scene: Scene) -> float | None:
    """Of the pool's worst variant."""
    variants = sample.state["pools"][scene.home_pool]["variants"].values()
    return max((v["ttft_p95_s"] for v in variants if v["ttft_p95_s"] is not None), default=None)


def _ready(sample: Sample, pool: str) -> int:
    return int(sample.state["pools"][pool]["replicas_ready"])


def _at(at_s: float | None) -> str:
    return "never" if at_s is None else f"at {at_s:.0f} s"
