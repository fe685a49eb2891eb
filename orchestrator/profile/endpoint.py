"""An engine, asked as any client asks it. Times are the event loop's."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from prometheus_client.samples import Sample

from orchestrator.profile.fit import ProfileError, Read, Timeline
from orchestrator.signals.engine import EngineMetrics, parse
from orchestrator.signals.exposition import samples

DATA = b"data: "
EVENT = DATA + b"{"
CACHE = "vllm:cache_config_info"
LOOK_TIMEOUT = aiohttp.ClientTimeout(total=10)
QUOTED_CHARACTERS = 300
"""Of an error's text."""


@dataclass(frozen=True, slots=True)
class About:
    """What an endpoint says of itself; None is not known."""

    model: str
    max_model_len: int | None = None
    version: str | None = None
    metrics: EngineMetrics | None = None
    kv_cache_tokens: int | None = None

    @property
    def is_vllm(self) -> bool:
        return self.metrics is not None

    @property
    def engine(self) -> str:
        name = "vLLM" if self.is_vllm else "an engine"
        return f"{name} {self.version}" if self.version else name


class Endpoint:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """`url`: without /v1."""
        self._session = session
        self._url = url
        self.about = About("")

    async def look(self, model: str | None) -> About:
        """What it is; `model`: none: the first that it serves. Raises ProfileError."""
        async with self._session.get(f"{self._url}/v1/models", timeout=LOOK_TIMEOUT) as response:
            cards = self._cards(await self._checked(response))
        if not cards or (model is not None and model not in cards):
            known = ", ".join(cards) or "none"
            raise ProfileError(f"{self._url}: no model '{model or ''}'; --model is one of: {known}")
        name = model or next(iter(cards))
        text = await self._said("/metrics")
        version = await self._said("/version")
        self.about = About(
            name,
            cards[name].get("max_model_len"),
            _version(version),
            _metrics(text),
            kv_cache_tokens(text),
        )
        return self.about

    async def read(self, prompt: str, length: int) -> Read:
        """Reads a prompt and one token after it. Raises ProfileError."""
        began_s = _now_s()
        async with self._posted(prompt, max_tokens=1) as response:
            body = await self._checked(response)
        took_s = _now_s() - began_s
        try:
            return Read(length, orjson.loads(body)["usage"]["prompt_tokens"], took_s)
        except (KeyError, TypeError, orjson.JSONDecodeError):
            raise ProfileError(
                f"{self._url}: an answer does not tell its `usage`; without it prompts have no "
                "length"
            ) from None

    async def generate(
        self, prompt: str, tokens: int, timeline: Timeline, begun: Callable[[], None]
    ) -> None:
        """Streams so many tokens, and notes when they came. `begun` is called at the first. Raises
        ProfileError."""
        options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        if self.about.is_vllm:
            options["stream_options"]["continuous_usage_stats"] = True
            options["ignore_eos"] = True
        count, rest = 0, b""
        try:
            async with self._posted(prompt, max_tokens=tokens, **options) as response:
                if response.status != 200:
                    await self._checked(response)
                # Whatever came is looked at together: with many streams a look at each token would
                # take longer than the engine takes to make it.
                async for piece in response.content.iter_any():
                    *lines, rest = (rest + piece).split(b"\n")
                    count = self._count([line for line in lines if line.startswith(EVENT)], count)
                    if count and (not timeline or count > timeline[-1][1]):
                        timeline.append((_now_s(), count))
                        if len(timeline) == 1:
                            begun()
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
            raise ProfileError(f"{self._url}: a stream broke off; see the engine's log") from None

    def _count(self, events: Sequence[bytes], before: int) -> int:
        """The tokens so far: by the last word of an engine that tells, else one an event. Raises
        ProfileError."""
        failure = next((e for e in events if e.startswith(EVENT + b'"error"')), None)
        if failure is not None:
            raise ProfileError(f"{self._url}: a stream broke off: {_quoted(failure)}")
        if not events:
            return before
        if self.about.is_vllm:
            usage = orjson.loads(events[-1][len(DATA) :]).get("usage")
            return usage["completion_tokens"] if usage else before
        return before + sum(bool(orjson.loads(e[len(DATA) :]).get("choices")) for e in events)

    def _posted(self, prompt: str, **options: Any) -> "aiohttp.client._RequestContextManager":
        body = {"model": self.about.model, "prompt": prompt, "temperature": 0, **options}
        return self._session.post(f"{self._url}/v1/completions", json=body)

    async def _checked(self, response: aiohttp.ClientResponse) -> bytes:
        body = await response.read()
        if response.status in (401, 403):
            raise ProfileError(
                f"{self._url}: {response.status}: it wants a key; name the environment variable "
                "that holds one with --api-key-env"
            )
        if response.status != 200:
            raise ProfileError(f"{response.url}: {response.status}: {_quoted(body)}")
        return body

    def _cards(self, models: bytes) -> dict[str, Any]:
        try:
            return {card["id"]: card for card in orjson.loads(models)["data"]}
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ProfileError(
                f"{self._url}/v1/models is no list of models; give an OpenAI-compatible endpoint"
            ) from None

    async def _said(self, path: str) -> str:
        """Of what only some engines tell; empty where it is not there."""
        async with self._session.get(self._url + path, timeout=LOOK_TIMEOUT) as response:
            return await response.text() if response.status == 200 else ""


def kv_cache_tokens(exposition: str) -> int | None:
    """That the engines hold together, by their metrics; None where they do not tell."""
    try:
        told = [_cache_tokens(sample) for sample in samples(exposition, (CACHE,))]
    except ValueError:
        return None
    return sum(told) or None


def _cache_tokens(cache: Sample) -> int:
    """0 where it is not told. Where layers share blocks, the size in tokens alone is right."""
    sizes = [
        cache.labels.get(n, "") for n in ("kv_cache_size_tokens", "num_gpu_blocks", "block_size")
    ]
    tokens, blocks, block = (int(size) if size.isdigit() else 0 for size in sizes)
    return tokens or blocks * block


def _metrics(exposition: str) -> EngineMetrics | None:
    try:
        return parse(exposition)
    except ValueError:
        return None


def _version(said: str) -> str | None:
    try:
        version = orjson.loads(said)["version"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def _quoted(body: bytes) -> str:
    return body.decode(errors="replace").strip()[:QUOTED_CHARACTERS]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
