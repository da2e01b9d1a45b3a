"""The OpenAPI 3.1 document, made from the same route table as the application.

Rules: nothing is described by hand that the code knows; every error of every operation has the one shape.
https://spec.openapis.org/oas/v3.1.0
"""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from translog import __version__
from translog.server.api import JSON, Problem, Route
from translog.server.problem import CONTENT_TYPE

_REF = "#/components/schemas/{model}"
_ERRORS = {
    400: "The request does not parse; the detail says where.",
    401: "Credentials are needed, or are not known.",
    403: "Known, but not allowed.",
    404: "There is no such thing, or not yet: then Retry-After says when to ask again.",
    409: "It conflicts with what is stored; the answer says with what.",
    413: "Over a limit.",
    415: "A content type or encoding that is not taken.",
    422: "It does not verify.",
    429: "Too often. Retry-After says when to ask again.",
    500: "Damage or a defect; reads go on, appends stop.",
    503: "Not now. Retry-After says when; code `outcome-unknown` means that it may have been written.",
}
_COMMON_ERRORS = (401, 403)
"""A credential that is present must be good, whatever it is sent for."""
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::[^}]*)?\}")


def openapi_document(routes: Iterable[Route], *, origin: str, what: str = "") -> dict[str, Any]:
    """The document for `routes` of the log `origin`; `what` is what else is served, if it is no log."""
    routes = list(routes)
    models: dict[type[BaseModel], None] = {Problem: None}
    for route in routes:
        models.update({model: None for _, _, model in route.answers.values() if model is not None})
    _, schemas = models_json_schema([(model, "serialization") for model in models], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PATH_PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": what or f"Transparency log {origin}",
            "version": __version__,
            "summary": "C2SP tlog-witness" if what else "C2SP tlog-tiles and a JSON interface beside it",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The token as the password."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": route.parameters.get(name, {"type": "string"})}
        for name in _PATH_PARAMETER.findall(route.path)
    ]
    parameters += _query_parameters(route.query)
    operation: dict[str, Any] = {"summary": route.summary, "parameters": parameters, "responses": _responses(route)}
    if route.bodies:
        schema = {"type": "string", "format": "binary"}
        operation["requestBody"] = {"required": True, "content": {media: {"schema": schema} for media in route.bodies}}
        operation["security"] = [{"bearer": []}, {"basic": []}, {"apiKey": []}, {}]
    return operation


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema(ref_template=_REF)
    definitions = schema.get("$defs", {})
    parameters = []
    for name, field in schema["properties"].items():
        inlined = _inline(field, definitions)
        description = inlined.pop("description", "")
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", []),
                "description": description,
                "schema": inlined,
            }
        )
    return parameters


def _inline(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without references and without null: in a query, absent is absent."""
    if "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**definitions[schema["$ref"].rsplit("/", 1)[1]], **rest}
    if "anyOf" in schema:
        kept = next(option for option in schema["anyOf"] if option.get("type") != "null")
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        return {**_inline(kept, definitions), **rest}
    return dict(schema)


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    own = {media: {"schema": {"type": "object" if media == JSON else "string"}} for media in route.own_media}
    for status, (description, media, model) in route.answers.items():
        other = {"type": "object" if media == JSON else "string"}
        schema = {"$ref": _REF.format(model=model.__name__)} if model is not None else other
        responses[str(status)] = {"description": description, "content": {**own, media: {"schema": schema}}}
    for status in sorted({*_COMMON_ERRORS, *route.errors}):
        if str(status) not in responses:
            responses[str(status)] = {
                "description": _ERRORS[status],
                "content": {**own, CONTENT_TYPE: {"schema": {"$ref": _REF.format(model=Problem.__name__)}}},
            }
    return responses
