"""Every kind of bad HTTP at a real daemon while it is reloaded: it answers each, and loses nobody else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.http.bad_requests import BAD, INCOMPLETE
from tests.http.fuzzing import check_heard, talk
from tests.http.wire import Answer, Wire, request
from tests.process.harness import Daemon, full_or
from tests.process.load import CLIENTS, Target, check_nothing_lost, under_load
from tests.process.process_facts import children, descriptors, wait_steady, without_pool
from tests.process.talk import check_history, events, new_session, of_type, wait_all_ended
from tests.waiting import wait_for

Make = Callable[..., Daemon]

RELOADS = full_or(3, 25)
PIPELINED = full_or(120, 600)
LINGER_ZERO = b"\x01\x00\x00\x00\x00\x00\x00\x00"


class Reloading:
    """Reloads the daemon one time after the other."""

    def __init__(self, daemon: Daemon) -> None:
        self.done = 0
        self.failed: list[object] = []
        self._daemon = daemon
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reloads")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                entry = self._daemon.reload(force=True)
            except (AssertionError, OSError) as error:
                self.failed.append(error)
                return
            if entry["outcome"] != "applied":
                self.failed.append(entry)
            self.done += 1

    def start(self) -> None:
        self._thread.start()

    def wait_one(self) -> None:
        """Wait for the next one."""
        seen = self.done
        wait_for(lambda: self.done > seen or self.failed, 30.0, "one more reload")

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def reloading(daemon: Daemon) -> Iterator[Reloading]:
    """Reload it all the time, until the body ends."""
    found = Reloading(daemon)
    found.start()
    try:
        yield found
    finally:
        found.end()
    assert found.failed == []


def fill(raw: bytes, session: str) -> bytes:
    return raw.replace(b"{}", session.encode(), 1)


def reset_in_the_middle(address: tuple[str, int], raw: bytes) -> None:
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(raw)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)


def test_bad_requests_during_reloads_are_answered_and_harm_nobody(make_daemon: Make) -> None:
    daemon = make_daemon(tables={"drain": {"request_timeout_s": 0.5}}).start()
    assert daemon.reload(force=True)["outcome"] == "applied"
    pid, session, other = daemon.pid, new_session(daemon), new_session(daemon)
    address = ("127.0.0.1", daemon.port)
    state = daemon.home / "state"
    before = without_pool(wait_steady(pid), state)
    others = {name: CLIENTS[name] for name in ("new connections", "keep-alive GET")}
    with under_load(Target(daemon.port, other), others) as ledgers, reloading(daemon) as reloads:
        while reloads.done < RELOADS and not reloads.failed:
            for name, bad in BAD.items():
                statuses = check_heard(talk(address, fill(bad.sent, session)))
                assert statuses, name
                assert statuses[0] in (bad.status, 503), (name, statuses)
            for name, sent in INCOMPLETE.items():
                statuses = check_heard(talk(address, fill(sent, session)))
                assert statuses in ([400], [503]), (name, statuses)
                reset_in_the_middle(address, fill(sent, session))
    check_nothing_lost(ledgers)
    assert (daemon.pid, daemon.status()["degraded"]) == (pid, [])
    assert events(daemon, session) == []
    assert not list((daemon.home / "state" / "logs").glob("crash-*"))
    for word in ("Traceback", "uncaptured", "ERROR"):
        assert word not in daemon.errors(1_000_000)
    wait_for(
        lambda: (without_pool(descriptors(pid), state), children(pid)) == (before, set()),
        10.0,
        lambda: f"its descriptors to be {before}, they are {descriptors(pid)}",
    )


class Pipeline:
    """Sends messages without waiting for answers, and those again that were not acknowledged."""

    def __init__(self, daemon: Daemon, session: str) -> None:
        self.address = ("127.0.0.1", daemon.port)
        self.path = f"/api/sessions/{session}/messages"
        #: Answers in the order of their messages.
        self.acknowledged: list[Answer] = []
        self.connections = 0

    def send(self, count: int) -> None:
        while (done := len(self.acknowledged)) < count:
            self.connections += 1
            with Wire(self.address) as wire:
                batch = range(done, min(done + 20, count))
                wire.send(b"".join(self.message(number) for number in batch))
                for number in batch:
                    answer = wire.answer()
                    if answer.status == 503:
                        # What is behind it on this connection was not read.
                        assert answer.headers["connection"] == "close"
                        assert int(answer.headers["retry-after"]) >= 1
                        break
                    assert answer.status in (200, 202), answer
                    self.acknowledged.append(answer)
                    assert number == len(self.acknowledged) - 1

    def message(self, number: int) -> bytes:
        body = {"text": f"message {number}"}
        return request("POST", self.path, body, Idempotency_Key=f"key-{number}")


def test_pipelined_messages_are_each_stored_once_and_in_order_over_reloads(daemon: Daemon) -> None:
    session = new_session(daemon)
    pipeline = Pipeline(daemon, session)
    with reloading(daemon) as reloads:
        while reloads.done < RELOADS and not reloads.failed:
            # Each is a turn, and they run one by one: no more than some can end in time.
            if len(pipeline.acknowledged) < PIPELINED:
                pipeline.send(len(pipeline.acknowledged) + 20)
            else:
                reloads.wait_one()
        pipeline.send(max(PIPELINED, len(pipeline.acknowledged)))
    rows = wait_all_ended(daemon, [session], timeout_s=120.0)[session]
    check_history(rows)
    admitted = of_type(rows, "input.admitted")
    count = len(pipeline.acknowledged)
    assert [row["text"] for row in admitted] == [f"message {number}" for number in range(count)]
    ids = [json.loads(answer.body)["input_id"] for answer in pipeline.acknowledged]
    assert [row["input_id"] for row in admitted] == ids


def test_requests_that_wait_on_a_kept_connection_are_answered_by_the_next_image(
    daemon: Daemon,
) -> None:
    """What was pipelined while the old image ended is the new one's."""
    session = new_session(daemon)
    with Wire(("127.0.0.1", daemon.port)) as wire:
        assert wire.ask("GET", "/api/health/live").status == 200
        with reloading(daemon) as reloads:
            sent = 0
            while reloads.done < RELOADS and not reloads.failed:
                wire.send(request("GET", f"/api/sessions/{session}") * 5)
                answers = [wire.answer() for _ in range(5)]
                assert [answer.status for answer in answers] == [200] * 5
                sent += 5
        generations = {int(wire.ask("GET", "/api/health/live").headers["x-netclaw-generation"])}
    assert generations == {daemon.generation()}
    assert sent
