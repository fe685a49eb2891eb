"""A vLLM engine without a model: its HTTP API, its continuous batching, its metrics.

Tokens are words. The answer's n-th token is ` t<n>`, so that a reader of a stream can tell whether
one is missing or came twice.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from orchestrator.simulate.engine_metrics import EngineMetrics
from orchestrator.simulate.faults import STATUSES, Fault, FaultKind

DEFAULT_MAX_TOKENS = 16
CHAT_TEMPLATE_TOKENS = 3
"""What a chat template adds to each message."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What the engine is like. Times are those of one request that need not wait."""

    model: str
    ttft_s: float = 0.05
    itl_s: float = 0.01
    max_num_seqs: int = 8
    max_model_len: int = 4096


@dataclass(slots=True)
class Received:
    """A request as it came."""

    request_id: str
    path: str
    body: dict[str, Any]


@dataclass
class SimulatedEngine:
    spec: EngineSpec
    faults: list[Fault] = field(default_factory=list)
    """May be changed while it runs."""
    remember: bool = False
    """Keep every request in `received`."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.metrics = EngineMetrics(self.spec.model)
        self.received: list[Received] = []
        self.cancelled = 0
        """Requests whose client went away before the end."""
        self._slots = asyncio.Semaphore(self.spec.max_num_seqs)
        self._held_tokens = 0
        self._chance = random.Random(self.seed)

    def application(self) -> web.Application:
        """Serve it with `handler_cancellation=True`, or clients that leave keep their slots."""
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/chat/completions", self._generate)
        app.router.add_post("/v1/completions", self._generate)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        card = {
            "id": self.spec.model,
            "object": "model",
            "created": 0,
            "owned_by": "vllm",
            "root": self.spec.model,
            "max_model_len": self.spec.max_model_len,
        }
        return web.json_response({"object": "list", "data": [card]})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.exposition(), content_type="text/plain")

    async def _tokenize(self, request: web.Request) -> web.Response:
        try:
            count = count_tokens(await request.json())
        except (ValueError, KeyError, TypeError) as error:
            return _refusal(400, f"not a request: {error}", None)
        return web.json_response({"count": count, "max_model_len": self.spec.max_model_len})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
            job = self._job(request, body)
        except Refused as refused:
            return _refusal(refused.status, str(refused), refused.param)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _refusal(400, f"not a request: {error}", None)
        if self.remember:
            self.received.append(Received(job.request_id, request.path, body))
        fault = next((f for f in self.faults if f.meets(self._chance)), None)
        try:
            if fault is not None and fault.kind in STATUSES:
                return _refusal(*STATUSES[fault.kind], None)
            if fault is not None and fault.kind is FaultKind.HANG:
                await asyncio.Event().wait()
            if fault is not None and fault.kind is FaultKind.MALFORMED and not job.stream:
                return web.Response(text="<html>", content_type="application/json")
            async with self._slot(job):
                answer = self._streamed if job.stream else self._whole
                return await answer(request, job, fault)
        except asyncio.CancelledError:
            self.cancelled += 1
            self.metrics.finished("abort")
            raise

    def _job(self, request: web.Request, body: dict[str, Any]) -> "Job":
        chat = request.path.endswith("/chat/completions")
        if body["model"] != self.spec.model:
            raise Refused(404, f"The model `{body['model']}` does not exist.", "model")
        prompt_tokens = count_tokens(body)
        room = self.spec.max_model_len - prompt_tokens
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        wanted = asked or (room if chat else DEFAULT_MAX_TOKENS)
        if room < 1 or (asked and asked > room):
            raise Refused(
                400,
                f"This model's maximum context length is {self.spec.max_model_len} tokens. However,"
                f" you requested {asked or 1} output tokens and your prompt contains"
                f" {prompt_tokens} input tokens.",
                "max_tokens",
            )
        given = request.headers.get("x-request-id") or f"{self._chance.getrandbits(64):016x}"
        stream = bool(body.get("stream"))
        options = body.get("stream_options") or {}
        return Job(
            request_id=f"{'chatcmpl' if chat else 'cmpl'}-{given}",
            model=self.spec.model,
            chat=chat,
            stream=stream,
            with_usage=stream and bool(options.get("include_usage")),
            prompt_tokens=prompt_tokens,
            output_tokens=wanted if asked else min(wanted, DEFAULT_MAX_TOKENS),
        )

    @asynccontextmanager
    async def _slot(self, job: "Job") -> AsyncIterator[None]:
        """A place in the batch, in order of arrival."""
        started_s = time.monotonic()
        self.metrics.waiting.inc()
        try:
            await self._slots.acquire()
        finally:
            self.metrics.waiting.dec()
        self.metrics.running.inc()
        self._hold(job.prompt_tokens + job.output_tokens)
        try:
            await asyncio.sleep(self.spec.ttft_s)
            self.metrics.ttft_s.observe(time.monotonic() - started_s)
            yield
        finally:
            self._slots.release()
            self.metrics.running.dec()
            self._hold(-job.prompt_tokens - job.output_tokens)
            self.metrics.e2e_s.observe(time.monotonic() - started_s)

    def _hold(self, tokens: int) -> None:
        self._held_tokens += tokens
        capacity = self.spec.max_num_seqs * self.spec.max_model_len
        self.metrics.kv_cache_usage.set(self._held_tokens / capacity)

    async def _tokens(self, job: "Job") -> AsyncIterator[str]:
        self.metrics.prompt_tokens.inc(job.prompt_tokens)
        for number in range(job.output_tokens):
            if number:
                await asyncio.sleep(self.spec.itl_s)
                self.metrics.itl_s.observe(self.spec.itl_s)
            self.metrics.generation_tokens.inc()
            yield f" t{number}"

    async def _whole(self, request: web.Request, job: "Job", fault: Fault | None) -> web.Response:
        text = ""
        produced = 0
        async for token in self._tokens(job):
            if await self._broken(request, fault, produced):
                return _refusal(500, "engine core died", None)
            text += token
            produced += 1
        self.metrics.finished("length")
        body = job.envelope([job.choice(text, "length")], delta=False)
        if fault is None or fault.kind is not FaultKind.NO_USAGE:
            body["usage"] = job.usage(produced)
        return web.json_response(body, headers={"x-request-id": job.request_id})

    async def _streamed(
        self, request: web.Request, job: "Job", fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)

        async def event(value: dict[str, Any]) -> None:
            text = json.dumps(value, separators=(",", ":"))
            await response.write(f"data: {text}\n\n".encode())

        if job.chat:
            await event(job.envelope([job.delta({"role": "assistant", "content": ""})]))
        produced = 0
        async for token in self._tokens(job):
            if await self._broken(request, fault, produced, event):
                return response
            last = produced == job.output_tokens - 1
            await event(job.envelope([job.token(token, "length" if last else None)]))
            produced += 1
        if job.with_usage and (fault is None or fault.kind is not FaultKind.NO_USAGE):
            await event(job.envelope([]) | {"usage": job.usage(produced)})
        await response.write(b"data: [DONE]\n\n")
        self.metrics.finished("length")
        return response

    async def _broken(
        self,
        request: web.Request,
        fault: Fault | None,
        produced: int,
        event: Callable[[dict[str, Any]], Any] | None = None,
    ) -> bool:
        """Lets the fault happen when its time has come; True when the answer ends here."""
        if fault is None or produced != fault.after_tokens:
            return False
        if fault.kind is FaultKind.STALL:
            await asyncio.Event().wait()
        if fault.kind is FaultKind.CUT:
            assert request.transport is not None
            request.transport.close()
            return True
        if fault.kind is FaultKind.ERROR_EVENT:
            error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError"}
            if event is not None:
                await event({"error": error | {"param": None, "code": 500}})
            return True
        return False


class Refused(Exception):
    def __init__(self, status: int, message: str, param: str | None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


@dataclass(frozen=True, slots=True)
class Job:
    """One request in the engine, and the shapes of its answer."""

    request_id: str
    model: str
    chat: bool
    stream: bool
    with_usage: bool
    prompt_tokens: int
    output_tokens: int

    def envelope(self, choices: list[dict[str, Any]], delta: bool = True) -> dict[str, Any]:
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if delta else "chat.completion"
        return {
            "id": self.request_id,
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "choices": choices,
        }

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text}
        if self.chat:
            said = {"message": {"role": "assistant", "content": text}}
        return {"index": 0, **said, "logprobs": None, "finish_reason": reason}

    def token(self, text: str, reason: str | None) -> dict[str, Any]:
        return self.delta({"content": text}, reason) if self.chat else self.choice(text, reason)

    def delta(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}

    def usage(self, completion_tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": None,
        }


def count_tokens(body: dict[str, Any]) -> int:
    """Words of the prompt, and of every message with what a chat template adds."""
    if "messages" not in body:
        prompt = body["prompt"]
        return len((prompt if isinstance(prompt, str) else " ".join(map(str, prompt))).split())
    total = 0
    for message in body["messages"]:
        content = message["content"] or ""  # none beside tool calls
        if not isinstance(content, str):
            content = " ".join(str(part.get("text", "")) for part in content)
        total += len(content.split()) + CHAT_TEMPLATE_TOKENS
    return total


def _refusal(status: int, message: str, param: str | None) -> web.Response:
    """In vLLM's shape, where `code` is the status."""
    kinds = {400: "BadRequestError", 401: "Unauthorized", 404: "NotFoundError", 429: "RateLimit"}
    error = {"message": message, "type": kinds.get(status, "InternalServerError")}
    return web.json_response({"error": error | {"param": param, "code": status}}, status=status)
