"""An address that overlaps one of ours is bound beside it; one that overlaps another's is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from netclawd.core.listeners import Address, Family, parse_address, plan_listeners
from netclawd.core.settings import UnixAccess
from netclawd.daemon.descriptors import Inheritance, Named
from netclawd.daemon.listeners import ListenerSet
from netclawd.errors import AddressError
from tests.process.harness import free_port

NOBODY = Inheritance([])
ACCESS = UnixAccess(0o660, "", "")

#: From, to, and a host by which both are reached.
CHANGES = [
    ("127.0.0.1:{}", "0.0.0.0:{}", "127.0.0.1"),
    ("0.0.0.0:{}", "127.0.0.1:{}", "127.0.0.1"),
    ("0.0.0.0:{}", "*:{}", "127.0.0.1"),
    ("*:{}", "0.0.0.0:{}", "127.0.0.1"),
    ("*:{}", "127.0.0.1:{}", "127.0.0.1"),
    ("127.0.0.1:{}", "*:{}", "127.0.0.1"),
    ("[::1]:{}", "[::]:{}", "::1"),
    ("[::]:{}", "[::1]:{}", "::1"),
    ("[::]:{}", "*:{}", "::1"),
    ("*:{}", "[::]:{}", "::1"),
    ("[::1]:{}", "*:{}", "::1"),
    ("*:{}", "[::1]:{}", "::1"),
]
changes = pytest.mark.parametrize(("old", "new", "host"), CHANGES)


@pytest.fixture
def held() -> Iterator[ListenerSet]:
    with closing(ListenerSet()) as found:
        yield found


@pytest.fixture
def port() -> int:
    return free_port()


def bind_new(held: ListenerSet, *wanted: Address) -> None:
    held.bind(plan_listeners(held.held, wanted), ACCESS)


def inheritance_of(old: ListenerSet) -> Inheritance:
    """Do what execve does: the descriptors live on under their names, all else is forgotten."""
    named = [Named(item.name, os.dup(item.fd)) for item in old.to_hand_over()]
    assert len(named) == 2
    for sock in (*old._held.values(), *old._new.values()):
        sock.close()
    old._held, old._new = {}, {}
    return Inheritance(named)


def another(address: Address, *, reuse_port: bool) -> socket.socket:
    """Bind as a program that knows nothing of us; OSError."""
    six = address.family is not Family.TCP4
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        if six:
            only = address.family is Family.TCP6
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(("::" if address.host == "*" else address.host, address.port))
        sock.listen(16)
    except OSError:
        sock.close()
        raise
    return sock


def takes(address: Address, *, reuse_port: bool) -> bool:
    try:
        another(address, reuse_port=reuse_port).close()
    except OSError:
        return False
    return True


def reuses_port(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


@changes
def test_a_new_address_is_bound_beside_an_old_one_of_ours(
    held: ListenerSet, port: int, old: str, new: str, host: str
) -> None:
    before, after = parse_address(old.format(port)), parse_address(new.format(port))
    held.claim(NOBODY, [before], 16, ACCESS)
    with pytest.raises(OSError, match="in use"):
        another(after, reuse_port=False)
    bind_new(held, after)
    held.listen_new(16)
    for item in held.to_hand_over():
        with socket.socket(fileno=os.dup(item.fd)) as sock:
            assert not reuses_port(sock), "for the bind and the listen only"
    waiting = [socket.create_connection((host, port), timeout=5) for _ in range(5)]

    # The next image adopts both, retires the old one and loses none that waits.
    with closing(ListenerSet()) as image:
        assert image.claim(inheritance_of(held), [after], 16, ACCESS) == (before,)
        image.withdraw([before])
        late = [socket.create_connection((host, port), timeout=5) for _ in range(5)]
        accepted = _accept_all(image.sockets()[before.name])
        image.forget([before])
        accepted += _accept_all(image.sockets()[after.name])
        ports = {sock.getpeername()[1] for sock in accepted}
        mine = {sock.getsockname()[1] for sock in (*waiting, *late)}
        for sock in (*accepted, *waiting, *late):
            sock.close()
        assert ports == mine
        assert image.held == (after,)


def _accept_all(listening: socket.socket) -> list[socket.socket]:
    found = []
    while True:
        try:
            found.append(listening.accept()[0])
        except BlockingIOError:
            return found


@changes
def test_the_kernel_forgets_that_the_port_was_shared(
    held: ListenerSet, port: int, old: str, new: str, host: str
) -> None:
    """Else any program of our user that sets SO_REUSEPORT could have the address as well."""
    before, after = parse_address(old.format(port)), parse_address(new.format(port))
    held.claim(NOBODY, [before], 16, ACCESS)
    bind_new(held, after)
    held.listen_new(16)
    # Where one of them takes in every address there is, it can't be made to forget.
    everywhere = Family.TCP in (before.family, after.family)
    assert everywhere or not takes(after, reuse_port=True)
    with closing(ListenerSet()) as image:
        image.claim(inheritance_of(held), [after], 16, ACCESS)
        image.forget([before])
        assert not takes(after, reuse_port=False)
        assert takes(after, reuse_port=True) is (after.family is Family.TCP)


@changes
def test_an_address_that_another_program_holds_is_in_use(
    held: ListenerSet, port: int, old: str, new: str, host: str
) -> None:
    taken, wanted = parse_address(old.format(port)), parse_address(new.format(port))
    for reuse_port in (False, True):
        with (
            another(taken, reuse_port=reuse_port),
            pytest.raises(AddressError, match="can't be bound: it is in use"),
        ):
            bind_new(held, wanted)


@contextmanager
def foreign_process(host: str, port: int) -> Iterator[None]:
    """Listen in a process of our user with SO_REUSEPORT, which doesn't conflict with us by itself."""
    script = f"""
        import socket, sys
        sock = socket.socket(socket.AF_INET6 if ":" in {host!r} else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if ":" in {host!r}:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "." not in {host!r})
        sock.bind(({host!r}, {port}))
        sock.listen()
        print("listens", flush=True)
        sys.stdin.read()
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n"
        yield


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ("127.0.0.1:{}", "127.0.0.2", "0.0.0.0:{}"),
        ("127.0.0.1:{}", "127.0.0.2", "*:{}"),
        ("127.0.0.1:{}", "::1", "*:{}"),
        ("[::1]:{}", "127.0.0.1", "*:{}"),
        ("127.0.0.1:{}", "::ffff:127.0.0.2", "0.0.0.0:{}"),
    ],
)
def test_one_that_another_process_of_our_user_shares_is_in_use_too(
    held: ListenerSet, port: int, ours: str, theirs: str, wanted: str
) -> None:
    """The kernel would allow it: it only asks for the same user and SO_REUSEPORT on all."""
    mine, wide = parse_address(ours.format(port)), parse_address(wanted.format(port))
    held.claim(NOBODY, [mine], 16, ACCESS)
    with foreign_process(theirs, port):
        with pytest.raises(AddressError, match="can't be bound: it is in use"):
            bind_new(held, wide)
        assert held.held == (mine,)
        assert [item.name for item in held.to_hand_over()] == [mine.name]
        assert not reuses_port(held.sockets()[mine.name])
    bind_new(held, wide)


def test_ipv6_of_another_process_is_no_obstacle_for_ipv4(held: ListenerSet, port: int) -> None:
    held.claim(NOBODY, [parse_address(f"127.0.0.1:{port}")], 16, ACCESS)
    with foreign_process("::", port):
        bind_new(held, parse_address(f"0.0.0.0:{port}"))


def test_a_socket_of_the_supervisor_is_never_shared(held: ListenerSet, port: int) -> None:
    web = parse_address("fd:web")
    listening = another(parse_address(f"0.0.0.0:{port}"), reuse_port=False)
    held.claim(Inheritance([Named("web", listening.detach())]), [web], 16, ACCESS)
    with pytest.raises(AddressError, match="it is in use"):
        bind_new(held, web, parse_address(f"127.0.0.1:{port}"))
    held.withdraw([web])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert held.held == (web,), "it is left alone: the supervisor goes on with it"


def test_what_is_withdrawn_is_not_handed_over(held: ListenerSet, port: int) -> None:
    address = parse_address(f"127.0.0.1:{port}")
    held.claim(NOBODY, [address], 16, ACCESS)
    held.withdraw([address])
    held.withdraw([address])
    assert held.held == ()
    assert held.to_hand_over() == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    # It may be wanted again before it is closed.
    bind_new(held, address)
    held.listen_new(16)
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
