"""One port, two of our own sockets: how a new address is bound while an old one that overlaps it serves.

The kernel refuses to bind ``0.0.0.0:P`` beside ``127.0.0.1:P``, unless both sockets have SO_REUSEPORT
and the same user. Both get it for the bind, and again for listen(2), which checks anew; then it is
taken off. Two more things were found by trying them (Linux 6.18):

- The kernel remembers for the port that it was shared, and lets a program of the same user that asks for
  SO_REUSEPORT in afterwards, whatever our sockets say by then. It forgets when a socket without
  SO_REUSEPORT is bound to that port, so one is, for a moment, at an address that is free. Where none
  is (``*:P`` takes in them all) the memory stays until the port is closed.
- For as long as both have SO_REUSEPORT, a socket of another program of the same user that has it too is no
  obstacle. So we look afterwards who listens, and give up what isn't ours alone.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from netclawd.core.listeners import Address, Family

#: setsockopt(2): SO_BINDTOIFINDEX, which Python doesn't name; and the number of no interface.
_SO_BINDTOIFINDEX = 62
_NO_INTERFACE = 0x7FFFFFFF
#: /proc/net/tcp, column "st".
_LISTEN = "0A"


def share(
    address: Address, sock: socket.socket, others: Sequence[socket.socket], act: Callable[[], None]
) -> None:
    """Bind ``sock``, or let it listen, beside ``others`` of ours; OSError when somebody else is there."""
    sockets = (sock, *others)
    with _reuse_port(sockets):
        act()
    forget_sharing(address.port)
    ours = {os.fstat(one.fileno()).st_ino for one in sockets}
    if any(address.overlaps(other) for other in _listening(address.port, ours)):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


@contextlib.contextmanager
def _reuse_port(sockets: Iterable[socket.socket]) -> Iterator[None]:
    changed = []
    try:
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            changed.append(sock)
        yield
    finally:
        for sock in changed:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def forget_sharing(port: int) -> None:
    """Let the kernel forget that a port was shared, if one of its addresses is free."""
    for family, host in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")):
        with contextlib.suppress(OSError), socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            return


def _listening(port: int, ours: set[int]) -> Iterator[Address]:
    """Yield the addresses of that port that others listen on; OSError when it can't be told.

    An IPv6 wildcard is taken for IPv6 only: one that took in IPv4 would have kept us out before.
    """
    yield from _rows("/proc/net/tcp", port, ours)
    with contextlib.suppress(FileNotFoundError):  # A host without IPv6.
        yield from _rows("/proc/net/tcp6", port, ours)


def _rows(path: str, port: int, ours: set[int]) -> Iterator[Address]:
    with open(path, encoding="ascii") as file:
        next(file)
        for line in file:
            columns = line.split()
            if columns[3] != _LISTEN:
                break  # Those that listen come first.
            host, _, number = columns[1].partition(":")
            if int(number, 16) == port and int(columns[9]) not in ours:
                yield _address(host, port)


def _address(text: str, port: int) -> Address:
    """Read an address as /proc/net/tcp writes it: 32-bit words, each in the host's order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    ip = ipaddress.ip_address(packed)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    if mapped is not None:
        ip = mapped
    return Address(Family.TCP4 if ip.version == 4 else Family.TCP6, str(ip), port)


def hide(sock: socket.socket) -> None:
    """Let no newcomer find a listening socket, whose queue is still to be emptied. Can't be undone.

    A TCP socket is bound to an interface that isn't there: connections that have begun go on, new
    ones find the address that overlaps it, or are refused; closing it then resets nobody. Kernels
    before 5.7 allow that to root alone. A Unix socket has shutdown(2) for it.
    """
    with contextlib.suppress(OSError):
        if sock.family == socket.AF_UNIX:
            sock.shutdown(socket.SHUT_RD)
        else:
            sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)
