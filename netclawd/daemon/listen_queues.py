"""What the kernel tells about listening sockets: how many connections wait, how many it dropped.

Touches sockets and /proc, changes nothing. For a listening TCP socket, TCP_INFO has the length and the
limit of its accept queue in tcpi_unacked and tcpi_sacked (``tcp_get_info`` of the kernel; ss(8) shows
them as Recv-Q and Send-Q), and SO_MEMINFO has its own count of drops (``ss -ltm`` shows it as ``d``). A Unix
socket drops nothing: who connects to a full one waits.
"""

from __future__ import annotations

import socket
import struct

from netclawd.core.reading import ListenQueue, ListenTrouble

#: tcp_info: eight bytes, then rto, ato, snd_mss, rcv_mss, unacked, sacked.
_TCP_INFO = struct.Struct("=8x16xII")
#: SO_MEMINFO isn't in the socket module; its ninth number is SK_MEMINFO_DROPS (linux/sock_diag.h).
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=32xI")

_NETSTAT = "/proc/self/net/netstat"


def queue_of(sock: socket.socket) -> ListenQueue | None:
    """Return what there is to know of a listening socket, None of one that isn't TCP or is closed."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        memory = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        waiting, limit = _TCP_INFO.unpack(info)
        (drops,) = _MEMINFO.unpack(memory)
    except (OSError, struct.error):
        return None
    return ListenQueue(waiting, limit, drops)


def namespace_trouble() -> ListenTrouble | None:
    """Return the counts of this network namespace, None where /proc doesn't tell."""
    try:
        with open(_NETSTAT, encoding="ascii") as file:
            return parse_netstat(file.read())
    except (OSError, ValueError):
        return None


def parse_netstat(text: str) -> ListenTrouble | None:
    """Read pairs of lines, names and numbers of one protocol each; None without our two."""
    rows = [line.split() for line in text.splitlines()]
    for names, numbers in zip(rows[::2], rows[1::2], strict=False):
        if names[:1] == ["TcpExt:"]:
            found = dict(zip(names, numbers, strict=False))
            if "ListenOverflows" in found and "ListenDrops" in found:
                return ListenTrouble(int(found["ListenOverflows"]), int(found["ListenDrops"]))
    return None
