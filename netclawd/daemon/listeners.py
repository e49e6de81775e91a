"""The listening sockets of HTTP: inherited, claimed, bound for the next generation, retired.

Invariant: a socket whose address stays configured is the same kernel object from the first start to
the stop; its accept queue is never lost. New addresses are bound (step 4) long before they listen
(step 9), so that a bind that fails changes nothing and nobody connects to a port that isn't served.
unix_sockets.py and sharing.py, which few restarts need, are imported where they are needed.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from netclawd.core.listeners import (
    Address,
    Family,
    ListenerPlan,
    address_of_file_name,
    address_of_name,
    plan_listeners,
    temporary_path,
)
from netclawd.core.settings import UnixAccess
from netclawd.daemon.descriptors import Inheritance, Named
from netclawd.errors import AddressError

if TYPE_CHECKING:
    from netclawd.daemon.unix_sockets import SocketFile

_FAMILIES = {
    Family.TCP4: socket.AF_INET,
    Family.TCP6: socket.AF_INET6,
    Family.TCP: socket.AF_INET6,
}

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
        #: Files of the Unix sockets that have one, held and new.
        self._files: dict[Address, SocketFile] = {}
        self._new_files: dict[Address, SocketFile] = {}
        #: Held, but no newcomer finds them any more.
        self._withdrawn: set[Address] = set()

    @property
    def held(self) -> tuple[Address, ...]:
        """Return the addresses that clients reach us by; not a path that has become another's."""
        return tuple(address for address in tuple(self._held) if self._reachable(address))

    def _reachable(self, address: Address) -> bool:
        file = self._files.get(address)
        if address in self._withdrawn:
            return False
        return file is None or address.path is None or file.lies_at(address.path)

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
        access: UnixAccess,
        *,
        handed_over: bool = False,
    ) -> tuple[Address, ...]:
        """Claim by name, bind what is missing, listen on all; return what is held but not wanted.

        What an earlier configuration named is inherited too, and is then to be retired.
        ``handed_over``: by an old image, so that a name without an address is a listener as well.
        ``access``: for Unix sockets that are bound here. AddressError names the address that can't
        be had; then nothing that was bound here is left.
        """
        named = [_inherited(inherited, name, handed_over) for name in inherited.names()]
        for address in (*wanted, *(a for a in named if a is not None)):
            if address not in self._held and (handed_over or not _lost(inherited, address)):
                self._claim_one(inherited, address)
        plan = plan_listeners(self._held, wanted)
        self._bind_all(plan.bind, access)
        for address in plan.keep:
            # Again on an adopted one: a changed backlog takes effect.
            _listen(address, self._held[address], backlog)
        try:
            self.listen_new(backlog)
        except AddressError:
            self.close_new()
            raise
        both = {**self._held, **self._new}
        self._held = {a: both[a] for a in (*wanted, *plan.retire)}
        self._files |= self._new_files
        self._new, self._new_files = {}, {}
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
        if address.path is not None:
            self._claim_file(inherited, address)

    def _claim_file(self, inherited: Inheritance, address: Address) -> None:
        from netclawd.daemon.unix_sockets import SocketFile

        fd = inherited.claim(address.file_name)
        if fd is not None:
            self._files[address] = SocketFile(fd)

    def handed_over_hosts(self) -> dict[str, str]:
        """Return the host that each held socket of the supervisor's is bound to, by its name."""
        return {
            address.host: host
            for address, sock in tuple(self._held.items())
            if address.family is Family.FD and (host := bound_host(sock)) is not None
        }

    def plan(self, wanted: Sequence[Address]) -> ListenerPlan:
        """Compare what clients reach us by with what is wanted."""
        return plan_listeners(self.held, wanted)

    def bind(self, plan: ListenerPlan, access: UnixAccess) -> None:
        """Bind every new address, not listening; on a failure close the new ones and raise.

        Unix sockets get ``access``; whether those that stay can be given it is only tried here,
        :meth:`give_access` does it.
        """
        self._bind_all(plan.bind, access)
        try:
            for address in plan.keep:
                if address in self._files:
                    from netclawd.daemon.unix_sockets import try_access

                    try_access(address, self._files[address], access)
        except AddressError:
            self.close_new()
            raise

    def _bind_all(self, addresses: Iterable[Address], access: UnixAccess) -> None:
        try:
            for address in addresses:
                self._bind_one(address, access)
        except AddressError:
            self.close_new()
            raise

    def _bind_one(self, address: Address, access: UnixAccess) -> None:
        if address.family is Family.UNIX:
            from netclawd.daemon.unix_sockets import bind_unix

            self._new[address], file = bind_unix(address, access)
            if file is not None:
                self._new_files[address] = file
        else:
            sock = _open(address)
            try:
                self._beside_ours(address, sock, partial(sock.bind, _place(address)))
            except OSError as error:
                sock.close()
                raise _unavailable(address, error) from error
            self._new[address] = sock

    def _beside_ours(self, address: Address, sock: socket.socket, act: Callable[[], None]) -> None:
        """Bind or listen; share the port only with what we hold ourselves. OSError."""
        try:
            act()
        except OSError as error:
            ours = [held for other, held in self._held.items() if address.overlaps(other)]
            if error.errno != errno.EADDRINUSE or not ours:
                raise
            from netclawd.daemon.sharing import share

            share(address, sock, ours, act)

    def close_new(self) -> None:
        """Close what was bound for a restart that doesn't take place. Idempotent."""
        for sock in self.give_up_new().values():
            sock.close()

    def give_up_new(self) -> dict[str, socket.socket]:
        """Let go of the new sockets, which nobody finds from here on; their queues are the caller's."""
        for address, file in self._new_files.items():
            _remove(address, file)
        given = {address.name: sock for address, sock in self._new.items()}
        for address, sock in self._new.items():
            if address.family is Family.UNIX or _listens(sock):
                from netclawd.daemon.sharing import hide

                hide(sock)
        self._new, self._new_files = {}, {}
        return given

    def listen_new(self, backlog: int) -> None:
        """listen() on the new addresses; AddressError when the kernel refuses."""
        for address, sock in self._new.items():
            try:
                self._beside_ours(address, sock, partial(sock.listen, bounded_backlog(backlog)))
            except OSError as error:
                raise _unavailable(address, error) from error
            if address in self._new_files:
                from netclawd.daemon.unix_sockets import publish

                publish(address, self._new_files[address])

    def give_access(self, access: UnixAccess) -> None:
        """Give the files of the Unix sockets that are served this mode and owner. AddressError."""
        for address, file in self._files.items():
            from netclawd.daemon.unix_sockets import give_access

            give_access(address, file, access)

    def to_hand_over(self) -> list[Named]:
        """Return all sockets, held and new, under their names, and the files of Unix sockets."""
        sockets = {a: s for a, s in self._held.items() if a not in self._withdrawn} | self._new
        return _named(sockets, self._files | self._new_files)

    def to_store(self, leave_out: Iterable[Address]) -> list[Named]:
        """Return what the supervisor is to keep: held, reached by clients, and not its own."""
        out = {*leave_out}
        sockets = {
            address: self._held[address]
            for address in self.held
            if address.family is not Family.FD and address not in out
        }
        return _named(sockets, self._files)

    def withdraw(self, addresses: Iterable[Address]) -> None:
        """Let no newcomer find these any more; what is queued on them is still to be accepted.

        What the supervisor handed over is its own, and is left alone. Can't be undone.
        """
        from netclawd.daemon.sharing import hide

        for address in addresses:
            sock = self._held.get(address)
            if sock is None or address.family is Family.FD or address in self._withdrawn:
                continue
            self._withdrawn.add(address)
            file = self._files.pop(address, None)
            if file is not None:
                _remove(address, file)
            hide(sock)

    def forget(self, addresses: Iterable[Address]) -> None:
        """Drop retired listeners; the HTTP server has emptied and closed them."""
        gone = tuple(addresses)
        self.withdraw(address for address in gone if address in self._held)
        for address in gone:
            sock = self._held.pop(address, None)
            self._withdrawn.discard(address)
            if sock is not None:
                sock.close()
        self._forget_sharing(gone)

    def _forget_sharing(self, gone: Sequence[Address]) -> None:
        """Where one has overlapped another that goes on, the port is ours alone again."""
        for address in gone:
            if any(address.overlaps(other) for other in self._held):
                from netclawd.daemon.sharing import forget_sharing

                forget_sharing(address.port)

    def to_leave(self) -> tuple[Address, ...]:
        """Return what a supervisor might keep over the end of this process."""
        return tuple(address for address in self.held if address.family is not Family.FD)

    def leave(self, addresses: Iterable[Address]) -> None:
        """Let go of what the supervisor keeps: newcomers go on finding it, and wait for the next start."""
        for address in addresses:
            self._held.pop(address).close()
            file = self._files.pop(address, None)
            if file is not None:
                file.close()

    def close(self) -> None:
        self.close_new()
        self.forget(tuple(self._held))


def _inherited(inherited: Inheritance, name: str, handed_over: bool) -> Address | None:
    """Return the address of an inherited listener, None for a descriptor of another kind."""
    if not name.startswith("unix="):
        return address_of_name(name, handed_over=handed_over)
    from netclawd.daemon.unix_sockets import abstract_address

    fd = inherited.find(name)
    assert fd is not None
    told = (abstract_address(fd), *map(address_of_file_name, inherited.names()))
    return next((a for a in told if a is not None and a.name == name), None)


def _lost(inherited: Inheritance, address: Address) -> bool:
    """Whether an inherited Unix socket's path has become another's: then nobody finds it any more."""
    fd = inherited.find(address.file_name) if address.path is not None else None
    if fd is None or address.path is None:
        return False
    from netclawd.daemon.unix_sockets import SocketFile

    return not SocketFile(fd).lies_at(address.path)


def _named(
    sockets: Mapping[Address, socket.socket], files: Mapping[Address, SocketFile]
) -> list[Named]:
    """Name the descriptors, a socket's file before the socket."""
    # One that HTTP has emptied and closed meanwhile has no descriptor any more.
    alive = {address: sock.fileno() for address, sock in sockets.items() if sock.fileno() >= 0}
    places = [Named(a.file_name, files[a].fd) for a in alive if a in files]
    return [*places, *(Named(address.name, fd) for address, fd in alive.items())]


def _remove(address: Address, file: SocketFile) -> None:
    assert address.path is not None
    file.remove(address.path, temporary_path(address.path))
    file.close()


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


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


def _open(address: Address) -> socket.socket:
    """Make the socket of a TCP address; AddressError for a protocol that this host lacks."""
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
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        only = address.family is Family.TCP6
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    sock.setblocking(False)
    return sock


def _place(address: Address) -> tuple[str, int]:
    return ("::" if address.family is Family.TCP else address.host), address.port


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
    right = sock.type == socket.SOCK_STREAM
    if address.family in _FAMILIES:
        right = right and sock.family == _FAMILIES[address.family]
        right = right and _is_bound_to(sock, address)
    else:
        right = right and _listens(sock)  # As it is only handed over when it does.
        if address.family is Family.UNIX:
            from netclawd.daemon.unix_sockets import is_socket_of

            right = right and is_socket_of(sock, address)
    if not right:
        raise _mistaken(address)


def _is_bound_to(sock: socket.socket, address: Address) -> bool:
    """Compare as numbers: the kernel writes some IPv6 addresses in another way than we do."""
    host, port = sock.getsockname()[:2]
    want, number = _place(address)
    if want == "::":
        only = bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        if only is not (address.family is Family.TCP6):
            return False
    return (ipaddress.ip_address(host), port) == (ipaddress.ip_address(want), number)


def _mistaken(address: Address) -> AddressError:
    return AddressError(
        f"The inherited descriptor {address.name!r} is not the socket that its name says.",
        "Compare FileDescriptorName= and ListenStream= of the socket unit with daemon.listen.",
    )
