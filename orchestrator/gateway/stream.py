"""A stream as it comes from an upstream: what of it may be passed on, and what it says of its use.

Nothing is passed on before the first token; from then on everything, in its order, once.
"""

import time

from orchestrator.config.spec import Timeouts
from orchestrator.gateway import sse
from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.dialects import Reader
from orchestrator.gateway.refusals import OUT_OF_TIME
from orchestrator.gateway.upstream import UpstreamFailed, UpstreamResponse


class Stream:
    def __init__(
        self,
        call: Call,
        attempt: Attempt,
        response: UpstreamResponse,
        reader: Reader,
        timeouts: Timeouts,
    ) -> None:
        self._call = call
        self._attempt = attempt
        self._response = response
        self._timeouts = timeouts
        self.reader = reader
        self._splitter = sse.EventSplitter(sse.largest_event_bytes(len(call.request.body)))
        self._held: list[bytes] = []
        self._committed = False
        self._failure: UpstreamFailed | None = None
        self._ended = False

    @property
    def done(self) -> bool:
        """Whether all of it was given, up to its end."""
        return self._ended and not self._held

    async def first_token(self) -> None:
        """Returns when it is there. Raises UpstreamFailed."""
        while not self._committed:
            if self._ended:
                raise UpstreamFailed("empty")
            await self._read()

    async def more(self) -> bytes:
        """What can be passed on now. Raises UpstreamFailed, when all
        that came before the failure has been given."""
        while not self._held:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            try:
                await self._read()
            except UpstreamFailed as failure:
                self._failure = failure
        passed = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held.clear()
        return passed

    async def _read(self) -> None:
        attempt, reader = self._attempt, self.reader
        try:
            events, place = self._splitter.feed(await self._chunk()), 0
            while place < len(events):
                kind, passed_on, place = self._next(events, place)
                if kind is sse.EventKind.ERROR:
                    raise UpstreamFailed("engine_error")
                self._ended = kind is sse.EventKind.DONE
                # The end of a whole answer counts, even of one that says nothing.
                if kind is sse.EventKind.CONTENT or (self._ended and reader.finished):
                    self._committed = True
                    if self._call.answer_is_kept:
                        attempt.said.take_events(passed_on)
                if passed_on:
                    self._held.append(passed_on)
                if self._ended:
                    return
        except UpstreamFailed:
            if not reader.finished:
                raise
            # All was said; what is missing is only its end.
            self._ended = True
            self._held.append(reader.closing())
        finally:
            attempt.counted = reader.counted

    def _next(self, events: bytes, start: int) -> tuple[sse.EventKind, bytes, int]:
        """What begins there: ordinary tokens in a row, else one event. What it is, what of it is
        passed on, and where the next one begins."""
        # In so much there is no event that is too large.
        if len(events) <= sse.MAX_EVENT_BYTES:
            passed_on, end = self.reader.read_tokens(events, start)
            if end > start:
                return sse.EventKind.CONTENT, passed_on, end
        event, end = self._splitter.event(events, start)
        if not event:
            return sse.EventKind.PREAMBLE, b"", end
        return *self.reader.read(event), end

    async def _chunk(self) -> bytes:
        """Raises UpstreamFailed when nothing comes in time."""
        now_s = time.monotonic()
        left_s = self._call.started_s + self._timeouts.total_s - now_s
        wait_s = self._timeouts.between_tokens_s
        if not self._committed:
            wait_s = self._attempt.started_s + self._timeouts.first_token_s - now_s
        try:
            chunk = await self._response.chunk(min(wait_s, left_s))
        except UpstreamFailed as failure:
            if failure.reason == "stalled" and left_s < wait_s:
                raise UpstreamFailed(OUT_OF_TIME) from None
            raise
        if not chunk:
            raise UpstreamFailed("cut")
        return chunk
