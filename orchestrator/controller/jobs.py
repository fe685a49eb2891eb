"""Slow calls that run beside the ticks, one of each name at a time."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.controller")

PATIENCE_S = 1.0
"""How long a tick waits for what it asks. What takes longer goes on beside the ticks, and is not
waited for again until it has come in time."""
LATE_PATIENCE_S = 0.02

Work = Coroutine[Any, Any, None]


class Jobs:
    def __init__(self) -> None:
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self.started = 0
        """Since the beginning."""
        self._late: set[str] = set()
        """Those that a tick has waited for in vain."""

    def start(self, name: str, work: Work) -> bool:
        """Whether the job was started: not while one of the same name runs."""
        if name in self._jobs:
            work.close()
            return False
        self._jobs[name] = asyncio.create_task(self._run(name, work))
        self.started += 1
        return True

    async def look(self, looks: dict[str, Work]) -> None:
        """Starts them all and waits until they are done, or for as long as a tick may wait."""
        for name, work in looks.items():
            self.start(name, work)
        jobs = {name: self._jobs[name] for name in looks}
        expected = [job for name, job in jobs.items() if name not in self._late]
        if expected:
            await asyncio.wait(expected, timeout=PATIENCE_S)
        if len(expected) < len(jobs):
            await asyncio.wait(jobs.values(), timeout=LATE_PATIENCE_S)
        self._late -= jobs.keys()
        self._late |= {name for name, job in jobs.items() if not job.done()}

    async def stop(self) -> None:
        """Ends every job at its next await."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _run(self, name: str, work: Work) -> None:
        try:
            await work
        except Exception as error:
            log.error("'%s' failed: %s", name, without_text(error))
        finally:
            del self._jobs[name]
