"""The store, worked on by one thread of its own: the event loop never waits for a database."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from orchestrator.batch.batches import Batches
from orchestrator.batch.database import Database
from orchestrator.batch.files import Files
from orchestrator.batch.queue import Queue

T = TypeVar("T")
P = ParamSpec("P")


class Desk:
    def __init__(self, directory: Path) -> None:
        self._database = Database(directory / "batch.sqlite")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self.files = Files(self._database, directory)
        self.batches = Batches(self._database)
        self.queue = Queue(self._database)

    async def do(self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
        """Of `files`, `batches` or `queue`, in the order in which they are asked for. What has
        begun is done also when the caller is cancelled."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*arguments, **named))

    def close(self) -> None:
        """Waits for what has begun."""
        self._thread.shutdown()
        self._database.close()
