"""Notices to the supervisor, received on real sockets and pipes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from netclawd.adapters.notify import SupervisorNotifier
from tests.waiting import scaled

Connect = Callable[[], SupervisorNotifier]


@contextmanager
def notifier(s6_descriptor: int | None = None) -> Iterator[SupervisorNotifier]:
    made = SupervisorNotifier(s6_descriptor)
    try:
        yield made
    finally:
        if made._systemd is not None and made._systemd.socket is not None:
            made._systemd.socket.close()


@pytest.fixture(params=["path", "abstract"])
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The supervisor's end, at a path or (in a container of its own) at an abstract name."""
    abstract = f"@netclawd-test-{os.getpid()}"
    name = abstract if request.param == "abstract" else str(tmp_path / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        sock.settimeout(scaled(5))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def received(supervisor: socket.socket) -> list[str]:
    """Return every datagram that has come."""
    found = []
    supervisor.setblocking(False)
    while True:
        try:
            found.append(supervisor.recv(65536).decode())
        except BlockingIOError:
            return found


def test_each_notice_is_one_datagram(supervisor: socket.socket) -> None:
    with notifier() as told:
        told.status("starting")
        told.reloading(123456789, "draining: 2 turns")
        told.ready("generation 7 ready")
        told.stopping("stopping")
        told.watchdog()
        told.extend_timeout(5_000_000)
    assert received(supervisor) == [
        "STATUS=starting",
        "RELOADING=1\nMONOTONIC_USEC=123456789\nSTATUS=draining: 2 turns",
        "READY=1\nSTATUS=generation 7 ready",
        "STOPPING=1\nSTATUS=stopping",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=5000000",
    ]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r", "\0", "\v", "\x85", "\u2028"])
def test_a_text_cannot_add_a_field(supervisor: socket.socket, separator: str) -> None:
    text = f"refused{separator}STOPPING=1"
    with notifier() as told:
        told.status(text)
        told.reloading(1, text)
        told.ready(text)
        told.stopping(text)
    fields = [datagram.split("\n") for datagram in received(supervisor)]
    assert [len(rows) for rows in fields] == [1, 3, 2, 2]
    for rows in fields:
        assert rows[-1].startswith("STATUS=refused\\")
        assert rows[-1].endswith("STOPPING=1")


@pytest.mark.parametrize("text", ["Größe, 大きさ", "a" * 199 + "é" * 20, "\udcff", "…"])
def test_no_text_costs_the_notice(supervisor: socket.socket, text: str) -> None:
    """It is UTF-8 of at most 200 bytes, whatever it holds: READY=1 must come through."""
    with notifier() as told:
        told.ready(text)
    (datagram,) = received(supervisor)
    ready, _, status = datagram.partition("\n")
    assert ready == "READY=1"
    shown = status.removeprefix("STATUS=")
    assert shown == text or shown.endswith(("…", "\\udcff"))
    assert 0 < len(shown.encode()) <= 200


def test_without_a_supervisor_every_notice_is_harmless() -> None:
    with notifier() as told:
        told.status("a")
        told.reloading(1, "a")
        told.ready("a")
        told.stopping("a")
        told.watchdog()
        told.extend_timeout(1)


# sdnotify leaves it to the collector to close the socket that it could not connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["", "/nowhere/notify", "@nobody-listens", "vsock:2:1"])
def test_a_supervisor_that_is_not_there_is_harmless(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with notifier() as told:
        told.ready("a")


def test_a_supervisor_that_goes_away_is_harmless(supervisor: socket.socket) -> None:
    with notifier() as told:
        supervisor.close()
        told.ready("a")


# -- s6 ------------------------------------------------------------------------------------------


def test_s6_gets_one_newline_and_the_end_at_the_first_readiness() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with open(reader, "rb", buffering=0) as pipe, notifier(writer) as told:
        told.status("warming")
        told.reloading(1, "never before READY")
        assert pipe.read() is None, "nothing yet, and open"
        told.ready("ready")
        assert pipe.read(100) == b"\n"
        assert pipe.read(100) == b"", "closed"


def test_s6_is_told_once_and_the_number_is_never_used_again() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as pipe, notifier(writer) as told:
        other, answer = os.pipe()
        told.ready("ready")
        os.dup2(answer, writer)  # Somebody else gets the number.
        told.ready("ready again")
        os.close(answer)
        os.close(writer)
        with open(other, "rb") as theirs:
            assert theirs.read() == b""
        assert pipe.read() == b"\n"


def test_s6_gone_away_is_harmless_and_its_descriptor_is_closed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with notifier(writer) as told:
        told.ready("ready")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(writer)


def test_both_are_told_where_both_ask(supervisor: socket.socket) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as pipe, notifier(writer) as told:
        told.ready("ready")
        assert pipe.read() == b"\n"
    assert received(supervisor) == ["READY=1\nSTATUS=ready"]
