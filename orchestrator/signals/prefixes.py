"""What a gateway tells the replica router of a prompt, so that it goes where its beginning is
cached: checksums of its body's beginnings, in a header that Ray Serve's front hands on.
"""

from zlib import crc32

HEADER = "x-session-id"
"""Ray's name for it, unless the cluster sets `RAY_SERVE_SESSION_ID_HEADER_KEY`."""

LENGTHS = tuple(round(256 * 2 ** (step / 2)) for step in range(15))
"""Bytes from 256 to 32 KiB, each 1.41 times the one before: less is not worth finding again, and
bodies that share more have parted from all others by then."""


def encode(body: bytes) -> str:
    """Checksums of the body's beginnings of `LENGTHS`, shortest first; empty for a short body.

    A conversation's next turn repeats them, and so does whatever else begins with the same long
    text, if the client writes the fields of its requests in the same order.
    """
    sums = []
    view, start, value = memoryview(body), 0, 0
    for length in LENGTHS:
        if length > len(body):
            break
        value = crc32(view[start:length], value)
        sums.append(f"{value:08x}")
        start = length
    return ".".join(sums)


def decode(header: str) -> list[int]:
    """The checksums of an encoded header; of anything else, its own checksum: a key like any."""
    if not header:
        return []
    parts = header.split(".")[: len(LENGTHS)]
    try:
        return [int(part, 16) for part in parts]
    except ValueError:
        return [crc32(header.encode())]
