"""What a large fleet's controller sees: dashboards of many Ray clusters, one simulated engine for
each endpoint, and gateways that report on all of them. A process of its own, so that its work is
not counted as the controller's.

Each workload is slow for a part of every period, each at another time, so that in every moment
bursts begin, grow, drain and end.
"""

import argparse
import asyncio
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from orchestrator.signals.report import EndpointReport, GatewayReport, QueueReport
from orchestrator.simulate.engine_metrics import EngineMetrics
from tests.fake_serve import FakeServe

GATEWAYS = 10
HOME_POOLS = 4
"""Of each workload, which has one more to burst to."""
HOME_REPLICAS, WARM_REPLICAS, BURST_REPLICAS = 12, 2, 8
SLOTS = 16
PERIOD_S, SLOW_S = 40, 8
ANSWERS = 5
"""By each endpoint, in each tick, for each gateway."""


def fleet(clusters: int, pools: int, world: str, controller: str) -> dict[str, Any]:
    """The configuration of so many pools; one in five is for bursts."""
    groups = range(pools // (HOME_POOLS + 1))
    home = {w: [f"home-{w}-{n}" for n in range(HOME_POOLS)] for w in groups}
    names = [name for w in groups for name in (*home[w], f"burst-{w}")]
    return {
        "zones": [
            {"name": "onprem", "jurisdiction": "DE", "max_data_class": "restricted"},
            {"name": "cloud", "jurisdiction": "EU", "max_data_class": "internal"},
        ],
        "clusters": [
            {
                "name": f"{zone}-{n}",
                "zone": zone,
                "kind": "ray",
                "url": f"{world}/{zone}-{n}",
                "dashboard_url": f"{world}/{zone}-{n}",
            }
            for n in range(clusters // 2)
            for zone in ("onprem", "cloud")
        ],
        "pools": [
            {
                "name": name,
                "cluster": f"{_zone(name)}-{number % (clusters // 2)}",
                "accelerator": "H100",
                "min_replicas": WARM_REPLICAS if name.startswith("burst") else HOME_REPLICAS,
                "max_replicas": BURST_REPLICAS if name.startswith("burst") else HOME_REPLICAS,
                "provision_s": 60,
                "price": {"fixed_usd_per_gpu_hour": 2},
            }
            for number, name in enumerate(names)
        ],
        "models": [
            {
                "name": f"m-{w}",
                "variants": [
                    {
                        "name": f"m-{w}-fp8",
                        "weights": "org/m",
                        "pools": [*home[w], f"burst-{w}"],
                        "max_model_len": 8192,
                        "max_num_seqs": SLOTS,
                    }
                ],
            }
            for w in groups
        ],
        "workloads": [
            {
                "name": f"w-{w}",
                "data_class": "internal",
                "models": [f"m-{w}"],
                "allowed_zones": ["onprem", "cloud"],
                "slo": {"ttft_p95_s": 2},
                "budget": {"usd_per_day": 100_000},
                "burst": {
                    "pools": [f"burst-{w}"],
                    "ttft_p95_s": 1.5,
                    "queue_per_replica": 8,
                    "sustained_s": 2,
                    "release_sustained_s": 2,
                    "min_dwell_s": 5,
                    "cooldown_s": 2,
                },
            }
            for w in groups
        ],
        "gateway": {"url": "http://127.0.0.1:1", "cluster": "onprem-0"},
        "controller": {"url": controller, "tick_s": 1, "window_s": 10},
    }


def _zone(pool: str) -> str:
    return "cloud" if pool.startswith("burst") else "onprem"


def slow(workload: int, workloads: int, now_s: float) -> bool:
    return (now_s + PERIOD_S * workload / workloads) % PERIOD_S < SLOW_S


class Dashboard(FakeServe):
    """Says of each replica what Serve says, which is most of a large cluster's answer."""

    def __init__(self) -> None:
        super().__init__()
        self._page = EngineMetrics("m").exposition()

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._page, content_type="text/plain")

    def _details(self, name: str, app: dict[str, Any]) -> dict[str, Any]:
        details = super()._details(name, app)
        for deployment in details["deployments"].values():
            deployment["replicas"] = [
                {
                    "node_id": "f" * 56,
                    "node_ip": "10.0.0.1",
                    "node_instance_id": "i-0123456789abcdef0",
                    "actor_id": "e" * 32,
                    "actor_name": f"SERVE_REPLICA::{name}#LLMServer#{number}",
                    "worker_id": "d" * 56,
                    "log_file_path": f"/serve/replica_{name}_LLMServer_{number}.log",
                    "replica_id": f"{number:08x}",
                    "pid": 1000 + number,
                    "start_time_s": 1.0,
                    "state": replica["state"],
                }
                for number, replica in enumerate(deployment["replicas"])
            ]
        return details


class World:
    def __init__(self, clusters: int, pools: int) -> None:
        self._workloads = pools // (HOME_POOLS + 1)
        self._versions = [0] * GATEWAYS
        self.asked: Counter[str] = Counter()
        self.exchanges_s: list[float] = []
        self.bursting: list[int] = []
        """Workloads that burst, at each exchange."""
        self._dashboards = {
            f"{zone}-{n}": Dashboard() for n in range(clusters // 2) for zone in ("onprem", "cloud")
        }

    def application(self) -> web.Application:
        @web.middleware
        async def counted(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if request.path != "/figures":
                self.asked[_kind(request)] += 1
            return await handler(request)

        app = web.Application(middlewares=[counted])
        app.router.add_get("/figures", self._figures)
        for name, dashboard in self._dashboards.items():
            app.add_subapp(f"/{name}", dashboard.application())
        return app

    async def _figures(self, _: web.Request) -> web.Response:
        """Since they were asked for the last time."""
        figures = {
            "asked": dict(self.asked),
            "replicas": sum(sum(d.replicas().values()) for d in self._dashboards.values()),
            "exchanges_s": self.exchanges_s,
            "bursting": self.bursting,
        }
        self.asked, self.exchanges_s, self.bursting = Counter(), [], []
        return web.json_response(figures)

    async def report(self, number: int, session: aiohttp.ClientSession, url: str) -> None:
        """One gateway, once a second, until cancelled."""
        due_s = time.monotonic() + number / GATEWAYS
        while True:
            await asyncio.sleep(max(0, due_s - time.monotonic()))
            due_s += 1
            began_s = time.monotonic()
            body = self._report(number).model_dump_json()
            async with session.post(f"{url}/v1/exchange", data=body) as answer:
                if answer.status != 200:
                    continue
                # Not read by its model, which costs this process more than it tells.
                snapshot = orjson.loads(await answer.read())
            self.exchanges_s.append(time.monotonic() - began_s)
            self._versions[number] = snapshot["version"]
            phases = [state["phase"] for state in snapshot["bursts"].values()]
            self.bursting.append(phases.count("bursting"))

    def _report(self, number: int) -> GatewayReport:
        endpoints, queues, now_s = {}, [], time.time()
        for w in range(self._workloads):
            variant, is_slow = f"m-{w}-fp8", slow(w, self._workloads, now_s)
            home = [f"home-{w}-{n}/{variant}" for n in range(HOME_POOLS)]
            for n, endpoint in enumerate((*home, f"burst-{w}/{variant}")):
                at_home = n < HOME_POOLS
                ttft_s = (5.0 if is_slow else 0.3) if at_home else 0.4
                share = HOME_REPLICAS * SLOTS / GATEWAYS
                endpoints[endpoint] = EndpointReport(
                    inflight=math.ceil(share * (1.1 if is_slow else 0.3)) if at_home else 0,
                    waiting_ages_s=[2.0, 1.0] if is_slow and at_home else [],
                    ttft_s=[ttft_s * (1 + 0.1 * k) for k in range(ANSWERS)],
                    slot_s=[10.0 + k for k in range(ANSWERS)],
                    tokens={f"w-{w}": 2000},
                )
            if is_slow:
                queues.append(QueueReport(endpoints=home, ages_s=[0.5 * k for k in range(20)]))
        return GatewayReport(
            gateway_id=f"g-{number}",
            config_version="v1",
            snapshot_version=self._versions[number],
            endpoints=endpoints,
            queues=queues,
        )


def _kind(request: web.Request) -> str:
    if request.path.endswith("/metrics"):
        return "engine metrics"
    if request.path.endswith("/v1/models"):
        return "sweeps"
    if request.method == "GET":
        return "dashboard looks"
    return "warm-ups" if request.path.endswith("/completions") else "changes"


async def serve(clusters: int, pools: int) -> None:
    """Until the input ends. Its URL goes to the output; the controller's comes from the input."""
    world = World(clusters, pools)
    runner = web.AppRunner(world.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    controller = (await asyncio.to_thread(sys.stdin.readline)).strip()
    headers = {"authorization": f"Bearer {os.environ['ORCHESTRATOR_TOKEN']}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        gateways = [
            asyncio.create_task(world.report(n, session, controller)) for n in range(GATEWAYS)
        ]
        await asyncio.to_thread(sys.stdin.read)
        for gateway in gateways:
            gateway.cancel()
        await asyncio.gather(*gateways, return_exceptions=True)
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clusters", type=int)
    parser.add_argument("pools", type=int)
    options = parser.parse_args()
    asyncio.run(serve(options.clusters, options.pools))
