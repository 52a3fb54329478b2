"""The description of the HTTP API (OpenAPI 3.1), made from the table of endpoints and the types that it names. Pure.

Invariant: nothing is described here that the server does not do by the same line of the table.
"""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec

from perdure.runtime.web.api import shapes
from perdure.runtime.web.api.endpoint import BYTES, EVENT_STREAM, JSON, PATH_TYPES, Endpoint, Name
from perdure.runtime.web.api.problems import MEDIA_TYPE, Problem

_TEMPLATE: Final = "#/components/schemas/{name}"
_PROBLEM: Final = {"$ref": _TEMPLATE.format(name="Problem")}
_MEANINGS: Final = {
    400: "The body is not JSON.",
    401: "A token is missing, or not known.",
    403: "The token's role may not do this, or the request came from a web page of somebody else.",
    404: "There is nothing of that name.",
    408: "The body did not come in time.",
    409: "It cannot be done as things stand; nothing was recorded.",
    413: "A value, or the body, is too large.",
    415: "The body is not application/json.",
    422: "The request does not fit; the detail says what.",
    503: "Not now: the server is opening or being stopped, or too much waits. Retry-After says when to ask again.",
}


def describe(endpoints: Iterable[Endpoint], *, has_tokens: bool) -> dict[str, Any]:
    """Return the description as a JSON object; with *has_tokens*, one of a server that lets in who has one."""
    table = list(endpoints)
    types = [Problem, *(kind for one in table for kind in _types(one))]
    schemas, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    known = dict(zip(map(_key, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for one in table:
        operation = _operation(one, known)
        operation["security"] = [{"token": []}] if has_tokens else []
        paths.setdefault(one.path, {})[one.method.lower()] = operation
    for path, operation in _OPEN.items():
        paths[path] = {"get": operation}
    open_schemas = {kind.__name__: msgspec.json.schema_components([kind])[1][kind.__name__] for kind in _OPEN_TYPES}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Perdure",
            "version": _version(),
            "description": "Runs of workflows: start them, look at them, answer what they ask, follow the log.",
        },
        "paths": paths,
        "components": {
            "schemas": {**components, **open_schemas},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _types(one: Endpoint) -> list[Any]:
    parameters = [PATH_TYPES.get(name, Name) for name in one.names]
    bodies = [] if one.body is None else [one.body]
    queries = [] if one.query is None else [field.type for field in msgspec.structs.fields(one.query)]
    answers = [kind for kind in one.answers.values() if one.media_type == JSON]
    return [*parameters, *bodies, *queries, *answers]


def _key(kind: Any) -> str:
    return repr(kind)


def _operation(one: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": one.id,
        "summary": one.summary,
        "tags": [one.path.split("/")[2]],
        "description": f"Role: {one.role}.",
        "x-perdure-role": one.role,
    }
    if parameters := [*_path(one, known), *_query(one, known), *_headers(one)]:
        operation["parameters"] = parameters
    if one.body is not None:
        required = any(field.required for field in msgspec.structs.fields(one.body))
        operation["requestBody"] = {"required": required, "content": {JSON: {"schema": known[_key(one.body)]}}}
    operation["responses"] = {str(status): answer for status, answer in sorted(_responses(one, known).items())}
    return operation


def _path(one: Endpoint, known: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": known[_key(PATH_TYPES.get(name, Name))]}
        for name in one.names
    ]


def _query(one: Endpoint, known: dict[str, Any]) -> list[dict[str, Any]]:
    if one.query is None:
        return []
    return [
        {
            "name": field.encode_name,
            "in": "query",
            "required": field.required,
            "schema": _not_null(known[_key(field.type)]),
        }
        for field in msgspec.structs.fields(one.query)
    ]


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without null: what is left out of a query is not there."""
    if "anyOf" not in schema:
        return schema
    others = [each for each in schema["anyOf"] if each != {"type": "null"}]
    return others[0] if len(others) == 1 else {**schema, "anyOf": others}


def _headers(one: Endpoint) -> list[dict[str, Any]]:
    number = {"type": "string", "pattern": "^[0-9]{1,18}$"}
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": number}
        for name, text in one.headers.items()
    ]


def statuses(one: Endpoint) -> set[int]:
    """Return the statuses of the problems that an endpoint may answer with."""
    found = {401, 403, 422, 503, *one.refusals}
    if one.body is not None:
        found |= {400, 408, 413, 415}
    return found | {413}


def _responses(one: Endpoint, known: dict[str, Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {
        status: {"description": _MEANINGS[status], "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
        for status in statuses(one)
    }
    found[503]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    for status, kind in one.answers.items():
        content = known[_key(kind)] if one.media_type == JSON else _OTHER[one.media_type]
        found[status] = {"description": one.summary, "content": {one.media_type: {"schema": content}}}
        if status == 202 and one.method == "POST":  # noqa: PLR2004 - what was accepted has a place of its own
            found[status]["headers"] = {"Location": {"required": True, "schema": {"type": "string"}}}
    return found


def _version() -> str:
    try:
        return version("perdure")
    except PackageNotFoundError:
        return "unknown"


_OTHER: Final = {EVENT_STREAM: {"type": "string"}, BYTES: {"type": "string", "format": "binary"}}
_OPEN_TYPES: Final = (shapes.Health, shapes.Readiness)


def _open(summary: str, name: str, statuses: dict[str, str]) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": _TEMPLATE.format(name=name)}}}
    responses: dict[str, Any] = {status: {"description": text, "content": content} for status, text in statuses.items()}
    responses["403"] = {"description": _MEANINGS[403], "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
    return {"operationId": f"get{name}", "summary": summary, "tags": ["health"], "security": [], "responses": responses}


_OPEN: Final = {
    "/health": _open("Say that the process lives.", "Health", {"200": "It lives."}),
    "/ready": _open("Say whether requests are carried out.", "Readiness", {"200": "They are.", "503": "Not now."}),
}
"""What everybody may ask who reaches the server."""
