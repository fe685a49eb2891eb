"""Fields by which a request would steer its engine, beyond what it asks of the model. Engines take
them from whoever sends them; here they are the operator's."""

from typing import Any

from orchestrator.gateway.errors import ApiError

_CONNECTS = "Engines move no caches at a client's word here. Leave the field out."
CONTROLS = {
    # An engine with a connector would connect to the host that stands in them.
    "kv_transfer_params": _CONNECTS,
    "ec_transfer_params": _CONNECTS,
    # It would overtake other workloads' requests in the engine's queue.
    "priority": "The workload's priority is what its requests have here. Leave the field out.",
    # Two requests of one id are one to an engine: whose ends, ends the other's.
    "request_id": "Name the request in the header 'x-request-id'.",
}
"""What to do without them."""
_INNER = "vllm_xargs"
"""Where vLLM takes some of them too."""


def refuse_control(content: dict[str, Any]) -> None:
    """Null is as good as nothing. Raises ApiError 400."""
    inner = content.get(_INNER)
    for place in (content, inner if isinstance(inner, dict) else {}):
        for name, mend in CONTROLS.items():
            if place.get(name) is not None:
                raise ApiError(400, "unsupported_field", mend, param=name)
