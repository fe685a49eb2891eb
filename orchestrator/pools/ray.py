"""Pools of a Ray cluster: each (pool, variant) is a Serve application of its own.

Serve keeps the replicas alive; this module only says how many there should be, through Serve's
declarative API and its endpoint for external scalers.
"""

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from orchestrator.config.spec import Cluster
from orchestrator.policy.candidate import Candidate
from orchestrator.signals.engine import EngineMetrics, parse

REQUEST_TIMEOUT_S = 60
SHUTDOWN_GRACE_S = 600
"""How long Serve lets a stopping replica finish its streams."""
SLACK_DIVISOR = 4
"""A replica may be ahead of the least busy one by this part of what it can decode at once, and is
still preferred for what it has cached."""


class PoolError(Exception):
    """The cluster did not do what was asked; the message says what it answered."""

    def __init__(self, summary: str, detail: str = "") -> None:
        """`detail`: in words that are not ours."""
        super().__init__(f"{summary}: {detail}" if detail else summary)
        self.summary = summary
        """For logs: what the cluster answers may quote addresses and the environment of engines."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Replicas of one endpoint by what Serve says of them."""

    ready: int = 0
    starting: int = 0
    stopping: int = 0
    deployed: bool = True
    """False while Serve still builds the application: nothing can be scaled yet."""
    failed: str | None = None
    """Serve's reason when the application cannot be deployed."""

    @property
    def gave_up(self) -> bool:
        """Whether Serve tries no more: the application could not even be built."""
        return not self.deployed and self.failed is not None

    @property
    def total(self) -> int:
        return self.ready + self.starting + self.stopping


def application_name(candidate: Candidate) -> str:
    return f"{candidate.pool.name}--{candidate.variant.name}"


class RayPools:
    """The pools of one Ray cluster."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self._cluster = cluster
        self._session = session
        self._url = (cluster.dashboard_url or "").rstrip("/")
        token = os.environ.get(cluster.token_env or "", "")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    async def deploy(self, applications: list[dict[str, Any]]) -> None:
        """Adds applications to the cluster's Serve configuration, leaving the others as they are.

        Raises PoolError.
        """
        status = await self._call("GET", "/api/serve/applications/")
        kept = {
            name: app["deployed_app_config"]
            for name, app in status.get("applications", {}).items()
            if app.get("deployed_app_config") and app.get("status") != "DELETING"
        }
        kept.update({app["name"]: app for app in applications})
        front = urlsplit(self._cluster.url)
        port = front.port or {"http": 80, "https": 443}[front.scheme]
        body = {
            "http_options": {"host": front.hostname, "port": port},
            "applications": list(kept.values()),
        }
        await self._call("PUT", "/api/serve/applications/", body)

    async def scale(self, candidate: Candidate, replicas: int, existing: Replicas | None) -> None:
        """Sets the target. An endpoint that starts from nothing is deployed first, since Serve
        takes no deployment of zero replicas. Raises PoolError."""
        if existing is None or existing.gave_up:
            if replicas:
                await self.deploy([llm_application(candidate, replicas)])
            return
        name = quote(application_name(candidate), safe="")
        deployment = quote(f"LLMServer:{_deployment_name(candidate)}", safe="")
        await self._call(
            "POST",
            f"/api/v1/applications/{name}/deployments/{deployment}/scale",
            {"target_num_replicas": replicas},
        )

    async def observe(self, candidates: list[Candidate]) -> dict[str, Replicas]:
        """Replicas by endpoint; an endpoint that is not deployed is absent. Raises PoolError."""
        status = await self._call("GET", "/api/serve/applications/")
        applications = status.get("applications", {})
        return {
            c.endpoint: _replicas(applications[application_name(c)])
            for c in candidates
            if application_name(c) in applications
        }

    async def engine_metrics(self, candidate: Candidate) -> EngineMetrics:
        """What the endpoint's engine says of itself. Raises PoolError."""
        try:
            async with self._session.get(
                f"{candidate.url}/metrics", timeout=aiohttp.ClientTimeout(total=5)
            ) as response:
                response.raise_for_status()
                return parse(await response.text())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise PoolError(f"{candidate.endpoint}: {type(error).__name__}") from None

    async def warm_up(self, candidate: Candidate) -> None:
        """One answer: a replica serves when it has given one, not when it says so.

        Raises PoolError.
        """
        body: dict[str, Any] = {"model": _served_name(candidate)}
        if candidate.variant.task == "generate":
            path, body = "/v1/completions", {**body, "prompt": "warm-up", "max_tokens": 1}
        else:
            path, body = "/pooling", {**body, "input": "warm-up"}
        try:
            async with self._session.post(
                candidate.url + path,
                json=body,
                headers={"x-request-id": "warm-up"},
                timeout=aiohttp.ClientTimeout(total=60),
            ) as response:
                if response.status != 200:
                    raise PoolError(f"{candidate.endpoint}: warm-up got {response.status}")
                await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PoolError(f"{candidate.endpoint}: {type(error).__name__}") from None

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            async with self._session.request(
                method,
                self._url + path,
                json=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            ) as response:
                text = await response.text()
                if response.status >= 400:
                    raise PoolError(f"{method} {path}: {response.status}", text[-500:])
                return dict(await response.json()) if method == "GET" else {}
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PoolError(f"{method} {path}: {type(error).__name__}", str(error)) from None


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
            "name": _deployment_name(candidate),
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
        adapter = {"name": _served_name(candidate), "path": variant.lora}
        kwargs |= {"enable_lora": True, "max_loras": 1, "lora_modules": [adapter]}
    return kwargs | variant.engine_args


def _served_name(candidate: Candidate) -> str:
    """What gateways ask the endpoint for."""
    return candidate.variant.served_name or candidate.model.name


def _base_name(candidate: Candidate) -> str:
    """What the engine calls the weights themselves: under an adapter, what no model can be called,
    so that the base never answers in its name."""
    if candidate.variant.lora is None:
        return candidate.model.name
    return f"{candidate.variant.name}@base"


def _deployment_name(candidate: Candidate) -> str:
    return candidate.variant.name.replace(".", "_")


def _replicas(application: dict[str, Any]) -> Replicas:
    for name, deployment in application.get("deployments", {}).items():
        if name.startswith("LLMServer:"):
            states = [r["state"] for r in deployment.get("replicas", [])]
            return Replicas(
                ready=states.count("RUNNING"),
                starting=states.count("STARTING") + states.count("PENDING_INITIALIZATION"),
                stopping=states.count("STOPPING"),
                failed=_failure(application),
            )
    return Replicas(deployed=False, failed=_failure(application))


def _failure(application: dict[str, Any]) -> str | None:
    if application.get("status") == "DEPLOY_FAILED":
        return str(application.get("message", ""))[:300]
    return None
