"""Uploads and requests for batches as no client should send them: 4xx, and nothing left of them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.batch.files import Files
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.uploads import read_form
from tests.integration import engines
from tests.integration.engines import World, world
from tests.integration.test_batches import jsonl, line

HEAD = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = b'--b\r\ncontent-disposition: form-data; name="file"; filename="f.jsonl"\r\n\r\n'
END = b"\r\n--b--\r\n"
FORM = "multipart/form-data; boundary=b"


def run(tmp_path: Path, test: Callable[[World], Awaitable[None]], limits: str = "") -> None:
    async def inside() -> None:
        async with world(tmp_path) as w:
            await test(w)

    with pytest.MonkeyPatch.context() as patch:
        text = engines.CONFIG.replace("  max_body_bytes", f"  {limits}\n  max_body_bytes", 1)
        patch.setattr(engines, "CONFIG", text)
        asyncio.run(inside())


async def ask(
    w: World, method: str, path: str, kind: str = "application/json", **sent: Any
) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {w.keys['open']}", "content-type": kind}
    async with w.session.request(method, f"{w.url}{path}", headers=headers, **sent) as answer:
        return answer.status, await answer.json()


async def upload(w: World, body: bytes, kind: str = FORM) -> tuple[int, Any]:
    return await ask(w, "POST", "/v1/files", kind, data=body)


def nothing_is_left(directory: Path) -> None:
    for place in ("files", "unfinished"):
        folder = directory / "batch" / place
        assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize(
    ("body", "kind", "status", "param"),
    [
        (HEAD + FILE + b"{}" + END, "application/json", 415, None),
        (HEAD + FILE + b"{}" + END, "multipart/form-data", 415, None),
        (HEAD + FILE + b"{}" + END, f"multipart/form-data; boundary={'b' * 500}", 400, None),
        (b"garbage", FORM, 400, None),
        (HEAD + FILE + b"{}", FORM, 400, None),
        (HEAD + b"--b--\r\n", FORM, 400, "file"),
        (HEAD + FILE + END, FORM, 400, "file"),
        (FILE + b"{}" + END, FORM, 400, "purpose"),
        (HEAD.replace(b"batch", b"vision") + FILE + b"{}" + END, FORM, 400, "purpose"),
        (HEAD + FILE + b"{}\r\n" + FILE + b"{}" + END, FORM, 400, None),
        (HEAD * 20 + FILE + b"{}" + END, FORM, 400, None),
        (HEAD.replace(b"batch", b"b" * 5000) + FILE + b"{}" + END, FORM, 400, None),
        (HEAD.replace(b"form-data;", b"form-data;" + b"x" * 9000) + FILE, FORM, 400, None),
        (
            HEAD.replace(b"purpose", b"expires_after[seconds]").replace(b"batch", b"5")
            + HEAD
            + FILE
            + b"{}"
            + END,
            FORM,
            400,
            "expires_after",
        ),
    ],
)
def test_a_malformed_upload_is_refused(
    tmp_path: Path, body: bytes, kind: str, status: int, param: str | None
) -> None:
    async def test(w: World) -> None:
        answered, said = await upload(w, body, kind)
        assert answered == status, said
        assert said["error"]["param"] == param

    run(tmp_path, test)
    nothing_is_left(tmp_path)


def test_an_upload_past_the_limit_is_refused_while_it_comes(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        status, said = await upload(w, HEAD + FILE + b"x" * 5000 + END)
        assert (status, said["error"]["code"]) == (413, "file_too_large")
        status, said = await upload(w, HEAD + FILE + b"x" * 200_000 + END)
        assert (status, said["error"]["code"]) == (413, "file_too_large")

        async def endless() -> Any:
            yield HEAD + FILE
            for _ in range(1000):
                yield b"x" * 1000

        status, said = await ask(w, "POST", "/v1/files", FORM, data=endless())
        assert (status, said["error"]["code"]) == (413, "file_too_large")

    run(tmp_path, test, "batches: {{max_file_bytes: 4000}}")
    nothing_is_left(tmp_path)


def test_a_workload_that_keeps_too_much_is_refused(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        assert (await upload(w, HEAD + FILE + b"x" * 1500 + END))[0] == 200
        status, said = await upload(w, HEAD + FILE + b"x" * 1500 + END)
        assert (status, said["error"]["code"]) == (413, "storage_full")

    run(tmp_path, test, "batches: {{max_workload_bytes: 2000}}")


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        port = int(w.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {w.keys['open']}\r\n"
        head += f"content-type: {FORM}\r\ncontent-length: 100000\r\n\r\n"
        writer.write(head.encode() + HEAD + FILE + b"half of it")
        await writer.drain()
        unfinished = tmp_path / "batch" / "unfinished"
        async with asyncio.timeout(10):
            while not unfinished.exists() or not list(unfinished.iterdir()):
                await asyncio.sleep(0.02)
            writer.close()
            while list(unfinished.iterdir()):
                await asyncio.sleep(0.02)
        assert not await reader.read()

    run(tmp_path, test)


def test_bytes_arrive_as_they_were_sent(tmp_path: Path) -> None:
    """Also those that look like the form's own, wherever the body is cut on its way."""
    content = b"\r\n--b" * 50 + bytes(range(256)) * 30 + b"\r\n--\r\n--a--\r\n"

    async def test(w: World) -> None:
        body = HEAD + FILE + content.replace(b"--b", b"--B") + END

        async def pieces() -> Any:
            for start in range(0, len(body), 7):
                yield body[start : start + 7]

        status, file = await ask(w, "POST", "/v1/files", FORM, data=pieces())
        assert status == 200
        headers = {"authorization": f"Bearer {w.keys['open']}"}
        url = f"{w.url}/v1/files/{file['id']}/content"
        async with w.session.get(url, headers=headers) as answer:
            assert await answer.read() == content.replace(b"--b", b"--B")

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"input_file_id": "file-nothing"}, "input_file_id"),
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": "../../ledger.sqlite"}, "input_file_id"),
        ({"endpoint": "/v1/elsewhere"}, "endpoint"),
        ({"endpoint": ["/v1/chat/completions"]}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"completion_window": "15d"}, "completion_window"),
        ({"completion_window": 24}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
        ({"output_expires_after": 3600}, "output_expires_after"),
    ],
)
def test_a_batch_with_a_wrong_field_is_refused(
    tmp_path: Path, changed: dict[str, Any], param: str
) -> None:
    async def test(w: World) -> None:
        _, file = await upload(w, HEAD + FILE + jsonl(line("a")) + END)
        right = {
            "input_file_id": file["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        status, said = await ask(w, "POST", "/v1/batches", json=right | changed)
        assert (status, said["error"]["param"]) == (400, param)
        assert said["error"]["type"] == "invalid_request_error"

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/files/file-x", 404),
        ("GET", "/v1/files/..%2f..%2fledger.sqlite/content", 404),
        ("GET", "/v1/files/../../ledger.sqlite/content", 404),
        ("DELETE", "/v1/files", 405),
        ("PUT", "/v1/files/file-x", 405),
        ("GET", "/v1/files/file-x/elsewhere", 404),
        ("GET", "/v1/batches/batch_x", 404),
        ("GET", "/v1/batches/batch_x/cancel", 405),
        ("POST", "/v1/batches/batch_x/cancel", 404),
        ("POST", "/v1/batches/batch_x/elsewhere", 404),
        ("GET", "/v1/batches/a/b/c", 404),
        ("GET", "/v1/batches?limit=0", 400),
        ("GET", "/v1/batches?limit=1e3", 400),
        ("GET", "/v1/batches?after=batch_x", 400),
        ("GET", "/v1/files?order=sideways", 400),
        ("GET", "/v1/files?" + "&".join(f"a{n}=1" for n in range(99)), 400),
        ("POST", "/v1/batches", 400),
    ],
)
def test_what_is_not_there_is_told_so(tmp_path: Path, method: str, path: str, status: int) -> None:
    async def test(w: World) -> None:
        assert (await ask(w, method, path))[0] == status

    run(tmp_path, test)


def test_a_length_of_thousands_of_digits_is_too_large_whoever_serves_the_application() -> None:
    async def test() -> None:
        headers = {b"content-type": FORM.encode(), b"content-length": b"1" * 5000}
        unread: Any = None
        await read_form(headers, unread, unread, 10, 1, unread)

    with pytest.raises(ApiError) as caught:
        asyncio.run(test())
    assert (caught.value.status, caught.value.code) == (413, "file_too_large")


def test_of_a_file_whose_client_has_left_nothing_more_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    class Watched:
        def __init__(self, files: Files, file_id: str) -> None:
            self.stream = opens(files, file_id)
            self.at = 0
            opened.append(self)

        def read(self, size: int) -> bytes:
            self.at += size
            return self.stream.read(size)

        def close(self) -> None:
            self.stream.close()

    opens = Files.open
    monkeypatch.setattr(Files, "open", lambda files, file_id: Watched(files, file_id))

    async def test(w: World) -> None:
        size = 32 * 1024 * 1024
        status, file = await upload(w, HEAD + FILE + b"x" * size + END)
        assert status == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", int(w.url.rsplit(":", 1)[1]))
        head = f"GET /v1/files/{file['id']}/content HTTP/1.1\r\nhost: x\r\n"
        writer.write(f"{head}authorization: Bearer {w.keys['open']}\r\n\r\n".encode())
        await reader.readexactly(1000)
        (watched,) = opened
        writer.transport.abort()
        async with asyncio.timeout(20):
            while not watched.stream.closed:
                await asyncio.sleep(0.01)
        assert watched.at < size

    run(tmp_path, test)
