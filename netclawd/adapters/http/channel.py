"""Waitress's channel, task and error task, bent to our needs (its parser: parser.py).

Written for waitress 2.1.2 and 3.0, whose insides these classes know. What they add: a request may leave
its worker (leaving.py); exactly one answer goes out for a request that the drain's deadline meets; a
connection that is closed with unread bytes lingers, since closing it would reset it and lose the
answer; head and body leave in one packet; errors are problem+json.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Protocol

from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.task import ErrorTask, WSGITask

from netclawd.adapters.http import openai_error, problem
from netclawd.adapters.http.leaving import LeaveWorker
from netclawd.adapters.http.parser import Parser
from netclawd.adapters.http.raw import GENERATION_HEADER
from netclawd.adapters.http.sockets import unread

#: In the WSGI environment: the connection came by a Unix socket; the request was parked before; the
#: authority of an absolute request target.
ENV_UNIX = "netclawd.unix"
ENV_WOKEN = "netclawd.woken"
ENV_TARGET = "netclawd.target"
#: The ticket with which the request has waited.
ENV_TICKET = "netclawd.ticket"

#: What environ's REMOTE_ADDR says for a peer on a Unix socket.
UNIX_PEER = ("unix", 0)


class Front(Protocol):
    """What a channel asks of its server; the names are waitress's where waitress calls them."""

    adj: Any
    application: Any
    active_channels: dict[int, Any]
    effective_port: int
    server_name: str
    #: Idle connections are left alone: their next bytes are for the new image.
    quiescing: bool

    def add_task(self, task: Any) -> None: ...
    def pull_trigger(self) -> None: ...
    def generation(self) -> int: ...
    def on_leave(self, channel: Channel, leave: LeaveWorker) -> None: ...
    def linger(self, sock: socket.socket, peer: Any, listener: str) -> None: ...
    def answer(self, channel: Channel, raw: bytes) -> None: ...


class Task(WSGITask):  # type: ignore[misc]
    """Runs the application."""

    wrote_header: bool

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        if self.channel.unix:
            environ[ENV_UNIX] = True
        if self.request.woken:
            environ[ENV_WOKEN] = True
        if self.request.ticket is not None:
            environ[ENV_TICKET] = self.request.ticket
        if self.request.proxy_netloc:
            environ[ENV_TARGET] = self.request.proxy_netloc
        return environ

    def build_response_header(self) -> bytes:
        generation = str(self.channel.server.generation())
        self.response_headers.append((GENERATION_HEADER, generation))
        head: bytes = super().build_response_header()
        return head

    def write(self, data: bytes) -> None:
        whole = self.complete and not self.wrote_header and self.content_length == len(data)
        if not (whole and data and self.has_body):
            super().write(data)
            return
        head = self.build_response_header()
        self.wrote_header = True
        self.content_bytes_written += len(data)
        self.channel.write_soon(head + data)


class ProblemTask(ErrorTask):  # type: ignore[misc]
    """Answers what the parser refused."""

    def execute(self) -> None:
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        slug, remedy = problem.slug_of(error.code), problem.remedy_of(error.code)
        detail = problem.detail_of(error.code) or f"{error.body.rstrip('.')}."
        remedy, media = getattr(error, "remedy", remedy), problem.MEDIA_TYPE
        content = problem.body(error.code, slug, detail, remedy)
        if openai_error.concerns(self.channel.path):
            media = openai_error.MEDIA_TYPE
            failure = openai_error.Failure.of(error.code, slug, detail, remedy)
            content = openai_error.body(failure)
        self.response_headers.extend(
            [
                ("Cache-Control", "no-store"),
                ("Connection", "close"),
                ("Content-Type", media),
                (GENERATION_HEADER, str(self.channel.server.generation())),
            ]
        )
        self.close_on_finish = True
        self.content_length = len(content)
        # The rest of what was refused is still on its way.
        self.channel.polite = True
        self.write(content)


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection, from accept to close, or to the stream or the successor that takes it over."""

    task_class = Task
    error_task_class = ProblemTask
    parser_class = Parser
    server: Front
    #: None once the connection is closed or given away.
    socket: Any

    def __init__(
        self,
        front: Front,
        sock: socket.socket,
        peer: Any,
        listener: str,
        map: Any,  # noqa: A002
    ) -> None:
        self.active_at = 0.0
        #: Monotonic instant of the first byte of the request that is half received.
        self.begun_at = 0.0
        self.listener = listener
        self.peer = peer
        self.unix = sock.family == socket.AF_UNIX
        #: Answered by the loop instead of its worker, whose output is void from then on.
        self.cut = False
        #: Close by lingering even if nothing is unread yet.
        self.polite = False
        #: The request whose answer has begun.
        self._answering: Any = None
        super().__init__(front, sock, UNIX_PEER if self.unix else peer, front.adj, map=map)
        # Waitress 2 leaves this False for a peer that is gone already, and would never close it.
        self.connected = True

    @property
    def last_activity(self) -> float:
        """Waitress writes the wall clock here; we keep the monotonic one."""
        return self.active_at

    @last_activity.setter
    def last_activity(self, _wall: float) -> None:
        self.active_at = time.monotonic()

    # -- what it is doing: the loop's thread asks ------------------------------------------------

    @property
    def half_received(self) -> bool:
        return self.request is not None and self.request.begun

    @property
    def path(self) -> str:
        """What the request that is answered, or received, asks for; empty while that isn't known."""
        request = self.requests[0] if self.requests else self.request
        return str(getattr(request, "path", ""))

    @property
    def waiting_since(self) -> float | None:
        """Monotonic instant since which it has waited for its client; None while we are at work."""
        if self.half_received and not self.requests:
            return self.begun_at
        return None if self.requests and not self.total_outbufs_len else self.active_at

    @property
    def busy(self) -> bool:
        """Whether it can't cross execve as it is."""
        return bool(
            self.requests
            or self.half_received
            or self.total_outbufs_len
            or self.will_close
            or self.close_when_flushed
        )

    def readable(self) -> bool:
        if self.server.quiescing and not self.half_received:
            return False
        return bool(super().readable())

    def received(self, data: bytes) -> bool:
        before = self.request
        taken = bool(super().received(data))
        if self.request is not None and self.request is not before:
            self.begun_at = self.active_at
        return taken

    # -- the worker's thread ---------------------------------------------------------------------

    def service(self) -> None:
        if self.cut:
            return
        try:
            super().service()
        except LeaveWorker as leave:
            # requests[0] stays, so nothing more is read until the request has been answered.
            self.server.on_leave(self, leave)

    def write_soon(self, data: Any) -> int:
        with self.outbuf_lock:
            if self.cut:
                raise ClientDisconnected
            self._answering = self.requests[0] if self.requests else None
            written: int = super().write_soon(data)
            return written

    # -- the loop's thread -----------------------------------------------------------------------

    def cut_off(self) -> bool:
        """Void the worker's answer unless it has begun; then the caller must answer."""
        with self.requests_lock, self.outbuf_lock:
            if self.requests and self._answering is self.requests[0]:
                return False
            self.cut = True
            return True

    def part(self) -> tuple[socket.socket, bytes] | None:
        """Give up the socket and the output that is still unsent; None when it is closed already."""
        with self.requests_lock, self.outbuf_lock:
            if not self.connected or self.socket is None:
                return None
            sock, self.socket = self.socket, None
            pending = b"".join(buffer.get() for buffer in self.outbufs)
            HTTPChannel.handle_close(self)
        return sock, pending

    def leave_map(self) -> None:
        """Cost the loop nothing while the request is parked."""
        self._map.pop(self._fileno, None)

    def run_again(self) -> None:
        """Come back from having been parked: the same request runs again."""
        if self.connected:
            self._map[self._fileno] = self
            self.requests[0].woken = True
            self.server.add_task(self)

    def handle_close(self) -> None:
        if self.connected and self.socket is not None:
            if self.will_close:
                parted = self.part() if self._must_linger() else None
                if parted is not None:
                    self.server.linger(parted[0], self.peer, self.listener)
                    return
            elif self.half_received and not self.requests and self.cut_off():
                # The client has ended its side; it may still read.
                self.server.answer(
                    self, problem.incomplete_response(self.server.generation(), self.path)
                )
                return
        super().handle_close()

    def _must_linger(self) -> bool:
        return self.polite or unread(self.socket)
