"""The listening sockets: bound, claimed, handed over, retired. Real sockets on loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from netclawd.core.listeners import Address, Family, ListenerPlan, parse_address, plan_listeners
from netclawd.core.settings import UnixAccess
from netclawd.daemon import listeners
from netclawd.daemon.descriptors import Inheritance, Named
from netclawd.daemon.listeners import ListenerSet, bounded_backlog, inherited_hosts
from netclawd.errors import EXIT_TEMPORARY, AddressError

NOBODY = Inheritance([])
ACCESS = UnixAccess(0o660, "", "")


@pytest.fixture
def held() -> Iterator[ListenerSet]:
    with closing(ListenerSet()) as found:
        yield found


def has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6_loopback(), reason="there is no IPv6 loopback here")


def free_address(host: str = "127.0.0.1") -> Address:
    """Return an address that nobody holds at the moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
    return parse_address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def listening(address: Address, backlog: int = 8) -> socket.socket:
    """Return a listening socket, as a supervisor or an old image leaves it."""
    family = socket.AF_INET6 if address.family is Family.TCP6 else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address.host, address.port))
    sock.listen(backlog)
    return sock


def inherit(*sockets: tuple[str, socket.socket]) -> Inheritance:
    """Hand these over under their names; they are the claimer's from here on."""
    return Inheritance([Named(name, sock.detach()) for name, sock in sockets])


def inode(sock: socket.socket | int) -> int:
    """Return what tells one kernel socket from another."""
    return os.fstat(sock if isinstance(sock, int) else sock.fileno()).st_ino


def bind_only(*addresses: Address) -> ListenerPlan:
    return plan_listeners((), addresses)


def connects(address: Address) -> bool:
    try:
        socket.create_connection((address.host, address.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


# -- a cold start --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_a_cold_start_listens(held: ListenerSet, host: str) -> None:
    address = free_address(host)
    assert held.claim(NOBODY, [address], backlog=16, access=ACCESS) == ()
    assert held.held == (address,)
    assert connects(address)
    assert not os.get_inheritable(held.sockets()[address.name].fileno())


@needs_ipv6
def test_ipv6_leaves_ipv4_alone(held: ListenerSet) -> None:
    """``[::]:P`` and ``0.0.0.0:P`` are two addresses, which two configurations may name."""
    port = free_address().port
    both = [parse_address(f"[::]:{port}"), parse_address(f"0.0.0.0:{port}")]
    held.claim(NOBODY, both, backlog=16, access=ACCESS)
    assert held.held == tuple(both)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (parse_address("192.0.2.1:5199"), "is not an address of this host"),
        (parse_address("[2001:db8::1]:5199"), "can't be bound"),
        (parse_address("fd:web"), "handed over no socket named 'web'"),
    ],
    ids=str,
)
def test_an_address_that_cannot_be_had_is_named(
    held: ListenerSet, address: Address, why: str
) -> None:
    with pytest.raises(AddressError, match=why) as caught:
        held.claim(NOBODY, [address], backlog=16, access=ACCESS)
    assert caught.value.remedy
    assert caught.value.exit_code == EXIT_TEMPORARY


def test_a_protocol_that_this_host_lacks_is_a_refusal(
    held: ListenerSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a kernel without IPv6: socket(2) itself fails. An unknown family stands for it."""
    monkeypatch.setitem(listeners._FAMILIES, Family.TCP6, socket.AddressFamily.AF_APPLETALK)
    unavailable = socket.AddressFamily.AF_APPLETALK
    with pytest.raises(OSError, match="not supported"):
        socket.socket(unavailable, socket.SOCK_STREAM)
    with pytest.raises(AddressError, match="can't be bound"):
        held.bind(bind_only(parse_address("[::1]:5199")), ACCESS)


# -- new addresses for the next generation -------------------------------------------------------


def test_what_is_bound_is_not_served_before_it_listens(held: ListenerSet) -> None:
    address = free_address()
    held.bind(bind_only(address), ACCESS)
    assert held.held == ()
    assert not connects(address)
    held.listen_new(backlog=16)
    assert connects(address)


def test_a_failed_bind_closes_the_new_ones_and_changes_nothing(held: ListenerSet) -> None:
    first, free, taken = free_address(), free_address(), free_address()
    held.claim(NOBODY, [first], backlog=16, access=ACCESS)
    before = inode(held.sockets()[first.name])
    with listening(taken), pytest.raises(AddressError, match=f"{taken} can't be bound: it is in"):
        held.bind(bind_only(free, taken), ACCESS)
    listening(free).close()  # Free again.
    assert held.held == (first,)
    assert inode(held.sockets()[first.name]) == before
    assert [item.name for item in held.to_hand_over()] == [first.name]
    assert connects(first)


def test_new_addresses_are_closed_again_when_the_restart_does_not_take_place(
    held: ListenerSet,
) -> None:
    address = free_address()
    held.bind(bind_only(address), ACCESS)
    held.close_new()
    held.close_new()
    assert held.to_hand_over() == []
    listening(address).close()


def test_an_address_that_was_taken_before_it_listened_is_a_refusal(held: ListenerSet) -> None:
    """Until it listens Linux lets another program with SO_REUSEADDR have the port."""
    address = free_address()
    held.bind(bind_only(address), ACCESS)
    with listening(address), pytest.raises(AddressError, match="it is in use"):
        held.listen_new(backlog=16)


# -- from image to image -------------------------------------------------------------------------


def test_held_and_new_are_handed_over_by_name(held: ListenerSet) -> None:
    old, new = free_address(), free_address()
    held.claim(NOBODY, [old], backlog=16, access=ACCESS)
    held.bind(bind_only(new), ACCESS)
    named = held.to_hand_over()
    assert [item.name for item in named] == [old.name, new.name]
    assert inode(named[0].fd) == inode(held.sockets()[old.name])


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_an_inherited_socket_is_adopted_and_never_bound_again(held: ListenerSet, host: str) -> None:
    """Its accept queue comes with it: a connection that waited is there for the next image."""
    address = free_address(host)
    sock = listening(address)
    before = inode(sock)
    with socket.create_connection((address.host, address.port), timeout=5) as waiting:
        assert held.claim(inherit((address.name, sock)), [address], backlog=16, access=ACCESS) == ()
        adopted = held.sockets()[address.name]
        assert inode(adopted) == before
        accepted, peer = adopted.accept()
        with accepted:
            assert peer == waiting.getsockname()


def test_what_is_no_longer_wanted_is_held_until_it_is_forgotten(held: ListenerSet) -> None:
    old, kept = free_address(), free_address()
    sockets = (old.name, listening(old)), (kept.name, listening(kept))
    assert held.claim(inherit(*sockets), [kept], backlog=16, access=ACCESS) == (old,)
    assert connects(old), "served a moment longer"
    held.forget([old])
    assert held.held == (kept,)
    assert not connects(old)
    held.forget([old])


@pytest.mark.parametrize(
    "name", ["conn=0", "web", "tcp4=localhost=80", "tcp6=00=1", "tcp4=1.2.3.4"]
)
def test_a_name_that_is_no_listeners_is_left_for_others(held: ListenerSet, name: str) -> None:
    address, other = free_address(), free_address()
    inherited = inherit((address.name, listening(address)), (name, listening(other)))
    assert held.claim(inherited, [address], backlog=16, access=ACCESS) == ()
    assert inherited.names() == (name,)
    assert inherited.close_rest() == (name,)
    assert not connects(other)


def test_a_bound_socket_that_does_not_listen_yet_listens_after_the_claim(
    held: ListenerSet,
) -> None:
    address = free_address()
    sock = socket.socket()
    sock.bind((address.host, address.port))
    held.claim(inherit((address.name, sock)), [address], backlog=16, access=ACCESS)
    assert connects(address)


@needs_ipv6
def test_an_ipv6_address_is_compared_as_a_number(held: ListenerSet) -> None:
    """The kernel's library writes ``::0.1.0.2`` where we write ``::1:2``."""
    address = parse_address("[::1:2]:5199")
    with socket.socket(socket.AF_INET6) as sock:
        # Not local: bound all the same, as a floating address is.
        sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        sock.bind((address.host, 0))
        port = sock.getsockname()[1]
        assert sock.getsockname()[0] != address.host
        address = parse_address(f"[::1:2]:{port}")
        held.claim(inherit((address.name, sock)), [address], backlog=16, access=ACCESS)
    assert held.held == (address,)


# -- what isn't what its name says ---------------------------------------------------------------


def another_port(_address: Address) -> socket.socket:
    return listening(free_address())


def unix(_address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("")  # Autobind: an abstract name that the kernel chooses.
    sock.listen()
    return sock


def datagram(address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address.host, address.port))
    return sock


@pytest.mark.parametrize("wrong", [another_port, unix, datagram])
def test_a_wrong_inherited_socket_is_refused_and_closed(
    held: ListenerSet, wrong: Callable[[Address], socket.socket]
) -> None:
    address = free_address()
    with pytest.raises(AddressError, match="is not the socket that its name says"):
        held.claim(inherit((address.name, wrong(address))), [address], backlog=16, access=ACCESS)
    assert held.held == ()


@pytest.mark.parametrize("text", ["127.0.0.1:5199", "fd:web"])
def test_a_file_under_a_listeners_name_is_refused_and_closed(
    held: ListenerSet, tmp_path: Path, text: str
) -> None:
    address = parse_address(text)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(AddressError, match="is not the socket that its name says"):
        held.claim(Inheritance([Named(address.name, fd)]), [address], backlog=16, access=ACCESS)


# -- sockets of the supervisor -------------------------------------------------------------------


def test_a_socket_of_the_supervisor_is_claimed_by_its_name(held: ListenerSet) -> None:
    where = free_address()
    sock = listening(where)
    before = inode(sock)
    address = parse_address("fd:web")
    held.claim(inherit(("web", sock)), [address], backlog=16, access=ACCESS)
    assert inode(held.sockets()["web"]) == before
    assert connects(where)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_of_the_supervisor_must_listen(held: ListenerSet, kind: socket.SocketKind) -> None:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    with pytest.raises(AddressError, match="'web' is not the socket that its name says"):
        held.claim(inherit(("web", sock)), [parse_address("fd:web")], backlog=16, access=ACCESS)


def test_a_socket_of_the_supervisor_that_is_no_longer_wanted_is_retired_like_any(
    held: ListenerSet,
) -> None:
    """Who connected to it in the gap is served; nothing else that an old image hands over is one."""
    where, kept = free_address(), free_address()
    control = socket.socketpair()
    handed_over = [("control", control[0]), ("web", listening(where)), (kept.name, listening(kept))]
    inherited = inherit(*handed_over)
    web = parse_address("fd:web")
    assert held.claim(inherited, [kept], backlog=16, access=ACCESS, handed_over=True) == (web,)
    assert connects(where), "served a moment longer"
    held.forget([web])
    assert not connects(where)
    assert inherited.close_rest() == ("control",)
    control[1].close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_the_host_of_a_socket_of_the_supervisor_is_known(held: ListenerSet, host: str) -> None:
    web = parse_address("fd:web")
    inherited = inherit(("web", listening(free_address(host))))
    assert inherited_hosts(inherited, [web]) == {"web": host}
    held.claim(inherited, [web], backlog=16, access=ACCESS)
    assert held.handed_over_hosts() == {"web": host}
    held.forget([web])
    assert held.handed_over_hosts() == {}


def test_what_has_no_host_is_passed_over(tmp_path: Path) -> None:
    """A Unix socket, a file, one that isn't there: claiming it says what is wrong with it."""
    web, nobody = parse_address("fd:web"), parse_address("fd:nobody")
    local = inherit(("web", unix(web)))
    assert inherited_hosts(local, [web, nobody]) == {}
    assert local.close_rest() == ("web",)
    file = Inheritance([Named("web", os.open(tmp_path, os.O_RDONLY))])
    assert inherited_hosts(file, [web]) == {}
    assert file.close_rest() == ("web",)


# -- the accept queue ----------------------------------------------------------------------------


def test_the_backlog_is_bounded_by_the_kernels_limit() -> None:
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert bounded_backlog(1) == 1
    assert bounded_backlog(limit) == limit
    assert bounded_backlog(limit + 1) == limit


def test_a_limit_that_cannot_be_read_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(listeners, "open", hidden, raising=False)
    assert bounded_backlog(1024) == 1024
    assert bounded_backlog(5000) == 4096


def test_a_changed_backlog_takes_effect_on_an_adopted_socket(held: ListenerSet) -> None:
    """With a queue of one, Linux completes two connections; the others wait."""
    address = free_address()
    held.claim(inherit((address.name, listening(address, 0))), [address], backlog=16, access=ACCESS)
    clients = [socket.socket() for _ in range(8)]
    try:
        for client in clients:
            client.settimeout(5)
            client.connect((address.host, address.port))
    finally:
        for client in clients:
            client.close()
