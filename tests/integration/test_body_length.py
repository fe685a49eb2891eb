"""The length that a body is said to have, where a server passes on whatever came."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import keys
from orchestrator.gateway.app import Gateway
from tests.integration.engines import CONFIG, apply

MOST = 2000


async def answers(gateway: Gateway, path: str, key: str, lengths: list[bytes]) -> list[Any]:
    """Status and code of an answer to each, by the application alone."""
    to_lifespan: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    from_lifespan: asyncio.Queue[Any] = asyncio.Queue()
    lifespan = asyncio.create_task(
        gateway({"type": "lifespan"}, to_lifespan.get, from_lifespan.put)  # type: ignore[arg-type]
    )
    await to_lifespan.put({"type": "lifespan.startup"})
    assert (await from_lifespan.get())["type"] == "lifespan.startup.complete"
    got = []
    for length in lengths:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}"}

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        await gateway(
            {
                "type": "http",
                "method": "POST",
                "path": path,
                "query_string": b"",
                "headers": [
                    (b"x-api-key", key.encode()),
                    (b"content-type", b"multipart/form-data; boundary=x"),
                    (b"content-length", length),
                ],
            },
            receive,
            send,
        )
        got.append((sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]))
    await to_lifespan.put({"type": "lifespan.shutdown"})
    await lifespan
    return got


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/batches", "/v1/files"])
def test_a_length_that_is_none_or_too_large_is_the_clients_mistake(
    tmp_path: Path, path: str
) -> None:
    nowhere = "http://127.0.0.1:9"
    text = CONFIG.format(home=nowhere, away=nowhere, controller=nowhere, total_s=60, max_open=9)
    (tmp_path / "all.yaml").write_text(text)
    apply(tmp_path)
    _, key = keys.create(tmp_path, "open")
    wrong = [b"", b"x", b"-1", b"+1", b"1_0", b"0x5", "٣".encode(), b"\xb2"]
    large = [b"9" * 19, b"1" * 20, b"9" * 5000, b"0" * 5000 + b"1"]
    if path != "/v1/files":
        large.append(b"%d" % (MOST + 1))

    async def inside() -> None:
        got = await answers(Gateway(tmp_path), path, key, wrong + large)
        assert got[: len(wrong)] == [(400, "invalid_http")] * len(wrong)
        assert {status for status, _ in got[len(wrong) :]} == {413}

    asyncio.run(inside())
