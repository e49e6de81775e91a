"""The configuration file as text: joins the adapter that reads it and the one that edits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netclawd.adapters import settings_file


class TomlEditor:
    """Implements :class:`netclawd.ports.SettingsEditor` on one file."""

    def __init__(self, path: str) -> None:
        self._path = path

    @property
    def schema(self) -> Mapping[str, Any]:
        return settings_file.packaged_schema()

    def fits(self, schema: Mapping[str, Any], value: Any) -> bool:
        return settings_file.fits(schema, value)

    def read(self) -> bytes | None:
        return settings_file.read_file(self._path)

    def parse(self, content: bytes | None) -> Mapping[str, Any]:
        text = settings_file.decode(content or b"", self._path)
        return settings_file.parse_toml(text, self._path)

    def edit(
        self, content: bytes | None, edits: Sequence[tuple[tuple[str, ...], Any]]
    ) -> bytes | None:
        from netclawd.adapters import toml_edit  # Not needed to serve.

        # With the mark of its encoding, if it has one: that stays, too.
        settings_file.decode(content or b"", self._path)
        text = (content or b"").decode()
        for path, value in edits:
            if value is not None:
                text = toml_edit.with_value(text, path, value)
            elif self._sets(text, path):
                text = toml_edit.without_value(text, path)
        return text.encode() if text.strip("\ufeff \t\r\n") else None

    def _sets(self, text: str, path: tuple[str, ...]) -> bool:
        from netclawd.core.edits import lookup

        return lookup(self.parse(text.encode()), path) is not None
