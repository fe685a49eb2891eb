"""What a controller answers while another one leads."""

import asyncio

import aiohttp
from aiohttp.test_utils import TestServer

from orchestrator.controller.http import application
from tests.integration.engines import samples


def test_a_standby_shows_that_it_does_not_lead_and_keeps_no_connection() -> None:
    async def inside() -> None:
        async with (
            TestServer(application(lambda: None)) as server,
            aiohttp.ClientSession(server.make_url("/")) as session,
        ):
            async with session.get("/readyz") as unready:
                # A gateway that came here goes to whoever leads the next time.
                assert unready.status == 503
                assert unready.headers["connection"] == "close"
            async with session.get("/healthz") as alive:
                assert alive.status == 200
            async with session.get("/metrics") as shown:
                assert samples(await shown.text(), "orchestrator_leader") == [({}, 0)]

    asyncio.run(inside())
