"""Whose line it is: looked up each time that one runs."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.config.spec import Configuration, JwtIssuer, Key, Scope
from orchestrator.gateway.line import NoCaller, caller_of
from tests.worlds import small

SCOPE = Scope(models=["m"])


def exchange(
    expires_at: datetime | None = None, workload: str = "records", issuer_for: str = "records"
) -> Any:
    key = Key(
        id="a" * 8,
        workload=workload,
        sha256="0" * 64,
        created_at=datetime.now(UTC),
        expires_at=expires_at,
        scope=SCOPE,
    )
    issuer = JwtIssuer.model_validate(
        {
            "issuer": "i",
            "audience": "a",
            "jwks_file": "f",
            "workloads": [{"claims": {}, "workload": issuer_for}],
        }
    )
    world = small()
    configuration: Configuration = world.configuration
    gateway = configuration.gateway.model_copy(update={"jwt": [issuer]})
    catalogue = SimpleNamespace(
        workloads=world.workloads,
        configuration=configuration.model_copy(update={"gateway": gateway}),
    )
    return SimpleNamespace(catalogue=catalogue, keys={key.id: key})


def test_it_is_the_keys_with_its_scope_of_this_moment() -> None:
    caller = caller_of(exchange(), "a" * 8, "records", Scope(models=["other"]).model_dump_json())
    assert (caller.id, caller.workload, caller.scope) == ("a" * 8, "records", SCOPE)


@pytest.mark.parametrize(
    ("held", "key_id", "workload", "code"),
    [
        (exchange(), "b" * 8, "records", "api_key_revoked"),
        (exchange(workload="assistant"), "a" * 8, "records", "api_key_revoked"),
        (
            exchange(expires_at=datetime.now(UTC) - timedelta(seconds=1)),
            "a" * 8,
            "records",
            "api_key_expired",
        ),
        (exchange(), "a" * 8, "nobody", "workload_gone"),
        (exchange(issuer_for="assistant"), "jwt:abc", "records", "issuer_gone"),
    ],
)
def test_a_credential_that_opens_nothing_any_more_is_told_so(
    held: Any, key_id: str, workload: str, code: str
) -> None:
    with pytest.raises(NoCaller) as caught:
        caller_of(held, key_id, workload)
    assert caught.value.code == code


def test_a_tokens_batch_keeps_the_scope_that_it_was_made_with() -> None:
    caller = caller_of(exchange(), "jwt:abc", "records", SCOPE.model_dump_json())
    assert (caller.id, caller.scope) == ("jwt:abc", SCOPE)
