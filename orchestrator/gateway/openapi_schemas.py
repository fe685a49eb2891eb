"""The schemas of requests and answers that the endpoint's description refers to."""

from typing import Any

from orchestrator.gateway.batch_fields import WINDOW
from orchestrator.gateway.dialects import ENDPOINTS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
LIMIT: Schema = {"type": ["integer", "null"], "minimum": 1}
OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
TOKEN_IDS: Schema = {"type": "array", "items": COUNT}


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def some(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def described(required: str, properties: dict[str, Schema]) -> Schema:
    """An object with these fields, and any others."""
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": True,
    }


def constant(value: str) -> Schema:
    return {"type": "string", "const": value}


def page(name: str) -> Schema:
    items: Schema = {"type": "array", "items": reference(name)}
    return described("object data", {"object": constant("list"), "data": items})


MODEL: dict[str, Schema] = {"model": {**NAME, "description": "One of `/v1/models`."}}
STREAM: dict[str, Schema] = {
    "stream": {"type": ["boolean", "null"], "description": "Answer as it is made, in events."}
}
STREAM_OPTIONS: dict[str, Schema] = {
    "stream_options": {
        "type": ["object", "null"],
        "properties": {"include_usage": {"type": ["boolean", "null"]}},
        "additionalProperties": True,
    }
}
MESSAGES: dict[str, Schema] = {"messages": some(described("role", {"role": TEXT}))}
INPUT: Schema = either(NAME, some({}))

REQUESTS: dict[str, Schema] = {
    "ChatRequest": described(
        "model messages",
        {
            **MODEL,
            **MESSAGES,
            **STREAM,
            **STREAM_OPTIONS,
            "max_tokens": LIMIT,
            "max_completion_tokens": LIMIT,
        },
    ),
    "CompletionRequest": described(
        "model prompt",
        {**MODEL, "prompt": INPUT, **STREAM, **STREAM_OPTIONS, "max_tokens": LIMIT},
    ),
    "ResponsesRequest": described(
        "model input", {**MODEL, "input": INPUT, **STREAM, "max_output_tokens": LIMIT}
    ),
    "MessagesRequest": described(
        "model messages max_tokens",
        {**MODEL, **MESSAGES, **STREAM, "max_tokens": {"type": "integer", "minimum": 1}},
    ),
    "CountTokensRequest": described("model messages", {**MODEL, **MESSAGES}),
    "EmbeddingRequest": described("model input", {**MODEL, "input": INPUT}),
    "RerankRequest": described(
        "model query documents", {**MODEL, "query": NAME, "documents": some({})}
    ),
    "ScoreRequest": described("model", MODEL),
    "TokenizeRequest": {
        **described("model", {**MODEL, "prompt": TEXT, **MESSAGES}),
        "anyOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
    },
    "DetokenizeRequest": described("model tokens", {**MODEL, "tokens": TOKEN_IDS}),
    "FileRequest": described(
        "file purpose",
        {"file": {"type": "string", "format": "binary"}, "purpose": constant("batch")},
    ),
    "BatchRequest": described(
        "input_file_id endpoint completion_window",
        {
            "input_file_id": NAME,
            "endpoint": {"type": "string", "enum": list(ENDPOINTS)},
            "completion_window": {"type": "string", "pattern": f"^{WINDOW.pattern}$"},
        },
    ),
}

USAGE = described("prompt_tokens", {"prompt_tokens": COUNT, "completion_tokens": COUNT})
CHOICES = described("choices", {"choices": OBJECTS, "usage": either(USAGE, {"type": "null"})})
ANSWERS: dict[str, Schema] = {
    "ChatCompletion": CHOICES,
    "Completion": CHOICES,
    "Response": described("output", {"output": OBJECTS}),
    "Message": described(
        "type role content",
        {"type": constant("message"), "role": constant("assistant"), "content": OBJECTS},
    ),
    "TokenCount": described("input_tokens", {"input_tokens": COUNT}),
    "Embeddings": described("data", {"data": OBJECTS}),
    "Ranking": described("results", {"results": OBJECTS}),
    "Scores": described("data", {"data": OBJECTS}),
    "Tokens": described("count", {"count": COUNT, "tokens": {"type": "array"}}),
    "Text": described("prompt", {"prompt": TEXT}),
    "Model": described(
        "id object",
        {"id": NAME, "object": constant("model"), "created": COUNT, "owned_by": TEXT},
    ),
    "Models": page("Model"),
    "File": described(
        "id object bytes created_at purpose",
        {"id": NAME, "object": constant("file"), "bytes": COUNT, "purpose": TEXT},
    ),
    "Files": page("File"),
    "DeletedFile": described("id deleted", {"id": NAME, "deleted": {"type": "boolean"}}),
    "Batch": described(
        "id object status",
        {"id": NAME, "object": constant("batch"), "status": TEXT, "endpoint": TEXT},
    ),
    "Batches": page("Batch"),
    "Description": described("openapi paths", {"openapi": TEXT, "paths": {"type": "object"}}),
}

ERRORS: dict[str, Schema] = {
    "Error": described(
        "error",
        {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {**TEXT, "description": "What is wrong, and what mends it."},
                    "type": TEXT,
                    "param": {"type": ["string", "null"], "description": "The field at fault."},
                    "code": {**TEXT, "description": "For programs."},
                },
            }
        },
    ),
    "AnthropicError": described(
        "type error",
        {
            "type": constant("error"),
            "error": described("type message", {"type": TEXT, "message": TEXT}),
        },
    ),
    "MessagesError": either(reference("AnthropicError"), reference("Error")),
}

SCHEMAS: dict[str, Schema] = {**REQUESTS, **ANSWERS, **ERRORS}
