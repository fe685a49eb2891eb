"""What a vLLM engine says of itself on `/metrics` and `/v1/models`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.samples import Sample

from orchestrator.signals.exposition import samples

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
KV_USAGE = "vllm:kv_cache_usage_perc"
SUCCESS = "vllm:request_success_total"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
GENERATION_TOKENS = "vllm:generation_tokens_total"
CREATED = "vllm:prompt_tokens_created"
LORA = "vllm:lora_requests_info"
STARTED = "process_start_time_seconds"
WANTED = (RUNNING, WAITING, KV_USAGE, SUCCESS, PROMPT_TOKENS, GENERATION_TOKENS, CREATED, LORA)


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """None is not known; it is not zero."""

    running: int
    waiting: int
    kv_usage: float | None = None
    """Share of the KV cache in use, of the fullest engine."""
    success: float | None = None
    """Requests that ended, for whatever reason, since the engine started."""
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    started_s: float | None = None
    """When the engine started, by its own clock: counters of another start are not comparable."""
    adapters: frozenset[str] = frozenset()
    """LoRA adapters of the requests that run or wait."""

    @property
    def counters(self) -> tuple[float | None, ...]:
        """The same at two times: nothing was done between them."""
        return (self.started_s, self.success, self.prompt_tokens, self.generation_tokens)


def parse(text: str) -> EngineMetrics:
    """Sums over the engines of one exposition. Raises ValueError when it is not vLLM's."""
    found: dict[str, list[Sample]] = {}
    for sample in samples(text, (*WANTED, STARTED)):
        found.setdefault(sample.name, []).append(sample)

    def total(name: str) -> float | None:
        return sum(s.value for s in found[name]) if name in found else None

    running, waiting = total(RUNNING), total(WAITING)
    if running is None or waiting is None:
        raise ValueError(f"no {RUNNING if running is None else WAITING} among the metrics")
    # Without a process's time, the time at which its first counters were made.
    started = found.get(STARTED) or found.get(CREATED, [])
    return EngineMetrics(
        running=int(running),
        waiting=int(waiting),
        kv_usage=max((s.value for s in found.get(KV_USAGE, [])), default=None),
        success=total(SUCCESS),
        prompt_tokens=total(PROMPT_TOKENS),
        generation_tokens=total(GENERATION_TOKENS),
        started_s=max((s.value for s in started), default=None),
        adapters=_adapters(found.get(LORA, [])),
    )


def loaded_adapters(models: str | bytes) -> frozenset[str]:
    """The LoRA adapters among the answer of `/v1/models`: whatever has a parent. Raises ValueError
    when it is not such an answer."""
    try:
        cards = json.loads(models)["data"]
        return frozenset(str(card["id"]) for card in cards if card.get("parent"))
    except (KeyError, TypeError, AttributeError):
        raise ValueError("not a list of models") from None


def _adapters(infos: Iterable[Sample]) -> frozenset[str]:
    """Every set of adapters leaves a series behind, whose value is when it was last so: the newest
    one holds."""
    newest = max(infos, key=lambda s: s.value, default=None)
    if newest is None:
        return frozenset()
    names = (newest.labels.get(f"{state}_lora_adapters", "") for state in ("running", "waiting"))
    return frozenset(name for listed in names for name in listed.split(",") if name)
