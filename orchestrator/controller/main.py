"""The controller process."""

import asyncio
import logging
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from orchestrator.config.load import ConfigurationError, Problem
from orchestrator.config.store import PolicyStore
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.follow import anchor_audit, follow
from orchestrator.controller.http import application
from orchestrator.controller.loop import Controller
from orchestrator.controller.memory import Memory
from orchestrator.policy.catalogue import Catalogue


async def serve(state: Path, fresh: bool) -> None:
    """Runs until SIGTERM or SIGINT. Raises ConfigurationError.

    `fresh`: its clusters were started from nothing; of what an earlier controller knew only the
    costs still hold.
    """
    store = PolicyStore(state)
    applied = store.current()
    if applied is None:
        nothing = "nothing was applied; run 'orchestrator apply DIR'"
        raise ConfigurationError([Problem(state, 1, nothing)])
    loaded = store.load(applied.version)
    catalogue = Catalogue(loaded.configuration, loaded.version)
    address = urlsplit(loaded.configuration.controller.url)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with aiohttp.ClientSession() as session:
        fleet = Fleet(catalogue, session)
        path = state / "controller.json"
        if fresh:
            Memory.read(path, fresh=True).write(path)
        controller = Controller(catalogue, fleet, path, time.time())
        followers = [
            asyncio.create_task(follow(store, controller)),
            asyncio.create_task(anchor_audit(state / "audit", controller)),
        ]
        runner = web.AppRunner(application(controller), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, address.hostname, address.port).start()
        loop = asyncio.create_task(controller.run())
        await stopped.wait()
        for task in (loop, *followers):
            task.cancel()
        await fleet.stop()
        await runner.cleanup()


def run(state: Path, fresh: bool) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(state, fresh))
