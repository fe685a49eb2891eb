"""A vLLM engine that takes no time, as fast as Python gets: it must not measure itself.

It speaks what gateways ask of an engine, and hands out snapshots in the controller's place, so that
our gateway decides on fresh ones. One write for each token, as an engine's step gives one to each
running sequence.
"""

import argparse
import asyncio
import time
from typing import Any

import orjson
import uvloop

MODEL = "instant"
WORD = " lorem"
"""The text of every token."""
TOKENS = 64
"""Of a stream."""
_ID = "chatcmpl-5d1c3c0f9d6f4a1b8a8f2f0c9b7e6d5a"
_USAGE = {
    "prompt_tokens": 256,
    "total_tokens": 256 + TOKENS,
    "completion_tokens": TOKENS,
    "prompt_tokens_details": None,
}


def _http(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _json(value: object) -> bytes:
    return _http("application/json", orjson.dumps(value))


def _event(data: bytes) -> bytes:
    """In a chunk of its own, as uvicorn sends it."""
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _chunk(choices: list[dict[str, Any]], **more: object) -> bytes:
    return _event(
        orjson.dumps(
            {
                "id": _ID,
                "object": "chat.completion.chunk",
                "created": 1_790_000_000,
                "model": MODEL,
                "choices": choices,
                **more,
            }
        )
    )


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


WHOLE = _json(
    {
        "id": _ID,
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": WORD * TOKENS, "tool_calls": []},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": _USAGE,
        "prompt_logprobs": None,
    }
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
ROLE = _chunk([_choice({"role": "assistant", "content": ""})])
TOKEN = _chunk([_choice({"content": WORD})])
FINISH = _chunk([_choice({"content": ""}, "stop")])
USAGE = _chunk([], usage=_USAGE)
DONE = _event(b"[DONE]") + b"0\r\n\r\n"
LOCAL = {
    b"/health": _http("text/plain", b""),
    b"/v1/models": _json(
        {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm"}]}
    ),
    b"/metrics": _http("text/plain; version=0.0.4", b"vllm:num_requests_running 0\n"),
    b"/version": _json({"version": "0.29.0"}),
}


class Engine:
    def __init__(self, endpoints: list[str]) -> None:
        """`endpoints` are those of our gateway, which it learns to be ready."""
        self._endpoints = {endpoint: {"ready_replicas": 1} for endpoint in endpoints}
        self._version = int(time.time())
        self._streams: set[Connection] = set()
        self._stepping = False

    def snapshot(self, report: bytes) -> bytes:
        self._version += 1
        return _json(
            {
                "version": self._version,
                "config_version": orjson.loads(report)["config_version"],
                "created_at_s": time.time(),
                "endpoints": self._endpoints,
            }
        )

    def stream(self, connection: "Connection") -> None:
        self._streams.add(connection)
        if not self._stepping:
            self._stepping = True
            asyncio.get_running_loop().call_soon(self._step)

    def ended(self, connection: "Connection") -> None:
        self._streams.discard(connection)

    def _step(self) -> None:
        """A token for each stream, then a look at what has arrived."""
        for connection in list(self._streams):
            connection.step()
        if self._streams:
            asyncio.get_running_loop().call_soon(self._step)
        else:
            self._stepping = False


class Connection(asyncio.Protocol):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._data = b""
        self._parts: list[bytes] = []
        """Of the stream that is going on, what is still to be written."""
        self._next = 0
        self._paused = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.ended(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        while self._data and self._take():
            pass

    def _take(self) -> bool:
        """Answers one request, if it is whole."""
        end = self._data.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        head = self._data[:end].lower()
        found = head.find(b"\r\ncontent-length:")
        length = 0 if found < 0 else int(head[found + 17 : head.index(b"\r\n", found + 17)])
        if len(self._data) < end + length:
            return False
        body, self._data = self._data[end : end + length], self._data[end + length :]
        self._answer(head.split(b" ", 2)[1], body)
        return True

    def _answer(self, path: bytes, body: bytes) -> None:
        if path == b"/v1/chat/completions":
            # A look for the field costs less than parsing, and no prompt here says it.
            if b'"stream":true' in body or b'"stream": true' in body:
                usage = b'"include_usage":true' in body or b'"include_usage": true' in body
                last = FINISH + USAGE if usage else FINISH
                self._parts = [STREAM_HEAD + ROLE, *[TOKEN] * TOKENS, last + DONE]
                self._next = 0
                self._engine.stream(self)
            else:
                self._transport.write(WHOLE)
        elif path == b"/v1/exchange":
            self._transport.write(self._engine.snapshot(body))
        elif path in LOCAL:
            self._transport.write(LOCAL[path])
        else:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def step(self) -> None:
        if self._paused:
            return
        self._transport.write(self._parts[self._next])
        self._next += 1
        if self._next == len(self._parts):
            self._engine.ended(self)


async def serve(port: int, endpoints: list[str]) -> None:
    engine = Engine(endpoints)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(engine), "127.0.0.1", port, backlog=4096, reuse_port=False
    )
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--endpoints", nargs="*", default=[])
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.endpoints))
