"""The real local stack, once for all end-to-end tests."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from orchestrator.config.load import state_directory

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
    before = set(psutil.pids())
    done = subprocess.run(
        [ORCHESTRATOR, "up", "--detach"], capture_output=True, text=True, timeout=840, check=False
    )
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        keys = {f.name: f.read_text().strip() for f in (state / "keys").iterdir()}
        yield Stack("http://127.0.0.1:8000", keys)
    finally:
        subprocess.run([ORCHESTRATOR, "down"], check=True, timeout=120)
        # Not by the stack's own search, which may miss what it does not know.
        left = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
        titles = [" ".join(p.info["cmdline"] or ()) for p in left]
        assert not [t for t in titles if re.search(r"ray::|VLLM|haproxy|raylet|gcs_server", t)]
