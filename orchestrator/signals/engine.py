"""What a vLLM engine says of itself on `/metrics`."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    running: int
    waiting: int


def parse(text: str) -> EngineMetrics:
    """Sums over the engines of one exposition. Raises ValueError when it is not vLLM's."""
    sums: dict[str, float] = {}
    wanted = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    lines = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(wanted))
    for family in text_string_to_metric_families(lines):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    try:
        return EngineMetrics(int(sums[wanted[0]]), int(sums[wanted[1]]))
    except KeyError as missing:
        raise ValueError(f"no {missing.args[0]} among the metrics") from None
