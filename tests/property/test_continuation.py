"""A stream that broke off goes on as if nothing had happened, or it does not go on."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gateway import usage
from orchestrator.gateway.continuation import after, continuation
from orchestrator.gateway.dialects.choices_reader import ChoicesReader
from orchestrator.gateway.dialects.continued_reader import ContinuedReader
from orchestrator.gateway.request import InferenceRequest, parse
from orchestrator.gateway.sse import EventKind, EventSplitter
from orchestrator.gateway.usage import Usage
from orchestrator.simulate.prompts import count_tokens, first_number
from orchestrator.simulate.shapes import Chat, Completion

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = [{"role": "user", "content": "Count."}]
FEW = settings(max_examples=300, deadline=None)


def chat(**body: Any) -> InferenceRequest:
    whole = {"model": "m", "messages": MESSAGES, "stream": True, **body}
    return parse(CHAT, json.dumps(whole).encode())


def completion(**body: Any) -> InferenceRequest:
    whole = {"model": "m", "prompt": "Count.", "stream": True, **body}
    return parse(COMPLETIONS, json.dumps(whole).encode())


def content(request: InferenceRequest | None) -> dict[str, Any]:
    """What goes upstream, which is what was decided on."""
    assert request is not None
    sent: dict[str, Any] = json.loads(request.sent_to(None, vllm=False))
    assert {**request.content, "stream_options": sent["stream_options"]} == sent
    return sent


def test_a_chat_goes_on_in_an_open_message_of_the_assistant() -> None:
    sent = content(after(chat(temperature=0.5, max_tokens=9, top_k=None), "One, two", 3))
    assert sent["messages"] == [*MESSAGES, {"role": "assistant", "content": "One, two"}]
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    assert (sent["max_tokens"], sent["temperature"]) == (6, 0.5)


def test_a_message_that_was_continued_already_goes_on_further() -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "One,"}]
    request = chat(messages=messages, continue_final_message=True, add_generation_prompt=False)
    sent = content(after(request, " two", 1))
    assert sent["messages"] == [*MESSAGES, {"role": "assistant", "content": "One, two"}]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "One,"}]}]
    odd = chat(messages=parts, continue_final_message=True, add_generation_prompt=False)
    assert after(odd, " two", 1) is None


def test_a_completion_goes_on_after_prompt_and_text() -> None:
    sent = content(after(completion(max_tokens=9), " One, two ", 3))
    assert (sent["prompt"], sent["max_tokens"]) == ("Count. One, two ", 6)
    assert content(after(completion(), " One", 3))["max_tokens"] == 13


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_nothing_is_left_to_say_at_the_limit(field: str) -> None:
    assert after(chat(**{field: 3}), "One", 3) is None
    assert content(after(chat(**{field: 4}), "One", 3))[field] == 1


UNSAFE: dict[str, Any] = {
    "n": 2,
    "best_of": 3,
    "use_beam_search": True,
    "seed": 0,
    "logprobs": True,
    "top_logprobs": 1,
    "prompt_logprobs": 0,
    "echo": True,
    "tools": [{"type": "function"}],
    "tool_choice": "auto",
    "functions": [{}],
    "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a"},
    "guided_json": {},
    "guided_choice": ["a"],
    "frequency_penalty": 0.1,
    "presence_penalty": -1,
    "min_tokens": 2,
    "bad_words": ["a"],
    "include_reasoning": False,
    "reasoning_effort": "high",
    "skip_special_tokens": False,
    "truncate_prompt_tokens": 10,
    "return_token_ids": True,
    "kv_transfer_params": {"a": 1},
    "continue_final_message": True,
    "add_generation_prompt": False,
    "something_new": 1,
}


@pytest.mark.parametrize("field", UNSAFE)
def test_what_makes_it_unsafe(field: str) -> None:
    assert after(chat(**{field: UNSAFE[field]}), "One", 1) is None
    assert after(chat(**{field: None}), "One", 1) is not None


@pytest.mark.parametrize(
    "harmless",
    [
        {"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": False},
        {"tools": [{"type": "function"}], "tool_choice": "none"},
        {"response_format": {"type": "text"}, "min_tokens": 0, "ignore_eos": True},
        {"continue_final_message": False, "add_generation_prompt": True},
        {"temperature": 1.3, "top_p": 0.9, "stop": ["\n\n"], "logit_bias": {"5": -100}},
    ],
)
def test_what_does_not(harmless: dict[str, Any]) -> None:
    assert after(chat(**harmless), "One", 1) is not None


def test_probabilities_that_a_completion_shows_make_it_unsafe_even_if_none_but_its_own() -> None:
    assert after(completion(logprobs=0), "One", 1) is None


@pytest.mark.parametrize("prompt", [["Count."], [1, 2], [[1, 2]]])
def test_a_prompt_that_is_no_text_cannot_go_on(prompt: Any) -> None:
    assert after(completion(prompt=prompt), "One", 1) is None


def test_a_text_that_templates_would_trim_cannot_go_on() -> None:
    assert after(chat(), "One,\n", 1) is None
    assert after(completion(), "One,\n", 1) is not None


def test_nothing_goes_on_that_is_no_stream_or_has_said_nothing() -> None:
    assert after(chat(stream=False), "One", 1) is None
    assert after(chat(), "", 0) is None


OTHERS = [
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9}),
    ("/v1/responses", {"input": "Count."}),
]


@pytest.mark.parametrize(("path", "body"), OTHERS)
def test_other_endpoints_cannot_go_on(path: str, body: dict[str, Any]) -> None:
    request = parse(path, json.dumps({"model": "m", "stream": True, **body}).encode())
    assert after(request, "One", 1) is None
    assert continuation(request, request.dialect.reader(request.asked, vllm=True)) is None


short = st.text("ab\n", max_size=6)


@FEW
@given(short, st.lists(short, max_size=3) | short)
def test_no_stop_string_is_missed_at_the_cut(text: str, stop: Any) -> None:
    request = after(completion(stop=stop), text, 1)
    stops = [stop] if isinstance(stop, str) else stop
    parts = [s[:length] for s in stops for length in range(1, len(s))]
    assert (request is None) == (not text or any(text.endswith(part) for part in parts))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | st.text("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from([*UNSAFE, "temperature", "stop", "messages", "max_tokens", "user"])


@settings(max_examples=1000, deadline=None)
@given(st.dictionaries(names | st.text(max_size=5), values, max_size=4), st.text(), st.integers(0))
def test_a_continuation_is_the_same_request_but_for_what_was_said(
    body: dict[str, Any], text: str, tokens: int
) -> None:
    raw = {"model": "m", "messages": MESSAGES, "stream": True, **body}
    try:
        request = parse(CHAT, orjson.dumps(raw))
    except Exception:
        return
    goes_on = after(request, text, tokens)
    if goes_on is None:
        return
    changed = {"messages", "continue_final_message", "add_generation_prompt", "max_tokens"}
    assert all(goes_on.content[name] == request.content[name] for name in body.keys() - changed)
    assert goes_on.content["messages"][-1]["content"].endswith(text)
    assert goes_on.max_tokens <= request.max_tokens
    unsafe = {n for n, v in UNSAFE.items() if type(body.get(n)) is type(v) and body[n] == v}
    assert unsafe <= {"continue_final_message", "add_generation_prompt"}


# The events of a continuation


def engine(request: InferenceRequest, vllm: bool = True) -> list[bytes]:
    """The stream of a simulated engine."""
    body = json.loads(request.sent_to(None, vllm))
    shape = (Chat if request.dialect.name == "chat" else Completion)(
        "m", f"id-{len(request.body)}", body, count_tokens(body)
    )
    limit, first = body["max_tokens"], first_number(body)
    events, text = list(shape.opening()), ""
    for number in range(limit):
        text += f" t{first + number}"
        events += shape.token(f" t{first + number}", number + 1, number == limit - 1)
    return [*events, *shape.closing(text, limit, with_usage=True)]


def seen(events: list[bytes]) -> dict[str, Any]:
    """What a client makes of a stream."""
    assert events[-1] == b"data: [DONE]\n\n"
    chunks = [json.loads(event[6:]) for event in events[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    said = [choice.get("delta") or {"content": choice["text"]} for choice in choices if choice]
    return {
        "about": {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks},
        "text": "".join(s.get("content", "") for s in said),
        "roles": [s["role"] for s in said if "role" in s],
        "finished": [c["finish_reason"] for c in choices if c["finish_reason"]],
        "usage": [usage.read(chunk["usage"]) for chunk in chunks if chunk.get("usage")],
    }


@FEW
@given(
    st.sampled_from([chat, completion]),
    st.lists(st.integers(1, 14), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([{}, {"include_usage": True}, "throughout"]),
)
def test_a_client_sees_one_answer_however_often_it_broke_off(
    make: Any, cuts: list[int], vllm: bool, options: Any
) -> None:
    if options == "throughout":
        options = {"include_usage": True, "continuous_usage_stats": True}
    request = make(max_tokens=12, stream_options=options)
    passed: list[bytes] = []
    reader: ChoicesReader = request.dialect.reader(request.asked, vllm)
    asked: InferenceRequest | None = request
    for cut in [*cuts, 100]:
        assert asked is not None
        kind = EventKind.PREAMBLE
        for event in engine(asked, vllm)[:cut]:
            kind, out = reader.read(event)
            passed += [out] if out else []
        if kind is EventKind.DONE:
            break
        if reader.finished:
            passed += [e + b"\n\n" for e in reader.closing().split(b"\n\n")[:-1]]
            break
        asked = continuation(request, reader)
        if asked is None:
            assert reader.text == "" or (make is chat and not vllm)
            return
        reader = ContinuedReader(reader, vllm)
    view = seen(passed)
    assert view["text"] == "".join(f" t{n}" for n in range(12))
    assert len(view["about"]) == 1
    assert view["roles"] == (["assistant"] if make is chat else [])
    assert view["finished"] == ["length"]
    prompt = count_tokens(request.content)
    if not options:
        assert view["usage"] == []
    elif "continuous_usage_stats" not in options:
        (told,) = view["usage"]
        assert told.completion_tokens == 12
        # An engine that was cut off before its last chunk has told nobody of the prompt.
        assert told.prompt_tokens == prompt or (not vllm and reader.usage is None)
    elif vllm:
        counts = [u.completion_tokens for u in view["usage"]]
        assert counts == sorted(counts)
        assert view["usage"][-1] == Usage(prompt, 12, 0)


def test_an_attempt_is_billed_for_its_own_part() -> None:
    request = chat(max_tokens=12)
    reader: Any = request.dialect.reader(request.asked, vllm=True)
    for event in engine(request)[:6]:
        reader.read(event)
    assert reader.usage == Usage(4, 5, 0)
    asked = continuation(request, reader)
    assert asked is not None
    rest = ContinuedReader(reader, vllm=True)
    events = engine(asked)
    for event in events[:4]:
        rest.read(event)
    assert (rest.usage, rest.tokens) == (Usage(12, 3, 0), 8)
    for event in events[4:]:
        rest.read(event)
    assert (rest.usage, rest.used) == (Usage(12, 7, 0), Usage(4, 12, 0))


def test_tokens_of_a_continuation_are_told_by_their_bytes_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from orchestrator.gateway import sse

    request = chat(max_tokens=12)
    reader: Any = request.dialect.reader(request.asked, vllm=True)
    first = engine(request)
    passed = [reader.read(event)[1] for event in first[:3]]
    asked = continuation(request, reader)
    assert asked is not None
    rest = ContinuedReader(reader, vllm=True)
    events = engine(asked)
    for event in events[:2]:
        rest.read(event)
    monkeypatch.delattr(sse.orjson, "loads")
    assert rest.read(events[2]) == (EventKind.CONTENT, passed[1].replace(b" t0", b" t3"))


def test_a_whole_stream_is_cut_into_the_events_that_the_engine_made() -> None:
    events = engine(chat(max_tokens=3))
    assert EventSplitter().feed(b"".join(events)) == b"".join(events)
