"""A client of many turns in a process of its own: posts one message to each session and follows it.

One thread reads all event streams; a stream that ends (a restart) is joined again with Last-Event-ID.
Prints one JSON object when every turn has ended: for each turn the seconds from its post to its first
text and to its end, how it ended, and how often its stream was joined.
"""

from __future__ import annotations

import argparse
import http.client
import json
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

_ENDS = (b"turn.completed", b"turn.failed", b"turn.cancelled")
_REJOIN_S = 0.1


@dataclass(slots=True)
class Turn:
    session: str
    posted: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    end: str = ""
    joins: int = 0
    last_id: int = 0
    unread: bytes = b""

    def take(self, data: bytes, now: float) -> None:
        """Read what came; a frame ends with an empty line."""
        *frames, self.unread = (self.unread + data).split(b"\n\n")
        for frame in frames:
            for line in frame.split(b"\n"):
                if line.startswith(b"id: "):
                    self.last_id = int(line[4:])
                elif line == b"event: delta":
                    self.first = self.first or now
                elif line.startswith(b"event: ") and line[7:] in _ENDS:
                    self.ended, self.end = now, line[12:].decode()


class Client:
    def __init__(self, port: int, sessions: list[str], text: str) -> None:
        self._address = ("127.0.0.1", port)
        self._text = text
        self._turns = [Turn(session) for session in sessions]
        self._selector = selectors.DefaultSelector()
        self._away: list[tuple[float, Turn]] = []

    def run(self, timeout_s: float) -> list[Turn]:
        for turn in self._turns:
            self._join(turn)
        poster = threading.Thread(target=self._post)
        poster.start()
        until = time.monotonic() + timeout_s
        while any(not turn.ended for turn in self._turns) and time.monotonic() < until:
            for key, _ in self._selector.select(0.05):
                self._read(key.fileobj, key.data)
            now = time.monotonic()
            due = [turn for at, turn in self._away if at <= now]
            self._away = [row for row in self._away if row[0] > now]
            for turn in due:
                self._join(turn)
        poster.join()
        return self._turns

    def _post(self) -> None:
        connection = http.client.HTTPConnection(*self._address)
        for turn in self._turns:
            turn.posted = time.monotonic()
            body, headers = json.dumps({"text": self._text}), {"Content-Type": "application/json"}
            connection.request("POST", f"/api/sessions/{turn.session}/messages", body, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status != 202:
                raise SystemExit(f"a message was refused: {answer!r}")

    def _join(self, turn: Turn) -> None:
        try:
            sock = socket.create_connection(self._address, 5.0)
            sock.sendall(
                f"GET /api/sessions/{turn.session}/events HTTP/1.1\r\nHost: localhost\r\n"
                f"Accept: text/event-stream\r\nLast-Event-ID: {turn.last_id}\r\n\r\n".encode()
            )
        except OSError:
            self._away.append((time.monotonic() + _REJOIN_S, turn))
            return
        sock.setblocking(False)
        turn.joins += 1
        turn.unread = b""
        self._selector.register(sock, selectors.EVENT_READ, turn)

    def _read(self, sock: Any, turn: Turn) -> None:
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if data:
            turn.take(data, time.monotonic())
            return
        self._selector.unregister(sock)
        sock.close()
        if not turn.ended:
            self._away.append((time.monotonic() + _REJOIN_S, turn))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sessions", required=True, help="ids, separated by commas")
    parser.add_argument("--text", required=True)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds")
    arguments = parser.parse_args()
    sessions = arguments.sessions.split(",")
    turns = Client(arguments.port, sessions, arguments.text).run(arguments.timeout)
    rows = [
        {
            "first_s": turn.first - turn.posted,
            "whole_s": turn.ended - turn.posted,
            "end": turn.end,
            "joins": turn.joins,
        }
        for turn in turns
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
