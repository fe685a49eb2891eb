"""GPUs that say they are busy and have nobody who could be."""

import re
from collections.abc import Iterator

from orchestrator.policy.catalogue import Catalogue
from orchestrator.signals.dcgm import Gpu
from orchestrator.signals.reading import fresh, heard
from orchestrator.zombies.finding import Kind, Look, Suspect
from orchestrator.zombies.mends import reset
from orchestrator.zombies.sweep import Sweep

BUSY = 0.5
"""Being asked for its state, by the exporter and its like, keeps a GPU busy for a few percent."""
EMPTY_MIB = 100
"""A process that can compute has a context of several hundred."""


def ghosts(sweep: Sweep, catalogue: Catalogue, max_age_s: float, now_s: float) -> Iterator[Look]:
    for cluster, reading in sweep.gpus:
        gpus = fresh(reading, max_age_s, now_s) or []
        partitioned = {gpu.uuid for gpu in gpus if gpu.instance is not None}
        for gpu in gpus:
            # What a partitioned GPU says as a whole says nothing of its parts.
            whole_of_parts = gpu.instance is None and gpu.uuid in partitioned
            # A host's clock that is ahead of ours says nothing of the age.
            told_s = min(gpu.at_s, now_s) if gpu.at_s is not None else now_s
            stale = not heard(told_s, max_age_s, now_s)
            if whole_of_parts or stale:
                continue
            busy = None if gpu.utilization is None else gpu.utilization >= BUSY
            empty = None if gpu.memory_used_mib is None else gpu.memory_used_mib < EMPTY_MIB
            if gpu.pods or busy is False or empty is False:
                yield Look(Kind.GHOST, gpu.name)
            elif busy and empty:
                yield Look(Kind.GHOST, gpu.name, _suspect(gpu, cluster, catalogue))


def _suspect(gpu: Gpu, cluster: str, catalogue: Catalogue) -> Suspect:
    power = "" if gpu.power_w is None else f", at {gpu.power_w:.0f} W"
    error = f", after XID {gpu.xid}" if gpu.xid else ""
    return Suspect(
        after_s=catalogue.configuration.zombies.ghost_after_s,
        evidence=f"GPU {gpu.index or gpu.uuid} is {gpu.utilization:.0%} busy with "
        f"{gpu.memory_used_mib:.0f} MiB of memory and no pod{power}{error}",
        mend=reset(gpu),
        cluster=cluster,
        pools=_pools(gpu, cluster, catalogue),
        gpus=gpu.share,
        doubt="a reset takes the node's other work with it",
    )


def _pools(gpu: Gpu, cluster: str, catalogue: Catalogue) -> tuple[str, ...]:
    """The cluster's pools of such a GPU: DCGM says `NVIDIA H100 80GB HBM3`, Ray `H100`."""
    words = set(re.split(r"[^A-Z0-9]+", gpu.model.upper()))
    return tuple(
        name
        for name, pool in catalogue.pools.items()
        if pool.cluster == cluster and pool.accelerator.upper().split("-")[0] in words
    )
