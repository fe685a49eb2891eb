"""A vLLM replica is killed under load: nobody gets half an answer for a whole one."""

import threading
import time

import httpx
import psutil
import pytest

from orchestrator.config.load import state_directory
from orchestrator.stack import processes
from tests.e2e.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def engines() -> list[psutil.Process]:
    return [p for p in processes.running(state_directory()) if "VLLM" in " ".join(p.cmdline())]


def test_a_killed_replica_gives_clear_errors_and_comes_back_by_itself(stack: Stack) -> None:
    answers: list[tuple[int, str, dict[str, str]]] = []

    def ask(workload: str) -> None:
        answer = httpx.post(
            f"{stack.url}/v1/chat/completions",
            json={
                "model": "tiny",
                "messages": [{"role": "user", "content": "a long story"}],
                "max_tokens": 1500,
                "ignore_eos": True,
                "stream": True,
            },
            headers={"authorization": f"Bearer {stack.keys[workload]}"},
            timeout=120,
        )
        answers.append((answer.status_code, answer.text, dict(answer.headers)))

    # Four fill the batch, one is behind them, and the others wait in the gateway.
    threads = [
        threading.Thread(target=ask, args=(workload,))
        for workload in ["records"] * 4 + ["assistant"] * 2 + ["records"] * 2
    ]
    for thread in threads:
        thread.start()
    time.sleep(3)
    killed = engines()
    assert killed
    for process in killed:
        process.kill()
    for thread in threads:
        thread.join()

    assert len(answers) == len(threads)
    begun = [text for code, text, _ in answers if code == 200]
    interrupted = [text for text in begun if "[DONE]" not in text]
    refused = [headers for code, _, headers in answers if code == 503]
    assert len(begun) + len(refused) == len(answers), answers
    assert all('"code":"stream_interrupted"' in text for text in interrupted)
    assert len(begun) - len(interrupted) <= 3, "only who waited may have met the new replica"
    assert all(int(headers["retry-after"]) > 0 for headers in refused)
    assert interrupted
    assert refused

    # Until it serves again every request gets an answer, and a refusal says when to ask again.
    deadline_s = time.monotonic() + 300
    while True:
        assert time.monotonic() < deadline_s, "the replica did not come back"
        answer = httpx.post(
            f"{stack.url}/v1/chat/completions",
            json={
                "model": "tiny",
                "messages": [{"role": "user", "content": "hello"}],
                "max_tokens": 4,
            },
            headers={"authorization": f"Bearer {stack.keys['records']}"},
            timeout=120,
        )
        if answer.status_code == 200:
            break
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
        time.sleep(2)
    assert answer.json()["usage"]["completion_tokens"] > 0
    assert engines()
