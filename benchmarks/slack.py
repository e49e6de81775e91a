"""Slack events admitted durably and acknowledged, against messages over HTTP to the same daemon.

A workspace of ours sends them over a real WebSocket, 32 unacknowledged at a time, as 32 clients post over
HTTP with one message each on its way. The turns wait behind one that asks a person, so that admission alone
is measured. At the end the store must hold every event, once.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from benchmarks.figures import Figure, median
from benchmarks.processes import run_generator
from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Message
from tests.counterparts.slack_wire import Socket
from tests.process.harness import Daemon
from tests.process.talk import accepted, new_session, wait_event
from tests.waiting import wait_for

#: Conversations, and events or messages that are on their way.
AT_ONCE = 32


class Sender(Workspace):
    """Sends envelopes of its own accord, and counts what is acknowledged."""

    def __init__(self) -> None:
        self._room = threading.Semaphore(AT_ONCE)
        self._left = 0
        self._all = threading.Event()
        super().__init__()

    def take(self, one: Socket, message: Any) -> None:
        super().take(one, message)
        self._left -= 1
        self._room.release()
        if not self._left:
            self._all.set()

    def rate(self, payloads: list[Mapping[str, Any]]) -> float:
        """Send them all; return how many were acknowledged per second."""
        self._room = threading.Semaphore(AT_ONCE)
        self._left = len(payloads)
        self._all.clear()
        begun = time.monotonic()
        for payload in payloads:
            assert self._room.acquire(timeout=30.0), "nothing is acknowledged any more"
            envelope = {"type": "events_api", "payload": payload, "retry_attempt": 0}
            assert self.send(envelope) is not None
        assert self._all.wait(30.0), f"{self._left} events are not acknowledged"
        return len(payloads) / (time.monotonic() - begun)


def payloads_of(slack: Workspace, threads: list[Message], count: int) -> list[Mapping[str, Any]]:
    """Have people say something in each thread in turn; return what tells of it, delivered to nobody."""
    slack.hold()
    first = len(slack.events)
    for number in range(count):
        slack.say("ada", DIRECT, f"hello {number}", threads[number % len(threads)])
    slack.release(lambda _: [])
    return [event.payload for event in slack.events[first:]]


def posted(daemon: Daemon, sessions: list[str], seconds: float) -> float:
    """Post over HTTP for a while; return answers per second."""
    report = run_generator(
        mode="closed",
        port=daemon.port,
        method="POST",
        path="/api/sessions/{}/messages",
        sessions=",".join(sessions),
        body='{"text": "hello"}',
        connections=AT_ONCE,
        seconds=seconds,
    )
    assert set(report["counts"]) == {"ok"}, report["counts"]
    return float(report["counts"]["ok"] / report["seconds"])


def admitted(daemon: Daemon) -> int:
    """Count the inputs that the store has of Slack."""
    path = f"file:{daemon.home}/state/netclawd.db?mode=ro"
    with closing(sqlite3.connect(path, uri=True)) as db:
        found = db.execute(
            """SELECT count(*) FROM inputs i JOIN sessions s ON s.n = i.session
                WHERE s.channel = 'slack'"""
        )
        return int(found.fetchone()[0])


def measure(quick: bool) -> list[Figure]:
    rounds, count, seconds = (2, 500, 1.0) if quick else (6, 1_500, 3.0)
    slack_rates, http_rates = [], []
    with Sender() as slack:
        secrets = {"APP": slack.app_token, "BOT": slack.bot_token}
        table = slack.settings(app_token="env:APP", bot_token="env:BOT")
        with Daemon(environment=secrets, tables={"slack": table}) as daemon:
            daemon.start()
            sessions = [new_session(daemon) for _ in range(AT_ONCE)]
            for session in sessions:
                accepted(daemon, session, "/ask")
                wait_event(daemon, session, "approval.requested")
            threads = [slack.say("ada", DIRECT, "/ask") for _ in range(AT_ONCE)]
            for thread in threads:
                wait_for(lambda thread=thread: slack.answers(thread), 60.0, "the question")  # type: ignore[misc]
            for _ in range(rounds):
                slack_rates.append(slack.rate(payloads_of(slack, threads, count)))
                http_rates.append(posted(daemon, sessions, seconds))
            assert admitted(daemon) == AT_ONCE + rounds * count
    return [
        Figure(
            f"Slack events, {AT_ONCE} at once",
            median(slack_rates),
            "/s",
            median(http_rates),
            "/s over HTTP",
        )
    ]
