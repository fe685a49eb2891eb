"""What clients ask for, and what replicas run: models and their variants."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.spec.base import Name, Seconds, Share, Spec


class Performance(Spec):
    """What one replica of the variant does on one accelerator."""

    accelerator: str = Field(description="of the pools that this holds for")
    prefill_tokens_per_s: Annotated[float, Field(gt=0)] = Field(
        description="prompt tokens of one request, read alone"
    )
    decode_tokens_per_s: Annotated[float, Field(gt=0)] = Field(
        description="tokens generated with all sequences busy"
    )
    itl_s: Seconds = Field(description="inter-token latency of one sequence alone")
    overhead_s: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="before the first token besides the prompt, for every request: HTTP, its text "
        "into tokens, scheduling",
    )
    kv_cache_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="tokens of prompts and answers that a replica holds at once, as vLLM logs it "
        "when it starts; none: never the limit",
    )
    source: str = Field(description="where these figures come from, with their date")


class Variant(Spec):
    """What a replica actually runs."""

    name: Name = Field(description="unique among all variants; part of the endpoint's name")
    weights: str = Field(description="path or hub id; a relative path starts at this file's folder")
    quantization: Literal["none", "fp8", "awq", "gptq", "int8"] = Field(
        default="none", description="of the weights, as vLLM calls it"
    )
    lora: str | None = Field(
        default=None, description="adapter on these weights: path or hub id; see `served_name`"
    )
    served_name: str | None = Field(
        default=None,
        description="the model's name at the endpoint, where it is not ours: an adapter's name, or "
        "a provider's",
    )
    task: Literal["generate", "embed", "classify"] = Field(
        default="generate",
        description="what its replicas do, as vLLM calls it: `generate` text, `embed` (embeddings, "
        "also for rerank and score), `classify` (cross-encoders, for rerank and score)",
    )
    quality: Share = Field(
        default=1.0, description="between variants of one model; compare with `min_quality`"
    )
    pools: list[Name] = Field(min_length=1, description="that run it")
    max_model_len: int = Field(ge=1, description="context length in tokens")
    max_num_seqs: int = Field(ge=1, description="sequences that one replica decodes at once")
    performance: list[Performance] = Field(
        default=[],
        description="predicts latency, what a token costs and how many replicas the load will "
        "need; else latency is measured, and replicas follow what waits",
    )
    engine_args: dict[str, str | int | float | bool] = Field(
        default={}, description="of vLLM, by their names there"
    )
    env: dict[str, str] = Field(default={}, description="environment of the engine's processes")


class Model(Spec):
    """The name that clients ask for."""

    name: Name = Field(description="the `model` of a request")
    variants: list[Variant] = Field(
        min_length=1, description="each of its own quality, at its own cost"
    )
