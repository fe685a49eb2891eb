"""The description of the endpoint."""

import re

import jsonschema
import orjson
import pytest

from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.openapi import ERRORS, OPERATIONS, document
from orchestrator.gateway.openapi_schemas import SCHEMAS
from orchestrator.gateway.routes import OTHER, ROUTES, route_of

DOCUMENT = document()


def test_every_endpoint_is_described() -> None:
    assert {route_of(path).path for path in ENDPOINTS} <= set(DOCUMENT["paths"])
    assert set(OPERATIONS) == {(route.path, method) for route in ROUTES for method in route.methods}


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    references = set(re.findall(r"#/components/(\w+)/([\w-]+)", str(DOCUMENT)))
    for section, name in references:
        assert name in DOCUMENT["components"][section]
    assert set(SCHEMAS) == {name for section, name in references if section == "schemas"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


def test_an_error_of_the_gateway_is_one_as_described() -> None:
    body = orjson.loads(ApiError(404, "not_found", "There is nothing.").body())
    jsonschema.validate(body, SCHEMAS["Error"])
    assert set(ERRORS) >= {400, 401, 403, 404, 405, 408, 413, 429, 431, 503}


def test_only_the_description_needs_no_key() -> None:
    assert DOCUMENT["security"] == [{"apiKey": []}]
    free = [
        path
        for path, methods in DOCUMENT["paths"].items()
        for operation in methods.values()
        if isinstance(operation, dict) and operation.get("security") == []
    ]
    assert free == ["/openapi.json"]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/m", "/v1/models/{model}"),
        ("/v1/models/", OTHER),
        ("/v1/models/{model}", "/v1/models/{model}"),
        ("/v1/models/m/content", OTHER),
        ("/v1/files/f/content", "/v1/files/{file_id}/content"),
        ("/v1/batches/b/cancel", "/v1/batches/{batch_id}/cancel"),
        ("/v1/batches/b/other", OTHER),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", OTHER),
        ("/v2/models/m", OTHER),
        ("other", OTHER),
        ("", OTHER),
    ],
)
def test_a_path_belongs_to_a_route_or_to_none(path: str, route: str) -> None:
    assert route_of(path).path == route
