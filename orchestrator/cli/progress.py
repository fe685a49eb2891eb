"""A bar for those who have to wait."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress

from orchestrator.cli.app import err

PROGRESS_AFTER_S = 2


@contextmanager
def progress(what: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """Gives the function that advances it; None: nobody knows how much there is."""
    began_s = time.monotonic()
    bar = Progress(console=err, transient=True)
    task = bar.add_task(what, total=total)

    def step(amount: float) -> None:
        bar.advance(task, amount)
        if err.is_terminal and time.monotonic() - began_s > PROGRESS_AFTER_S:
            bar.start()

    try:
        yield step
    finally:
        if bar.live.is_started:
            bar.stop()
