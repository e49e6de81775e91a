"""Changes one setting in a TOML text and leaves everything else as it was: comments, order, layout.

tomlkit does the editing. The caller compares what another reader makes of the result with what was
meant, so a layout that tomlkit doesn't master is an error and never a damaged file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

from netclawd.errors import ConfigNotWrittenError

_BOM = "\ufeff"


def preload() -> None:
    """Import what an edit needs."""
    import tomlkit  # noqa: F401


def with_value(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text with a setting set; ConfigNotWrittenError where its layout has no room."""
    return _edited(text, lambda document: _set(document, path, value))


def without_value(text: str, path: Sequence[str]) -> str:
    """Return the text without a setting or table that it has; errors as for :func:`with_value`."""
    return _edited(text, lambda document: _unset(document, path))


def _edited(text: str, change: Callable[[Any], None]) -> str:
    import tomlkit

    bom = _BOM if text.startswith(_BOM) else ""
    body = text.removeprefix(_BOM)
    if body and not body.endswith("\n"):
        body += "\n"
    try:
        document = tomlkit.parse(body)
        change(document)
        edited = _spaced(body, tomlkit.dumps(document))
    except Exception as error:  # Whatever a library makes of a layout that it does not master.
        raise ConfigNotWrittenError(
            f"The layout of the file leaves no room for this change ({type(error).__name__}).",
            "Make it by hand: `netclaw config edit`.",
        ) from error
    if "\r\n" in body and not re.search(r"(?<!\r)\n", text.removeprefix(_BOM)):
        edited = re.sub(r"(?<!\r)\n", "\r\n", edited)  # what was added
    return bom + edited


def _spaced(before: str, edited: str) -> str:
    """Give a table back the blank line above it that one which was added above has taken."""
    pairs = zip(reversed(before), reversed(edited), strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    rest, had, has = edited[-same:], before[:-same].rstrip("\r"), edited[:-same].rstrip("\r")
    taken = same and rest.startswith("\n[") and had.endswith("\n") and not has.endswith("\n")
    return f"{edited[:-same]}\n{rest}" if taken else edited


def _set(document: Any, path: Sequence[str], value: Any) -> None:
    import tomlkit

    table = document
    for depth, name in enumerate(path[:-1], 1):
        if name not in table:
            table[name] = tomlkit.table(is_super_table=depth < len(path) - 1)
        table = table[name]
    table[path[-1]] = value


def _unset(document: Any, path: Sequence[str]) -> None:
    table = document
    for name in path[:-1]:
        table = table[name]
    del table[path[-1]]
