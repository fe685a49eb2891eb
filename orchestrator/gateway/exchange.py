"""The gateway's line to the controller: a report out, a snapshot back. No content passes here."""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import aiohttp
from pydantic import ValidationError

from orchestrator.config.keys import KeyRing, KeysRefused
from orchestrator.config.load import ConfigurationError
from orchestrator.config.spec import Key
from orchestrator.config.store import PolicyStore
from orchestrator.gateway.fair_queue import Ticket
from orchestrator.gateway.rules import Rules, in_force, load_rules
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import EndpointState, Snapshot
from orchestrator.policy.view import View
from orchestrator.safe_log import without_text
from orchestrator.signals.report import AuditHead, GatewayReport, QueueReport

log = logging.getLogger("orchestrator.gateway")


class Exchange:
    """Holds the rules and the view that decisions use, and keeps them fresh."""

    def __init__(
        self,
        state: Path,
        telemetry: Telemetry,
        waiting: Iterable[Ticket],
        audit_head: Callable[[], AuditHead | None],
    ) -> None:
        """`waiting`: whoever waits in the gateway, at any moment. Raises ConfigurationError: a
        gateway never serves without its rules."""
        self.gateway_id = uuid.uuid4().hex[:8]
        self._waiting = waiting
        self._tick = asyncio.Event()
        self._store = PolicyStore(state)
        self._telemetry = telemetry
        self._audit_head = audit_head
        self._as_of_s = time.monotonic()
        rules = in_force(self._store)
        # For good: under other rules too the controller listens where it was started.
        self._controller_url = rules.catalogue.configuration.controller.url
        self._adopt(rules, _before_the_first(rules.catalogue))

    def _adopt(self, rules: Rules, snapshot: Snapshot) -> None:
        """The rules and the state that decisions are made on change together, or not at all."""
        key_ring = KeyRing(rules.keys_directory)
        key_ring.refresh()
        view = View(rules.catalogue, snapshot, self.gateway_id)
        self._key_ring = key_ring
        self.rules = rules
        self.view = view
        self._telemetry.inflight.follow(rules.catalogue)

    @property
    def catalogue(self) -> Catalogue:
        return self.rules.catalogue

    @property
    def snapshot(self) -> Snapshot:
        return self.view.snapshot

    @property
    def keys(self) -> dict[str, Key]:
        """Of this moment: keys come and go without a new configuration, and a revoked one is
        refused at once."""
        try:
            self._key_ring.refresh()
        except KeysRefused as error:
            log.error("the changed keys are not taken: %s", error)
        except Exception as error:
            log.error("the keys cannot be looked at: %s", without_text(error))
        return self._key_ring.keys

    @property
    def snapshot_age_s(self) -> float:
        return time.monotonic() - self._as_of_s

    async def run(self) -> None:
        """Exchanges once per tick until cancelled. A controller that is gone changes nothing: the
        last snapshot stays in force and ages."""
        async with self._session() as session:
            while True:
                try:
                    await self._once(session)
                except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
                    log.warning("no snapshot from the controller: %s", type(error).__name__)
                except ConfigurationError as error:
                    log.error(
                        "the changed configuration is not taken, see 'orchestrator validate': %s",
                        error.places,
                    )
                except Exception as error:
                    # Whatever it was: staleness and what waits depend on this loop going on.
                    log.error("an exchange with the controller failed: %s", without_text(error))
                over, self._tick = self._tick, asyncio.Event()
                over.set()
                await asyncio.sleep(self.catalogue.configuration.controller.tick_s)

    async def tick(self) -> None:
        """Returns after the next exchange, whatever came of it."""
        await self._tick.wait()

    async def say_goodbye(self) -> None:
        """Tells the controller, if it is there, that nothing comes from this gateway any more: else
        it must take its silence for that of one that sends on."""
        try:
            async with self._session() as session:
                await self._post(session, leaving=True)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("no goodbye to the controller: %s", type(error).__name__)

    def _session(self) -> aiohttp.ClientSession:
        token = os.environ.get("ORCHESTRATOR_TOKEN", "")
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=5), headers={"authorization": f"Bearer {token}"}
        )

    async def _post(self, session: aiohttp.ClientSession, leaving: bool = False) -> bytes:
        report = GatewayReport(
            gateway_id=self.gateway_id,
            config_version=self.catalogue.version,
            snapshot_version=self.snapshot.version,
            audit_head=self._audit_head(),
            endpoints=self._telemetry.report(time.monotonic()),
            queues=self._queues(time.monotonic()),
            workloads=self._telemetry.demand.report(),
            leaving=leaving,
        )
        url = f"{self._controller_url}/v1/exchange"
        try:
            async with session.post(url, data=report.model_dump_json()) as response:
                response.raise_for_status()
                return await response.read()
        except BaseException:
            # Twice in the controller's figures at worst, when only its answer was lost.
            self._telemetry.not_taken(report.endpoints)
            self._telemetry.demand.not_taken(report.workloads)
            raise

    def _queues(self, now_s: float) -> list[QueueReport]:
        """Those who wait, by where they would run at home."""
        ages_s: dict[tuple[str, ...], list[float]] = {}
        for waiter in self._waiting:
            ages_s.setdefault(waiter.home, []).append(now_s - waiter.arrived_s)
        return [QueueReport(endpoints=list(home), ages_s=ages_s[home]) for home in ages_s]

    async def _once(self, session: aiohttp.ClientSession) -> None:
        # Its age counts from before it was given, as the controller counts it.
        asked_s = time.monotonic()
        snapshot = Snapshot.model_validate_json(await self._post(session))
        # A controller whose ticks fail gives the same snapshot again: that one goes on ageing, and
        # so does one whose rules are not to be had here.
        if snapshot.version == self.snapshot.version:
            return
        if snapshot.config_version == self.catalogue.version:
            self.view = View(self.catalogue, snapshot, self.gateway_id)
        else:
            rules = await asyncio.to_thread(load_rules, self._store, snapshot.config_version)
            self._adopt(rules, snapshot)
            log.info("policy version %s is in force", self.catalogue.version)
        self._as_of_s = asked_s


def _before_the_first(catalogue: Catalogue) -> Snapshot:
    """Until a controller speaks: home pools that should always run are taken to do so."""
    return Snapshot(
        config_version=catalogue.version,
        created_at_s=time.time(),
        endpoints={
            endpoint: EndpointState(ready_replicas=candidate.pool.min_replicas)
            for endpoint, candidate in catalogue.candidates.items()
        },
    )
