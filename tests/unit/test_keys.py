"""API keys: shown once, kept as hashes, taken anew when the file changes."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.config import keys

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def ring(directory: Path) -> keys.KeyRing:
    made = keys.KeyRing(directory)
    made.refresh()
    return made


def test_a_key_opens_what_it_was_made_for_and_nothing_else_does(tmp_path: Path) -> None:
    key, plaintext = keys.create(tmp_path, "assistant")
    held = ring(tmp_path).keys
    assert keys.match(held, plaintext, NOW) == key
    for wrong in ("", "sk", plaintext[:-1], plaintext + "x", f"sk-{key.id}-", "sk-aaaaaaaa-x"):
        assert keys.match(held, wrong, NOW) is None


def test_the_secret_is_not_in_the_file(tmp_path: Path) -> None:
    _, plaintext = keys.create(tmp_path, "assistant")
    assert plaintext.split("-", 2)[2] not in (tmp_path / keys.FILE).read_text()


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


def test_keys_that_are_changed_at_once_bring_none_back_and_lose_none(tmp_path: Path) -> None:
    old = [keys.create(tmp_path, "assistant")[0].id for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        revoking = [pool.submit(keys.revoke, tmp_path, key_id) for key_id in old]
        creating = [pool.submit(keys.create, tmp_path, "assistant") for _ in range(8)]
        for job in revoking:
            job.result()
        made = {job.result()[0].id for job in creating}
    assert set(ring(tmp_path).keys) == made


def test_a_broken_file_is_reported_and_takes_no_key_away(tmp_path: Path) -> None:
    _, plaintext = keys.create(tmp_path, "assistant")
    made = ring(tmp_path)
    file = tmp_path / keys.FILE
    file.write_text("keys: [{id: 1")
    os.utime(file, ns=(1, 1))
    with pytest.raises(ValueError, match=r"keys\.yaml"):
        made.refresh()
    assert keys.match(made.keys, plaintext, NOW)
