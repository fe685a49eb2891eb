"""When something that is paid for and does nothing is called so, and what becomes of it."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.spec.base import Seconds, Spec

Mend = Literal["report", "reclaim"]


class Zombies(Spec):
    """What is paid for and does nothing. `report`: it is shown, and somebody acts; `reclaim`: the
    controller gives it back, once it has been reported for `notice_s`. Declared replicas
    (`min_replicas`) are never among them. A GPU that is busy with nothing, and an adapter that
    nobody declares, are only ever reported."""

    idle: Mend = Field(
        default="report", description="replicas beyond the declared ones, without a request"
    )
    orphan: Mend = Field(
        default="report", description="what is ours in a cluster and in no snapshot"
    )
    pending: Mend = Field(default="report", description="replicas that do not come up")
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
    pending_factor: Annotated[float, Field(ge=1)] = Field(
        default=3, description="a replica is late after so many times its pool's `provision_s`"
    )
    notice_s: Seconds = Field(
        default=600, description="from the first report until it may be given back"
    )
