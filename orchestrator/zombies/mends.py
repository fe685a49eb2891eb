"""What to type against a zombie."""

import json
from shlex import quote

from orchestrator.policy.candidate import Candidate
from orchestrator.signals.dcgm import Gpu


def give_back(subject: str) -> str:
    return f"orchestrator zombies {quote(subject)} --reclaim --no-dry-run"


def reset(gpu: Gpu) -> str:
    host = quote(gpu.host or "NODE")
    drained = f"kubectl drain {host} --ignore-daemonsets --delete-emptydir-data"
    return f"{drained} && ssh {host} nvidia-smi --gpu-reset -i {quote(gpu.uuid)}"


def inspect(candidate: Candidate) -> str:
    """Shows what keeps its replicas."""
    if candidate.cluster.kind == "ray":
        return f"serve status --address {quote(candidate.cluster.dashboard_url or '')}"
    return f"kubectl describe pods --all-namespaces -l orchestrator/pool={candidate.pool.name}"


def unload(url: str, adapter: str) -> str:
    body = quote(json.dumps({"lora_name": adapter}))
    return (
        f"curl -X POST {quote(f'{url}/v1/unload_lora_adapter')} "
        f"-H 'content-type: application/json' -d {body}"
    )
