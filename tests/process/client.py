"""A small client for the HTTP API and for the control socket: one request, one answer."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waiting import scaled


@dataclass(frozen=True)
class Answer:
    status: int
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def generation(self) -> int:
        """The generation that answered; every response carries it."""
        return int(self.headers["x-netclaw-generation"])

    @property
    def retry_later(self) -> bool:
        """Whether the daemon asked to come back and said when."""
        return self.status == 503 and int(self.headers.get("retry-after", "0")) >= 1


def read_answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(
        response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    )


def ask(
    port: int,
    path: str,
    *,
    method: str = "GET",
    data: Any = None,
    headers: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    timeout_s: float = 10.0,
) -> Answer:
    """Make one request over a connection of its own; ``data`` is sent as JSON unless it is bytes."""
    connection = http.client.HTTPConnection(host, port, timeout=scaled(timeout_s))
    try:
        body = data if isinstance(data, bytes | None) else json.dumps(data).encode()
        all_headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, body, {**all_headers, **(headers or {})})
        return read_answer(connection.getresponse())
    finally:
        connection.close()


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a connection is accepted there."""
    try:
        with socket.create_connection((host, port), timeout=scaled(2.0)):
            return True
    except ConnectionRefusedError:
        return False


class ControlRefusedError(Exception):
    """The daemon answered ``ok: false``; carries slug, what and remedy."""

    def __init__(self, error: Mapping[str, str]) -> None:
        super().__init__(f"{error.get('slug')}: {error.get('what')}")
        self.slug = error.get("slug", "")
        self.what = error.get("what", "")


def control(path: Path, do: str, *, timeout_s: float = 10.0, **arguments: Any) -> Any:
    """Ask one thing over the control socket; OSError when nothing answers.

    A connection that a restart ends before the answer raises ConnectionResetError.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(scaled(timeout_s))
        connection.connect(str(path))
        connection.sendall(json.dumps({"id": 1, "do": do, **arguments}).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionResetError(f"the control connection ended before {do} was answered")
            line += piece
    answer = json.loads(line)
    if not answer["ok"]:
        raise ControlRefusedError(answer["error"])
    return answer["result"]


def control_through_restarts(path: Path, do: str, *, timeout_s: float, **arguments: Any) -> Any:
    """Ask, and again when a restart ended the connection, until ``timeout_s`` is over."""
    deadline = time.monotonic() + scaled(timeout_s)
    while True:
        try:
            return control(path, do, **arguments)
        except (ConnectionError, ControlRefusedError) as error:
            gone = isinstance(error, ConnectionError) or error.slug in ("draining", "store-closed")
            if not gone or time.monotonic() > deadline:
                raise
            time.sleep(0.005)  # Between two tries; what is waited for is the answer.
