"""The control socket: JSON lines over a Unix socket, answered by one thread.

It decides nothing: a request is one call of :class:`~netclawd.ports.Service`. The thread never waits
for anything but its sockets; a request that waits (``outcome``, ``events``) is put aside and asked
again every tick. Invariant: whatever was read is answered before a connection is closed for a
restart. So a client that sends and then meets a reset knows that its request was never read (the
kernel reports unread data as ECONNRESET) and may send it again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from netclawd.adapters.control.arguments import Arguments, Peer
from netclawd.adapters.control.requests import Later, answer, problem, success
from netclawd.errors import AddressError, BadRequestError, NetclawError, StoreClosedError
from netclawd.ports import Service

#: Starts a thread of this name with the daemon's signals blocked and returns it.
Spawn = Callable[[str, Callable[[], None]], threading.Thread]

#: A request line: a message of 1 MiB with its JSON escapes.
LINE_BYTES = 2 * 1024 * 1024
#: A line that has begun must be complete after this, seconds.
LINE_S = 10.0
#: Unread answers of one client, bytes; one that reads more slowly is cut off.
UNREAD_BYTES = 16 * 1024 * 1024
#: Open connections; beyond it the one that has been idle longest is closed.
CONNECTIONS = 128
#: How often a waiting request is asked again, seconds.
TICK_S = 0.02
#: Unflushed answers get this long when the server pauses, seconds.
FLUSH_S = 0.5
BACKLOG = 128
#: Accepting pauses this long after the process ran out of descriptors, seconds.
EXHAUSTED_PAUSE_S = 0.1

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger(__name__)


def bind_control(path: str) -> socket.socket:
    """Bind and listen at ``path`` with mode 0660; replace what a dead daemon left there.

    The socket is bound under a temporary name, given its mode and renamed, so that no client ever
    meets it half made. The caller holds the daemon's lock: nobody living listens at ``path``.
    Raises AddressError.
    """
    # Shorter than any name it gets: a socket's path may be no longer than 107 bytes.
    temporary = os.path.join(os.path.dirname(path), f".{os.getpid()}")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove(temporary)
        listening.bind(temporary)
        os.chmod(temporary, 0o660)
        listening.listen(BACKLOG)
        os.rename(temporary, path)
    except OSError as error:
        listening.close()
        _remove(temporary)
        raise AddressError(
            f"The control socket {path} can't be bound: {error.strerror or error}.",
            "Make its folder writable for the daemon.",
        ) from error
    return listening


def _nobody(_pid: int) -> bool:
    return False


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


@dataclass(slots=True)
class _Waiting:
    request_id: Any
    later: Later
    deadline: float


@dataclass(slots=True, eq=False)
class _Connection:
    sock: socket.socket
    peer: Peer
    #: Monotonic instant of the last thing read.
    heard_at: float
    #: Monotonic instant at which the unfinished line in ``received`` began.
    line_since: float | None = None
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    waiting: list[_Waiting] = field(default_factory=list)
    #: To be closed once ``unsent`` is empty.
    closing: bool = False

    @property
    def idle(self) -> bool:
        return not (self.received or self.unsent or self.waiting)


class ControlServer:
    """Answers on one listening socket. All methods are called by the arbiter's thread."""

    def __init__(
        self, service: Service, spawn: Spawn, is_of_a_command: Callable[[int], bool] = _nobody
    ) -> None:
        """``is_of_a_command`` says whether a PID belongs to a command of an agent."""
        self._service = service
        self._spawn = spawn
        self._is_of_a_command = is_of_a_command
        self._listening: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._wake: socket.socket | None = None

    def start(self, listening: socket.socket) -> None:
        """Answer on this socket from now on."""
        self._listening = listening
        self.resume()

    def resume(self) -> None:
        """Go on after :meth:`pause` (execve failed). Connections are new, the socket is the same."""
        if self._listening is None or self._thread is not None:
            return
        self._listening.setblocking(False)
        self._wake, woken = socket.socketpair()
        self._ending.clear()
        loop = _Loop(self._service, self._listening, woken, self._ending, self._is_of_a_command)
        self._thread = self._spawn("control", loop.run)

    def pause(self) -> None:
        """Stop accepting, flush answers, close connections; the listening socket stays open.

        Bounded by the flush and the call in progress. Who connects meanwhile waits in the accept
        queue, which the new image inherits.
        """
        if self._thread is None or self._wake is None:
            return
        self._ending.set()
        self._wake.close()
        self._thread.join(FLUSH_S + 5.0)
        self._thread = self._wake = None

    def stop(self) -> None:
        """Pause and close the listening socket."""
        self.pause()
        if self._listening is not None:
            self._listening.close()
            self._listening = None


class _Loop:
    """The thread's own side; nothing here is touched by another thread."""

    def __init__(
        self,
        service: Service,
        listening: socket.socket,
        woken: socket.socket,
        ending: threading.Event,
        is_of_a_command: Callable[[int], bool],
    ) -> None:
        self._is_of_a_command = is_of_a_command
        self._service = service
        self._listening = listening
        self._woken = woken
        self._ending = ending
        self._connections: set[_Connection] = set()
        #: Monotonic instant until which accepting pauses, None while it doesn't.
        self._accept_again: float | None = None

    def run(self) -> None:
        with selectors.DefaultSelector() as selector, self._woken:
            self._selector = selector
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._ending.is_set():
                self._turn()
            self._flush_all(time.monotonic() + FLUSH_S)

    def _turn(self) -> None:
        if self._accept_again is not None and time.monotonic() >= self._accept_again:
            self._accept_again = None
            self._selector.register(self._listening, selectors.EVENT_READ)
        for key, mask in self._selector.select(self._timeout()):
            if key.fileobj is self._listening:
                self._accept()
            elif isinstance(key.data, _Connection):
                if mask & selectors.EVENT_READ:
                    self._read(key.data)
                if mask & selectors.EVENT_WRITE:
                    self._write(key.data)
        now = time.monotonic()
        for connection in tuple(self._connections):
            self._ask_again(connection, now)
            self._expire(connection, now)

    def _timeout(self) -> float | None:
        if self._accept_again is not None:
            return TICK_S
        if any(c.waiting for c in self._connections):
            return TICK_S
        mortal = any(c.closing or c.line_since is not None for c in self._connections)
        return 1.0 if mortal else None

    def _accept(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:  # It stays in the queue; asking at once would be a spin.
                self._selector.unregister(self._listening)
                self._accept_again = time.monotonic() + EXHAUSTED_PAUSE_S
            return
        sock.setblocking(False)
        peer = Peer.of(sock, self._is_of_a_command)
        connection = _Connection(sock, peer, heard_at=time.monotonic())
        self._selector.register(sock, selectors.EVENT_READ, connection)
        self._connections.add(connection)
        if len(self._connections) > CONNECTIONS:
            self._make_room(connection)

    def _make_room(self, newest: _Connection) -> None:
        idle = [c for c in self._connections if c.idle and c is not newest]
        self._close(min(idle, key=lambda c: c.heard_at) if idle else newest)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        if connection.closing:  # a refused line is read to its end, so that the answer arrives
            return
        connection.heard_at = time.monotonic()
        connection.received += data
        self._take_lines(connection)

    def _take_lines(self, connection: _Connection) -> None:
        *lines, rest = connection.received.split(b"\n")
        connection.received = rest
        for text in lines:
            if not connection.closing and text.strip():
                self._take(connection, bytes(text))
        if len(rest) > LINE_BYTES:
            self._refuse(connection, f"The line is longer than {LINE_BYTES} bytes.")
        elif rest and bytes(rest[:64]).lstrip()[:1] not in (b"{", b""):
            self._refuse(connection, "The line is not a JSON object.")
        if connection.line_since is None or not rest:
            connection.line_since = connection.heard_at if rest else None

    def _refuse(self, connection: _Connection, what: str) -> None:
        """Answer what can't be read as a request, then close."""
        connection.received.clear()
        connection.closing = True
        self._send(connection, problem(None, BadRequestError(what, "Send one object a line.")))

    def _take(self, connection: _Connection, text: bytes) -> None:
        try:
            request = json.loads(text)
        except (ValueError, RecursionError):
            return self._refuse(connection, "The line is not JSON in UTF-8.")
        if not isinstance(request, dict):
            return self._refuse(connection, "The line is not a JSON object.")
        request_id = request.get("id")
        with self._answering(connection, request_id):
            result = answer(self._service, request.get("do"), Arguments(request), connection.peer)
            if isinstance(result, Later):
                deadline = time.monotonic() + result.wait_s
                connection.waiting.append(_Waiting(request_id, result, deadline))
                return self._ask_again(connection, time.monotonic())
            self._send(connection, success(request_id, result))
        return None

    @contextlib.contextmanager
    def _answering(self, connection: _Connection, request_id: Any) -> Any:
        """Turn an exception into the request's answer."""
        try:
            yield
        except NetclawError as error:
            self._send(connection, problem(request_id, error))
        except Exception:  # noqa: BLE001 - a defect behind one request must not silence all others
            _log.exception("control.request.failed")
            failure = NetclawError("The daemon failed to answer.", "See its log for the cause.")
            self._send(connection, problem(request_id, failure))

    def _ask_again(self, connection: _Connection, now: float) -> None:
        for waiting in tuple(connection.waiting):
            late, result = now >= waiting.deadline, None
            with self._answering(connection, waiting.request_id):
                try:
                    result = waiting.later.ask()
                except StoreClosedError:
                    if late:
                        raise
                if result is None and not late:
                    continue
                if result is None:
                    result = waiting.later.otherwise
                self._send(connection, success(waiting.request_id, result))
            connection.waiting.remove(waiting)

    def _expire(self, connection: _Connection, now: float) -> None:
        since = connection.line_since
        if connection.closing and now - connection.heard_at > LINE_S:
            return self._close(connection)
        if since is not None and now - since > LINE_S and not connection.closing:
            connection.line_since = None
            connection.heard_at = now
            self._refuse(connection, f"The line was not complete after {LINE_S:.0f} s.")
        return None

    def _send(self, connection: _Connection, data: bytes) -> None:
        connection.unsent += data
        self._write(connection)

    def _write(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return None
        try:
            sent = connection.sock.send(connection.unsent) if connection.unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._close(connection)
        del connection.unsent[:sent]
        if len(connection.unsent) > UNREAD_BYTES:
            return self._close(connection)
        if connection.closing and not connection.unsent:
            return self._end(connection)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        self._selector.modify(connection.sock, wanted, connection)
        return None

    def _end(self, connection: _Connection) -> None:
        """Shut down for writing; the client's end of file, or the next restart, closes it."""
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)
        self._selector.modify(connection.sock, selectors.EVENT_READ, connection)

    def _close(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._selector.unregister(connection.sock)
            connection.sock.close()

    def _flush_all(self, deadline: float) -> None:
        self._selector.unregister(self._listening)
        self._selector.unregister(self._woken)
        for connection in self._connections:
            if connection.unsent:  # from here on nothing more is read
                self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
        while (left := deadline - time.monotonic()) > 0:
            if not any(c.unsent for c in self._connections):
                break
            for key, mask in self._selector.select(left):
                if mask & selectors.EVENT_WRITE:
                    self._write(key.data)
        for connection in tuple(self._connections):
            self._close(connection)
