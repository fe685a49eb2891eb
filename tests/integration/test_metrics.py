"""What `/metrics` shows: for all gateways of a node, without secrets, with bounded labels."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.config import keys
from orchestrator.gateway import replicas
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.metrics import LABELS
from orchestrator.gateway.routes import OTHER, ROUTES
from tests.integration.engines import CONFIG, World, apply, run, samples, serve_gateway

CHAT = "/v1/chat/completions"
REQUESTS = "orchestrator_requests_total"


async def shown(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(f"{url}/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)


def requests(exposition: str) -> dict[str, float]:
    """Answers with 200, by gateway."""
    return {
        sample.labels["gateway"]: sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == REQUESTS and sample.labels["code"] == "200"
    }


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.gateway.app.PUBLISH_S", 0.05)


async def ask(w: World, url: str, times: int) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    headers = {"authorization": f"Bearer {w.keys['open']}"}
    for _ in range(times):
        async with w.session.post(url + CHAT, json=body, headers=headers) as answer:
            assert answer.status == 200


def test_whichever_gateway_of_a_node_is_asked_it_answers_for_all(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with serve_gateway(tmp_path) as other:
            await ask(w, w.url, 2)
            await ask(w, other, 3)
            for url in (w.url, other):

                async def all_there(url: str = url) -> bool:
                    return sorted(requests(await shown(w.session, url)).values()) == [2, 3]

                await until(all_there)

    run(tmp_path, test)


def test_a_gateway_that_has_stopped_is_shown_no_more(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        await ask(w, w.url, 1)
        async with serve_gateway(tmp_path) as other:
            await ask(w, other, 1)

            async def both() -> bool:
                return len(requests(await shown(w.session, w.url))) == 2

            await until(both)

        async def one() -> bool:
            return len(requests(await shown(w.session, w.url))) == 1

        await until(one)

    run(tmp_path, test)


def test_what_a_killed_gateway_left_is_removed(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        await ask(w, w.url, 1)
        state = {REQUESTS: [[["open", "m", "onprem", "a-home", "200", CHAT], 7]]}
        left = [tmp_path / "metrics" / name for name in ("dead.json", "dead.tmp")]
        for file in left:
            file.write_bytes(orjson.dumps(state))
        assert 7 in requests(await shown(w.session, w.url)).values()
        long_ago_s = time.time() - replicas.STALE_S - 1
        for file in left:
            os.utime(file, (long_ago_s, long_ago_s))
        assert 7 not in requests(await shown(w.session, w.url)).values()
        assert not any(file.exists() for file in left)

    run(tmp_path, test)


@pytest.mark.parametrize(
    "odd", [b"", b"{", b"[]", b'{"a": 1}', b'{"orchestrator_errors_total": 3}']
)
def test_a_file_that_holds_something_else_spoils_nothing(tmp_path: Path, odd: bytes) -> None:
    async def test(w: World) -> None:
        await ask(w, w.url, 1)
        (tmp_path / "metrics").mkdir(exist_ok=True)
        (tmp_path / "metrics" / "odd.json").write_bytes(odd)
        assert list(requests(await shown(w.session, w.url)).values()) == [1]

    run(tmp_path, test)


def test_without_a_place_for_its_file_a_gateway_serves_on(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("in the way")

    async def test(w: World) -> None:
        await ask(w, w.url, 1)
        assert list(requests(await shown(w.session, w.url)).values()) == [1]

    run(tmp_path, test)


def test_a_stream_tells_of_its_times_and_tokens(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True, max_tokens=5) as answer:
            await answer.read()
        shown = await w.metrics()
        where = {"workload": "open", "model": "m", "pool": "a-home"}
        for name in ("time_to_first_token", "time_per_output_token"):
            assert samples(shown, f"gen_ai_server_{name}_seconds_count") == [(where, 1)]
        ((labels, per_token_s),) = samples(shown, "gen_ai_server_time_per_output_token_seconds_sum")
        assert labels == where
        assert per_token_s >= 0.001, "as slow as the engine at least"
        tokens = {labels["type"]: n for labels, n in samples(shown, "orchestrator_tokens_total")}
        assert tokens == {"input": 4, "output": 5}
        assert samples(shown, "orchestrator_classification_seconds_count") == [
            ({"workload": "open"}, 1)
        ]

    run(tmp_path, test)


def test_failed_attempts_and_retries_are_told_apart(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 200
        attempts = {
            (labels["pool"], labels["kind"], labels["outcome"]): n
            for labels, n in samples(await w.metrics(), "orchestrator_attempts_total")
        }
        assert attempts == {
            ("a-home", "first", "status_500"): 1,
            ("b-away", "retry", "complete"): 1,
        }

    run(tmp_path, test, home="status")


def test_an_endpoint_that_is_left_alone_is_shown(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        for _ in range(3):
            async with w.post() as answer:
                assert answer.status == 200
        ejected = samples(await w.metrics(), "orchestrator_ejected_endpoints")
        assert ejected == [({"pool": "a-home", "variant": "m-1"}, 1)]

    run(tmp_path, test, home="status")


def test_refusals_are_counted_by_their_code(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post("closed") as answer:
            assert answer.status == 503
        async with w.post(model="x") as answer:
            assert answer.status == 404
        errors = {
            (labels["workload"], labels["error_type"])
            for labels, _ in samples(await w.metrics(), "orchestrator_errors_total")
        }
        assert errors == {("closed", "upstream_failed"), ("open", "model_not_found")}

    run(tmp_path, test, home="status")


def test_what_never_became_a_request_is_counted(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(w.url.split(":")[-1]))
        writer.write(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert b"400" in await reader.readline()
        writer.close()
        refused = samples(await w.metrics(), "orchestrator_refused_connections_total")
        assert refused == [({"code": "400"}, 1)]

    run(tmp_path, test)


def test_there_is_no_secret_among_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_SESSION_KEY", "canary-of-the-sessions")
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", "canary-of-the-controller")

    async def test(w: World) -> None:
        async with w.post(messages=[{"role": "user", "content": "canary-of-content"}]) as answer:
            assert answer.status == 200
        metrics = await w.metrics()
        stored = "".join(f.read_text() for f in (tmp_path / "metrics").iterdir())
        for text in (metrics, stored):
            assert "canary" not in text
            assert w.keys["open"] not in text

    run(tmp_path, test)


# What clients can choose, and no label may take.

WORDS = st.one_of(
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), min_size=1, max_size=20),
    st.sampled_from(["m", "open", "closed", "unknown", "overflow", "../..", "{model}", "a-home"]),
)
PATHS = st.one_of(
    st.just(CHAT),
    st.sampled_from([r.path for r in ROUTES]),
    WORDS.map(lambda w: f"/v1/models/{w}"),
    WORDS.map(lambda w: f"/v1/files/{w}/content"),
    WORDS.map(lambda w: f"/v1/batches/{w}/{w}"),
    WORDS.map(lambda w: f"/{w}"),
)
BODIES = st.one_of(
    WORDS.map(lambda w: {"model": w, "messages": [{"role": "user", "content": w}]}),
    st.dictionaries(WORDS, WORDS),
)
HEADERS = st.dictionaries(
    st.one_of(
        st.sampled_from(
            ["x-request-id", "x-orchestrator-session", "x-orchestrator-data-class", "traceparent"]
        ),
        WORDS,
    ),
    WORDS,
    max_size=3,
)
METHODS = st.one_of(st.just("POST"), st.sampled_from(["GET", "DELETE"]), WORDS)
ASKED = st.tuples(METHODS, PATHS, HEADERS, BODIES, st.booleans())

CONFIGURED = {
    "workload": {"", "open", "closed"},
    "model": {"", "unknown", "m"},
    "zone": {"", "onprem", "cloud"},
    "pool": {"", "a-home", "b-away"},
    "variant": {"m-1"},
    "endpoint": {OTHER, *(r.path for r in ROUTES)},
}
"""Every value that these labels may take; that of others is held to its cap."""


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Gateway]:
    """An application without a server: it takes what no HTTP parser would let through."""
    gateway = Gateway(directory)
    started, stop = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, str]:
        if started.is_set():
            await stop.wait()
        return {"type": "lifespan"}

    async def send(_: Any) -> None:
        started.set()

    lifespan = asyncio.create_task(gateway({"type": "lifespan"}, receive, send))
    await started.wait()
    try:
        yield gateway
    finally:
        stop.set()
        await lifespan


async def call(
    gateway: Gateway, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> bytes:
    asked, answer = [body], b""

    async def receive() -> dict[str, Any]:
        if not asked:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": asked.pop()}

    async def send(message: Any) -> None:
        nonlocal answer
        answer += message.get("body", b"")

    raw = [(k.encode("latin-1").lower(), v.encode("latin-1")) for k, v in headers.items()]
    await gateway({"type": "http", "method": method, "path": path, "headers": raw}, receive, send)
    return answer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory with a configuration in force whose engines are not there, and a key."""
    directory = tmp_path_factory.mktemp("state")
    gone = "http://127.0.0.1:9"
    text = CONFIG.format(home=gone, away=gone, controller=gone, total_s=5, max_open=10)
    (directory / "all.yaml").write_text(text)
    key = keys.create(directory, "open")[1]
    apply(directory)
    return directory, key


@settings(max_examples=40, deadline=None)
@given(st.lists(ASKED, min_size=1, max_size=25))
def test_nothing_that_a_client_chooses_becomes_a_label(
    made: tuple[Path, str],
    asked: list[tuple[str, str, dict[str, str], dict[str, Any], bool]],
) -> None:
    directory, key = made

    async def inside() -> str:
        async with running(directory) as gateway:
            for method, path, headers, body, known in asked:
                given_key = {"authorization": f"Bearer {key}"} if known else {}
                await call(gateway, method, path, {**headers, **given_key}, orjson.dumps(body))
            return (await call(gateway, "GET", "/metrics", {})).decode()

    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(asyncio.run(inside())):
        for sample in family.samples:
            for label, value in sample.labels.items():
                found.setdefault(label, set()).add(value)
    for label, values in CONFIGURED.items():
        assert found.get(label, set()) <= values
    for label, values in found.items():
        if label in LABELS and LABELS[label].cap.isdecimal():
            assert len(values) <= int(LABELS[label].cap)
    assert set(found) <= {*LABELS, "le"}
