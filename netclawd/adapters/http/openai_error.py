"""Errors in the form that clients of OpenAI's API read: pure.

Everything under ``/v1`` answers so. ``type`` follows the status, ``code`` is the slug that the same error has
everywhere else, with underscores; where clients act on a code of OpenAI's own, it is that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from netclawd.adapters.http.raw import raw_answer
from netclawd.core.values import frozen
from netclawd.errors import NetclawError

MEDIA_TYPE = "application/json"
SESSION_HEADER = "X-Netclaw-Session"
#: Read by OpenAI's own clients before they send a request again by themselves.
SHOULD_RETRY_HEADER = "X-Should-Retry"

_PREFIX = "/v1"

#: What a model server has done, as the status of a gateway; whatever else failed has its own.
_STATUSES = {
    "provider-busy": 429,
    "provider-timeout": 504,
    "provider-refused": 400,
    "context-overflow": 400,
    "cancelled": 409,
    "parked": 409,
    "internal-error": 500,
    "cut-by-restart": 503,
}
_CODES = {"context-overflow": "context_length_exceeded"}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@frozen
class Failure:
    status: int
    slug: str
    message: str
    param: str | None = None
    #: The session in which the turn is, or goes on.
    session_id: str | None = None
    #: Whether the request should be sent again; None: as the status has it.
    again: bool | None = None

    @classmethod
    def of(cls, status: int, slug: str, what: str, remedy: str) -> Failure:
        """Return what is worded in two parts, for which this form has one place."""
        return cls(status, slug, f"{what} {remedy}".strip())


class TurnError(NetclawError):
    """A durable turn has not given the answer that its client waits for."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def concerns(path: str) -> bool:
    """Whether a request for this path is answered in this form."""
    return path == _PREFIX or path.startswith(f"{_PREFIX}/")


def status_of(slug: str, otherwise: int) -> int:
    return _STATUSES.get(slug, otherwise)


def failure_of(error: NetclawError) -> Failure:
    """Return how an error is shown."""
    if isinstance(error, TurnError):
        return error.failure
    param = getattr(error, "param", None)
    return Failure(status_of(error.slug, error.status), error.slug, str(error), param)


def error_object(failure: Failure) -> dict[str, Any]:
    """Return the object, with the session beside the error if there is one."""
    error = {
        "message": failure.message,
        "type": _TYPES.get(
            failure.status, "server_error" if failure.status >= 500 else "invalid_request_error"
        ),
        "param": failure.param,
        "code": _CODES.get(failure.slug, failure.slug.replace("-", "_")),
    }
    session = {} if failure.session_id is None else {"session_id": failure.session_id}
    return {"error": error, **session}


def headers(failure: Failure, retry_after_s: int) -> Mapping[str, str]:
    """Return what the head of the response says of it."""
    found = {}
    if failure.status in (429, 503):
        found["Retry-After"] = str(retry_after_s)
    if failure.session_id is not None:
        found[SESSION_HEADER] = failure.session_id
    if failure.again is not None:
        found[SHOULD_RETRY_HEADER] = "true" if failure.again else "false"
    return found


def body(failure: Failure) -> bytes:
    return json.dumps(error_object(failure)).encode()


def raw_response(failure: Failure, *, generation: int, retry_after_s: int) -> bytes:
    """Render a whole response that ends its connection, for where no application runs."""
    return raw_answer(
        failure.status, MEDIA_TYPE, body(failure), generation, headers(failure, retry_after_s)
    )
