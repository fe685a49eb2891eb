"""What the controller does beside its ticks: it takes up rules that were applied, and notes where
the gateways' audit chains end."""

import asyncio
import logging
import time
from pathlib import Path

from orchestrator.config.load import ConfigurationError
from orchestrator.config.store import PolicyStore
from orchestrator.controller.loop import Controller
from orchestrator.ledger.audit_anchors import anchor
from orchestrator.policy.catalogue import Catalogue
from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.controller")

FOLLOW_S = 0.5
ANCHOR_S = 60


async def follow(store: PolicyStore, controller: Controller) -> None:
    """Takes up what was applied; rules that cannot be read leave the old ones in force."""
    refused = ""
    while True:
        await asyncio.sleep(FOLLOW_S)
        try:
            applied = await asyncio.to_thread(store.current)
            if applied is None or applied.version == controller.config_version:
                continue
            loaded = await asyncio.to_thread(store.load, applied.version)
            controller.adopt(Catalogue(loaded.configuration, loaded.version))
        except ConfigurationError as error:
            if str(error) != refused:
                log.error(
                    "the applied rules are not taken, see 'orchestrator validate': %s", error.places
                )
            refused = str(error)
        except Exception as error:
            log.error("the applied rules are not taken: %s", without_text(error))


async def anchor_audit(trail: Path, controller: Controller) -> None:
    while True:
        await asyncio.sleep(ANCHOR_S)
        try:
            await asyncio.to_thread(anchor, trail, controller.audit_heads())
            controller.metrics.anchored_at_s.set(time.time())
        except Exception as error:
            log.error("the audit trail is not anchored: %s", without_text(error))
