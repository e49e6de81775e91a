"""One port that speaks HTTP and, where a client asks for it, WebSocket; a thread a connection.

Frames are read and made by the ``websockets`` library without its own input and output, so that a socket
can also fall silent or break off in the middle of its handshake.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import websockets.exceptions
import websockets.frames
import websockets.server

if TYPE_CHECKING:
    from tests.counterparts.slack import Workspace

#: Its name since websockets 11, and before.
_Protocol: Any = (
    vars(websockets.server).get("ServerProtocol") or vars(websockets.server)["ServerConnection"]
)
#: Whatever is raised for a socket that is closing.
_CLOSING = (OSError, websockets.exceptions.WebSocketException)


class GoneError(Exception):
    """The connection is closed."""


class Request:
    """One request of a connection."""

    def __init__(self, connection: socket.socket, head: bytes, rest: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, target, _ = first.split(" ")
        self.path, _, self.query = target.partition("?")
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        #: The head as it came, and what came behind it.
        self.raw = head + b"\r\n\r\n"
        self.rest = rest
        self.connection = connection

    @property
    def is_upgrade(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"

    def body(self) -> bytes:
        length = int(self.headers.get("content-length", "0"))
        while len(self.rest) < length:
            self.rest += _receive(self.connection)
        return self.rest[:length]

    def answer(
        self, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        fields = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def answer_json(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.answer(status, "application/json; charset=utf-8", json.dumps(value).encode(), headers)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def wait_for_hangup(self) -> None:
        """Return once the client has closed the connection, or this server has."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN | select.POLLRDHUP)
        poll.poll()


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise GoneError
    return data


class Listener:
    """Accepts connections and has each request handled by a thread of its own."""

    def __init__(self, host: str, port: int, handle: Callable[[Request], None]) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._listener = socket.create_server((host, port), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="slack", daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="slack-connection", daemon=True
            )
            self._threads = [t for t in self._threads if t.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            received = b""
            while b"\r\n\r\n" not in received:
                received += _receive(connection)
            head, _, rest = received.partition(b"\r\n\r\n")
            self._handle(Request(connection, head, rest))
        except (GoneError, OSError):
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def close(self) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


class Socket:
    """A WebSocket of the app."""

    def __init__(self, workspace: Workspace, request: Request, number: int) -> None:
        self.number = number
        self.opened_at = time.monotonic()
        self.closed_at: float | None = None
        #: It was asked to leave: nothing new goes over it.
        self.leaving = False
        #: Pings of the client, the first is its greeting.
        self.pings = 0
        self._workspace = workspace
        self._connection = request.connection
        self._lock = threading.Lock()
        self._protocol = _Protocol()
        self._heard = threading.Event()
        self._heard.set()
        self._protocol.receive_data(request.raw + request.rest)

    # -- the handshake

    def accept(self) -> bool:
        """Answer the handshake; False when it was none."""
        found = list(self._protocol.events_received())
        if not found:
            return False
        response = self._protocol.accept(found[0])
        with self._lock:
            self._protocol.send_response(response)
            self._flush()
        return int(response.status_code) == 101

    def break_off(self) -> None:
        """Answer the handshake by half a line."""
        self._connection.sendall(b"HTTP/1.1 101 Switching Proto")

    # -- an open socket

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    def silence(self) -> None:
        """Nothing gets through any more, in either direction; the connection stays."""
        self._heard.clear()

    @property
    def is_silent(self) -> bool:
        return not self._heard.is_set()

    def send(self, envelope: Mapping[str, Any] | str) -> bool:
        """Send JSON, or a text as it is; False when the socket is closed."""
        text = envelope if isinstance(envelope, str) else json.dumps(envelope)
        if self.is_silent:
            return True
        try:
            with self._lock:
                self._protocol.send_text(text.encode())
                self._flush()
        except _CLOSING:
            return False
        return True

    def ping(self) -> None:
        if self.is_silent:
            return
        with contextlib.suppress(*_CLOSING), self._lock:
            self._protocol.send_ping(b"Ping from applink")
            self._flush()

    def drop(self) -> None:
        """Close the connection without a word."""
        self._heard.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def leave(self) -> None:
        """Close the WebSocket as the protocol has it."""
        with contextlib.suppress(*_CLOSING), self._lock:
            self._protocol.send_close(1000, "Goodbye")
            self._flush()
        self.drop()

    def run(self) -> None:
        """Read until the connection ends."""
        with contextlib.suppress(GoneError, OSError):
            while True:
                data = _receive(self._connection)
                self._heard.wait()
                with self._lock:
                    self._protocol.receive_data(data)
                    self._flush()
                    events = list(self._protocol.events_received())
                for event in events:
                    self._take(event)
                if self._protocol.close_expected():
                    return

    def _take(self, event: Any) -> None:
        frames = websockets.frames
        if event.opcode is frames.Opcode.PING:
            self.pings += 1
        elif event.opcode is frames.Opcode.TEXT:
            with contextlib.suppress(ValueError):
                self._workspace.take(self, json.loads(event.data))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._connection.sendall(data)
            else:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_WR)
