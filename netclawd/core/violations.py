"""What is wrong with a configuration that breaks the schema, in sentences for its operator.

Pure. jsonschema finds the violations; here each becomes ``KEY (line 3) is VALUE; it must be …``,
and an unknown key is named with the nearest known one. What stands under a key that refers to a
secret is never shown: it may be the secret.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from netclawd.core import schema as schemas
from netclawd.core.schema import ANY_NAME, Schema
from netclawd.core.words import INT_MAX, INT_MIN, dotted, kind, shown

Path = tuple[str | int, ...]

#: Tables and lists may be nested this deep; the schema needs four levels.
DEPTH_LIMIT = 8
#: Values of a configuration, tables and entries of lists included; the schema needs a thousand at most.
#: Naming what is wrong with more would take seconds, in which the arbiter does nothing else.
VALUE_LIMIT = 5000
#: Violations that one message names; the rest are counted.
SHOWN_LIMIT = 20


class Violation(Protocol):
    """What is used of a jsonschema ValidationError."""

    validator: Any
    instance: Any
    schema: Any
    absolute_path: Iterable[str | int]


def unrepresentable(values: Mapping[str, Any]) -> Iterator[str]:
    """Name what TOML's reader lets through and nothing after it can take.

    Runs before jsonschema, whose messages would fail on a number of 5,000 digits and on 1,000
    levels. It doesn't recurse.
    """
    stack: list[tuple[Path, Any]] = [((), values)]
    count = 0
    while stack:
        path, value = stack.pop()
        count += 1
        if count + len(stack) > VALUE_LIMIT:
            yield f"it has more than {VALUE_LIMIT} values, tables and entries of lists included."
            return
        if len(path) > DEPTH_LIMIT:
            yield f"{dotted(path)} is nested more than {DEPTH_LIMIT} levels deep."
        elif isinstance(value, Mapping):
            stack.extend(((*path, k), v) for k, v in value.items())
        elif isinstance(value, list):
            stack.extend(((*path, i), v) for i, v in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{dotted(path)} is {shown(value)}; it must be a finite number."
        elif isinstance(value, int) and not INT_MIN <= value <= INT_MAX:
            yield f"{dotted(path)} is {shown(value)}."


def sentences(
    schema: Schema, violations: Iterable[Violation], places: Mapping[Path, str]
) -> list[str]:
    """Word all violations, in the order of their keys. ``places``: where a key was set."""
    found: dict[tuple[str, str], None] = {}
    for violation in violations:
        for path, predicate in _worded(schema, violation):
            place = _place(path, places)
            found[(dotted(path), f"{dotted(path)}{place} {predicate}")] = None
    return [sentence for _, sentence in sorted(found)]


def joined(all_sentences: Sequence[str]) -> str:
    """Put sentences on one line; past a score of them the rest are counted."""
    more = len(all_sentences) - SHOWN_LIMIT
    rest = [f"{more} more."] if more > 0 else []
    return " ".join([*all_sentences[:SHOWN_LIMIT], *rest])


def _place(path: Path, places: Mapping[Path, str]) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return f" ({places[path[:length]]})"
    return ""


def _worded(schema: Schema, violation: Violation) -> Iterator[tuple[Path, str]]:
    path = tuple(violation.absolute_path)
    if violation.validator == "additionalProperties":
        known = {*schemas.member_names(violation.schema)}
        for name in violation.instance:
            if name not in known and not _fits_pattern(violation.schema, name):
                yield (*path, name), _unknown(schema, (*path, name))
    elif violation.validator == "required":
        for name in violation.schema["required"]:
            if name not in violation.instance:
                must = schemas.allowed(violation.schema["properties"][name])
                yield (*path, name), f"is missing; it must be {must}."
    else:
        yield path, _given(violation)


def _given(violation: Violation) -> str:
    show = kind if schemas.is_secret(violation.schema) else shown
    if violation.validator == "maxProperties":
        return f"has {len(violation.instance)} tables; {violation.schema['maxProperties']} may be."
    return f"is {show(violation.instance)}; it must be {schemas.allowed(violation.schema)}."


def _fits_pattern(schema: Schema, name: str) -> bool:
    return any(re.search(pattern, name) for pattern in schema.get("patternProperties", {}))


def _unknown(schema: Schema, path: Path) -> str:
    table = schemas.find(schema, [str(part) for part in path[:-1]]) or {}
    if table.get("patternProperties"):
        return "has no usable name; use lower-case letters, digits, _ and -."
    near = nearest(schema, path)
    hint = f"; did you mean {near}?" if near else "."
    return f"is not a known {'setting' if len(path) > 1 else 'table or setting'}{hint}"


def nearest(schema: Schema, path: Path) -> str | None:
    """Return the known key that an unknown one most resembles: a neighbour, else one elsewhere."""
    parent = [str(part) for part in path[:-1]]
    name = str(path[-1])
    table = schemas.find(schema, parent) or {}
    near = difflib.get_close_matches(name.lower(), schemas.member_names(table), 1, 0.6)
    if near:
        return dotted((*parent, near[0]))
    elsewhere = {s.path[-1]: s.key for s in schemas.settings_of(schema) if ANY_NAME not in s.path}
    near = difflib.get_close_matches(name.lower(), elsewhere, 1, 0.8)
    return elsewhere[near[0]] if near else None
