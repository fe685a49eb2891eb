"""Shares by name, as options say them."""

import math


def read_shares(option: str, text: str) -> dict[str, float]:
    """`NAME=SHARE` with commas between; at least one. Raises ValueError with the mend."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = (word.strip() for word in part.partition("="))
        if name in shares:
            raise ValueError(f"{option}: '{name}' stands there twice; add its shares")
        try:
            shares[name] = float(share)
        except ValueError:
            name = ""
        if not name:
            raise ValueError(f"{option}: write '{part}' as NAME=SHARE, such as assistant=0.6")
    if not all(0 <= share < math.inf for share in shares.values()) or not any(shares.values()):
        raise ValueError(f"{option}: shares must be finite, 0 or more, and one above 0")
    return shares
