"""Files and batches through the openai client, in front of engines over real HTTP."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch

from orchestrator.config import keys
from orchestrator.config.spec import Scope
from tests.integration.engines import World, billed, world

CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "expired", "cancelled")


def client(w: World, workload: str = "open") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{w.url}/v1", api_key=w.keys[workload], max_retries=0)


def line(custom_id: str, said: str = "hi", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": said}]
    asked = {"model": "m", "messages": messages, "max_tokens": 3} | body
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": asked}


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def upload(c: openai.OpenAI, content: bytes) -> str:
    return c.files.create(file=("lines.jsonl", content), purpose="batch").id


def create(c: openai.OpenAI, content: bytes, window: Any = "24h") -> Batch:
    file_id = upload(c, content)
    return c.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window=window)


def wait(c: openai.OpenAI, batch_id: str, until: tuple[str, ...] = OVER) -> Batch:
    for _ in range(2400):
        batch = c.batches.retrieve(batch_id)
        if batch.status in until:
            return batch
        time.sleep(0.05)
    raise AssertionError(batch)


def content(c: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    """The lines of a result file by custom id."""
    if file_id is None:
        return {}
    lines = [json.loads(x) for x in c.files.content(file_id).text.splitlines()]
    by_id = {x["custom_id"]: x for x in lines}
    assert len(by_id) == len(lines), "a line stands there twice"
    return by_id


def run(tmp_path: Path, test: Callable[[World], None], **how: Any) -> None:
    """`test` in a thread, beside the gateway."""

    async def inside() -> None:
        async with world(tmp_path, **how) as w:
            await asyncio.to_thread(test, w)

    asyncio.run(inside())


def test_a_batch_from_its_upload_to_its_results(tmp_path: Path) -> None:
    def test(w: World) -> None:
        c = client(w)
        file = c.files.create(
            file=("../../etc/lines.jsonl", jsonl(line("a"), line("b"))),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        assert (file.purpose, file.filename) == ("batch", "../../etc/lines.jsonl")
        assert file.expires_at == file.created_at + 3600
        made = c.batches.create(
            input_file_id=file.id,
            endpoint=CHAT,
            completion_window="24h",
            metadata={"night": "1"},
        )
        assert (made.status, made.object) == ("validating", "batch")
        batch = wait(c, made.id)
        assert batch.status == "completed"
        assert batch.metadata == {"night": "1"}
        assert batch.request_counts is not None
        assert batch.request_counts.model_dump() == {"total": 2, "completed": 2, "failed": 0}
        assert batch.usage is not None
        assert (batch.usage.input_tokens, batch.usage.output_tokens) == (8, 6)
        assert batch.in_progress_at
        assert batch.completed_at
        assert batch.error_file_id is None
        results = content(c, batch.output_file_id)
        assert set(results) == {"a", "b"}
        for result in results.values():
            assert result["error"] is None
            assert result["response"]["status_code"] == 200
            said = result["response"]["body"]["choices"][0]["message"]["content"]
            assert said == " t0 t1 t2"
        assert batch.output_file_id is not None
        kept = c.files.retrieve(batch.output_file_id)
        assert kept.purpose == "batch_output"
        assert {f.id for f in c.files.list()} == {file.id, kept.id}
        assert [f.id for f in c.files.list(purpose="batch")] == [file.id]
        for file_id in (file.id, kept.id):
            assert c.files.delete(file_id).deleted
        assert list(c.files.list()) == []
        assert not list((tmp_path / "batch" / "files").iterdir())
        with pytest.raises(openai.NotFoundError):
            c.files.content(file.id)

    run(tmp_path, test)
    (first, *_), (second, *_) = found = billed(tmp_path, "request_id, workload, outcome")
    assert first.startswith("batch_")
    assert (first[-2:], second[-2:]) == ("-1", "-2")
    assert {row[1:] for row in found} == {("open", "complete")}


def test_content_comes_back_whole_and_the_connection_serves_on(tmp_path: Path) -> None:
    def test(w: World) -> None:
        c = client(w)
        for size in (1, 256 * 1024, 700_001):
            sent = bytes(n % 251 for n in range(size))
            file_id = upload(c, sent)
            for _ in range(5):
                assert c.files.content(file_id).read() == sent
                assert c.files.retrieve(file_id).bytes == size

    run(tmp_path, test)


def test_what_is_kept_is_for_its_owner_alone(tmp_path: Path) -> None:
    def test(w: World) -> None:
        c = client(w)
        wait(c, create(c, jsonl(line("a"))).id)

    run(tmp_path, test)
    for path in (tmp_path / "batch").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_lines_that_fail_stand_in_the_error_file(tmp_path: Path) -> None:
    def test(w: World) -> None:
        c = client(w)
        lines = [
            line("good"),
            line("nothing", messages=[]),
            line("unknown", model="no-such-model"),
            line("long", max_tokens=100_000),
        ]
        batch = wait(c, create(c, jsonl(*lines)).id)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 3)
        assert set(content(c, batch.output_file_id)) == {"good"}
        failed = content(c, batch.error_file_id)
        assert {
            custom_id: (x["response"]["status_code"], x["response"]["body"]["error"]["code"])
            for custom_id, x in failed.items()
        } == {
            "nothing": (400, "missing_field"),
            "unknown": (404, "model_not_found"),
            "long": (400, "context_length_exceeded"),
        }

    run(tmp_path, test)


def test_a_bad_input_file_fails_with_its_lines(tmp_path: Path) -> None:
    def test(w: World) -> None:
        c = client(w)
        lines = [
            json.dumps(x)
            for x in (
                line("a"),
                line("a"),
                line("b") | {"method": "GET"},
                line("c") | {"url": "/v1/completions"},
                line("d", stream=True),
                line("") | {},
                {"custom_id": "e", "method": "POST", "url": CHAT},
                line("f", "x" * 3000),
            )
        ]
        batch = wait(c, create(c, "\n".join([*lines, "not json", ""]).encode()).id)
        assert batch.status == "failed"
        assert batch.failed_at
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert [(e.line, e.code) for e in batch.errors.data] == [
            (2, "duplicate_custom_id"),
            (3, "invalid_method"),
            (4, "invalid_url"),
            (5, "unsupported_parameter"),
            (6, "invalid_custom_id"),
            (7, "missing_required_parameter"),
            (8, "line_too_large"),
            (9, "invalid_json_line"),
        ]
        assert not w.home.received
        empty = wait(c, create(c, b"\n\n").id)
        assert empty.errors is not None
        assert empty.errors.data is not None
        assert [e.code for e in empty.errors.data] == ["empty_file"]

    run(tmp_path, test)


def test_another_workload_finds_nothing(tmp_path: Path) -> None:
    def test(w: World) -> None:
        c, stranger = client(w), client(w, "closed")
        batch = wait(c, create(c, jsonl(line("a"))).id)
        for ask in (
            lambda: stranger.files.retrieve(batch.input_file_id),
            lambda: stranger.files.content(str(batch.output_file_id)),
            lambda: stranger.files.delete(batch.input_file_id),
            lambda: stranger.batches.retrieve(batch.id),
            lambda: stranger.batches.cancel(batch.id),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()
        assert list(stranger.files.list()) == []
        assert list(stranger.batches.list()) == []
        with pytest.raises(openai.BadRequestError):
            stranger.batches.create(
                input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
            )
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{w.url}/v1", api_key="sk-no").files.list()

    run(tmp_path, test)


def test_a_key_does_with_batches_what_its_scope_allows_and_no_more(tmp_path: Path) -> None:
    def test(w: World) -> None:
        for name, scope in (
            ("chat", Scope(endpoints=["chat"])),
            ("files", Scope(endpoints=["files", "batches"])),
            ("model", Scope(endpoints=["files", "batches", "chat"], models=["other"])),
        ):
            w.keys[name] = keys.create(tmp_path, "open", scope=scope)[1]
        time.sleep(0.5)
        with pytest.raises(openai.PermissionDeniedError):
            upload(client(w, "chat"), jsonl(line("a")))
        with pytest.raises(openai.PermissionDeniedError):
            create(client(w, "files"), jsonl(line("a")))
        c = client(w, "model")
        failed = content(c, wait(c, create(c, jsonl(line("a"))).id).error_file_id)
        assert failed["a"]["response"]["body"]["error"]["code"] == "outside_scope"
        assert not w.home.received + w.away.received

    run(tmp_path, test)


def test_lists_go_on_where_the_last_page_ended(tmp_path: Path) -> None:
    def test(w: World) -> None:
        c = client(w)
        file_id = upload(c, jsonl(line("a")))
        made = [
            c.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h").id
            for _ in range(5)
        ]
        assert [b.id for b in c.batches.list(limit=2)] == made[::-1]
        page = c.batches.list(limit=2, after=made[2])
        assert [b.id for b in page.data] == [made[1], made[0]]
        assert not page.has_more

    run(tmp_path, test)


def test_a_cancelled_batch_stops_at_once_and_keeps_what_it_has(tmp_path: Path) -> None:
    def test(w: World) -> None:
        c = client(w)
        hanging = [line(f"h{n}") for n in range(3)]
        batch = create(c, jsonl(*hanging))
        for _ in range(200):
            if len(w.home.received) + len(w.away.received) == 3:
                break
            time.sleep(0.05)
        cancelled = c.batches.cancel(batch.id)
        assert cancelled.status == "cancelling"
        batch = wait(c, batch.id)
        assert batch.status == "cancelled"
        assert batch.cancelled_at
        assert batch.output_file_id is None
        errors = content(c, batch.error_file_id)
        assert {x["error"]["code"] for x in errors.values()} == {"batch_cancelled"}
        assert set(errors) == {"h0", "h1", "h2"}
        for _ in range(200):
            if w.home.cancelled + w.away.cancelled == 3:
                break
            time.sleep(0.05)
        assert w.home.cancelled + w.away.cancelled == 3
        assert c.batches.cancel(batch.id).status == "cancelled"

    run(tmp_path, test, home="hang", away="hang")
