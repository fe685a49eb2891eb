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
    ):
        assert refused(content) is None


def test_a_tool_that_the_engine_would_call_is_refused() -> None:
    assert refused({"tools": [{"type": "mcp", "server_url": "https://a.test"}]}) == "remote_tool"
    assert refused({"tools": [{"type": "mcp", "connector_id": "drive"}]}) == "remote_tool"


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
