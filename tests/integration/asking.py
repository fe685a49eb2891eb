"""Asking a gateway at any endpoint."""

import json
from typing import Any

from tests.integration.engines import World

CHAT = {"messages": [{"role": "user", "content": "a b"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {**CHAT, "max_tokens": 3},
    "/v1/completions": {"prompt": "a b", "max_tokens": 3},
    "/v1/responses": {"input": "a b", "max_output_tokens": 3},
    "/v1/messages": {**CHAT, "max_tokens": 3},
    "/v1/messages/count_tokens": CHAT,
    "/v1/embeddings": {"input": ["a b", "c"]},
    "/tokenize": {"prompt": "a b"},
    "/v1/tokenize": CHAT,
    "/detokenize": {"tokens": [1, 2]},
    "/v1/detokenize": {"tokens": [1, 2]},
    "/rerank": {"query": "a", "documents": ["b", "a"]},
    "/v1/rerank": {"query": "a", "documents": ["b", "a"]},
    "/v2/rerank": {"query": "a", "documents": ["b", "a"]},
    "/score": {"text_1": "a", "text_2": ["b", "a"]},
    "/v1/score": {"text_1": "a", "text_2": ["b", "a"]},
}
STREAMS = [p for p in BODIES if p.startswith("/v1/") and "max" in json.dumps(BODIES[p])]
MEASURES = [p for p in BODIES if p not in STREAMS]
TEXT = " t0 t1 t2"


async def ask(
    w: World, path: str, workload: str = "open", restricted: bool = False, **body: Any
) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {w.keys[workload]}"}
    if restricted:
        headers["x-orchestrator-data-class"] = "restricted"
    async with w.session.post(w.url + path, json={"model": "m", **body}, headers=headers) as answer:
        return answer.status, await answer.text()


def text_of(stream: str) -> str:
    """What a stream's deltas say, in any dialect."""
    said = ""
    for line in stream.splitlines():
        if not line.startswith("data: {"):
            continue
        value = json.loads(line[6:])
        for choice in value.get("choices", []):
            said += choice.get("text") or choice.get("delta", {}).get("content") or ""
        delta = value.get("delta", "")
        said += delta if isinstance(delta, str) else delta.get("text", "")
    return said
