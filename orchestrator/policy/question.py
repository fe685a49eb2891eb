"""One request seen against one view: what constraints and scores look at."""

import numpy as np

from orchestrator.policy.arrays import Floats
from orchestrator.policy.facts import Facts
from orchestrator.policy.selection import Selection
from orchestrator.policy.view import View


class Question:
    """Arrays have one element for each candidate of the selection."""

    __slots__ = (
        "facts",
        "load",
        "reading_s",
        "ready",
        "room",
        "selection",
        "slots",
        "taken",
        "turn_s",
        "usd_per_gpu_hour",
        "usd_per_million_tokens",
        "view",
    )

    def __init__(self, facts: Facts, selection: Selection, view: View) -> None:
        self.facts = facts
        self.selection = selection
        self.view = view
        self.ready: Floats
        """Replicas."""
        self.slots: Floats
        """Sequences that the ready replicas decode at once, 1 where there is none."""
        self.room: Floats
        """The load up to which this gateway may send more."""
        self.load: Floats
        """Requests at each endpoint with this one; this gateway's count is live, the others' is a
        tick old."""
        self.turn_s: Floats
        """Between two slots that become free when all are taken."""
        self.reading_s: Floats
        """Of the prompts before one's own, for each request at the endpoint."""
        self.usd_per_gpu_hour: Floats
        """Not a number without a quote; 0 for what is not paid by the hour."""
        self.usd_per_million_tokens: Floats
        """Not a number where it is not known."""
        (
            self.ready,
            self.slots,
            self.room,
            others,
            self.turn_s,
            self.reading_s,
            self.usd_per_gpu_hour,
            self.usd_per_million_tokens,
        ) = view.rows(selection)
        self.load = others
        if facts.inflight is not None:
            self.load = others + facts.inflight.take(selection.numbers)
        self.taken: Floats = np.minimum(self.load, self.slots)
        self.taken /= self.slots
        """The share of its slots that will be taken."""
