"""The files of one chain: `000001.jsonl.gz`, `000002.jsonl.gz`, … and the one that is written.

The first line of each is of kind `file` and says whose chain it is, which file, and the hash of
the compressed file before it.
"""

import gzip
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from orchestrator.durable import sync_directory
from orchestrator.ledger.audit_anchors import Head
from orchestrator.ledger.audit_chain import START, seal
from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.ledger")

PLAIN, COMPRESSED = ".jsonl", ".jsonl.gz"


def gateways(trail: Path) -> list[str]:
    """Whose chains lie here."""
    return sorted(d.name for d in trail.iterdir() if d.is_dir()) if trail.is_dir() else []


def files(chain: Path) -> list[Path]:
    """In the order of their rows. A file that is there twice is taken as it was written."""
    found: dict[int, Path] = {}
    for path in sorted(chain.iterdir()):
        number, dot, suffix = path.name.partition(".")
        if dot + suffix in (PLAIN, COMPRESSED) and number.isdecimal():
            found.setdefault(int(number), path)
    return [found[number] for number in sorted(found)]


def opened(path: Path) -> BinaryIO:
    """A file of a chain to read, also when it was compressed since it was listed."""
    if path.suffix != ".gz":
        try:
            return path.open("rb")
        except FileNotFoundError:
            path = path.with_suffix(COMPRESSED)
    return cast(BinaryIO, gzip.open(path, "rb"))


def digest(path: Path) -> str:
    """The BLAKE2b-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


class ChainFiles:
    """Writes one chain. Whatever raises OSError may be called again and loses nothing."""

    def __init__(self, trail: Path, gateway_id: str, rotate_bytes: int) -> None:
        self._chain = trail / gateway_id
        self._gateway_id = gateway_id
        self._rotate_bytes = rotate_bytes
        self._seq, self._hash = 0, START
        self._unwritten = bytearray()
        self._fd: int | None = None
        self._number = 0
        self._size = 0
        self._gzip: str | None = None
        self.head = Head(gateway_id, 0, START.decode())
        """The end of what is safe on disk."""

    @property
    def unwritten(self) -> int:
        """Lines that were sealed, and not written as a whole."""
        return self._unwritten.count(b"\n")

    def add(self, kind: str, content: bytes) -> None:
        """Seals a row, for `write` to write. Raises OSError, and has not added it then."""
        if self._fd is not None and self._size >= self._rotate_bytes:
            self._close_file()
        if self._fd is None:
            self._open_file()
        self._seal(kind, content)

    def write(self) -> None:
        """Raises OSError; what was not written yet is kept."""
        while self._unwritten:
            assert self._fd is not None
            del self._unwritten[: os.write(self._fd, self._unwritten)]

    def sync(self) -> None:
        """Makes sure of all that was written. Raises OSError."""
        if self._fd is not None and self.head.seq < self._seq and not self._unwritten:
            os.fsync(self._fd)
            self.head = Head(self._gateway_id, self._seq, self._hash.decode())

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _seal(self, kind: str, content: bytes) -> None:
        line, self._hash = seal(self._seq + 1, self._hash, kind, content)
        self._seq += 1
        self._unwritten += line
        self._size += len(line)

    def _open_file(self) -> None:
        path = self._chain / f"{self._number + 1:06}{PLAIN}"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._number += 1
        self._size = 0
        first = {"gateway_id": self._gateway_id, "number": self._number, "gzip": self._gzip}
        self._seal("file", orjson.dumps(first))
        sync_directory(self._chain)

    def _close_file(self) -> None:
        self.write()
        self.sync()
        self._gzip = None
        self.close()
        path = self._chain / f"{self._number:06}{PLAIN}"
        try:
            self._gzip = _compress(path)
        except OSError as error:
            log.warning("%s stays uncompressed: %s", path, without_text(error))


def _compress(path: Path) -> str:
    """Puts the compressed file in the place of the plain one; its digest. Raises OSError."""
    made, half_made = path.with_suffix(COMPRESSED), path.with_suffix(".tmp")
    try:
        with path.open("rb") as plain, half_made.open("xb", 0) as raw:
            os.fchmod(raw.fileno(), 0o600)
            # The lightest level: the next that saves anything takes the gateway twice the CPU time.
            with gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed:
                shutil.copyfileobj(plain, packed, 1 << 20)
            os.fsync(raw.fileno())
        found = digest(half_made)
        half_made.rename(made)
    except OSError:
        half_made.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    path.unlink()
    return found
