"""Ray's dashboard and Serve's front without Ray: the same protocol, replicas that come and go, and
a point before and after each change at which the asker can be killed."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

STARTS_IN = 2
"""Looks until a replica that starts serves, or one that stops is gone."""


class FakeServe:
    def __init__(self, at_point: Callable[[], bool] = lambda: False) -> None:
        """`at_point`: whether the asker dies at this point, so that it is never answered."""
        self._at_point = at_point
        self.apps: dict[str, dict[str, Any]] = {}
        """By name: `config`, `target`, and the looks that each replica has been in its state."""
        self.changes: list[str] = []
        self.running = 0
        """Requests that every engine says it runs."""
        self.started = False
        """Whether Serve has a controller: from the first change on."""
        self.reachable = True
        """Whether the dashboard reaches it. Where not, Ray answers as if there were none."""

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/serve/applications/", self._status)
        app.router.add_put("/api/serve/applications/", self._put)
        app.router.add_get("/api/v0/actors", self._actors)
        app.router.add_post(
            "/api/v1/applications/{app}/deployments/{deployment}/scale", self._scale
        )
        app.router.add_get("/pools/{pool}/{variant}/metrics", self._metrics)
        app.router.add_post("/pools/{pool}/{variant}/v1/completions", self._complete)
        return app

    def replicas(self) -> dict[str, int]:
        """That exist, by application."""
        return {name: len(app["replicas"]) for name, app in self.apps.items()}

    def standing(self) -> set[str]:
        """Applications with replicas that nobody has told to go."""
        return {n for n, app in self.apps.items() if app["replicas"] and not app["deleting"]}

    async def _actors(self, request: web.Request) -> web.Response:
        asked = dict(
            zip(
                request.query.getall("filter_keys"),
                request.query.getall("filter_values"),
                strict=True,
            )
        )
        assert asked == {"name": "SERVE_CONTROLLER_ACTOR", "ray_namespace": "serve"}
        state = "ALIVE" if self.reachable else "RESTARTING"
        # One that was shut down is listed for a while.
        found = [{"state": "DEAD"}, {"state": state}] if self.started else [{"state": "DEAD"}]
        return web.json_response({"result": True, "data": {"result": {"result": found}}})

    async def _status(self, _: web.Request) -> web.Response:
        if not (self.started and self.reachable):
            return web.json_response({"controller_info": {}, "applications": {}})
        for app in self.apps.values():
            self._advance(app)
        gone = [n for n, app in self.apps.items() if app["deleting"] and not app["replicas"]]
        for name in gone:
            del self.apps[name]
        found = {name: self._details(name, app) for name, app in self.apps.items()}
        info = {"actor_name": "SERVE_CONTROLLER_ACTOR"}
        return web.json_response({"controller_info": info, "applications": found})

    async def _put(self, request: web.Request) -> web.Response:
        await self._maybe_die()
        wanted = {app["name"]: app for app in (await request.json())["applications"]}
        self.started = True
        self.changes.append(f"PUT {sorted(wanted)}")
        for name, config in wanted.items():
            if name not in self.apps or self.apps[name]["deleting"]:
                llm = config["args"]["llm_configs"][0]
                target = llm["deployment_config"]["num_replicas"]
                self.apps[name] = {
                    "config": config,
                    "target": target,
                    "replicas": [],
                    "deleting": False,
                    "looks": 0,
                }
        for name in self.apps.keys() - wanted.keys():
            self.apps[name] |= {"deleting": True, "target": 0}
        await self._maybe_die()
        return web.json_response({})

    async def _scale(self, request: web.Request) -> web.Response:
        await self._maybe_die()
        name = request.match_info["app"]
        if name not in self.apps or self.apps[name]["deleting"]:
            raise web.HTTPNotFound(text=f"no application {name}")
        target = (await request.json())["target_num_replicas"]
        self.changes.append(f"scale {name} to {target}")
        self.apps[name]["target"] = target
        await self._maybe_die()
        return web.json_response({})

    async def _metrics(self, request: web.Request) -> web.Response:
        running = self.running if self._serves(request) else 0
        return web.Response(
            text=f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\n"
        )

    async def _complete(self, request: web.Request) -> web.Response:
        return web.json_response({}, status=200 if self._serves(request) else 503)

    async def _maybe_die(self) -> None:
        if self._at_point():
            await asyncio.Event().wait()

    def _serves(self, request: web.Request) -> bool:
        name = f"{request.match_info['pool']}--{request.match_info['variant']}"
        return any(r["state"] == "RUNNING" for r in self.apps.get(name, {}).get("replicas", []))

    def _advance(self, app: dict[str, Any]) -> None:
        app["looks"] += 1
        if app["looks"] == 1 and not app["deleting"]:
            return  # it is still being built
        kept = []
        for replica in app["replicas"]:
            replica["looks"] += 1
            if replica["state"] == "STARTING" and replica["looks"] >= STARTS_IN:
                replica["state"] = "RUNNING"
            if replica["state"] == "STOPPING" and replica["looks"] >= STARTS_IN:
                continue
            kept.append(replica)
        standing = [r for r in kept if r["state"] != "STOPPING"]
        for replica in standing[app["target"] :]:
            replica.update(state="STOPPING", looks=0)
        missing = app["target"] - len(standing)
        kept += [{"state": "STARTING", "looks": 0} for _ in range(missing)]
        app["replicas"] = kept

    def _details(self, name: str, app: dict[str, Any]) -> dict[str, Any]:
        llm = app["config"]["args"]["llm_configs"][0]
        deployment = f"LLMServer:{llm['deployment_config']['name']}"
        built = app["looks"] > 1
        return {
            "name": name,
            "route_prefix": app["config"]["route_prefix"] if built else None,
            "status": "DELETING" if app["deleting"] else "RUNNING" if built else "DEPLOYING",
            "message": "",
            "last_deployed_time_s": 1.0,
            "deployed_app_config": app["config"],
            "deployments": {deployment: {"replicas": app["replicas"]}} if built else {},
        }
