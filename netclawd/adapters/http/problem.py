"""Errors as problem+json (RFC 9457): pure.

The slug is the identity of a problem (``urn:netclaw:problem:<slug>``) and never changes meaning; the
title is the slug in words. A problem says what happened (``detail``) and what to do (``remedy``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from netclawd.adapters.http import openai_error
from netclawd.adapters.http.raw import raw_answer
from netclawd.errors import NetclawError

MEDIA_TYPE = "application/problem+json"

#: Slugs of the errors that the HTTP layer itself finds, by status.
_SLUGS = {
    400: "bad-request",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    408: "request-timeout",
    411: "length-required",
    413: "body-too-large",
    414: "uri-too-long",
    415: "unsupported-media-type",
    429: "too-many-streams",
    431: "headers-too-large",
    501: "not-implemented",
    503: "unavailable",
    505: "http-version-not-supported",
}

#: Where our own words say more than the library's.
_DETAILS = {
    413: "The body is larger than 1 MiB.",
    431: "The request line and the headers are larger than 64 KiB.",
}

_REMEDIES = {
    400: "Correct the request: send it as HTTP/1.1 (RFC 9112) has it.",
    404: "Look up the paths in /openapi.json.",
    405: "Use one of the methods in the Allow header.",
    408: "Send the request again, whole.",
    413: "Send at most 1 MiB.",
    415: "Send JSON, with Content-Type: application/json.",
    431: "Send at most 64 KiB of headers.",
    501: "Use a method that the path knows, and no other transfer coding than chunked.",
    503: "Send it again after Retry-After seconds.",
    505: "Speak HTTP/1.1.",
}


class ForbiddenHostError(NetclawError):
    """The Host header names a host that this daemon doesn't answer for."""

    slug = "forbidden-host"
    status = 403


class ForbiddenOriginError(NetclawError):
    """The request was made by a web page of another site."""

    slug = "forbidden-origin"
    status = 403


class UnknownMethodError(NetclawError):
    """The request has a method that nobody knows."""

    slug = "not-implemented"
    status = 501


class MediaTypeError(NetclawError):
    """The body isn't declared as JSON, or is coded."""

    slug = "unsupported-media-type"
    status = 415


class TooManyStreamsError(NetclawError):
    """daemon.max_streams event streams, long polls and chat completions are open."""

    slug = "too-many-streams"
    status = 429


class NotReadyError(NetclawError):
    """The daemon serves but new turns don't run now."""

    slug = "not-ready"
    status = 503


def slug_of(status: int) -> str:
    """Name an error that only has a status."""
    return _SLUGS.get(status, "internal-error" if status >= 500 else "bad-request")


def remedy_of(status: int) -> str:
    return _REMEDIES.get(status, "")


def detail_of(status: int) -> str:
    return _DETAILS.get(status, "")


def body(
    status: int,
    slug: str,
    detail: str,
    remedy: str = "",
    instance: str = "",
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Render the problem; members without a value are left out."""
    members: dict[str, Any] = {
        "type": f"urn:netclaw:problem:{slug}",
        "title": slug.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
    }
    if remedy:
        members["remedy"] = remedy
    if instance:
        members["instance"] = instance
    members.update(extra or {})
    return json.dumps(members).encode()


def raw_response(
    status: int,
    slug: str,
    detail: str,
    remedy: str,
    *,
    generation: int,
    retry_after_s: int | None = None,
    path: str = "",
) -> bytes:
    """Render a whole response, in the form of what is at this path, as far as that is known."""
    more = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if openai_error.concerns(path):
        failure = openai_error.Failure.of(status, slug, detail, remedy)
        return raw_answer(
            status, openai_error.MEDIA_TYPE, openai_error.body(failure), generation, more
        )
    return raw_answer(status, MEDIA_TYPE, body(status, slug, detail, remedy), generation, more)


def incomplete_response(generation: int, path: str) -> bytes:
    """Render the 400 of a request whose sender ended the connection in the middle of it."""
    return raw_response(
        400,
        "bad-request",
        "The connection was ended in the middle of the request.",
        "Send the request whole, and keep the connection open until the answer has come.",
        generation=generation,
        path=path,
    )


def crowded_response(generation: int, path: str) -> bytes:
    """Render the 503 of a half request that has to make room for others."""
    return raw_response(
        503,
        "unavailable",
        "The daemon has as many connections as it can hold, and this request was not whole yet.",
        "Send it again after Retry-After seconds, without pauses.",
        generation=generation,
        path=path,
        retry_after_s=1,
    )


def cut_response(generation: int, retry_after_s: int, path: str) -> bytes:
    """Render the 503 of a request that was unfinished at the deadline of the drain."""
    return raw_response(
        503,
        "draining",
        "The daemon restarts or stops, and this request was not finished at its deadline.",
        "Send it again after Retry-After seconds, with the same Idempotency-Key.",
        generation=generation,
        path=path,
        retry_after_s=retry_after_s,
    )
