"""A real replica saturates, a second cluster takes over what may leave, and gives it back."""

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.config.load import state_directory
from orchestrator.stack.records import request_ids
from tests.e2e.conftest import ORCHESTRATOR, ROOT, Stack, status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def wait_for(what: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds(state := status()):
        assert time.monotonic() < deadline_s, f"{what}: never, in {timeout_s:.0f} s: {state}"
        time.sleep(2)


@dataclass
class Load:
    """Clients that ask one after the other until they are told to stop."""

    stack: Stack
    clients: dict[str, int]
    """How many, by workload."""
    answers: list[tuple[str, str, int, str, bool]] = field(default_factory=list)
    """(request id, workload, status, pool, whole)."""

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self.run_id = uuid.uuid4().hex[:8]
        self._threads = [
            threading.Thread(target=self._ask, args=(workload,))
            for workload, count in self.clients.items()
            for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def pools(self, workload: str) -> set[str]:
        return {pool for _, who, _, pool, _ in self.answers if who == workload}

    def _ask(self, workload: str) -> None:
        with httpx.Client(timeout=120) as client:
            while not self._stop.is_set():
                request_id = f"e2e-{self.run_id}-{workload}-{uuid.uuid4().hex[:12]}"
                answer = client.post(
                    f"{self.stack.url}/v1/chat/completions",
                    json={
                        "model": "tiny",
                        "messages": [{"role": "user", "content": f"{request_id} tell me more"}],
                        "max_tokens": 100,
                        "ignore_eos": True,
                        "stream": True,
                    },
                    headers={
                        "authorization": f"Bearer {self.stack.keys[workload]}",
                        "x-request-id": request_id,
                    },
                )
                pool = answer.headers.get("x-orchestrator-pool", "")
                whole = answer.text.endswith("data: [DONE]\n\n")
                self.answers.append((request_id, workload, answer.status_code, pool, whole))


@pytest.mark.parametrize("burst", ["deployed anew", "scaled up from zero"])
def test_a_saturated_home_bursts_and_comes_back(stack: Stack, burst: str) -> None:
    with Load(stack, {"assistant": 12, "records": 2}) as load:
        wait_for(
            "a cloud replica that serves",
            lambda s: s["pools"]["cloud-cpu"]["replicas_ready"] == 1,
            timeout_s=300,
        )
        deadline_s = time.monotonic() + 60
        while "cloud-cpu" not in load.pools("assistant"):
            assert time.monotonic() < deadline_s, "the cloud got no request"
            time.sleep(1)
        time.sleep(5)
    assert {(code, whole) for _, _, code, _, whole in load.answers} == {(200, True)}
    assert load.pools("records") == {"onprem-cpu"}
    assert load.pools("assistant") == {"onprem-cpu", "cloud-cpu"}

    wait_for(
        "the cloud at zero",
        lambda s: (
            s["pools"]["cloud-cpu"]["replicas"] == 0 and s["bursts"]["assistant"]["state"] == "home"
        ),
        timeout_s=180,
    )
    seen = request_ids(state_directory(), "cloud", rf"e2e-{load.run_id}-\w+-[0-9a-f]{{12}}")
    served = {who for who, _, _, pool, _ in load.answers if pool == "cloud-cpu"}
    assert served <= seen
    assert not {who for who, workload, _, _, _ in load.answers if workload == "records"} & seen


def test_above_the_ceiling_the_same_load_stays_home_and_explain_says_why(
    stack: Stack, tmp_path: Path
) -> None:
    wait_for("nothing rented", lambda s: s["pools"]["cloud-cpu"]["replicas"] == 0, timeout_s=180)
    market = ROOT / "clusters" / "local" / "prices" / "market.csv"
    before = market.read_text()
    request = tmp_path / "request.json"
    request.write_text('{"workload": "assistant", "model": "tiny"}')
    explain = [ORCHESTRATOR, "explain", "--request", str(request), "--json"]
    try:
        market.write_text("time_s,usd_per_gpu_hour\n0,7.5\n")
        with Load(stack, {"assistant": 12, "records": 2}) as load:
            wait_for(
                "a burst that its price forbids",
                lambda s: "ceiling" in s["bursts"]["assistant"]["reason"],
                timeout_s=120,
            )
            done = subprocess.run(explain, capture_output=True, text=True, check=True)
            time.sleep(15)
            state = status()
    finally:
        market.write_text(before)
    assert state["bursts"]["assistant"]["state"] == "home"
    assert state["pools"]["cloud-cpu"]["replicas"] == 0
    assert load.pools("assistant") == {"onprem-cpu"}
    assert {(code, whole) for _, _, code, _, whole in load.answers} == {(200, True)}
    (cloud,) = (c for c in json.loads(done.stdout)["candidates"] if c["pool"] == "cloud-cpu")
    assert cloud["rejected_by"] == "price"
    assert "7.50 USD" in cloud["detail"]
