"""Takes values out of a map that came from outside, each only in the form that the code relies on.

Pure. KeyError for one that is missing, TypeError or ValueError for one of another form, with words
that name the key and never the value; whoever reads a record turns them into its own error.
Numbers are bounded: what is larger came from nobody's clock or counter, and can't be shown or added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

#: Whole numbers are from 0 to below this: what the store can hold.
WHOLE_END = 1 << 63
#: Numbers of seconds are at most this, either way: exact in a float.
NUMBER_MOST = 1 << 53

Values = Mapping[str, Any]


def whole(values: Values, key: str) -> int:
    """Return a counter, a PID, a descriptor."""
    value = _of(values, key, int)
    if isinstance(value, bool):
        raise _other(key, value)
    if not 0 <= value < WHOLE_END:
        raise ValueError(f"{key} is out of range")
    return int(value)


def number(values: Values, key: str) -> float:
    """Return an instant or a duration, seconds."""
    value = _of(values, key, int, float)
    if isinstance(value, bool):
        raise _other(key, value)
    if not (math.isfinite(value) and abs(value) <= NUMBER_MOST):
        raise ValueError(f"{key} is out of range")
    return value  # type: ignore[no-any-return]


def number_or_none(values: Values, key: str) -> float | None:
    return None if values[key] is None else number(values, key)


def text(values: Values, key: str) -> str:
    return str(_of(values, key, str))


def flag(values: Values, key: str) -> bool:
    return bool(_of(values, key, bool))


def raw(values: Values, key: str) -> bytes:
    return bytes(_of(values, key, bytes))


def table(values: Values, key: str) -> Mapping[Any, Any]:
    """Return a map; nothing is said of what is in it."""
    found: Mapping[Any, Any] = _of(values, key, Mapping)
    return found


def rows(values: Values, key: str) -> tuple[Mapping[str, Any], ...]:
    """Return a list of maps with text as their keys."""
    found = _of(values, key, list, tuple)
    for row in found:
        if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
            raise _other(key, row)
    return tuple(found)


def all_of(values: Values, key: str, kind: type) -> tuple[Any, ...]:
    """Return a list of values of one type."""
    found: Sequence[Any] = _of(values, key, list, tuple)
    for item in found:
        if not isinstance(item, kind):
            raise _other(key, item)
    return tuple(found)


def pairs(values: Values, key: str, kind: type) -> Mapping[Any, Any]:
    """Return a map whose keys and values are of one type."""
    found = table(values, key)
    for pair in found.items():
        for item in pair:
            if not isinstance(item, kind):
                raise _other(key, item)
    return found


def _of(values: Values, key: str, *kinds: type) -> Any:
    value = values[key]
    if not isinstance(value, kinds):
        raise _other(key, value)
    return value


def _other(key: str, value: object) -> TypeError:
    return TypeError(f"{key} has another type: {type(value).__name__}")
