"""An HTTP server that plays event streams from a script, one per connection; real sockets."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass, field
from typing import Any


def event(seq: int, kind: str, **data: Any) -> bytes:
    """Render a durable event of turn t."""
    body = {"seq": seq, "type": kind, "at": 0.0, "turn_id": "t", **data}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(body)}\n\n".encode()


def delta(offset: int, text: str, attempt: int = 1) -> bytes:
    body = {"turn_id": "t", "step": 1, "attempt": attempt, "offset": offset, "text": text}
    return f"event: delta\ndata: {json.dumps(body)}\n\n".encode()


#: What a drain ends a stream with.
END = b'event: restart\nretry: 10\ndata: {"generation": 3, "phase": "draining"}\n\n'


@dataclass
class Reply:
    """What one connection is answered."""

    body: bytes
    generation: int = 3
    status: int = 200
    headers: str = ""

    def render(self) -> bytes:
        head = (
            f"HTTP/1.1 {self.status} OK\r\nConnection: close\r\n"
            f"X-Netclaw-Generation: {self.generation}\r\n{self.headers}\r\n"
        )
        return head.encode() + self.body


@dataclass
class EventServer:
    """Use as a context manager; ``requests`` holds the heads that came."""

    script: list[Reply]
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> EventServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        for reply in self.script:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(4096)
                self.requests.append(head.decode())
                connection.sendall(reply.render())
