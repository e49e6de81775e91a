"""Time to the first token that the daemon adds to the model server's own.

A client asks the model server itself, the daemon's /v1/chat/completions, and a session whose event
stream it watches, in turns. The difference of the medians is what the daemon adds: for a session that
includes making the message and the start of its turn durable, one after the other; so what the disk
takes for that is measured beside it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.figures import Figure, median, percentile
from benchmarks.processes import model_server
from tests.process.harness import Daemon
from tests.process.talk import new_session

#: One token, and what no frame but the one that has it contains.
TEXT, TOKEN = "/count 1", b'"1"'
WARM_UP = 5


def measure(quick: bool) -> list[Figure]:
    rounds = 40 if quick else 400
    with model_server() as base_url, daemon_on(base_url) as daemon:
        server_port = int(base_url.rsplit(":", 1)[1].split("/")[0])
        columns = tuple(list[float]() for _ in range(4))
        for number in range(rounds + WARM_UP):
            row = (
                _complete(server_port, "/v1/chat/completions", "test-model"),
                _complete(daemon.port, "/v1/chat/completions", "netclaw"),
                _say(daemon),
                _sync(daemon),
            )
            if number >= WARM_UP:
                for values, value in zip(columns, row, strict=True):
                    values.append(value * 1000)
    direct, proxied, durable, synced = columns
    own = median(direct)
    return [
        Figure("first token of the model server, p50", own, "ms"),
        Figure("added for a chat completion, p50", median(proxied) - own, "ms", at_most=5),
        Figure("added for a chat completion, p95", percentile(proxied, 95) - own, "ms"),
        Figure("added for a session's turn, p50", median(durable) - own, "ms", at_most=5),
        Figure("added for a session's turn, p95", percentile(durable, 95) - own, "ms"),
        Figure("one fdatasync of this disk, p50", median(synced), "ms"),
    ]


@contextmanager
def daemon_on(base_url: str, **sessions: int) -> Iterator[Daemon]:
    """Run a daemon whose agent is this model server."""
    provider: dict[str, Any] = {"kind": "openai", "base_url": base_url, "model": "test-model"}
    tables: dict[str, dict[str, Any]] = {
        "agent": {"provider": "server"},
        "providers.server": provider,
        "sessions": sessions,
    }
    with Daemon(tables=tables) as daemon:
        yield daemon.start()


def _complete(port: int, path: str, model: str) -> float:
    """Return the seconds from a streaming request to its first token."""
    asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": TEXT}]}
    with _connected(port) as connection:
        begun = time.monotonic()
        connection.sendall(_post(path, asked))
        return _await(connection, TOKEN) - begun


def _say(daemon: Daemon) -> float:
    """Return the seconds from a message to a session to the first token on its event stream."""
    path = f"/api/sessions/{new_session(daemon)}"
    with _connected(daemon.port) as stream, _connected(daemon.port) as connection:
        stream.sendall(
            f"GET {path}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        _await(stream, b"\r\n\r\n")
        begun = time.monotonic()
        connection.sendall(_post(f"{path}/messages", {"text": TEXT}))
        return _await(stream, b"event: delta") - begun


def _sync(daemon: Daemon) -> float:
    """Return the seconds that the disk of the store takes for a page, durably."""
    descriptor = os.open(daemon.home / "synced", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, bytes(4096))
        begun = time.monotonic()
        os.fdatasync(descriptor)
        return time.monotonic() - begun
    finally:
        os.close(descriptor)


@contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 10.0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def _post(path: str, data: object) -> bytes:
    body = json.dumps(data).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _await(connection: socket.socket, wanted: bytes) -> float:
    """Read until this is there; return the monotonic instant."""
    received = b""
    while wanted not in received:
        piece = connection.recv(65536)
        assert piece, f"the stream ended without it: {received!r}"
        received += piece
    return time.monotonic()
