"""The stack's processes, found by a mark in their environment or a file of the stack that they
hold open.

Ray and vLLM start processes that outlive their parents, and change their titles. They inherit the
environment, but a title may be written over it; those still hold Ray's logs, in a directory that is
the stack's own. So nothing that `up` started is missed, and nothing else is ever ended.
"""

import os
from contextlib import suppress
from pathlib import Path

import psutil

from orchestrator.stack import ray_head

MARK = "ORCHESTRATOR_STACK"


def running(state: Path) -> list[psutil.Process]:
    """Every live process of the stack whose state directory this is."""
    mine = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in mine and _belongs(process, state):
                found.append(process)
        except psutil.Error:
            continue
    return [p for p in found if p.status() != psutil.STATUS_ZOMBIE]


def _belongs(process: psutil.Process, state: Path) -> bool:
    mark = process.environ().get(MARK)
    if mark is not None:
        return mark == str(state)
    logs = f"{ray_head.root(state)}{os.sep}"
    return any(file.path.startswith(logs) for file in process.open_files())


def stop_all(state: Path, grace_s: float = 5) -> int:
    """Ends them all by pid, politely first. Returns how many there were."""
    ended = 0
    for _ in range(5):
        # Again until none is left: a supervisor may start a child while it is being ended.
        processes = running(state)
        if not processes:
            break
        ended = max(ended, len(processes))
        for process in processes:
            _signal(process, kill=False)
        _, alive = psutil.wait_procs(processes, timeout=grace_s)
        for process in alive:
            _signal(process, kill=True)
        psutil.wait_procs(alive, timeout=grace_s)
    return ended


def _signal(process: psutil.Process, kill: bool) -> None:
    with suppress(psutil.Error):
        process.kill() if kill else process.terminate()
