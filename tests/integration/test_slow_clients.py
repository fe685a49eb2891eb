"""Clients that read slowly: the engine is done long before them, and their answer comes whole."""

import asyncio
import socket
from pathlib import Path

import pytest
import uvloop

from orchestrator.gateway.server import listen
from orchestrator.simulate.engine import EngineSpec
from tests.integration import engines
from tests.integration.engines import World, text, world
from tests.integration.test_vanishing_clients import at_work, inflight

TOKENS = 3000
QUICK = EngineSpec("m", ttft_s=0.001, itl_s=0, max_num_seqs=1)


def small_listen(url: str) -> socket.socket:
    """What the kernel holds for a client is kept small: the rest is for the gateway to hold."""
    listener = listen(url)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    return listener


async def slow_client(w: World) -> socket.socket:
    """Has asked for a stream."""
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", int(w.url.rsplit(":", 1)[1])))
    body = (
        b'{"model": "m", "max_tokens": %d, "stream": true,'
        b' "messages": [{"role": "user", "content": "hi"}]}' % TOKENS
    )
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
        b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
        % (w.keys["closed"].encode(), len(body))
    )
    await loop.sock_sendall(client, head + body)
    return client


def test_the_engine_is_free_while_its_client_still_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "listen", small_listen)

    async def inside() -> None:
        loop = asyncio.get_running_loop()
        limit = {"between_tokens_s: 1": "between_tokens_s: 2"}
        async with asyncio.timeout(60), world(tmp_path, spec=QUICK, replacing=limit) as w:
            client = await slow_client(w)
            got = await loop.sock_recv(client, 1000)
            while at_work(w.home) or await inflight(w):
                await asyncio.sleep(0.01)
            assert len(w.home.received) == 1
            assert w.home.cancelled == 0
            # Its only slot serves another meanwhile.
            async with w.post("closed") as answer:
                assert answer.status == 200
            started_s = loop.time()
            while part := await loop.sock_recv(client, 20_000):
                got += part
                await asyncio.sleep(0.1)
            assert loop.time() - started_s > 2, "longer than anything may be left unread"
            client.close()
        assert len(got) > 400_000
        lines = got.replace(b"\r\n", b"\n").decode()
        assert text(lines).split() == [f"t{i}" for i in range(TOKENS)]
        assert "data: [DONE]" in lines

    uvloop.run(inside())
