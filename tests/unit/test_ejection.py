"""Which failures eject an endpoint, and for how long."""

import pytest

from orchestrator.gateway.ejection import FAILURES, PAUSE_S, Ejection


def after(*reasons: str) -> Ejection:
    ejection = Ejection()
    for reason in reasons:
        ejection.failed("p/v", reason, 100)
    return ejection


@pytest.mark.parametrize(
    "reason", ["status_500", "status_503", "timeout", "stalled", "cut", "malformed", "unreachable"]
)
def test_an_endpoint_that_is_ill_is_left_alone_for_a_while(reason: str) -> None:
    assert not after(*[reason] * (FAILURES - 1)).ejected(100)
    ejection = after(*[reason] * FAILURES)
    assert set(ejection.ejected(100)) == {"p/v"}
    assert not ejection.ejected(100 + PAUSE_S)


@pytest.mark.parametrize("reason", ["status_404", "status_401", "status_429", "status_302"])
def test_what_says_nothing_of_its_health_ejects_nothing(reason: str) -> None:
    assert not after(*[reason] * FAILURES * 2).ejected(100)


def test_one_success_clears_the_count() -> None:
    ejection = after(*["cut"] * (FAILURES - 1))
    ejection.succeeded("p/v")
    ejection.failed("p/v", "cut", 100)
    assert not ejection.ejected(100)
