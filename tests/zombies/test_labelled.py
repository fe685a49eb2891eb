"""Precision and recall on the labelled set."""

import pytest

from tests.zombies import gpu_scenarios, idle_scenarios, instance_scenarios  # noqa: F401
from tests.zombies.labelled import SCENARIOS, Scenario
from tests.zombies.world import Watcher


def found(scenario: Scenario) -> tuple[set[str], set[str]]:
    """What was found at any time, and at the end."""
    sweeps = [{f.key for f in findings} for findings in Watcher().run(scenario.frames())]
    return set().union(*sweeps), sweeps[-1]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_what_is_labelled_is_found_and_nothing_else(scenario: Scenario) -> None:
    ever, at_the_end = found(scenario)
    assert ever == at_the_end == scenario.zombies


def test_precision_is_1_and_recall_at_least_0_95(capsys: pytest.CaptureFixture[str]) -> None:
    right = wrong = missed = 0
    for scenario in SCENARIOS:
        ever, at_the_end = found(scenario)
        right += len(at_the_end & scenario.zombies)
        wrong += len(ever - scenario.zombies)
        missed += len(scenario.zombies - at_the_end)
    precision, recall = right / (right + wrong), right / (right + missed)
    zombies = sum(bool(s.zombies) for s in SCENARIOS)
    with capsys.disabled():
        print(
            f"\nzombies: {len(SCENARIOS)} scenarios, {zombies} with zombies ({right + missed} of "
            f"them) and {len(SCENARIOS) - zombies} lookalikes: precision {precision:.3f}, "
            f"recall {recall:.3f}"
        )
    assert len(SCENARIOS) >= 48
    assert precision == 1
    assert recall >= 0.95
