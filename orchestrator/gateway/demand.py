"""What clients ask for and what they are answered, by workload, for the controller's next report.

Lines of batches are not in it: they take what is idle.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from orchestrator.gateway.call import Call
from orchestrator.signals.report import WorkloadReport


class Demand:
    def __init__(self) -> None:
        self._by_workload: dict[str, WorkloadReport] = defaultdict(WorkloadReport)

    @contextmanager
    def of(self, call: Call) -> Iterator[None]:
        """Around a request's way through the gateway, whatever becomes of it. What no GPU works on
        is no demand."""
        if not call.request.dialect.uses_gpu:
            yield
            return
        self.arrived(call.caller.workload, call.request.estimated_prompt_tokens)
        try:
            yield
        finally:
            if call.status:
                self.answered(call.caller.workload, call.used.completion_tokens)

    def arrived(self, workload: str, prompt_tokens: int) -> None:
        counts = self._by_workload[workload]
        counts.requests += 1
        counts.prompt_tokens += prompt_tokens

    def answered(self, workload: str, output_tokens: int) -> None:
        counts = self._by_workload[workload]
        counts.answered += 1
        counts.output_tokens += output_tokens

    def report(self) -> dict[str, WorkloadReport]:
        """Everything since the last report. What is counted from now on is for the next one, which
        `not_taken` gives this one's counts too."""
        report, self._by_workload = self._by_workload, defaultdict(WorkloadReport)
        return dict(report)

    def not_taken(self, report: Mapping[str, WorkloadReport]) -> None:
        for workload, lost in report.items():
            counts = self._by_workload[workload]
            counts.requests += lost.requests
            counts.prompt_tokens += lost.prompt_tokens
            counts.answered += lost.answered
            counts.output_tokens += lost.output_tokens
