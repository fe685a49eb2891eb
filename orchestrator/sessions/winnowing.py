"""What finds a quote of a part of a text.

By winnowing (Schleimer, Wilkerson, Aiken: Local algorithms for document fingerprinting, SIGMOD
2003): of the hashes of all runs of `RUN` characters, the smallest of each `WINDOW` consecutive ones
is kept. Two texts that share `RUN + WINDOW - 1` characters in a row share a fingerprint for
certain.
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import numpy as np
import numpy.typing as npt

Fingerprints = npt.NDArray[np.uint64]

RUN, WINDOW = 48, 49
QUOTE = RUN + WINDOW - 1
"""Characters that a quote must have to be recognized for certain."""
STRETCH = 1 << 15
"""Windows that are looked at at once: what that takes stays near the processor."""

NONE: Fingerprints = np.empty(0, np.uint64)
_29, _32 = np.array(29, np.uint64), np.array(32, np.uint64)


class Winnower:
    """Under a secret key: two odd numbers."""

    def __init__(self, base: int, mixer: int) -> None:
        self._powers = _powers(base)
        self._inverse_powers = _powers(pow(base, -1, 1 << 64))
        self._mixer = np.array(mixer, np.uint64)

    def quotes(self, groups: Sequence[Sequence[bytes]]) -> list[Fingerprints]:
        """The fingerprints of each group of texts.

        All texts are looked at in one go, for one more costs next to nothing then.
        """
        groups = [[text for text in group if len(text) >= QUOTE] for group in groups]
        texts = list(chain.from_iterable(groups))
        if not texts:
            return [NONE] * len(groups)
        *cuts, end = accumulate(map(len, texts))
        # The hash of a run is a difference from what comes before it.
        letters = np.frombuffer(b"".join([b"\0", *texts]), np.uint8)
        places, found = [], []
        for start in range(0, end - QUOTE + 1, STRETCH):
            smallest = self._smallest(letters[start : start + STRETCH + QUOTE])
            is_new = np.empty(len(smallest), bool)
            is_new[0] = True
            np.not_equal(smallest[1:], smallest[:-1], is_new[1:])
            first, last = bisect_right(cuts, start), bisect_left(cuts, start + STRETCH + QUOTE)
            for cut in cuts[first:last]:
                # No window reaches from a text into the next one, which begins anew.
                is_new[max(0, cut - start - QUOTE + 1) : cut - start] = False
                is_new[cut - start : cut - start + 1] = True
            (place,) = is_new.nonzero()
            found.append(smallest.take(place))
            places.append(place + start)
        kept = joined(found)
        sizes = [sum(map(len, group)) for group in groups]
        if end in sizes:
            return [kept if size else NONE for size in sizes]
        where = np.concatenate(places)
        ends = [bisect_left(where, size) for size in accumulate(sizes)]
        return [kept[a:b] for a, b in pairwise([0, *ends])]

    def _smallest(self, letters: npt.NDArray[np.uint8]) -> Fingerprints:
        """The smallest hash in each window, after one letter that is in none: valid until the
        next call."""
        count = len(letters)
        sums = _scratch.one[:count]
        sums[:] = letters
        sums *= self._powers[:count]
        np.add.accumulate(sums, out=sums)
        count -= RUN
        hashes, other = _scratch.other[:count], sums[:count]
        np.subtract(sums[RUN:], other, hashes)
        # The run at i carries a factor base**(i + 1).
        hashes *= self._inverse_powers[1 : count + 1]
        hashes ^= np.right_shift(hashes, _29, other)
        hashes *= self._mixer
        hashes ^= np.right_shift(hashes, _32, other)
        # Of windows twice as wide, from those at hand.
        for width in _STEPS:
            count -= width
            smallest = np.minimum(hashes[:count], hashes[width:], other[:count])
            hashes, other = smallest, hashes
        return hashes


_STEPS = (1, 2, 4, 8, 16, WINDOW - 32)


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.one = np.empty(STRETCH + QUOTE, np.uint64)
        self.other = np.empty_like(self.one)


_scratch = _Scratch()


def joined(found: Sequence[Fingerprints]) -> Fingerprints:
    """All of them, some perhaps twice."""
    filled = [part for part in found if len(part)]
    if len(filled) > 1:
        return np.concatenate(filled)
    return filled[0] if filled else NONE


def _powers(base: int) -> Fingerprints:
    """Modulo 2**64, for a stretch of text."""
    powers = np.full(STRETCH + QUOTE, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)
