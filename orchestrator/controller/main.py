"""The controller process: it stands by until it leads."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from orchestrator.config.load import ConfigurationError, Loaded, Problem
from orchestrator.config.store import PolicyStore
from orchestrator.controller.clock import SteadyClock
from orchestrator.controller.events import EventKind, EventLog
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.follow import anchor_audit, follow
from orchestrator.controller.http import application
from orchestrator.controller.lease import FileLease, Lease, campaign, fence, identity
from orchestrator.controller.loop import Controller
from orchestrator.controller.memory import Memory
from orchestrator.policy.catalogue import Catalogue

MEMORY = "controller.json"

log = logging.getLogger("orchestrator.controller")


class Process:
    """One of those that may lead."""

    def __init__(
        self, state: Path, lease: Lease, name: str, session: aiohttp.ClientSession, fresh: bool
    ) -> None:
        self._state = state
        self._lease = lease
        self._name = name
        self._session = session
        self._fresh_of = _written(state / MEMORY) if fresh else None
        """The memory of a fleet that is no more; None: none is."""
        self._controller: Controller | None = None
        self.leads = asyncio.Event()

    def controller(self) -> Controller | None:
        """None while another process leads, or may."""
        return self._controller if self._lease.held() else None

    async def run(self) -> None:
        """Until cancelled. Raises ConfigurationError and MemoryNotWhole."""
        await campaign(self._lease, lambda: asyncio.create_task(self._lead()))

    async def _lead(self) -> None:
        path, store = self._state / MEMORY, PolicyStore(self._state)
        if self._fresh_of is not None:
            # Whoever has led since then knows the fleet as it is.
            if _written(path) == self._fresh_of:
                await asyncio.to_thread(_forget_fleet, path)
            self._fresh_of = None
        loaded = applied(self._state)
        catalogue = Catalogue(loaded.configuration, loaded.version)
        fleet = Fleet(catalogue, self._session, fence(self._lease))
        events = EventLog(self._state / "events.jsonl")
        clock = SteadyClock()
        events.record(EventKind.LEADER, self._name, "leads", now_s=clock.now_s())
        controller = Controller(
            catalogue, fleet, path, clock.now_s(), events, self._lease.held, clock
        )
        self._controller = controller
        self.leads.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(controller.run())
                tasks.create_task(controller.watch())
                tasks.create_task(follow(store, controller))
                tasks.create_task(anchor_audit(self._state / "audit", controller))
        finally:
            self._controller = None
            await fleet.stop()
            events.record(EventKind.LEADER, self._name, "leads no longer", now_s=clock.now_s())
            await events.close()


def _written(path: Path) -> tuple[int, int]:
    """Which one the file at this moment is; zeros: none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino


def _forget_fleet(path: Path) -> None:
    """Raises MemoryNotWhole and ConfigurationError."""
    try:
        Memory.read(path, fresh=True).write(path)
    except OSError as error:
        trouble = f"cannot be written: {error.strerror}; make it and its directory writable"
        raise ConfigurationError([Problem(path, 1, trouble)]) from None


def applied(state: Path) -> Loaded:
    """The rules in force. Raises ConfigurationError."""
    store = PolicyStore(state)
    version = store.current()
    if version is None:
        nothing = "nothing was applied; run 'orchestrator apply DIR'"
        raise ConfigurationError([Problem(state, 1, nothing)])
    return store.load(version.version)


async def serve(state: Path, fresh: bool) -> None:
    """Runs until SIGTERM or SIGINT. Raises ConfigurationError and MemoryNotWhole.

    `fresh`: its clusters were started from nothing; what an earlier controller knew of them does
    not hold. Costs, prices and what somebody said do.
    """
    settings = applied(state).configuration.controller
    name, address = identity(), urlsplit(settings.url)
    lease: Lease
    if settings.lease is None:
        lease = FileLease(state / "controller.lock", name)
    else:
        # The client of Kubernetes takes a second and 50 MB that no other stack needs.
        from orchestrator.controller.kubernetes_lease import connect

        lease = connect(settings.lease, name)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with aiohttp.ClientSession() as session:
        process = Process(state, lease, name, session, fresh)
        runner = web.AppRunner(application(process.controller), access_log=None)
        await runner.setup()

        async def listen() -> None:
            if settings.lease is None:
                # Whoever leads has the port.
                await process.leads.wait()
            # In a cluster the URL is that of a Service in front of all that may lead.
            host = address.hostname if settings.lease is None else None
            await web.TCPSite(runner, host, address.port).start()

        running = asyncio.gather(process.run(), listen())
        ended = asyncio.ensure_future(stopped.wait())
        try:
            both: list[asyncio.Future[Any]] = [running, ended]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
        finally:
            for task in (running, ended):
                task.cancel()
            await asyncio.gather(running, ended, return_exceptions=True)
            await runner.cleanup()


def run(state: Path, fresh: bool) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(state, fresh))
