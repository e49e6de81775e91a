"""What a change does to a text, line by line, for people to read.

Pure. Control characters are escaped: a file may hold anything, and a diff goes to a terminal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from enum import StrEnum

from netclawd.core.values import frozen


class Kind(StrEnum):
    ADDED = "+"
    REMOVED = "-"
    CONTEXT = " "
    #: Where in the file the next lines stand.
    PLACE = "@"


@frozen
class Line:
    kind: Kind
    #: As it is shown, with its sign in front.
    text: str


def diff(old: str, new: str, context: int = 3) -> Iterator[Line]:
    """Compare two texts; nothing when they are the same."""
    lines = difflib.unified_diff(_lines(old), _lines(new), lineterm="", n=context)
    for number, line in enumerate(lines):
        if number >= 2:  # before that stand the names of two files
            yield Line(Kind(line[0]), _visible(line))


def _lines(text: str) -> list[str]:
    # Not splitlines(): a line of a file ends with a line feed and nothing else.
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _visible(line: str) -> str:
    return "".join(
        c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode()
        for c in line.removesuffix("\r")
    )
