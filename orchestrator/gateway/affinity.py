"""Which endpoint has lately read the beginning of a prompt, and may have it in its KV cache."""

from collections import OrderedDict

PREFIX_BYTES = 2048
CAPACITY = 20_000
CACHED_SHARE = 0.5
"""Of the prompt, assumed: nobody knows what has been evicted since, or which replica has it."""


class Affinity:
    def __init__(self) -> None:
        self._endpoints: OrderedDict[int, str] = OrderedDict()

    def of(self, body: bytes) -> dict[str, float]:
        """By endpoint, the share of the prompt that is thought to be cached there."""
        endpoint = self._endpoints.get(hash(body[:PREFIX_BYTES]))
        return {endpoint: CACHED_SHARE} if endpoint and len(body) > PREFIX_BYTES else {}

    def served(self, body: bytes, endpoint: str) -> None:
        if len(body) <= PREFIX_BYTES:
            return
        prefix = hash(body[:PREFIX_BYTES])
        self._endpoints[prefix] = endpoint
        self._endpoints.move_to_end(prefix)
        if len(self._endpoints) > CAPACITY:
            self._endpoints.popitem(last=False)
