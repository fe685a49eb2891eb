"""`explain` says on what its answer rests."""

import json
import shutil
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.config.load import load
from orchestrator.policy.snapshot import Snapshot

LOCAL = Path(__file__).parents[2] / "clusters" / "local"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_stack_that_runs_another_configuration_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    shutil.copytree(LOCAL, tmp_path / "c", ignore=shutil.ignore_patterns("keys.yaml"))
    version = load(tmp_path / "c").version
    (tmp_path / "request.json").write_text(json.dumps({"workload": "records", "model": "tiny"}))

    def explain(running: str) -> tuple[str, str]:
        def answer(url: str, **_: object) -> httpx.Response:
            snapshot = Snapshot(config_version=running, created_at_s=0)
            return httpx.Response(
                200, text=snapshot.model_dump_json(), request=httpx.Request("GET", url)
            )

        monkeypatch.setattr(httpx, "get", answer)
        options = ["--config", str(tmp_path / "c"), "--request", str(tmp_path / "request.json")]
        result = CliRunner().invoke(app, ["explain", *options, *(["--json"] if as_json else [])])
        return result.stdout, result.stderr

    _, warning = explain(version)
    assert warning == ""
    said, warning = explain("another")
    assert version in warning
    assert "the stack runs another" in warning
    assert not as_json or json.loads(said)["denied"] == "no_capacity"
