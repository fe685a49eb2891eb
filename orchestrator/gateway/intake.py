"""From the bytes of a request to a call: what it asks for, and how sensitive it is."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial

from orchestrator.gateway.asgi import Send
from orchestrator.gateway.call import Call
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.engine_control import refuse_control
from orchestrator.gateway.errors import workload_is_no_more
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.remote import refuse_remote
from orchestrator.gateway.request import claimed_data_class, parse, session_id_of
from orchestrator.gateway.sensitivity import Sensitivity

LARGE_BYTES = 64 * 1024
"""Bodies above this are read in a thread: others should not wait for a large one."""


class Intake:
    def __init__(self, exchange: Exchange, sensitivity: Sensitivity) -> None:
        self._exchange = exchange
        self._sensitivity = sensitivity

    async def read(
        self,
        request_id: str,
        caller: Caller,
        authenticate: Callable[[], Caller],
        path: str,
        headers: Iterable[tuple[bytes, bytes]],
        raw: bytes,
        send: Send,
        started_s: float | None = None,
    ) -> Call:
        """`authenticate`: as `Call` has it. `send` takes the answer as an ASGI application gives
        it. `started_s`: when the request arrived. Raises ApiError for a request that no engine
        could serve."""
        headers = list(headers)
        request = parse(path, raw)
        refuse_control(request.content)
        refuse_remote(request.content, request.body)
        caller.check_model(request.model)
        rules, session_id = self._exchange.rules, session_id_of(dict(headers))
        if caller.workload not in rules.catalogue.workloads:
            # Others are in force than when the caller was known, before the body came.
            raise workload_is_no_more()
        read = partial(
            self._sensitivity.read,
            rules.classifier,
            caller.workload,
            claimed_data_class(headers),
            session_id,
            request.content,
        )
        began_s = time.monotonic()
        labels = await asyncio.to_thread(read) if len(request.body) > LARGE_BYTES else read()
        return Call(
            request_id,
            caller,
            authenticate,
            rules,
            labels,
            session_id,
            request,
            send,
            began_s if started_s is None else started_s,
            classified_s=time.monotonic() - began_s,
        )
