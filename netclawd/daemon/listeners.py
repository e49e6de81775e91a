"""The listening sockets of HTTP: inherited, claimed, bound for the next generation, retired.

Invariant: a socket whose address stays configured is the same kernel object from the first start to
the stop; its accept queue is never lost. New addresses are bound (step 4) long before they listen
(step 9), so that a bind that fails changes nothing and nobody connects to a port that isn't served.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable, Sequence

from netclawd.core.listeners import (
    Address,
    Family,
    ListenerPlan,
    address_of_name,
    plan_listeners,
)
from netclawd.daemon.descriptors import Inheritance, Named
from netclawd.errors import AddressError

_FAMILIES = {Family.TCP4: socket.AF_INET, Family.TCP6: socket.AF_INET6}

#: What the kernel bounds an accept queue by where /proc doesn't say (Linux 5.4 and later).
SOMAXCONN_ASSUMED = 4096


def bounded_backlog(asked: int) -> int:
    """Return the accept queue length that the kernel will really grant."""
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            limit = int(file.read())
    except (OSError, ValueError):
        limit = SOMAXCONN_ASSUMED
    return min(asked, limit)


class ListenerSet:
    def __init__(self) -> None:
        self._held: dict[Address, socket.socket] = {}
        self._new: dict[Address, socket.socket] = {}

    @property
    def held(self) -> tuple[Address, ...]:
        return tuple(self._held)

    def sockets(self) -> dict[str, socket.socket]:
        """Return every held socket by descriptor name."""
        return {address.name: sock for address, sock in self._held.items()}

    def pairs(self) -> tuple[tuple[Address, socket.socket], ...]:
        """Return every held socket with its address; from any thread."""
        return tuple(self._held.items())

    def claim(
        self,
        inherited: Inheritance,
        wanted: Sequence[Address],
        backlog: int,
        *,
        handed_over: bool = False,
    ) -> tuple[Address, ...]:
        """Claim by name, bind what is missing, listen on all; return what is held but not wanted.

        What an earlier configuration named is inherited too, and is then to be retired.
        ``handed_over``: by an old image, so that a name without an address is a listener as well.
        AddressError names the address that can't be had.
        """
        named = (address_of_name(name, handed_over=handed_over) for name in inherited.names())
        for address in (*wanted, *(a for a in named if a is not None)):
            if address not in self._held:
                self._claim_one(inherited, address)
        plan = plan_listeners(self._held, wanted)
        self.bind(plan)
        self._held = {**self._held, **self._new}
        self._new = {}
        for address in wanted:
            # Again on an adopted one: a changed backlog takes effect.
            _listen(address, self._held[address], backlog)
        return plan.retire

    def _claim_one(self, inherited: Inheritance, address: Address) -> None:
        fd = inherited.claim(address.name)
        if fd is None:
            return
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:  # Not a socket at all.
            os.close(fd)
            raise _mistaken(address) from error
        try:
            _check(sock, address)
        except AddressError:
            sock.close()
            raise
        sock.setblocking(False)
        self._held[address] = sock

    def handed_over_hosts(self) -> dict[str, str]:
        """Return the host that each held socket of the supervisor's is bound to, by its name."""
        return {
            address.host: host
            for address, sock in tuple(self._held.items())
            if address.family is Family.FD and (host := bound_host(sock)) is not None
        }

    def bind(self, plan: ListenerPlan) -> None:
        """Bind every new address, not listening; on a failure close the new ones and raise."""
        try:
            for address in plan.bind:
                self._new[address] = _bind(address)
        except AddressError:
            self.close_new()
            raise

    def close_new(self) -> None:
        """Close what was bound for a restart that doesn't take place. Idempotent."""
        for sock in self._new.values():
            sock.close()
        self._new = {}

    def listen_new(self, backlog: int) -> None:
        """listen() on the new addresses; AddressError when the kernel refuses."""
        for address, sock in self._new.items():
            _listen(address, sock, backlog)

    def to_hand_over(self) -> list[Named]:
        """Return all sockets, held and new, under their names."""
        both = {**self._held, **self._new}
        # One that HTTP has emptied and closed meanwhile has no descriptor any more.
        alive = {address: sock.fileno() for address, sock in both.items() if sock.fileno() >= 0}
        return [Named(address.name, fd) for address, fd in alive.items()]

    def forget(self, addresses: Iterable[Address]) -> None:
        """Drop retired listeners; the HTTP server has emptied and closed them."""
        for address in addresses:
            sock = self._held.pop(address, None)
            if sock is not None:
                sock.close()

    def close(self) -> None:
        self.close_new()
        self.forget(tuple(self._held))


def inherited_hosts(inherited: Inheritance, wanted: Iterable[Address]) -> dict[str, str]:
    """Return the same of what has not been claimed yet: the answer is needed before anything serves."""
    hosts = {}
    for address in wanted:
        fd = inherited.find(address.name) if address.family is Family.FD else None
        if fd is None:
            continue
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            continue  # No socket: claiming it says so.
        host = bound_host(sock)
        sock.detach()
        if host is not None:
            hosts[address.host] = host
    return hosts


def bound_host(sock: socket.socket) -> str | None:
    """Return the numeric host that a TCP socket is bound to, None for another kind."""
    if sock.family not in _FAMILIES.values():
        return None
    try:
        return str(sock.getsockname()[0])
    except OSError:
        return None  # Retired and closed meanwhile.


def _bind(address: Address) -> socket.socket:
    if address.family is Family.FD:
        raise AddressError(
            f"The supervisor handed over no socket named {address.host!r}.",
            f"Start through a socket unit with FileDescriptorName={address.host}, or remove "
            f"{address} from daemon.listen.",
        )
    try:
        sock = socket.socket(_FAMILIES[address.family], socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise _unavailable(address, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family is Family.TCP6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        raise _unavailable(address, error) from error
    return sock


def _listen(address: Address, sock: socket.socket, backlog: int) -> None:
    try:
        sock.listen(bounded_backlog(backlog))
    except OSError as error:
        raise _unavailable(address, error) from error


_WHY = {
    errno.EADDRINUSE: (
        "it is in use",
        "Stop the program that holds it (`ss -ltnp` names it), or choose another port.",
    ),
    errno.EADDRNOTAVAIL: (
        "it is not an address of this host",
        "Use an address that `ip address` shows.",
    ),
    errno.EACCES: (
        "the right to bind it is missing",
        "Use a port from 1024 up, or let a socket unit of systemd hand it over as fd:NAME.",
    ),
    errno.EAFNOSUPPORT: ("this host has no such protocol", "Remove it from daemon.listen."),
}


def _unavailable(address: Address, error: OSError) -> AddressError:
    number = error.errno or 0
    why, remedy = _WHY.get(
        number, (os.strerror(number), "Choose another address in daemon.listen.")
    )
    return AddressError(f"The address {address} can't be bound: {why}.", remedy)


def _check(sock: socket.socket, address: Address) -> None:
    """Raise AddressError unless the inherited socket is what its name says."""
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    right = sock.type == socket.SOCK_STREAM
    if address.family in _FAMILIES:
        right = right and sock.family == _FAMILIES[address.family]
        right = right and _is_bound_to(sock, address)
    elif not listening:
        right = False  # What systemd hands over listens already.
    if not right:
        raise _mistaken(address)


def _is_bound_to(sock: socket.socket, address: Address) -> bool:
    """Compare as numbers: the kernel writes some IPv6 addresses in another way than we do."""
    host, port = sock.getsockname()[:2]
    return (ipaddress.ip_address(host), port) == (ipaddress.ip_address(address.host), address.port)


def _mistaken(address: Address) -> AddressError:
    return AddressError(
        f"The inherited descriptor {address.name!r} is not the socket that its name says.",
        "Compare FileDescriptorName= and ListenStream= of the socket unit with daemon.listen.",
    )
