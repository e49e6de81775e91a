"""The configuration file that would come of the answers: made, judged, and shown as a diff."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

from netclawd.adapters.settings_file import decode, fits, packaged_schema, parse_toml
from netclawd.adapters.toml_edit import with_value
from netclawd.cli.config_write import Judged, Target, check_edit, judge
from netclawd.cli.wizard import PAGES
from netclawd.core import schema as schemas
from netclawd.core.diff import Kind, diff
from netclawd.core.edits import lookup, with_setting
from netclawd.core.interview import Answers, changed_settings
from netclawd.core.origins import Path
from netclawd.core.values import replace
from netclawd.errors import NotRunningError

_HEAD = "# The configuration of netclawd; netclaw.toml(5) explains every setting.\n"
_COLOURS = {Kind.ADDED: "green", Kind.REMOVED: "red", Kind.PLACE: "cyan"}


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
        for page in PAGES:
            for question in page.questions:
                with_setting(self._values, question.path, None)

    def answers(self) -> Answers:
        """Return what is configured; a value that can't be one gives way to its default."""
        schema = packaged_schema()
        values: Mapping[str, Any] = self._values
        for path, default in self._unfit().items():
            values = with_setting(values, path, default)
        return Answers(self._values, schemas.with_defaults(schema, values))

    def _unfit(self) -> Mapping[Path, Any]:
        """Return the asked settings whose value in the file can't be one, with their defaults."""
        unfit = {}
        for question in (question for page in PAGES for question in page.questions):
            known = schemas.find(packaged_schema(), question.path) or {}
            found = lookup(self._values, question.path)
            if found is not None and not fits(known, found):
                unfit[question.path] = known["default"]
        return unfit

    def content(self, answers: Answers) -> bytes | None:
        """Return the file that would come of the answers: what it was, if nothing changes."""
        wanted: dict[Path, Any] = {}
        for page in PAGES:
            wanted |= page.settings(answers)
        if not self._mends:
            unfit = self._unfit().keys() - answers.given.keys()
            wanted = {path: value for path, value in wanted.items() if path not in unfit}
        text, values = self._text, self._values
        begins = not text.strip()  # then the file says everything
        changed = wanted if begins else changed_settings(answers, wanted)
        if not changed:
            return self.where.content
        for path, value in changed.items():
            values = with_setting(values, path, value)
            text = with_value(text, path, value)
        check_edit(self.where, text, values)
        if begins:
            text = _HEAD + re.sub(r"(?:\A|\n+)(?=\[)", "\n\n", text).removeprefix("\n")
        return text.encode()

    def judge(self, answers: Answers) -> Judged:
        """Judge it as the daemon would, or as a start would; ConfigError says what is wrong."""
        content = self.content(answers) or b""
        try:
            return judge(self.where, content)
        except NotRunningError:  # it has stopped since the first question
            self.where = replace(self.where, client=None)
            return judge(self.where, content)

    def show(self, content: bytes | None) -> None:
        """Show what a content changes."""
        new = decode(content or b"", self.where.path)
        for line in diff(self._text, new):
            if line.kind is Kind.PLACE and not self._text:
                continue
            text = f"  {line.text}".rstrip()
            click.echo(click.style(text, fg=_COLOURS[line.kind]) if line.kind in _COLOURS else text)
