"""Places that this gateway's requests have at endpoints, from the grant on, by endpoint."""

from collections import defaultdict

import numpy as np

from orchestrator.policy.arrays import Ints
from orchestrator.policy.catalogue import Catalogue


class Inflight:
    def __init__(self) -> None:
        self.by_endpoint: dict[str, int] = defaultdict(int)
        self.counts: Ints = np.zeros(0, np.int64)
        """The same by the numbers of the catalogue that is followed, for decisions."""
        self._numbers: dict[str, int] = {}

    def follow(self, catalogue: Catalogue) -> None:
        self._numbers = {e: c.number for e, c in catalogue.candidates.items()}
        self.counts = catalogue.counts(self.by_endpoint)

    def add(self, endpoint: str, count: int) -> None:
        """Also of an endpoint that the catalogue has no more: its requests still end."""
        self.by_endpoint[endpoint] += count
        if endpoint in self._numbers:
            self.counts[self._numbers[endpoint]] += count
