"""The gateway over real HTTP, in front of engines that answer as vLLM does, or fail."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from orchestrator.gateway import upstream
from orchestrator.gateway.decisions import Decisions
from tests.integration.engines import World, billed, run, text

ANSWER = " t0 t1 t2"


def test_a_whole_answer_passes_and_is_recorded(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 200
            body = await answer.json()
            assert body["choices"][0]["message"]["content"] == ANSWER
            assert body["usage"]["completion_tokens"] == 3
            assert answer.headers["x-orchestrator-pool"] == "a-home"

    run(tmp_path, test)
    assert billed(
        tmp_path, "workload, zone, prompt_tokens, completion_tokens, usage_source, outcome"
    ) == [("open", "onprem", 4, 3, "engine", "complete")]


def test_a_stream_passes_without_the_usage_that_nobody_asked_for(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True) as answer:
            body = await answer.text()
        assert text(body) == ANSWER
        assert '"usage"' not in body
        assert body.endswith("data: [DONE]\n\n")

    run(tmp_path, test)


def test_a_stream_carries_its_usage_when_asked(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True, stream_options={"include_usage": True}) as answer:
            body = await answer.text()
        assert text(body) == ANSWER
        assert body.count('"usage"') == 1

    run(tmp_path, test)


def test_tokens_are_counted_when_the_engine_gives_no_usage(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True) as answer:
            assert text(await answer.text()) == ANSWER

    run(tmp_path, test, home="no_usage")
    assert billed(tmp_path, "completion_tokens, usage_source") == [(3, "counted")]


# Without a stream, silence is only an engine at work.
SILENT = {"hang", "stall"}
FAULTS = ["status", "hang", "cut", "stall", "error_event"]
EARLY = [(f, s) for f in FAULTS for s in (True, False) if s or f not in SILENT]


@pytest.mark.parametrize(("fault", "stream"), EARLY)
def test_before_the_first_token_a_failed_attempt_is_made_elsewhere(
    tmp_path: Path, fault: str, stream: bool
) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=stream) as answer:
            assert answer.status == 200
            assert answer.headers["x-orchestrator-pool"] == "b-away"
            body = await answer.text()
            assert (text(body) if stream else ANSWER in body and ANSWER) == ANSWER
        assert len(w.home.received) == len(w.away.received) == 1

    run(tmp_path, test, home=fault)


def test_a_body_that_is_not_json_is_a_failed_attempt(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.headers["x-orchestrator-pool"] == "b-away"

    run(tmp_path, test, home="malformed")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", [True, False])
def test_restricted_data_is_refused_rather_than_sent_away(
    tmp_path: Path, fault: str, stream: bool
) -> None:
    async def test(w: World) -> None:
        async with w.post("closed", stream=stream) as answer:
            if fault in SILENT and not stream:
                # Nobody is blamed for taking all the time that there is.
                assert answer.status == 504
                assert "upstream_failures_total{" not in await w.metrics()
            else:
                assert answer.status == 503
                assert "retry-after" in answer.headers
            assert "secret" not in await answer.text()
        assert w.home.received
        assert not w.away.received

    run(tmp_path, test, home=fault, total_s=1.5)


def test_a_whole_answer_may_take_all_the_time_that_a_request_has(tmp_path: Path) -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(1.5)
        return web.json_response({"choices": [], "usage": None})

    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 200
            assert answer.headers["x-orchestrator-pool"] == "a-home"

    run(tmp_path, test, home=slow)


def test_signs_of_life_without_a_token_win_no_time(tmp_path: Path) -> None:
    async def preamble(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b": still alive\n\n")
            await asyncio.sleep(0.05)

    async def test(w: World) -> None:
        async with asyncio.timeout(20), w.post(stream=True) as answer:
            assert answer.headers["x-orchestrator-pool"] == "b-away"

    run(tmp_path, test, home=preamble)


def test_an_answer_that_has_had_its_time_ends_typed_and_blames_nobody(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with asyncio.timeout(20), w.post(stream=True, max_tokens=4000) as answer:
            body = await answer.text()
        assert '"code":"time_limit"' in body
        assert "[DONE]" not in body
        assert "upstream_failures_total{" not in await w.metrics()

    run(tmp_path, test, total_s=0.5)
    assert billed(tmp_path, "outcome") == [("out_of_time",)]


def test_a_client_that_does_not_read_is_cut_off_and_the_endpoint_is_not_blamed(
    tmp_path: Path,
) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        event = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % (b"a" * 100_000)
        while True:
            await response.write(event)

    async def test(w: World) -> None:
        request = b'{"model": "m", "messages": [1], "stream": true}'
        _reader, writer = await asyncio.open_connection("127.0.0.1", int(w.url.split(":")[-1]))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer "
            + w.keys["closed"].encode()
            + b"\r\ncontent-length: %d\r\n\r\n" % len(request)
            + request
        )
        _reader._transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            while 'code="499"' not in await w.metrics():
                await asyncio.sleep(0.05)
        assert "upstream_failures_total{" not in await w.metrics()
        writer.close()

    run(tmp_path, test, home=flood)


def test_the_last_endpoint_is_tried_again_however_often_it_failed(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        for _ in range(5):
            async with w.post("closed") as answer:
                assert answer.status == 503
        assert len(w.home.received) == 5
        w.home.faults.clear()
        async with w.post("closed") as answer:
            assert answer.status == 200

    run(tmp_path, test, home="status")


def test_an_answer_too_large_to_hold_is_a_failed_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "MAX_BODY_BYTES", 1000)

    async def large(_: web.Request) -> web.Response:
        return web.json_response({"choices": ["a" * 1000]})

    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.headers["x-orchestrator-pool"] == "b-away"

    run(tmp_path, test, home=large)


def test_a_whole_answer_too_is_read_in_time_or_cut_off(tmp_path: Path) -> None:
    async def large(_: web.Request) -> web.Response:
        return web.json_response({"choices": ["a" * 30_000_000]})

    async def test(w: World) -> None:
        async with w.post() as answer:
            await asyncio.sleep(3.2)
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        assert "upstream_failures_total{" not in await w.metrics()

    run(tmp_path, test, home=large, total_s=3)


def test_a_large_answer_arrives_whole(tmp_path: Path) -> None:
    sent = {"choices": ["a" * 1_000_000]}

    async def large(_: web.Request) -> web.Response:
        return web.json_response(sent)

    async def test(w: World) -> None:
        async with w.post() as answer:
            assert await answer.json() == sent

    run(tmp_path, test, home=large)


def test_the_limit_of_open_requests_counts_those_whose_body_is_still_coming(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", int(w.url.split(":")[-1]))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer "
            + w.keys["open"].encode()
            + b"\r\ncontent-length: 100\r\n\r\n{"
        )
        async with asyncio.timeout(10):
            while True:
                async with w.post() as answer:
                    if answer.status == 429:
                        break
                await asyncio.sleep(0.01)
        assert answer.headers["retry-after"] == "1"
        writer.close()
        async with asyncio.timeout(10):
            while True:
                async with w.post() as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.01)

    run(tmp_path, test, max_open=1)


@pytest.mark.parametrize("usage", [[1], "many", {"prompt_tokens": "3"}, {"prompt_tokens": 2**70}])
@pytest.mark.parametrize("stream", [True, False])
def test_an_odd_usage_breaks_no_answer_and_is_not_what_is_charged(
    tmp_path: Path, usage: object, stream: bool
) -> None:
    async def odd(request: web.Request) -> web.Response:
        whole = {"choices": [], "usage": usage}
        if not stream:
            return web.json_response(text=json.dumps(whole))
        token = {"choices": [{"delta": {"content": "a"}}]}
        events = [json.dumps(event, separators=(",", ":")) for event in (token, token, whole)]
        return web.Response(text="".join(f"data: {e}\n\n" for e in [*events, "[DONE]"]))

    async def test(w: World) -> None:
        async with w.post(stream=stream) as answer:
            assert answer.status == 200
            assert not stream or (await answer.text()).endswith("data: [DONE]\n\n")

    run(tmp_path, test, home=odd)
    # The prompt by its length, the answer by its events.
    assert billed(tmp_path, "prompt_tokens, completion_tokens, usage_source, outcome") == [
        (18, 2 if stream else 0, "counted", "complete")
    ]


def test_an_attempt_that_nobody_took_up_has_used_nothing_and_the_ledger_says_so(
    tmp_path: Path,
) -> None:
    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 200

    run(tmp_path, test, home_is_dead=True)
    assert billed(tmp_path, "pool, outcome, prompt_tokens, usage_source") == [
        ("a-home", "unreachable", 0, "none"),
        ("b-away", "complete", 4, "engine"),
    ]


ODD = [
    "data: [1]",
    'data: {"choices":[1]}',
    'data: {"choices":[{"index":0,"delta":"x"}]}',
    'data: {"choices":[],"usage":{',
    "data: " + "a" * 2**20,
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("tokens", [0, 2])
def test_an_event_that_no_engine_should_send_is_a_failure_like_any_other(
    tmp_path: Path, odd: str, tokens: int
) -> None:
    async def engine(request: web.Request) -> web.StreamResponse:
        token = json.dumps({"choices": [{"delta": {"content": " t"}}]})
        answer = web.StreamResponse()
        await answer.prepare(request)
        if tokens:
            await answer.write(f"data: {token}\n\n".encode() * tokens)
            # What is wrong with a first packet is known before anything was passed on.
            await asyncio.sleep(0.05)
        await answer.write(f"{odd}\n\ndata: [DONE]\n\n".encode())
        return answer

    async def test(w: World) -> None:
        async with w.post(stream=True) as answer:
            assert answer.status == 200
            body = await answer.text()
        if tokens:
            assert text(body) == " t t"
            assert '"code":"stream_interrupted"' in body
            assert "[DONE]" not in body
        else:
            assert text(body) == ANSWER

    run(tmp_path, test, home=engine)


def test_every_answer_is_counted_with_labels_from_the_configuration(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        good = {"authorization": f"Bearer {w.keys['open']}"}
        chat = "/v1/chat/completions"
        cases: list[tuple[str, str, dict[str, str], bytes, tuple[str, str, str]]] = [
            ("POST", chat, {}, b"{}", ("", "", "401")),
            ("POST", chat, good, b"{", ("open", "", "400")),
            ("POST", chat, good, b" " * 3000, ("open", "", "413")),
            ("POST", chat, good, b'{"model": "x", "messages": [1]}', ("open", "unknown", "404")),
            (
                "POST",
                chat,
                good,
                b'{"model": "m", "messages": [{"content": "a"}]}',
                ("open", "m", "200"),
            ),
            ("GET", chat, good, b"", ("", "", "405")),
            ("POST", "/v1/nothing", good, b"{}", ("", "", "404")),
        ]
        for method, path, headers, body, (workload, model, code) in cases:
            async with w.session.request(
                method, w.url + path, data=body, headers=headers
            ) as answer:
                assert answer.status == int(code)
            pool, zone = ("a-home", "onprem") if code == "200" else ("", "")
            assert {
                "code": code,
                "endpoint": path if path == chat else "other",
                "model": model,
                "pool": pool,
                "workload": workload,
                "zone": zone,
            } in await w.series("orchestrator_requests_total")

    run(tmp_path, test)


def test_a_failure_of_our_own_is_told_without_its_reason_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Decisions, "of", broken)

    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 500
            assert "secret" not in await answer.text()
        (counted,) = await w.series("orchestrator_requests_total")
        assert counted.items() >= {"code": "500", "model": "m", "pool": ""}.items()

    run(tmp_path, test)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_there_is_nothing_at_an_unknown_path_whatever_the_method(
    tmp_path: Path, method: str
) -> None:
    async def test(w: World) -> None:
        async with w.session.request(method, f"{w.url}/v1/nothing") as answer:
            assert answer.status == 404
        async with w.session.request("DELETE", f"{w.url}/v1/models") as answer:
            assert answer.status == 405

    run(tmp_path, test)


@pytest.mark.parametrize("classes", [["restricted"], ["restricted", "public"]])
def test_a_request_that_calls_itself_restricted_stays_at_home(
    tmp_path: Path, classes: list[str]
) -> None:
    """Of several classes the highest counts."""

    async def test(w: World) -> None:
        headers = [
            ("authorization", f"Bearer {w.keys['open']}"),
            *(("x-orchestrator-data-class", label) for label in classes),
        ]
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        url = f"{w.url}/v1/chat/completions"
        async with w.session.post(url, json=body, headers=headers) as answer:
            assert answer.status == 503
        assert not w.away.received

    run(tmp_path, test, home="status")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_upstream_that_redirects_has_failed_and_content_follows_no_location(
    tmp_path: Path, status: int
) -> None:
    paths: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=status, headers={"location": f"http://{request.host}/other"})

    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.headers["x-orchestrator-pool"] == "b-away"
        async with w.post("closed") as answer:
            assert answer.status == 503

    run(tmp_path, test, home=redirect)
    assert set(paths) == {"/v1/chat/completions"}


@pytest.mark.parametrize("fault", ["cut:2", "stall:2", "error_event:2"])
def test_after_the_first_token_a_failure_ends_typed_and_repeats_nothing(
    tmp_path: Path, fault: str
) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True) as answer:
            body = await answer.text()
        assert text(body) == " t0 t1"
        assert '"code":"stream_interrupted"' in body
        assert "[DONE]" not in body
        assert not w.away.received

    run(tmp_path, test, home=fault)


def test_a_client_that_leaves_cancels_its_upstream(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        request = asyncio.create_task(w.post("closed", stream=True).__aenter__())
        while not w.home.received:
            await asyncio.sleep(0.01)
        request.cancel()
        for _ in range(150):
            if w.home.cancelled:
                break
            await asyncio.sleep(0.01)
        assert w.home.cancelled == 1

    run(tmp_path, test, home="stall")


def test_bad_input_gets_4xx_in_openais_shape(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        good = {"authorization": f"Bearer {w.keys['open']}"}
        url = f"{w.url}/v1/chat/completions"
        cases: list[tuple[int, dict[str, str], bytes]] = [
            (401, {}, b"{}"),
            (401, {"authorization": "Bearer sk-none-such"}, b"{}"),
            (400, good, b"{"),
            (400, good, b"[]"),
            (400, good, b'{"model": "m"}'),
            (400, good, b'{"model": "m", "messages": [1], "stream": "yes"}'),
            (400, {**good, "x-orchestrator-data-class": "secret"}, b'{"model":"m","messages":[1]}'),
            (404, good, b'{"model": "other", "messages": [1]}'),
            (413, good, b" " * 3000),
        ]
        for status, headers, body in cases:
            async with w.session.post(url, data=body, headers=headers) as answer:
                assert answer.status == status, body
                error = (await answer.json())["error"]
                assert set(error) == {"message", "type", "param", "code"}
                assert answer.headers["x-request-id"]
        assert not w.home.received

    run(tmp_path, test)


def test_what_the_engine_finds_wrong_with_a_request_reaches_the_client(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(messages=[{"role": "user", "content": 7}]) as answer:
            assert answer.status == 400
            assert "not a request" in (await answer.json())["error"]["message"]
        assert not w.away.received

    run(tmp_path, test)
