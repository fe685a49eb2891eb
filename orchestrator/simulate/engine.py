"""A vLLM engine without a model: its HTTP API, its continuous batching, its metrics.

Tokens are words. The answer's n-th token is ` t<n>`, so that a reader of a stream can tell whether
one is missing or came twice; an answer that is continued goes on with the next number.
"""

import asyncio
import json
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from orchestrator.simulate.engine_metrics import EngineMetrics
from orchestrator.simulate.faults import STATUSES, Fault, FaultKind
from orchestrator.simulate.pooling import embeddings, ranking, scores
from orchestrator.simulate.prompts import count_tokens, first_number
from orchestrator.simulate.shapes import Chat, Completion, Message, Response, Shape

DEFAULT_MAX_TOKENS = 16
VERSION = "0+simulated"
DIED = "EngineCore encountered an issue."

Handler = Callable[[web.Request, dict[str, Any], Fault | None], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What the engine is like. Times are those of one request that need not wait."""

    model: str
    ttft_s: float = 0.05
    itl_s: float = 0.01
    max_num_seqs: int = 8
    max_model_len: int = 4096
    prefill_tokens_per_s: float = math.inf
    """Of the prompt, on top of `ttft_s`."""

    @property
    def kv_cache_tokens(self) -> int:
        """Enough for every sequence, however long."""
        return self.max_num_seqs * self.max_model_len


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
        self.metrics = EngineMetrics(self.spec.model, self.spec.kv_cache_tokens)
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
        app.router.add_get("/version", self._version)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        for paths, answer in (
            (("/v1/chat/completions",), self._generates(Chat)),
            (("/v1/completions",), self._generates(Completion)),
            (("/v1/messages",), self._generates(Message)),
            (("/v1/responses",), self._generates(Response)),
            (("/v1/embeddings",), self._reads(embeddings)),
            (("/rerank", "/v1/rerank", "/v2/rerank"), self._reads(ranking)),
            (("/score", "/v1/score"), self._reads(scores)),
            (("/tokenize", "/v1/messages/count_tokens"), self._tokenize),
            (("/detokenize",), self._detokenize),
        ):
            for path in paths:
                app.router.add_post(path, self._answered(answer))
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

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

    async def _tokenize(
        self, request: web.Request, body: dict[str, Any], _: Fault | None
    ) -> web.Response:
        count = count_tokens(body)
        if request.path == "/v1/messages/count_tokens":
            context = {"original_input_tokens": count}
            return web.json_response({"input_tokens": count, "context_management": context})
        answer = {
            "count": count,
            "max_model_len": self.spec.max_model_len,
            "tokens": list(range(count)),
            "token_strs": None,
        }
        return web.json_response(answer)

    async def _detokenize(
        self, _: web.Request, body: dict[str, Any], __: Fault | None
    ) -> web.Response:
        return web.json_response({"prompt": "".join(f" t{int(n)}" for n in body["tokens"])})

    def _answered(self, answer: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Reads a request and remembers it, and lets it meet a fault; refuses what it is not."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                body = json.loads(await request.read())
                if body["model"] != self.spec.model:
                    raise Refused(404, f"The model `{body['model']}` does not exist.", "model")
                if self.remember:
                    given_id = request.headers.get("x-request-id", "")
                    self.received.append(Received(given_id, request.path, body))
                fault = await self._fault()
                if (
                    fault is not None
                    and fault.kind is FaultKind.MALFORMED
                    and not body.get("stream")
                ):
                    return web.Response(text="<html>", content_type="application/json")
                return await answer(request, body, fault)
            except Refused as refused:
                return _refusal(request, refused.status, str(refused), refused.param)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                return _refusal(request, 400, f"not a request: {error}", None)
            except asyncio.CancelledError:
                self.cancelled += 1
                self.metrics.finished("abort")
                raise

        return handle

    def _generates(self, shape: type[Shape]) -> Handler:
        async def answer(
            request: web.Request, body: dict[str, Any], fault: Fault | None
        ) -> web.StreamResponse:
            job = self._job(request, body, shape)
            async with self._slot(job.prompt_tokens, job.output_tokens):
                answered = self._streamed if job.stream else self._whole
                return await answered(request, job, fault)

        return answer

    def _reads(self, made: Callable[[str, dict[str, Any], int], dict[str, Any]]) -> Handler:
        """For what is answered without generating anything."""

        async def answer(
            request: web.Request, body: dict[str, Any], fault: Fault | None
        ) -> web.StreamResponse:
            prompt_tokens = count_tokens(body)
            value = made(self._id(request), body, prompt_tokens)
            async with self._slot(prompt_tokens, 0):
                if await self._broken(request, fault, 0):
                    return _refusal(request, 500, "engine core died", None)
                self.metrics.prompt_tokens.inc(prompt_tokens)
                self.metrics.finished("stop")
                if fault is not None and fault.kind is FaultKind.NO_USAGE:
                    del value["usage"]
                return web.json_response(value)

        return answer

    async def _fault(self) -> Fault | None:
        """The one that the request meets, if it lives to see it. Raises Refused."""
        fault = next((f for f in self.faults if f.meets(self._chance)), None)
        if fault is not None and fault.kind in STATUSES:
            raise Refused(*STATUSES[fault.kind], None)
        if fault is not None and fault.kind is FaultKind.HANG:
            await asyncio.Event().wait()
        return fault

    def _id(self, request: web.Request) -> str:
        return request.headers.get("x-request-id") or f"{self._chance.getrandbits(64):016x}"

    def _job(self, request: web.Request, body: dict[str, Any], shape: type[Shape]) -> "Job":
        prompt_tokens = count_tokens(body)
        room = self.spec.max_model_len - prompt_tokens
        asked = next((body[name] for name in shape.limits if body.get(name)), None)
        wanted = asked or (DEFAULT_MAX_TOKENS if shape is Completion else room)
        if room < 1 or (asked and asked > room):
            raise Refused(
                400,
                f"This model's maximum context length is {self.spec.max_model_len} tokens. However,"
                f" you requested {asked or 1} output tokens and your prompt contains"
                f" {prompt_tokens} input tokens.",
                "max_tokens",
            )
        return Job(
            shape=shape(self.spec.model, self._id(request), body, prompt_tokens),
            stream=bool(body.get("stream")),
            prompt_tokens=prompt_tokens,
            output_tokens=wanted if asked else min(wanted, DEFAULT_MAX_TOKENS),
            first_number=first_number(body),
        )

    @asynccontextmanager
    async def _slot(self, prompt_tokens: int, output_tokens: int) -> AsyncIterator[None]:
        """A place in the batch, in order of arrival."""
        started_s = time.monotonic()
        self.metrics.waiting.inc()
        try:
            await self._slots.acquire()
        finally:
            self.metrics.waiting.dec()
        self.metrics.running.inc()
        self._hold(prompt_tokens + output_tokens)
        try:
            read_s = prompt_tokens / self.spec.prefill_tokens_per_s
            await asyncio.sleep(self.spec.ttft_s + read_s)
            self.metrics.ttft_s.observe(time.monotonic() - started_s)
            yield
        finally:
            self._slots.release()
            self.metrics.running.dec()
            self._hold(-prompt_tokens - output_tokens)
            self.metrics.e2e_s.observe(time.monotonic() - started_s)

    def _hold(self, tokens: int) -> None:
        self._held_tokens += tokens
        self.metrics.kv_cache_usage.set(self._held_tokens / self.spec.kv_cache_tokens)

    async def _tokens(self, job: "Job") -> AsyncIterator[str]:
        self.metrics.prompt_tokens.inc(job.prompt_tokens)
        for number in range(job.output_tokens):
            if number:
                await asyncio.sleep(self.spec.itl_s)
                self.metrics.itl_s.observe(self.spec.itl_s)
            self.metrics.generation_tokens.inc()
            yield f" t{job.first_number + number}"

    async def _whole(self, request: web.Request, job: "Job", fault: Fault | None) -> web.Response:
        text = ""
        produced = 0
        async for token in self._tokens(job):
            if await self._broken(request, fault, produced):
                return _refusal(request, 500, "engine core died", None)
            text += token
            produced += 1
        self.metrics.finished("length")
        body = job.shape.whole(text, produced)
        if fault is not None and fault.kind is FaultKind.NO_USAGE:
            del body["usage"]
        return web.json_response(body, headers={"x-request-id": job.shape.id})

    async def _streamed(
        self, request: web.Request, job: "Job", fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for event in job.shape.opening():
            await response.write(event)
        text = ""
        produced = 0
        async for token in self._tokens(job):
            if await self._broken(request, fault, produced):
                if fault is not None and fault.kind is FaultKind.ERROR_EVENT:
                    await response.write(job.shape.failure(DIED))
                return response
            text += token
            produced += 1
            for event in job.shape.token(token, produced, produced == job.output_tokens):
                await response.write(event)
        with_usage = fault is None or fault.kind is not FaultKind.NO_USAGE
        for event in job.shape.closing(text, produced, with_usage):
            await response.write(event)
        self.metrics.finished("length")
        return response

    async def _broken(self, request: web.Request, fault: Fault | None, produced: int) -> bool:
        """Lets the fault happen when its time has come; True when the answer ends here."""
        if fault is None or produced != fault.after_tokens:
            return False
        if fault.kind is FaultKind.STALL:
            await asyncio.Event().wait()
        if fault.kind is FaultKind.CUT:
            assert request.transport is not None
            request.transport.close()
            return True
        return fault.kind is FaultKind.ERROR_EVENT


class Refused(Exception):
    def __init__(self, status: int, message: str, param: str | None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


@dataclass(frozen=True, slots=True)
class Job:
    """One request in the engine."""

    shape: Shape
    stream: bool
    prompt_tokens: int
    output_tokens: int
    first_number: int


def _refusal(request: web.Request, status: int, message: str, param: str | None) -> web.Response:
    """In vLLM's shape, where `code` is the status."""
    kinds = {400: "BadRequestError", 401: "Unauthorized", 404: "NotFoundError", 429: "RateLimit"}
    error = {"message": message, "type": kinds.get(status, "InternalServerError")}
    if request.path.startswith("/v1/messages"):
        return web.json_response({"type": "error", "error": error}, status=status)
    return web.json_response({"error": error | {"param": param, "code": status}}, status=status)
