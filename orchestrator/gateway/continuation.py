"""A stream that broke off, asked to go on: the same request, with what was said already.

The rest is drawn from the same distribution as if nothing had happened, as far as text tells: so
only what is known to leave it as it is may stand in the request. Unknown means unsafe.
"""

from dataclasses import replace
from typing import Any

from orchestrator.gateway.dialects import Reader
from orchestrator.gateway.dialects.choices import Chat, Completions
from orchestrator.gateway.dialects.choices_reader import ChoicesReader
from orchestrator.gateway.request import InferenceRequest

ENGINE_DEFAULT_TOKENS = 16
"""What completions generate at most where the client does not say."""

_HARMLESS = frozenset(
    {
        "add_special_tokens",
        "allowed_token_ids",
        "cache_salt",
        "chat_template",
        "chat_template_kwargs",
        "documents",
        "ignore_eos",
        "include_stop_str_in_output",
        "length_penalty",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "min_p",
        "model",
        "parallel_tool_calls",
        "prompt",
        "prompt_cache_key",
        "repetition_penalty",
        "safety_identifier",
        "service_tier",
        "session_id",
        "spaces_between_special_tokens",
        "stop",
        "stop_token_ids",
        "store",
        "stream",
        "stream_interval",
        "stream_options",
        "temperature",
        "top_k",
        "top_p",
        "truncation_side",
        "user",
    }
)
"""Fields that say the same of a prompt with a part of its answer."""
_WITHOUT_EFFECT: dict[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "bad_words": ([],),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0, 0.0),
    "include_reasoning": (True,),
    "logprobs": (False,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0, 0.0),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "return_prompt_text": (False,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "suffix": ("",),
    "tool_choice": ("none",),
    "top_logprobs": (0,),
    "use_beam_search": (False,),
}
"""Fields that count what was generated, shape it or show more of it; unless they have this value.
"""


def continuation(request: InferenceRequest, reader: Reader) -> InferenceRequest | None:
    """What makes the same variant go on after all that the reader has passed on, or None where
    that is unsafe."""
    if not isinstance(reader, ChoicesReader) or not reader.only_text or reader.finished:
        return None
    if isinstance(request.dialect, Chat) and not reader.vllm:
        # Others begin a new message where one is to be continued.
        return None
    return after(request, reader.text, reader.tokens)


def after(request: InferenceRequest, text: str, tokens: int) -> InferenceRequest | None:
    """The request that goes on after a text of so many tokens."""
    body = request.content
    if not request.stream or not text or not all(_is_safe(body, field) for field in body):
        return None
    if any(_may_end_in(text, stop) for stop in _stops(body)):
        return None
    if isinstance(request.dialect, Chat):
        changed = _chat(body, text)
    elif isinstance(request.dialect, Completions):
        changed = _completion(body, text)
    else:
        return None
    if changed is None:
        return None
    changed = body | changed
    for name in request.dialect.limits:
        if changed.get(name) is not None:
            changed[name] -= tokens
            if changed[name] < 1:
                return None
    left = max(request.max_tokens - tokens, 0)
    return request.changed(replace(request.asked, max_tokens=left), changed)


def _is_safe(body: dict[str, Any], field: str) -> bool:
    value = body[field]
    if value is None or field in _HARMLESS:
        return True
    if field == "tools":
        return bool(body.get("tool_choice") == "none")
    if field in ("continue_final_message", "add_generation_prompt") and isinstance(value, bool):
        # By default the one is the other's opposite, and together they must be.
        goes_on = bool(body.get("continue_final_message"))
        return goes_on != (body.get("add_generation_prompt") is not False)
    # To Python 0 is False, and 1 is True; to an engine they are not.
    return any(type(value) is type(v) and value == v for v in _WITHOUT_EFFECT.get(field, ()))


def _stops(body: dict[str, Any]) -> list[str]:
    stop = body.get("stop")
    return [s for s in (stop if isinstance(stop, list) else [stop]) if isinstance(s, str)]


def _may_end_in(text: str, stop: str) -> bool:
    """Whether the text ends in a part of a stop string, of which only the rest would come."""
    return any(text.endswith(stop[:length]) for length in range(1, len(stop)))


def _chat(body: dict[str, Any], text: str) -> dict[str, Any] | None:
    # Chat templates trim what they are given.
    if text[-1].isspace() or not isinstance(body["messages"], list):
        return None
    messages = list(body["messages"])
    if body.get("continue_final_message"):
        last = messages.pop()
        if not isinstance(last, dict) or not isinstance(last.get("content"), str):
            return None
        messages.append(last | {"content": last["content"] + text})
    else:
        messages.append({"role": "assistant", "content": text})
    return {
        "messages": messages,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def _completion(body: dict[str, Any], text: str) -> dict[str, Any] | None:
    if not isinstance(body["prompt"], str):
        return None
    limit = body.get("max_tokens")
    return {
        "prompt": body["prompt"] + text,
        "max_tokens": ENGINE_DEFAULT_TOKENS if limit is None else limit,
    }
