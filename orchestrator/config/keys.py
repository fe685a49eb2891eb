"""API keys: `sk-<id>-<secret>`, stored as hashes, matched in constant time."""

import fcntl
import hashlib
import hmac
import os
import secrets
import string
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from orchestrator.config.spec import Key, Limits, Scope

FILE = "keys.yaml"
HEADER = "# API keys, written by `orchestrator keys`. Only hashes are kept here.\n"
REMIND_S = 60
"""After which a file that is still broken is reported once more."""
_NOBODY = "0" * 64


def create(
    directory: Path,
    workload: str,
    expires_at: datetime | None = None,
    scope: Scope | None = None,
    limits: Limits | None = None,
) -> tuple[Key, str]:
    """Adds a key to the directory's `keys.yaml`. The plaintext is returned once, kept nowhere."""
    key, plaintext = _make(workload, expires_at, scope or Scope(), limits or Limits())
    with _alone(directory):
        _write(directory, [*_read(directory), key])
    return key, plaintext


def rotate(directory: Path, key_id: str, overlap: timedelta) -> tuple[Key, str]:
    """Adds a key that may do what this one may, for as long as this one was made for, and lets this
    one end after the overlap. Raises KeyError when there is none, ValueError when it is over."""
    now = datetime.now(UTC).replace(microsecond=0)
    with _alone(directory):
        keys = _read(directory)
        old = next((key for key in keys if key.id == key_id), None)
        if old is None:
            raise KeyError(key_id)
        if is_over(old, now):
            raise ValueError(f"key '{key_id}' is over already; create a new one")
        lifetime = old.expires_at - old.created_at if old.expires_at else None
        new, plaintext = _make(
            old.workload, now + lifetime if lifetime else None, old.scope, old.limits
        )
        end = min(old.expires_at or now + overlap, now + overlap)
        ending = old.model_copy(update={"expires_at": end})
        _write(directory, [*(ending if key is old else key for key in keys), new])
    return new, plaintext


def revoke(directory: Path, key_id: str) -> None:
    """Raises KeyError when there is no such key."""
    with _alone(directory):
        keys = _read(directory)
        left = [key for key in keys if key.id != key_id]
        if len(left) == len(keys):
            raise KeyError(key_id)
        _write(directory, left)


class KeysRefused(ValueError):
    """A file of keys that cannot be taken. Says which, the kind of its trouble and the mend, and
    quotes nothing of it."""


class KeyRing:
    """The keys of a directory by id, taken anew when the file changes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = str(directory / FILE)
        self._seen: tuple[int, int, int] | None = None
        self._broken = ""
        """What is wrong with the file."""
        self._reported_s = 0.0
        self.keys: dict[str, Key] = {}

    def refresh(self) -> None:
        """Costs a look at the file's times, so that it can be done for every request. Raises
        KeysRefused for a broken file, once in `REMIND_S` while it is broken: its keys are not
        taken, and those held stay valid."""
        try:
            stat = os.stat(self._file)
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except FileNotFoundError:
            seen = None
        if seen == self._seen:
            if self._broken and time.monotonic() - self._reported_s >= REMIND_S:
                self._report()
            return
        reported = self._broken and time.monotonic() - self._reported_s < REMIND_S
        try:
            self.keys = {key.id: key for key in _read(self._directory)}
            self._broken = ""
        except OSError as error:
            # Nothing is known of what it holds: it is read again the next time.
            self._broken, seen = type(error).__name__, self._seen
        except Exception as error:
            # The text of the error may quote the file; its kind is enough.
            self._broken, reported = type(error).__name__, False
        # As it was before the reading: what is written meanwhile is seen the next time.
        self._seen = seen
        if self._broken and not reported:
            self._report()

    def _report(self) -> None:
        self._reported_s = time.monotonic()
        raise KeysRefused(
            f"{self._file}: {self._broken}; the keys of before stay valid, revoked ones too, until "
            "it is mended: see 'orchestrator validate'"
        )


def match(keys: Mapping[str, Key], presented: str, now: datetime) -> Key | None:
    """The key with this plaintext, unless it is over. `now` is aware of its time zone."""
    parts = presented.split("-", 2)
    key = keys.get(parts[1]) if len(parts) == 3 else None
    same = hmac.compare_digest(_hash(presented), key.sha256 if key else _NOBODY)
    return None if key is None or not same or is_over(key, now) else key


def is_over(key: Key, now: datetime) -> bool:
    """Whether it has expired."""
    return key.expires_at is not None and key.expires_at <= now


def _make(
    workload: str, expires_at: datetime | None, scope: Scope, limits: Limits
) -> tuple[Key, str]:
    alphabet = string.ascii_lowercase + string.digits
    key_id = "".join(secrets.choice(alphabet) for _ in range(8))
    plaintext = f"sk-{key_id}-{secrets.token_urlsafe(32)}"
    key = Key(
        id=key_id,
        workload=workload,
        sha256=_hash(plaintext),
        created_at=datetime.now(UTC).replace(microsecond=0),
        expires_at=expires_at,
        scope=scope,
        limits=limits,
    )
    return key, plaintext


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
    document = yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader) or {}
    return [Key.model_validate(key) for key in document.get("keys", [])]


def _write(directory: Path, keys: list[Key]) -> None:
    file, draft = directory / FILE, directory / f".{FILE}.draft"
    entries = [key.model_dump(mode="json", exclude_defaults=True) for key in keys]
    draft.write_text(HEADER + yaml.safe_dump({"keys": entries}, sort_keys=False))
    # A file system's clock is coarse, and inodes are used again: without a time of its own a file
    # could look like the one that was read a moment ago.
    before_ns = file.stat().st_mtime_ns if file.exists() else 0
    at_ns = max(time.time_ns(), before_ns + 1)
    os.utime(draft, ns=(at_ns, at_ns))
    os.replace(draft, file)
