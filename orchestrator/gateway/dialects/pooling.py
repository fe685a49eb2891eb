"""Embeddings, scores and rankings: models that read and generate nothing."""

from typing import Any

from orchestrator.gateway import usage
from orchestrator.gateway.dialects.dialect import Asked, Dialect
from orchestrator.gateway.dialects.fields import invalid
from orchestrator.gateway.usage import Usage


class _Pooling(Dialect):
    def asked(self, body: dict[str, Any]) -> Asked:
        return Asked()

    def usage(self, answer: dict[str, Any]) -> Usage | None:
        return usage.read_prompt(answer.get("usage"))


class Embeddings(_Pooling):
    name = "embeddings"
    upstream_path = "/v1/embeddings"
    needs = (("input",), ("messages",))

    def asked(self, body: dict[str, Any]) -> Asked:
        if body.get("encoding_format") not in (None, "float", "base64"):
            raise invalid("encoding_format", "is 'float' or 'base64'")
        return Asked()


class Rerank(_Pooling):
    name = "rerank"
    upstream_path = "/rerank"
    needs = (("query", "documents"),)


class Score(_Pooling):
    name = "score"
    upstream_path = "/score"
    needs = (
        ("text_1", "text_2"),
        ("queries", "documents"),
        ("queries", "items"),
        ("data_1", "data_2"),
    )
