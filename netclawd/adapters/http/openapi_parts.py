"""What the OpenAPI descriptions of all routes are made of. Pure; imported when somebody asks for one."""

from __future__ import annotations

from typing import Any

from netclawd.adapters.http.raw import GENERATION_HEADER

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


def object_of(properties: Json, *, required: bool = True) -> Json:
    """Return the schema of an object that has all of these, or with ``required`` off any of them."""
    schema: Json = {"type": "object", "properties": properties}
    return {**schema, "required": sorted(properties)} if required else schema


def query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def integer(lowest: int, highest: int, default: int) -> Json:
    return {**WHOLE, "minimum": lowest, "maximum": highest, "default": default}


def path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def answer(description: str, schema: Json, media: str = "application/json") -> Json:
    return {
        "description": description,
        "headers": {GENERATION_HEADER: {"$ref": "#/components/headers/Generation"}},
        "content": {media: {"schema": schema}},
    }


def operation(name: str, summary: str, answers: Json, **more: Any) -> Json:
    """Return an operation; whatever else it answers is a problem."""
    responses = {**answers, "default": {"$ref": "#/components/responses/Problem"}}
    return {"operationId": name, "summary": summary, "responses": responses, **more}
