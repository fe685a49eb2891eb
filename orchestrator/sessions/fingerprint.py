"""Keyed fingerprints of text and of conversations.

Quotes are found by winnowing (Schleimer, Wilkerson, Aiken: Local algorithms for document
fingerprinting, SIGMOD 2003): of the hashes of all runs of `RUN` characters, the smallest of each
`WINDOW` consecutive ones is kept. Two texts that share `RUN + WINDOW - 1` characters in a row, by
their letters and digits, share a fingerprint for certain.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.sessions.turns import SYSTEM, Turn

Fingerprints = npt.NDArray[np.uint64]

RUN, WINDOW = 48, 49
QUOTE = RUN + WINDOW - 1
"""Characters that a quote must have to be recognized for certain."""
WHOLE = 32
"""Characters from which on a whole message is recognized, however short a quote it would be."""
MAX_STRETCH = 1 << 16
"""Characters that are looked at at once; stretches overlap by a quote."""

NONE: Fingerprints = np.empty(0, np.uint64)


class Hasher:
    """Fingerprints under a secret key: who has them cannot try texts against them."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32).digest()
        seed = np.frombuffer(self._digest(b"polynomial", 16), np.uint64)
        base, self._mixer = (int(n) | 1 for n in seed)
        self._powers = _powers(base)
        self._inverse_powers = _powers(pow(base, -1, 1 << 64))

    def name(self, *parts: str) -> Fingerprints:
        """Of a name, such as a session's id."""
        return self._one(b"name", "\0".join(parts).encode("utf-8", "surrogatepass"))

    def history(self, turns: Sequence[Turn]) -> Fingerprints:
        """One for the conversation up to each of its answers: whoever sends that again goes on
        with it."""
        if not any(turn.role == "assistant" for turn in turns):
            return NONE
        chain = hashlib.blake2b(key=self._key, digest_size=8, person=b"history")
        found = []
        for turn in turns:
            if turn.role in SYSTEM:
                continue
            text = _plain(turn.text)
            chain.update(f"{turn.role}\0{len(text)}\0".encode("utf-8", "surrogatepass") + text)
            if turn.role == "assistant":
                found.append(int.from_bytes(chain.digest(), "little"))
        return np.array(found, np.uint64)

    def texts(self, turns: Iterable[Turn]) -> Fingerprints:
        """Of all that was said: whole messages, and what finds a quote of a part of one."""
        found: list[Fingerprints] = []
        for turn in turns:
            for text in (_plain(turn.text), _plain(turn.aside)):
                if len(text) >= WHOLE:
                    found.append(self._one(b"whole", text))
                if len(text) >= QUOTE:
                    for start in range(0, len(text), MAX_STRETCH - QUOTE):
                        found.append(self._quotes(text[start : start + MAX_STRETCH]))
        return joined(found)

    def _quotes(self, text: bytes) -> Fingerprints:
        if len(text) < QUOTE:
            return NONE
        letters = np.frombuffer(text, np.uint8).astype(np.uint64)
        letters *= self._powers[: len(letters)]
        sums = np.empty(len(letters) + 1, np.uint64)
        sums[0] = 0
        np.cumsum(letters, out=sums[1:])
        runs = sums[RUN:] - sums[:-RUN]
        # The run at i carries a factor base**i.
        runs *= self._inverse_powers[: len(runs)]
        runs ^= runs >> np.uint64(29)
        runs *= np.uint64(self._mixer)
        runs ^= runs >> np.uint64(32)
        return _smallest_of_windows(runs)

    def _one(self, kind: bytes, data: bytes) -> Fingerprints:
        return np.frombuffer(self._digest(kind, 8, data), np.uint64)

    def _digest(self, kind: bytes, size: int, data: bytes = b"") -> bytes:
        return hashlib.blake2b(data, key=self._key, digest_size=size, person=kind).digest()


def joined(found: Sequence[Fingerprints]) -> Fingerprints:
    """All of them, some perhaps twice."""
    filled = [part for part in found if len(part)]
    if len(filled) > 1:
        return np.concatenate(filled)
    return filled[0] if filled else NONE


def _powers(base: int) -> Fingerprints:
    """Modulo 2**64, for a stretch of text."""
    powers = np.full(MAX_STRETCH, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _plain(text: str) -> bytes:
    """Letters and digits alone, in lower case: quote marks and line breaks do not matter."""
    if text.isascii():
        return text.lower().encode().translate(None, _NOT_ALPHANUMERIC)
    kept = "".join(character for character in text.casefold() if character.isalnum())
    return kept.encode("utf-8", "surrogatepass")


_NOT_ALPHANUMERIC = bytes(b for b in range(128) if not chr(b).isalnum())


def _smallest_of_windows(values: Fingerprints) -> Fingerprints:
    """The minimum of each `WINDOW` values in a row, by van Herk's algorithm: prefix minima from
    the left and from the right within blocks of one window."""
    blocks = -(-len(values) // WINDOW)
    padded = np.full(blocks * WINDOW, np.iinfo(np.uint64).max, np.uint64)
    padded[: len(values)] = values
    grid = padded.reshape(blocks, WINDOW)
    left = np.minimum.accumulate(grid, 1).ravel()
    right = np.minimum.accumulate(grid[:, ::-1], 1)[:, ::-1].ravel()
    windows = len(values) - WINDOW + 1
    smallest = np.minimum(right[:windows], left[WINDOW - 1 : WINDOW - 1 + windows])
    changes = np.empty(windows, bool)
    changes[0] = True
    np.not_equal(smallest[1:], smallest[:-1], out=changes[1:])
    kept: Fingerprints = smallest[changes]
    return kept
