"""What exporters answer, in the shapes in which they do."""

import json
from dataclasses import dataclass, field

from orchestrator.simulate.engine_metrics import EngineMetrics

BLANK = 9223372036854775794
"""What DCGM says where there is nothing to say."""


@dataclass
class Vllm:
    """A vLLM engine's counters, as vLLM 0.29 shows them."""

    model: str = "m"
    started_s: float | None = 1_700_000_000.0
    running: int = 0
    waiting: int = 0
    stopped: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    counts_success: bool = True
    infos: list[tuple[str, str, float]] = field(default_factory=list)
    """Adapters running, waiting, and when it was last so."""

    def answer(self, requests: int = 1, prompt: int = 320, generated: int = 140) -> None:
        self.stopped += requests
        self.prompt_tokens += requests * prompt
        self.generation_tokens += requests * generated

    def restart(self, started_s: float | None) -> None:
        self.started_s = started_s
        self.running = self.waiting = self.stopped = self.aborted = 0
        self.prompt_tokens = self.generation_tokens = 0

    def text(self) -> str:
        labels = f'engine="0",model_name="{self.model}"'
        lines = [
            "# HELP python_gc_objects_collected_total Objects collected during gc",
            "# TYPE python_gc_objects_collected_total counter",
            'python_gc_objects_collected_total{generation="0"} 17854.0',
            "# HELP vllm:num_requests_running Number of requests in model execution batches.",
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{{{labels}}} {float(self.running)}",
            "# HELP vllm:num_requests_waiting Number of requests waiting to be processed.",
            "# TYPE vllm:num_requests_waiting gauge",
            f"vllm:num_requests_waiting{{{labels}}} {float(self.waiting)}",
            "# TYPE vllm:num_requests_waiting_by_reason gauge",
            f'vllm:num_requests_waiting_by_reason{{{labels},reason="capacity"}} '
            f"{float(self.waiting)}",
            "# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.",
            "# TYPE vllm:kv_cache_usage_perc gauge",
            f"vllm:kv_cache_usage_perc{{{labels}}} {0.031 * self.running}",
            "# TYPE vllm:prompt_tokens counter",
            f"vllm:prompt_tokens_total{{{labels}}} {float(self.prompt_tokens)}",
            "# TYPE vllm:generation_tokens counter",
            f"vllm:generation_tokens_total{{{labels}}} {float(self.generation_tokens)}",
        ]
        if self.started_s is not None:
            lines[0:0] = [
                "# HELP process_start_time_seconds Start time of the process since unix epoch.",
                "# TYPE process_start_time_seconds gauge",
                f"process_start_time_seconds {self.started_s}",
            ]
        if self.counts_success:
            ended = {"stop": self.stopped, "length": 0, "abort": self.aborted, "error": 0}
            lines += ["# TYPE vllm:request_success counter"] + [
                f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {float(n)}'
                for reason, n in ended.items()
            ]
        if self.infos:
            lines += ["# TYPE vllm:lora_requests_info gauge"] + [
                f'vllm:lora_requests_info{{max_lora="4",running_lora_adapters="{running}",'
                f'waiting_lora_adapters="{waiting}"}} {at_s}'
                for running, waiting, at_s in self.infos
            ]
        return "\n".join(lines) + "\n"


@dataclass
class Simulated:
    """The same from the simulated engine."""

    def __post_init__(self) -> None:
        self.metrics = EngineMetrics("m")

    def answer(self, prompt: int = 320, generated: int = 140) -> None:
        self.metrics.finished("stop")
        self.metrics.prompt_tokens.inc(prompt)
        self.metrics.generation_tokens.inc(generated)

    def text(self) -> str:
        return self.metrics.exposition().decode()


def models(base: str, *adapters: str) -> str:
    """The answer of `/v1/models`."""
    card = {"object": "model", "created": 1764300000, "owned_by": "vllm"}
    cards = [{**card, "id": base, "root": f"/models/{base}", "parent": None}]
    cards += [{**card, "id": a, "root": f"/adapters/{a}", "parent": base} for a in adapters]
    return json.dumps({"object": "list", "data": cards})


@dataclass
class Card:
    """One GPU in a DCGM exporter's answer; None: the field is not exported for it."""

    index: int = 0
    model: str = "NVIDIA L40S"
    host: str = "gpu-node-1"
    util: float | None = 0
    used: float | None = 0
    total: float = 46068
    power: float | None = 34.7
    temperature: float | None = 31
    xid: int | None = 0
    pods: list[tuple[str, str]] | None = None
    """Namespace and pod; None: no Kubernetes, no such labels."""
    mig: tuple[str, str] | None = None
    """Profile and id of the instance."""
    active: float | None = None
    uuid: str = ""
    time_ms: int | None = None

    @property
    def name(self) -> str:
        own = self.uuid or f"GPU-8d5053b3-9280-7d1a-751b-00000000000{self.index}"
        return f"{self.host}/{own}" + (f"/{self.mig[1]}" if self.mig else "")

    def samples(self) -> list[tuple[str, str, float]]:
        uuid = self.name.split("/")[1]
        base = (
            f'gpu="{self.index}",UUID="{uuid}",pci_bus_id="00000000:{self.index + 26:02X}:00.0",'
            f'device="nvidia{self.index}",modelName="{self.model}"'
        )
        if self.mig:
            base += f',GPU_I_PROFILE="{self.mig[0]}",GPU_I_ID="{self.mig[1]}"'
        base += f',Hostname="{self.host}",DCGM_FI_DRIVER_VERSION="580.82.07"'
        shares = [base]
        if self.pods is not None:
            shares = [
                f'{base},container="{"vllm" if pod else ""}",namespace="{namespace}",pod="{pod}"'
                for namespace, pod in self.pods or [("", "")]
            ]
        values = {
            "DCGM_FI_DEV_GPU_TEMP": self.temperature,
            "DCGM_FI_DEV_POWER_USAGE": self.power,
            "DCGM_FI_DEV_GPU_UTIL": self.util,
            "DCGM_FI_DEV_XID_ERRORS": self.xid,
            "DCGM_FI_DEV_FB_FREE": None if self.used is None else self.total - self.used,
            "DCGM_FI_DEV_FB_USED": self.used,
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": self.active,
        }
        return [
            (name, labels, value)
            for name, value in values.items()
            if value is not None
            for labels in shares
        ]


def dcgm(*cards: Card) -> str:
    """An exporter's answer for a node."""
    lines: list[str] = []
    by_name: dict[str, list[str]] = {}
    for card in cards:
        stamp = "" if card.time_ms is None else f" {card.time_ms}"
        for name, labels, value in card.samples():
            by_name.setdefault(name, []).append(f"{name}{{{labels}}} {value:.6f}{stamp}")
    for name, samples in by_name.items():
        lines += [f"# HELP {name} as NVIDIA says.", f"# TYPE {name} gauge", *samples]
    lines += ["# TYPE DCGM_FI_DEV_SM_CLOCK gauge", 'DCGM_FI_DEV_SM_CLOCK{gpu="0"} 1980']
    return "\n".join(lines) + "\n"
