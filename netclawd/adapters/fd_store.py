"""The fd store of systemd, through systemd-python: FDSTORE, FDSTOREREMOVE and BARRIER of sd_notify(3).

systemd answers nothing. What it has taken is told by what it closes: a descriptor that it turns away
(it keeps none, or has no room for more) is closed at once, and so is the one that comes with BARRIER=1,
after all that was sent before. It closes its own copy only, and one of a pipe tells us by a hang-up.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

from netclawd.errors import NetclawError

#: How long the supervisor may take to read what we send, seconds.
PATIENCE_S = 1.0
#: Name of the pipe that tells whether there was room; with its = it is none of a socket unit's.
_PROBE = "probe=room"


class SystemdFdStore:
    """Implements :class:`netclawd.ports.FdStore`."""

    def __init__(self, address: str) -> None:
        """``address`` is that of NOTIFY_SOCKET. NetclawError where systemd-python is missing."""
        try:
            import systemd.daemon
        except ImportError as error:
            raise NetclawError(
                "The supervisor keeps no listeners for a start after a crash: "
                "systemd-python can't be imported.",
                "Install python3-systemd, then restart the daemon.",
            ) from error
        self._notify: Any = systemd.daemon.notify
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def store(self, name: str, fd: int) -> None:
        """Hand over a copy; storing again what is there already changes nothing (kcmp(2))."""
        # FDPOLL=0: a file that is open as a place only can't be polled, and a listener doesn't end.
        self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fd)

    def takes(self) -> bool:
        """Tell whether there was room for all that was stored before, by storing one more."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self.store(_PROBE, writer)
            finally:
                os.close(writer)
            if not self._barrier():
                raise TimeoutError("the supervisor does not close the descriptor of BARRIER=1")
            return not _hung_up(reader, 0.0)
        finally:
            os.close(reader)
            self._send(f"FDSTOREREMOVE=1\nFDNAME={_PROBE}")

    def remove(self, names: Sequence[str]) -> bool:
        """Have everything of these names closed; return whether that is known to be done."""
        for name in names:
            self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")
        return self._barrier()

    def _barrier(self) -> bool:
        """Wait until all that was sent is done; see sd_notify_barrier(3)."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self._send("BARRIER=1", writer)
            finally:
                os.close(writer)
            return _hung_up(reader, PATIENCE_S)
        finally:
            os.close(reader)

    def _send(self, notice: str, *fds: int) -> None:
        """Send one datagram; OSError when the supervisor doesn't read."""
        self._wait_for_room()
        self._notify(notice, fds=list(fds))

    def _wait_for_room(self) -> None:
        """systemd-python sends with the interpreter's lock held: it must not have to wait."""
        if self._address[:1] not in ("/", "\0"):
            return  # Not a Unix socket: it is systemd-python's to know it.
        deadline = time.monotonic() + PATIENCE_S
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(self._address)
            poller = select.poll()
            poller.register(sock, select.POLLOUT)
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError("the supervisor does not read its notification socket")


def _hung_up(fd: int, timeout_s: float) -> bool:
    """Wait until the other end of a pipe is closed everywhere; return whether it is."""
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(timeout_s * 1000))
