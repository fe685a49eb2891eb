"""The endpoints that are relayed, each with its dialect: how it is asked, streamed, answered and
refused. Pure: bytes and values in, bytes and values out."""

from collections.abc import Mapping

from orchestrator.gateway.dialects.choices import Chat, Completions
from orchestrator.gateway.dialects.dialect import Asked, Dialect, Reader

ENDPOINTS: Mapping[str, Dialect] = {
    "/v1/chat/completions": Chat(),
    "/v1/completions": Completions(),
}
"""By the path that clients call."""

__all__ = ["ENDPOINTS", "Asked", "Dialect", "Reader"]
