"""Judges the arguments of a call by the tool's own parameters: the part of JSON Schema that tools use.

Pure. A model reads the words, so they say what to write instead. An optional argument that is null
counts as absent: many models write it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_WORDS = {"string": "text", "integer": "a whole number", "number": "a number"}


def object_of(required: Mapping[str, Any], optional: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the JSON Schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def judge(parameters: Mapping[str, Any], arguments: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the arguments; None when nothing is."""
    known: Mapping[str, Any] = parameters["properties"]
    for name in parameters["required"]:
        if arguments.get(name) is None:
            return f"The argument {name} is missing."
    for name, value in arguments.items():
        if name not in known:
            return f"There is no argument {name!r}; there is {', '.join(known)}."
        if value is not None and (wrong := _judge_value(name, known[name], value)):
            return wrong
    return None


def _judge_value(name: str, rule: Mapping[str, Any], value: Any) -> str | None:
    kind = rule["type"]
    if not isinstance(value, _KINDS[kind]) or (kind != "boolean" and isinstance(value, bool)):
        return f"The argument {name} must be {_WORDS.get(kind, 'true or false')}."
    if isinstance(value, str):
        return _judge_text(name, rule, value)
    low, high = rule.get("minimum"), rule.get("maximum")
    # Written so that a NaN fails.
    if low is not None and not value >= low:
        return f"The argument {name} must be {low} or more."
    if high is not None and not value <= high:
        return f"The argument {name} must be {high} or less."
    return None


def _judge_text(name: str, rule: Mapping[str, Any], value: str) -> str | None:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return f"The argument {name} has half a surrogate pair, which is no text."
    if size < rule.get("minLength", 0):
        return f"The argument {name} is empty."
    most = rule.get("maxLength")
    if most is not None and size > most:
        return f"The argument {name} has {size} bytes; {most} are allowed."
    return None
