"""``openapi.json``, generated from the routes and the structs that the codec uses."""

import re
from typing import Any, Final

import msgspec

from edge_runtime import __version__
from edge_runtime.api.routes import Route
from edge_runtime.protocol.schemas import ErrorBody

_JSON: Final = "application/json"
_BINARY: Final = {
    "application/octet-stream": {
        "schema": {
            "type": "string",
            "format": "binary",
            "description": "The JSON part, then the raw tensors; Inference-Header-Content-Length "
            "says how long the JSON part is (0: only the elements of the only input).",
        }
    }
}
_TAR: Final = {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}
_REFERENCE: Final = "#/components/schemas/{name}"


def document(data: tuple[Route, ...], admin: tuple[Route, ...]) -> dict[str, Any]:
    """Describe both doors.

    Args:
        data: Routes of the data socket (and TCP).
        admin: Routes of the admin socket; those that the data socket has too are said once.

    Returns:
        An OpenAPI 3.1 document.
    """
    rows = [(route, "data") for route in data if not route.summary.startswith("Refused")]
    known = {(route.method, route.path) for route, _ in rows}
    rows += [(route, "admin") for route in admin if (route.method, route.path) not in known]
    structs: list[Any] = [ErrorBody]
    for route, _ in rows:
        structs += [
            struct for struct in (route.request, route.response) if struct not in {None, bytes}
        ]
    unique = list(dict.fromkeys(structs))
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REFERENCE)
    schema_of = dict(zip(unique, schemas, strict=True))
    paths: dict[str, Any] = {}
    for route, door in rows:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, door, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edge-runtime",
            "version": __version__,
            "description": "Open Inference Protocol v2 with Triton's extensions, on a Unix "
            "socket. Operations tagged `admin` are on the admin socket only.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, door: str, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": "Done."}
    if route.response is not None:
        response["content"] = {_JSON: {"schema": schema_of[route.response]}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [door],
        "operationId": _operation_id(route),
        "responses": {
            "200": response,
            "default": {
                "description": "Refused or failed; says what, where and what to do.",
                "content": {_JSON: {"schema": schema_of[ErrorBody]}},
            },
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    if route.query is not None:
        parameters += _query(route.query)
    if parameters:
        operation["parameters"] = parameters
    if route.request is bytes:
        operation["requestBody"] = {"required": True, "content": _TAR}
    elif route.request is not None:
        content = {_JSON: {"schema": schema_of[route.request]}}
        if route.path.endswith("/infer"):
            content |= _BINARY
            response["content"] |= _BINARY
        operation["requestBody"] = {"required": _needs_body(route), "content": content}
    return operation


def _needs_body(route: Route) -> bool:
    """Say whether something in the body has to be said."""
    if route.request is None or route.path.endswith(("/infer", "predict")):
        return route.request is not None
    fields = msgspec.structs.fields(route.request)
    return any(field.required for field in fields)


def _query(struct: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - a struct's class
    """Describe each field of a query, all of which may be left out."""
    schema = msgspec.json.schema(struct)
    fields: dict[str, Any] = schema["$defs"][struct.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": field}
        for name, field in fields.items()
    ]


def _operation_id(route: Route) -> str:
    words = re.findall(r"\w+", route.path.replace("{", "by_"))
    slash = ["slash"] if route.path.endswith("/") else []
    return "_".join([route.method.lower(), *words, *slash])
