"""The real local stack, once for all end-to-end tests."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from orchestrator.config.load import load, state_directory

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "clusters" / "local"
ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the stack comes last: other clusters would not fit beside it."""
    items.sort(key=lambda item: "stack" in getattr(item, "fixturenames", ()))


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


def left_behind(before: set[int]) -> list[str]:
    """Titles of what a stack starts, among the processes that are new; not by the stack's own
    search, which may miss what it does not know."""
    new = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    titles = [" ".join(p.info["cmdline"] or ()) for p in new]
    return [
        t
        for t in titles
        if re.search(r"ray::|VLLM|haproxy|raylet|gcs_server|orchestrator.cli controller", t)
    ]


@contextmanager
def starting(
    config: Path = LOCAL, state: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """`orchestrator up` in the foreground, and the lines that it prints."""
    with subprocess.Popen(
        [ORCHESTRATOR, "up", "--config", str(config)],
        env=os.environ | {"ORCHESTRATOR_STATE": str(state or state_directory())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, iter(process.stdout)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(timeout=120)


@contextmanager
def serving(config: Path, state: Path) -> Iterator[Stack]:
    """A stack that serves, and of which nothing is left in the end."""
    before = set(psutil.pids())
    with starting(config, state) as (_, lines):
        said = list(takewhile(lambda line: "Ctrl-C" not in line, lines))
        assert any("Serving" in line for line in said), "".join(said)
        keys = {f.name: f.read_text().strip() for f in (state / "keys").iterdir()}
        yield Stack(load(config).configuration.gateway.url, keys)
    assert not left_behind(before)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with serving(LOCAL, state_directory()) as stack:
        yield stack
