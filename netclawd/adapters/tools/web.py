"""One HTTP exchange with an address that was judged: nothing is looked up between judgement and connection.

The name is resolved once, every address that it has is judged, and the connection goes to one of these.
There is a deadline for the whole, and a cancel cuts it at once: the resolver is a child, getent(1), since
the library's own can't be interrupted, and a socket is shut down. Proxies of the environment are not used.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import select
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from urllib.parse import SplitResult

from netclawd.core.values import frozen
from netclawd.ports import Cancel, Cancelled

#: Between two looks at the cancel while a name is resolved or a connection made, seconds.
_SLICE_S = 0.03
_PIECE = 65_536

Resolve = Callable[[str, float, Cancel], list[str]]


class WebError(Exception):
    """Why a page can't be had, in words for the model."""


@frozen
class Answer:
    status: int
    reason: str
    #: By their names in small letters.
    headers: dict[str, str]
    body: bytes
    #: There is more of the body than was read.
    cut: bool


def resolve(host: str, deadline: float, cancel: Cancel) -> list[str]:
    """Return the addresses of a host; raises WebError."""
    with contextlib.suppress(ValueError):
        return [str(ip_address(host))]
    # In our session: it is no command of the agent's (marked.py).
    child = subprocess.Popen(
        ["getent", "ahosts", host],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin"},
    )
    try:
        while True:
            try:
                answer, _ = child.communicate(timeout=_SLICE_S)
                break
            except subprocess.TimeoutExpired:
                _go_on(deadline, cancel)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    found = [line.split()[0] for line in answer.decode("ascii", "replace").splitlines() if line]
    if not found:
        raise WebError(f"The name {host} is not known.")
    return list(dict.fromkeys(found))


def _go_on(deadline: float, cancel: Cancel) -> float:
    """Return the seconds that are left; raises Cancelled or WebError."""
    if cancel.is_set():
        raise Cancelled
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise WebError("It took too long.")
    return left_s


class Exchange:
    """Asks for one page, without following where it sends us."""

    def __init__(self, url: SplitResult, deadline: float, cancel: Cancel, limit_bytes: int) -> None:
        self._url = url
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._deadline = deadline
        self._cancel = cancel
        self._limit = limit_bytes

    def ask(self, addresses: list[str], agent: str) -> Answer:
        """Return the answer; raises WebError, Cancelled, OSError or http.client.HTTPException."""
        with contextlib.ExitStack() as held:
            wire = held.enter_context(self._connect(addresses))
            # A second descriptor: shutting it down ends what waits, whatever TLS is doing with the first.
            handle = held.enter_context(wire.dup())
            held.callback(self._cancel.on_set(lambda: _shut_down(handle)))
            try:
                return self._exchange(held, wire, agent)
            except (OSError, http.client.HTTPException, ValueError):
                if self._cancel.is_set():
                    raise Cancelled from None
                raise

    def _exchange(self, held: contextlib.ExitStack, wire: socket.socket, agent: str) -> Answer:
        if self._url.scheme == "https":
            wire.settimeout(_go_on(self._deadline, self._cancel))
            context = ssl.create_default_context()
            wire = held.enter_context(context.wrap_socket(wire, server_hostname=self._host))
        connection = http.client.HTTPConnection(self._url.netloc)
        connection.sock = _Timed(wire, self._deadline, self._cancel)
        path = self._url.path or "/"
        query = f"?{self._url.query}" if self._url.query else ""
        headers = {
            "User-Agent": agent,
            "Accept": "text/html, text/*, application/json, application/xml;q=0.9, */*;q=0.1",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        connection.request("GET", path + query, headers=headers)
        answer = connection.getresponse()
        body, cut = self._body(answer)
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, answer.reason, names, body, cut)

    def _body(self, answer: http.client.HTTPResponse) -> tuple[bytes, bool]:
        body = bytearray()
        while len(body) <= self._limit and (piece := answer.read1(_PIECE)):
            body += piece
        missing = answer.length
        if self._cancel.is_set():
            raise Cancelled
        if len(body) <= self._limit and missing:
            raise WebError("The server ended in the middle of the page.")
        return bytes(body[: self._limit]), len(body) > self._limit

    @contextlib.contextmanager
    def _connect(self, addresses: list[str]) -> Iterator[socket.socket]:
        """Connect to the first of the addresses that takes us."""
        why: OSError | None = None
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as wire:
                try:
                    self._connect_to(wire, address)
                except OSError as error:
                    why = error
                    continue
                yield wire
                return
        raise why or WebError(f"The name {self._host} has no address.")

    def _connect_to(self, wire: socket.socket, address: str) -> None:
        wire.setblocking(False)
        try:
            wire.connect((address, self._port))
        except BlockingIOError:
            # Not select(2): a descriptor of ours may have any number.
            poll = select.poll()
            poll.register(wire, select.POLLOUT)
            while not poll.poll(_SLICE_S * 1000):
                _go_on(self._deadline, self._cancel)
        code = wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))


def _shut_down(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


class _Timed:
    """The socket as http.client needs it, with one deadline for all that is read and written."""

    def __init__(self, wire: socket.socket, deadline: float, cancel: Cancel) -> None:
        self._wire = wire
        self._deadline = deadline
        self._cancel = cancel

    def sendall(self, content: bytes) -> None:
        self._wire.settimeout(_go_on(self._deadline, self._cancel))
        self._wire.sendall(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self._wire, self._deadline, self._cancel))

    def close(self) -> None:
        return


class _Reading(io.RawIOBase):
    def __init__(self, wire: socket.socket, deadline: float, cancel: Cancel) -> None:
        super().__init__()
        self._wire = wire
        self._deadline = deadline
        self._cancel = cancel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._wire.settimeout(_go_on(self._deadline, self._cancel))
        return self._wire.recv_into(buffer)
