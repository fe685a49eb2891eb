"""What the planner is told of what clients ask for."""

import pytest

from orchestrator.capacity.load import Load
from orchestrator.capacity.planner import Observation, Plan, plan
from orchestrator.controller import loop
from orchestrator.policy.catalogue import Catalogue
from orchestrator.signals.report import WorkloadReport
from tests.fake_pools import FakeCluster
from tests.unit.controller.world import REPORT, Make, Run


def test_each_tick_plans_with_what_was_reported_since_the_one_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[dict[str, Load]] = []

    def looking(catalogue: Catalogue, observation: Observation, *rest: object) -> Plan:
        loads.append(dict(observation.load))
        return plan(catalogue, observation, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "plan", looking)
    counts = WorkloadReport(requests=3, prompt_tokens=30, answered=2, output_tokens=20)
    told = REPORT.model_copy(update={"workloads": {"chat": counts}})

    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        await controller.tick(100)
        controller.exchange(told, 100.2)
        controller.exchange(told, 100.7)
        for now_s in (101, 102):
            await controller.tick(now_s)

    run(test)
    assert loads == [{}, {"chat": Load(6, 60, 4, 40)}, {}]
