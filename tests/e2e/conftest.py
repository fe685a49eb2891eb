"""The real local stack, once for all end-to-end tests."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from orchestrator.config.load import state_directory
from orchestrator.stack import processes

ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))


@dataclass(frozen=True)
class Stack:
    url: str
    keys: dict[str, str]

    def client(self, workload: str = "assistant") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.keys[workload], max_retries=0)


def status() -> dict[str, Any]:
    for _ in range(10):
        # On two busy cores an answer may take longer than the command waits for it.
        done = subprocess.run(
            [ORCHESTRATOR, "status", "--json"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            break
    state: dict[str, Any] = json.loads(done.stdout)
    return state


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    state = state_directory()
    done = subprocess.run(
        [ORCHESTRATOR, "up", "--detach"], capture_output=True, text=True, timeout=840, check=False
    )
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        keys = {f.name: f.read_text().strip() for f in (state / "keys").iterdir()}
        yield Stack("http://127.0.0.1:8000", keys)
    finally:
        subprocess.run([ORCHESTRATOR, "down"], check=True, timeout=120)
        assert processes.running(state) == []
