"""The OpenAPI 3.1 document, made from the route table and the types."""

from __future__ import annotations

import functools
import re
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lbctl import __version__
from lbctl.api import types as t
from lbctl.api.routes import ROUTES, Route
from lbctl.http.problems import CONTENT_TYPE

_SCHEMA = "#/components/schemas/"
_CONTENT_TYPES = {"get_openapi": "application/json", "get_metrics": "text/plain"}


@functools.cache
def document() -> dict[str, Any]:
    """The document as JSON values. Don't change it: it is made once."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lbctl", "version": __version__,
                 "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                 "description": "Moves external IPs between load balancers without losing connections."},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": {"Problem": {"description": "Problem details (RFC 9457).",
                                      "content": {CONTENT_TYPE: {"schema": _reference(t.ProblemDetails)}}}},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer",
                                          "description": "Only where `token_file` is set."}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.operation, "summary": route.summary,
                                 "parameters": _path_parameters(route) + _query_parameters(route),
                                 "responses": _responses(route)}
    if route.body:
        operation["requestBody"] = {"required": True, "content": _json(route.body)}
    return operation


def _responses(route: Route) -> dict[str, Any]:
    content = (_json(route.response) if route.response else
               {_CONTENT_TYPES[route.operation]: {"schema": {"type": "object" if "json" in
                                                             _CONTENT_TYPES[route.operation] else "string"}}})
    good = {str(status): {"description": meaning, "content": content}
            for status, meaning in (route.statuses or {200: route.summary}).items()}
    bad = {str(status): {"$ref": "#/components/responses/Problem"} for status in route.errors}
    return {**good, **bad, "default": {"$ref": "#/components/responses/Problem"}}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", route.path)]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    properties = route.query.model_json_schema()["properties"] if route.query.model_fields else {}
    return [{"name": name, "in": "query", "required": False, "description": schema.pop("description"), "schema": schema}
            for name, schema in properties.items()]


def _schemas() -> dict[str, Any]:
    models: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = []
    models += [(route.body, "validation") for route in ROUTES if route.body]
    models += [(route.response, "serialization") for route in ROUTES if route.response]
    _, schemas = models_json_schema([*models, (t.ProblemDetails, "serialization")], ref_template=_SCHEMA + "{model}")
    found: dict[str, Any] = schemas["$defs"]
    return found


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(model)}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMA + model.__name__}
