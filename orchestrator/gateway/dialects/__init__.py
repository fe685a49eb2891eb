"""The endpoints that are relayed, each with its dialect: how it is asked, streamed, answered and
refused. Pure: bytes and values in, bytes and values out."""

from collections.abc import Mapping

from orchestrator.gateway.dialects.choices import Chat, Completions
from orchestrator.gateway.dialects.dialect import Asked, Dialect, Reader
from orchestrator.gateway.dialects.messages import CountTokens, Messages
from orchestrator.gateway.dialects.pooling import Embeddings, Rerank, Score
from orchestrator.gateway.dialects.responses import Responses
from orchestrator.gateway.dialects.tokenizer import Detokenize, Tokenize

ENDPOINTS: Mapping[str, Dialect] = {
    "/v1/chat/completions": Chat(),
    "/v1/completions": Completions(),
    "/v1/embeddings": Embeddings(),
    "/v1/responses": Responses(),
    "/v1/messages": Messages(),
    "/v1/messages/count_tokens": CountTokens(),
    **dict.fromkeys(("/tokenize", "/v1/tokenize"), Tokenize()),
    **dict.fromkeys(("/detokenize", "/v1/detokenize"), Detokenize()),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), Rerank()),
    **dict.fromkeys(("/score", "/v1/score"), Score()),
}
"""By the path that clients call."""

__all__ = ["ENDPOINTS", "Asked", "Dialect", "Reader"]
