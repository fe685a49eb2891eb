"""Waits until the gateways of this pod have no request open, before the pod is stopped:
`python -m orchestrator.gateway.leave PORT SECONDS`, at most so many."""

import sys
import time
import urllib.request

from orchestrator.gateway.metrics import OPEN

PAUSE_S = 1.0
QUIET = 3
"""Looks in a row without a request: one may be on its way when the first is made."""


def wait(url: str, limit_s: float, pause_s: float = PAUSE_S) -> bool:
    """Whether it became quiet. A gateway that does not answer has nothing open."""
    deadline_s, quiet = time.monotonic() + limit_s, 0
    while quiet < QUIET:
        if time.monotonic() >= deadline_s:
            return False
        quiet = 0 if _open_requests(url) else quiet + 1
        time.sleep(pause_s)
    return True


def _open_requests(url: str) -> float:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own, by HTTP
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{OPEN.name}{{"))


if __name__ == "__main__":
    sys.exit(not wait(f"http://127.0.0.1:{sys.argv[1]}/metrics", float(sys.argv[2])))
