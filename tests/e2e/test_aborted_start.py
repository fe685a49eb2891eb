"""A start that is broken off leaves no process. Runs, by its name, before the stack is up."""

import signal
import subprocess
import time

import psutil
import pytest

from tests.e2e.conftest import ORCHESTRATOR, left_behind, starting

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_start_that_is_broken_off_leaves_nothing(by: signal.Signals) -> None:
    before = set(psutil.pids())
    with starting() as (process, lines):
        for line in lines:
            if "Deploying" in line:
                break
        time.sleep(3)
        assert left_behind(before), "there is nothing yet that could be left"
        process.send_signal(by)
        process.wait(timeout=60)
    if by == signal.SIGKILL:
        # Nobody can clean up after that but the next command.
        subprocess.run([ORCHESTRATOR, "down"], check=True, timeout=60)
    assert not left_behind(before)
