"""A web server over a real socket that answers each path by a script, bytes as they are."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Self

#: What is sent, or what sends it.
Script = bytes | Callable[[socket.socket], None]


def page(
    body: bytes | str, kind: str = "text/plain", status: str = "200 OK", more: str = ""
) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\n{more}\r\n"
    return head.encode() + raw


def redirect(target: str) -> bytes:
    return page("", status="302 Found", more=f"Location: {target}\r\n")


class WebServer:
    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self.scripts = dict(scripts)
        #: The requests, whole.
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                wire, _ = self._listener.accept()
                self._open.append(wire)
                with suppress(OSError):
                    self._answer(wire)

    def _answer(self, wire: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = wire.recv(65536)
            if not piece:
                return
            request += piece
        self.asked.append(request.decode())
        script = self.scripts[request.split()[1].decode()]
        if callable(script):
            script(wire)
        else:
            wire.sendall(script)
            wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for wire in self._open:
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
            wire.close()
        self._thread.join()


@contextmanager
def silent_port() -> Iterator[int]:
    """Take a port that answers no connection: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):
            yield listener.getsockname()[1]
