"""Clients that load a daemon while it restarts, each with a ledger of every answer.

They end when they are told to, when their count is reached, or when their time is up, whatever comes
first. A failure is classified where it happens. A 503 that says when to come back is not a failure
and is counted apart.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.process.client import Answer, read_answer
from tests.waiting import scaled

#: Outcomes that no client may ever see at an address that stays.
FAILURES = ("refused", "reset", "empty", "timeout", "status", "broken")


@dataclass
class Ledger:
    """What happened to one client's requests."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    #: What the first failures were.
    details: list[str] = field(default_factory=list)
    #: Generations that answered, in order of first sight.
    generations: list[int] = field(default_factory=list)
    slowest_s: float = 0.0
    #: Bodies of acknowledged messages by idempotency key.
    acknowledged: dict[str, Any] = field(default_factory=dict)

    def note(self, outcome: str, detail: str = "") -> None:
        self.counts[outcome] += 1
        if outcome in FAILURES and len(self.details) < 5:
            self.details.append(f"{self.name} {outcome}: {detail}")

    def note_answer(self, answer: Answer, begun: float, *expected: int) -> bool:
        """Note an answer; return whether it was one of the expected."""
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        if answer.generation not in self.generations:
            self.generations.append(answer.generation)
        if answer.status in expected:
            self.note("ok")
            return True
        if answer.retry_later:
            self.note("retry")
        else:
            self.note("status", f"{answer.status} {answer.body[:200]!r}")
        return False

    def note_error(self, error: Exception) -> None:
        self.note(classify(error), f"{type(error).__name__}: {error}")

    @property
    def failures(self) -> int:
        return sum(self.counts[name] for name in FAILURES)


def classify(error: Exception) -> str:
    """Name a failed exchange by what a user would say."""
    if isinstance(error, http.client.RemoteDisconnected):
        return "empty"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
        return "reset"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "broken"


@dataclass(frozen=True)
class Limits:
    stop: threading.Event
    #: Monotonic instant.
    deadline: float
    count: int

    def rounds(self) -> Iterator[int]:
        for number in range(self.count):
            if self.stop.is_set() or time.monotonic() >= self.deadline:
                return
            yield number


@dataclass(frozen=True)
class Target:
    port: int
    session: str
    #: Pause between two requests of one client, seconds.
    pause_s: float = 0.01
    #: The same for those that post: each message is a turn, and the turns of a session run one by one.
    post_pause_s: float = 0.1
    timeout_s: float = 15.0

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=scaled(self.timeout_s))

    @property
    def messages(self) -> str:
        return f"/api/sessions/{self.session}/messages"


Client = Callable[[Target, Limits, Ledger], None]


def new_connections(target: Target, limits: Limits, ledger: Ledger) -> None:
    """GET over a new connection each time."""
    for _ in limits.rounds():
        connection = target.connection()
        begun = time.monotonic()
        try:
            connection.request("GET", "/api/health/live", headers={"Connection": "close"})
            ledger.note_answer(read_answer(connection.getresponse()), begun, 200)
        except (OSError, http.client.HTTPException) as error:
            ledger.note_error(error)
        finally:
            connection.close()
        limits.stop.wait(target.pause_s)


def keep_alive_gets(target: Target, limits: Limits, ledger: Ledger) -> None:
    """GET over one connection for as long as the server keeps it."""
    _keep_alive(target, limits, ledger, lambda it: _get(it, ledger), target.pause_s)


def _get(connection: http.client.HTTPConnection, ledger: Ledger) -> Answer:
    begun = time.monotonic()
    connection.request("GET", "/api/health/live")
    answer = read_answer(connection.getresponse())
    ledger.note_answer(answer, begun, 200)
    return answer


def keep_alive_posts(target: Target, limits: Limits, ledger: Ledger) -> None:
    """POST messages over one connection, each with an Idempotency-Key."""

    def post(connection: http.client.HTTPConnection) -> Answer:
        key, begun = uuid.uuid4().hex, time.monotonic()
        body = json.dumps({"text": f"note {key}"}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        connection.request("POST", target.messages, body, headers)
        answer = read_answer(connection.getresponse())
        if ledger.note_answer(answer, begun, 202):
            ledger.acknowledged[key] = answer.json
        return answer

    _keep_alive(target, limits, ledger, post, target.post_pause_s)


def _keep_alive(
    target: Target,
    limits: Limits,
    ledger: Ledger,
    exchange: Callable[[http.client.HTTPConnection], Answer],
    pause_s: float,
) -> None:
    """Repeat an exchange; a new connection only where the server announced the end of the old."""
    connection = target.connection()
    try:
        for _ in limits.rounds():
            try:
                answer = exchange(connection)
            except (OSError, http.client.HTTPException) as error:
                ledger.note_error(error)
                connection.close()
                continue
            if answer.headers.get("connection", "").lower() == "close":
                ledger.note("server-closed")
                connection.close()
            limits.stop.wait(pause_s)
    finally:
        connection.close()


def slow_posts(target: Target, limits: Limits, ledger: Ledger) -> None:
    """POST a message whose body comes in five pieces over 200 ms."""
    for _ in limits.rounds():
        key, begun = uuid.uuid4().hex, time.monotonic()
        body = json.dumps({"text": f"slow {key}"}).encode()
        connection = target.connection()
        try:
            connection.putrequest("POST", target.messages)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Idempotency-Key", key)
            connection.endheaders()
            step = len(body) // 5 + 1
            for start in range(0, len(body), step):
                limits.stop.wait(0.04)
                connection.send(body[start : start + step])
            answer = read_answer(connection.getresponse())
            if ledger.note_answer(answer, begun, 202):
                ledger.acknowledged[key] = answer.json
        except (OSError, http.client.HTTPException) as error:
            ledger.note_error(error)
        finally:
            connection.close()


def silent_connections(target: Target, limits: Limits, ledger: Ledger) -> None:
    """Connect, be silent for a while, then ask; eight connections overlap."""
    waiting: list[socket.socket] = []
    try:
        for _ in limits.rounds():
            try:
                waiting.append(
                    socket.create_connection(("127.0.0.1", target.port), scaled(target.timeout_s))
                )
            except OSError as error:
                ledger.note_error(error)
            if len(waiting) >= 8:
                _ask_and_close(waiting.pop(0), ledger)
            limits.stop.wait(0.08)
        while waiting:
            _ask_and_close(waiting.pop(0), ledger)
    finally:
        for connection in waiting:
            connection.close()


def _ask_and_close(connection: socket.socket, ledger: Ledger) -> None:
    begun = time.monotonic()
    try:
        answer = ask_over(connection)
        ledger.note_answer(answer, begun, 200)
    except (OSError, http.client.HTTPException) as error:
        ledger.note_error(error)
    finally:
        connection.close()


def ask_over(connection: socket.socket, path: str = "/api/health/live") -> Answer:
    """Send one GET over a connection that was opened earlier, and read the answer."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode())
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return read_answer(response)
    finally:
        response.close()


CLIENTS: dict[str, Client] = {
    "new connections": new_connections,
    "keep-alive GET": keep_alive_gets,
    "keep-alive POST": keep_alive_posts,
    "slow POST": slow_posts,
    "silent": silent_connections,
}

#: Those that connect anew each time.
LOAD_NEW: dict[str, Client] = {"new connections": new_connections, "silent": silent_connections}


@contextmanager
def under_load(
    target: Target,
    clients: dict[str, Client] | None = None,
    *,
    at_most_s: float = 120.0,
    count: int = 1_000_000,
) -> Iterator[list[Ledger]]:
    """Run the clients, a thread each, until the body ends; the ledgers are final after it."""
    limits = Limits(threading.Event(), time.monotonic() + scaled(at_most_s), count)
    chosen = clients or CLIENTS
    ledgers = [Ledger(name) for name in chosen]
    threads = [
        threading.Thread(target=client, args=(target, limits, ledger), name=f"load {ledger.name}")
        for client, ledger in zip(chosen.values(), ledgers, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield ledgers
    finally:
        limits.stop.set()
        for thread in threads:
            thread.join()


def check_nothing_lost(ledgers: list[Ledger]) -> None:
    """Assert that every request of every client was answered."""
    details = [line for ledger in ledgers for line in ledger.details]
    counts = {ledger.name: dict(ledger.counts) for ledger in ledgers}
    assert not details, f"{details}\n{counts}"
    assert all(ledger.counts["ok"] for ledger in ledgers), f"a client did nothing: {counts}"
