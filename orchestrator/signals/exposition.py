"""Reading the Prometheus text format. Whoever reads says which samples are wanted."""

import math
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def samples(text: str, wanted: tuple[str, ...]) -> Iterator[Sample]:
    """Samples whose names begin with one of `wanted` and whose values are finite. Raises ValueError
    for what is not in the format."""
    # The parser takes most of the time of a large page, so it gets only what is wanted.
    lines = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(wanted))
    for family in text_string_to_metric_families(lines):
        for sample in family.samples:
            if math.isfinite(sample.value):
                yield sample
