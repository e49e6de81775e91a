"""One setting in the values of a configuration file: looked up, set, taken out, compared.

Pure. The values are what TOML's reader makes of the file; nothing here changes them in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netclawd.core.origins import Path
from netclawd.core.words import kind
from netclawd.errors import ConfigSchemaError

#: A file without a setting. Empty it would count as half-written.
EMPTY = "# Every setting has its default.\n"


def lookup(values: Any, path: Path) -> Any:
    """Return the value of a setting or a table, None where there is none."""
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return None
        values = values[name]
    return values


def same(old: Any, new: Any) -> bool:
    """Whether two values are the same to an operator: 20 is 20.0, but true is not 1."""
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def with_setting(values: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Return the values with a setting set; ConfigSchemaError where something is in a table's place."""
    name, rest = path[0], path[1:]
    below = values.get(name, {})
    if rest and not isinstance(below, Mapping):
        raise ConfigSchemaError(
            f"{name} is {kind(below)} in the file, not a table.",
            "Correct it first: `netclaw config edit`.",
        )
    return {**values, name: with_setting(below, rest, value) if rest else value}


def without_setting(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the values without a setting or table that they have."""
    name, rest = path[0], path[1:]
    if rest:
        return {**values, name: without_setting(values[name], rest)}
    return {k: v for k, v in values.items() if k != name}


def pruned(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without empty tables, which say nothing."""
    inner = {k: pruned(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    return {k: v for k, v in inner.items() if v != {}}
