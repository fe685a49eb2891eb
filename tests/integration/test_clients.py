"""The clients of OpenAI and of Anthropic, as they are, against the gateway."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.integration.asking import CHAT, TEXT
from tests.integration.engines import World, run


def in_thread(
    tmp_path: Path, test: Callable[[World], None], home: str = "", total_s: float = 60
) -> None:
    async def inside(w: World) -> None:
        await asyncio.to_thread(test, w)

    run(tmp_path, inside, home=home, total_s=total_s)


def test_the_anthropic_client_as_it_is(tmp_path: Path) -> None:
    def test(w: World) -> None:
        client = anthropic.Anthropic(api_key=w.keys["open"], base_url=w.url, max_retries=0)
        asked: Any = {"model": "m", "max_tokens": 3, "messages": CHAT["messages"]}
        message = client.messages.create(**asked)
        assert message.content[0].text == TEXT
        assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 3)
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream) == TEXT
            assert stream.get_final_message().usage.output_tokens == 3
        counted = client.messages.count_tokens(model="m", messages=asked["messages"])
        assert counted.input_tokens == 5
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**asked | {"model": "none"})
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**asked | {"max_tokens": -1})
        with pytest.raises(anthropic.AuthenticationError):
            client.with_options(api_key="wrong").messages.create(**asked)

    in_thread(tmp_path, test)


def test_the_anthropic_client_learns_of_a_stream_that_broke_off(tmp_path: Path) -> None:
    def test(w: World) -> None:
        client = anthropic.Anthropic(api_key=w.keys["open"], base_url=w.url, max_retries=0)
        asked: Any = {"model": "m", "max_tokens": 3, "messages": CHAT["messages"]}
        said = ""
        with pytest.raises(anthropic.APIStatusError) as caught:  # noqa: SIM117
            with client.messages.stream(**asked) as stream:
                for text in stream.text_stream:
                    said += text
        assert said == " t0 t1"
        assert caught.value.error_code == "stream_interrupted"

    in_thread(tmp_path, test, home="cut:2")


def test_the_openai_client_as_it_is(tmp_path: Path) -> None:
    def test(w: World) -> None:
        client = openai.OpenAI(api_key=w.keys["open"], base_url=f"{w.url}/v1", max_retries=0)
        response = client.responses.create(model="m", input="a b", max_output_tokens=3)
        assert response.output_text == TEXT
        with client.responses.stream(model="m", input="a b", max_output_tokens=3) as stream:
            events = list(stream)
            assert stream.get_final_response().output_text == TEXT
        assert events[0].type == "response.created"
        assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == TEXT
        vectors = client.embeddings.create(model="m", input=["a", "b"])
        assert [len(v.embedding) for v in vectors.data] == [8, 8]
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="m", input="a", previous_response_id="resp_1")
        assert caught.value.param == "previous_response_id"

    in_thread(tmp_path, test)


def test_the_openai_client_learns_of_a_response_that_broke_off(tmp_path: Path) -> None:
    def test(w: World) -> None:
        client = openai.OpenAI(api_key=w.keys["open"], base_url=f"{w.url}/v1", max_retries=0)
        *_, last = client.responses.create(model="m", input="a b", max_output_tokens=3, stream=True)
        assert last.type == "error"
        assert last.code == "stream_interrupted"

    in_thread(tmp_path, test, home="cut:2")
