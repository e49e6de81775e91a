"""A supervisor's notification socket: records every datagram, and keeps descriptors as systemd does.

What it does with them was compared with systemd 252: a descriptor that it has already is not kept twice
(kcmp(2)), one that can't be polled only with FDPOLL=0, one for which there is no room is closed at once;
the one of BARRIER=1 is closed after all that came before.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Notice:
    #: PID that the kernel vouches for.
    pid: int
    #: The datagram's assignments, in order.
    fields: tuple[tuple[str, str], ...]
    #: Descriptors that came with it.
    descriptors: int = 0

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]

    def __contains__(self, name: str) -> bool:
        return name in dict(self.fields)


def parse(datagram: bytes) -> tuple[tuple[str, str], ...]:
    """Split a datagram into its assignments (sd_notify(3))."""
    rows = []
    for line in datagram.decode().split("\n"):
        if line:
            name, equals, value = line.partition("=")
            assert equals, f"not an assignment: {line!r}"
            rows.append((name, value))
    return tuple(rows)


def _can_be_polled(fd: int) -> bool:
    with select.epoll() as poller:
        try:
            poller.register(fd, 0)
        except OSError:
            return False
        return True


class NotifySocket:
    """Binds ``address`` (a path, or ``@name`` for an abstract one) and records until closed.

    It keeps ``room`` descriptors (FileDescriptorStoreMax=).
    """

    def __init__(self, address: str, *, room: int = 0) -> None:
        self.address = address
        self.notices: list[Notice] = []
        #: What is kept, by name, in the order of coming.
        self.kept: list[tuple[str, int]] = []
        #: While it is set, descriptors are closed only when told so: a barrier waits.
        self.slow = threading.Event()
        self._room = room
        self._late: list[int] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._record, name="notify-socket")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()
        for fd in (*self._late, *(fd for _name, fd in self.kept)):
            os.close(fd)

    def _record(self) -> None:
        while True:
            data, ancillary, _flags, _peer = self._socket.recvmsg(65536, 256)
            if not data:
                return
            pid = 0
            fds: list[int] = []
            for level, kind, raw in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("3i", raw[:12])[0]
                elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds += struct.unpack(f"{len(raw) // 4}i", raw)
            notice = Notice(pid, parse(data), len(fds))
            # First: who waits for a barrier finds it recorded.
            self.notices.append(notice)
            self._act(notice, fds)

    def _act(self, notice: Notice, fds: list[int]) -> None:
        fields = dict(notice.fields)
        if "FDSTOREREMOVE" in fields:
            for item in [item for item in self.kept if item[0] == fields["FDNAME"]]:
                self.kept.remove(item)
                os.close(item[1])
        if "FDSTORE" in fields:
            for fd in fds:
                self._keep(fields["FDNAME"], fd, polled=fields.get("FDPOLL") != "0")
        elif self.slow.is_set():
            self._late += fds
        else:
            for fd in fds:
                os.close(fd)

    def _keep(self, name: str, fd: int, *, polled: bool) -> None:
        known = any(os.path.sameopenfile(fd, other) for _name, other in self.kept)
        if known or len(self.kept) >= self._room or (polled and not _can_be_polled(fd)):
            os.close(fd)
        else:
            self.kept.append((name, fd))

    def names(self) -> list[str]:
        """Return the names of what is kept, sorted."""
        return sorted(name for name, _fd in list(self.kept))

    def clear(self) -> None:
        """Close what is kept, as at the stop of the unit."""
        while self.kept:
            os.close(self.kept.pop()[1])

    def status(self) -> str:
        """Return the last STATUS=."""
        said = self.with_field("STATUS")
        return said[-1]["STATUS"] if said else ""

    def with_field(self, name: str) -> list[Notice]:
        return [notice for notice in list(self.notices) if name in notice]

    def states(self) -> list[str]:
        """Return the sequence of READY, RELOADING and STOPPING that was seen."""
        wanted = ("READY", "RELOADING", "STOPPING")
        return [
            name for notice in list(self.notices) for name, _ in notice.fields if name in wanted
        ]
