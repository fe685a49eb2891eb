"""The page that describes the metrics, from their catalogues. `python -m` writes it to a file."""

import sys
from collections.abc import Iterable
from pathlib import Path

from orchestrator.controller import metrics as controller
from orchestrator.gateway.metrics import CATALOGUE, LABELS, MAX_SERIES, OVERFLOW
from orchestrator.gateway.replicas import PUBLISH_S, STALE_S
from orchestrator.signals.metric import Label, Metric

INTRODUCTION = f"""\
# Metrics

What a gateway and a controller show at `/metrics`, in Prometheus' text format. Nobody needs a key
for it: it holds names of the configuration and numbers, no content and no secret.

Names are those of OpenTelemetry's GenAI conventions where these have one, as Prometheus writes
them: `gen_ai.server.time_to_first_token`, in seconds, is
`gen_ai_server_time_to_first_token_seconds`. `endpoint` is their `http.route`, `model` their
`gen_ai.request.model`, `type` their `gen_ai.token.type`.

**Replicas.** The gateways of a node share a port, so a scrape reaches any one of them. It answers
for all: every series has a `gateway` label, own figures are those of this moment, the others' at
most {PUBLISH_S:g} s old. What a gateway leaves behind that died is gone after {STALE_S:g} s. Add
gateways up in the query:

```
sum without (gateway) (rate(orchestrator_requests_total[5m]))
```

**Labels are bounded.** Their values come from the configuration or from fixed lists, never from a
client. A metric has {MAX_SERIES:,} series in one gateway at most; what is over them is counted
under `{OVERFLOW}`.

**Engines** show their own metrics, `vllm:…`, at `/metrics` of each endpoint.
"""


CONTROLLER = """\
## Controller

A standby shows `orchestrator_leader` as 0 and nothing of the fleet. Moments are in seconds since
the epoch: their age is `time()` less them.
"""


def markdown() -> str:
    sections = [
        INTRODUCTION,
        "## Catalogue\n",
        _metrics(CATALOGUE),
        "## Labels\n",
        _labels(LABELS.values()),
        CONTROLLER,
        _metrics(controller.CATALOGUE),
        _labels(controller.LABELS.values()),
        "## Buckets\n",
        _buckets([*CATALOGUE, *controller.CATALOGUE]),
    ]
    return "\n".join(sections)


def _metrics(catalogue: Iterable[Metric]) -> str:
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in catalogue:
        names = ", ".join(f"`{name}`" for name in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {names} | {metric.help} |")
    return "\n".join(rows) + "\n"


def _labels(labels: Iterable[Label]) -> str:
    rows = ["| label | values | at most |", "|---|---|---|"]
    return "\n".join([*rows, *(f"| `{x.name}` | {x.values} | {x.cap} |" for x in labels)]) + "\n"


def _buckets(catalogue: Iterable[Metric]) -> str:
    rows = ["| histogram | upper bounds of its buckets |", "|---|---|"]
    rows += [f"| `{m.name}` | {_bounds(m)} |" for m in catalogue if m.buckets]
    return "\n".join(rows) + "\n"


def _bounds(metric: Metric) -> str:
    return ", ".join(f"{bound:.10f}".rstrip("0").rstrip(".") for bound in metric.buckets)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown())
