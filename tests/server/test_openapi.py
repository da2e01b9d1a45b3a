"""The OpenAPI document is sound, complete, and what the log does: schemathesis asks for everything it says, and more."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from pydantic import BaseModel
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from translog.events.sources.otlp import PROTOBUF
from translog.server.api import NDJSON, Route
from translog.server.app import PUBLIC_ROUTES
from translog.server.openapi import openapi_document
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import entries, record, require_dense, take
from .harness import ORIGIN, PROBLEM, Running, numbered

for media in (NDJSON, PROTOBUF):
    schemathesis.serializer.alias(media, "application/octet-stream")

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OWN_PATH = "/openapi.json"
EXAMPLES = 20
"""Per operation and kind of data: good, and not good."""


def document() -> dict[str, Any]:
    return openapi_document(PUBLIC_ROUTES, origin=ORIGIN)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def _plain(route: Route) -> str:
    """A route's path without its patterns."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path)


def references(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key == "$ref":
            yield value
        else:
            yield from references(value)


def test_the_document_is_valid_openapi_3_1() -> None:
    schema = schemathesis.openapi.from_dict(document())
    schema.validate()
    assert document()["openapi"].startswith("3.1.")
    assert all(document()["info"][key] for key in ("title", "version"))


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    found = set(references(document()))
    named = {f"#/components/schemas/{name}" for name in document()["components"]["schemas"]}
    assert found == named


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    routes = {(route.method.lower(), _plain(route)) for route in PUBLIC_ROUTES}
    assert {(method, path) for method, path, _ in operations()} == routes


@pytest.mark.parametrize(("method", "path", "operation"), list(operations()), ids=lambda value: str(value)[:40])
def test_every_operation_is_described(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    in_path = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
    assert in_path == set(re.findall(r"\{(\w+)\}", path))
    assert all(parameter["required"] for parameter in operation["parameters"] if parameter["in"] == "path")
    for parameter in operation["parameters"]:
        assert "$ref" not in str(parameter)
        assert "null" not in str(parameter["schema"])
    assert ("requestBody" in operation) == (method == "post")


@pytest.mark.parametrize(("method", "path", "operation"), list(operations()), ids=lambda value: str(value)[:40])
def test_every_error_of_every_operation_has_the_one_shape(method: str, path: str, operation: dict[str, Any]) -> None:
    own_media = next(route.own_media for route in PUBLIC_ROUTES if (route.method.lower(), _plain(route)) == (method, path))
    for status, response in operation["responses"].items():
        assert response["description"]
        if int(status) >= 400 and (path, status) != ("/readyz", "503"):
            assert response["content"][PROBLEM] == {"schema": {"$ref": "#/components/schemas/Problem"}}
            assert set(response["content"]) == {PROBLEM, *own_media}
        else:
            assert set(response["content"]) >= set(own_media)
            assert len(response["content"]) == max(1, len(own_media))
    assert "200" in operation["responses"]


@pytest.mark.parametrize("route", [route for route in PUBLIC_ROUTES if route.query], ids=lambda route: route.path)
def test_every_query_parameter_is_in_the_document(route: Any) -> None:
    model: type[BaseModel] = route.query
    operation = document()["paths"][route.path][route.method.lower()]
    said = {parameter["name"]: parameter["required"] for parameter in operation["parameters"] if parameter["in"] == "query"}
    assert said == {name: info.is_required() for name, info in model.model_fields.items()}


def test_every_operation_says_what_a_bad_credential_gets() -> None:
    assert [path for _, path, operation in operations() if not {"401", "403"} <= set(operation["responses"])] == []


async def test_the_document_is_served(log_server: Running) -> None:
    answer = (await log_server.get("/openapi.json")).require_ok()
    assert answer.json == document()
    assert answer.headers["Cache-Control"] == "no-store"


async def test_the_document_is_made_once(log_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translog.server.app.openapi_document", None)
    assert (await log_server.get("/openapi.json")).require_ok().json == document()


def exercise(operation: Any, mode: GenerationMode, *, url: str) -> None:
    """Sends generated requests of one operation and checks the answers."""

    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        case.call_and_validate(base_url=url, checks=CHECKS)

    one()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("leaf_lookup", [True, False])
async def test_the_log_does_what_the_document_says(serve: Serve, mode: GenerationMode, leaf_lookup: bool) -> None:
    log = await serve(log={"leaf_lookup": leaf_lookup})
    await log.grow(numbered(0, 300))
    await require_as_documented(log, mode)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
async def test_a_log_of_events_does_what_the_document_says(serve: Serve, mode: GenerationMode) -> None:
    log = await serve(profile=Profile.EVENTS, intake={"audit_signal": True})
    await take(log, [record(str(number)) for number in range(300)])
    await require_as_documented(log, mode)
    require_dense(await entries(log))


async def require_as_documented(log: Running, mode: GenerationMode) -> None:
    """Tries every operation."""

    def run() -> set[str]:
        done = set()
        schema = schemathesis.openapi.from_dict(document())
        for result in schema.get_all_operations():
            assert isinstance(result, Ok)
            operation = result.ok()
            # Without a query there is nothing to get wrong: any text is a tile's path as far as a schema can say.
            if operation.path != OWN_PATH and (mode is GenerationMode.POSITIVE or operation.query):
                exercise(operation, mode, url=log.url)
                done.add(operation.label)
        return done

    done = await asyncio.to_thread(run)
    routes = [route for route in PUBLIC_ROUTES if route.path != OWN_PATH and (mode is GenerationMode.POSITIVE or route.query)]
    assert done == {f"{route.method} {_plain(route)}" for route in routes}


async def test_the_document_describes_itself(log_server: Running) -> None:
    def run() -> None:
        schema = schemathesis.openapi.from_dict(document())
        exercise(schema[OWN_PATH]["GET"], GenerationMode.POSITIVE, url=log_server.url)

    await asyncio.to_thread(run)
