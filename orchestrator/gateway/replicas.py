"""The metrics of all gateways of a node, from whichever of them is asked.

They share a port, so that a scrape gets to any one of them. Each leaves what it counted in a file
every few seconds, and shows the others' files beside its own figures.
"""

import logging
import time
from contextlib import suppress
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from orchestrator.gateway.series import State, exposition

log = logging.getLogger("orchestrator.gateway")

PUBLISH_S = 2.0
STALE_S = 15.0
"""A file that nobody renews for so long is a dead gateway's, and removed."""

_STATE = TypeAdapter(State)


class Replicas:
    """For threads: files may be slow."""

    def __init__(self, directory: Path, gateway_id: str) -> None:
        """`directory` is shared by the gateways of a node."""
        self._directory = directory
        self._gateway_id = gateway_id
        self._troubled = False

    def publish(self, state: State) -> None:
        """Never raises: without its file a gateway is missing in the others' answers alone."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            half_made = self._directory / f"{self._gateway_id}.tmp"
            half_made.write_bytes(orjson.dumps(state))
            half_made.rename(self._own)
            self._troubled = False
        except OSError as error:
            if not self._troubled:
                log.error("metrics cannot be shared with other gateways: %s", error.strerror)
            self._troubled = True

    def exposition(self, own: State) -> bytes:
        """In Prometheus' text format, each gateway's figures under its id."""
        return exposition({self._gateway_id: own, **self._others()})

    def leave(self) -> None:
        with suppress(OSError):
            self._own.unlink(missing_ok=True)

    @property
    def _own(self) -> Path:
        return self._directory / f"{self._gateway_id}.json"

    def _others(self) -> dict[str, State]:
        states: dict[str, State] = {}
        now_s = time.time()
        for path in sorted(self._directory.glob("*")) if self._directory.is_dir() else ():
            if path.stem == self._gateway_id:
                continue
            try:
                if now_s - path.stat().st_mtime > STALE_S:
                    path.unlink()
                elif path.suffix == ".json":
                    states[path.stem] = _STATE.validate_json(path.read_bytes())
            except (OSError, ValidationError):
                continue  # it left, or something else lies there
        return states
