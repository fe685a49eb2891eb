"""Pools of a Ray cluster: each (pool, variant) is a Serve application of its own.

Serve keeps the replicas alive; this module only says how many there should be, through Serve's
declarative API and its endpoint for external scalers.
"""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp

from orchestrator.config.spec import Cluster
from orchestrator.policy.candidate import Candidate
from orchestrator.pools.actuator import Fence, Observed, PoolError, Replicas, Unowned, clean, cut
from orchestrator.pools.engine import served_name

REQUEST_TIMEOUT_S = 60
SERVE_PATH = "/api/serve/applications/"
SHUTDOWN_GRACE_S = 600
"""How long Serve lets a stopping replica finish its streams."""
SLACK_DIVISOR = 4
"""A replica may be ahead of the least busy one by this part of what it can decode at once, and is
still preferred for what it has cached."""


MARK = "/pools/"
"""What the routes of our applications begin with: a cluster's Serve belongs to one installation."""


def application_name(candidate: Candidate) -> str:
    return f"{candidate.pool.name}--{candidate.variant.name}"


class RayPools:
    """The pools of one Ray cluster."""

    def __init__(
        self, cluster: Cluster, session: aiohttp.ClientSession, fence: Fence = lambda: None
    ) -> None:
        self._cluster = cluster
        self._session = session
        self._fence = fence
        self._changing = asyncio.Lock()
        self._url = (cluster.dashboard_url or "").rstrip("/")
        token = os.environ.get(cluster.token_env or "", "")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    async def deploy(self, applications: list[dict[str, Any]]) -> None:
        """Adds applications to the cluster's Serve configuration, leaving the others as they are.

        Raises PoolError.
        """
        await self._change(lambda kept: kept.update({a["name"]: a for a in applications}))

    async def _change(self, change: Callable[[dict[str, dict[str, Any]]], object]) -> None:
        """Serve takes applications only all at once: one change at a time, on what is there."""
        async with self._changing:
            applications = await self._applications()
            wanted = {
                name: app["deployed_app_config"]
                for name, app in applications.items()
                if app.get("deployed_app_config") and app.get("status") != "DELETING"
            }
            change(wanted)
            front = urlsplit(self._cluster.url)
            port = front.port or {"http": 80, "https": 443}[front.scheme]
            body = {
                "http_options": {"host": front.hostname, "port": port},
                "applications": list(wanted.values()),
            }
            await self._call("PUT", SERVE_PATH, body)

    async def scale(self, candidate: Candidate, replicas: int, existing: Replicas | None) -> None:
        """Sets the target. An endpoint that starts from nothing is deployed first, since Serve
        takes no deployment of zero replicas. Raises PoolError."""
        if existing is None or existing.abandoned:
            if replicas:
                await self.deploy([llm_application(candidate, replicas)])
            return
        name = quote(application_name(candidate), safe="")
        deployment = quote(f"LLMServer:{deployment_name(candidate)}", safe="")
        await self._call(
            "POST",
            f"/api/v1/applications/{name}/deployments/{deployment}/scale",
            {"target_num_replicas": replicas},
        )

    async def observe(self, candidates: list[Candidate]) -> Observed:
        applications = await self._applications()
        owned = {application_name(c): c.endpoint for c in candidates}
        return Observed(
            {owned[name]: _replicas(app) for name, app in applications.items() if name in owned},
            [
                self._unowned(name, app)
                for name, app in applications.items()
                if name not in owned
                and _route(app).startswith(MARK)
                and app.get("status") != "DELETING"
            ],
        )

    async def release(self, name: str) -> None:
        await self._change(lambda kept: kept.pop(name, None))

    async def close(self) -> None:
        pass

    async def _applications(self) -> dict[str, dict[str, Any]]:
        """What Serve runs, by name; nothing where Serve was never started. Raises PoolError.

        Ray's dashboard says the same where it cannot reach Serve's controller: whether there is one
        that it should reach, Ray's own list of actors tells.
        """
        status = await self._call("GET", SERVE_PATH)
        if not status.get("controller_info") and await self._has_controller():
            raise PoolError(f"GET {SERVE_PATH}: Serve's controller cannot be reached")
        return status.get("applications") or {}

    async def _has_controller(self) -> bool:
        names = [("name", "SERVE_CONTROLLER_ACTOR"), ("ray_namespace", "serve")]
        query = [
            item
            for key, value in names
            for item in (
                ("filter_keys", key),
                ("filter_predicates", "="),
                ("filter_values", value),
            )
        ]
        path = f"/api/v0/actors?{urlencode(query)}"
        answer = await self._call("GET", path)
        try:
            actors = answer["data"]["result"]["result"]
            return any(actor["state"] != "DEAD" for actor in actors)
        except (KeyError, TypeError):
            raise PoolError(f"GET {path}: not a list of actors") from None

    def _unowned(self, name: str, application: dict[str, Any]) -> Unowned:
        route = clean(_route(application))
        url = f"{self._cluster.url.rstrip('/')}{route}"
        return Unowned(clean(name), route.removeprefix(MARK), url, _replicas(application))

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        if method != "GET":
            self._fence()
        try:
            async with self._session.request(
                method,
                self._url + path,
                json=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            ) as response:
                text = await response.text(errors="replace")
                if response.status >= 400:
                    raise PoolError(f"{method} {path}: {response.status}", text[-500:])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PoolError(f"{method} {path}: {type(error).__name__}", str(error)) from None
        return _json_object(f"{method} {path}", text) if method == "GET" else {}


def _json_object(call: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PoolError(f"{call}: the answer is not a JSON object")
    return found


def llm_application(candidate: Candidate, replicas: int) -> dict[str, Any]:
    """A direct-streaming Serve application that runs one variant with vLLM."""
    pool, variant = candidate.pool, candidate.variant
    llm_config: dict[str, Any] = {
        "model_loading_config": {
            "model_id": _base_name(candidate),
            "model_source": variant.weights,
        },
        # Off, so that vLLM's own /metrics is served at the endpoint's URL.
        "log_engine_metrics": False,
        "runtime_env": {"env_vars": dict(variant.env)},
        "deployment_config": {
            "name": deployment_name(candidate),
            "num_replicas": replicas,
            "graceful_shutdown_timeout_s": SHUTDOWN_GRACE_S,
            "max_ongoing_requests": 10_000,
            "health_check_period_s": 2,
            "health_check_timeout_s": 30,
            "request_router_config": {
                "request_router_class": "orchestrator.pools.replica_router.PrefixLoadRouter",
                "request_router_kwargs": {"slack": max(2, variant.max_num_seqs // SLACK_DIVISOR)},
            },
        },
        "engine_kwargs": _engine_kwargs(candidate),
        "experimental_configs": {"stream_batching_interval_ms": 0},
    }
    if pool.accelerator == "CPU":
        llm_config["accelerator_config"] = {"kind": "cpu"}
        llm_config["deployment_config"]["ray_actor_options"] = {"num_cpus": 0.1}
    else:
        llm_config["accelerator_type"] = pool.accelerator
    return {
        "name": application_name(candidate),
        "route_prefix": candidate.route_prefix,
        "import_path": "ray.serve.llm:build_openai_app",
        "external_scaler_enabled": True,
        "args": {"llm_configs": [llm_config]},
    }


def _engine_kwargs(candidate: Candidate) -> dict[str, Any]:
    variant = candidate.variant
    kwargs: dict[str, Any] = {
        "max_model_len": variant.max_model_len,
        "max_num_seqs": variant.max_num_seqs,
        "disable_log_stats": False,
        "enable_log_requests": True,
        "enable_prompt_tokens_details": True,
    }
    if candidate.pool.accelerator == "CPU":
        kwargs["worker_cls"] = "orchestrator.pools.cpu_worker.CPUWorker"
    else:
        kwargs["tensor_parallel_size"] = candidate.pool.gpus_per_replica
    if variant.task != "generate":
        kwargs |= {"runner": "pooling", "convert": variant.task}
    if variant.lora is not None:
        adapter = {"name": served_name(candidate), "path": variant.lora}
        kwargs |= {"enable_lora": True, "max_loras": 1, "lora_modules": [adapter]}
    return kwargs | variant.engine_args


def _base_name(candidate: Candidate) -> str:
    """What the engine calls the weights themselves: under an adapter, what no model can be called,
    so that the base never answers in its name."""
    if candidate.variant.lora is None:
        return candidate.model.name
    return f"{candidate.variant.name}@base"


def deployment_name(candidate: Candidate) -> str:
    return candidate.variant.name.replace(".", "_")


STARTING = ("STARTING", "UPDATING", "RECOVERING")


def _replicas(application: dict[str, Any]) -> Replicas:
    for name, deployment in application.get("deployments", {}).items():
        if name.startswith("LLMServer:"):
            replicas = deployment.get("replicas", [])
            states = [r["state"] for r in replicas]
            pending = [
                r["start_time_s"]
                for r in replicas
                if r["state"] in STARTING and r.get("start_time_s")
            ]
            return Replicas(
                ready=states.count("RUNNING"),
                starting=sum(state in STARTING for state in states),
                stopping=states.count("STOPPING"),
                # On a node that is drained: Serve has begun to replace it.
                leaving=states.count("PENDING_MIGRATION"),
                pending_since_s=min(pending, default=None),
                failed=_failure(application),
            )
    return Replicas(
        deployed=False,
        pending_since_s=application.get("last_deployed_time_s"),
        failed=_failure(application),
    )


def _route(application: dict[str, Any]) -> str:
    """Empty where it has none. While it deploys, only what was asked for tells it."""
    asked = application.get("deployed_app_config") or {}
    return str(application.get("route_prefix") or asked.get("route_prefix") or "")


def _failure(application: dict[str, Any]) -> str | None:
    if application.get("status") == "DEPLOY_FAILED":
        return cut(str(application.get("message", "")))
    return None
