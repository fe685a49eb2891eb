"""The paths of the endpoint, as its description, its metrics and its logs name them."""

from dataclasses import dataclass

OTHER = "other"
"""Stands for every path that is none of these."""


@dataclass(frozen=True, slots=True)
class Route:
    path: str
    """With parameters in braces."""
    methods: tuple[str, ...]
    operation: str = ""
    """`gen_ai.operation.name`, for what is relayed to a model."""


ROUTES = (
    Route("/v1/chat/completions", ("POST",), "chat"),
    Route("/v1/completions", ("POST",), "text_completion"),
    Route("/v1/responses", ("POST",), "chat"),
    Route("/v1/messages", ("POST",), "chat"),
    Route("/v1/messages/count_tokens", ("POST",), "count_tokens"),
    Route("/v1/embeddings", ("POST",), "embeddings"),
    Route("/v1/rerank", ("POST",), "rerank"),
    Route("/v1/score", ("POST",), "score"),
    Route("/tokenize", ("POST",), "tokenize"),
    Route("/detokenize", ("POST",), "detokenize"),
    Route("/v1/models", ("GET",)),
    Route("/v1/models/{model}", ("GET",)),
    Route("/v1/files", ("GET", "POST")),
    Route("/v1/files/{file_id}", ("GET", "DELETE")),
    Route("/v1/files/{file_id}/content", ("GET",)),
    Route("/v1/batches", ("GET", "POST")),
    Route("/v1/batches/{batch_id}", ("GET",)),
    Route("/v1/batches/{batch_id}/cancel", ("POST",)),
    Route("/openapi.json", ("GET",)),
)

ALIASES = {
    "/rerank": "/v1/rerank",
    "/v2/rerank": "/v1/rerank",
    "/score": "/v1/score",
    "/v1/tokenize": "/tokenize",
    "/v1/detokenize": "/detokenize",
}
"""Other paths by which engines' clients call the same."""

_EXACT = {route.path: route for route in ROUTES}
_EXACT |= {alias: _EXACT[path] for alias, path in ALIASES.items()}
_NO_ROUTE = Route(OTHER, ())


def route_of(path: str) -> Route:
    """The route that a request's path belongs to; one with path `other` for those of none."""
    route = _EXACT.get(path)
    if route is not None and "{" not in path:
        return route
    parts = path.split("/")
    if len(parts) in (4, 5) and parts[1] == "v1" and parts[3]:
        parts[3] = {"models": "{model}", "files": "{file_id}", "batches": "{batch_id}"}.get(
            parts[2], ""
        )
        return _EXACT.get("/".join(parts), _NO_ROUTE)
    return _NO_ROUTE
