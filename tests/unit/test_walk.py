"""Where a request may have content that is no text: such content cannot be read."""

from typing import Any

import pytest

from orchestrator.classify.walk import UNREADABLE, strings


def walked(body: object) -> list[str | None]:
    return list(strings(body, lambda: None))


def said(part: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


BASE64 = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
UNREAD: dict[str, dict[str, Any]] = {
    "an image": said({"type": "image", "source": BASE64}),
    "an image without a type of its source": said({"type": "image", "source": {"data": "iVBO"}}),
    "an image elsewhere": said(
        {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}
    ),
    "a document": said({"type": "document", "source": {**BASE64, "media_type": "application/pdf"}}),
    "a document elsewhere": said(
        {"type": "document", "source": {"type": "url", "url": "https://a"}}
    ),
    "a file": said({"type": "document", "source": {"type": "file", "file_id": "f"}}),
    "an image in a tool's result": said(
        {
            "type": "tool_result",
            "tool_use_id": "1",
            "content": [{"type": "image", "source": BASE64}],
        }
    ),
    "hidden thinking": said({"type": "redacted_thinking", "data": "EmwKAhgB"}),
    "hidden reasoning": {"input": [{"type": "reasoning", "encrypted_content": "gAAAA"}]},
    "an input image": {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://a"}]}]
    },
    "an input file": {
        "input": [{"role": "user", "content": [{"type": "input_file", "file_data": "JVBERi0="}]}]
    },
    "a generated image": {"input": [{"type": "image_generation_call", "result": "iVBORw0KGgo="}]},
    "an item that is kept elsewhere": {"input": [{"type": "item_reference", "id": "msg_1"}]},
    "tokens": {"tokens": [72, 101]},
    "tokens as text": {"tokens": ["72", "101"]},
    "tokens as numbers of another kind": {"tokens": [72.0]},
    "tokens to be embedded": {"input": [1, 2, 3]},
    "tokens after none": {"input": [[], [1, 2]]},
    "tokens after text": {"prompt": ["Hello", 72]},
    "an image to be ranked": {
        "query": "a",
        "documents": {"content": [{"type": "image_url", "image_url": {"url": "https://a"}}]},
    },
    "what another engine has read": {"kv_transfer_params": {"remote_block_ids": [1]}},
}


@pytest.mark.parametrize("place", UNREAD)
def test_what_is_no_text_cannot_be_read(place: str) -> None:
    assert UNREADABLE in walked(UNREAD[place])


READ: list[dict[str, Any]] = [
    said(
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hm."}}
    ),
    said({"type": "tool_use", "id": "1", "name": "f", "input": {"source": {"kind": "a"}, "n": 1}}),
    said({"type": "thinking", "thinking": "Hm.", "signature": "ab12"}),
    {"input": [{"type": "reasoning", "encrypted_content": None, "summary": []}]},
    {"input": ["a", "b"], "tokens": []},
    {"query": "a", "documents": ["b", {"text": "c"}], "top_n": 2},
    {"messages": [], "tools": [{"input_schema": {"tokens": ["a"], "items": [1, 2]}}]},
    {"kv_transfer_params": None},
]


@pytest.mark.parametrize("body", READ, ids=range(len(READ)))
def test_what_is_text_can(body: dict[str, Any]) -> None:
    assert UNREADABLE not in walked(body)


TEXTS: list[dict[str, Any]] = [
    {"instructions": "CANARY"},
    {"system": [{"type": "text", "text": "CANARY"}]},
    {"input": [{"type": "function_call", "arguments": '{"a":"CANARY"}'}]},
    {"input": [{"type": "function_call_output", "output": [{"text": "CANARY"}]}]},
    {"query": "CANARY"},
    {"documents": [{"text": "CANARY"}]},
    {"text_1": "a", "text_2": ["CANARY"]},
    {"queries": ["CANARY"], "items": ["a"]},
    said({"type": "tool_use", "input": {"CANARY": [1]}}),
    said({"type": "tool_result", "content": "CANARY"}),
    said({"type": "image", "source": BASE64, "title": "CANARY"}),
    said({"type": "document", "source": BASE64, "context": "CANARY"}),
]


@pytest.mark.parametrize("body", TEXTS, ids=range(len(TEXTS)))
def test_every_text_is_read_wherever_it_stands(body: dict[str, Any]) -> None:
    assert any("CANARY" in piece for piece in walked(body) if piece is not None)


def test_of_a_long_payload_only_the_beginning_is_read() -> None:
    source = {**BASE64, "data": "iVBORw0KGgo=" * 100_000}
    assert sum(len(p) for p in walked(said({"type": "image", "source": source})) if p) < 1000
