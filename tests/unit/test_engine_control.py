"""Fields that would steer an engine are refused, wherever the engine would take them."""

from typing import Any

import pytest

from orchestrator.gateway.continuation import _HARMLESS, _WITHOUT_EFFECT
from orchestrator.gateway.engine_control import CONTROLS, refuse_control
from orchestrator.gateway.errors import ApiError

VALUES = {
    "kv_transfer_params": {"do_remote_prefill": True, "remote_host": "10.0.0.1"},
    "ec_transfer_params": {"peer_host": "10.0.0.1"},
    "priority": -1000,
    "request_id": "another's",
}


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("inside", [False, True])
def test_an_engine_takes_no_orders_from_clients(name: str, inside: bool) -> None:
    given: dict[str, Any] = {name: VALUES[name]}
    with pytest.raises(ApiError) as caught:
        refuse_control({"vllm_xargs": given} if inside else given)
    refused = caught.value
    assert (refused.status, refused.code, refused.param) == (400, "unsupported_field", name)
    assert "10.0.0.1" not in refused.message


@pytest.mark.parametrize(
    "content",
    [
        dict.fromkeys(CONTROLS),
        {"vllm_xargs": {"other": 1}},
        {"vllm_xargs": ["priority"]},
        {"messages": [{"role": "user", "content": "hi", "priority": 1}]},
        {"metadata": {"request_id": "mine", "priority": "high"}},
    ],
)
def test_what_steers_nothing_passes(content: dict[str, Any]) -> None:
    refuse_control(content)


def test_no_answer_goes_on_for_a_request_that_could_not_be_asked() -> None:
    assert not CONTROLS.keys() & {*_HARMLESS, *_WITHOUT_EFFECT}
