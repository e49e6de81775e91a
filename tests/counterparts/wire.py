"""HTTP/1.1 over real sockets, a thread a connection: what the two counterparts share.

A pause is a poll(2) of the connection, so that a client that hangs up is noticed at once, and two
hundred streams cost little more than what is sent.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import ssl
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from tests.counterparts.answers import (
    Answer,
    Ending,
    Events,
    Hangup,
    Piece,
    Raw,
    Reply,
    Silent,
    Status,
)

#: What a stream is made of: bytes, a pause in seconds, or how the connection ends.
Item = bytes | float | Ending

#: The certificate of a server with ``tls``, which nobody trusts, and its key.
CERTIFICATE = Path(__file__).parent / "tls" / "for-tests-only.pem"

_RESET = struct.pack("ii", 1, 0)


class _GoneError(Exception):
    """The client, or this server, has closed the connection."""


@dataclass(eq=False)
class Asked:
    """A request, and what became of it. Instants are monotonic, None until they come."""

    method: str
    path: str
    #: Names in lower case.
    headers: Mapping[str, str]
    raw: bytes
    #: The JSON of the body, None where it is none.
    body: Any
    #: Number of the connection, from 1.
    connection: int
    at: float
    #: When the first byte of the answer was sent.
    begun_at: float | None = None
    #: When the whole answer was sent.
    ended_at: float | None = None
    #: When the client closed the connection before it had the whole answer.
    hung_up_at: float | None = None
    answer: Answer | None = field(default=None, repr=False)


class Server(ABC):
    """Answers what is scripted, then whatever ``answer`` says; records what it was asked."""

    def __init__(
        self,
        *answers: Answer,
        answer: Callable[[Asked], Answer] | None = None,
        port: int = 0,
        api_key: str | None = None,
        pace_s: float = 0.0,
        models: Sequence[str] = ("test-model",),
        host: str = "127.0.0.1",
        tls: bool = False,
    ) -> None:
        from tests.counterparts.talk import answer_by_input

        self.models = list(models)
        #: Seconds between two pieces of text.
        self.pace_s = pace_s
        #: None: everybody may ask.
        self.api_key = api_key
        #: Every request, those for models and to wrong paths too.
        self.requests: list[Asked] = []
        self._tls = _server_tls() if tls else None
        self._answer = answer or answer_by_input
        self._script = deque(answers)
        self._lock = threading.Lock()
        self._open: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._connections = 0
        self._closing = False
        self._listener = socket.create_server((host, port), backlog=512)
        self._accepting = threading.Thread(target=self._accept, name="counterpart", daemon=True)
        self._accepting.start()

    # -- what a test uses

    @property
    def port(self) -> int:
        number: int = self._listener.getsockname()[1]
        return number

    @property
    def root(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    @abstractmethod
    def base_url(self) -> str:
        """What ``[providers.NAME] base_url`` is to be."""

    @property
    def asked(self) -> list[Asked]:
        """The model calls, in the order in which they came."""
        return [asked for asked in list(self.requests) if self.is_call(asked)]

    @property
    def connections(self) -> int:
        """How many connections were ever made."""
        return self._connections

    def script(self, *answers: Answer) -> None:
        """Answer the next model calls in this way, each once."""
        with self._lock:
            self._script.extend(answers)

    def drop_idle(self) -> None:
        """Close every open connection, as a server does with one that was idle for long."""
        with self._lock:
            for connection in self._open.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything and end the threads."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.drop_idle()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the wire format

    @abstractmethod
    def is_call(self, asked: Asked) -> bool:
        """Whether a request asks the model."""

    @abstractmethod
    def key_of(self, asked: Asked) -> str: ...

    @abstractmethod
    def objection(self, asked: Asked) -> str | None:
        """Say why a real server would refuse the request, None when it would not."""

    @abstractmethod
    def error_body(self, error: Status) -> Any: ...

    @abstractmethod
    def models_body(self) -> Any: ...

    @abstractmethod
    def whole(self, reply: Reply, asked: Asked) -> Any:
        """Return the reply as one JSON object."""

    @abstractmethod
    def stream(self, reply: Reply, asked: Asked, pace_s: float) -> Iterator[Item]:
        """Return the reply as a stream."""

    # -- choosing an answer

    def choose(self, asked: Asked) -> Answer:
        """Choose the answer to a request."""
        if self.api_key is not None and self.key_of(asked) != self.api_key:
            return Status(401, "Incorrect API key provided.", "authentication_error")
        if asked.method == "GET" and asked.path.endswith("/models"):
            return _json(200, self.models_body())
        if not self.is_call(asked):
            return Status(404, f"Unknown request URL: {asked.method} {asked.path}", "not_found")
        if problem := self.objection(asked):
            return Status(400, problem, "invalid_request_error")
        with self._lock:
            if self._script:
                return self._script.popleft()
        return self._answer(asked)

    # -- connections

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections += 1
                number = self._connections
                self._open[number] = connection
            thread = threading.Thread(
                target=self._serve,
                args=(connection, number),
                name=f"counterpart-{number}",
                daemon=True,
            )
            self._threads = [t for t in self._threads if t.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open[number] = connection
            _Connection(self, connection, number).run()
        except (_GoneError, OSError):
            pass
        finally:
            with self._lock:
                del self._open[number]
            connection.close()


class _Connection:
    def __init__(self, server: Server, connection: socket.socket, number: int) -> None:
        self._server = server
        self._socket = connection
        self._number = number
        self._received = b""
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN | select.POLLRDHUP)

    def run(self) -> None:
        while (asked := self._read()) is not None:
            self._server.requests.append(asked)
            asked.answer = answer = self._server.choose(asked)
            try:
                self._give(answer, asked)
            except _EndedError:
                return
            except (_GoneError, OSError):
                asked.hung_up_at = time.monotonic()
                return
            asked.ended_at = time.monotonic()
            if answer.close_after or asked.headers.get("connection", "").lower() == "close":
                return

    def _read(self) -> Asked | None:
        while b"\r\n\r\n" not in self._received:
            if not (data := self._socket.recv(65536)):
                return None
            self._received += data
        head, _, rest = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        while len(rest) < length:
            if not (data := self._socket.recv(65536)):
                return None
            rest += data
        raw, self._received = rest[:length], rest[length:]
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = None
        return Asked(method, path, headers, raw, body, self._number, time.monotonic())

    def _give(self, answer: Answer, asked: Asked) -> None:
        self._pause(answer.first_byte_s)
        pace_s = self._server.pace_s
        match answer:
            case Silent():
                self._stall()
            case Hangup():
                self._end(reset=answer.reset)
            case Raw():
                self._head(asked, answer.status, answer.content_type, answer.headers, answer.body)
                self._socket.sendall(answer.body[: len(answer.body) - answer.missing_bytes])
                if answer.missing_bytes:
                    self._end()
            case Status():
                body = _dumps(self._server.error_body(answer))
                self._head(asked, answer.status, "application/json", answer.headers, body)
                self._socket.sendall(body)
            case Reply() if answer.unstreamed or not asked.body.get("stream"):
                body = _dumps(self._server.whole(answer, asked))
                self._head(asked, 200, answer.content_type or "application/json", {}, body)
                self._socket.sendall(body)
            case Reply():
                self._head(asked, 200, answer.content_type or "text/event-stream", {})
                self._pause(answer.first_token_s)
                pace_s = pace_s if answer.pace_s is None else answer.pace_s
                self._send_chunks(self._server.stream(answer, asked, pace_s))
            case Events():
                self._head(asked, 200, "text/event-stream", {})
                items: list[Item] = list(answer.items)
                self._send_chunks(iter([*items, Ending.CUT] if answer.cut else items))

    def _head(
        self,
        asked: Asked,
        status: int,
        content_type: str,
        more: Mapping[str, str],
        body: bytes | None = None,
    ) -> None:
        framing = {"Transfer-Encoding": "chunked"}
        if body is not None:
            framing = {"Content-Length": str(len(body))}
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Scripted"
        headers = {"Date": formatdate(usegmt=True), "Content-Type": content_type, **framing, **more}
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        asked.begun_at = time.monotonic()
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def _send_chunks(self, items: Iterator[Item]) -> None:
        for item in items:
            if isinstance(item, bytes):
                self._socket.sendall(b"%x\r\n%b\r\n" % (len(item), item))
            elif isinstance(item, float | int):
                self._pause(item)
            elif item is Ending.STALL:
                self._stall()
            else:
                self._end(reset=item is Ending.RESET)
        self._socket.sendall(b"0\r\n\r\n")

    def _pause(self, seconds: float) -> None:
        """Wait; raise _GoneError when the connection is closed meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._look(left)

    def _look(self, timeout_s: float | None) -> None:
        if self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            # Nobody sends another request before the answer: the connection is closed.
            raise _GoneError

    def _stall(self) -> None:
        while True:
            self._look(None)

    def _end(self, *, reset: bool = False) -> None:
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._socket.close()
        raise _EndedError


class _EndedError(_GoneError):
    """The script ends the connection here."""


def _server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def misnamed(tool: object) -> str | None:
    """Say what servers have against the name of a tool."""
    if isinstance(tool, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool):
        return None
    return f"the tool's name {tool!r} does not match [A-Za-z0-9_-]{{1,64}}"


def paced(reply: Reply, pace_s: float) -> Iterator[Piece | float]:
    """Yield the pieces up to the ending, with the pauses between them."""
    pieces = reply.pieces()
    if reply.ending is Ending.ENDLESS:
        while True:
            for piece in pieces:
                yield piece
                yield pace_s
    for number, piece in enumerate(pieces[: reply.after]):
        if number:
            yield pace_s
        yield piece


def tokens(reply: Reply, asked: Asked) -> tuple[int, int]:
    """Return the input and output tokens of a reply."""
    counted = (len(json.dumps(asked.body["messages"]).split()), len(reply.pieces()))
    return reply.usage or counted


def _dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def _json(status: int, value: Any) -> Raw:
    return Raw(status=status, body=_dumps(value), content_type="application/json")
