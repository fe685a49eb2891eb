"""Text inside of text: base64, hex, percent and JSON escapes, one level deep."""

import base64
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from orchestrator.classify.findings import Finding, FindingType
from orchestrator.classify.text import Level, Reading, Rule, Text, compiled, decoded

_PRINTABLE_SHARE = 0.9


def _as_text(data: bytes) -> str | None:
    """What an encoding hid, if that is text."""
    text = data.decode("utf-8", "replace")
    shown = sum(c.isprintable() or c in "\r\n\t" for c in text) - text.count("\ufffd")
    return text if len(text) >= 5 and shown >= _PRINTABLE_SHARE * len(text) else None


def _from_base64(run: bytes) -> str | None:
    run = run.translate(_STANDARD, b"\r\n")
    run = run[: len(run) - (len(run) % 4 == 1)]
    return _as_text(base64.b64decode(run + b"=" * (-len(run) % 4)))


def _from_hex(run: bytes) -> str | None:
    digits = re.sub(rb"0x|\\x|[^0-9A-Fa-f]", b"", run)
    return _as_text(bytes.fromhex(digits[: len(digits) // 2 * 2].decode()))


_STANDARD = bytes.maketrans(b"-_", b"+/")


class Base64:
    """Runs whose first letters decode to ASCII, which hardly any word or path does."""

    _QUAD = r"[I-Za-f][C-HS-Xi-nyz0-3][AEIMQUYcgkosw048BFJNRVZdhlptx159][0-9A-Za-z+/_\-]"
    _ANY = r"[0-9A-Za-z+/_\-]"
    trigger = rf"(?:(?:^|\x00){_ANY}{{0,3}}?|[^0-9A-Za-z])(?:{_QUAD}){{2}}"

    def __init__(self) -> None:
        self._run = compiled(
            rf"(?:(?:^|\x00){self._ANY}{{0,3}}?|[^0-9A-Za-z])((?:{self._QUAD}){{2}}{self._ANY}*"
            rf"(?:\r?\n{self._ANY}{{40,}})*(?:\r?\n{self._ANY}+)?)"
        )

    def look(self, text: Text) -> Iterator[Reading]:
        for start, end in text.matches(self._run):
            hidden = _from_base64(text.data[start:end])
            if hidden is not None:
                yield Reading.of(text, start, end, hidden, Level.ENCODED)


class Hex:
    """Runs that begin with seven bytes of ASCII."""

    _NEXT = r"(?:[ :,\-]|\\x|0x|, ?0x)?"
    trigger = rf"(?:[2-7][0-9A-Fa-f]{_NEXT}){{6}}[2-7][0-9A-Fa-f]"

    def __init__(self) -> None:
        self._run = compiled(rf"{self.trigger}(?:{self._NEXT}[0-9A-Fa-f]{{2}})*")

    def look(self, text: Text) -> Iterator[Reading]:
        for start, end in text.matches(self._run):
            hidden = _from_hex(text.data[start:end])
            if hidden is not None:
                yield Reading.of(text, start, end, hidden, Level.ENCODED)


class Percent:
    trigger = r"%[2-7][0-9A-Fa-f]"

    def __init__(self) -> None:
        part = r"[^\s\x00\"'<>%]"
        self._run = compiled(rf"%[2-7][0-9A-Fa-f](?:{part}{{0,32}}%[0-9A-Fa-f]{{2}})*")

    def look(self, text: Text) -> Iterator[Reading]:
        for start, end in text.matches(self._run):
            hidden = unquote_to_bytes(text.data[start:end].replace(b"+", b" "))
            yield Reading.of(text, start, end, hidden.decode("utf-8", "replace"), Level.ESCAPED)


class JsonEscapes:
    """`\\u0034`, as in the arguments of a tool call, which are JSON in a string."""

    trigger = r"\\u[0-9A-Fa-f]{4}"

    def __init__(self) -> None:
        self._run = compiled(r"\\u[0-9A-Fa-f]{4}(?:[^\x00\\]{0,32}\\u[0-9A-Fa-f]{4})*")
        self._escape = re.compile(r"\\u([0-9A-Fa-f]{4})")

    def look(self, text: Text) -> Iterator[Reading]:
        for start, end in text.matches(self._run):
            run = decoded(text.data[start:end])
            hidden = self._escape.sub(lambda m: chr(int(m[1], 16)), run)
            yield Reading.of(text, start, end, hidden, Level.ESCAPED)


class Blobs:
    """Long runs that hide something else than text: images, archives, ciphers."""

    _MIN, _SAMPLE = 512, 1024
    _MIN_DISTINCT = 16
    trigger = r"[0-9A-Za-z+/_\-]{64}"

    def __init__(self) -> None:
        self._run = compiled(r"[0-9A-Za-z+/_\-]{64}[0-9A-Za-z+/_\-\r\n]*")

    def look(self, text: Text) -> Iterator[Finding]:
        for start, end in text.matches(self._run):
            if end - start >= self._MIN and self._is_opaque(text.data[start:end]):
                yield Finding(FindingType.UNREADABLE, start, end)

    @staticmethod
    def is_pulled(text: Text) -> bool:
        """Whether the trigger matches: without an automaton, which would count in every word."""
        return _LONG in text.data.translate(_IN_CODE)

    def _is_opaque(self, run: bytes) -> bool:
        if len(set(run)) < self._MIN_DISTINCT:
            return False
        # Cut from a longer run, it may begin anywhere in the four letters for three bytes.
        samples = (run[phase : phase + self._SAMPLE] for phase in range(4))
        return not any(_from_base64(sample) or _from_hex(sample) for sample in samples)


_IN_CODE = bytes(
    chr(byte).isascii() and (chr(byte).isalnum() or byte in b"+/_-") for byte in range(256)
)
_LONG = b"\x01" * 64


EMBEDDED = Rule(
    FindingType.UNREADABLE,
    r"(?i:data:(?:image|audio|video|font|application)/[0-9a-z.+\-]{1,64}(?:;[0-9a-z=\-]{1,32}){0,4}"
    r",)",
    hint=r"(?i:data:[a-z]{4,11}/)",
)
"""An image or another file in the middle of a text."""
