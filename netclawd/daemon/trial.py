"""The rehearsing child's one request: a whole HTTP server on a socketpair, nothing listening."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from netclawd.core.listeners import Kept
from netclawd.errors import RehearsalError
from netclawd.ports import HttpServer, Service

_TIMEOUT_S = 5.0
_REQUEST = b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class _NoDaemon:
    """Stands for the service: liveness asks it for the generation only."""

    def generation(self) -> int:
        return 0

    def retry_after_s(self) -> int:
        return 1

    def watch(self, watch: Any) -> None: ...
    def unwatch(self, watch: Any) -> None: ...

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        return False, {}


def serve_one_request(make_http: Callable[[Service], HttpServer]) -> None:
    """Serve one liveness request; RehearsalError when the answer isn't 200."""
    ours, theirs = socket.socketpair()
    with ours:
        server = make_http(_NoDaemon())  # type: ignore[arg-type]
        server.start({}, [Kept(theirs.detach(), ("rehearsal", 0), "rehearsal")])
        try:
            answer = _ask(ours)
        finally:
            server.stop(_TIMEOUT_S)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RehearsalError(
            f"The code on disk answered a rehearsed request with {answer[:60]!r}.",
            "Reinstall netclawd; the old image goes on serving.",
        )


def _ask(connection: socket.socket) -> bytes:
    connection.settimeout(_TIMEOUT_S)
    try:
        connection.sendall(_REQUEST)
        return connection.recv(4096)
    except OSError:
        return b""
