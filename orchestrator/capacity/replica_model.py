"""What replicas of one endpoint can carry within an objective, by the variant's `performance`.

An engine step decodes one token of each running sequence, and takes

    step(b) = itl + more x (b - 1)

for a batch of b; a prompt of p tokens takes p x read on top, in chunks beside decodes. With o
tokens of output, each request takes w(b) = p x read + o x step(b) / b of a replica that is kept
busy at that batch, and its tokens come every w(b) x b / o seconds. That has to be within the
objective, which limits b.

Requests wait for prompts to be read (a server is a replica) and for slots (a server is one of b
sequences). Whether all are taken is by Sakasegawa's approximation of M/G/c queues (Annals of the
Institute of Statistical Mathematics 29, 1977); for how long, by a Brownian motion that is reflected
at an empty queue (Harrison, Brownian Motion and Stochastic Flow Systems, 1985, chapter 1), after a
rate has lasted for a while: a short peak above what replicas can do ends before all are late.
"""

from dataclasses import dataclass
from functools import cached_property
from math import erfc, exp, pi, sqrt

from orchestrator.config.spec import Slo
from orchestrator.policy.candidate import Candidate

CHUNK_TOKENS = 2048.0
"""Of prompts in one step, vLLM's `max_num_batched_tokens`."""
ITL_MARGIN = 0.9
"""Of the objective: what the mean may take of it, as single requests lie around it."""
ANSWER_VARIATION = 1.0
"""Squared coefficient of variation of the time that requests hold a slot."""


LASTS_S = 30.0
"""For how long a rate has lasted when its requests wait, in the mean."""
LEAST_REPLICAS = 1e-6
"""Less of one serves nobody."""
LARGEST_EXPONENT = 600.0


@dataclass(frozen=True, slots=True)
class Typical:
    """The requests of a workload."""

    prompt_tokens: float
    """Mean; so is the next."""
    output_tokens: float
    variation: float = 1.0
    """As of a Forecast; so is the next."""
    prompt_variation: float = 2.0


class ReplicaModel:
    """A candidate whose performance is known, for typical requests and an objective."""

    def __init__(self, candidate: Candidate, typical: Typical, slo: Slo) -> None:
        performance, sequences = candidate.performance, candidate.variant.max_num_seqs
        assert performance is not None
        self._typical, self._sequences = typical, sequences
        self._read_s = 1 / performance.prefill_tokens_per_s
        self._itl_s = performance.itl_s
        full_s = sequences / performance.decode_tokens_per_s
        self._more_s = max(full_s - self._itl_s, 0.0) / max(sequences - 1, 1)
        self._kv_tokens = performance.kv_cache_tokens
        self._itl_slo_s = slo.itl_p95_s
        beside_s = max(self._step_s(1), performance.overhead_s)
        own_s = typical.prompt_tokens * self._read_s + beside_s
        self._spare_s = max(slo.ttft_p95_s - own_s, 0.0)

    def _step_s(self, batch: float) -> float:
        return self._itl_s + self._more_s * (batch - 1)

    @cached_property
    def batch(self) -> float:
        """The largest that keeps within the objective and the cache: at least 1."""
        prompt, output = self._typical.prompt_tokens, max(self._typical.output_tokens, 1.0)
        most = float(self._sequences)
        if self._kv_tokens is not None:
            most = min(most, self._kv_tokens / (prompt + output / 2))
        if self._itl_slo_s is not None:
            each_s = self._more_s + prompt * self._read_s / output
            room_s = ITL_MARGIN * self._itl_slo_s - self._itl_s + self._more_s
            if each_s > 0:
                most = min(most, room_s / each_s)
        return max(most, 1.0)

    @cached_property
    def work_s(self) -> float:
        """Of a busy replica, for a request."""
        prompt, output = self._typical.prompt_tokens, self._typical.output_tokens
        return max(prompt * self._read_s + output * self._step_s(self.batch) / self.batch, 1e-6)

    @cached_property
    def _reading_s(self) -> float:
        """From a prompt's turn to its first token."""
        return self._typical.prompt_tokens * (
            self._read_s + self._step_s(self.batch) / CHUNK_TOKENS
        )

    @cached_property
    def _slot_s(self) -> float:
        return self.work_s * self.batch

    def late_share(self, rps: float, replicas: float) -> float:
        """Of requests, those that wait for longer than the objective leaves. A part of a replica
        is what others leave of it."""
        if rps <= 0:
            return 0.0
        if replicas < LEAST_REPLICAS:
            return 1.0
        late = 0.0
        for servers, service_s, variation in (
            (replicas, self._reading_s, self._typical.prompt_variation),
            (
                replicas * self.batch,
                self._slot_s,
                self._typical.variation + ANSWER_VARIATION,
            ),
        ):
            busy = rps * service_s / servers
            if busy > 0:
                all_taken = min(busy, 1.0) ** (sqrt(2 * (servers + 1)) - 1)
                spread = variation * service_s / servers
                late += all_taken * _beyond(self._spare_s, busy - 1, spread)
        return min(late, 1.0)

    def most_rps(self, replicas: float, late_share: float) -> float:
        """That so many replicas carry with no more of them late."""
        if replicas < LEAST_REPLICAS:
            return 0.0
        low, high = 0.0, 1.5 * replicas / self.work_s
        for _ in range(12):
            middle = (low + high) / 2
            if self.late_share(middle, replicas) <= late_share:
                low = middle
            else:
                high = middle
        return low


def _beyond(spare_s: float, drift: float, spread: float) -> float:
    """The chance that a queue which was empty `LASTS_S` ago takes longer than `spare_s`. `drift`:
    by how much it grows in a second; `spread`: the variance of that."""
    deviation = sqrt(spread * LASTS_S)
    grown, below = (drift * LASTS_S - spare_s) / deviation, (drift * LASTS_S + spare_s) / deviation
    exponent = 2 * drift * spare_s / spread
    if exponent < LARGEST_EXPONENT:
        reflected = exp(exponent) * _normal(-below)
    else:
        # The same, by the first terms of the tail, where the factors are out of a float's range.
        reflected = exp(-grown * grown / 2) / (sqrt(2 * pi) * (below + 1 / below))
    return _normal(grown) + reflected


def _normal(x: float) -> float:
    """The share of a normal distribution below x deviations."""
    return erfc(-x / sqrt(2)) / 2
