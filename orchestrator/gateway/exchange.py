"""The gateway's line to the controller: a report out, a snapshot back. No content passes here."""

import asyncio
import logging
import os
import time
import uuid
from pathlib import Path

import aiohttp
from pydantic import ValidationError

from orchestrator.config.keys import KeyRing
from orchestrator.config.load import ConfigurationError, load
from orchestrator.config.spec import Key
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import EndpointState, Snapshot
from orchestrator.signals.report import GatewayReport

log = logging.getLogger("orchestrator.gateway")


class Exchange:
    """Holds the catalogue and the snapshot that decisions use, and keeps them fresh."""

    def __init__(self, directory: Path, telemetry: Telemetry) -> None:
        """Raises ConfigurationError: a gateway never serves without its rules."""
        self.gateway_id = uuid.uuid4().hex[:8]
        self._directory = directory
        self._telemetry = telemetry
        loaded = load(directory)
        self.catalogue = Catalogue(loaded.configuration, loaded.version)
        self._key_ring = KeyRing(directory)
        self._key_ring.refresh()
        self.snapshot = self._before_the_first()
        self._received_s = time.monotonic()

    @property
    def keys(self) -> dict[str, Key]:
        return self._key_ring.keys

    @property
    def snapshot_age_s(self) -> float:
        return time.monotonic() - self._received_s

    async def run(self) -> None:
        """Exchanges once per tick until cancelled. A controller that is gone changes nothing: the
        last snapshot stays in force and ages."""
        async with self._session() as session:
            while True:
                self._refresh_keys()
                try:
                    await self._once(session)
                except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
                    log.warning("no snapshot from the controller: %s", type(error).__name__)
                except ConfigurationError as error:
                    log.error("the changed configuration is not taken: %s", error)
                except Exception:
                    # Whatever it was: revoked keys and staleness depend on this loop going on.
                    log.exception("an exchange with the controller failed")
                await asyncio.sleep(self.catalogue.configuration.controller.tick_s)

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
            snapshot_version=self.snapshot.version,
            endpoints=self._telemetry.report(time.monotonic()),
            leaving=leaving,
        )
        url = f"{self.catalogue.configuration.controller.url}/v1/exchange"
        try:
            async with session.post(url, data=report.model_dump_json()) as response:
                response.raise_for_status()
                return await response.read()
        except BaseException:
            # Twice in the controller's figures at worst, when only its answer was lost.
            self._telemetry.not_taken(report.endpoints)
            raise

    async def _once(self, session: aiohttp.ClientSession) -> None:
        snapshot = Snapshot.model_validate_json(await self._post(session))
        if snapshot.config_version != self.catalogue.version:
            loaded = await asyncio.to_thread(load, self._directory)
            if loaded.version == snapshot.config_version:
                self.catalogue = Catalogue(loaded.configuration, loaded.version)
        # A controller whose ticks fail gives the same snapshot again: that one goes on ageing.
        if snapshot.version != self.snapshot.version:
            self._received_s = time.monotonic()
        self.snapshot = snapshot

    def _refresh_keys(self) -> None:
        """Keys come and go without a new configuration: a revoked one is refused within a tick."""
        try:
            self._key_ring.refresh()
        except Exception as error:
            log.error("the changed keys are not taken: %s", error)

    def _before_the_first(self) -> Snapshot:
        """Until a controller speaks: home pools that should always run are taken to do so."""
        return Snapshot(
            config_version=self.catalogue.version,
            created_at_s=time.time(),
            endpoints={
                endpoint: EndpointState(ready_replicas=candidate.pool.min_replicas)
                for endpoint, candidate in self.catalogue.candidates.items()
            },
        )
