"""Sending a trace open-loop: each request at its time, however many are still open."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import openai

from orchestrator.replay.prompts import Prompts
from orchestrator.traces.arrivals import Arrival

TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Caller:
    """A workload that takes part in the replay."""

    workload: str
    api_key: str
    weight: float
    """Its share of the requests, relative to the others'."""


@dataclass(slots=True)
class Outcome:
    """One request and what became of it. Times are seconds of the replay."""

    request_id: str
    workload: str
    arrival_s: float
    sent_s: float | None = None
    status: str = "open"
    """`ok`, `cut` (the stream broke off), `status_<n>` or `unreachable`."""
    code: str = ""
    """The error's code, for one that is not `ok`."""
    pool: str = ""
    zone: str = ""
    ttft_s: float | None = None
    """From the scheduled arrival, so that a late sender hides nothing."""
    end_s: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def first_token_s(self) -> float | None:
        return None if self.ttft_s is None else self.arrival_s + self.ttft_s


class Replay:
    """Runs once. `outcomes` and `now_s` may be read while it runs."""

    def __init__(
        self,
        base_url: str,
        model: str,
        callers: Sequence[Caller],
        arrivals: Sequence[Arrival],
        run_id: str,
        seed: int = 0,
    ) -> None:
        self._base_url, self._model, self._run_id = base_url, model, run_id
        self._arrivals = arrivals
        # What is asked by whom depends on the seed alone, not on the timing of the run.
        mix = random.Random(seed)
        self._callers = mix.choices(callers, [c.weight for c in callers], k=len(arrivals))
        self._prompts = Prompts(seed)
        self._started_s: float | None = None
        self.outcomes: list[Outcome] = []

    @property
    def now_s(self) -> float:
        return 0.0 if self._started_s is None else time.monotonic() - self._started_s

    @property
    def total(self) -> int:
        return len(self._arrivals)

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Sends everything and returns when everything has ended. Raises openai.APIError when
        the endpoint takes not even one request."""
        async with self._clients() as clients:
            first = self._callers[0]
            await self._prompts.calibrate(
                clients[first.workload], self._model, f"replay-{self._run_id}-calibration"
            )
            self._started_s = time.monotonic()
            started()
            async with asyncio.TaskGroup() as group:
                for number, arrival in enumerate(self._arrivals):
                    await asyncio.sleep(arrival.arrival_s - self.now_s)
                    caller = self._callers[number]
                    outcome = Outcome(
                        f"replay-{self._run_id}-{number}", caller.workload, arrival.arrival_s
                    )
                    self.outcomes.append(outcome)
                    prompt = self._prompts.of(arrival.prompt_tokens)
                    group.create_task(
                        self._send(clients[caller.workload], outcome, prompt, arrival)
                    )

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[Mapping[str, openai.AsyncOpenAI]]:
        keys = {c.workload: c.api_key for c in self._callers}
        made: dict[str, openai.AsyncOpenAI] = {}
        try:
            for workload, key in keys.items():
                made[workload] = openai.AsyncOpenAI(
                    base_url=self._base_url, api_key=key, max_retries=0, timeout=TIMEOUT_S
                )
            yield made
        finally:
            for client in made.values():
                await client.close()

    async def _send(
        self, client: openai.AsyncOpenAI, outcome: Outcome, prompt: str, arrival: Arrival
    ) -> None:
        outcome.sent_s = self.now_s
        try:
            await self._stream(client, outcome, prompt, max(1, arrival.output_tokens))
        except openai.APIStatusError as error:
            outcome.status, outcome.code = f"status_{error.status_code}", str(error.code or "")
        except openai.APIConnectionError:
            outcome.status = "cut" if outcome.ttft_s is not None else "unreachable"
        except openai.APIError as error:
            # An error event in the stream.
            outcome.status, outcome.code = "cut", str(error.code or "")
        finally:
            outcome.end_s = self.now_s

    async def _stream(
        self, client: openai.AsyncOpenAI, outcome: Outcome, prompt: str, output_tokens: int
    ) -> None:
        raw = await client.chat.completions.with_raw_response.create(
            model=self._model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=output_tokens,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"x-request-id": outcome.request_id},
            # As long as in the trace, whatever the model would say.
            extra_body={"ignore_eos": True},
        )
        outcome.pool = raw.headers.get("x-orchestrator-pool", "")
        outcome.zone = raw.headers.get("x-orchestrator-zone", "")
        finished = False
        async for chunk in raw.parse():
            if chunk.usage:
                outcome.prompt_tokens = chunk.usage.prompt_tokens
                outcome.output_tokens = chunk.usage.completion_tokens
            for choice in chunk.choices:
                finished = finished or choice.finish_reason is not None
                # A token may be half a character, which is sent with the next one.
                if outcome.ttft_s is None and choice.delta.content is not None:
                    if choice.delta.role and not choice.delta.content:
                        continue
                    outcome.ttft_s = self.now_s - outcome.arrival_s
        outcome.status = "ok" if finished else "cut"
