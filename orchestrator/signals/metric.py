"""A metric that the product shows, as data: catalogues of them make the page that describes them,
the dashboards and the alert rules."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    values: str
    """Where they come from."""
    cap: str
    """How many there can be."""


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    """As it is shown. The sums, counts and buckets of a histogram have suffixes."""
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
