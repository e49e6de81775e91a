"""Text from outside, made harmless: printable, and for supervisors and logs one bounded line.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from unicodedata import east_asian_width

#: Bytes of a STATUS= text or of a log line's free part.
LIMIT_BYTES = 200


def visible(text: str) -> str:
    """Write control characters as escapes, so that a text can't drive the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def broken(line: str, room: int) -> Iterator[str]:
    """Break a line into pieces that take ``room`` columns of a terminal at most, rather fewer than more."""
    begun, taken = 0, 0
    for at, c in enumerate(line):
        columns = 2 if east_asian_width(c) in "WF" else 1
        if taken + columns > room:
            yield line[begun:at]
            begun, taken = at, 0
        taken += columns
    yield line[begun:]


def one_line(text: str, limit_bytes: int = LIMIT_BYTES) -> str:
    """Escape control characters and cut at ``limit_bytes`` of UTF-8, never inside a character."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    raw = escaped.encode("utf-8", "replace")
    if len(raw) <= limit_bytes:
        return raw.decode()
    return raw[: limit_bytes - 3].decode("utf-8", "ignore") + "…"
