"""The configuration file that would come of the answers: made, judged, and shown as a diff."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from netclawd.adapters.settings_file import decode, fits, packaged_schema, parse_toml
from netclawd.adapters.toml_edit import with_value, without_value
from netclawd.cli.config_write import Judged, Target, check_edit, judge
from netclawd.cli.wizard import PAGES
from netclawd.cli.wizard.page import schema_of
from netclawd.core import schema as schemas
from netclawd.core.diff import Kind, diff
from netclawd.core.edits import lookup, with_setting, without_setting
from netclawd.core.interview import Answers, Question, changed_settings
from netclawd.core.origins import Path
from netclawd.core.redact import Redactor
from netclawd.core.values import replace
from netclawd.errors import NotRunningError

_HEAD = "# The configuration of netclawd; netclaw.toml(5) explains every setting.\n"
_COLOURS = {Kind.ADDED: "green", Kind.REMOVED: "red", Kind.PLACE: "cyan"}


def _settings() -> Iterator[Question]:
    """Yield the questions that decide a setting."""
    for page in PAGES:
        yield from (question for question in page.questions if question.schema is None)


def _places(path: Path, names: Iterable[str]) -> list[Path]:
    """Return the settings that a question may be about."""
    if schemas.ANY_NAME not in path:
        return [path]
    return [tuple(name if part == schemas.ANY_NAME else part for part in path) for name in names]


def _in_order(settings: Mapping[Path, Any]) -> list[tuple[Path, Any]]:
    """Return the settings table by table, the kind of each first: it explains the rest."""
    tables = list(dict.fromkeys(path[:-1] for path in settings))
    return sorted(
        settings.items(), key=lambda item: (tables.index(item[0][:-1]), item[0][-1] != "kind")
    )


class Draft:
    """A file as it was read, and what the answers make of it."""

    def __init__(self, where: Target, *, mends: bool) -> None:
        """Raise ConfigError for a file of which nothing could be kept: no TOML, or no tables.

        ``mends``: each question is asked, so that what can't be a value gives way to the answer.
        """
        self.where = where
        self._mends = mends
        self._text = decode(where.content or b"", where.path)
        self._values = parse_toml(self._text, where.path)
        for question in _settings():
            with_setting(self._values, question.path, None)

    def answers(self) -> Answers:
        """Return what is configured; a value that can't be one gives way to its default."""
        schema = packaged_schema()
        values: Mapping[str, Any] = self._values
        for path, default in self._unfit().items():
            values = with_setting(values, path, default)
        folder = os.path.dirname(os.path.abspath(self.where.path))
        return Answers(self._values, schemas.with_defaults(schema, values), folder=folder)

    def _unfit(self) -> Mapping[Path, Any]:
        """Return the asked settings whose value in the file can't be one, with their defaults."""
        unfit = {}
        names = self._values.get("providers", {})
        for question in _settings():
            known = schema_of(question.path)
            for path in _places(question.path, names if isinstance(names, Mapping) else {}):
                found = lookup(self._values, path)
                if found is not None and not fits(known, found):
                    unfit[path] = known.get("default")
        return unfit

    def wanted(self, answers: Answers) -> dict[Path, Any]:
        """Return the settings that come of the answers; None: it is not set."""
        wanted: dict[Path, Any] = {}
        for page in PAGES:
            settings = page.settings(answers)
            if page.terse:
                differs = changed_settings(answers, settings)
                settings = {k: value for k, value in settings.items() if k in differs}
            wanted |= settings
        if not self._mends:
            unfit = self._unfit().keys() - answers.given.keys()
            wanted = {path: value for path, value in wanted.items() if path not in unfit}
        return wanted

    def content(self, answers: Answers) -> bytes | None:
        """Return the file that would come of the answers: what it was, if nothing changes."""
        return self._content(answers, self.wanted(answers))

    def _content(self, answers: Answers, wanted: Mapping[Path, Any]) -> bytes | None:
        text, values = self._text, self._values
        begins = not text.strip()  # then the file says everything
        changed = changed_settings(answers, wanted)
        if begins:
            changed = {path: value for path, value in wanted.items() if value is not None}
        if not changed:
            return self.where.content
        for path, value in _in_order(changed):
            if value is None:
                values, text = without_setting(values, path), without_value(text, path)
            else:
                values, text = with_setting(values, path, value), with_value(text, path, value)
        check_edit(self.where, text, values)
        if begins:
            text = _HEAD + re.sub(r"(?:\A|\n+)(?=\[)", "\n\n", text).removeprefix("\n")
        return text.encode()

    def judge(self, answers: Answers) -> Judged:
        """Judge it as the daemon would, or as a start would; ConfigError says what is wrong.

        A secret that is not kept yet is nowhere to be found, so its reference is left out.
        """
        wanted = self.wanted(answers)
        wanted |= dict.fromkeys(answers.pending(wanted))
        content = self._content(answers, wanted) or b""
        try:
            return judge(self.where, content)
        except NotRunningError:  # it has stopped since the first question
            self.where = replace(self.where, client=None)
            return judge(self.where, content)

    def _literal_secrets(self) -> list[str]:
        """Return what stands in the file where a reference to a secret belongs."""
        found = []
        for path in self._unfit():
            if schemas.is_secret(schema_of(path)):
                value = lookup(self._values, path)
                found.append(value if isinstance(value, str) else str(value))
        return found

    def show(self, content: bytes | None) -> None:
        """Show what a content changes; a secret that stands in the file itself is not shown."""
        new = decode(content or b"", self.where.path)
        redact = Redactor(self._literal_secrets()).text
        for line in diff(self._text, new):
            if line.kind is Kind.PLACE and not self._text:
                continue
            text = f"  {redact(line.text)}".rstrip()
            click.echo(click.style(text, fg=_COLOURS[line.kind]) if line.kind in _COLOURS else text)
