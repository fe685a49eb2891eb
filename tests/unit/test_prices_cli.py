"""`prices`: what people and machines are told, with a controller and without."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import prices as command
from orchestrator.cli.app import app
from tests.configurations import EXAMPLE

QUOTE = {"usd_per_gpu_hour": 2.0, "source": "market", "fetched_at_s": 1000, "valid_to_s": 1000}
STATE = {
    "time_s": 1042,
    "pools": {
        "cloud": {
            "quote": QUOTE | {"stale": True},
            "price": {"trouble": "price feed market: 9 is outside 1 to 4", "made_of": None},
        },
        "tokens": {"quote": None, "price": {"trouble": None, "made_of": None}},
    },
}


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["prices", "--config", str(EXAMPLE), *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "live_state", lambda _: STATE)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "live_state", lambda _: None)


@pytest.mark.usefixtures("live")
def test_a_refused_price_is_shown_with_its_age_and_the_reason() -> None:
    text = run()
    assert "42 s" in text
    assert "stale" in text
    assert "cloud: price feed market: 9 is outside 1 to 4" in text
    told: dict[str, Any] = json.loads(run("--json"))
    assert told["controller"] is True
    assert told["prices"]["cloud"] == {"quote": QUOTE | {"stale": True}} | {
        "trouble": "price feed market: 9 is outside 1 to 4",
        "made_of": None,
    }


@pytest.mark.usefixtures("nobody")
def test_without_a_controller_nobody_is_asked_over_the_network() -> None:
    told = json.loads(run("--json"))
    found = told["prices"]
    assert told["controller"] is False
    assert found["frankfurt-h100"]["quote"]["usd_per_gpu_hour"] == 8.6
    assert found["paris-l40s"]["quote"]["source"] == "configuration"
    assert "0.119 hardware + 0.043 power" in found["clinic-l4"]["made_of"]
    assert found["virginia-l40s"]["quote"] is None
    assert "only the controller asks it" in found["virginia-l40s"]["trouble"]
