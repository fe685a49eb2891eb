"""The description of the endpoint, in OpenAPI 3.1.

Of a body it says what the gateway itself must know, and no more: every other field goes to the
engine as it is, and is described by OpenAI, Anthropic and vLLM.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

from orchestrator.config.data_class import DataClass
from orchestrator.gateway.openapi_schemas import SCHEMAS, Schema, reference
from orchestrator.gateway.request import MAX_SESSION_ID
from orchestrator.gateway.routes import ROUTES


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    summary: str
    request: str = ""
    """Name of the body's schema, empty where there is no body."""
    response: str = ""
    """The same for the answer; empty for a file."""
    streams: bool = False
    """Whether `stream: true` gives server-sent events."""


OPERATIONS = {
    ("/v1/chat/completions", "POST"): Operation(
        "createChatCompletion", "Answer a chat.", "ChatRequest", "ChatCompletion", streams=True
    ),
    ("/v1/completions", "POST"): Operation(
        "createCompletion", "Complete a text.", "CompletionRequest", "Completion", streams=True
    ),
    ("/v1/responses", "POST"): Operation(
        "createResponse",
        "Answer in the form of OpenAI's Responses.",
        "ResponsesRequest",
        "Response",
        streams=True,
    ),
    ("/v1/messages", "POST"): Operation(
        "createMessage",
        "Answer a chat in Anthropic's form.",
        "MessagesRequest",
        "Message",
        streams=True,
    ),
    ("/v1/messages/count_tokens", "POST"): Operation(
        "countTokens",
        "Count the tokens of a chat in Anthropic's form.",
        "CountTokensRequest",
        "TokenCount",
    ),
    ("/v1/embeddings", "POST"): Operation(
        "createEmbedding", "Embed texts.", "EmbeddingRequest", "Embeddings"
    ),
    ("/v1/rerank", "POST"): Operation(
        "rerank", "Order documents by what they say to a query.", "RerankRequest", "Ranking"
    ),
    ("/v1/score", "POST"): Operation(
        "score", "Score how well texts belong together.", "ScoreRequest", "Scores"
    ),
    ("/tokenize", "POST"): Operation(
        "tokenize", "Cut a text or a chat into tokens.", "TokenizeRequest", "Tokens"
    ),
    ("/detokenize", "POST"): Operation(
        "detokenize", "Put tokens together again.", "DetokenizeRequest", "Text"
    ),
    ("/v1/models", "GET"): Operation(
        "listModels", "The models that the key's workload may use.", response="Models"
    ),
    ("/v1/models/{model}", "GET"): Operation("getModel", "One of them.", response="Model"),
    ("/v1/files", "POST"): Operation(
        "createFile", "Upload the lines of a batch.", "FileRequest", "File"
    ),
    ("/v1/files", "GET"): Operation("listFiles", "The workload's files.", response="Files"),
    ("/v1/files/{file_id}", "GET"): Operation("getFile", "One of them.", response="File"),
    ("/v1/files/{file_id}", "DELETE"): Operation(
        "deleteFile", "Delete one of them.", response="DeletedFile"
    ),
    ("/v1/files/{file_id}/content", "GET"): Operation("getFileContent", "What a file holds."),
    ("/v1/batches", "POST"): Operation(
        "createBatch", "Have the lines of a file answered by a deadline.", "BatchRequest", "Batch"
    ),
    ("/v1/batches", "GET"): Operation("listBatches", "The workload's batches.", response="Batches"),
    ("/v1/batches/{batch_id}", "GET"): Operation("getBatch", "One of them.", response="Batch"),
    ("/v1/batches/{batch_id}/cancel", "POST"): Operation(
        "cancelBatch", "Stop one of them; what is answered stays.", response="Batch"
    ),
    ("/openapi.json", "GET"): Operation(
        "getDescription", "This description.", response="Description"
    ),
}

ERRORS = {
    400: "The request is malformed, or the engine finds it invalid.",
    401: "There is no API key, or it is wrong, expired or revoked.",
    403: "The key may not do this, or no zone that it may use can hold the data.",
    404: "There is nothing at this path, or the key has no such model or object.",
    405: "The path takes another method; `Allow` names it.",
    408: "The request did not arrive in time.",
    409: "What the request is about is still needed.",
    413: "The body is too large.",
    415: "The body is not of the type that the path takes.",
    422: "The engine cannot process the request.",
    429: "A limit is reached, or too much waits; `Retry-After` says when to come again.",
    431: "The headers are too large.",
    503: "Nothing can take the request now; `Retry-After` says when to come again.",
    504: "The answer took all the time that one may take.",
}
RETRY_LATER = (429, 503)

HEADERS: dict[str, tuple[str, Schema]] = {
    "x-request-id": (
        "A name of the client's own for the request. One that is longer, or has other characters, "
        "is replaced.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ),
    "x-orchestrator-data-class": (
        "Raises how sensitive the request counts; it never lowers it.",
        {"type": "string", "enum": [c.label for c in DataClass]},
    ),
    "x-orchestrator-session": (
        "The conversation that the request belongs to. It stays as sensitive as it ever was.",
        {"type": "string", "maxLength": MAX_SESSION_ID},
    ),
}
"""Of requests that are relayed."""

REQUEST_ID = {
    "x-request-id": {
        "description": "The request's name in the logs.",
        "schema": {"type": "string"},
        "required": True,
    }
}
RETRY_AFTER = {
    "retry-after": {
        "description": "Seconds.",
        "schema": {"type": "integer", "minimum": 0},
        "required": True,
    }
}


@cache
def body() -> bytes:
    """The description as JSON."""
    return orjson.dumps(document())


def document() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for route in ROUTES:
        described = paths[route.path] = {}
        names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
        if names:
            described["parameters"] = [_path_parameter(name) for name in names]
        for method in route.methods:
            operation = OPERATIONS[route.path, method]
            described[method.lower()] = _operation(operation, route.path)
    responses = {f"Error{status}": _error(status, "Error") for status in ERRORS}
    responses |= {f"MessagesError{status}": _error(status, "MessagesError") for status in ERRORS}
    headers = {name: _header_parameter(name) for name in HEADERS}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Inference",
            "version": "1",
            "description": "One endpoint for the models of the company, in the forms of OpenAI, "
            "Anthropic and vLLM. Fields that are not described here go to the engine as they are.",
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "responses": responses,
            "parameters": headers,
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of a workload.",
                }
            },
        },
    }


def _operation(operation: Operation, path: str) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
    errors = "MessagesError" if path.startswith("/v1/messages") else "Error"
    described["responses"] = {
        "200": _success(operation),
        **{str(s): {"$ref": f"#/components/responses/{errors}{s}"} for s in ERRORS},
    }
    if operation.request:
        kind = "multipart/form-data" if operation.id == "createFile" else "application/json"
        content = {kind: {"schema": reference(operation.request)}}
        described["requestBody"] = {"required": True, "content": content}
        described["parameters"] = [{"$ref": f"#/components/parameters/{h}"} for h in HEADERS]
    if operation.id == "getDescription":
        described["security"] = []
    return described


def _success(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"application/octet-stream": {}}
    if operation.response:
        content = {"application/json": {"schema": reference(operation.response)}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": "The answer.", "headers": REQUEST_ID, "content": content}


def _error(status: int, schema: str) -> dict[str, Any]:
    return {
        "description": ERRORS[status],
        "headers": REQUEST_ID | (RETRY_AFTER if status in RETRY_LATER else {}),
        "content": {"application/json": {"schema": reference(schema)}},
    }


def _path_parameter(name: str) -> dict[str, Any]:
    # A slash would make it another path.
    schema = {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _header_parameter(name: str) -> dict[str, Any]:
    description, schema = HEADERS[name]
    return {"name": name, "in": "header", "description": description, "schema": schema}
