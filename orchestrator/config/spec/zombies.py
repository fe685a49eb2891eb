"""When something that is paid for and does nothing is called so, and what becomes of it."""

from typing import Literal

from pydantic import Field

from orchestrator.config.spec.base import Seconds, Spec


class Zombies(Spec):
    """What is paid for and does nothing. Declared replicas (`min_replicas`, and those of a schedule
    or of somebody's word) are never among it, and nor is what is not known. What no rule has a
    place for the controller gives back in any case, once nobody uses it."""

    idle: Literal["report", "reclaim"] = Field(
        default="report",
        description="replicas beyond the declared ones without a request. `report`: somebody gives "
        "them back by hand; `reclaim`: the controller does, once they were reported for `notice_s`",
    )
    sweep_s: Seconds = Field(
        default=30,
        description="from one look to the next; what was heard three looks ago counts as unknown, "
        "and the unknown is never called a zombie",
    )
    idle_after_s: Seconds = Field(default=900, description="without any request")
    ghost_after_s: Seconds = Field(
        default=300, description="of a GPU in use without memory, process and pod"
    )
    orphan_after_s: Seconds = Field(default=120, description="in no snapshot")
    adapter_after_s: Seconds = Field(default=600, description="loaded and not declared")
    notice_s: Seconds = Field(
        default=600, description="from the first report until it may be given back, also by hand"
    )
