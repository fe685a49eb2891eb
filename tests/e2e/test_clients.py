"""The clients of OpenAI and of Anthropic, as they are, against real Ray Serve and real vLLM."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from orchestrator.config.load import load, state_directory
from orchestrator.policy.catalogue import Catalogue
from tests.e2e.conftest import LOCAL, ORCHESTRATOR, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NODE = Path(__file__).parent / "node"
HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0}
SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}, "grade": {"enum": ["good", "bad"]}},
    "required": ["sure", "grade"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "rate", "description": "Rate it.", "parameters": SCHEMA},
}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)


def engine(path: str, body: dict[str, Any]) -> httpx.Response:
    """The same asked of vLLM itself, past the gateway."""
    loaded = load(LOCAL)
    home = Catalogue(loaded.configuration, loaded.version).candidates["onprem-cpu/tiny-bf16"]
    return httpx.post(f"{home.url}{path}", json={"model": "tiny"} | body, timeout=60)


def without_blanks() -> dict[str, int]:
    """A bias: where a schema allows them, a model that knows nothing writes nothing else."""
    file = state_directory() / "models" / "tiny" / "tokenizer.json"
    vocabulary: dict[str, int] = json.loads(file.read_text())["model"]["vocab"]
    blank = set("\u0120\u010a\u0109\u010d")  # as byte-level tokenizers write them
    return {str(number): -100 for token, number in vocabulary.items() if set(token) <= blank}


def prompt_tokens(**body: Any) -> int:
    answer = engine("/tokenize", body)
    answer.raise_for_status()
    return int(answer.json()["count"])


def the_engine_says(path: str, body: dict[str, Any]) -> str:
    answer = engine(path, body)
    assert answer.status_code == 400, answer.text
    return " ".join(str(answer.json()["error"]["message"]).split())


def a_client_of_anthropic(stack: Stack, key: str = "") -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=stack.url, api_key=key or stack.keys["assistant"], max_retries=0
    )


class TestOpenAI:
    def test_models_are_listed_and_looked_up(self, stack: Stack) -> None:
        client = stack.client()
        assert [card.id for card in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").id == "tiny"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-4")

    def test_a_chat_says_what_the_engine_says_and_counts_as_it_counts(self, stack: Stack) -> None:
        asked: Any = GREEDY | {"messages": HELLO, "max_completion_tokens": 8}
        chat = stack.client().chat.completions.create(**asked)
        theirs = engine("/v1/chat/completions", asked).json()
        assert chat.choices[0].message.content == theirs["choices"][0]["message"]["content"]
        assert chat.choices[0].finish_reason == theirs["choices"][0]["finish_reason"]
        assert chat.usage.prompt_tokens == prompt_tokens(messages=HELLO)
        assert chat.usage.completion_tokens == theirs["usage"]["completion_tokens"]

    def test_a_streamed_chat_says_the_same(self, stack: Stack) -> None:
        asked: Any = GREEDY | {"messages": HELLO, "max_tokens": 8}
        whole = stack.client().chat.completions.create(**asked)
        chunks = list(
            stack.client().chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}
            )
        )
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert said == whole.choices[0].message.content
        assert chunks[-1].choices == []
        assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert sum(chunk.usage is not None for chunk in chunks) == 1

    def test_two_choices_are_two_answers_of_one_prompt(self, stack: Stack) -> None:
        asked: Any = {"model": "tiny", "messages": HELLO, "max_tokens": 4, "n": 2}
        chat = stack.client().chat.completions.create(**asked, extra_body={"ignore_eos": True})
        assert [choice.index for choice in chat.choices] == [0, 1]
        assert chat.usage.prompt_tokens == prompt_tokens(messages=HELLO)
        assert chat.usage.completion_tokens == 8
        said = {0: "", 1: ""}
        for chunk in stack.client().chat.completions.create(**asked, stream=True):
            for choice in chunk.choices:
                said[choice.index] += choice.delta.content or ""
        assert all(said.values())

    def test_logprobs_are_those_of_the_engine(self, stack: Stack) -> None:
        asked: Any = GREEDY | {
            "messages": HELLO,
            "max_tokens": 4,
            "logprobs": True,
            "top_logprobs": 2,
        }
        chat = stack.client().chat.completions.create(**asked)
        theirs = engine("/v1/chat/completions", asked).json()["choices"][0]["logprobs"]["content"]
        ours = chat.choices[0].logprobs.content
        assert [part.token for part in ours] == [part["token"] for part in theirs]
        assert [part.logprob for part in ours] == pytest.approx(
            [part["logprob"] for part in theirs], abs=1e-2
        )
        assert all(len(part.top_logprobs) == 2 for part in ours)

    def test_an_answer_has_the_shape_of_its_schema(self, stack: Stack) -> None:
        asked: Any = GREEDY | {
            "messages": HELLO,
            "max_tokens": 200,
            "logit_bias": without_blanks(),
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "rating", "schema": SCHEMA, "strict": True},
            },
        }
        chat = stack.client().chat.completions.create(**asked)
        answer = json.loads(chat.choices[0].message.content)
        assert set(answer) == {"sure", "grade"}
        assert answer["grade"] in ("good", "bad")
        streamed = stack.client().chat.completions.create(**asked, stream=True)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
        assert said == chat.choices[0].message.content

    @pytest.mark.parametrize(
        "choice", ["required", {"type": "function", "function": {"name": "rate"}}]
    )
    def test_a_tool_that_must_be_called_is_called(self, stack: Stack, choice: Any) -> None:
        asked: Any = GREEDY | {
            "messages": HELLO,
            "max_tokens": 200,
            "logit_bias": without_blanks(),
            "tools": [TOOL],
            "tool_choice": choice,
        }
        (call,) = stack.client().chat.completions.create(**asked).choices[0].message.tool_calls
        assert call.function.name == "rate"
        assert set(json.loads(call.function.arguments)) == {"sure", "grade"}
        names, arguments = "", ""
        for chunk in stack.client().chat.completions.create(**asked, stream=True):
            for part in chunk.choices[0].delta.tool_calls or ():
                names += part.function.name or ""
                arguments += part.function.arguments or ""
        assert names == "rate"
        assert json.loads(arguments) == json.loads(call.function.arguments)

    def test_a_model_that_may_call_a_tool_may_also_speak(self, stack: Stack) -> None:
        asked: Any = GREEDY | {"messages": HELLO, "max_tokens": 8, "tools": [TOOL]}
        chat = stack.client().chat.completions.create(**asked, tool_choice="auto")
        assert chat.choices[0].message.content
        assert chat.choices[0].message.tool_calls in (None, [])

    def test_what_the_engine_does_not_offer_is_refused_in_its_words(self, stack: Stack) -> None:
        asked: Any = {"messages": HELLO, "logprobs": True, "top_logprobs": 1000}
        with pytest.raises(openai.BadRequestError) as caught:
            stack.client().chat.completions.create(model="tiny", **asked)
        assert caught.value.body["message"] == the_engine_says("/v1/chat/completions", asked)

    def test_an_image_is_refused_in_the_engines_words_and_stays_home(
        self, stack: Stack, tmp_path: Path
    ) -> None:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
        asked: Any = {"messages": [{"role": "user", "content": [image]}]}
        with pytest.raises(openai.BadRequestError) as caught:
            stack.client().chat.completions.create(
                model="tiny", **asked, extra_headers={"x-request-id": "e2e-an-image"}
            )
        assert caught.value.body["message"] == the_engine_says("/v1/chat/completions", asked)
        # Nobody has looked into it, so it counts as what must not leave.
        (decision,) = explained("e2e-an-image")
        assert decision["data_class"] == "restricted"
        assert decision["decision"]["zone"] == "onprem"

    def test_completions_say_what_the_engine_says(self, stack: Stack) -> None:
        asked: Any = GREEDY | {"prompt": "def main(", "max_tokens": 6, "logprobs": 1}
        done = stack.client().completions.create(**asked)
        theirs = engine("/v1/completions", asked).json()
        assert done.choices[0].text == theirs["choices"][0]["text"]
        assert done.choices[0].logprobs.tokens == theirs["choices"][0]["logprobs"]["tokens"]
        assert done.usage.prompt_tokens == prompt_tokens(prompt="def main(")
        assert done.usage.completion_tokens == theirs["usage"]["completion_tokens"]
        chunks = list(
            stack.client().completions.create(
                **asked, stream=True, stream_options={"include_usage": True}
            )
        )
        assert "".join(c.choices[0].text for c in chunks if c.choices) == done.choices[0].text
        assert chunks[-1].usage.prompt_tokens == done.usage.prompt_tokens
        assert chunks[-1].usage.completion_tokens == done.usage.completion_tokens

    def test_several_prompts_are_completed_at_once(self, stack: Stack) -> None:
        done = stack.client().completions.create(
            **GREEDY, prompt=["def main(", "class "], max_tokens=2, extra_body={"ignore_eos": True}
        )
        assert [choice.index for choice in done.choices] == [0, 1]
        both = prompt_tokens(prompt="def main(") + prompt_tokens(prompt="class ")
        assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (both, 4)

    def test_a_response_says_the_same_whole_and_streamed(self, stack: Stack) -> None:
        client = stack.client()
        asked: Any = GREEDY | {"input": "hello there", "max_output_tokens": 8}
        response = client.responses.create(**asked)
        theirs = engine("/v1/responses", asked).json()
        assert response.output_text == theirs["output"][0]["content"][0]["text"]
        assert response.usage.input_tokens == prompt_tokens(messages=HELLO)
        assert response.usage.output_tokens == theirs["usage"]["output_tokens"]
        with client.responses.stream(**asked) as stream:
            events = list(stream)
            final = stream.get_final_response()
        assert events[0].type == "response.created"
        said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        assert said == final.output_text == response.output_text
        assert final.usage.input_tokens == response.usage.input_tokens
        assert final.usage.output_tokens == response.usage.output_tokens

    def test_a_response_that_would_have_to_be_kept_is_refused(self, stack: Stack) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            stack.client().responses.create(
                model="tiny", input="hello", previous_response_id="resp_1"
            )
        assert caught.value.param == "previous_response_id"

    def test_a_model_that_generates_does_not_embed(self, stack: Stack) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            stack.client().embeddings.create(model="tiny", input="hello")
        assert caught.value.code == "endpoint_not_offered"

    def test_texts_become_tokens_and_tokens_become_texts(self, stack: Stack) -> None:
        headers = {"authorization": f"Bearer {stack.keys['assistant']}"}
        with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as client:
            asked = {"model": "tiny", "prompt": "def main("}
            tokens = client.post("/tokenize", json=asked).json()
            assert tokens == engine("/tokenize", asked).json()
            back = client.post(
                "/detokenize", json={"model": "tiny", "tokens": tokens["tokens"]}
            ).json()
        assert back["prompt"].endswith("def main(")


def test_the_node_client_as_it_is(stack: Stack) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("no Node here: OpenAI's client for it cannot run")
    if not (NODE / "node_modules").exists():
        subprocess.run([npm, "ci", "--silent"], cwd=NODE, check=True, timeout=300)
    done = subprocess.run(
        [node, "client.mjs"],
        cwd=NODE,
        env=os.environ
        | {
            "BASE_URL": f"{stack.url}/v1",
            "API_KEY": stack.keys["assistant"],
            "MODEL": "tiny",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["models"] == ["tiny"]
    counted = prompt_tokens(messages=HELLO)
    assert got["chat"]["text"] == got["stream"]["text"] != ""
    assert got["chat"]["usage"]["prompt_tokens"] == counted
    assert got["stream"]["usage"]["prompt_tokens"] == counted
    assert got["completion"]["text"]
    assert got["completion"]["usage"]["prompt_tokens"] == prompt_tokens(prompt="def")
    assert got["response"]["text"] == got["events"]["text"] != ""
    assert got["response"]["usage"]["output_tokens"] > 0
    assert got["events"]["types"][0] == "response.created"
    assert got["events"]["types"][-1] in ("response.completed", "response.incomplete")
    assert got["error"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}


class TestAnthropic:
    def test_a_message_says_the_same_whole_and_streamed(self, stack: Stack) -> None:
        client = a_client_of_anthropic(stack)
        asked: Any = {"model": "tiny", "messages": HELLO, "max_tokens": 8}
        greedy = {"temperature": 0}
        message = client.messages.create(**asked, extra_body=greedy)
        theirs = engine("/v1/messages", asked | greedy).json()
        assert message.content[0].text == theirs["content"][0]["text"]
        assert message.stop_reason == theirs["stop_reason"]
        assert message.usage.input_tokens + (
            message.usage.cache_read_input_tokens or 0
        ) == prompt_tokens(messages=HELLO)
        assert message.usage.output_tokens == theirs["usage"]["output_tokens"]
        with client.messages.stream(**asked, extra_body=greedy) as stream:
            assert "".join(stream.text_stream) == message.content[0].text
            assert stream.get_final_message().usage.output_tokens == message.usage.output_tokens

    def test_what_the_system_says_is_part_of_the_prompt(self, stack: Stack) -> None:
        client = a_client_of_anthropic(stack)
        system = "You are brief."
        together = prompt_tokens(messages=[{"role": "system", "content": system}, *HELLO])
        counted = client.messages.count_tokens(model="tiny", system=system, messages=HELLO)
        assert counted.input_tokens == together
        message = client.messages.create(model="tiny", system=system, messages=HELLO, max_tokens=2)
        cached = message.usage.cache_read_input_tokens or 0
        assert message.usage.input_tokens + cached == together

    def test_errors_are_of_the_clients_own_types(self, stack: Stack) -> None:
        client = a_client_of_anthropic(stack)
        asked: Any = {"model": "tiny", "messages": HELLO, "max_tokens": 2}
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**asked | {"model": "claude"})
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**asked | {"max_tokens": -1})
        wrong = {"temperature": -1}
        with pytest.raises(anthropic.BadRequestError) as caught:
            client.messages.create(**asked, extra_body=wrong)
        said: Any = caught.value.body
        assert said["error"]["message"] == the_engine_says("/v1/messages", asked | wrong)
        with pytest.raises(anthropic.AuthenticationError):
            a_client_of_anthropic(stack, "sk-wrong").messages.create(**asked)


def explained(request_id: str) -> list[dict[str, Any]]:
    for _ in range(20):
        # Records are written a little after the answer.
        done = subprocess.run(
            [ORCHESTRATOR, "explain", request_id, "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            break
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
