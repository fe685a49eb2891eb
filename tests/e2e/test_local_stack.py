"""The unmodified `openai` client against real Ray Serve and real vLLM."""

import json
import subprocess
import time
from pathlib import Path

import httpx
import openai
import pytest

from orchestrator.config.load import load
from orchestrator.policy.catalogue import Catalogue
from tests.e2e.conftest import ORCHESTRATOR, ROOT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
HELLO = [{"role": "user", "content": "hello there"}]


def engine_tokens(messages: list[dict[str, str]]) -> int:
    """The prompt's tokens by vLLM's own count."""
    loaded = load(ROOT / "clusters" / "local")
    home = Catalogue(loaded.configuration, loaded.version).candidates["onprem-cpu/tiny-bf16"]
    answer = httpx.post(
        f"{home.url}/tokenize",
        json={"model": "tiny", "messages": messages},
        timeout=30,
    )
    answer.raise_for_status()
    return int(answer.json()["count"])


def test_models_are_those_of_the_workload(stack: Stack) -> None:
    assert [m.id for m in stack.client().models.list()] == ["tiny"]


def test_a_chat_reports_the_engines_token_counts_and_where_it_ran(stack: Stack) -> None:
    raw = stack.client().chat.completions.with_raw_response.create(
        model="tiny", messages=HELLO, max_tokens=8
    )
    chat = raw.parse()
    assert chat.choices[0].message.content
    assert chat.usage.prompt_tokens == engine_tokens(HELLO)
    assert 1 <= chat.usage.completion_tokens <= 8
    assert raw.headers["x-orchestrator-pool"] == "onprem-cpu"
    assert raw.headers["x-orchestrator-zone"] == "onprem"
    assert raw.headers["x-orchestrator-variant"] == "tiny-bf16"
    assert raw.headers["x-orchestrator-policy-version"]
    assert raw.headers["x-request-id"]


def test_a_stream_ends_with_its_usage_when_asked(stack: Stack) -> None:
    chunks = list(
        stack.client().chat.completions.create(
            model="tiny",
            messages=HELLO,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage.prompt_tokens == engine_tokens(HELLO)
    assert chunks[-2].choices[0].finish_reason


def test_a_stream_has_no_usage_chunk_when_not_asked(stack: Stack) -> None:
    chunks = list(
        stack.client().chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=4, stream=True
        )
    )
    assert all(chunk.choices for chunk in chunks)


def test_a_completion_is_served(stack: Stack) -> None:
    done = stack.client("records").completions.create(model="tiny", prompt="def", max_tokens=4)
    assert done.usage.completion_tokens <= 4


def test_bad_input_gets_an_openai_error(stack: Stack) -> None:
    with pytest.raises(openai.NotFoundError):
        stack.client().chat.completions.create(model="gpt-4", messages=HELLO)
    with pytest.raises(openai.AuthenticationError):
        stranger = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-wrong", max_retries=0)
        stranger.models.list()
    url, headers = (
        f"{stack.url}/v1/chat/completions",
        {"authorization": f"Bearer {stack.keys['assistant']}"},
    )
    broken = httpx.post(url, headers=headers, content=b"{", timeout=30)
    assert broken.status_code == 400
    large = httpx.post(url, headers=headers, content=b" " * 5_000_000, timeout=30)
    assert large.status_code == 413
    for answer in (broken, large):
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]


def test_the_endpoint_shows_health_and_metrics(stack: Stack) -> None:
    assert httpx.get(f"{stack.url}/healthz").status_code == 200
    assert httpx.get(f"{stack.url}/readyz").status_code == 200
    assert "orchestrator_requests_total" in httpx.get(f"{stack.url}/metrics").text


def test_a_conversation_once_raised_stays_raised_by_its_history_alone(stack: Stack) -> None:
    opening = {"role": "user", "content": "This stays between us, whatever I may ask later on."}
    client, later = stack.client(), f"e2e-later-turn-{time.time_ns():x}"
    first = client.chat.completions.create(
        model="tiny",
        messages=[opening],
        max_tokens=8,
        extra_headers={"x-orchestrator-data-class": "restricted"},
    )
    answer = {"role": "assistant", "content": first.choices[0].message.content}
    raw = client.chat.completions.with_raw_response.create(
        model="tiny",
        messages=[opening, answer, {"role": "user", "content": "And now?"}],
        max_tokens=4,
        extra_headers={"x-request-id": later},
    )
    assert raw.headers["x-orchestrator-zone"] == "onprem"
    time.sleep(1)
    done = subprocess.run(
        [ORCHESTRATOR, "explain", later, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    (decision,) = json.loads(done.stdout)
    assert decision["data_class"] == "restricted"
    assert decision["facts"]["session"] == "restricted"
    assert decision["matches_record"]


def test_explain_names_the_rule_that_keeps_restricted_data_at_home(
    stack: Stack, tmp_path: Path
) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"workload": "records", "model": "tiny"}')
    done = subprocess.run(
        [ORCHESTRATOR, "explain", "--request", str(request), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["decision"]["pool"] == "onprem-cpu"
    cloud = next(c for c in result["candidates"] if c["pool"] == "cloud-cpu")
    assert cloud["rejected_by"] == "zone_not_allowed"
