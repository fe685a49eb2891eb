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
        controller = self.catalogue.configuration.controller
        token = os.environ.get("ORCHESTRATOR_TOKEN", "")
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(
            timeout=timeout, headers={"authorization": f"Bearer {token}"}
        ) as session:
            while True:
                self._refresh_keys()
                try:
                    await self._once(session, f"{controller.url}/v1/exchange")
                except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
                    log.warning("no snapshot from the controller: %s", type(error).__name__)
                except ConfigurationError as error:
                    log.error("the changed configuration is not taken: %s", error)
                except Exception:
                    # Whatever it was: revoked keys and staleness depend on this loop going on.
                    log.exception("an exchange with the controller failed")
                await asyncio.sleep(controller.tick_s)

    async def _once(self, session: aiohttp.ClientSession, url: str) -> None:
        report = GatewayReport(
            gateway_id=self.gateway_id,
            config_version=self.catalogue.version,
            snapshot_version=self.snapshot.version,
            endpoints=self._telemetry.report(time.monotonic()),
        )
        body = report.model_dump_json()
        self._telemetry.reset()
        async with session.post(url, data=body) as response:
            response.raise_for_status()
            snapshot = Snapshot.model_validate_json(await response.read())
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
