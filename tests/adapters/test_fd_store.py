"""The fd store on a real notification socket, with the real systemd-python."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from netclawd.adapters import fd_store
from netclawd.adapters.fd_store import SystemdFdStore
from netclawd.errors import NetclawError
from tests.process.notify_socket import NotifySocket
from tests.waiting import wait_for


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"@netclaw-{tmp_path.name}" if request.param == "abstract" else str(tmp_path / "notify")


@pytest.fixture
def supervisor(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with NotifySocket(address, room=3) as one:
        yield one


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        yield sock


def wait_kept(supervisor: NotifySocket, *names: str) -> None:
    """The descriptor that only tried whether there is room goes a moment later."""
    wait_for(lambda: supervisor.names() == [*names], 5.0, lambda: f"{names}: {supervisor.names()}")


def test_a_listener_is_kept_once_and_outlives_ours(
    supervisor: NotifySocket, listener: socket.socket
) -> None:
    store = SystemdFdStore(supervisor.address)
    for _ in range(2):
        store.store("tcp4=127.0.0.1=5199", listener.fileno())
    assert store.takes()
    wait_kept(supervisor, "tcp4=127.0.0.1=5199")
    place = listener.getsockname()
    listener.close()
    socket.create_connection(place, timeout=5).close()


def test_a_place_in_the_file_system_is_kept(supervisor: NotifySocket, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    store = SystemdFdStore(supervisor.address)
    store.store("path=00", fd)
    os.close(fd)
    assert store.takes()
    wait_kept(supervisor, "path=00")


def test_what_is_removed_is_closed_when_it_returns(
    supervisor: NotifySocket, listener: socket.socket
) -> None:
    store = SystemdFdStore(supervisor.address)
    store.store("one", listener.fileno())
    with closing(listener.dup()) as other:
        assert store.remove(["one", "of no one"])
        assert supervisor.names() == []
        place = other.getsockname()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, timeout=5)


def test_the_barrier_is_alone_in_its_datagram_with_one_descriptor(supervisor: NotifySocket) -> None:
    SystemdFdStore(supervisor.address).remove(["one"])
    remove, barrier = supervisor.notices
    assert remove.fields == (("FDSTOREREMOVE", "1"), ("FDNAME", "one"))
    assert (barrier.fields, barrier.descriptors) == ((("BARRIER", "1"),), 1)


def test_a_full_store_is_noticed(supervisor: NotifySocket) -> None:
    store = SystemdFdStore(supervisor.address)
    pipes = [os.pipe() for _ in range(2)]
    names = iter(("a", "b", "c", "d"))
    for fd in (end for pair in pipes for end in pair[:1]):
        store.store(next(names), fd)
    assert store.takes(), "there is room for the one that tries"
    extra = os.open("/dev/null", os.O_RDONLY)
    store.store("c", extra)
    assert not store.takes(), "no room is left: nobody knows whether the last one was taken"
    for fd in (extra, *(end for pair in pipes for end in pair)):
        os.close(fd)


def test_a_supervisor_that_does_not_act_is_not_waited_for(
    supervisor: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fd_store, "PATIENCE_S", 0.1)
    store = SystemdFdStore(supervisor.address)
    supervisor.slow.set()
    begun = time.monotonic()
    assert not store.remove(["one"])
    with pytest.raises(TimeoutError):
        store.takes()
    assert time.monotonic() - begun < 5.0


def fill(address: str) -> list[socket.socket]:
    """Send until nobody finds room; one socket alone may have less room than the queue."""
    fillers: list[socket.socket] = []
    sent = 1
    while sent:
        fillers.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        sent = 0
        with suppress(BlockingIOError):
            while True:
                fillers[-1].sendto(b"X=1", address)
                sent += 1
    return fillers


def test_a_supervisor_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(fd_store, "PATIENCE_S", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(address)
        fillers = fill(address)
        with pytest.raises(TimeoutError):
            SystemdFdStore(address).remove(["one"])
        for filler in fillers:
            filler.close()


def test_a_supervisor_that_has_gone_is_an_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with pytest.raises(FileNotFoundError):
        SystemdFdStore(address).remove(["one"])


def test_without_systemd_python_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "systemd", None)
    monkeypatch.setitem(sys.modules, "systemd.daemon", None)
    with pytest.raises(NetclawError) as caught:
        SystemdFdStore("/run/systemd/notify")
    assert "Install python3-systemd" in caught.value.remedy
