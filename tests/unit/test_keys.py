"""API keys: shown once, kept as hashes, taken anew when the file changes."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest

from orchestrator.config import keys
from orchestrator.config.spec import Key, Limits, Scope

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def ring(directory: Path) -> keys.KeyRing:
    made = keys.KeyRing(directory)
    made.refresh()
    return made


def now() -> datetime:
    return datetime.now(UTC)


def test_a_key_opens_what_it_was_made_for_and_nothing_else_does(tmp_path: Path) -> None:
    key, plaintext = keys.create(tmp_path, "assistant")
    held = ring(tmp_path).keys
    assert keys.match(held, plaintext, NOW) == key
    for wrong in ("", "sk", plaintext[:-1], plaintext + "x", f"sk-{key.id}-", "sk-aaaaaaaa-x"):
        assert keys.match(held, wrong, NOW) is None


def test_what_a_key_may_do_is_kept_with_it(tmp_path: Path) -> None:
    scope = Scope(models=["m"], endpoints=["chat"])
    limits = Limits(requests_per_minute=3, tokens_per_minute=100)
    key, _ = keys.create(tmp_path, "assistant", NOW, scope, limits)
    held = ring(tmp_path).keys[key.id]
    assert (held.scope, held.limits, held.expires_at) == (scope, limits, NOW)


def test_the_secret_is_not_in_the_file(tmp_path: Path) -> None:
    key, plaintext = keys.create(tmp_path, "assistant")
    _, other = keys.rotate(tmp_path, key.id, timedelta(hours=1))
    for secret in (plaintext, other):
        assert secret.split("-", 2)[2] not in (tmp_path / keys.FILE).read_text()


def test_an_expired_key_opens_nothing(tmp_path: Path) -> None:
    _, plaintext = keys.create(tmp_path, "assistant", NOW)
    held = ring(tmp_path).keys
    assert keys.match(held, plaintext, NOW - timedelta(seconds=1))
    assert keys.match(held, plaintext, NOW) is None


def test_a_revoked_key_is_gone_at_the_next_refresh(tmp_path: Path) -> None:
    key, plaintext = keys.create(tmp_path, "assistant")
    made = ring(tmp_path)
    keys.revoke(tmp_path, key.id)
    made.refresh()
    assert keys.match(made.keys, plaintext, NOW) is None
    with pytest.raises(KeyError):
        keys.revoke(tmp_path, key.id)


def test_no_change_is_missed_however_fast_it_follows_another(tmp_path: Path) -> None:
    """Files that are written within one tick of the file system's clock, of one size, with inodes
    that are used again."""
    made = ring(tmp_path)
    for _ in range(200):
        key, plaintext = keys.create(tmp_path, "assistant")
        made.refresh()
        assert keys.match(made.keys, plaintext, NOW)
        keys.revoke(tmp_path, key.id)
        made.refresh()
        assert keys.match(made.keys, plaintext, NOW) is None


def test_keys_that_are_changed_at_once_bring_none_back_and_lose_none(tmp_path: Path) -> None:
    old = [keys.create(tmp_path, "assistant")[0].id for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        revoking = [pool.submit(keys.revoke, tmp_path, key_id) for key_id in old]
        creating = [pool.submit(keys.create, tmp_path, "assistant") for _ in range(8)]
        for job in revoking:
            job.result()
        made = {job.result()[0].id for job in creating}
    assert set(ring(tmp_path).keys) == made


def test_a_broken_file_is_reported_once_a_minute_and_takes_no_key_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plaintext = keys.create(tmp_path, "assistant")
    made = ring(tmp_path)
    file = tmp_path / keys.FILE
    file.write_text("keys: [{id: 1")
    os.utime(file, ns=(1, 1))
    with pytest.raises(ValueError, match=r"keys\.yaml"):
        made.refresh()
    made.refresh()
    for _ in range(2):
        later_s = time.monotonic() + keys.REMIND_S
        monkeypatch.setattr(keys.time, "monotonic", lambda at_s=later_s: at_s)
        with pytest.raises(ValueError, match=r"keys\.yaml"):
            made.refresh()
        made.refresh()
    assert keys.match(made.keys, plaintext, NOW)
    file.unlink()
    _, other = keys.create(tmp_path, "assistant")
    made.refresh()
    monkeypatch.setattr(keys.time, "monotonic", lambda: later_s + keys.REMIND_S)
    made.refresh()
    assert keys.match(made.keys, other, NOW)


def test_a_file_that_could_not_be_read_is_read_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, plaintext = keys.create(tmp_path, "assistant")
    made = ring(tmp_path)
    keys.revoke(tmp_path, key.id)
    with monkeypatch.context() as patch:
        patch.setattr(keys, "_read", Mock(side_effect=OSError(errno.EMFILE, "too many files")))
        with pytest.raises(ValueError, match="OSError"):
            made.refresh()
        made.refresh()
    made.refresh()
    assert keys.match(made.keys, plaintext, NOW) is None


def test_without_its_file_no_key_is_left(tmp_path: Path) -> None:
    _, plaintext = keys.create(tmp_path, "assistant")
    made = ring(tmp_path)
    (tmp_path / keys.FILE).unlink()
    made.refresh()
    assert keys.match(made.keys, plaintext, NOW) is None


def rotated(tmp_path: Path, key: Key, overlap: timedelta) -> tuple[Key, Key, str]:
    """The old one, the new one and its plaintext."""
    new, plaintext = keys.rotate(tmp_path, key.id, overlap)
    held = ring(tmp_path).keys
    assert held[new.id] == new
    return held[key.id], new, plaintext


def test_a_rotated_key_may_do_the_same_and_the_old_one_goes_on_for_the_overlap(
    tmp_path: Path,
) -> None:
    scope, limits = Scope(models=["m"], endpoints=["chat"]), Limits(requests_per_minute=3)
    key, plaintext = keys.create(tmp_path, "assistant", None, scope, limits)
    old, new, fresh = rotated(tmp_path, key, timedelta(hours=2))
    assert (new.workload, new.scope, new.limits) == ("assistant", scope, limits)
    assert new.expires_at is None
    held = ring(tmp_path).keys
    for soon, opens in ((1, True), (3, False)):
        at = now() + timedelta(hours=soon)
        assert (keys.match(held, plaintext, at) == old) is opens
        assert keys.match(held, fresh, at) == new


def test_without_an_overlap_the_old_key_ends_at_once(tmp_path: Path) -> None:
    key, plaintext = keys.create(tmp_path, "assistant")
    rotated(tmp_path, key, timedelta())
    assert keys.match(ring(tmp_path).keys, plaintext, now()) is None


def test_rotation_prolongs_no_old_key_and_gives_the_new_one_the_same_lifetime(
    tmp_path: Path,
) -> None:
    key, _ = keys.create(tmp_path, "assistant", now() + timedelta(hours=1))
    assert key.expires_at is not None
    old, new, _ = rotated(tmp_path, key, timedelta(hours=5))
    assert old.expires_at == key.expires_at
    assert new.expires_at is not None
    assert new.expires_at - new.created_at == key.expires_at - key.created_at


def test_a_key_that_is_over_or_not_there_is_not_rotated(tmp_path: Path) -> None:
    key, _ = keys.create(tmp_path, "assistant", now() - timedelta(seconds=1))
    with pytest.raises(ValueError, match="over already"):
        keys.rotate(tmp_path, key.id, timedelta())
    with pytest.raises(KeyError):
        keys.rotate(tmp_path, "aaaaaaaa", timedelta())
    assert list(ring(tmp_path).keys) == [key.id]
