"""The one line between the commands that change the configuration and the daemon's way to write it."""

from __future__ import annotations

from netclawd.daemon.settings_write import replace_settings


def publish(path: str, content: bytes, expected: bytes | None) -> None:
    """Replace the configuration file unless it has changed; see :func:`replace_settings`."""
    replace_settings(path, content, expected)
