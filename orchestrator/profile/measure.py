"""What is asked of an engine to learn its speeds: prompts alone, then more and more streams."""

import asyncio
from collections.abc import Callable

from orchestrator.profile.endpoint import Endpoint
from orchestrator.profile.fit import (
    MIN_TOKENS,
    Batch,
    Prefill,
    Profile,
    ProfileError,
    Read,
    Timeline,
    batch_of,
    prefill_of,
)
from orchestrator.replay.prompts import Prompts

LONGEST_PROMPT_TOKENS = 8192
LENGTHS = 6
"""Of prompts, each twice the one before."""
ROUNDS = 5
"""At most, over all lengths."""
STREAM_PROMPT_TOKENS = 256
SPARE_TOKENS = 64
"""Of a context, left free: prompts are a little longer or shorter than meant."""
READING_SHARE = 0.3
"""Of the time, for prompts alone, where all rounds would take longer."""
WINDOW_S = 5.0
"""At most, that streams are watched while all run."""
WATCHED_SHARE = 0.8
"""Of the time that is left then, for streams."""
MARGIN = 2
"""How much longer streams could go on than they are watched."""


def concurrencies(max_num_seqs: int) -> list[int]:
    """From one to all, doubling."""
    doubling = [2**n for n in range(max_num_seqs.bit_length()) if 2**n < max_num_seqs]
    return [*doubling, max_num_seqs]


def steps(max_num_seqs: int) -> int:
    """How often `measure` tells of its progress at most."""
    return LENGTHS * ROUNDS + len(concurrencies(max_num_seqs))


class Measurement:
    def __init__(
        self,
        endpoint: Endpoint,
        max_num_seqs: int,
        limit_s: float,
        seed: int,
        on_progress: Callable[[float], None] = lambda steps: None,
        prompt_tokens: int = STREAM_PROMPT_TOKENS,
    ) -> None:
        """`endpoint`: that was looked at. `seed`: of the prompts: another one each time, or the
        engine has read them before. `prompt_tokens`: that streams begin with: the longer a context,
        the longer each of its tokens takes."""
        self._endpoint = endpoint
        self._max_num_seqs = max_num_seqs
        self._limit_s = limit_s
        self._on_progress = on_progress
        self._prompt_tokens = prompt_tokens
        self._prompts = Prompts(seed)
        self._words_per_token = 1.0

    async def run(self) -> Profile:
        """Raises ProfileError, also where the time does not suffice."""
        about = self._endpoint.about
        busy = about.metrics and about.metrics.running + about.metrics.waiting
        if busy:
            raise ProfileError(f"the engine works on {busy} requests; profile it at rest")
        try:
            async with asyncio.timeout(self._limit_s):
                began_s = _now_s()
                await self._calibrate()
                reads = await self._reads(began_s + READING_SHARE * self._limit_s)
                left_s = self._limit_s - (_now_s() - began_s)
                batches = await self._batches(prefill_of(reads), left_s)
        except TimeoutError:
            raise ProfileError(
                f"not measured within {self._limit_s:g} s; give more --seconds"
            ) from None
        return Profile(reads, batches, about.kv_cache_tokens)

    async def _calibrate(self) -> None:
        """Learns how many words make a token, and warms the engine up."""
        short, long = [await self._endpoint.read(self._prompts.words(n), n) for n in (20, 60)]
        self._words_per_token = 40 / max(1, long.prompt_tokens - short.prompt_tokens)

    def _prompt(self, tokens: int) -> str:
        return self._prompts.words(max(1, round(tokens * self._words_per_token)))

    @property
    def _room_tokens(self) -> int:
        """Of a prompt and its answer."""
        return (self._endpoint.about.max_model_len or LONGEST_PROMPT_TOKENS) - SPARE_TOKENS

    async def _reads(self, until_s: float) -> list[Read]:
        """Whole rounds over all lengths, the first one whatever it takes."""
        longest = min(LONGEST_PROMPT_TOKENS, self._room_tokens)
        lengths = [longest >> n for n in reversed(range(LENGTHS)) if longest >> n]
        reads: list[Read] = []
        for number in range(ROUNDS):
            if number and _now_s() > until_s:
                self._on_progress(len(lengths) * (ROUNDS - number))
                break
            for length in lengths:
                reads.append(await self._endpoint.read(self._prompt(length), length))
                self._on_progress(1)
        return reads

    async def _batches(self, prefill: Prefill, left_s: float) -> list[Batch]:
        levels = concurrencies(self._max_num_seqs)
        prompt_tokens = min(self._prompt_tokens, self._room_tokens // 4)
        reading_s = {n: n * prefill.took_s(prompt_tokens) for n in levels}
        window_s = min(WINDOW_S, (WATCHED_SHARE * left_s - sum(reading_s.values())) / len(levels))
        if window_s <= 0:
            raise TimeoutError
        batches: list[Batch] = []
        for sequences in levels:
            tokens = self._room_tokens - prompt_tokens
            if self._endpoint.about.kv_cache_tokens is not None:
                tokens = min(
                    tokens, self._endpoint.about.kv_cache_tokens // sequences - prompt_tokens
                )
            if batches:
                going_on_s = MARGIN * (window_s + reading_s[sequences])
                tokens = min(tokens, round(going_on_s / batches[-1].itl_s))
            prompts = [self._prompt(prompt_tokens) for _ in range(sequences)]
            batches.append(
                batch_of(await self._together(prompts, max(tokens, MIN_TOKENS), window_s))
            )
            self._on_progress(1)
        return batches

    async def _together(self, prompts: list[str], tokens: int, window_s: float) -> list[Timeline]:
        """Streams from all prompts, watched for so long while all run; then they are given up."""
        timelines: list[Timeline] = [[] for _ in prompts]
        all_begun = asyncio.Event()

        def begun() -> None:
            if all(timelines):
                all_begun.set()

        streams = [
            asyncio.create_task(self._endpoint.generate(prompt, tokens, timeline, begun))
            for prompt, timeline in zip(prompts, timelines, strict=True)
        ]
        waiting = asyncio.create_task(all_begun.wait())
        try:
            await asyncio.wait([waiting, *streams], return_when=asyncio.FIRST_COMPLETED)
            if all_begun.is_set():
                await asyncio.wait(streams, timeout=window_s, return_when=asyncio.FIRST_COMPLETED)
            for stream in streams:
                if stream.done():
                    stream.result()
        finally:
            for task in (waiting, *streams):
                task.cancel()
            await asyncio.gather(waiting, *streams, return_exceptions=True)
        if not all_begun.is_set():
            raise ProfileError(
                f"of {len(prompts)} streams {sum(map(bool, timelines))} had begun when the first "
                "one ended: the engine does not take so many at once; give the --max-num-seqs that "
                "it was started with"
            )
        return timelines


def _now_s() -> float:
    return asyncio.get_running_loop().time()
