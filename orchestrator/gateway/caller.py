"""Who is calling, once that is known."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    id: str
    """Of the credential, for records: no secret."""
    workload: str
