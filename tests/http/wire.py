"""A client that speaks bytes: it sees what went over the wire, resets included."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from tests.waiting import scaled


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def slug(self) -> str:
        """The identity of the problem that the body says."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.json["status"] == self.status
        return str(self.json["type"]).removeprefix("urn:netclaw:problem:")


@dataclass(frozen=True)
class Said:
    """One event of a stream."""

    type: str
    id: int | None
    data: Any
    retry_ms: int | None = None


def request(
    method: str, path: str, body: Any = None, version: str = "1.1", /, **headers: str | None
) -> bytes:
    """Render a request; header names are written with underscores, None leaves one out."""
    content = (
        b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    fields: dict[str, str | None] = {"Host": "localhost"}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Wire:
    """One connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=scaled(10))
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, method: str, path: str, body: Any = None, /, **headers: str | None) -> Answer:
        self.send(request(method, path, body, **headers))
        return self.answer()

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def _until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            if not self._more():
                raise EOFError(f"the connection ended after {self.buffer!r}")
        found, _, self.buffer = self.buffer.partition(end)
        return found

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in pairs}

    def answer(self) -> Answer:
        """Read one answer, whole."""
        status, headers = self.head()
        length = int(headers["content-length"])
        while len(self.buffer) < length:
            if not self._more():
                raise EOFError("the body is cut off")
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Answer(status, headers, body)

    def rest(self) -> bytes:
        """Read to the end of the connection, which must not be a reset."""
        while self._more():
            pass
        rest, self.buffer = self.buffer, b""
        return rest

    def listen(self, session_id: str, query: str = "", **headers: str | None) -> Self:
        """Ask for the stream of events and read the head of the answer."""
        path = f"/api/sessions/{session_id}/events{query}"
        self.send(request("GET", path, Accept="text/event-stream", **headers))
        status, fields = self.head()
        assert status == 200, (status, fields)
        assert fields["content-type"].startswith("text/event-stream")
        return self

    def hear(self) -> Said:
        """Read one event; comments are passed over."""
        while True:
            block = self._until(b"\n\n").decode()
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line[:1] not in ":")
            if fields:
                number, retry = fields.get("id"), fields.get("retry")
                return Said(
                    fields["event"],
                    None if number is None else int(number),
                    json.loads(fields["data"]),
                    None if retry is None else int(retry),
                )

    def hear_until(self, kind: str) -> Iterator[Said]:
        """Read events up to and including the first of this type."""
        while True:
            said = self.hear()
            yield said
            if said.type == kind:
                return


def assert_cut(wire: Wire) -> None:
    """Read the one answer of a request that the drain cut, and the orderly end behind it."""
    answer = wire.answer()
    assert answer.status == 503
    assert answer.slug == "draining"
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-netclaw-generation"] == "3"
    assert wire.rest() == b""
