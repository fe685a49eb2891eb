"""What engines would fetch for a client is refused; what only looks like it passes."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.remote import refuse_remote

DATA = "data:image/png;base64,iVBORw0KGgo="
PLACES = ["http://10.0.0.1/", "HTTPS://a.test/x", "file:/etc/passwd", "ftp://a", " http://a", "//a"]


def said(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def refused(content: dict[str, Any]) -> str | None:
    try:
        refuse_remote(content, orjson.dumps(content))
    except ApiError as error:
        return error.code if error.status == 400 else "another"
    return None


@pytest.mark.parametrize("place", PLACES)
def test_content_that_is_elsewhere_is_refused_in_every_dialect(place: str) -> None:
    for content in (
        said({"type": "image_url", "image_url": {"url": place}}),
        said({"type": "image_url", "image_url": place}),
        said({"type": "video_url", "video_url": {"url": place}}),
        said({"type": "audio_url", "audio_url": {"url": place, "more": 1}}),
        said({"type": "image", "source": {"type": "url", "url": place}}),
        said({"type": "document", "source": {"type": "url", "url": place}}),
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": place}]}]},
        {"input": [{"type": "input_file", "file_url": place}]},
    ):
        assert refused(content) == "remote_content"


def test_content_that_is_there_passes() -> None:
    for content in (
        said({"type": "image_url", "image_url": {"url": DATA}}),
        said({"type": "text", "text": "see https://a.test and image_url"}),
        {"input": [{"type": "input_image", "image_url": DATA}]},
        said({"type": "output_text", "annotations": [{"type": "url_citation", "url": "http://a"}]}),
        {"tools": [{"function": {"parameters": {"properties": {"url": {"type": "string"}}}}}]},
        {"metadata": {"url": "https://a.test"}},
        # vLLM takes no part of this type, and fetches nothing for it.
        said({"type": "image", "image": "https://a.test"}),
    ):
        assert refused(content) is None


def test_data_may_call_its_fields_what_it_wants() -> None:
    data = {"server_url": PLACES[0], "image_url": PLACES[1], "at": {"type": "url", "url": "//a"}}
    schema = {"properties": {"image_url": {"default": PLACES[0]}}, "examples": [data]}
    for content in (
        said({"type": "tool_use", "name": "open", "input": data}),
        {"messages": [{"tool_calls": [{"function": {"name": "open", "arguments": data}}]}]},
        {"input": [{"type": "function_call", "arguments": data}]},
        {"tools": [{"type": "function", "function": {"name": "open", "parameters": schema}}]},
        {"tools": [{"name": "open", "input_schema": schema, "input_examples": [data]}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
        {"text": {"format": {"type": "json_schema", "schema": schema}}},
        {"structured_outputs": {"json": schema}},
        {"metadata": data},
        {"documents": [{"server_url": PLACES[0], "text": "a"}]},
    ):
        assert refused(content) is None


def test_no_data_begins_where_an_engine_reads_content() -> None:
    part = {"type": "image_url", "image_url": {"url": PLACES[0]}}
    messages = [{"role": "user", "content": [part]}]
    for content in (
        {"type": "tool_use", "input": messages},
        {"type": "tool_use", "input": {"messages": messages}},
        said({"type": "tool_use", "input": [part]}),
        said({"type": "tool_use", "input": {}, "content": [part]}),
        said({"type": "tool_result", "content": [part]}),
        said({"type": "image_url", "image_url": [PLACES[0]], "uuid": "a"}),
        {"input": [{"type": "function_call_output", "output": [part]}]},
        {"query": {"content": [part]}, "documents": ["a"]},
        {"query": "a", "documents": [{"content": [part]}]},
    ):
        assert refused(content) == "remote_content"


def test_a_tool_that_the_engine_would_call_is_refused() -> None:
    assert refused({"tools": [{"type": "mcp", "server_url": "https://a.test"}]}) == "remote_tool"
    assert refused({"tools": [{"type": "mcp", "connector_id": "drive"}]}) == "remote_tool"
    assert refused({"mcp_servers": [{"server_url": "https://a.test"}]}) == "remote_tool"
    nested = {"type": "namespace", "tools": [{"type": "mcp", "server_url": "https://a.test"}]}
    assert refused({"tools": [nested]}) == "remote_tool"


@given(
    st.recursive(
        st.text() | st.none() | st.booleans(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(st.sampled_from(["url", "image_url", "type", "tools", "content"]), x)
        ),
    )
)
def test_whatever_the_shape_it_is_refused_or_passes(value: Any) -> None:
    assert refused({"messages": value}) in (None, "remote_content", "remote_tool")


LISTS = ["messages", "content", "output", "documents", "queries"]
"""Fields on the way to what an engine reads."""
TYPES = [None, "tool_use", "tool_result", "function_call_output", "message", "url"]


@given(
    st.lists(st.tuples(st.sampled_from(LISTS), st.sampled_from(TYPES)), min_size=1, max_size=6),
    st.sampled_from(PLACES),
    st.sampled_from(["image_url", "audio_url", "video_url", "file_url", "source"]),
    st.booleans(),
)
def test_wherever_a_part_stands_its_place_is_found(
    way: list[tuple[str, str | None]], place: str, media: str, bare: bool
) -> None:
    there: Any = {"type": "url", "url": place} if media == "source" else {"url": place}
    value: Any = {"type": media, media: place if bare and media != "source" else there}
    for name, kind in way:
        value = {name: [value], "type": kind, "metadata": {"a": 1}, "input": {}}
    assert refused(value) == "remote_content"


@given(
    st.lists(st.tuples(st.sampled_from(LISTS), st.sampled_from(TYPES)), max_size=4),
    st.sampled_from(["arguments", "parameters", "input_schema", "json_schema", "schema"]),
    st.recursive(
        st.sampled_from(PLACES),
        lambda x: st.dictionaries(st.sampled_from(["url", "image_url", "server_url", "type"]), x),
    ),
)
def test_wherever_data_stands_it_passes(
    way: list[tuple[str, str | None]], field: str, data: Any
) -> None:
    value: Any = {"name": "open", field: data}
    for name, kind in way:
        value = {name: [value], "type": kind}
    assert refused({"tools": [value]}) is None
