"""vLLM's CPU worker, without its wait for every core to be idle."""

import torch
from vllm.utils.cpu_resource_utils import get_visible_memory_node
from vllm.v1.worker.cpu_worker import CPUWorker as VllmCPUWorker


def _bind_nothing(_nodes: list[int]) -> None:
    pass


class CPUWorker(VllmCPUWorker):  # type: ignore[misc]
    """Leaves memory where it is on machines with one NUMA node, where there is nowhere to move it.

    Binding calls migrate_pages(2), which drains the page lists of every core and so waits for the
    cores that a saturated neighbour keeps busy: a minute or two, just when a burst needs a replica.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        if len(get_visible_memory_node()) == 1:
            torch.ops._C.init_cpu_memory_env = _bind_nothing  # type: ignore[attr-defined]
        super().__init__(*args, **kwargs)
