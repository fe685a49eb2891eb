"""What is asked of Serve's API, by a stand-in for Ray's dashboard."""

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orchestrator.config.spec import Cluster
from orchestrator.policy.candidate import Candidate
from orchestrator.pools.ray import PoolError, RayPools, Replicas, llm_application
from tests.integration.engines import scripted, serve
from tests.worlds import small

CANDIDATE = small().candidates["cloud-gpu/m-fp16"]


def asked(existing: Replicas | None, url: str = "http://127.0.0.1:8001") -> tuple[str, Any]:
    """Method and body of the last call when the endpoint is scaled to one replica."""
    calls: list[tuple[str, Any]] = []

    async def dashboard(request: web.Request) -> web.Response:
        calls.append((request.method, await request.json() if request.can_read_body else None))
        return web.json_response({"applications": {}})

    async def inside() -> None:
        async with serve(scripted(dashboard)) as at, aiohttp.ClientSession() as session:
            cluster = Cluster(name="away", zone="cloud", kind="ray", url=url, dashboard_url=at)
            await RayPools(cluster, session).scale(CANDIDATE, 1, existing)

    asyncio.run(inside())
    return calls[-1]


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:8001", "127.0.0.1", 8001),
        ("http://serve.example", "serve.example", 80),
        ("https://serve.example/", "serve.example", 443),
    ],
)
def test_serves_front_listens_where_the_clusters_url_says(url: str, host: str, port: int) -> None:
    _, body = asked(None, url)
    assert body["http_options"] == {"host": host, "port": port}


def test_what_is_not_there_is_deployed_and_what_is_there_is_scaled() -> None:
    for existing in (None, Replicas(deployed=False, failed="no such model")):
        method, body = asked(existing)
        assert method == "PUT"
        assert [a["route_prefix"] for a in body["applications"]] == [_route(CANDIDATE)]
    assert asked(Replicas()) == ("POST", {"target_num_replicas": 1})


def test_a_replica_is_spread_over_the_gpus_that_it_is_charged_for() -> None:
    def engine(accelerator: str, **engine_args: int) -> Any:
        candidate = replace(
            CANDIDATE,
            pool=CANDIDATE.pool.model_copy(
                update={"accelerator": accelerator, "gpus_per_replica": 4}
            ),
            variant=CANDIDATE.variant.model_copy(update={"engine_args": engine_args}),
        )
        application = llm_application(candidate, 1)
        return application["args"]["llm_configs"][0]["engine_kwargs"]

    assert engine("H100")["tensor_parallel_size"] == 4
    assert engine("H100", tensor_parallel_size=2)["tensor_parallel_size"] == 2
    assert "tensor_parallel_size" not in engine("CPU")


def _route(candidate: Candidate) -> str:
    return f"/pools/{candidate.endpoint}"


def test_a_base_never_answers_in_the_name_of_its_adapter() -> None:
    variant = CANDIDATE.variant.model_copy(update={"lora": "org/adapter"})
    with pytest.raises(PoolError, match="adapter"):
        llm_application(replace(CANDIDATE, variant=variant), 1)
