"""Whose what capacity costs is."""

import pytest

from orchestrator.ledger.cost import Costs

MIDNIGHT_S = 1_700_006_400


def test_a_pool_is_paid_for_by_those_who_used_it_in_parts_of_their_tokens() -> None:
    costs = Costs()
    costs.add("cloud", 4.0, {"chat": 300, "code": 100}, ["chat", "code"], MIDNIGHT_S)
    assert costs.by_workload == costs.today(MIDNIGHT_S) == {"chat": 3.0, "code": 1.0}


def test_who_is_at_home_where_another_bursts_pays_but_not_out_of_its_budget() -> None:
    costs = Costs()
    costs.add("cloud", 4.0, {"chat": 300, "resident": 100}, ["chat"], MIDNIGHT_S)
    assert costs.by_workload == {"chat": 3.0, "resident": 1.0}
    assert costs.today(MIDNIGHT_S) == {"chat": 3.0}


def test_budgets_begin_anew_at_midnight_and_costs_do_not() -> None:
    costs = Costs()
    for day in range(2):
        costs.add("cloud", 1.0, {}, ["chat"], MIDNIGHT_S + day * 86_400)
    assert costs.today(MIDNIGHT_S + 86_400) == {"chat": 1.0}
    assert costs.by_pool["cloud"] == pytest.approx(2.0)
