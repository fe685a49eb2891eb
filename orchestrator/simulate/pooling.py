"""What a model that generates nothing answers: embeddings, scores, rankings."""

import base64
import hashlib
import struct
import time
from typing import Any

DIMENSIONS = 8


def embeddings(given_id: str, body: dict[str, Any], prompt_tokens: int) -> dict[str, Any]:
    given = body["input"] if "input" in body else body["messages"]
    single = isinstance(given, str) or isinstance(given[0], int | dict)
    data = [
        {"index": index, "object": "embedding", "embedding": _written(body, _vector(repr(text)))}
        for index, text in enumerate([given] if single else given)
    ]
    return {
        "id": f"embd-{given_id}",
        "object": "list",
        "created": int(time.time()),
        "model": body["model"],
        "data": data,
        "usage": _usage(prompt_tokens) | {"completion_tokens": 0, "prompt_tokens_details": None},
    }


def ranking(given_id: str, body: dict[str, Any], prompt_tokens: int) -> dict[str, Any]:
    scored: list[dict[str, Any]] = [
        {
            "index": index,
            "document": {"text": document, "multi_modal": None},
            "relevance_score": _likeness(body["query"], document),
        }
        for index, document in enumerate(_listed(body["documents"]))
    ]
    scored.sort(key=lambda result: result["relevance_score"], reverse=True)
    return {
        "id": f"score-{given_id}",
        "model": body["model"],
        "usage": _usage(prompt_tokens),
        "results": scored[: body.get("top_n") or None],
    }


def scores(given_id: str, body: dict[str, Any], prompt_tokens: int) -> dict[str, Any]:
    first = _listed(body.get("text_1", body.get("queries", body.get("data_1"))))
    second = _listed(body.get("text_2") or body.get("documents") or body.get("items") or [])
    pairs = zip(first * len(second) if len(first) == 1 else first, second, strict=True)
    return {
        "id": f"score-{given_id}",
        "object": "list",
        "created": int(time.time()),
        "model": body["model"],
        "data": [
            {"index": index, "object": "score", "score": _likeness(*pair)}
            for index, pair in enumerate(pairs)
        ],
        "usage": _usage(prompt_tokens) | {"completion_tokens": 0, "prompt_tokens_details": None},
    }


def _vector(text: str) -> list[float]:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=DIMENSIONS).digest()
    return [byte / 128 - 1 for byte in digest]


def _written(body: dict[str, Any], vector: list[float]) -> list[float] | str:
    if body.get("encoding_format") != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _likeness(one: Any, other: Any) -> float:
    """The share of words that two texts have in common."""
    words, others = set(str(one).split()), set(str(other).split())
    return len(words & others) / max(len(words | others), 1)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _usage(prompt_tokens: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
