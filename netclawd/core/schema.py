"""The JSON Schema of the configuration, read as a list of settings.

Pure: the schema comes in as a value. It is the one source of types, ranges, defaults and
descriptions; this module answers questions about it and never names a setting. Two annotations
of our own: ``x-secret`` marks a setting that refers to a secret (what was written there is never
shown, it may be the secret itself), ``x-expects`` words what a pattern allows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from netclawd.core.values import frozen
from netclawd.core.words import shown

Schema = Mapping[str, Any]

#: Stands in a key for the names that an operator chooses (``providers.NAME.kind``).
ANY_NAME = "NAME"


@frozen
class Setting:
    """One leaf of the schema."""

    path: tuple[str, ...]
    schema: Schema
    #: Whether its table must set it.
    required: bool = False

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def secret(self) -> bool:
        return is_secret(self.schema)


def settings_of(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """List every setting, in the order of the schema."""
    for name, sub in _members(schema):
        if is_table(sub):
            yield from settings_of(sub, (*path, name))
        else:
            yield Setting((*path, name), sub, name in schema.get("required", ()))


def find(schema: Schema, path: Sequence[str]) -> Schema | None:
    """Return what the schema says about a key, None when it doesn't know it."""
    for name in path:
        members = dict(_members(schema))
        found = members.get(name, members.get(ANY_NAME))
        if found is None or not is_table(schema):
            return None
        schema = found
    return schema


def member_names(schema: Schema) -> tuple[str, ...]:
    """Return the names that a table may hold; none where the operator chooses them."""
    return tuple(schema.get("properties", {}))


def is_table(schema: Schema) -> bool:
    return bool(schema.get("type") == "object")


def is_secret(schema: Schema) -> bool:
    return bool(schema.get("x-secret", False))


def _members(schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield from schema.get("properties", {}).items()
    for sub in schema.get("patternProperties", {}).values():
        yield ANY_NAME, sub


def allowed(schema: Schema) -> str:
    """Say in words what a value may be: ``a whole number from 1 to 512``."""
    if "x-expects" in schema:
        return str(schema["x-expects"])
    if "enum" in schema:
        choices = [shown(choice) for choice in schema["enum"]]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    match schema.get("type"):
        case "integer":
            return f"a whole number{_range(schema)}"
        case "number":
            return f"a number{_range(schema)}"
        case "boolean":
            return "true or false"
        case "array":
            return f"a list{_count(schema)}, each entry {allowed(schema['items'])}"
        case "object":
            return "a table"
        case _:
            return f"a text of {schema.get('minLength', 0)} to {schema['maxLength']} characters"


def _range(schema: Schema) -> str:
    return f" from {shown(schema['minimum'])} to {shown(schema['maximum'])}"


def _count(schema: Schema) -> str:
    return f" of {schema.get('minItems', 0)} to {schema['maxItems']} entries"


def with_defaults(schema: Schema, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which what is absent has its default.

    A table of chosen names (``providers``) has its default only where it is absent as a whole. What
    doesn't fit the schema is left as it is, for the validation to name.
    """
    filled: dict[str, Any] = copy.deepcopy(dict(values))
    for name, sub in schema.get("properties", {}).items():
        if is_table(sub):
            filled.setdefault(name, copy.deepcopy(sub.get("default", {})))
        elif "default" in sub:
            filled.setdefault(name, copy.deepcopy(sub["default"]))
    for name, value in filled.items():
        known = find(schema, (name,))
        if known is not None and is_table(known) and isinstance(value, dict):
            filled[name] = with_defaults(known, value)
    return filled


def normalised(schema: Schema, value: Any) -> Any:
    """Return valid values in the one form of their type, so that 30 and 30.0 have one digest."""
    if is_table(schema):
        return {k: normalised(find(schema, (k,)) or {}, v) for k, v in value.items()}
    match schema.get("type"):
        case "array":
            return [normalised(schema["items"], entry) for entry in value]
        case "integer":
            return int(value)
        case "number":
            return float(value) + 0.0  # -0.0 becomes 0.0
        case _:
            return value
