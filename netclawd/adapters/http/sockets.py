"""The loop's sockets that are not connections of HTTP: those that accept, and those that linger."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore

#: Connections taken in one turn of the loop, so that a storm of them can't starve the rest.
_ACCEPTS_PER_TURN = 32
#: Accepting pauses this long after the process ran out of descriptors.
_EXHAUSTED_PAUSE_S = 0.1

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

#: accept(2): errors that are the new connection's own; the next one may be fine.
_OF_THE_NEWCOMER = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    }
)

OnAccept = Callable[[socket.socket, Any, str], None]


class Accepting(wasyncore.dispatcher):  # type: ignore[misc]
    """A listening socket."""

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        map: dict[int, Any],  # noqa: A002
        on_accept: OnAccept,
        may_accept: Callable[[], bool],
    ) -> None:
        self.name = name
        self.local = sock.family == socket.AF_UNIX
        self._on_accept = on_accept
        self._may_accept = may_accept
        self._paused_until = 0.0
        super().__init__(sock, map=map)
        self.accepting = True

    def readable(self) -> bool:
        return self._may_accept() and time.monotonic() >= self._paused_until

    def writable(self) -> bool:
        return False

    def handle_accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if not (self._may_accept() and self.accept_one()):
                return

    def accept_one(self) -> bool:
        """Take one connection off the queue; False when there is none, or no descriptor for it."""
        try:
            conn, peer = self.socket.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._paused_until = time.monotonic() + _EXHAUSTED_PAUSE_S
                return False
            return error.errno in _OF_THE_NEWCOMER
        self._on_accept(conn, peer, self.name)
        return True

    def empty(self) -> None:
        """Take all that is queued, whatever the limit, then close."""
        while self.accept_one():
            pass
        self.close()

    def handle_error(self) -> None:
        self.logger.exception("error on the listener %s", self.name)


class Lingering(wasyncore.dispatcher):  # type: ignore[misc]
    """A connection that was answered and shut down for writing: read to its end, then closed.

    Closing it at once would reset it when bytes are unread, and the client could lose the answer.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: Any,
        listener: str,
        until: float,
        map: dict[int, Any],  # noqa: A002
    ) -> None:
        self.peer = peer
        self.listener = listener
        #: Monotonic instant of its closing, whatever the client does.
        self.until = until
        super().__init__(sock, map=map)
        self.connected = True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        # recv calls handle_close at the end.
        self.recv(65536)

    def handle_close(self) -> None:
        self.close()

    def handle_error(self) -> None:
        self.close()


def say_end(sock: socket.socket) -> None:
    """Shut down for writing; a peer that is gone already is no error."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return


def unread(sock: socket.socket) -> bool:
    """Whether bytes have arrived that nobody has read."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
