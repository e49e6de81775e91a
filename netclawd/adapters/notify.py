"""Notices to the supervisor: sd_notify(3) through sdnotify, and the notification descriptor of s6.

Both are harmless where the supervisor asked for neither. Every text is one line of at most 200
bytes: a newline inside it would be a field of its own.
"""

from __future__ import annotations

import contextlib
import os

import sdnotify

from netclawd.core.text import one_line

#: How long a notice may wait for room in the supervisor's queue, seconds.
_PATIENCE_S = 1.0


class SupervisorNotifier:
    def __init__(self, s6_descriptor: int | None) -> None:
        # Without the variable it would leave a socket open that leads nowhere.
        asked = bool(os.environ.get("NOTIFY_SOCKET"))
        self._systemd = sdnotify.SystemdNotifier() if asked else None
        if self._systemd is not None and self._systemd.socket is not None:
            # A supervisor that has stopped reading must not stop the arbiter.
            self._systemd.socket.settimeout(_PATIENCE_S)
        self._s6_descriptor = s6_descriptor

    def status(self, text: str) -> None:
        self._send(f"STATUS={one_line(text)}")

    def reloading(self, monotonic_usec: int, status: str) -> None:
        """Send all three in one datagram: without the instant systemd would not accept it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}\nSTATUS={one_line(status)}")

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={one_line(status)}")
        if self._s6_descriptor is not None:
            with contextlib.suppress(OSError):  # s6 is gone: nobody waits for the newline.
                os.write(self._s6_descriptor, b"\n")
            with contextlib.suppress(OSError):
                os.close(self._s6_descriptor)
            self._s6_descriptor = None

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={one_line(status)}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def extend_timeout(self, usec: int) -> None:
        self._send(f"EXTEND_TIMEOUT_USEC={usec}")

    def _send(self, notice: str) -> None:
        """Send it as UTF-8, as sd_notify(3) wants it: sdnotify encodes as Latin-1, and where it can't it
        drops the whole notice without a word, READY=1 included."""
        if self._systemd is not None:
            self._systemd.notify(notice.encode().decode("latin-1"))
