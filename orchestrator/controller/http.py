"""The controller's HTTP face: gateways exchange reports for snapshots; people read its state."""

import hmac
import os
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import ValidationError

from orchestrator.controller.loop import Controller
from orchestrator.controller.metrics import CONTENT_TYPE
from orchestrator.policy.snapshot import Hold, Snapshot
from orchestrator.signals.report import GatewayReport

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN = frozenset({"/healthz", "/metrics"})
"""Nobody needs a key for these: names of the configuration and numbers."""
MAX_REPORT_BYTES = 8 * 1024 * 1024


def application(controller: Controller) -> web.Application:
    """Every path but those in `OPEN` needs the bearer token of the environment's
    `ORCHESTRATOR_TOKEN`."""
    token = os.environ.get("ORCHESTRATOR_TOKEN", "")

    @web.middleware
    async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        given = request.headers.get("authorization", "")
        # Headers may carry bytes that are no text.
        presented = given.encode("utf-8", "surrogateescape")
        if not token or not hmac.compare_digest(presented, f"Bearer {token}".encode()):
            raise web.HTTPUnauthorized(text="give the controller's token as a bearer token")
        return await handler(request)

    async def exchange(request: web.Request) -> web.Response:
        try:
            report = GatewayReport.model_validate_json(await request.read())
        except ValidationError as error:
            raise web.HTTPBadRequest(text=f"not a report: {error.error_count()} errors") from None
        return _answer(controller.exchange(report, time.time()))

    async def hold(request: web.Request) -> web.Response:
        pool = request.match_info["pool"]
        try:
            wanted = (await request.json())["hold"]
            controller.hold(pool, None if wanted is None else Hold(wanted))
        except KeyError:
            raise web.HTTPNotFound(text=f"no pool '{pool}'") from None
        except (ValueError, TypeError):
            raise web.HTTPBadRequest(text="'hold' is drained, leaving or null") from None
        return web.json_response({"pool": pool, "hold": wanted})

    async def snapshot(_: web.Request) -> web.Response:
        return _answer(controller.published())

    async def state(_: web.Request) -> web.Response:
        return web.json_response(controller.state())

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def metrics(_: web.Request) -> web.Response:
        shown = controller.metrics.exposition(time.time())
        return web.Response(body=shown, headers={"content-type": CONTENT_TYPE})

    app = web.Application(middlewares=[authorized], client_max_size=MAX_REPORT_BYTES)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", metrics)
    app.router.add_post("/v1/exchange", exchange)
    app.router.add_post("/v1/pools/{pool}/hold", hold)
    app.router.add_get("/v1/snapshot", snapshot)
    app.router.add_get("/v1/state", state)
    return app


def _answer(snapshot: Snapshot | None) -> web.Response:
    if snapshot is None:
        raise web.HTTPServiceUnavailable(text="the fleet is not known yet")
    return web.Response(text=snapshot.model_dump_json(), content_type="application/json")
