"""What the gateways report, gathered over all of them."""

import sys
from collections import defaultdict

from orchestrator.capacity.load import Load
from orchestrator.config.spec import Configuration
from orchestrator.signals.latency import LatencyWindow
from orchestrator.signals.report import GatewayReport, QueueReport, WorkloadReport

GONE_AFTER_S = 10
"""A gateway that has not reported for so long is gone, and its requests with it."""
REMEMBERED_S = 3600
"""When one that says nothing was heard last."""
NOBODY = sys.maxsize
"""The oldest snapshot where no gateway is left that decides on one."""


def silence_s(configuration: Configuration) -> float:
    """After how long a silent gateway sends nothing more to what a burst or old rules gave it: its
    snapshot is stale, and what it decided before that has reached an engine, which counts it."""
    stale_s = configuration.policy.snapshot_stale_s + configuration.gateway.timeouts.connect_s
    return max(stale_s, GONE_AFTER_S)


class Traffic:
    def __init__(self, window_s: float, silence_s: float, since_s: float | None = None) -> None:
        """`silence_s`: how long a silent gateway may still decide. `since_s`: when this controller
        took over from another one, whose gateways it does not know; None: there was none."""
        self._window_s = window_s
        self._silence_s = silence_s
        self._since_s = since_s
        self._reports: dict[str, tuple[float, GatewayReport]] = {}
        """The last report of each gateway that has not said goodbye, and when it came."""
        self._ttft: dict[str, LatencyWindow] = {}
        self._slot: dict[str, LatencyWindow] = {}
        self._tokens: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._load: dict[str, Load] = {}
        self._heard_s: dict[str, float] = {}
        """When each gateway reported last that has not said goodbye, however long ago."""
        self._served: dict[str, int] = defaultdict(int)

    def follow(self, window_s: float, silence_s: float) -> None:
        """Other rules; latencies that were measured stay. Who is silent may go by the old ones."""
        self._window_s, self._silence_s = window_s, max(self._silence_s, silence_s)
        for window in (*self._ttft.values(), *self._slot.values()):
            window.window_s = window_s

    def take(self, report: GatewayReport, now_s: float) -> None:
        heard_s = self._heard_s.get(report.gateway_id, now_s)
        known = {g: at_s for g, at_s in self._heard_s.items() if now_s - at_s <= REMEMBERED_S}
        self._heard_s = known | {report.gateway_id: now_s}
        self._reports[report.gateway_id] = (now_s, report)
        if report.leaving:
            del self._reports[report.gateway_id], self._heard_s[report.gateway_id]
        for endpoint, figures in report.endpoints.items():
            self.ttft(endpoint).add(figures.ttft_s, now_s)
            self.slot(endpoint).add(figures.slot_s, now_s)
            self._served[endpoint] += len(figures.ttft_s) + len(figures.slot_s)
            for workload, tokens in figures.tokens.items():
                self._tokens[endpoint][workload] += tokens
        if now_s - heard_s > GONE_AFTER_S:
            # What arrived in all that time is no rate of this moment.
            return
        for workload, counts in report.workloads.items():
            self._load[workload] = _more(self._load.get(workload, Load()), counts)

    def ttft(self, endpoint: str) -> LatencyWindow:
        return self._ttft.setdefault(endpoint, LatencyWindow(self._window_s))

    def slot(self, endpoint: str) -> LatencyWindow:
        return self._slot.setdefault(endpoint, LatencyWindow(self._window_s))

    def inflight(self, endpoint: str, now_s: float) -> dict[str, int]:
        """Requests open there, by gateway."""
        return {
            report.gateway_id: report.endpoints[endpoint].inflight
            for report in self._live(now_s)
            if endpoint in report.endpoints and report.endpoints[endpoint].inflight
        }

    def waiting_ages_s(self, endpoint: str, now_s: float) -> list[float]:
        return [
            age
            for report in self._live(now_s)
            if endpoint in report.endpoints
            for age in report.endpoints[endpoint].waiting_ages_s
        ]

    def queued_ages_s(self, endpoint: str, now_s: float) -> list[float]:
        """Of the requests that wait in gateways and could run there."""
        return [age for queue in self._queues(now_s, endpoint) for age in queue.ages_s]

    def queued(self, endpoint: str, now_s: float) -> int:
        """How many they are, where each is counted at one of the endpoints that it could run on."""
        total = 0
        for queue in self._queues(now_s, endpoint):
            number = queue.endpoints.index(endpoint)
            total += len(range(number, len(queue.ages_s), len(queue.endpoints)))
        return total

    def _queues(self, now_s: float, endpoint: str) -> list[QueueReport]:
        return [q for r in self._live(now_s) for q in r.queues if endpoint in q.endpoints]

    def oldest_snapshot(self, now_s: float) -> int:
        """The oldest version on which a gateway may still decide; 0 while one may that has not
        spoken to this controller yet; NOBODY when none is left.

        Silence never counts as consent: one that does not report sends on, as its last snapshot
        says, until that is stale.
        """
        self._reports = {
            gateway: (at_s, report)
            for gateway, (at_s, report) in self._reports.items()
            if now_s - at_s <= self._silence_s
        }
        if self._since_s is not None and now_s - self._since_s <= self._silence_s:
            return 0
        return min((r.snapshot_version for _, r in self._reports.values()), default=NOBODY)

    def all_have(self, version: int, published_s: float, now_s: float) -> bool:
        """Whether no gateway decides on a snapshot before this one any more. Where none reports,
        there may still be one, until its snapshot is stale."""
        oldest = self.oldest_snapshot(now_s)
        if oldest == NOBODY:
            return now_s - published_s > self._silence_s
        return oldest >= version

    def take_tokens(self) -> dict[str, dict[str, int]]:
        """Tokens by endpoint and workload since the last call."""
        tokens = {endpoint: dict(by) for endpoint, by in self._tokens.items()}
        self._tokens.clear()
        return tokens

    def take_load(self) -> dict[str, Load]:
        """By workload, since the last call."""
        load, self._load = self._load, {}
        return load

    def served(self, endpoint: str) -> int:
        """Rises with every request that begins or ends its answer there."""
        return self._served.get(endpoint, 0)

    def all_report(self, now_s: float) -> bool:
        """Whether there are gateways, and none is silent of which some request may be open."""
        known = 0 < self.oldest_snapshot(now_s) < NOBODY
        return known and len(self._live(now_s)) == len(self._reports)

    def reports(self) -> dict[str, GatewayReport]:
        """The last of each gateway, by its id."""
        return {gateway: report for gateway, (_, report) in self._reports.items()}

    def _live(self, now_s: float) -> list[GatewayReport]:
        return [r for at_s, r in self._reports.values() if now_s - at_s <= GONE_AFTER_S]


def _more(load: Load, counts: WorkloadReport) -> Load:
    return Load(
        load.requests + counts.requests,
        load.prompt_tokens + counts.prompt_tokens,
        load.answered + counts.answered,
        load.output_tokens + counts.output_tokens,
    )
