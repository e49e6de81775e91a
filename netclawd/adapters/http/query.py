"""What a request says, checked: query parameters, the JSON body, the idempotency key."""

from __future__ import annotations

import json
import math
from typing import Any

from netclawd.adapters.http.problem import MediaTypeError
from netclawd.errors import BadRequestError

MAX_KEY_LENGTH = 255


def whole_number(req: Any, name: str, *, default: int, lowest: int, highest: int) -> int:
    """Return a query parameter; BadRequestError when it is no whole number in the range."""
    text = req.params.get(name)
    return default if text is None else to_whole_number(text, name, lowest, highest)


def to_whole_number(text: object, name: str, lowest: int, highest: int) -> int:
    """Parse digits; BadRequestError names what was wrong."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 19:
        value = int(text)
        if lowest <= value <= highest:
            return value
    raise BadRequestError(
        f"{name} is not a whole number from {lowest} to {highest}.", "Correct it or leave it out."
    )


def seconds(req: Any, name: str, highest: float) -> float:
    """Return a duration, 0 when it isn't given; BadRequestError as above."""
    text = req.params.get(name)
    if text is None:
        return 0.0
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if 0.0 <= value <= highest:
        return value
    raise BadRequestError(
        f"{name} is not a number of seconds from 0 to {highest:g}.", "Correct it or leave it out."
    )


def json_object(req: Any, *, known: frozenset[str] | None, required: bool) -> dict[str, Any]:
    """Read the body: a JSON object with no other than the known keys, None: with any.

    Without ``required`` an absent body counts as an empty object. MediaTypeError for a body declared
    as something else, BadRequestError for the rest.
    """
    raw = req.bounded_stream.read()
    if not raw:
        if required:
            raise BadRequestError("The request has no body.", "Send a JSON object.")
        return {}
    media = (req.content_type or "application/json").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise MediaTypeError(
            "The body is not declared as JSON.", "Send Content-Type: application/json."
        )
    if req.get_header("Content-Encoding", default="identity").lower() != "identity":
        raise MediaTypeError("The body is coded.", "Send it without Content-Encoding.")
    try:
        # loads() would guess UTF-16 and UTF-32 from bytes.
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadRequestError("The body is not JSON.", "Send a JSON object in UTF-8.") from None
    if not isinstance(value, dict):
        raise BadRequestError("The body is not a JSON object.", "Send an object.")
    if known is not None and (unknown := value.keys() - known):
        raise BadRequestError(
            f"The body has {len(unknown)} unknown keys.",
            "Send no other keys than: " + (", ".join(sorted(known)) or "none") + ".",
        )
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def idempotency_key(req: Any) -> str | None:
    """Return the Idempotency-Key, None without one; BadRequestError for one that can't be used."""
    key: str | None = req.get_header("Idempotency-Key")
    if key is None:
        return None
    if 0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable():
        return key
    raise BadRequestError(
        "The Idempotency-Key is empty, too long or not printable ASCII.",
        f"Use 1 to {MAX_KEY_LENGTH} printable characters.",
    )
