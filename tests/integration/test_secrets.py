"""One canary in every credential: whatever happens, it is in no log, no metric, no record and no
answer, and no header goes further than it must."""

import asyncio
import base64
import gzip
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from orchestrator.gateway.access import Access
from orchestrator.gateway.decisions import Decisions
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.intake import Intake
from orchestrator.gateway.placement import Placement
from orchestrator.gateway.records import Records
from orchestrator.gateway.upstream import Upstreams
from tests.integration.engines import World, world
from tests.integration.test_sockets import port_of

CANARY = "c4n4ry"
UPSTREAM_TOKEN = f"sk-{CANARY}-of-our-own-at-the-endpoint"
ENVIRONMENT = {
    "ORCHESTRATOR_TOKEN": f"{CANARY}-controller-token",
    "ORCHESTRATOR_SESSION_KEY": f"{CANARY}-session-key-of-16",
    "HOME_TOKEN": UPSTREAM_TOKEN,
    "AWAY_TOKEN": UPSTREAM_TOKEN,
}
TOKENS = {
    f"name: {name}, zone: {zone}, kind: openai, url": (
        f"name: {name}, zone: {zone}, kind: openai, token_env: {name.upper()}_TOKEN, url"
    )
    for name, zone in (("home", "onprem"), ("away", "cloud"))
}
BASIC = base64.b64encode(f"user:{CANARY}".encode()).decode()
JWT = "eyJhbGciOiJIUzI1NiJ9." + base64.urlsafe_b64encode(CANARY.encode() * 3).decode() + ".c2ln"
ODD_HEADERS = {
    "api-key": f"sk-{CANARY}",
    "cookie": f"session={CANARY}",
    "proxy-authorization": f"Basic {BASIC}",
    "x-forwarded-for": f"{CANARY}.example",
    "x-forwarded-authorization": f"Bearer {CANARY}",
    "forwarded": f"for={CANARY}",
    "referer": f"https://user:{CANARY}@example.org/?token={CANARY}",
    "user-agent": f"agent/{CANARY}",
    "x-orchestrator-session": f"session {CANARY}",
    "openai-organization": CANARY,
    "x-amz-security-token": CANARY,
    "anthropic-api-key": CANARY,
    "x-upstream-url": f"http://{CANARY}.example/",
    "te": "trailers",
    "accept": f"application/{CANARY}",
}
CHAT = "/v1/chat/completions"
MAY_REACH_AN_ENGINE = {
    *("host", "content-type", "content-length", "x-request-id", "traceparent"),
    "authorization",  # ours
}
MAY_REACH_A_CLIENT = (
    *(b"content-", b"cache-control", b"transfer-encoding"),
    *(b"x-request-id", b"x-orchestrator-", b"x-ratelimit-"),
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, _session_key: None) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


class Watched:
    """All that the gateway says, but to engines."""

    def __init__(self, directory: Path, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
        self._directory, self._caplog, self._capfd = directory, caplog, capfd
        self.answers: list[bytes] = []

    def places(self) -> Iterator[tuple[str, bytes]]:
        formatter = logging.Formatter("%(name)s %(message)s")
        for record in self._caplog.records:
            if record.name.startswith(("aiohttp.server", "aiohttp.access")):
                continue  # of the engine that stands in
            yield f"log {record.name}", formatter.format(record).encode()
        out, err = self._capfd.readouterr()
        yield "stdout", out.encode()
        yield "stderr", err.encode()
        for file in self._directory.rglob("*"):
            if file.is_file():
                data = file.read_bytes()
                yield str(file), gzip.decompress(data) if file.suffix == ".gz" else data
        for number, answer in enumerate(self.answers):
            yield f"answer {number}", answer


def run(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    test: Callable[[World, Watched], Awaitable[None]],
    **how: Any,
) -> None:
    """Runs it, and looks for the canary everywhere."""
    caplog.set_level(logging.DEBUG)
    watched = Watched(tmp_path, caplog, capfd)
    secrets: list[str] = []

    async def inside() -> None:
        async with world(tmp_path, replacing=TOKENS, **how) as w:
            secrets.extend(key.split("-", 2)[2] for key in w.keys.values())
            await test(w, watched)
            watched.answers.append((await w.metrics()).encode())

    asyncio.run(inside())
    assert watched.answers
    needles = [CANARY, BASIC, JWT, *ENVIRONMENT.values(), *secrets]
    for place, said in watched.places():
        for needle in needles:
            assert needle.encode() not in said, f"{needle} in {place}: {said[:2000]!r}"


async def ask(
    w: World,
    watched: Watched,
    path: str = CHAT,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    **body: object,
) -> int:
    """Status; everything of the answer is watched."""
    given = {"authorization": f"Bearer {w.keys['open']}"} | (headers or {})
    whole = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3} | body
    try:
        async with w.session.request(
            method, w.url + path, json=whole, headers=given, allow_redirects=False
        ) as answer:
            raw = b"\n".join(name + b": " + value for name, value in answer.raw_headers)
            watched.answers.append(raw)
            watched.answers.append(await answer.read())
            return answer.status
    except aiohttp.ClientPayloadError:
        return 0


def test_wrong_credentials_of_every_kind_are_told_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(w: World, watched: Watched) -> None:
        for authorization in (
            f"Bearer sk-{CANARY}",
            f"Bearer sk-abcdefgh-{CANARY}",
            f"Bearer {JWT}",
            f"Basic {BASIC}",
            f"{CANARY}",
            f"Bearer {CANARY}\u00ff",
        ):
            assert await ask(w, watched, headers={"authorization": authorization}) == 401
            assert (
                await ask(w, watched, "/v1/models", "GET", {"authorization": authorization}) == 401
            )
        for other in ({"x-api-key": f"sk-{CANARY}"}, {"x-api-key": JWT}, {"authorization": ""}):
            assert await ask(w, watched, headers=ODD_HEADERS | other) == 401
        in_the_url = w.url.replace("://", f"://user:{CANARY}@")
        async with w.session.get(f"{in_the_url}/v1/models") as answer:
            assert answer.status == 401
            watched.answers.append(await answer.read())

    run(tmp_path, caplog, capfd, test)


@pytest.mark.parametrize("stream", [True, False])
def test_what_comes_with_a_good_request_goes_no_further(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    stream: bool,
) -> None:
    received: list[web.Request] = []

    async def engine(request: web.Request) -> web.StreamResponse:
        received.append(request)
        headers = {
            "set-cookie": f"session={CANARY}",
            "x-api-key": CANARY,
            "server": f"engine-{CANARY}",
            "x-request-id": CANARY,
            "location": f"http://{CANARY}.example/",
            "www-authenticate": f"Bearer {UPSTREAM_TOKEN}",
            "access-control-allow-origin": "*",
        }
        token = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
        whole = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
        if stream:
            events = b"data: " + orjson.dumps(token) + b"\n\ndata: [DONE]\n\n"
            return web.Response(body=events, headers=headers)
        return web.Response(body=orjson.dumps(whole), headers=headers)

    async def test(w: World, watched: Watched) -> None:
        path = f"{CHAT}?api_key={CANARY}&key={CANARY}"
        assert await ask(w, watched, path, headers=ODD_HEADERS, stream=stream) == 200
        assert await ask(w, watched, headers=ODD_HEADERS, stream=stream) == 200
        # A cookie that the first answer set would travel with the second.
        for request in received:
            assert set(map(str.lower, request.headers)) <= MAY_REACH_AN_ENGINE
            sent = [value for name, value in request.headers.items() if name != "Authorization"]
            assert CANARY not in " ".join([*sent, request.path_qs])
            assert request.headers["authorization"] == f"Bearer {UPSTREAM_TOKEN}"
        allowed = (
            "content-",
            "x-request-id",
            "x-orchestrator-",
            "cache-control",
            "transfer-",
            "x-ratelimit",
        )
        for line in (
            watched.answers[0].lower().splitlines() + watched.answers[2].lower().splitlines()
        ):
            assert line.decode().startswith(allowed)

    run(tmp_path, caplog, capfd, test, home=engine, away=engine)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        (f"/{CANARY}", "GET", 404),
        (f"/v1/models/{CANARY}", "GET", 404),
        (f"/healthz?token={CANARY}", "GET", 200),
        (f"{CHAT}/{CANARY}", "POST", 404),
        (f"{CHAT}?{CANARY}", "DELETE", 405),
    ],
)
def test_a_path_is_told_nobody(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    path: str,
    method: str,
    status: int,
) -> None:
    async def test(w: World, watched: Watched) -> None:
        assert await ask(w, watched, path, method, ODD_HEADERS) == status

    run(tmp_path, caplog, capfd, test)


@pytest.mark.parametrize(
    "body",
    [
        {"model": f"model-{CANARY}"},
        {"model": f"model-{CANARY}", "stream": True},
        {"stream": CANARY},
        {"max_tokens": CANARY},
        {"stream_options": CANARY, "stream": True},
        {"messages": CANARY},
        {"messages": [{"content": {"type": CANARY}}]},
        {"tools": CANARY, "user": CANARY, CANARY: CANARY},
    ],
)
def test_a_refused_body_is_told_nobody(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    body: dict[str, Any],
) -> None:
    async def test(w: World, watched: Watched) -> None:
        assert await ask(w, watched, headers=ODD_HEADERS, **body) < 500
        bad = {"x-orchestrator-data-class": CANARY}
        assert await ask(w, watched, headers=bad) == 400

    run(tmp_path, caplog, capfd, test)


SHAPES = ("error", "nested", "text", "long")


def echo(status: int, shapes: list[str]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An engine that says in its error all that it was told, and where it lives; in the last of the
    shapes."""

    async def handler(request: web.Request) -> web.StreamResponse:
        shape = shapes[-1]
        said = (
            f"wrong at {request.url} on {request.host}: {dict(request.headers)}, "
            f"{request.headers.get('authorization')} see /srv/{CANARY}/weights or "
            f"http://admin:{CANARY}@10.0.0.7:8000/x or Bearer {CANARY}"
        )
        headers = {"x-secret": CANARY, "retry-after": CANARY, "location": f"http://{CANARY}/"}
        if shape == "text":
            return web.Response(status=status, text=said, headers=headers)
        if shape == "nested":
            error: object = {"message": {"headers": dict(request.headers)}}
        elif shape == "long":
            error = {"message": "long " * 799 + UPSTREAM_TOKEN + said}
        else:
            error = {"message": said, "type": CANARY, "code": CANARY, "param": CANARY}
        return web.json_response({"error": error}, status=status, headers=headers)

    return handler


@pytest.mark.parametrize(
    "status", [200, 204, 301, 307, 400, 401, 403, 404, 405, 413, 422, 429, 500, 501, 503]
)
def test_what_an_engine_says_of_its_trouble_is_told_nobody(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    status: int,
) -> None:
    shapes: list[str] = []

    async def test(w: World, watched: Watched) -> None:
        for shape in SHAPES:
            shapes.append(shape)
            for stream in (True, False):
                await ask(w, watched, stream=stream, headers=ODD_HEADERS)
        text = (tmp_path / "all.yaml").read_text()
        engine_ports = [port_of(text, name) for name in ("home", "away")]
        for answer in watched.answers:
            if status != 200 or b"error" in answer:
                assert b"10.0.0.7" not in answer
                assert not any(f":{port}".encode() in answer for port in engine_ports)

    engine = echo(status, shapes)
    run(tmp_path, caplog, capfd, test, home=engine, away=engine, total_s=2)


@pytest.mark.parametrize("tokens", [0, 2])
@pytest.mark.parametrize("named", [True, False])
def test_what_a_stream_says_of_its_trouble_is_told_nobody(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tokens: int,
    named: bool,
) -> None:
    async def engine(request: web.Request) -> web.Response:
        token = orjson.dumps({"choices": [{"index": 0, "delta": {"content": "a"}}]}).decode()
        error = {"error": {"message": f"{dict(request.headers)} {CANARY}", "code": CANARY}}
        event = "event: error\n" if named else ""
        return web.Response(
            text=f"data: {token}\n\n" * tokens
            + f": {CANARY}\n\nid: {CANARY}\n{event}data: {orjson.dumps(error).decode()}\n\n"
        )

    async def test(w: World, watched: Watched) -> None:
        assert await ask(w, watched, stream=True) in (200, 503)

    run(tmp_path, caplog, capfd, test, home=engine, away=engine)


class Crash(Exception):
    """What one of ours says when it breaks, credentials and all."""

    def __init__(self) -> None:
        super().__init__(f"{CANARY} {ENVIRONMENT} http://user:{CANARY}@host/ {JWT} {BASIC}")


def crash(*_: object, **__: object) -> Any:
    try:
        raise ValueError(f"the cause, {CANARY}")
    except ValueError as cause:
        raise Crash from cause


async def crash_later(*_: object, **__: object) -> Any:
    await asyncio.sleep(0)
    crash()


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (Access, "caller"),
        (Decisions, "of"),
        (Placement, "read"),
        (Decisions, "succeeded"),
        (Placement, "closed"),
        (Records, "decided"),
        (Records, "used"),
        (Intake, "read"),
        (Upstreams, "send"),
        (Exchange, "_once"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_breaks_says_where_but_not_what_it_knew(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    stream: bool,
) -> None:
    async def test(w: World, watched: Watched) -> None:
        broken = crash_later if asyncio.iscoroutinefunction(getattr(where, name)) else crash
        monkeypatch.setattr(where, name, broken)
        status = await ask(w, watched, headers=ODD_HEADERS, stream=stream)
        await asyncio.sleep(0.2)
        if where is not Exchange:
            assert status in (500, 0) or (status == 200 and name in ("used", "closed", "succeeded"))
            assert any("Crash in" in record.getMessage() for record in caplog.records)
        monkeypatch.undo()
        for key, value in ENVIRONMENT.items():
            monkeypatch.setenv(key, value)

    run(tmp_path, caplog, capfd, test)


def test_what_breaks_in_the_event_loop_says_where_but_not_what_it_knew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(w: World, watched: Watched) -> None:
        asyncio.get_running_loop().call_soon(crash)
        forgotten = asyncio.create_task(crash_later())
        await asyncio.sleep(0.05)
        del forgotten
        await asyncio.sleep(0.05)
        assert await ask(w, watched) == 200
        assert any("Crash in" in record.getMessage() for record in caplog.records)

    run(tmp_path, caplog, capfd, test)


def test_the_canary_would_be_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def logs(w: World, watched: Watched) -> None:
        logging.getLogger("orchestrator.gateway").info("the key was %s", UPSTREAM_TOKEN)

    async def prints(w: World, watched: Watched) -> None:
        print(CANARY)

    async def writes(w: World, watched: Watched) -> None:
        (tmp_path / "audit" / "x.jsonl").write_text(w.keys["open"])

    for number, test in enumerate((logs, prints, writes)):
        directory = tmp_path / str(number)
        directory.mkdir()
        (tmp_path / "audit").mkdir(exist_ok=True)
        with pytest.raises(AssertionError):
            run(tmp_path if test is writes else directory, caplog, capfd, test)
        caplog.clear()
