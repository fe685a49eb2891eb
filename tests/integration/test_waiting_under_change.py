"""Rules, keys and tokens that change while a request waits."""

import asyncio
import json
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config import keys
from orchestrator.config.store import PolicyStore
from orchestrator.gateway import jwks
from orchestrator.gateway.sensitivity import Labels, Sensitivity
from tests.integration.engines import (
    apply,
)
from tests.integration.waiting import Stack, made_known, stack
from tests.tokens import ISSUER, SigningKey, key_set


def becomes_restricted(tmp_path: Path, s: Stack) -> None:
    """Rules come in force by which the content of the waiting requests must stay at home."""
    file = tmp_path / "all.yaml"
    text_before = file.read_text()
    marked = "allowed_zones: [onprem, cloud]\n    markers: [patient]\n"
    file.write_text(text_before.replace("allowed_zones: [onprem, cloud]\n", marked))
    assert file.read_text() != text_before
    apply(tmp_path)
    applied: Any = PolicyStore(tmp_path).current()
    s.fleet.config_version = applied.version


@pytest.mark.parametrize("requests", [1, 20])
def test_requests_that_wait_are_read_again_by_new_rules_and_off_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    loops, readings = set[int](), []
    read = Sensitivity.read

    def noted(*arguments: Any) -> Labels:
        readings.append(threading.get_ident())
        return read(*arguments)

    async def inside() -> None:
        loops.add(threading.get_ident())
        async with stack(tmp_path, "priority: 10", of_open="when_infeasible: {queue_s: 20}") as s:
            monkeypatch.setattr(Sensitivity, "read", noted)
            waiting = s.starts(requests, "open", content="About a patient.")
            await s.queued(requests)
            readings.clear()
            becomes_restricted(tmp_path, s)
            # The cloud alone has a replica, where they might have gone by the rules of before.
            s.fleet.becomes("b-away/m-1")
            await made_known(s)
            await s.until(lambda: bool(readings))
            s.fleet.becomes("a-home/m-1", "b-away/m-1")
            answers = await asyncio.gather(*waiting)
            assert {(a.status, a.pool) for a in answers} == {(200, "a-home")}
            assert not s.away.received

    asyncio.run(inside())
    assert len(readings) == requests
    assert not loops & set(readings)


def test_rules_that_change_while_a_waiting_request_is_read_again_are_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read slowly by rules that let it go to the cloud, while those come that do not."""
    read, reading, go_on = Sensitivity.read, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Labels:
        labels = read(*arguments)
        reading.set()
        go_on.wait(20)
        return labels

    async def inside() -> None:
        async with stack(tmp_path, "priority: 10", of_open="when_infeasible: {queue_s: 20}") as s:
            (waiting,) = s.starts(1, "open", content="About a patient.")
            await s.queued(1)
            monkeypatch.setattr(Sensitivity, "read", slow)
            file = tmp_path / "all.yaml"
            file.write_text(file.read_text().replace("ttft_p95_s: 1", "ttft_p95_s: 2"))
            apply(tmp_path)
            applied: Any = PolicyStore(tmp_path).current()
            s.fleet.config_version = applied.version
            s.fleet.becomes("b-away/m-1")
            await s.until(reading.is_set)
            becomes_restricted(tmp_path, s)
            s.fleet.becomes("b-away/m-1")
            await made_known(s)
            go_on.set()
            await asyncio.sleep(0.3)
            assert not waiting.done()
            s.fleet.becomes("a-home/m-1", "b-away/m-1")
            answer = await waiting
            assert (answer.status, answer.pool) == (200, "a-home")
            assert not s.away.received

    asyncio.run(inside())


def test_a_waiting_request_for_a_model_that_its_workload_loses_is_refused(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}") as s:
            (waiting,) = s.starts(1)
            await s.queued(1)
            file = tmp_path / "all.yaml"
            rest = file.read_text().replace("- name: m\n", "- name: other\n")
            file.write_text(rest.replace("models: [m]", "models: [other]"))
            apply(tmp_path)
            applied: Any = PolicyStore(tmp_path).current()
            s.fleet.config_version = applied.version
            s.fleet.becomes()
            answer = await waiting
            assert (answer.status, answer.code) == (404, "model_not_found")

    asyncio.run(inside())


@pytest.mark.parametrize("how", ["revoked", "expired", "another workload", "another scope"])
def test_a_key_that_ends_while_its_request_waits_sends_nothing(tmp_path: Path, how: str) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}") as s:
            key, s.keys["closed"] = keys.create(tmp_path, "closed")
            (waiting,) = s.starts(1)
            await s.queued(1)
            if how == "revoked":
                keys.revoke(tmp_path, key.id)
            elif how == "expired":
                keys.rotate(tmp_path, key.id, timedelta())
            else:
                old, new = {
                    "another workload": ({"workload": "closed"}, {"workload": "open"}),
                    "another scope": ({}, {"scope": {"models": ["other"]}}),
                }[how]
                document = yaml.safe_load((tmp_path / keys.FILE).read_text())
                (entry,) = [e for e in document["keys"] if e["id"] == key.id]
                assert old.items() <= entry.items()
                entry |= new
                (tmp_path / keys.FILE).write_text(yaml.safe_dump(document))
            # Who asks with a key that holds waits behind it, and goes.
            _, s.keys["closed"] = keys.create(tmp_path, "closed")
            (other,) = s.starts(1, content="Another.")
            await s.queued(2)
            s.fleet.becomes("a-home/m-1")
            answer = await waiting
            expected = (
                (403, "outside_scope") if how == "another scope" else (401, "invalid_api_key")
            )
            assert (answer.status, answer.code) == expected
            assert (await other).status == 200
            (received,) = s.home.received
            assert received.body["messages"][0]["content"] == "Another."

    asyncio.run(inside())


@pytest.mark.parametrize("how", ["expired", "key taken back", "issuer removed"])
def test_a_token_that_ends_while_its_request_waits_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(jwks, "RETRY_S", 0)
    signing, published = SigningKey("k1"), tmp_path / "jwks.json"
    published.write_bytes(key_set(signing))
    rule = {"claims": {"sub": "somebody"}, "workload": "closed"}
    jwt = {
        "issuer": ISSUER,
        "audience": "inference",
        "jwks_file": str(published),
        "refresh_s": 10,
        "leeway_s": 0,
        "workloads": [rule],
    }
    written = f"jwt: {json.dumps([jwt])}\n  max_queued_requests: 1000"

    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}", gateway=written) as s:
            lives_s = 2 if how == "expired" else 60
            ends_s = int(time.time()) + lives_s
            s.keys["closed"] = signing.token(sub="somebody", exp=ends_s)
            (waiting,) = s.starts(1)
            await s.queued(1)
            if how == "expired":
                await asyncio.sleep(ends_s + 0.1 - time.time())
            elif how == "key taken back":
                published.write_bytes(key_set(SigningKey("k2")))
                # Whoever names a key that is not known makes the gateway look again.
                s.keys["closed"] = SigningKey("k2").token(sub="somebody")
                assert (await s.answer()).status == 401
            else:
                file = tmp_path / "all.yaml"
                file.write_text(file.read_text().replace(written, "max_queued_requests: 1000"))
                apply(tmp_path)
                applied: Any = PolicyStore(tmp_path).current()
                s.fleet.config_version = applied.version
            s.fleet.becomes("a-home/m-1")
            answer = await waiting
            assert (answer.status, answer.code) == (401, "invalid_api_key")
            assert not s.home.received

    asyncio.run(inside())


def test_a_token_that_holds_is_taken_after_the_wait_also_under_new_rules(tmp_path: Path) -> None:
    signing, published = SigningKey("k1"), tmp_path / "jwks.json"
    published.write_bytes(key_set(signing))
    rule = {"claims": {"sub": "somebody"}, "workload": "closed"}
    jwt = {
        "issuer": ISSUER,
        "audience": "inference",
        "jwks_file": str(published),
        "workloads": [rule],
    }
    written = f"jwt: {json.dumps([jwt])}\n  max_queued_requests: 1000"

    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}", gateway=written) as s:
            s.keys["closed"] = signing.token(sub="somebody")
            (waiting,) = s.starts(1)
            await s.queued(1)
            becomes_restricted(tmp_path, s)
            s.fleet.becomes("a-home/m-1")
            assert (await waiting).status == 200

    asyncio.run(inside())
