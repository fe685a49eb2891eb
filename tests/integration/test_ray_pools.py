"""What is asked of Serve's API, by a stand-in for Ray's dashboard."""

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import ValidationError

from orchestrator.config.spec import Cluster, Model
from orchestrator.policy.candidate import Candidate
from orchestrator.pools.actuator import Observed, PoolError, Replicas
from orchestrator.pools.engine import warm_up
from orchestrator.pools.ray import RayPools, application_name, llm_application
from tests.fake_serve import FakeServe
from tests.integration.engines import scripted, serve
from tests.worlds import small

CANDIDATE = small().candidates["cloud-gpu/m-fp16"]


def running(*applications: dict[str, Any]) -> dict[str, Any]:
    """What the dashboard answers where Serve runs them."""
    return {
        "controller_info": {"actor_id": "1"},
        "applications": {a["name"]: a for a in applications},
    }


def asked(existing: Replicas | None, url: str = "http://127.0.0.1:8001") -> tuple[str, Any]:
    """Method and body of the last call when the endpoint is scaled to one replica."""
    calls: list[tuple[str, Any]] = []

    async def dashboard(request: web.Request) -> web.Response:
        calls.append((request.method, await request.json() if request.can_read_body else None))
        return web.json_response(running())

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


def engine_of(**variant: Any) -> tuple[str, dict[str, Any]]:
    """What the engine calls the weights, and its arguments."""
    changed = CANDIDATE.variant.model_copy(update=variant)
    config = llm_application(replace(CANDIDATE, variant=changed), 1)["args"]["llm_configs"][0]
    return config["model_loading_config"]["model_id"], config["engine_kwargs"]


@pytest.mark.parametrize(("served_name", "answers_to"), [(None, "m"), ("letters", "letters")])
def test_an_adapter_is_loaded_under_the_name_that_gateways_ask_for(
    served_name: str | None, answers_to: str
) -> None:
    base, engine = engine_of(lora="org/adapter", served_name=served_name)
    assert engine["lora_modules"] == [{"name": answers_to, "path": "org/adapter"}]
    assert engine["enable_lora"] is True
    assert "lora_modules" not in engine_of()[1]
    assert base != answers_to


def test_a_base_never_answers_in_the_name_of_its_adapter() -> None:
    base, _ = engine_of(lora="org/adapter")
    with pytest.raises(ValidationError, match="name"):
        Model(name=base, variants=[CANDIDATE.variant])
    assert engine_of()[0] == CANDIDATE.model.name


def test_an_adapter_may_be_larger_than_vllm_expects() -> None:
    assert (
        engine_of(lora="org/adapter", engine_args={"max_lora_rank": 64})[1]["max_lora_rank"] == 64
    )


@pytest.mark.parametrize("task", ["embed", "classify"])
def test_a_variant_that_generates_nothing_is_converted_to_what_it_does(task: str) -> None:
    _, engine = engine_of(task=task)
    assert (engine["runner"], engine["convert"]) == ("pooling", task)
    assert "runner" not in engine_of()[1]


@pytest.mark.parametrize(
    ("variant", "path", "body"),
    [
        ({}, "/v1/completions", {"model": "m", "prompt": "warm-up", "max_tokens": 1}),
        ({"task": "embed"}, "/pooling", {"model": "m", "input": "warm-up"}),
        ({"task": "classify"}, "/pooling", {"model": "m", "input": "warm-up"}),
        (
            {"lora": "org/adapter", "served_name": "letters"},
            "/v1/completions",
            {"model": "letters", "prompt": "warm-up", "max_tokens": 1},
        ),
    ],
)
def test_a_replica_is_warmed_up_by_what_its_engine_answers(
    variant: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    assert warmed_up(variant, status=200) == (f"{_route(CANDIDATE)}{path}", body)


def test_a_replica_that_does_not_answer_is_not_warm() -> None:
    with pytest.raises(PoolError, match="404"):
        warmed_up({}, status=404)


def warmed_up(variant: dict[str, Any], status: int) -> tuple[str, Any]:
    """Path and body of the request that warms a variant up."""
    calls: list[tuple[str, Any]] = []

    async def engine(request: web.Request) -> web.Response:
        calls.append((request.path, await request.json()))
        return web.json_response({}, status=status)

    async def inside() -> None:
        async with serve(scripted(engine)) as at, aiohttp.ClientSession() as session:
            cluster = Cluster(name="away", zone="cloud", kind="ray", url=at, dashboard_url=at)
            changed = CANDIDATE.variant.model_copy(update=variant)
            candidate = replace(CANDIDATE, cluster=cluster, variant=changed)
            await warm_up(session, candidate)

    asyncio.run(inside())
    return calls[-1]


def test_a_variant_with_dots_in_its_name_is_scaled_where_serve_has_it() -> None:
    variant = CANDIDATE.variant.model_copy(update={"name": "llama-3.1"})
    candidate = replace(CANDIDATE, variant=variant)
    name = llm_application(candidate, 1)["args"]["llm_configs"][0]["deployment_config"]["name"]
    assert scaled_path(candidate).endswith(f"/deployments/LLMServer:{name}/scale")


def scaled_path(candidate: Candidate) -> str:
    paths: list[str] = []

    async def dashboard(request: web.Request) -> web.Response:
        paths.append(request.rel_url.raw_path)
        return web.json_response({})

    async def inside() -> None:
        async with serve(scripted(dashboard)) as at, aiohttp.ClientSession() as session:
            cluster = Cluster(name="away", zone="cloud", kind="ray", url=at, dashboard_url=at)
            await RayPools(cluster, session).scale(candidate, 2, Replicas())

    asyncio.run(inside())
    return paths[-1]


def observed(*applications: dict[str, Any]) -> Observed:
    found: list[Observed] = []

    async def dashboard(_: web.Request) -> web.Response:
        return web.json_response(running(*applications))

    async def inside() -> None:
        async with serve(scripted(dashboard)) as at, aiohttp.ClientSession() as session:
            cluster = Cluster(name="away", zone="cloud", kind="ray", url=at, dashboard_url=at)
            found.append(await RayPools(cluster, session).observe([CANDIDATE]))

    asyncio.run(inside())
    return found[0]


def deployed(name: str, route: str | None, *states: str) -> dict[str, Any]:
    replicas = [{"state": state, "start_time_s": 50 + n} for n, state in enumerate(states)]
    return {
        "name": name,
        "route_prefix": route,
        "status": "RUNNING",
        "message": "",
        "last_deployed_time_s": 40,
        "deployed_app_config": {"name": name, "route_prefix": route},
        "deployments": {"LLMServer:m-fp16": {"replicas": replicas}} if states else {},
    }


def test_replicas_are_counted_by_what_serve_says_of_them() -> None:
    name, route = application_name(CANDIDATE), _route(CANDIDATE)
    states = ("RUNNING", "STARTING", "STARTING", "PENDING_MIGRATION", "STOPPING", "RUNNING")
    assert observed(deployed(name, route, *states)).replicas == {
        CANDIDATE.endpoint: Replicas(ready=2, starting=2, leaving=1, stopping=1, pending_since_s=51)
    }
    built = observed(deployed(name, None)).replicas[CANDIDATE.endpoint]
    assert built == Replicas(deployed=False, pending_since_s=40)


def test_what_bears_our_mark_and_belongs_to_no_candidate_is_told() -> None:
    being_deployed = deployed("old--b", None)
    being_deployed["deployed_app_config"]["route_prefix"] = "/pools/old/b"
    found = observed(
        deployed("gateway", None, "RUNNING"),
        deployed("somebody-elses", "/chat", "RUNNING"),
        deployed(application_name(CANDIDATE), _route(CANDIDATE), "RUNNING"),
        deployed("old--a", "/pools/old/a", "RUNNING"),
        being_deployed,
        deployed("old--c", "/pools/old/c", "STOPPING") | {"status": "DELETING"},
    )
    assert {(u.name, u.endpoint) for u in found.unowned} == {
        ("old--a", "old/a"),
        ("old--b", "old/b"),
    }
    assert found.unowned[0].url is not None
    assert found.unowned[0].url.endswith("/pools/old/a")
    assert found.unowned[0].replicas.ready == 1


def test_what_is_released_goes_and_everything_else_stays() -> None:
    puts: list[Any] = []

    async def dashboard(request: web.Request) -> web.Response:
        if request.method == "PUT":
            puts.append(await request.json())
        kept, old = deployed("gateway", None, "RUNNING"), deployed("old--a", "/pools/old/a")
        return web.json_response(running(kept, old))

    async def inside() -> None:
        async with serve(scripted(dashboard)) as at, aiohttp.ClientSession() as session:
            cluster = Cluster(name="away", zone="cloud", kind="ray", url=at, dashboard_url=at)
            await RayPools(cluster, session).release("old--a")

    asyncio.run(inside())
    assert [[a["name"] for a in put["applications"]] for put in puts] == [["gateway"]]


def test_a_controller_that_cannot_be_reached_is_not_taken_for_a_serve_without_applications() -> (
    None
):
    fake = FakeServe()

    async def inside() -> None:
        async with serve(fake.application()) as at, aiohttp.ClientSession() as session:
            cluster = Cluster(name="away", zone="cloud", kind="ray", url=at, dashboard_url=at)
            assert (await RayPools(cluster, session).observe([CANDIDATE])).replicas == {}
            kept = llm_application(CANDIDATE, 1)
            await RayPools(cluster, session).deploy([kept | {"name": "kept"}])
            fake.reachable = False
            # Also one that has seen nothing there yet, as a controller that begins to lead.
            pools = RayPools(cluster, session)
            with pytest.raises(PoolError, match="cannot be reached"):
                await pools.observe([CANDIDATE])
            for change in (pools.scale(CANDIDATE, 1, None), pools.release("old--a")):
                with pytest.raises(PoolError, match="cannot be reached"):
                    await change
            fake.reachable = True
            await pools.scale(CANDIDATE, 1, None)

    asyncio.run(inside())
    assert fake.changes == ["PUT ['kept']", f"PUT {sorted([application_name(CANDIDATE), 'kept'])}"]


def test_where_it_cannot_be_told_whether_serve_has_a_controller_nothing_is_deployed() -> None:
    methods: list[str] = []

    async def dashboard(request: web.Request) -> web.Response:
        methods.append(request.method)
        return web.json_response({"controller_info": None, "applications": None})

    async def inside() -> None:
        async with serve(scripted(dashboard)) as at, aiohttp.ClientSession() as session:
            cluster = Cluster(name="away", zone="cloud", kind="ray", url=at, dashboard_url=at)
            with pytest.raises(PoolError, match="list of actors"):
                await RayPools(cluster, session).deploy([llm_application(CANDIDATE, 1)])

    asyncio.run(inside())
    assert set(methods) == {"GET"}


def test_what_no_utf_8_can_hold_is_cleaned_out_of_what_a_cluster_says() -> None:
    failed = deployed(application_name(CANDIDATE), _route(CANDIDATE)) | {
        "status": "DEPLOY_FAILED",
        "message": "bad \ud800 byte, good \U0001f600",
    }
    found = observed(failed, deployed("old\udfff", "/pools/old/\udfff", "RUNNING"))
    assert found.replicas[CANDIDATE.endpoint].failed == "bad ? byte, good \U0001f600"
    assert [(u.name, u.endpoint) for u in found.unowned] == [("old?", "old/?")]
    assert str(PoolError("GET /: 500", "\ud800")) == "GET /: 500: ?"


@pytest.mark.parametrize("answer", ["{", "7", "[]", "", '"text"'])
def test_an_answer_that_is_no_json_object_is_an_error_of_the_cluster(answer: str) -> None:
    async def dashboard(_: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    async def inside() -> None:
        async with serve(scripted(dashboard)) as at, aiohttp.ClientSession() as session:
            cluster = Cluster(name="away", zone="cloud", kind="ray", url=at, dashboard_url=at)
            with pytest.raises(PoolError, match="not a JSON object"):
                await RayPools(cluster, session).observe([CANDIDATE])

    asyncio.run(inside())
