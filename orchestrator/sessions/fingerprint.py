"""Keyed fingerprints of text and of conversations, by their letters and digits alone."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from orchestrator.sessions.turns import SYSTEM, Turn
from orchestrator.sessions.winnowing import NONE, Fingerprints, Winnower, joined

WHOLE = 32
"""Characters from which on a whole message is recognized, however short a quote it would be."""


class Said(NamedTuple):
    """A turn as it is compared: quote marks, line breaks and capitals do not matter."""

    role: str
    text: bytes
    aside: bytes


def said_in(turns: Sequence[Turn]) -> list[Said]:
    texts = _plain([text for turn in turns for text in (turn.text, turn.aside)])
    return [
        Said(turn.role, text, aside)
        for turn, text, aside in zip(turns, texts[::2], texts[1::2], strict=True)
    ]


class Hasher:
    """Fingerprints under a secret key: who has them cannot try texts against them."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32).digest()
        seed = np.frombuffer(self._digest(b"polynomial", b"", 16), np.uint64)
        base, mixer = (int(n) | 1 for n in seed)
        self._winnower = Winnower(base, mixer)

    def name(self, *parts: str) -> Fingerprints:
        """Of a name, such as a session's id."""
        name = "\0".join(parts).encode("utf-8", "surrogatepass")
        return np.frombuffer(self._digest(b"name", name), np.uint64)

    def history(self, said: Sequence[Said]) -> Fingerprints:
        """One for the conversation up to each of its answers: whoever sends that again goes on
        with it."""
        if not said:
            return NONE
        chain = hashlib.blake2b(key=self._key, digest_size=8, person=b"history")
        found = []
        for role, text, _ in said:
            if role not in SYSTEM:
                chain.update(f"{role}\0{len(text)}\0".encode("utf-8", "surrogatepass") + text)
            if role == "assistant":
                found.append(chain.digest())
        return np.frombuffer(b"".join(found), np.uint64)

    def texts(self, *groups: Iterable[Said]) -> list[Fingerprints]:
        """For each group, of all that was said in it: whole messages, and what finds a quote of a
        part of one."""
        texts = [[t for said in group for t in said[1:] if len(t) >= WHOLE] for group in groups]
        return [
            joined([self._whole(group), quotes]) if group else NONE
            for group, quotes in zip(texts, self._winnower.quotes(texts), strict=True)
        ]

    def _whole(self, texts: Iterable[bytes]) -> Fingerprints:
        return np.frombuffer(b"".join([self._digest(b"whole", t) for t in texts]), np.uint64)

    def _digest(self, kind: bytes, data: bytes, size: int = 8) -> bytes:
        return hashlib.blake2b(data, key=self._key, digest_size=size, person=kind).digest()


def _plain(texts: Sequence[str]) -> list[bytes]:
    """Letters and digits alone, in lower case."""
    if not texts:
        return []
    parts = _kept("\0".join(texts)).split(b"\0")
    if len(parts) > len(texts):
        return _plain([text.replace("\0", "") for text in texts])
    return parts


def _kept(text: str) -> bytes:
    """The same of all texts at once, and the NUL between them."""
    is_ascii = text.isascii()
    folded = text if is_ascii else text.casefold()
    kept = folded.encode("utf-8", "surrogatepass").translate(_SMALL, _IGNORED)
    if is_ascii:
        return kept
    others = kept.decode("utf-8", "surrogatepass")
    return _NOT_ALPHANUMERIC.sub("", others).encode("utf-8", "surrogatepass")


_SMALL = bytes(range(256)).lower()
_IGNORED = bytes(b for b in range(1, 128) if not chr(b).isalnum())
_NOT_ALPHANUMERIC = re.compile(r"[^\w\0]+")
