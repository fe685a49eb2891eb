"""What others do about capacity, by their own rules."""

from typing import Any

import pytest

from orchestrator.capacity.load import Load
from orchestrator.capacity.planner import Observation
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import EndpointState
from orchestrator.simulate.baselines import BASELINES
from orchestrator.simulate.policies import CapacityPolicy
from tests.worlds import timed

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"


def world(most: int = 20, least: int = 0) -> Catalogue:
    raw: dict[str, Any] = timed().configuration.model_dump(mode="json")
    raw["pools"][1] |= {"max_replicas": most, "min_replicas": least}
    return Catalogue(Configuration.model_validate(raw), "v1")


def seen(
    ready: int = 0,
    coming: int = 0,
    running: int = 0,
    waiting: int = 0,
    queued: int = 0,
    load: Load | None = None,
) -> Observation:
    """`queued`: at home; all else in the cloud."""
    return Observation(
        endpoints={
            HOME: EndpointState(ready_replicas=1, queued=queued),
            CLOUD: EndpointState(ready_replicas=ready, running=running, waiting=waiting),
        },
        replicas={HOME: 1, CLOUD: ready + coming},
        quotes={},
        budget_left_usd={},
        oldest_snapshot=0,
        standing={HOME: 1, CLOUD: ready + coming},
        load={} if load is None else {"assistant": load},
    )


def cloud(policy: CapacityPolicy, now_s: float, observed: Observation) -> int:
    return policy.plan(observed, 1, now_s).targets[CLOUD]


def test_keda_orders_by_all_that_wait_and_keeps_none_for_those_that_run() -> None:
    keda = BASELINES["keda-queue"](world())
    assert cloud(keda, 0, seen()) == 0
    assert cloud(keda, 15, seen(queued=11)) == 3
    assert cloud(keda, 20, seen(queued=11)) == 3  # asked again after 15 s
    assert cloud(keda, 30, seen(ready=3, queued=8, waiting=8, running=12)) == 4
    # The last that was wanted is kept for five minutes.
    assert cloud(keda, 315, seen(ready=4, running=16)) == 4
    assert cloud(keda, 345, seen(ready=4, running=16)) == 0


def test_the_hpa_adds_four_pods_or_as_many_as_there_are_at_once() -> None:
    keda = BASELINES["keda-queue"](world())
    assert cloud(keda, 0, seen(queued=1000)) == 4
    assert cloud(keda, 15, seen(coming=4, queued=1000)) == 8
    assert cloud(keda, 30, seen(ready=8, queued=1000)) == 16
    assert cloud(keda, 45, seen(ready=16, queued=1000)) == 20


def test_the_hpa_reckons_with_ready_replicas_and_orders_nothing_twice() -> None:
    hpa = BASELINES["hpa-utilization"](world())
    # Two full replicas of four sequences at 80 %: 2.5 of them.
    assert cloud(hpa, 0, seen(ready=2, running=8)) == 3
    assert cloud(hpa, 15, seen(ready=2, coming=1, running=8)) == 3
    assert cloud(hpa, 30, seen(ready=2, coming=1, running=8, waiting=8)) == 5
    assert cloud(hpa, 45, seen(ready=5, running=16)) == 5


def test_skyserve_goes_by_the_request_rate_owned_replicas_first_and_takes_its_time() -> None:
    sky = BASELINES["skyserve"](world())
    # 2 s of work each: 0.2 s to read, 1.8 s to write.
    load = Load(requests=2, prompt_tokens=2000, answered=2, output_tokens=720)
    for now_s in range(300):
        assert cloud(sky, now_s, seen(load=load)) == 0
    later = [cloud(sky, now_s, seen(load=load)) for now_s in range(300, 400)]
    # 4 replicas at 80 % are 5; one is owned.
    assert later[-1] == 4
    for now_s in range(400, 1600):
        assert cloud(sky, now_s, seen(ready=4)) == 4
    assert cloud(sky, 1700, seen(ready=4)) == 0


def test_skyserve_keeps_its_base_fallback() -> None:
    assert cloud(BASELINES["skyserve"](world(least=2)), 0, seen()) == 2


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_rented_stands_at_its_minimum_at_least(name: str) -> None:
    targets = BASELINES[name](world(least=1)).plan(seen(), 1, 0).targets
    assert targets == {HOME: 1, CLOUD: 1}


@pytest.mark.parametrize("name", ["all-cloud", "failover", "hpa-utilization"])
def test_replicas_that_never_come_are_ordered_anew(name: str) -> None:
    policy = BASELINES[name](world())
    # The pool takes 60 s; three times that is enough.
    waiting = seen(coming=1, queued=1)
    targets = [cloud(policy, now_s, waiting) for now_s in range(400)]
    given_up = [now_s for now_s, target in enumerate(targets) if target == 0]
    assert given_up == [181, 362]
