"""Prompts of a wanted length, for any tokenizer."""

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openai

WORDS = (  # noqa: SIM905
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work number night "
    "point home water room mother area money story fact month lot right study book eye job word "
    "business issue side kind head house service friend father power hour game line end member law"
).split()


class Prompts:
    """Random words by seed, so that no two prompts share a cached prefix."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._words_per_token = 1.0

    async def calibrate(self, client: "openai.AsyncOpenAI", model: str, request_id: str) -> None:
        """Learns how many words make a token, by the engine's own count of two prompts.

        Raises openai.APIError.
        """
        counts = []
        for words in (20, 220):
            done = await client.completions.create(
                model=model,
                prompt=self.words(words),
                max_tokens=1,
                extra_headers={"x-request-id": f"{request_id}-{words}"},
            )
            counts.append(done.usage.prompt_tokens if done.usage else words)
        self._words_per_token = 200 / max(1, counts[1] - counts[0])

    def of(self, tokens: int) -> str:
        """About so many tokens, at least a word."""
        return self.words(max(1, round(tokens * self._words_per_token)))

    def words(self, count: int) -> str:
        return " ".join(self._random.choices(WORDS, k=count))
