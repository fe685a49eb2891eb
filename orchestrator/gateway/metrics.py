"""Every metric of a gateway, as data: what is counted under which labels, and where their values
come from.

No label takes a value that a client chose. Names are OpenTelemetry's GenAI conventions where they
have one, as Prometheus writes it.
"""

from orchestrator.classify.findings import FindingType
from orchestrator.config.data_class import DataClass
from orchestrator.gateway.routes import OTHER, ROUTES
from orchestrator.signals.metric import Label, Metric

MAX_SERIES = 10_000
"""Of one metric in one gateway. A configuration with more of them, or a mistake, costs no more
memory: what is over it is counted under `overflow`."""
OVERFLOW = "overflow"

TOKEN_TYPES = ("input", "output", "cached")
ATTEMPT_KINDS = ("first", "retry", "hedge", "continuation")
RAISED_BY = ("claimed", "session", "content")
LINE_OUTCOMES = ("completed", "failed", "put_back")
RECORDS = ("usage", "audit", "access_log", "spans")

LABELS = {
    label.name: label
    for label in (
        Label("workload", "configuration; empty before the caller is known", "workloads + 1"),
        Label(
            "model",
            "configuration; `unknown` for every other name, empty before the body is read",
            "models + 2",
        ),
        Label("priority", "configuration", "priorities of workloads, 101 at most"),
        Label("zone", "configuration; empty where nothing was sent", "zones + 1"),
        Label("pool", "configuration; empty where nothing was sent", "pools + 1"),
        Label("variant", "configuration", "variants"),
        Label(
            "endpoint",
            f"the paths of `/openapi.json`, parameters unfilled; `{OTHER}` for every other",
            str(len(ROUTES) + 1),
        ),
        Label("code", "HTTP statuses that the gateway gives; 499 for a client that left", "20"),
        Label("error_type", "the `code` of errors that the gateway gives", "60"),
        Label("reason", "fixed words, and `status_` with an HTTP status", "920"),
        Label("outcome", "`complete`, `cancelled`, or a reason", "922"),
        Label("kind", ", ".join(f"`{k}`" for k in ATTEMPT_KINDS), str(len(ATTEMPT_KINDS))),
        Label("type", ", ".join(f"`{t}`" for t in TOKEN_TYPES), str(len(TOKEN_TYPES))),
        Label(
            "finding",
            "types of what the classifier finds; `timeout` and `error`",
            str(len(FindingType) + 2),
        ),
        Label("data_class", ", ".join(f"`{c.label}`" for c in DataClass), str(len(DataClass))),
        Label("by", ", ".join(f"`{by}`" for by in RAISED_BY), str(len(RAISED_BY))),
        Label("record", ", ".join(f"`{r}`" for r in RECORDS), str(len(RECORDS))),
        Label(
            "line_outcome",
            ", ".join(f"`{o}`" for o in LINE_OUTCOMES),
            str(len(LINE_OUTCOMES)),
        ),
        Label("gateway", "the id of a replica on this node, new at every start", "replicas"),
    )
}

# OpenTelemetry's own buckets; those of the first two go on to what a request may take here.
DURATION_S = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    *(163.84, 655.36),
)
FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    *(30, 60),
)
PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
TOKENS = tuple(float(4**power) for power in range(14))
WORK_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1)
WAIT_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

REQUESTS = Metric(
    "orchestrator_requests_total",
    "counter",
    "Requests that got an answer, whatever it was; labels are empty where nothing is known",
    ("workload", "model", "zone", "pool", "code", "endpoint"),
)
ERRORS = Metric(
    "orchestrator_errors_total",
    "counter",
    "Answers that were errors, refusals by limits and by the policy among them",
    ("workload", "error_type"),
)
REFUSED_EARLY = Metric(
    "orchestrator_refused_connections_total",
    "counter",
    "Connections closed for what came on them before it was a request",
    ("code",),
)
DURATION = Metric(
    "gen_ai_server_request_duration_seconds",
    "histogram",
    "From a request's arrival to the end of its answer",
    ("workload", "model", "endpoint"),
    DURATION_S,
)
FIRST_TOKEN = Metric(
    "gen_ai_server_time_to_first_token_seconds",
    "histogram",
    "From a request's arrival to its first token, waiting and failed attempts included; streams",
    ("workload", "model", "pool"),
    FIRST_TOKEN_S,
)
PER_TOKEN = Metric(
    "gen_ai_server_time_per_output_token_seconds",
    "histogram",
    "From token to token after the first, a request's average; streams that ended whole",
    ("workload", "model", "pool"),
    PER_TOKEN_S,
)
TOKEN_USAGE = Metric(
    "gen_ai_client_token_usage",
    "histogram",
    "Input and output tokens of an attempt",
    ("workload", "model", "type"),
    TOKENS,
)
TOKENS_TOTAL = Metric(
    "orchestrator_tokens_total",
    "counter",
    "Tokens as counted by the engine; the cached ones are among the input",
    ("workload", "model", "zone", "type"),
)
ATTEMPTS = Metric(
    "orchestrator_attempts_total",
    "counter",
    "What became of each attempt: the first of a request, and those that retries, hedges and "
    "continuations make",
    ("pool", "variant", "kind", "outcome"),
)
FAILURES = Metric(
    "orchestrator_upstream_failures_total",
    "counter",
    "Attempts that an upstream failed",
    ("pool", "variant", "reason"),
)
INFLIGHT = Metric(
    "orchestrator_inflight_requests", "gauge", "Requests open upstream", ("pool", "variant")
)
EJECTED = Metric(
    "orchestrator_ejected_endpoints",
    "gauge",
    "1 for what is left alone because it keeps failing",
    ("pool", "variant"),
)
OPEN = Metric("orchestrator_open_requests", "gauge", "Requests that clients have open")
QUEUE = Metric(
    "orchestrator_queue_length",
    "gauge",
    "Requests that wait in the gateway for an endpoint that is full or not there",
    ("workload", "priority"),
)
SHED = Metric(
    "orchestrator_shed_requests_total",
    "counter",
    "Requests refused for want of capacity",
    ("workload", "priority", "reason"),
)
QUEUE_WAIT = Metric(
    "orchestrator_queue_wait_seconds",
    "histogram",
    "How long a request waited for a replica, of those that had to",
    ("workload",),
    WAIT_S,
)
BATCH_LINES = Metric(
    "orchestrator_batch_lines_total",
    "counter",
    "What became of claimed lines of batches; one that is put back is claimed again",
    ("workload", "line_outcome"),
)
BATCH_LINES_OPEN = Metric(
    "orchestrator_batch_lines_open",
    "gauge",
    "Lines of batches that this gateway is at work on",
    ("workload",),
)
CLASSIFICATION = Metric(
    "orchestrator_classification_seconds",
    "histogram",
    "To find out how sensitive a request is, its conversation's past included",
    ("workload",),
    WORK_S,
)
FINDINGS = Metric(
    "orchestrator_content_findings_total",
    "counter",
    "What the classifier found in requests",
    ("finding",),
)
RAISED = Metric(
    "orchestrator_raised_requests_total",
    "counter",
    "Requests above the class of their workload, and what raised them",
    ("workload", "data_class", "by"),
)
LOST = Metric(
    "orchestrator_records_lost",
    "gauge",
    "Records that could not be written since the start",
    ("record",),
)
SNAPSHOT_VERSION = Metric(
    "orchestrator_snapshot_version", "gauge", "Snapshot on which this gateway decides"
)
SNAPSHOT_AGE = Metric(
    "orchestrator_snapshot_age_seconds", "gauge", "Since the controller last said something new"
)

CATALOGUE = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""In the order in which they stand above."""
