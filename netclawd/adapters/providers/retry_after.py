"""When a server asks to come back: Retry-After (RFC 9110, 10.2.3), seconds or a date."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

#: Whoever asks for more asks not to come back.
LONGEST_S = 30 * 86_400.0


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, None where nothing sensible was said.

    A date is compared with the server's own Date, so that no clock needs to be right.
    """
    value = headers.get("Retry-After", "").strip()
    if value.replace(".", "", 1).isdecimal() and value.isascii() and len(value) < 16:
        return min(float(value), LONGEST_S)
    try:
        at, now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date", ""))
        seconds = (at - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_S)
