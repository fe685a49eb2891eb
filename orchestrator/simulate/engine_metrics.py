"""The metrics of a vLLM engine, by their names."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class EngineMetrics:
    def __init__(self, model: str, kv_cache_tokens: int = 0) -> None:
        self._registry = CollectorRegistry()
        labels = {"model_name": model, "engine": "0"}

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, [*labels], registry=self._registry).labels(**labels)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, [*labels], registry=self._registry).labels(**labels)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(
                name, text, [*labels], buckets=LATENCY_BUCKETS_S, registry=self._registry
            ).labels(**labels)

        self.running = gauge("vllm:num_requests_running", "Requests in the batch")
        self.waiting = gauge("vllm:num_requests_waiting", "Requests that wait for the batch")
        self.kv_cache_usage = gauge("vllm:kv_cache_usage_perc", "KV cache in use, 1 is all")
        self.prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens processed")
        self.generation_tokens = counter("vllm:generation_tokens", "Tokens generated")
        self.ttft_s = histogram("vllm:time_to_first_token_seconds", "Time to first token")
        self.itl_s = histogram("vllm:inter_token_latency_seconds", "Time between tokens")
        self.e2e_s = histogram("vllm:e2e_request_latency_seconds", "Whole requests")
        self._success = Counter(
            "vllm:request_success",
            "Requests finished, by reason",
            [*labels, "finished_reason"],
            registry=self._registry,
        )
        self._labels = labels
        cache = {"block_size": "1", "num_gpu_blocks": str(kv_cache_tokens), "engine": "0"}
        Gauge(
            "vllm:cache_config_info", "The KV cache's size", [*cache], registry=self._registry
        ).labels(**cache).set(1)

    def finished(self, reason: str) -> None:
        self._success.labels(**self._labels, finished_reason=reason).inc()

    def exposition(self) -> bytes:
        return generate_latest(self._registry)
