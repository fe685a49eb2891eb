"""What a local cluster itself recorded, read from its logs."""

import re
from pathlib import Path

from orchestrator.stack import ray_head


def request_ids(state: Path, cluster: str, pattern: str) -> set[str]:
    """Every match of the pattern in any log of the cluster's Serve fronts, replicas and engines."""
    wanted = re.compile(pattern.encode())
    logs = ray_head.directory(state, cluster) / "session_latest" / "logs"
    found: set[bytes] = set()
    for file in logs.resolve().rglob("*"):
        if file.is_file():
            with file.open("rb") as lines:
                for line in lines:
                    found.update(wanted.findall(line))
    return {match.decode() for match in found}
