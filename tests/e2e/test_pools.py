"""What a pool runs, on real Ray Serve and vLLM: adapters, embeddings, several replicas."""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import httpx
import psutil
import pytest
from openai import NotFoundError, OpenAI

from orchestrator.config.load import load
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import PoolError
from orchestrator.pools.engine import warm_up
from orchestrator.pools.ray import RayPools, llm_application
from orchestrator.signals.prefixes import HEADER, encode
from orchestrator.stack import processes, ray_head, tiny_model
from orchestrator.stack.up import environment
from tests.e2e.conftest import left_behind

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

REPLICAS = {"cpu/tiny-1.0-bf16": 2, "cpu/letters-lora": 1, "cpu/search-embed": 1}

MAKE_ADAPTER = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

base, adapter = map(Path, sys.argv[1:])
config = AutoConfig.from_pretrained(base)
torch.manual_seed(0)
head = config.hidden_size // config.num_attention_heads
width = {"q_proj": config.hidden_size, "v_proj": head * config.num_key_value_heads}
weights = {}
for layer in range(config.num_hidden_layers):
    for module, out in width.items():
        name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
        weights[f"{name}.lora_A.weight"] = torch.randn(8, config.hidden_size) / 2
        weights[f"{name}.lora_B.weight"] = torch.randn(out, 8) / 2
adapter.mkdir(parents=True)
save_file(weights, adapter / "adapter_model.safetensors")
(adapter / "adapter_config.json").write_text(json.dumps({
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
    "r": 8, "lora_alpha": 16, "bias": "none", "target_modules": list(width),
}))
"""


class Pools:
    """The pools of one cluster, every endpoint served."""

    def __init__(self, candidates: dict[str, Candidate]) -> None:
        self.candidates = candidates

    def url(self, endpoint: str) -> str:
        return self.candidates[endpoint].url

    def client(self, endpoint: str) -> OpenAI:
        return OpenAI(base_url=f"{self.url(endpoint)}/v1", api_key="none", max_retries=0)

    async def deploy(self) -> None:
        async with aiohttp.ClientSession() as session:
            cluster = next(iter(self.candidates.values())).cluster
            pools = RayPools(cluster, session)
            await pools.deploy(
                [llm_application(c, REPLICAS[name]) for name, c in self.candidates.items()]
            )
            deadline_s = time.monotonic() + 480
            while True:
                seen = (await pools.observe(list(self.candidates.values()))).replicas
                if all(name in seen and seen[name].ready == n for name, n in REPLICAS.items()):
                    break
                assert time.monotonic() < deadline_s, seen
                await asyncio.sleep(1)
            for candidate in self.candidates.values():
                for _ in range(60):
                    # Serve's front learns a little later that a replica is ready.
                    try:
                        await warm_up(session, candidate)
                        break
                    except PoolError as error:
                        last = error
                        await asyncio.sleep(1)
                else:
                    raise last


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pools]:
    before = set(psutil.pids())
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRATOR_STATE", str(state))
        loaded = load(Path(__file__).parent / "clusters" / "pools")
        env = environment(state)
        patch.setenv("RAY_AUTH_TOKEN", env["RAY_AUTH_TOKEN"])
        base, adapter = str(state / "models" / "tiny"), str(state / "adapters" / "letters")
        make = [sys.executable, "-m", tiny_model.__name__, base]
        subprocess.run(make, env=env, check=True, capture_output=True)
        make = [sys.executable, "-c", MAKE_ADAPTER, base, adapter]
        subprocess.run(make, env=env, check=True, capture_output=True)
        try:
            # It pins the thread that it runs in.
            starter = Thread(
                target=ray_head.start, args=(loaded.configuration.clusters[0], state, env)
            )
            starter.start()
            starter.join()
            pools = Pools(Catalogue(loaded.configuration, loaded.version).candidates)
            asyncio.run(pools.deploy())
            yield pools
        finally:
            processes.stop_all(state)
    assert not left_behind(before)


def greedy(pools: Pools, endpoint: str, model: str) -> str:
    answer = pools.client(endpoint).completions.create(
        model=model, prompt="def main(", max_tokens=16, temperature=0
    )
    assert answer.model == model
    return answer.choices[0].text


def test_an_adapter_answers_in_its_name_and_otherwise_than_its_base(pools: Pools) -> None:
    assert greedy(pools, "cpu/letters-lora", "letters") != greedy(
        pools, "cpu/tiny-1.0-bf16", "tiny-1.0"
    )


def test_an_adapter_is_loaded_where_its_variant_runs_and_nowhere_else(pools: Pools) -> None:
    for endpoint, model in (("cpu/tiny-1.0-bf16", "letters"), ("cpu/letters-lora", "tiny-1.0")):
        with pytest.raises(NotFoundError):
            greedy(pools, endpoint, model)


def test_embeddings_are_served_and_texts_ranked_by_them(pools: Pools) -> None:
    client = pools.client("cpu/search-embed")
    same, again, other = (
        e.embedding
        for e in client.embeddings.create(
            model="search", input=["def main(", "def main(", "class Thread:"]
        ).data
    )
    assert same == pytest.approx(again, abs=1e-4)
    assert same != pytest.approx(other, abs=1e-2)
    ranked = httpx.post(
        f"{pools.url('cpu/search-embed')}/v1/rerank",
        json={"model": "search", "query": "def main(", "documents": ["class Thread:", "def main("]},
        timeout=60,
    ).json()
    assert [result["index"] for result in ranked["results"]] == [1, 0]


def test_what_embeds_does_not_chat(pools: Pools) -> None:
    with pytest.raises(NotFoundError):
        greedy(pools, "cpu/search-embed", "search")


def test_conversations_stay_with_the_replica_that_has_read_them(pools: Pools) -> None:
    """Seven of them, in turns: an odd number, so that taking replicas in turns would not do."""
    words = [w for w in Path(tiny_model.__file__).read_text().split() if w.isalpha()]
    speakers = [random.Random(n) for n in range(7)]
    conversations: list[list[dict[str, str]]] = [
        [{"role": "user", "content": " ".join(who.choices(words, k=300))}] for who in speakers
    ]
    cached: list[float] = []
    for turn in range(4):
        for conversation, who in zip(conversations, speakers, strict=True):
            usage = chat(pools, conversation)
            if turn:
                details = usage["prompt_tokens_details"]
                cached.append(details["cached_tokens"] / usage["prompt_tokens"])
            conversation += [
                {"role": "assistant", "content": " ".join(who.choices(words, k=20))},
                {"role": "user", "content": " ".join(who.choices(words, k=20))},
            ]
    assert sum(share > 0.5 for share in cached) >= 0.9 * len(cached), cached
    served = requests_by_replica(pools)
    assert len(served) == 2
    assert min(served.values()) >= 4, served


def chat(pools: Pools, messages: list[dict[str, str]]) -> dict[str, Any]:
    body = json.dumps({"messages": messages, "model": "tiny-1.0", "max_tokens": 1}).encode()
    response = httpx.post(
        f"{pools.url('cpu/tiny-1.0-bf16')}/v1/chat/completions",
        content=body,
        headers={"content-type": "application/json", HEADER: encode(body)},
        timeout=60,
    )
    assert response.status_code == 200, response.text
    usage: dict[str, Any] = response.json()["usage"]
    return usage


def requests_by_replica(pools: Pools) -> dict[int, float]:
    """Answered by each replica of the endpoint, by its port: the front would ask one of them."""
    candidate = pools.candidates["cpu/tiny-1.0-bf16"]
    assert candidate.cluster.launch is not None
    first = candidate.cluster.launch.port_base + 60
    served = {}
    for port in range(first, first + len(REPLICAS) * 2 + 5):
        try:
            url = f"http://127.0.0.1:{port}{candidate.route_prefix}/metrics"
            text = httpx.get(url, timeout=60).text
        except httpx.ConnectError:
            continue
        counts = re.findall(r'^vllm:request_success_total\{.*"tiny-1.0"\} (\S+)', text, re.M)
        if counts:
            served[port] = sum(map(float, counts))
    return served


def test_a_busy_replica_is_spared(pools: Pools) -> None:
    """All prompts begin alike, so that one replica has them cached; yet both decode."""
    endpoint = "cpu/tiny-1.0-bf16"
    text = " ".join(Path(os.__file__).read_text().split()[:400])
    before = requests_by_replica(pools)

    async def ask(session: aiohttp.ClientSession, number: int) -> int:
        body = json.dumps(
            {
                "prompt": f"{text} {number}",
                "model": "tiny-1.0",
                "max_tokens": 200,
                "ignore_eos": True,
            }
        ).encode()
        headers = {"content-type": "application/json", HEADER: encode(body)}
        url = f"{pools.url(endpoint)}/v1/completions"
        async with session.post(url, data=body, headers=headers) as response:
            await response.read()
            return response.status

    async def all_at_once() -> list[int]:
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(ask(session, n) for n in range(24)))

    assert set(asyncio.run(all_at_once())) == {200}
    after = requests_by_replica(pools)
    took = {replica: after[replica] - before.get(replica, 0) for replica in after}
    assert sum(took.values()) == 24
    assert min(took.values()) >= 6, took
