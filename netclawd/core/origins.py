"""Where each effective value comes from: a default, a line of the file, an environment variable.

Pure. TOML's reader keeps no positions, so lines are found by reading the file again, line by line.
That is exact for keys at the beginning of a line; a key inside an inline table has the line of the
table. What can't be found has no line: a position is a comfort, never a basis for a decision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from netclawd.core.values import frozen

Path = tuple[str, ...]


class Source(StrEnum):
    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


@frozen
class Origin:
    """Where one value comes from."""

    source: Source
    #: Line of the file, counted from 1, where known.
    line: int | None = None
    #: Name of the environment variable.
    variable: str | None = None

    def __str__(self) -> str:
        if self.variable is not None:
            return f"environment {self.variable}"
        return self.source.value if self.line is None else f"file, line {self.line}"


_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')"""
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_TABLE = re.compile(rf"[ \t]*\[\[?[ \t]*({_KEY})[ \t]*\]")
_VALUE = re.compile(rf"[ \t]*({_KEY})[ \t]*=[ \t]*(.*)")


def locate_keys(text: str) -> dict[Path, int]:
    """Find the line, counted from 1, on which each key or table is first set."""
    lines: dict[Path, int] = {}
    table: Path = ()
    closing: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if closing is not None:
            closing = None if closing in line else closing
        elif match := _TABLE.match(line):
            table = _parts(match[1])
            lines.setdefault(table, number)
        elif match := _VALUE.match(line):
            lines.setdefault(table + _parts(match[1]), number)
            closing = _opens(match[2])
    return lines


def _opens(value: str) -> str | None:
    """Return the end of a text of several lines that begins here, so that it isn't read as keys."""
    for quotes in ('"""', "'''"):
        if value.startswith(quotes) and quotes not in value[3:]:
            return quotes
    return None


def parse_key(text: str) -> Path | None:
    """Read a dotted key as TOML writes it (``providers."my.own".kind``), None when it isn't one."""
    return _parts(text) if re.fullmatch(_KEY, text) else None


def _parts(key: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_PART, key))


def origins_of(
    effective: Mapping[str, Any],
    in_file: Mapping[str, Any],
    lines: Mapping[Path, int],
    variables: Mapping[Path, str],
) -> dict[str, Origin]:
    """Name the origin of every effective value, by its dotted key."""
    found = {}
    for path in leaves(effective):
        if path in variables:
            found[".".join(path)] = Origin(Source.ENVIRONMENT, variable=variables[path])
        elif _holds(in_file, path):
            found[".".join(path)] = Origin(Source.FILE, line=_line(lines, path))
        else:
            found[".".join(path)] = Origin(Source.DEFAULT)
    return found


def leaves(values: Mapping[str, Any], path: Path = ()) -> list[Path]:
    """Return the paths of all values that are no tables."""
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += leaves(value, (*path, name))
        else:
            found.append((*path, name))
    return found


def _holds(values: Any, path: Path) -> bool:
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return False
        values = values[name]
    return True


def _line(lines: Mapping[Path, int], path: Path) -> int | None:
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None
