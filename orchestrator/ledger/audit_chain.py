"""Lines that each hold the hash of the one before, so that none can be changed or taken unnoticed.

A line is one JSON object whose first member is the BLAKE2b-256 of every byte after it, the newline
included: `{"hash":"…","seq":7,"prev":"…","kind":"…",…}`. No parser is needed to check one:
`cut -c76- | b2sum -l 256` prints its hash.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b

START = b"0" * 64
"""What the first line of a chain holds as the hash of the one before."""

_SEALED = len(b'{"hash":"",') + 64
_LINE = re.compile(rb'\{"hash":"([0-9a-f]{64})","seq":(\d{1,18}),"prev":"([0-9a-f]{64})","kind":')
_KIND = re.compile(rb'.{155,175}?,"kind":"(\w+)"')


def seal(seq: int, prev: bytes, kind: str, content: bytes) -> tuple[bytes, bytes]:
    """The line for `content`, a JSON object that is not empty, and its hash in hex."""
    body = b'"seq":%d,"prev":"%b","kind":"%b",%b\n' % (seq, prev, kind.encode(), content[1:])
    digest = _hash(body)
    return b'{"hash":"%b",%b' % (digest, body), digest


def kind_of(line: bytes) -> str:
    """Of a line that is whole; empty for anything else."""
    found = _KIND.match(line)
    return found[1].decode() if found else ""


def _hash(body: bytes) -> bytes:
    return blake2b(body, digest_size=32).hexdigest().encode()


@dataclass(slots=True)
class Walk:
    """A walk along a chain: the line it stands on. None where damage hides the place."""

    seq: int | None = 0
    hash: bytes | None = START

    def step(self, line: bytes) -> str | None:
        """Goes on to the next line; says what is wrong with it, if anything.

        After a fault the walk goes on from what the line claims to be, so that one fault is told
        once.
        """
        digest = _hash(line[_SEALED:])
        if self.seq is not None and self.hash is not None:
            seq = self.seq + 1
            if line.startswith(b'{"hash":"%b","seq":%d,"prev":"%b",' % (digest, seq, self.hash)):
                self.seq, self.hash = seq, digest
                return None
        return self._fault(line, digest)

    def _fault(self, line: bytes, digest: bytes) -> str | None:
        found = _LINE.match(line)
        if found is None:
            self.seq = None if self.seq is None else self.seq + 1
            self.hash = None
            return "this is no line of the trail; put the line back from a copy"
        before, prev = self.seq, self.hash
        self.seq, self.hash = int(found[2]), found[1]
        if found[1] != digest:
            return "the line was altered; put it back from a copy"
        if before is not None and self.seq > before + 1:
            return (
                f"rows {before + 1} to {self.seq - 1} are missing before row {self.seq}; "
                "put back the lines or the file"
            )
        if before is not None and self.seq <= before:
            return f"row {self.seq} stands behind row {before}; put the lines back in order"
        if prev is not None and found[3] != prev:
            return f"row {self.seq - 1} was replaced by another; put it back from a copy"
        return None
