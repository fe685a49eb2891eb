"""The controller's HTTP face: gateways exchange reports for snapshots; people read its state."""

import hmac
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.capacity.override import Override, OverrideKind
from orchestrator.controller.loop import Controller
from orchestrator.controller.metrics import CONTENT_TYPE, ControllerMetrics
from orchestrator.policy.snapshot import Hold, Snapshot
from orchestrator.signals.report import GatewayReport

Asked = TypeVar("Asked", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_REPORT_BYTES = 8 * 1024 * 1024
OPEN_PATHS = ("/healthz", "/readyz", "/metrics")
"""Nobody needs a key for these: names of the configuration and numbers."""


class HoldRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    hold: Hold | None
    for_s: float | None = Field(default=None, gt=0)


class ReclaimRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    subjects: list[str] = []
    dry_run: bool = True


class OverrideRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    override: OverrideKind
    pool: str | None = None
    for_s: float | None = Field(default=None, gt=0)


def application(leader: Callable[[], Controller | None]) -> web.Application:
    """Every path but `OPEN_PATHS` needs the bearer token of the environment's
    `ORCHESTRATOR_TOKEN`. `leader`: none while another process leads, and everything is refused."""
    token = os.environ.get("ORCHESTRATOR_TOKEN", "")

    @web.middleware
    async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS:
            return await handler(request)
        given = request.headers.get("authorization", "")
        # Headers may carry bytes that are no text.
        presented = given.encode("utf-8", "surrogateescape")
        if not token or not hmac.compare_digest(presented, f"Bearer {token}".encode()):
            raise web.HTTPUnauthorized(text="give the controller's token as a bearer token")
        return await handler(request)

    def controller() -> Controller:
        leading = leader()
        if leading is None:
            # Who holds on to this connection would never find the one that leads.
            raise web.HTTPServiceUnavailable(
                text="another controller leads", headers={"connection": "close"}
            )
        return leading

    async def exchange(request: web.Request) -> web.Response:
        leading = controller()
        try:
            report = GatewayReport.model_validate_json(await request.read())
        except ValidationError as error:
            raise web.HTTPBadRequest(text=f"not a report: {error.error_count()} errors") from None
        return _answer(leading.exchange(report, leading.clock.now_s()))

    async def hold(request: web.Request) -> web.Response:
        pool = request.match_info["pool"]
        wanted = _read(HoldRequest, await request.read())
        leading = controller()
        try:
            await leading.hold(pool, wanted.hold, _until(wanted.for_s, leading))
        except KeyError:
            raise web.HTTPNotFound(text=f"no pool '{pool}'") from None
        except OSError as error:
            raise _not_taken(error) from None
        return web.json_response({"pool": pool, "hold": wanted.hold})

    async def override(request: web.Request) -> web.Response:
        workload = request.match_info["workload"]
        wanted = _read(OverrideRequest, await request.read())
        leading = controller()
        until_s = _until(wanted.for_s, leading)
        word = Override(kind=wanted.override, pool=wanted.pool, until_s=until_s)
        try:
            await leading.override(workload, word)
        except KeyError:
            raise web.HTTPNotFound(text=f"no workload '{workload}'") from None
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        except OSError as error:
            raise _not_taken(error) from None
        return web.json_response({"workload": workload, **word.model_dump(mode="json")})

    async def zombies(_: web.Request) -> web.Response:
        return web.json_response(controller().zombies())

    async def reclaim(request: web.Request) -> web.Response:
        wanted = _read(ReclaimRequest, await request.read())
        try:
            found = await controller().reclaim(wanted.subjects, wanted.dry_run)
        except KeyError as unknown:
            raise web.HTTPNotFound(text=str(unknown.args[0])) from None
        return web.json_response({"dry_run": wanted.dry_run, "zombies": found})

    async def snapshot(_: web.Request) -> web.Response:
        return _answer(controller().published())

    async def state(_: web.Request) -> web.Response:
        return web.json_response(controller().state())

    async def events(request: web.Request) -> web.Response:
        try:
            after = int(request.query.get("after", "0"))
        except ValueError:
            raise web.HTTPBadRequest(text="'after' is the id of an event") from None
        log = controller().events
        return web.json_response(
            {
                "events": [event.model_dump(mode="json") for event in log.after(after)],
                "not_written": log.failure,
                "lost": log.lost,
            }
        )

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_: web.Request) -> web.Response:
        controller()
        return web.Response(text="leads")

    async def metrics(_: web.Request) -> web.Response:
        leading = leader()
        if leading is None:
            shown = ControllerMetrics().exposition(time.time())
        else:
            shown = leading.metrics.exposition(leading.clock.now_s())
        return web.Response(body=shown, headers={"content-type": CONTENT_TYPE})

    app = web.Application(middlewares=[authorized], client_max_size=MAX_REPORT_BYTES)
    app.router.add_post("/v1/exchange", exchange)
    app.router.add_post("/v1/pools/{pool}/hold", hold)
    app.router.add_post("/v1/bursts/{workload}", override)
    app.router.add_get("/v1/zombies", zombies)
    app.router.add_post("/v1/zombies/reclaim", reclaim)
    app.router.add_get("/v1/snapshot", snapshot)
    app.router.add_get("/v1/state", state)
    app.router.add_get("/v1/events", events)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)
    return app


def _answer(snapshot: Snapshot | None) -> web.Response:
    if snapshot is None:
        raise web.HTTPServiceUnavailable(text="the fleet is not known yet")
    return web.Response(text=snapshot.model_dump_json(), content_type="application/json")


def _read(model: type[Asked], body: bytes) -> Asked:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = "; ".join(_sentence(problem) for problem in error.errors())
        raise web.HTTPBadRequest(text=problems) from None


def _sentence(problem: Any) -> str:
    where = ".".join(map(str, problem["loc"]))
    return f"'{where}': {problem['msg']}" if where else str(problem["msg"])


def _until(for_s: float | None, leading: Controller) -> float | None:
    return None if for_s is None else leading.clock.now_s() + for_s


def _not_taken(error: OSError) -> web.HTTPServiceUnavailable:
    why = error.strerror or type(error).__name__
    return web.HTTPServiceUnavailable(
        text=f"not taken: the controller's memory cannot be written: {why}"
    )
