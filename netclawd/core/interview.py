"""The questions of ``netclaw init`` as values: how an answer is read, and what settings come of it.

Pure. An answer is a text, the same whether it was typed at a question or given as an option. Invariant:
what was not answered stays as it is configured, and what is not configured has its default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netclawd.core import schema as schemas
from netclawd.core.edits import lookup, same
from netclawd.core.origins import Path
from netclawd.core.overrides import ReadToml, parse
from netclawd.core.values import field, frozen, replace
from netclawd.core.words import shown

#: The answer that is an empty list, or no secret.
NONE = "none"
#: The setting that says which provider is meant.
CHOSEN = "agent.provider"
_BOOLEANS = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}


class Hidden:
    """A secret that was typed. Nothing shows it but :meth:`reveal`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Hidden()"

    def reveal(self) -> str:
        return self._text


@frozen
class ModelServer:
    """A model server of this host that has answered with its models, in its order."""

    #: What program it is, as far as it shows.
    name: str
    base_url: str
    models: tuple[str, ...]


@frozen
class Answers:
    """What is known while it is asked: the answers, over what was found out, over the file and defaults."""

    #: What the file says; empty without a file.
    in_file: Mapping[str, Any]
    #: The same with the defaults of the schema.
    configured: Mapping[str, Any]
    #: What was answered.
    given: Mapping[Path, Any] = field(default_factory=dict)
    #: What is better than what is configured and what the schema has, and gives way to any answer.
    learned: Mapping[Path, Any] = field(default_factory=dict)
    #: Secrets that were typed, by the references under which they are to be kept.
    keys: Mapping[str, Hidden] = field(default_factory=dict)
    #: The folder of the configuration, in which they are to be kept.
    folder: str = ""
    #: What there is on this host.
    found: tuple[ModelServer, ...] = ()

    def value(self, key: str) -> Any:
        """Return what a setting would be, by its dotted key; None where nothing says."""
        return self.value_at(tuple(key.split(".")))

    def value_at(self, path: Path) -> Any:
        for values in (self.given, self.learned):
            if path in values:
                return values[path]
        return lookup(self.configured, path)

    def pending(self, wanted: Mapping[Path, Any]) -> Mapping[Path, str]:
        """Return the settings among these whose secret has yet to be kept, with their references."""
        return {
            path: value
            for path, value in wanted.items()
            if isinstance(value, str) and value in self.keys
        }

    def before(self, key: str) -> Any:
        """Return what a setting is as long as nothing was answered."""
        return lookup(self.configured, tuple(key.split(".")))

    def answered(self, path: Path, value: Any, forgets: Sequence[Path] = ()) -> Answers:
        """Return the same with an answer more; one that is new has others forgotten."""
        new = not same(self.value_at(path), value)
        kept = {k: v for k, v in self.given.items() if not (new and k in forgets)}
        return replace(self, given={**kept, path: value})

    def answered_all(self, values: Mapping[Path, Any]) -> Answers:
        """Return the same with several answers more."""
        return replace(self, given={**self.given, **values})

    def with_key(self, path: Path, reference: str, secret: Hidden) -> Answers:
        """Return the same with a secret that is to be kept under a reference."""
        return replace(self.answered(path, reference), keys={**self.keys, reference: secret})

    def without(self, path: Path) -> Answers:
        """Return the same without the answer to a question that no longer matters."""
        return replace(self, given={k: v for k, v in self.given.items() if k != path})


@frozen
class Choice:
    """One of several values."""

    name: str
    #: What it means, a sentence.
    words: str = ""


def _always(_answers: Answers) -> bool:
    return True


def _nothing(_answers: Answers) -> Sequence[Choice]:
    return ()


def _no_settings(_value: Any) -> Mapping[Path, Any]:
    return {}


def _anything(_value: Any, _answers: Answers) -> None:
    return


@frozen
class Question:
    """What decides one setting; one that is not saved decides others."""

    #: NAME in it stands for the provider that was chosen.
    path: Path
    #: Its option on the command line.
    option: str
    text: str
    #: What it is about, in a sentence.
    why: str
    #: The values to choose from; none where the schema alone says what is allowed.
    choices: Callable[[Answers], Sequence[Choice]] = _nothing
    #: Whether it matters after the answers before it.
    applies: Callable[[Answers], bool] = _always
    #: Raises ConfigMeaningError for a value that is wrong whatever else is answered.
    judge: Callable[[Any, Answers], None] = _anything
    #: Settings whose answers were about this one's value, and are forgotten when it is another.
    forgets: tuple[Path, ...] = ()
    #: Whether Enter keeps what there is; otherwise it has to be said anew.
    has_default: Callable[[Answers], bool] = _always
    #: Of one that is no setting: what its answer may be.
    schema: schemas.Schema | None = None
    #: What Enter keeps, where it isn't what there is.
    default: Callable[[Answers], Any] | None = None
    #: The choices are offers: anything else that the schema allows will do.
    free: bool = False
    #: It is typed without being shown.
    hidden: bool = False
    #: Its answer stays when it is not asked.
    stays: bool = False
    #: Takes the answer in place of the schema; the flag: it was typed, and is not on a command line.
    take: Callable[[str, Answers, bool], Answers] | None = None
    #: Settings that follow from its answer.
    sets: Callable[[Any], Mapping[Path, Any]] = _no_settings

    @property
    def key(self) -> str:
        return ".".join(self.path)

    def at(self, answers: Answers) -> Path:
        """Return the setting that is meant after the answers before it."""
        if schemas.ANY_NAME not in self.path:
            return self.path
        chosen = str(answers.value(CHOSEN))
        return tuple(chosen if name == schemas.ANY_NAME else name for name in self.path)

    def value(self, answers: Answers) -> Any:
        """Return the answer, else what Enter would keep."""
        path = self.at(answers)
        if self.default is not None and path not in answers.given:
            return self.default(answers)
        return answers.value_at(path)

    @property
    def parameter(self) -> str:
        """The name of its option in Python."""
        return self.option.removeprefix("--").replace("-", "_")


def read_answer(
    schema: schemas.Schema,
    choices: Sequence[Choice],
    text: str,
    read_toml: ReadToml,
    *,
    free: bool = False,
) -> Any:
    """Read an answer as a value of a setting; ValueError when it can't be one.

    A list is separated by commas or written as in the file; a choice is its name or its number, and
    where they are offers (``free``) anything else is taken as it is.
    """
    text = text.strip()
    match schema.get("type"):
        case "boolean":
            if text.lower() not in _BOOLEANS:
                raise ValueError(shown(text))
            return _BOOLEANS[text.lower()]
        case "array" if text.lower() == NONE:
            return []
        case "string" if choices:
            return _chosen(choices, text, free=free)
        case _:
            return parse(schema, text, read_toml)


def _chosen(choices: Sequence[Choice], text: str, *, free: bool) -> str:
    names = [choice.name for choice in choices]
    if text not in names and text.isdecimal() and 1 <= int(text) <= len(names):
        return names[int(text) - 1]
    if text not in names and not free:
        raise ValueError(shown(text))
    return text


def expected(schema: schemas.Schema, choices: Sequence[Choice], *, free: bool = False) -> str:
    """Say in words what an answer may be."""
    if choices and not free and schema.get("type") == "string":
        return f"one of {', '.join(shown(choice.name) for choice in choices)}"
    match schema.get("type"):
        case "boolean":
            return "yes or no"
        case "array":
            least = schema.get("minItems", 0)
            empty = "" if least else f", or {NONE}"
            return f"entries separated by commas{empty}; each {schemas.allowed(schema['items'])}"
        case _:
            return schemas.allowed(schema)


def written(value: Any) -> str:
    """Write a value as an answer that is read as the same value."""
    match value:
        case None:
            return NONE
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            entries = [str(entry) for entry in value]
            misread = any("," in entry or entry != entry.strip() for entry in entries)
            if misread or [entry.lower() for entry in entries] == [NONE]:
                return json.dumps(entries, ensure_ascii=False)
            return ", ".join(entries) or NONE
        case str():
            return value
        case _:
            return shown(value)


def changed_settings(answers: Answers, wanted: Mapping[Path, Any]) -> dict[Path, Any]:
    """Return the settings that have to be written into a file that there is: those that differ.

    None: it is taken out.
    """
    changed: dict[Path, Any] = {}
    for path, value in wanted.items():
        found = lookup(answers.in_file, path)
        if value is None:
            if found is not None:
                changed[path] = None
        elif not same(lookup(answers.configured, path) if found is None else found, value):
            changed[path] = value
    return changed
