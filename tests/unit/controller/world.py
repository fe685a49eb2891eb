"""What the controller's tests have in common."""

import asyncio
from collections.abc import Awaitable, Callable

from orchestrator.config.spec import Configuration
from orchestrator.controller.events import EventKind
from orchestrator.controller.loop import Controller
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import Replicas, Unowned
from orchestrator.signals.report import EndpointReport, GatewayReport
from tests.fake_pools import FakeCluster
from tests.worlds import small

SMALL = small()
HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
REPORT = GatewayReport(gateway_id="g", config_version="v1", snapshot_version=0)
ENDPOINTS = {"home_gpu": HOME, "old": "old/m"}
Make = Callable[..., Controller]
Run = Callable[[Callable[[Make, FakeCluster], Awaitable[None]]], None]


def told(controller: Controller, kind: EventKind) -> list[tuple[str, str]]:
    """What the event log has of a kind: subjects, and what became of them."""
    return [(e.subject, e.what) for e in controller.events.after(0) if e.kind is kind]


def changed(**controller: object) -> Catalogue:
    """The small world under other settings of its controller."""
    raw = SMALL.configuration.model_dump(mode="json")
    raw["controller"] |= controller
    return Catalogue(Configuration.model_validate(raw), "v2")


def report(version: int = 0, **inflight: int) -> GatewayReport:
    """Of a gateway with so many requests open, by place."""
    endpoints = {
        ENDPOINTS[pool]: EndpointReport(inflight=count, ttft_s=[9.0] * 20)
        for pool, count in inflight.items()
    }
    return GatewayReport(
        gateway_id="g", config_version="v1", snapshot_version=version, endpoints=endpoints
    )


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def until_it_bursts(controller: Controller, now_s: float) -> float:
    """Ticks under a load that home cannot hold; returns the time."""
    await controller.tick(now_s)
    for _ in range(8):
        now_s += 1
        controller.exchange(report(home_gpu=30), now_s)
        await controller.tick(now_s)
        await settle()
    return now_s


def stray(ready: int) -> Unowned:
    return Unowned("old--m", "old/m", "http://127.0.0.1:9/pools/old/m", Replicas(ready=ready))
