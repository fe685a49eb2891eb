"""Feeds that are asked over HTTP: a JSON document, or a Prometheus server.

Their addresses come from the configuration alone. Nothing that they answer is quoted in an error.
"""

import os
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import aiohttp
import orjson

from orchestrator.config.pricing import VARIABLE
from orchestrator.config.spec import HttpSource, PrometheusSource
from orchestrator.signals.prices import FeedError, Said

MAX_BYTES = 1024 * 1024

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?Inf|NaN")
"""As JSON's strings and Prometheus write them."""


async def ask_http(source: HttpSource) -> Said:
    """Raises FeedError; ends when its caller's time limit does."""
    return read_json(source, await _content(source.url, {}, source.headers))


async def ask_prometheus(source: PrometheusSource) -> Said:
    """Raises FeedError; ends when its caller's time limit does."""
    url = f"{source.url.rstrip('/')}/api/v1/query"
    content = await _content(url, {"query": source.query}, source.headers)
    return read_prometheus(source, content)


def read_json(source: HttpSource, content: bytes) -> Said:
    """Raises FeedError."""
    document = _parsed(content)
    found = _at(document, source.value)
    made_at_s = None if source.made_at is None else _time(_at(document, source.made_at))
    if isinstance(found, dict):
        # What is no number may be of a pool that is not ours.
        numbers = {name: _number(value) for name, value in found.items()}
        return Said({n: x for n, x in numbers.items() if x is not None}, made_at_s)
    figure = _number(found)
    if figure is None:
        raise FeedError(f"what stands at '{source.value}' is no number")
    return Said(figure, made_at_s)


def read_prometheus(source: PrometheusSource, content: bytes) -> Said:
    """Raises FeedError."""
    answer = _parsed(content)
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict) or answer.get("status") != "success":
        raise FeedError("no answer to a query of Prometheus")
    result = data.get("result")
    samples: list[tuple[Mapping[str, Any], float, float]]
    if data.get("resultType") == "scalar":
        samples = [({}, *_sample(result))]
    elif data.get("resultType") == "vector" and isinstance(result, list):
        samples = [_series(entry) for entry in result]
    else:
        raise FeedError("the query gives no instant vector; take another one")
    if not samples:
        raise FeedError("the query finds nothing")
    made_at_s = min(time_s for _, time_s, _ in samples)
    if source.pool_label is None:
        if len(samples) > 1:
            raise FeedError(
                f"the query gives {len(samples)} series; aggregate them, as with max(), or give a "
                "pool_label"
            )
        return Said(samples[0][2], made_at_s)
    figures: dict[str, float] = {}
    for labels, _, figure in samples:
        pool = labels.get(source.pool_label)
        if isinstance(pool, str):
            if pool in figures:
                raise FeedError(
                    f"the query gives several series with the same {source.pool_label}; aggregate "
                    f"them, as with max by ({source.pool_label}) ()"
                )
            figures[pool] = figure
    return Said(figures, made_at_s)


async def _content(url: str, query: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
    sent = {"accept": "application/json"} | {n: _filled(n, v) for n, v in headers.items()}
    sent["accept-encoding"] = "identity"
    content = b""
    try:
        async with (
            aiohttp.ClientSession(
                # The caller's limit is for the whole of it.
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers=sent,
            ) as session,
            session.get(url, params=query, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise FeedError(f"it answered {response.status}")
            async for part in response.content.iter_any():
                content += part
                if len(content) > MAX_BYTES:
                    raise FeedError(f"its answer is larger than {MAX_BYTES} bytes")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Its text may hold the address, and what a header holds.
        raise FeedError(f"it cannot be asked: {type(error).__name__}") from None
    return content


def _filled(name: str, value: str) -> str:
    """With the environment's variables. Raises FeedError."""

    def variable(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise FeedError(f"header '{name}' needs the environment variable {match[1]}; set it")
        return found.strip()

    return VARIABLE.sub(variable, value)


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except ValueError:
        raise FeedError("its answer is not JSON") from None


def _at(document: Any, pointer: str) -> Any:
    """RFC 6901."""
    found = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        try:
            if isinstance(found, list) and not re.fullmatch(r"0|[1-9][0-9]{0,8}", name):
                raise KeyError
            found = found[int(name) if isinstance(found, list) else name]
        except (KeyError, IndexError, TypeError):
            raise FeedError(f"its answer has nothing at '{pointer}'") from None
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _time(value: Any) -> float:
    seconds = _number(value)
    if seconds is not None:
        return seconds
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (TypeError, ValueError, OverflowError):
        pass
    raise FeedError("the time that it was made at is neither seconds nor RFC 3339")


def _series(entry: Any) -> tuple[Mapping[str, Any], float, float]:
    """Labels, time and figure."""
    labels = entry.get("metric") if isinstance(entry, dict) else None
    if not isinstance(labels, dict):
        raise FeedError("no answer to a query of Prometheus")
    return labels, *_sample(entry.get("value"))


def _sample(pair: Any) -> tuple[float, float]:
    """Time and figure."""
    if isinstance(pair, list) and len(pair) == 2:
        time_s, figure = _number(pair[0]), _number(pair[1])
        if time_s is not None and figure is not None:
            return time_s, figure
    raise FeedError("no answer to a query of Prometheus")
