"""The controller process."""

import asyncio
import logging
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from orchestrator.config.load import load, state_directory
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.http import application
from orchestrator.controller.loop import Controller
from orchestrator.controller.memory import Memory
from orchestrator.policy.catalogue import Catalogue


async def serve(directory: Path, fresh: bool) -> None:
    """Runs until SIGTERM or SIGINT. Raises ConfigurationError.

    `fresh`: its clusters were started from nothing; of what an earlier controller knew only the
    costs still hold.
    """
    loaded = load(directory)
    catalogue = Catalogue(loaded.configuration, loaded.version)
    address = urlsplit(loaded.configuration.controller.url)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with aiohttp.ClientSession() as session:
        fleet = Fleet(catalogue, session)
        path = state_directory() / "controller.json"
        if fresh:
            memory = Memory.read(path)
            memory.forget_fleet()
            memory.write(path)
        controller = Controller(catalogue, fleet, path, time.time())
        runner = web.AppRunner(application(controller), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, address.hostname, address.port).start()
        loop = asyncio.create_task(controller.run())
        await stopped.wait()
        loop.cancel()
        await fleet.stop()
        await runner.cleanup()


def run(directory: Path, fresh: bool) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(directory, fresh))
