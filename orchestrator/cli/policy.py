"""What the running controller says of the policy in force: its snapshot, its state."""

import os
from typing import Any

import httpx
import orjson
from pydantic import ValidationError

from orchestrator.config.load import Loaded, state_directory
from orchestrator.policy.snapshot import Snapshot


def live_snapshot(loaded: Loaded) -> Snapshot | None:
    """None where no controller answers."""
    content = _ask(loaded, "snapshot")
    try:
        return Snapshot.model_validate_json(content) if content is not None else None
    except ValidationError:
        return None


def live_state(loaded: Loaded) -> dict[str, Any] | None:
    """None where no controller answers."""
    content = _ask(loaded, "state")
    try:
        return dict(orjson.loads(content)) if content is not None else None
    except ValueError:
        return None


def hold_pool(loaded: Loaded, pool: str, hold: str | None, for_s: float | None = None) -> None:
    """Raises as `tell` does."""
    tell(loaded, f"pools/{pool}/hold", {"hold": hold, "for_s": for_s})


def tell(loaded: Loaded, what: str, body: dict[str, Any]) -> dict[str, Any]:
    """The controller's answer. Raises LookupError for what it does not have, ValueError for what it
    refuses, and ConnectionError when none answers."""
    url, headers = _controller(loaded, what)
    try:
        answer = httpx.post(url, headers=headers, json=body, timeout=30)
    except httpx.HTTPError:
        raise ConnectionError("no controller answers") from None
    if answer.status_code == 404:
        raise LookupError(answer.text)
    if answer.status_code == 400:
        raise ValueError(answer.text)
    if answer.status_code != 200:
        raise ConnectionError(f"the controller answered {answer.status_code}")
    return dict(answer.json())


def live_events(loaded: Loaded, after: int) -> dict[str, Any] | None:
    """Those after an event's id, and whether they are written. None where no controller answers."""
    content = _ask(loaded, f"events?after={after}")
    try:
        return dict(orjson.loads(content)) if content is not None else None
    except ValueError:
        return None


def live_zombies(loaded: Loaded) -> dict[str, Any] | None:
    """Those of the last sweep. None where no controller answers."""
    content = _ask(loaded, "zombies")
    try:
        return dict(orjson.loads(content)) if content is not None else None
    except ValueError:
        return None


def _ask(loaded: Loaded, what: str) -> bytes | None:
    url, headers = _controller(loaded, what)
    try:
        answer = httpx.get(url, headers=headers, timeout=3)
        answer.raise_for_status()
        return answer.content
    except httpx.HTTPError:
        return None


def _controller(loaded: Loaded, what: str) -> tuple[str, dict[str, str]]:
    """URL and headers of a request to it."""
    file = state_directory() / "secrets" / "controller-token"
    token = os.environ.get("ORCHESTRATOR_TOKEN") or (
        file.read_text().strip() if file.exists() else ""
    )
    url = f"{loaded.configuration.controller.url}/v1/{what}"
    return url, {"authorization": f"Bearer {token}"}
