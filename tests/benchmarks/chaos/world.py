"""The running stack as faults see it: what it says of itself, and how to wait for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from orchestrator.config.load import Loaded
from orchestrator.config.spec import Cluster
from orchestrator.replay.observer import Observer
from orchestrator.stack import processes
from orchestrator.stack.up import environment
from tests.benchmarks.chaos import inventory
from tests.benchmarks.chaos.feed import PriceFeed
from tests.benchmarks.chaos.load import Load
from tests.benchmarks.chaos.records import Fault, Place
from tests.e2e.conftest import ORCHESTRATOR

FRESH_S = 4.0
"""An older sample says nothing of the present."""


class NotSeen(Exception):
    """What was waited for did not come; the message says what."""


class World:
    def __init__(
        self,
        loaded: Loaded,
        state: Path,
        place: Place,
        load: Load,
        feed: PriceFeed,
        observer: Observer,
        say: Callable[[str], None],
    ) -> None:
        self.loaded, self.state, self.place = loaded, state, place
        self.load, self.feed, self.say = load, feed, say
        self.faults: list[Fault] = []
        self._observer = observer
        self._controllers: list[subprocess.Popen[bytes]] = []

    @property
    def clusters(self) -> list[Cluster]:
        return [c for c in self.loaded.configuration.clusters if c.launch is not None]

    def cluster(self, pool: str) -> Cluster:
        name = next(p.cluster for p in self.loaded.configuration.pools if p.name == pool)
        return next(c for c in self.clusters if c.name == name)

    @contextmanager
    def fault(self, name: str, pool: str = "") -> Iterator[Fault]:
        """Lasts until what is done in it was seen to pass. A wait that fails leaves it open."""
        fault = Fault(name, pool, time.time())
        self.faults.append(fault)
        self.say(f"{name} begins")
        try:
            yield fault
        except NotSeen as error:
            fault.note = str(error)
            raise
        fault.ended_s = time.time()
        self.say(f"{name} has passed, after {fault.ended_s - fault.began_s:.0f} s; {fault.note}")

    def seen(self) -> dict[str, Any] | None:
        """The controller's state; None where it does not answer now."""
        samples = self._observer.samples
        if samples and time.time() - samples[-1].at_s < FRESH_S:
            return samples[-1].state
        return None

    def wait(self, what: str, holds: Callable[[dict[str, Any]], object], timeout_s: float) -> None:
        """Until it holds of a state that the controller has told since. Raises NotSeen."""
        began_s, deadline_s = time.time(), time.monotonic() + timeout_s
        while True:
            state = self.seen()
            if state is not None and state["time_s"] >= began_s and holds(state):
                return
            if time.monotonic() > deadline_s:
                raise NotSeen(f"{what}: not in {timeout_s:.0f} s")
            time.sleep(0.5)

    def serves(self, workload: str, pool: str, since_s: float) -> Callable[[dict[str, Any]], bool]:
        """Whether a pool is ready and has answered since a moment."""
        return lambda state: (
            state["pools"][pool]["replicas_ready"] >= 1
            and self.load.served(workload, pool, since_s)
        )

    def burst(self, state: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = state["bursts"].get(self.place.bursting) or {
            "state": "home",
            "since_s": 0,
        }
        return found

    def is_home(self, state: dict[str, Any]) -> bool:
        """Nobody bursts, and nothing is rented."""
        return (
            self.burst(state)["state"] == "home"
            and not state["pools"][self.place.cloud_pool]["replicas"]
        )

    def command(self, *words: str) -> None:
        """As a person would say it. Raises NotSeen."""
        try:
            subprocess.run(
                [ORCHESTRATOR, *words, "--config", str(self.loaded.directory)],
                env=os.environ | {"ORCHESTRATOR_STATE": str(self.state)},
                check=True,
                capture_output=True,
                timeout=60,
            )
        except subprocess.SubprocessError as error:
            raise NotSeen(f"'orchestrator {' '.join(words)}' succeeds: {error}") from None

    def controllers(self) -> list[psutil.Process]:
        found = []
        for process in processes.running(self.state):
            with suppress(psutil.Error):
                if inventory.is_controller(" ".join(process.cmdline())):
                    found.append(process)
        return found

    def leader(self) -> psutil.Process:
        """Raises NotSeen."""
        return leader(self.state, self.controllers())

    def start_controller(self) -> None:
        """As a user of the stack starts one anew: it goes on from what is remembered."""
        for ended in self._controllers:
            ended.poll()
        with (self.state / "logs" / "controller.log").open("a") as out:
            self._controllers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "orchestrator.cli", "controller"],
                    env=environment(self.state),
                    stdout=out,
                    stderr=out,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )


def leader(state: Path, controllers: list[psutil.Process]) -> psutil.Process:
    """Whoever has written itself into the lock. Raises NotSeen."""
    holder = (state / "controller.lock").read_text().split("-")
    pid = int(holder[-2]) if len(holder) >= 3 and holder[-2].isdigit() else None
    for process in controllers:
        if process.pid == pid:
            return process
    raise NotSeen("no controller leads")


def kill(found: list[psutil.Process]) -> None:
    """SIGKILL, to all of them at once."""
    for process in found:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(found, timeout=10)
