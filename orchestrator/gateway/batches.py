"""`/v1/files` and `/v1/batches`, as OpenAI's clients speak to them."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from orchestrator.batch import batches as store
from orchestrator.batch.batches import Batch, TooMany, WrongFile
from orchestrator.batch.files import File, InUse, NoSpace, NotFound
from orchestrator.gateway.asgi import Receive, Send
from orchestrator.gateway.batch_fields import (
    file_of,
    invalid,
    json_object,
    life_s,
    metadata,
    page,
    page_limit,
    window_s,
)
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.deferred import Deferred
from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.gateway.errors import ApiError, ClientGone, unavailable
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.request import claimed_data_class
from orchestrator.gateway.uploads import read_form

PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class BatchApiRequest:
    """One request for files or batches."""

    caller: Caller
    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    receive: Receive
    body: Callable[[], Awaitable[bytes]]
    """The whole body, where it is JSON."""

    def options(self) -> dict[str, str]:
        """Raises ApiError 400."""
        try:
            return dict(parse_qsl(self.query.decode("latin-1"), max_num_fields=16))
        except ValueError:
            raise ApiError(400, "invalid_query", "The query has too many fields.") from None


@dataclass(frozen=True, slots=True)
class Content:
    """An answer that is a file's content."""

    file: File


class BatchApi:
    def __init__(self, exchange: Exchange, deferred: Deferred) -> None:
        self._exchange = exchange
        self._deferred = deferred
        self._desk = deferred.desk
        self._disk = ThreadPoolExecutor(4, thread_name_prefix="files")
        """For content: its uploads and downloads wait for each other and for nobody else."""

    @asynccontextmanager
    async def running(self, relay: Relay) -> AsyncIterator[None]:
        async with self._deferred.running(relay):
            yield
        self._disk.shutdown(wait=False)

    @staticmethod
    def serves(path: str) -> bool:
        return path in ("/v1/files", "/v1/batches") or path.startswith(
            ("/v1/files/", "/v1/batches/")
        )

    async def answer(self, asked: BatchApiRequest) -> dict[str, Any] | Content:
        """JSON, or content for `send_content`. Raises ApiError, ClientGone."""
        _, _, kind, *rest = asked.path.split("/")
        asked.caller.check_endpoint(kind)
        try:
            match kind, asked.method, rest:
                case "files", "POST", []:
                    return await self._upload(asked)
                case "files", "GET", []:
                    return await self._list_files(asked)
                case "files", "GET", [file_id]:
                    return (await self._file(asked, file_id)).as_json()
                case "files", "GET", [file_id, "content"]:
                    return Content(await self._file(asked, file_id))
                case "files", "DELETE", [file_id]:
                    return await self._delete(asked, file_id)
                case "batches", "POST", []:
                    return await self._create(asked)
                case "batches", "GET", []:
                    return await self._list_batches(asked)
                case "batches", "GET", [batch_id]:
                    return await self._batch(asked, batch_id)
                case "batches", "POST", [batch_id, "cancel"]:
                    return await self._cancel(asked, batch_id)
        except (sqlite3.Error, OSError):
            raise unavailable(
                "batches_unavailable", "Files and batches cannot be kept now. Try again shortly."
            ) from None
        raise _method(kind, rest)

    async def send_content(
        self, content: Content, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Raises ApiError 404 for content that is gone, ClientGone."""
        loop, file = asyncio.get_running_loop(), content.file
        try:
            stream = await loop.run_in_executor(self._disk, self._desk.files.open, file.id)
        except OSError:
            raise _no_file() from None
        gone = asyncio.ensure_future(_gone(receive))
        try:
            length = (b"content-length", str(file.bytes).encode())
            kind = (b"content-type", b"application/octet-stream")
            start = {"type": "http.response.start", "status": 200}
            await send({**start, "headers": [kind, length, *headers]})
            left = file.bytes
            while left:
                piece = await loop.run_in_executor(self._disk, stream.read, PIECE_BYTES)
                if not piece or gone.done():
                    raise ClientGone
                left -= len(piece)
                # With its last byte the answer is over: the client may ask again at once.
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
        finally:
            gone.cancel()
            stream.close()

    async def _upload(self, asked: BatchApiRequest) -> dict[str, Any]:
        spec = self._exchange.catalogue.configuration.gateway
        limits, total_s = spec.batches, spec.timeouts.total_s
        claimed = claimed_data_class(asked.headers)
        loop = asyncio.get_running_loop()
        drafting = self._desk.files.writing()
        draft = await loop.run_in_executor(self._disk, drafting.__enter__)
        try:
            form = await read_form(
                dict(asked.headers),
                asked.receive,
                draft,
                limits.max_file_bytes,
                total_s,
                self._disk,
            )
            file = file_of(form, draft, asked.caller.workload, int(claimed), limits)
            await loop.run_in_executor(self._disk, draft.keep, file.id)
            try:
                await self._desk.do(self._desk.files.add, file, limits.max_workload_bytes)
            except NoSpace:
                raise ApiError(
                    413,
                    "storage_full",
                    f"The workload may keep {limits.max_workload_bytes} bytes; delete files.",
                ) from None
        finally:
            await asyncio.shield(
                loop.run_in_executor(self._disk, drafting.__exit__, None, None, None)
            )
        return file.as_json()

    async def _file(self, asked: BatchApiRequest, file_id: str) -> File:
        files = self._desk.files
        try:
            return await self._desk.do(files.get, asked.caller.workload, file_id, time.time())
        except NotFound:
            raise _no_file() from None

    async def _list_files(self, asked: BatchApiRequest) -> dict[str, Any]:
        options = asked.options()
        order = options.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid("order", "'order' is asc or desc.")
        limit = page_limit(options, 10_000, 10_000)
        try:
            found = await self._desk.do(
                self._desk.files.list,
                asked.caller.workload,
                time.time(),
                limit + 1,
                options.get("after"),
                options.get("purpose"),
                order == "asc",
            )
        except NotFound:
            raise invalid("after", "'after' names no file.") from None
        return page([file.as_json() for file in found], limit)

    async def _delete(self, asked: BatchApiRequest, file_id: str) -> dict[str, Any]:
        try:
            await self._desk.do(self._desk.files.delete, asked.caller.workload, file_id)
        except NotFound:
            raise _no_file() from None
        except InUse:
            raise ApiError(
                409, "file_in_use", "A batch needs this file; cancel it first.", param="id"
            ) from None
        return {"id": file_id, "object": "file", "deleted": True}

    async def _create(self, asked: BatchApiRequest) -> dict[str, Any]:
        body = json_object(await asked.body())
        now_s = time.time()
        endpoint, window = body.get("endpoint"), body.get("completion_window")
        input_file_id = body.get("input_file_id")
        if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
            raise invalid("endpoint", f"'endpoint' is one of {', '.join(ENDPOINTS)}.")
        asked.caller.check_endpoint(ENDPOINTS[endpoint].name)
        if not isinstance(input_file_id, str):
            raise invalid("input_file_id", "Give the id of an uploaded file.")
        batch = Batch(
            id=store.new_id(),
            workload=asked.caller.workload,
            key_id=asked.caller.id,
            scope=asked.caller.scope.model_dump_json(),
            claimed=int(claimed_data_class(asked.headers)),
            endpoint=endpoint,
            input_file_id=input_file_id,
            completion_window=str(window),
            output_expires_after_s=life_s(body, "output_expires_after"),
            metadata=metadata(body.get("metadata")),
            created_at_s=now_s,
            expires_at_s=now_s + window_s(window),
        )
        try:
            made = await self._desk.do(self._desk.batches.create, batch)
        except WrongFile:
            raise invalid(
                "input_file_id", "There is no file of that id that was uploaded for batches."
            ) from None
        except TooMany:
            raise ApiError(
                429,
                "too_many_batches",
                f"{store.MAX_GOING_ON} batches of this workload are going on; wait for one.",
                "rate_limit_error",
                headers={"retry-after": "60"},
            ) from None
        self._deferred.wake()
        return made.as_json()

    async def _batch(self, asked: BatchApiRequest, batch_id: str) -> dict[str, Any]:
        try:
            found = await self._desk.do(self._desk.batches.get, asked.caller.workload, batch_id)
        except NotFound:
            raise _no_batch() from None
        return found.as_json()

    async def _list_batches(self, asked: BatchApiRequest) -> dict[str, Any]:
        options = asked.options()
        limit = page_limit(options, 20, 100)
        try:
            found = await self._desk.do(
                self._desk.batches.list, asked.caller.workload, limit + 1, options.get("after")
            )
        except NotFound:
            raise invalid("after", "'after' names no batch.") from None
        return page([batch.as_json() for batch in found], limit)

    async def _cancel(self, asked: BatchApiRequest, batch_id: str) -> dict[str, Any]:
        try:
            batch = await self._desk.do(
                self._desk.batches.cancel, asked.caller.workload, batch_id, time.time()
            )
        except NotFound:
            raise _no_batch() from None
        self._deferred.wake()
        return batch.as_json()


async def _gone(receive: Receive) -> None:
    """Returns when the client has left; before that comes what it has sent, be it nothing."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _no_file() -> ApiError:
    return ApiError(404, "not_found", "There is no such file.", param="id")


def _no_batch() -> ApiError:
    return ApiError(404, "not_found", "There is no such batch.", param="id")


def _method(kind: str, rest: list[str]) -> ApiError:
    allowed = {
        ("files", 0): "GET, POST",
        ("files", 1): "GET, DELETE",
        ("files", 2): "GET",
        ("batches", 0): "GET, POST",
        ("batches", 1): "GET",
        ("batches", 2): "POST",
    }.get((kind, len(rest)))
    if allowed is None or rest[1:] not in ([], ["content"] if kind == "files" else ["cancel"]):
        return ApiError(404, "not_found", "There is nothing at this path.")
    return ApiError(405, "method_not_allowed", f"Use {allowed} here.", headers={"allow": allowed})
