"""What the kernel tells about a listening socket, of real ones on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netclawd.core.reading import ListenQueue, ListenTrouble
from netclawd.daemon.listen_queues import namespace_trouble, parse_netstat, queue_of
from tests.waiting import wait_for


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def listening(stack: ExitStack, host: str, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = stack.enter_context(socket.socket(family))
    sock.bind((host, 0))
    sock.listen(backlog)
    return sock


def connect(stack: ExitStack, to: socket.socket) -> None:
    client = stack.enter_context(socket.socket(to.family))
    client.setblocking(False)
    client.connect_ex(to.getsockname())


def look(sock: socket.socket) -> ListenQueue:
    found = queue_of(sock)
    assert found is not None
    return found


def test_the_queue_tells_who_waits_and_how_many_may(stack: ExitStack) -> None:
    sock = listening(stack, "127.0.0.1", 5)
    assert look(sock) == ListenQueue(waiting=0, limit=5, drops=0)
    for _ in range(2):
        connect(stack, sock)
    wait_for(lambda: look(sock).waiting == 2, 5.0, "two connections to wait")
    stack.enter_context(sock.accept()[0])
    assert look(sock) == ListenQueue(waiting=1, limit=5, drops=0)


def test_a_full_queue_drops_and_the_socket_counts_it_alone(stack: ExitStack) -> None:
    full, other = (listening(stack, "127.0.0.1", 1) for _ in range(2))
    before = namespace_trouble()
    for _ in range(4):
        connect(stack, full)
    wait_for(lambda: look(full).drops > 0, 5.0, "the kernel to drop an attempt")
    assert look(full).waiting == 2, "the kernel lets one more wait than it was told"
    assert look(other).drops == 0
    after = namespace_trouble()
    assert before is not None
    assert after is not None
    assert after.overflows > before.overflows
    assert after.drops > before.drops


def test_a_socket_that_is_not_tcp_or_closed_tells_nothing(stack: ExitStack, tmp_path: Path) -> None:
    local = stack.enter_context(socket.socket(socket.AF_UNIX))
    local.bind(str(tmp_path / "s"))
    local.listen(3)
    assert queue_of(local) is None
    closed = listening(stack, "127.0.0.1", 5)
    closed.close()
    assert queue_of(closed) is None


def test_the_counts_are_found_by_name_wherever_they_stand() -> None:
    text = "IpExt: A B\nIpExt: 1 2\nTcpExt: X ListenOverflows Y ListenDrops\nTcpExt: 9 3 8 4\n"
    assert parse_netstat(text) == ListenTrouble(overflows=3, drops=4)


@pytest.mark.parametrize(
    "text", ["", "TcpExt: ListenDrops\nTcpExt: 1\n", "TcpExt: ListenOverflows"]
)
def test_a_kernel_that_does_not_tell_is_no_error(text: str) -> None:
    assert parse_netstat(text) is None
