"""Every change of the listening addresses on a real daemon: what stays loses nothing.

design, section 4: "no connection to an address that stays configured is refused or reset". An address
stays when it is named before and after, and also when what is named after takes it in (127.0.0.1:P and
0.0.0.0:P): clients load it through the change and back. A bind that fails changes nothing.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.process.client import Answer, read_answer
from tests.process.faults import Fault
from tests.process.harness import PROVE, Daemon, free_port, full_or
from tests.process.load import (
    Ledger,
    Target,
    ask_over,
    check_nothing_lost,
    keep_alive_gets,
    new_connections,
    under_load,
)
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

REFUSED_WITHIN_S = 3.0
#: What a wildcard needs to be allowed; the tests run on loopback alone.
EXPOSED = {
    "exposure": "reverse-proxy",
    "trusted_proxies": ["192.0.2.0/24"],
    "allow_unauthenticated": True,
}
LOAD = {"new connections": new_connections, "keep-alive GET": keep_alive_gets}


class Connection(http.client.HTTPConnection):
    """HTTP over any address in the notation of daemon.listen."""

    def __init__(self, address: str, timeout_s: float = 10.0) -> None:
        super().__init__("localhost", timeout=scaled(timeout_s))
        self._address = address

    def connect(self) -> None:
        self.sock = dial(self._address, self.timeout or 10.0)


def dial(address: str, timeout_s: float = 10.0) -> socket.socket:
    if address.startswith("unix:"):
        name = address.removeprefix("unix:")
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout_s)
        try:
            sock.connect("\0" + name[1:] if name[0] == "@" else name)
        except OSError:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    loopback = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "[::]": "::1", "[::1]": "::1"}
    return socket.create_connection((loopback.get(host, host), int(port)), timeout_s)


def answer(address: str, path: str = "/api/health/live") -> Answer:
    with closing(Connection(address)) as connection:
        connection.request("GET", path)
        return read_answer(connection.getresponse())


def refused(address: str) -> bool:
    try:
        dial(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


@dataclass(frozen=True)
class At(Target):
    """A target of the load that is reached by an address of any kind."""

    address: str = ""

    def connection(self) -> http.client.HTTPConnection:
        return Connection(self.address, self.timeout_s)


@contextmanager
def loaded(addresses: Sequence[str]) -> Iterator[list[Ledger]]:
    """Load each address; the ledgers are whole behind the block."""
    found: list[Ledger] = []
    with ExitStack() as stack:
        for address in addresses:
            found += stack.enter_context(under_load(At(0, "", address=address), dict(LOAD)))
        wait_for(lambda: all(one.counts["ok"] for one in found), 10.0, "every client to be served")
        yield found


@dataclass(frozen=True)
class Change:
    """From one list of addresses to another; {p} {q} {r} are ports, {home} the daemon's folder."""

    before: Sequence[str]
    after: Sequence[str]
    #: What is reached all the time.
    stays: Sequence[str] = ("127.0.0.1:{p}",)
    #: Settings of [daemon] that come with ``after``.
    settings: Mapping[str, Any] = field(default_factory=dict)


TCP, SIX, UNIX = "127.0.0.1:{p}", "[::1]:{p}", "unix:{home}/api.sock"
MATRIX = {
    "an address is added": Change([TCP], [TCP, "127.0.0.1:{q}"]),
    "an address changes its port": Change([TCP, "127.0.0.1:{q}"], [TCP, "127.0.0.1:{r}"]),
    "IPv6 is added": Change([TCP], [TCP, SIX]),
    "the order changes": Change([TCP, UNIX], [UNIX, TCP], [TCP, UNIX]),
    "specific and wildcard": Change([TCP], ["0.0.0.0:{p}"]),
    "specific and wildcard, IPv6": Change([SIX], ["[::]:{p}"], [SIX]),
    "specific and dual": Change([TCP], ["*:{p}"]),
    "two specific and dual": Change([TCP, SIX], ["*:{p}"], [TCP, SIX]),
    "IPv4 and dual": Change(["0.0.0.0:{p}"], ["*:{p}"]),
    "IPv6 and dual": Change(["[::]:{p}"], ["*:{p}"], [SIX]),
    "dual and both one by one": Change(["*:{p}"], ["0.0.0.0:{p}", "[::]:{p}"], [TCP, SIX]),
    "two ports are swapped": Change(
        ["127.0.0.1:{p}", "[::1]:{q}", UNIX], ["127.0.0.1:{q}", "[::1]:{p}", UNIX], [UNIX]
    ),
    "two ports are swapped, and overlap": Change(
        ["127.0.0.1:{p}", "0.0.0.0:{q}"],
        ["0.0.0.0:{p}", "127.0.0.1:{q}"],
        ["127.0.0.1:{p}", "127.0.0.1:{q}"],
    ),
    "TCP moves to Unix": Change([TCP, "127.0.0.1:{q}"], [TCP, UNIX]),
    "TCP moves beside Unix": Change([TCP, UNIX], ["127.0.0.1:{q}", UNIX], [UNIX]),
    "Unix moves to an abstract name": Change([TCP, UNIX], [TCP, "unix:@netclaw-test-{p}"]),
    "an abstract name stays": Change(
        [TCP, "unix:@netclaw-test-{p}"], ["unix:@netclaw-test-{p}"], ["unix:@netclaw-test-{p}"]
    ),
    "Unix changes its path": Change([TCP, UNIX], [TCP, "unix:{home}/other.sock"]),
    "Unix changes its mode": Change([TCP, UNIX], [TCP, UNIX], [TCP, UNIX], {"unix_mode": "0600"}),
    "another backlog": Change([TCP, UNIX], [TCP, UNIX], [TCP, UNIX], {"backlog": 77}),
}
#: What a reduced run leaves out: another of the same kind stays, or tests/process/test_port_change.py has it.
SPARED = {
    "an address is added",
    "an address changes its port",
    "IPv6 is added",
    "specific and wildcard, IPv6",
    "IPv4 and dual",
    "IPv6 and dual",
    "two ports are swapped",
    "Unix changes its mode",
}
CASES = [case for case in MATRIX if PROVE or case not in SPARED]


class Home:
    """A daemon whose configurations are written by their addresses."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._names = {
            "p": daemon.port,
            "q": free_port(),
            "r": free_port(),
            "home": str(daemon.home),
        }

    def named(self, addresses: Sequence[str]) -> list[str]:
        return [address.format(**self._names) for address in addresses]

    def write(self, addresses: Sequence[str], **settings: Any) -> None:
        exposed = any(a.startswith(("0.", "*", "[::]", "192.")) for a in addresses)
        tables = {"daemon": {**(EXPOSED if exposed else {}), **settings}}
        self.daemon.write_config(listen=addresses, tables=tables)

    def start(self, addresses: Sequence[str]) -> None:
        self.write(addresses)
        self.daemon.spawn()
        self.wait_generation(addresses[0], 1)

    def wait_generation(self, address: str, generation: int) -> None:
        def served() -> bool:
            assert self.daemon.running.poll() is None, self.daemon.errors()
            try:
                found = answer(address, "/api/health/ready")
            except OSError:
                return False
            return found.status == 200 and found.generation >= generation

        wait_for(served, 20.0, lambda: f"generation {generation}\n{self.daemon.errors()}")

    def apply(self, addresses: Sequence[str], **settings: Any) -> int:
        """Write, and wait for the outcome whoever was first to ask; return the generation."""
        self.write(addresses, **settings)
        entry = self.daemon.reload()
        assert entry["outcome"] in ("applied", "unchanged"), entry
        found = self.daemon.control("status")
        assert found["addresses"] == list(addresses)
        return int(found["generation"])

    def sockets(self) -> list[str]:
        return sorted(p.name for p in self.daemon.home.iterdir() if stat.S_ISSOCK(p.stat().st_mode))


@pytest.fixture
def home(make_daemon: Callable[..., Daemon]) -> Home:
    return Home(make_daemon())


def check_served(home: Home, addresses: Sequence[str], gone: Sequence[str]) -> None:
    """Assert that all of these answer, that the others come to be refused, and no file is left."""
    for address in addresses:
        assert answer(address).status == 200
    for address in gone:
        wait_for(lambda: refused(address), REFUSED_WITHIN_S, f"{address} to be refused")  # noqa: B023
    files = [os.path.basename(a) for a in addresses if a.startswith("unix:/")]
    wait_for(lambda: home.sockets() == sorted(files), REFUSED_WITHIN_S, "old paths to be removed")


@pytest.mark.parametrize("case", CASES)
def test_what_stays_loses_nothing_there_and_back(home: Home, case: str) -> None:
    change = MATRIX[case]
    before, after, stays = (home.named(n) for n in (change.before, change.after, change.stays))
    home.start(before)
    pid = home.daemon.pid
    with loaded(stays) as ledgers:
        generation = 1
        for _ in range(full_or(1, 10)):
            for addresses, settings in ((after, dict(change.settings)), (before, {})):
                generation += 1
                assert home.apply(addresses, **settings) == generation
                left = [a for a in (*before, *after) if a not in addresses]
                check_served(home, addresses, [a for a in left if not _taken_in(a, addresses)])
        # Behind the last retirement every client goes on.
        seen = [one.counts["ok"] for one in ledgers]
        wait_for(
            lambda: all(o.counts["ok"] > n for o, n in zip(ledgers, seen, strict=True)),
            10.0,
            "every client to go on",
        )
    check_nothing_lost(ledgers)
    assert home.daemon.control("status")["pid"] == pid
    assert home.daemon.stop() == 0
    assert home.sockets() == []


def _taken_in(address: str, by: Sequence[str]) -> bool:
    """Whether dialling a removed address leads to one that is served."""
    port = address.rpartition(":")[2]
    return any(other.rpartition(":")[2] == port for other in by) and "unix" not in address


# -- what goes with a change -----------------------------------------------------------------------


def descriptor_of(pid: int, sock: socket.socket) -> socket.socket:
    """Return a copy of a socket of another process: the one that has this name."""
    libc = ctypes.CDLL(None, use_errno=True)
    watched = os.pidfd_open(pid)
    try:
        for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
            if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                continue
            fd = libc.syscall(438, watched, number, 0)  # pidfd_getfd(2)
            if fd < 0:
                continue
            found = socket.socket(fileno=fd)
            same = found.family == sock.family and found.getsockname() == sock.getpeername()
            if same and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return found
            found.close()
    finally:
        os.close(watched)
    raise AssertionError("the daemon has no such listener")


@pytest.mark.needs_root
def test_another_backlog_is_in_force_on_the_same_socket(home: Home) -> None:
    (address,) = home.named([TCP])
    home.start([address])
    lengths = {}
    for backlog in (1024, 77):
        home.apply([address], backlog=backlog)
        with dial(address) as client, descriptor_of(home.daemon.pid, client) as listening:
            # struct tcp_info: of a listening socket, tcpi_sacked is the length of its queue.
            info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            lengths[backlog] = int.from_bytes(info[28:32], "little")
            lengths[-backlog] = os.fstat(listening.fileno()).st_ino
    assert (lengths[1024], lengths[77]) == (1024, 77)
    assert lengths[-1024] == lengths[-77], "the same kernel object"


def test_mode_and_owner_are_those_of_the_configuration(home: Home) -> None:
    tcp, unix = home.named([TCP, UNIX])
    path = unix.removeprefix("unix:")
    home.start([tcp, unix])
    first = os.stat(path)
    assert stat.S_IMODE(first.st_mode) == 0o660
    assert home.apply([tcp, unix], unix_mode="0606", unix_group=str(os.getgid())) == 2
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o606
    assert home.apply([tcp, unix]) == 3
    last = os.stat(path)
    assert stat.S_IMODE(last.st_mode) == 0o660
    assert last.st_ino == first.st_ino, "the same socket"


def test_connections_over_unix_sockets_are_kept_whatever_host_they_name(home: Home) -> None:
    """Their peers have no address, and no web page reaches them."""
    (unix,) = home.named([UNIX])
    path, bound = unix.removeprefix("unix:"), f"{home.daemon.home}/\udcff"
    home.start([unix])
    with closing(Connection(unix)) as kept, socket.socket(socket.AF_UNIX) as odd:
        kept.request("GET", "/api/health/live", headers={"Host": "anything.example"})
        assert read_answer(kept.getresponse()).status == 200
        # A client may bind its own end to any bytes: they are nobody's to write down.
        odd.bind(os.fsencode(bound))
        odd.settimeout(scaled(10.0))
        odd.connect(path)
        assert home.daemon.reload(force=True)["outcome"] == "applied"
        kept.request("GET", "/api/health/live", headers={"Host": "anything.example"})
        assert read_answer(kept.getresponse()).generation == 2
        odd.sendall(b"GET /api/health/live HTTP/1.0\r\n\r\n")
        assert odd.recv(1000).startswith(b"HTTP/1.0 200")


def test_a_path_that_was_removed_by_hand_is_served_again_by_a_reload(home: Home) -> None:
    tcp, unix = home.named([TCP, UNIX])
    home.start([tcp, unix])
    os.unlink(unix.removeprefix("unix:"))
    assert home.daemon.control("status")["addresses"] == [tcp]
    assert home.daemon.reload(force=True)["outcome"] == "applied"
    check_served(home, [tcp, unix], [])


def test_a_socket_that_a_killed_daemon_left_is_replaced_at_the_start(home: Home) -> None:
    tcp, unix = home.named([TCP, UNIX])
    home.start([tcp, unix])
    home.daemon.kill()
    assert home.sockets() == ["api.sock"]
    home.daemon.spawn()
    home.wait_generation(unix, 2)
    check_served(home, [tcp, unix], [])


def test_a_path_that_became_anothers_is_left_to_it(home: Home) -> None:
    tcp, unix = home.named([TCP, UNIX])
    path = unix.removeprefix("unix:")
    home.start([tcp, unix])
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        inode = os.stat(path).st_ino
        entry = home.daemon.reload(force=True)
        assert (entry["outcome"], entry["slug"]) == ("refused", "address-unavailable")
        assert home.apply([tcp]) == 2
        assert home.daemon.stop() == 0
        assert os.stat(path).st_ino == inode


# -- a restart that is undone ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [(["0.0.0.0:{p}"], [TCP]), ([TCP], ["0.0.0.0:{p}"]), ([TCP], [TCP, UNIX])],
    ids=["narrower", "wider", "Unix"],
)
def test_who_reached_a_new_listener_is_answered_though_the_execve_failed(
    make_daemon: Callable[..., Daemon], before: Sequence[str], after: Sequence[str]
) -> None:
    daemon = make_daemon()
    listening = Fault("hold", "after", "ListenNew", until=daemon.home / "go")
    daemon.faults = [listening, Fault("execve", "before", "Exec", errno="ENOENT")]
    home = Home(daemon)
    held, wanted = home.named(before), home.named(after)
    home.start(held)
    home.write(wanted)
    asked = daemon.control("reload")
    wait_for(lambda: listening.reached, 20.0, "the new addresses to listen")
    clients = []
    try:
        for address in (*home.named([TCP]), *wanted):
            clients += [dial(address) for _ in range(5)]
        listening.release()
        for client in clients:
            assert ask_over(client).generation == 1
    finally:
        for client in clients:
            client.close()
    entry = daemon.outcome(asked["restart_id"], time.monotonic() + scaled(20.0))
    assert (entry["outcome"], entry["slug"]) == ("failed", "exec-failed")
    left = [address for address in wanted if address not in held]
    check_served(home, held, [address for address in left if not _taken_in(address, held)])


# -- a bind that fails -----------------------------------------------------------------------------


def in_use(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
    sock.bind((host, port))
    sock.listen()
    return sock


def unix_in_use(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(name)
    sock.listen()
    return sock


Taken = Callable[[Daemon, int], Any]

#: The address that can't be had, why, and what stands in its way: (daemon, port q).
FAILURES: dict[str, tuple[str, str, Taken]] = {
    "a port in use": ("127.0.0.1:{q}", "it is in use", lambda d, q: in_use("127.0.0.1", q)),
    "a port in use by a program that shares it": (
        "127.0.0.1:{q}",
        "it is in use",
        lambda d, q: in_use("127.0.0.1", q, reuse_port=True),
    ),
    "IPv6 in use": ("[::1]:{q}", "it is in use", lambda d, q: in_use("::1", q)),
    "a wildcard over a port in use": (
        "0.0.0.0:{q}",
        "it is in use",
        lambda d, q: in_use("127.0.0.1", q),
    ),
    "a wildcard over ours and another's": (
        "0.0.0.0:{p}",
        "it is in use",
        lambda d, q: in_use("127.0.0.2", d.port),
    ),
    "a wildcard over ours and one that another shares": (
        "0.0.0.0:{p}",
        "it is in use",
        lambda d, q: in_use("127.0.0.2", d.port, reuse_port=True),
    ),
    "both protocols over ours and one that another shares": (
        "*:{p}",
        "it is in use",
        lambda d, q: in_use("::1", d.port, reuse_port=True),
    ),
    "no address of this host": (
        "192.0.2.1:{q}",
        "it is not an address of this host",
        lambda d, q: None,
    ),
    "a path that somebody listens on": (
        "unix:{home}/taken",
        "it is in use",
        lambda d, q: unix_in_use(f"{d.home}/taken"),
    ),
    "a path with a file": (
        "unix:{home}/netclaw.toml",
        "what lies there is no socket",
        lambda d, q: None,
    ),
    "a path without a folder": (
        "unix:{home}/none/api.sock",
        "its folder does not exist",
        lambda d, q: None,
    ),
    "an abstract name in use": (
        "unix:@netclaw-test-{q}",
        "it is in use",
        lambda d, q: unix_in_use(f"\0netclaw-test-{q}"),
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_bind_that_fails_changes_nothing(home: Home, case: str) -> None:
    wanted, why, take = FAILURES[case]
    held = home.named([TCP, UNIX])
    bad, good_tcp, good_unix = home.named([wanted, "127.0.0.1:{r}", "unix:{home}/new.sock"])
    home.start(held)
    obstacle = take(home.daemon, int(home.named(["{q}"])[0]))
    try:
        files = sorted(os.listdir(home.daemon.home))
        with loaded(held) as ledgers:
            home.write([good_tcp, good_unix, bad, held[1]])
            entry = home.daemon.reload()
            assert entry["outcome"] == "refused", entry
            assert entry["slug"] == "address-unavailable"
            assert f"{bad} can't be bound: {why}" in entry["reason"]
            assert entry["remedy"]
            assert home.daemon.control("status")["addresses"] == held
            assert all(answer(address).generation == 1 for address in held)
            assert refused(good_tcp)
            assert refused(good_unix)
            assert sorted(os.listdir(home.daemon.home)) == files
            # And again, once nothing is in the way but what was never there.
            assert home.apply(held) == 1
        check_nothing_lost(ledgers)
    finally:
        if obstacle is not None:
            obstacle.close()
