"""Environment variables that override the file: ``NETCLAW_<SECTION>__<KEY>``.

Pure. The schema says how a value is read: a list is separated by commas or written as a TOML
array, ``true`` and ``false`` are themselves, a number is a number, anything else is text. Variables
without a double underscore (NETCLAW_HOME, what Kubernetes sets for a service of that name) are not
overrides; one that has it and names no setting is an error, like an unknown key of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netclawd.core import schema as schemas
from netclawd.core.schema import Schema
from netclawd.core.violations import nearest
from netclawd.core.words import kind, shown

PREFIX = "NETCLAW_"

#: Reads one value as TOML writes it; ValueError when it isn't one.
ReadToml = Callable[[str], Any]


@dataclass(slots=True)
class Overlay:
    """The effective values with the environment over them."""

    values: dict[str, Any]
    #: Key to the variable that set it.
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)
    #: What is wrong with variables, in sentences.
    problems: list[str] = field(default_factory=list)


def override_names(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that are overrides, sorted."""
    return tuple(sorted(n for n in environ if n.startswith(PREFIX) and "__" in n[len(PREFIX) :]))


def variable_for(path: Sequence[str]) -> str:
    """Return the variable that overrides a setting."""
    return PREFIX + "__".join(path).upper().replace("-", "_")


def overlay(
    schema: Schema, values: dict[str, Any], environ: Mapping[str, str], read_toml: ReadToml
) -> Overlay:
    """Put the overrides of ``environ`` over ``values``, which are changed in place."""
    result = Overlay(values)
    for name in override_names(environ):
        path = _path(values, name)
        setting = schemas.find(schema, path)
        if setting is None or schemas.is_table(setting):
            near = nearest(schema, path)
            hint = f"; did you mean {variable_for(near.split('.'))}?" if near else "."
            result.problems.append(f"{name} overrides no known setting{hint}")
            continue
        try:
            value = parse(setting, environ[name], read_toml)
        except ValueError:
            show = kind if schemas.is_secret(setting) else shown
            result.problems.append(
                f"{name} is {show(environ[name])}; it must be {schemas.allowed(setting)}."
            )
            continue
        if _put(values, path, value):
            result.origins[path] = name
    return result


def parse(setting: Schema, text: str, read_toml: ReadToml) -> Any:
    """Read a variable's text as the type of its setting; ValueError when it can't be."""
    text.encode()  # a variable that is not UTF-8 has surrogates, and no place in a configuration
    match setting.get("type"):
        case "array":
            return _parse_list(text.strip(), read_toml)
        case "boolean" | "integer" | "number":
            value = read_toml(text.strip())
            if isinstance(value, (bool, int, float)):
                return value
            raise ValueError(f"is {kind(value)}")
        case _:
            return text


def assigned(setting: Schema, text: str, read_toml: ReadToml) -> Any:
    """Read a value from a command line: as TOML writes it, else as text where text is expected.

    ValueError when it is neither.
    """
    text.encode()  # as above
    try:
        value = read_toml(text)
    except ValueError:
        if setting.get("type") != "string":
            raise
        return text
    return text if setting.get("type") == "string" and not isinstance(value, str) else value


def _parse_list(text: str, read_toml: ReadToml) -> Any:
    if text.startswith("["):
        # "[::1]:5199, …" also begins with a bracket; only TOML's own arrays are read as such.
        try:
            return read_toml(text)
        except ValueError:
            pass
    return [entry.strip() for entry in text.split(",")] if text else []


def _path(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    section, _, rest = name[len(PREFIX) :].lower().partition("__")
    middle, separator, key = rest.rpartition("__")
    if not separator:
        return (section, key)
    table = values.get(section)
    names = table if isinstance(table, Mapping) else {}
    alike = sorted(n for n in names if n.replace("-", "_") == middle)
    return (section, middle if middle in names or not alike else alike[0], key)


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> bool:
    """Set a value; False where the file has something else than a table on the way."""
    table: Any = values
    for name in path[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            return False
    table[path[-1]] = value
    return True
