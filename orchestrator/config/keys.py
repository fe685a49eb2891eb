"""API keys: `sk-<id>-<secret>`, stored as hashes, matched in constant time."""

import fcntl
import hashlib
import hmac
import os
import secrets
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml

from orchestrator.config.spec import Key

FILE = "keys.yaml"
HEADER = "# API keys, written by `orchestrator keys`. Only hashes are kept here.\n"
_NOBODY = "0" * 64


def create(directory: Path, workload: str, expires_at: datetime | None = None) -> tuple[Key, str]:
    """Adds a key to the directory's `keys.yaml`. The plaintext is returned once, kept nowhere."""
    alphabet = string.ascii_lowercase + string.digits
    key_id = "".join(secrets.choice(alphabet) for _ in range(8))
    plaintext = f"sk-{key_id}-{secrets.token_urlsafe(32)}"
    key = Key(
        id=key_id,
        workload=workload,
        sha256=_hash(plaintext),
        created_at=datetime.now(UTC).replace(microsecond=0),
        expires_at=expires_at,
    )
    with _alone(directory):
        _write(directory, [*_read(directory), key])
    return key, plaintext


def revoke(directory: Path, key_id: str) -> None:
    """Raises KeyError when there is no such key."""
    with _alone(directory):
        keys = _read(directory)
        left = [key for key in keys if key.id != key_id]
        if len(left) == len(keys):
            raise KeyError(key_id)
        _write(directory, left)


class KeyRing:
    """The keys of a directory by id, taken anew when the file changes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mtime_ns = 0
        self.keys: dict[str, Key] = {}

    def refresh(self) -> None:
        """Raises ValueError for a broken file, whose keys are not taken; those held stay valid."""
        file = self._directory / FILE
        try:
            mtime_ns = file.stat().st_mtime_ns if file.exists() else 0
            if mtime_ns == self._mtime_ns:
                return
            self.keys = {key.id: key for key in _read(self._directory)}
        except Exception as error:
            # The text of the error may quote the file; its kind is enough.
            raise ValueError(
                f"{file}: {type(error).__name__}; see 'orchestrator validate'"
            ) from None
        self._mtime_ns = mtime_ns


def match(keys: Mapping[str, Key], presented: str, now: datetime) -> Key | None:
    """The key with this plaintext, unless it has expired. `now` is aware of its time zone."""
    parts = presented.split("-", 2)
    key = keys.get(parts[1]) if len(parts) == 3 else None
    same = hmac.compare_digest(_hash(presented), key.sha256 if key else _NOBODY)
    if key is None or not same:
        return None
    return None if key.expires_at is not None and key.expires_at <= now else key


def _hash(plaintext: str) -> str:
    return hashlib.sha256(plaintext.encode()).hexdigest()


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No other process changes the keys meanwhile: it could bring a revoked one back."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(directory: Path) -> list[Key]:
    file = directory / FILE
    if not file.exists():
        return []
    return [Key.model_validate(k) for k in (yaml.safe_load(file.read_text()) or {}).get("keys", [])]


def _write(directory: Path, keys: list[Key]) -> None:
    file, draft = directory / FILE, directory / f".{FILE}.draft"
    entries = [key.model_dump(mode="json", exclude_none=True) for key in keys]
    draft.write_text(HEADER + yaml.safe_dump({"keys": entries}, sort_keys=False))
    os.replace(draft, file)
