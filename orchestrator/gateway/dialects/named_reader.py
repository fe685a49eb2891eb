"""Reads streams whose events have names, with the least work per token."""

import re
from abc import abstractmethod
from typing import Any

from orchestrator.gateway.dialects.dialect import Reader
from orchestrator.gateway.dialects.token import Shape, Token
from orchestrator.gateway.sse import EventKind, fields, json_object
from orchestrator.gateway.upstream import UpstreamFailed
from orchestrator.gateway.usage import Usage

_NAME = re.compile(r"[a-z_]+(?:\.[a-z_]+)*")


class NamedReader(Reader):
    shape: Shape

    def __init__(self) -> None:
        self._token = Token(self.shape)
        self._events = 0
        self._content_events = 0

    def read(self, event: bytes) -> tuple[EventKind, bytes]:
        passed_on, end = self.read_tokens(event, 0)
        if end:
            return EventKind.CONTENT, passed_on
        name, data = fields(event)
        if name == b"error":
            return EventKind.ERROR, b""
        if not data or data == b"[DONE]":
            return EventKind.PREAMBLE, b""
        value = json_object(data)
        kind_of_event = value.get("type")
        if not isinstance(kind_of_event, str) or not _NAME.fullmatch(kind_of_event):
            raise UpstreamFailed("malformed")
        kind = self._kind(kind_of_event, value)
        if kind is EventKind.ERROR:
            return kind, b""
        passed_on = b"event: %s\ndata: %s\n\n" % (kind_of_event.encode(), data)
        self._events += 1
        if kind is EventKind.CONTENT:
            # The end of a message, too, is told in a delta.
            self._content_events += kind_of_event.endswith("delta") and not self.finished
            if passed_on == event:
                self._token.learn(event)
        return kind, passed_on

    def read_tokens(self, events: bytes, start: int) -> tuple[bytes, int]:
        place = start
        for _, _, end in self._token.row(events, start):
            self._events += 1
            self._content_events += 1
            place = end
        return events[start:place], place

    @property
    def counted(self) -> Usage:
        return Usage(0, self._content_events, 0)

    @abstractmethod
    def _kind(self, name: str, value: dict[str, Any]) -> EventKind:
        """What an event is by its type, and notes what it tells. Raises UpstreamFailed."""
