"""Whole responses as bytes, for where no application runs: pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

GENERATION_HEADER = "X-Netclaw-Generation"


def phrase_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def raw_answer(
    status: int, media: str, content: bytes, generation: int, more: Mapping[str, str]
) -> bytes:
    """Render an HTTP/1.1 response that ends its connection, with more headers."""
    lines = [
        f"HTTP/1.1 {status} {phrase_of(status)}",
        "Cache-Control: no-store",
        "Connection: close",
        f"Content-Length: {len(content)}",
        f"Content-Type: {media}",
        f"{GENERATION_HEADER}: {generation}",
    ]
    lines += [f"{name}: {value}" for name, value in more.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
