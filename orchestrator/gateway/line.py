"""One line of a batch as a request like any other: read, classified, decided and relayed by the
same code, under the workload and the key that made the batch."""

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson

from orchestrator.batch.batches import request_id_of
from orchestrator.batch.desk import Desk
from orchestrator.batch.lines import answered
from orchestrator.batch.places import others_than
from orchestrator.batch.queue import Answered, Line, PutBack, Used
from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Scope
from orchestrator.gateway.call import Call
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.gateway.errors import ApiError, ClientGone, unavailable
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.intake import LARGE_BYTES, Intake
from orchestrator.gateway.observer import CLIENT_GONE, Observer
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.usage import Usage
from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.gateway")

WORTH_ANOTHER_TRY = frozenset({408, 429, 502, 503, 504})
JWT = "jwt:"
"""What the ids of callers begin with that have a token and no key."""
MAX_LOST_ANSWERS = 12
"""A line that replicas were given so often, and that none answered, is taken to be what they fail
at. With the pauses between them that is about an hour."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 600.0


class NoCaller(Exception):
    """The credential that made a batch opens nothing any more."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class _Collected:
    """An answer as an ASGI application gives it."""

    status: int = 0
    parts: list[bytes] = field(default_factory=list)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.parts.append(message.get("body", b""))


def caller_of(exchange: Exchange, key_id: str, workload: str, scope: str = "{}") -> Caller:
    """Whose batch it is, by the keys of this moment. A token says once who somebody is and what
    `scope` it has, and ends within minutes; so its batches hold while its issuer speaks for the
    workload. Raises NoCaller."""
    catalogue = exchange.catalogue
    if workload not in catalogue.workloads:
        raise NoCaller("workload_gone", "The workload that made the batch is no more.")
    if key_id.startswith(JWT):
        issuers = catalogue.configuration.gateway.jwt
        if workload not in {rule.workload for issuer in issuers for rule in issuer.workloads}:
            raise NoCaller("issuer_gone", "No issuer speaks for the batch's workload any more.")
        return Caller(key_id, workload, Scope.model_validate_json(scope))
    key = exchange.keys.get(key_id)
    if key is None or key.workload != workload:
        raise NoCaller("api_key_revoked", "The API key that made the batch is revoked.")
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        raise NoCaller("api_key_expired", "The API key that made the batch has expired.")
    return Caller(key.id, key.workload, key.scope)


def is_stale(exchange: Exchange) -> bool:
    """Whether nobody vouches for the fleet's state, and every request counts as restricted."""
    return exchange.snapshot_age_s > exchange.catalogue.configuration.policy.snapshot_stale_s


class LineRun:
    """A claimed line on its way."""

    def __init__(
        self,
        line: Line,
        with_room: Collection[str],
        exchange: Exchange,
        intake: Intake,
        relay: Relay,
        observer: Observer,
        desk: Desk,
    ) -> None:
        """`with_room`: the endpoints with an idle slot."""
        self.line = line
        self._with_room = with_room
        self._exchange = exchange
        self._intake = intake
        self._relay = relay
        self._observer = observer
        self._desk = desk
        self._call: Call | None = None

    @property
    def endpoint(self) -> str:
        """That it is open at, as far as it was sent."""
        attempts = self._call.attempts if self._call else ()
        return attempts[-1].endpoint if attempts else ""

    async def outcome(self) -> Answered | PutBack:
        """Raises OSError when the store cannot be read."""
        started_s = time.monotonic()
        answer = _Collected()
        try:
            put_back = await self._relayed(answer)
        except ApiError as error:
            return self._refused(error)
        except NoCaller:
            # The batch is about to end for it.
            return PutBack(FIRST_PAUSE_S)
        except ClientGone:
            return self._refused(unavailable("time_limit", "The answer took too long."))
        except FileNotFoundError:
            lost = ApiError(500, "input_file_lost", "The input file is not there any more.")
            return self._refused(lost)
        except (OSError, sqlite3.Error):
            raise
        except Exception as error:
            log.error("line %s failed: %s", self._request_id, without_text(error))
            ours = ApiError(500, "internal_error", "The gateway failed.", "server_error")
            return self._refused(ours)
        if put_back is not None:
            return put_back
        body, busy_s = b"".join(answer.parts), time.monotonic() - started_s
        if len(body) <= LARGE_BYTES:
            return self._answered(answer.status, body, busy_s)
        return await asyncio.to_thread(self._answered, answer.status, body, busy_s)

    @property
    def _request_id(self) -> str:
        return request_id_of(self.line.batch_id, self.line.number)

    async def _relayed(self, answer: _Collected) -> PutBack | None:
        line = self.line
        raw = await self._desk.do(
            self._desk.files.read, line.input_file_id, line.offset, line.length
        )
        body = orjson.dumps(orjson.loads(raw)["body"])
        authenticate = partial(
            caller_of, self._exchange, line.key_id, line.kind.workload, line.scope
        )
        caller = authenticate()
        caller.check_endpoint(ENDPOINTS[line.endpoint].name)
        label = DataClass(line.claimed).label.encode()
        call = await self._intake.read(
            self._request_id,
            caller,
            authenticate,
            line.endpoint,
            [(b"x-orchestrator-data-class", label)],
            body,
            answer.send,
        )
        if line.place:
            found = call.labels.highest
            own = call.rules.catalogue.workloads[caller.workload].data_class
            if max(found, own) > max(line.kind.data_class, own):
                # The slot that it was given may lie where it must not go.
                return PutBack(data_class=int(found))
            # One that was lost at its place may go to the others that have room.
            kept = self._with_room if line.losses else [line.place]
            call.avoided = others_than(kept, line.kind.model, self._exchange.view)
        self._call = call
        await self._observed(call)
        return None

    async def _observed(self, call: Call) -> None:
        """Relayed, and told of as any request."""
        arrival = self._observer.arrived(self._request_id, "POST", self.line.endpoint, None)
        call.trace = arrival.trace
        status, code = 499, CLIENT_GONE
        try:
            await self._relay.run(call)
            status, code = 200, ""
        except ApiError as error:
            status, code = error.status, error.code
            raise
        except NoCaller as gone:
            status, code = 401, gone.code
            raise
        finally:
            self._observer.answered(arrival, call.caller, call, status, code)

    def _answered(self, status: int, raw: bytes, busy_s: float) -> Answered:
        # Read and written anew: an engine's JSON may have line ends in it.
        assert self._call is not None
        body = orjson.loads(raw)
        used = self._call.request.dialect.usage(body) or Usage(0, 0, 0)
        result = answered(self._request_id, self.line.custom_id, status, body)
        counts = (used.prompt_tokens, used.cached_tokens, used.completion_tokens)
        return Answered(result, True, Used(*counts, busy_s))

    def _is_uncertain(self, error: ApiError) -> bool:
        """Refused as the highest class, which it may not have."""
        call = self._call
        return error.code == "residency" and (
            is_stale(self._exchange)
            or (
                call is not None
                and (call.labels.conversation is None or bool(call.labels.classification.failed))
            )
        )

    def _refused(self, error: ApiError) -> Answered | PutBack:
        lost = error.code == "upstream_failed"
        worth_it = not lost or self.line.losses + 1 < MAX_LOST_ANSWERS
        if (error.status in WORTH_ANOTHER_TRY or self._is_uncertain(error)) and worth_it:
            pause_s = min(FIRST_PAUSE_S * 2.0**self.line.tries, LONGEST_PAUSE_S)
            asked = error.headers.get("retry-after", "")
            if error.status == 429 and asked.isdigit():
                pause_s = max(pause_s, float(asked))
            return PutBack(pause_s * random.uniform(0.5, 1), tried=True, lost=lost)
        body = orjson.loads(ENDPOINTS[self.line.endpoint].error_body(error))
        return Answered(answered(self._request_id, self.line.custom_id, error.status, body), False)
