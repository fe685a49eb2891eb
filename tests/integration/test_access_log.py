"""What the access log says of requests, and what it does not."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from tests.integration.engines import World, serve_gateway, world

CANARY = "canary-sings"


def logged(
    tmp_path: Path, test: Callable[[World], Awaitable[None]], **how: Any
) -> list[dict[str, Any]]:
    """The lines that a gateway has written when it has stopped."""

    async def inside() -> None:
        async with world(tmp_path, **how) as made:
            await test(made)

    asyncio.run(inside())
    return [orjson.loads(x) for x in (tmp_path / "logs/access.jsonl").read_bytes().splitlines()]


def test_a_whole_answer_is_told_by_one_line(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 200

    (line,) = logged(tmp_path, test)
    assert line["duration_s"] > 0
    assert {k: v for k, v in line.items() if k not in ("time_s", "request_id", "duration_s")} == {
        "gateway_id": line["gateway_id"],
        "trace_id": None,
        "endpoint": "/v1/chat/completions",
        "status": 200,
        "code": None,
        "caller_id": line["caller_id"],
        "workload": "open",
        "model": "m",
        "stream": False,
        "data_class": "internal",
        "policy_version": line["policy_version"],
        "snapshot_version": 0,
        "zone": "onprem",
        "pool": "a-home",
        "variant": "m-1",
        "outcome": "complete",
        "attempts": 1,
        "queued_s": 0,
        "ttft_s": None,
        "prompt_tokens": 4,
        "cached_tokens": 0,
        "completion_tokens": 3,
        "usage_source": "engine",
    }


def test_a_stream_says_when_its_first_token_came(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True) as answer:
            await answer.read()

    (line,) = logged(tmp_path, test)
    assert 0 < line["ttft_s"] <= line["duration_s"]


def test_after_a_failure_the_endpoint_that_answered_is_told(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 200

    (line,) = logged(tmp_path, test, home="status")
    assert (line["attempts"], line["pool"], line["outcome"]) == (2, "b-away", "complete")
    assert line["usage_source"] == "counted", "nobody knows what the failed attempt used"


def test_an_interrupted_stream_is_no_success(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True) as answer:
            await answer.read()

    (line,) = logged(tmp_path, test, home="cut:2")
    assert (line["status"], line["code"]) == (200, "stream_interrupted")
    assert line["outcome"] == "cut"
    assert (line["completion_tokens"], line["usage_source"]) == (2, "counted")


def test_a_client_that_leaves_is_told_as_one(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True, max_tokens=4000) as answer:
            await answer.content.readany()
        async with asyncio.timeout(10):
            while not w.home.cancelled:
                await asyncio.sleep(0.02)

    (line,) = logged(tmp_path, test)
    assert (line["status"], line["code"], line["outcome"]) == (499, "client_gone", "cancelled")


def test_refusals_say_what_was_known(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.session.post(f"{w.url}/v1/chat/completions", json={}) as answer:
            assert answer.status == 401
        async with w.post(model=CANARY) as answer:
            assert answer.status == 404
        async with w.session.get(f"{w.url}/{CANARY}") as answer:
            assert answer.status == 404

    unknown_caller, unknown_model, unknown_path = logged(tmp_path, test)
    assert (unknown_caller["status"], unknown_caller["code"]) == (401, "missing_api_key")
    assert unknown_caller["workload"] is None
    assert unknown_model["model"] == "unknown"
    assert (unknown_model["workload"], unknown_model["attempts"]) == ("open", 0)
    assert unknown_path["endpoint"] == "other"


def test_probes_are_no_requests(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        for path in ("healthz", "readyz", "metrics"):
            async with w.session.get(f"{w.url}/{path}") as answer:
                assert answer.status == 200
        async with w.post() as answer:
            assert answer.status == 200

    assert len(logged(tmp_path, test)) == 1


def test_no_content_no_key_and_no_header_is_in_it(tmp_path: Path) -> None:
    secrets: list[str] = []

    async def test(w: World) -> None:
        secrets.extend(w.keys.values())
        headers = {
            "authorization": f"Bearer {w.keys['open']}",
            "x-orchestrator-session": CANARY,
            "user-agent": CANARY,
            "traceparent": CANARY,
            "x-request-id": f"{CANARY}/not fit for logs",
        }
        said = [{"role": "user", "content": CANARY}]
        body = {"model": "m", "messages": said, "user": CANARY, "max_tokens": 3}
        for asked in (body, body | {"model": CANARY}, {"a": CANARY}):
            async with w.session.post(
                f"{w.url}/v1/chat/completions?{CANARY}", json=asked, headers=headers
            ) as answer:
                await answer.read()

    lines = logged(tmp_path, test)
    assert len(lines) == 3
    assert not any(text in str(lines) for text in (CANARY, *secrets))


def test_gateways_of_a_node_write_to_one_file(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with serve_gateway(tmp_path) as other:
            for url in (w.url, other):
                async with w.session.get(f"{url}/v1/models") as answer:
                    assert answer.status == 401

    assert len({line["gateway_id"] for line in logged(tmp_path, test)}) == 2
