"""The OpenAPI description. Imported only when somebody asks for it."""

from typing import Any


def document() -> dict[str, Any]:
    return {"openapi": "3.1.0"}
