"""How a value from outside is shown in a message: short, on one line, never raw.

Pure. A configuration may hold anything (control characters, numbers of a million digits), and a
message goes to a terminal, a journal and a notify datagram.
"""

from __future__ import annotations

import json
from typing import Any

#: Longest text that is shown, characters.
LIMIT = 60
#: TOML's integers are signed and have 64 bits; Python parses longer ones but can't always print them.
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


def shown(value: Any) -> str:
    """Show a value as TOML would write it, or say what it is."""
    if isinstance(value, str):
        quoted = json.dumps(
            value if len(value) <= LIMIT else value[:LIMIT] + "…", ensure_ascii=False
        )
        return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if INT_MIN <= value <= INT_MAX else "a number of more than 64 bits"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return kind(value)


def kind(value: Any) -> str:
    """Say what sort of value it is, without showing it."""
    match value:
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def dotted(path: tuple[str | int, ...]) -> str:
    """Write a key as an operator would: ``daemon.listen[0]``, odd names quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if is_bare(part) else shown(part))
    return text


def is_bare(name: str) -> bool:
    """Whether TOML takes the name without quotes."""
    plain = name.replace("_", "a").replace("-", "a")
    return plain.isascii() and plain.isalnum() and len(name) <= LIMIT
