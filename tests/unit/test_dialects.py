"""What each endpoint asks of a body, tells of an answer, and how it refuses."""

import json
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.refusals import not_offered
from orchestrator.gateway.request import InferenceRequest, parse
from orchestrator.gateway.usage import Usage

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": ["hi"]},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {**CHAT, "max_tokens": 5},
    "/v1/messages/count_tokens": CHAT,
    "/tokenize": {"prompt": "hi"},
    "/v1/tokenize": CHAT,
    "/detokenize": {"tokens": [1, 2]},
    "/v1/detokenize": {"tokens": [1, 2]},
    "/rerank": {"query": "hi", "documents": ["a", "b"]},
    "/v1/rerank": {"query": "hi", "documents": ["a", "b"]},
    "/v2/rerank": {"query": "hi", "documents": ["a", "b"]},
    "/score": {"text_1": "a", "text_2": ["b"]},
    "/v1/score": {"queries": "a", "documents": ["b"]},
}


def read(path: str, **body: Any) -> InferenceRequest:
    return parse(path, orjson.dumps({"model": "m", **BODIES[path], **body}))


def refused(path: str, **body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(path, **body)
    assert caught.value.status == 400
    return caught.value


def read_or_refused(path: str, raw: bytes) -> InferenceRequest | None:
    status = 0
    try:
        return parse(path, raw)
    except ApiError as error:
        status = error.status
    assert status == 400
    return None


def test_every_endpoint_is_covered_here() -> None:
    assert set(BODIES) == set(ENDPOINTS)


@pytest.mark.parametrize("path", BODIES)
def test_fields_that_nobody_here_knows_pass_through(path: str) -> None:
    request = read(path, tool_choice={"a": [1]}, unheard_of={"b": None})
    sent = json.loads(request.sent_to(None, vllm=False))
    assert sent.pop("store", False) is False
    assert sent == {
        "model": "m",
        **BODIES[path],
        "tool_choice": {"a": [1]},
        "unheard_of": {"b": None},
    }


@pytest.mark.parametrize("path", BODIES)
def test_an_engine_may_call_the_model_by_another_name(path: str) -> None:
    assert json.loads(read(path).sent_to("org/m", vllm=True))["model"] == "org/m"


@pytest.mark.parametrize("path", BODIES)
def test_what_a_body_must_have_is_named(path: str) -> None:
    for field in BODIES[path]:
        assert f"'{field}'" in refused(path, **{field: None}).message
    assert refused(path, model="").param == "model"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
READ = [
    "model",
    "messages",
    "prompt",
    "input",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "store",
    "background",
    "previous_response_id",
    "encoding_format",
    "tokens",
    "query",
    "documents",
    "text_1",
    "text_2",
]


@settings(max_examples=1000, deadline=None)
@given(
    st.sampled_from(sorted(BODIES)),
    st.dictionaries(st.sampled_from(READ), json_values, max_size=6),
    st.booleans(),
)
def test_no_body_is_too_odd_to_be_read_or_refused(
    path: str, odd: dict[str, Any], whole: bool
) -> None:
    body = {"model": "m", **BODIES[path], **odd} if whole else odd
    try:
        raw = orjson.dumps(body)
    except orjson.JSONEncodeError:
        raw = json.dumps(body).encode()  # numbers of any size
    request = read_or_refused(path, raw)
    if request is not None:
        for vllm in (True, False):
            sent = json.loads(request.sent_to(None, vllm))
            assert sent["model"] == body["model"]
        assert 0 <= request.max_tokens < 2**53
        if request.stream:
            request.dialect.reader(request.asked, vllm=True)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(BODIES)), st.binary(max_size=60))
def test_no_bytes_are_too_odd(path: str, raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse(path, raw)
    assert caught.value.status == 400


@pytest.mark.parametrize("depth", [200, 300, 1000, 5000, 100_000])
def test_no_depth_is_too_deep_to_be_refused(depth: int) -> None:
    raw = b'{"model":"m","messages":' + b"[" * depth + b"]" * depth + b"}"
    assert (read_or_refused("/v1/chat/completions", raw) is None) == (depth > 200)


# Token limits


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/chat/completions", "max_tokens"),
        ("/v1/chat/completions", "max_completion_tokens"),
        ("/v1/completions", "max_tokens"),
        ("/v1/responses", "max_output_tokens"),
        ("/v1/messages", "max_tokens"),
    ],
)
def test_the_most_that_may_be_generated(path: str, field: str) -> None:
    assert read(path, **{field: 7}).max_tokens == 7
    for odd in (-1, 1.5, "7", True, 2**53, [7]):
        assert refused(path, **{field: odd}).param == field


def test_the_newer_name_counts_and_none_is_the_engines_choice() -> None:
    assert read("/v1/chat/completions", max_tokens=9, max_completion_tokens=7).max_tokens == 7
    assert read("/v1/chat/completions", max_tokens=None).max_tokens == 0


def test_a_prompt_may_be_read_without_an_answer() -> None:
    assert read("/v1/completions", max_tokens=0, echo=True).max_tokens == 0
    assert refused("/v1/chat/completions", max_tokens=0).param == "max_tokens"


# Choices


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2]], 2), ({"odd": 1}, 1)],
)
def test_choices_are_counted_over_all_prompts(prompt: Any, prompts: int) -> None:
    assert read("/v1/completions", prompt=prompt, n=3).asked.choices == 3 * prompts
    assert read("/v1/completions", prompt=prompt).asked.prompts == prompts


@pytest.mark.parametrize("n", [None, 0, -1, "2", 1.5, True])
def test_an_odd_number_of_choices_is_the_engines_to_refuse(n: Any) -> None:
    assert read("/v1/chat/completions", n=n).asked.choices == 1


# Usage of streams


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_usage_of_a_stream_is_asked_for_and_throughout_of_vllm_alone(path: str) -> None:
    request = read(path, stream=True, stream_options={"more": 1})
    assert json.loads(request.sent_to(None, vllm=True))["stream_options"] == {
        "more": 1,
        "include_usage": True,
        "continuous_usage_stats": True,
    }
    assert json.loads(request.sent_to(None, vllm=False))["stream_options"] == {
        "more": 1,
        "include_usage": True,
    }
    assert not request.asked.wants_usage


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        (None, (False, False)),
        ({"include_usage": True}, (True, False)),
        ({"include_usage": True, "continuous_usage_stats": True}, (True, True)),
        ({"continuous_usage_stats": True}, (False, False)),
    ],
)
def test_what_usage_the_client_wants(options: Any, wants: tuple[bool, bool]) -> None:
    asked = read("/v1/chat/completions", stream=True, stream_options=options).asked
    assert (asked.wants_usage, asked.wants_usage_throughout) == wants


def test_what_has_no_stream_is_not_read_as_one() -> None:
    for path in set(BODIES) - {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
    }:
        assert not read(path, stream=True).stream


# What needs an answer to be kept


def test_a_response_is_never_stored() -> None:
    for body in ({}, {"store": None}, {"store": False}):
        assert json.loads(read("/v1/responses", **body).sent_to(None, True))["store"] is False


@pytest.mark.parametrize(
    ("field", "value", "mend"),
    [
        ("store", True, "Set 'store' to false"),
        ("background", True, "Wait for the answer"),
        ("previous_response_id", "resp_1", "Send the whole conversation in 'input'"),
        ("conversation", {"id": "c"}, "Send the whole conversation in 'input'"),
    ],
)
def test_what_a_replica_would_have_to_keep_is_refused_with_its_mend(
    field: str, value: Any, mend: str
) -> None:
    error = refused("/v1/responses", **{field: value})
    assert error.param == field
    assert mend in error.message


def test_embeddings_come_as_json() -> None:
    for form in (None, "float", "base64"):
        read("/v1/embeddings", encoding_format=form)
    for form in ("bytes", "bytes_only", 7, []):
        assert refused("/v1/embeddings", encoding_format=form).param == "encoding_format"


# Usage of whole answers


@pytest.mark.parametrize(
    ("path", "usage", "counted"),
    [
        (
            "/v1/chat/completions",
            {
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
            Usage(9, 2, 4),
        ),
        ("/v1/completions", {"prompt_tokens": 9, "completion_tokens": 2}, Usage(9, 2, 0)),
        ("/v1/embeddings", {"prompt_tokens": 9, "total_tokens": 9}, Usage(9, 0, 0)),
        ("/rerank", {"prompt_tokens": 9, "total_tokens": 9}, Usage(9, 0, 0)),
        ("/score", {"prompt_tokens": 9, "completion_tokens": 0}, Usage(9, 0, 0)),
        (
            "/v1/responses",
            {
                "input_tokens": 9,
                "output_tokens": 2,
                "input_tokens_details": {"cached_tokens": 4},
            },
            Usage(9, 2, 4),
        ),
        (
            "/v1/messages",
            {
                "input_tokens": 5,
                "output_tokens": 2,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 1,
            },
            Usage(9, 2, 3),
        ),
        ("/v1/messages/count_tokens", None, Usage(0, 0, 0)),
        ("/tokenize", None, Usage(0, 0, 0)),
        ("/detokenize", None, Usage(0, 0, 0)),
    ],
)
def test_usage_is_read_from_every_kind_of_answer(path: str, usage: Any, counted: Usage) -> None:
    dialect = ENDPOINTS[path]
    assert dialect.usage({"usage": usage}) == counted
    if usage is not None:
        assert dialect.usage({}) is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(BODIES)), json_values)
def test_no_usage_is_too_odd(path: str, odd: Any) -> None:
    counted = ENDPOINTS[path].usage({"usage": odd})
    assert counted is None or min(counted.prompt_tokens, counted.completion_tokens) >= 0


# Errors


@pytest.mark.parametrize(
    "path", sorted(set(BODIES) - {"/v1/messages", "/v1/messages/count_tokens"})
)
def test_errors_have_openais_shape(path: str) -> None:
    error = ApiError(404, "model_not_found", "There is none.")
    assert ENDPOINTS[path].error_body(error) == error.body()


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        (400, "invalid_request_error", anthropic.BadRequestError),
        (401, "authentication_error", anthropic.AuthenticationError),
        (403, "permission_error", anthropic.PermissionDeniedError),
        (404, "not_found_error", anthropic.NotFoundError),
        (429, "rate_limit_error", anthropic.RateLimitError),
        (500, "api_error", anthropic.InternalServerError),
        (503, "overloaded_error", anthropic.InternalServerError),
    ],
)
def test_an_anthropic_client_raises_its_own_errors(
    status: int, kind: str, raised: type[anthropic.APIStatusError]
) -> None:
    error = ApiError(status, "some_code", "Some message.")
    body = json.loads(ENDPOINTS["/v1/messages"].error_body(error))

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, json=body)

    client = anthropic.Anthropic(
        api_key="k",
        base_url="http://gateway",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )
    with pytest.raises(raised) as caught:
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "a"}])
    assert caught.value.type == kind
    assert caught.value.api_message == "Some message."
    assert caught.value.error_code == "some_code"


@pytest.mark.parametrize(
    ("status", "body", "missing"),
    [
        (404, b'{"detail":"Not Found"}', True),
        (404, b'{"error":{"message":"Not Found","code":404}}', True),
        (501, b"", True),
        (405, b"", True),
        (404, b'{"error":{"message":"The model `m` does not exist."}}', False),
        (404, b'{"error":7}', False),
        (404, b"[]", False),
        (404, b"nothing", False),
        (500, b'{"detail":"Not Found"}', False),
    ],
)
def test_an_engine_without_an_endpoint_has_not_failed(
    status: int, body: bytes, missing: bool
) -> None:
    error = not_offered(status, body)
    assert (error is not None) == missing
    assert error is None or error.code == "endpoint_not_offered"
