"""Notices to the supervisor: sd_notify(3) through sdnotify, and the notification descriptor of s6.

Both are harmless where the supervisor asked for neither. Every text is one line of at most 200
bytes: a newline inside it would be a field of its own.
"""

from __future__ import annotations

import contextlib
import os

import sdnotify

from netclawd.core.text import one_line


class SupervisorNotifier:
    def __init__(self, s6_descriptor: int | None) -> None:
        self._systemd = sdnotify.SystemdNotifier()
        self._s6_descriptor = s6_descriptor

    def status(self, text: str) -> None:
        self._systemd.notify(f"STATUS={one_line(text)}")

    def reloading(self, monotonic_usec: int, status: str) -> None:
        """Send all three in one datagram: without the instant systemd would not accept it."""
        self._systemd.notify(
            f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}\nSTATUS={one_line(status)}"
        )

    def ready(self, status: str) -> None:
        self._systemd.notify(f"READY=1\nSTATUS={one_line(status)}")
        if self._s6_descriptor is not None:
            with contextlib.suppress(OSError):  # s6 is gone: nobody waits for the newline.
                os.write(self._s6_descriptor, b"\n")
            with contextlib.suppress(OSError):
                os.close(self._s6_descriptor)
            self._s6_descriptor = None

    def stopping(self, status: str) -> None:
        self._systemd.notify(f"STOPPING=1\nSTATUS={one_line(status)}")

    def watchdog(self) -> None:
        self._systemd.notify("WATCHDOG=1")

    def extend_timeout(self, usec: int) -> None:
        self._systemd.notify(f"EXTEND_TIMEOUT_USEC={usec}")
