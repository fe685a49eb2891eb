"""How much a model's home replicas can do, measured: a closed loop that keeps them full."""

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle

import openai

from orchestrator.replay.prompts import Prompts
from orchestrator.traces.arrivals import Arrival


async def output_tokens_per_s(
    base_url: str,
    api_key: str,
    model: str,
    arrivals: Sequence[Arrival],
    concurrency: int,
    duration_s: float,
) -> float:
    """With requests as long as the trace's, whatever their times. Raises openai.APIError."""
    prompts = Prompts(seed=1)
    lengths = cycle(arrivals)
    tokens = 0

    async def loop(client: openai.AsyncOpenAI) -> None:
        nonlocal tokens
        while True:
            arrival = next(lengths)
            stream = await client.completions.create(
                model=model,
                prompt=prompts.of(arrival.prompt_tokens),
                max_tokens=max(1, arrival.output_tokens),
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async for _ in stream:
                tokens += 1  # vLLM sends a chunk for each

    async with openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        await prompts.calibrate(client, model, "saturation")
        loops = [asyncio.create_task(loop(client)) for _ in range(concurrency)]
        started_s = time.monotonic()
        await asyncio.wait(loops, timeout=duration_s, return_when=asyncio.FIRST_EXCEPTION)
        elapsed_s = time.monotonic() - started_s
        for task in loops:
            task.cancel()
        for outcome in await asyncio.gather(*loops, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
    return tokens / elapsed_s
