"""`orchestrator keys`, as people type it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.config.load import load
from tests.configurations import company


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return company(tmp_path, "keys.yaml", "keys: []")


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["keys", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def listed(directory: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--config", str(directory), "--json"))
    return found


def test_a_key_is_made_with_what_it_may_do(directory: Path) -> None:
    plaintext = run(
        *("create", "--workload", "website-chat", "--config", str(directory)),
        *("--models", "chat-small", "--endpoints", "chat, models", "--expires-days", "3"),
        *("--requests-per-minute", "60", "--tokens-per-minute", "1000"),
    ).strip()
    (key,) = listed(directory)
    assert plaintext.startswith(f"sk-{key['id']}-")
    assert key["scope"] == {"models": ["chat-small"], "endpoints": ["chat", "models"]}
    assert key["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 1000}
    assert "sha256" not in key
    table = run("list", "--config", str(directory))
    assert key["id"] in table
    for shown in ("website-", "models", "60", "1000"):
        assert shown in table
    assert plaintext not in table


def test_a_key_without_more_may_do_all_that_its_workload_may(directory: Path) -> None:
    run("create", "--workload", "website-chat", "--config", str(directory))
    (key,) = listed(directory)
    assert key["scope"] == {"models": None, "endpoints": None}
    assert "scope" not in (directory / "keys.yaml").read_text()


@pytest.mark.parametrize(
    ("option", "value", "mend"),
    [
        ("--models", "coder", "chat-small"),
        ("--endpoints", "chat,chats", "embeddings"),
        ("--endpoints", "", "embeddings"),
    ],
)
def test_what_a_key_cannot_be_given_is_refused(
    directory: Path, option: str, value: str, mend: str
) -> None:
    arguments = ("create", "--workload", "website-chat", "--config", str(directory))
    assert mend in run(*arguments, option, value, code=2)
    assert listed(directory) == []


def test_a_key_is_rotated_and_revoked(directory: Path) -> None:
    where = ("--config", str(directory))
    run("create", "--workload", "website-chat", "--requests-per-minute", "5", *where)
    (old,) = listed(directory)
    made = json.loads(run("rotate", old["id"], "--overlap-hours", "2", "--json", *where))
    assert made["key"].startswith(f"sk-{made['id']}-")
    assert made["limits"]["requests_per_minute"] == 5
    first, second = listed(directory)
    assert first["expires_at"] is not None
    assert second["expires_at"] is None
    run("revoke", first["id"], *where)
    assert [key["id"] for key in listed(directory)] == [made["id"]]
    for command in ("rotate", "revoke"):
        assert "no key" in run(command, first["id"], *where, code=1)
    load(directory)
