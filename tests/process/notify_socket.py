"""A supervisor's notification socket: records every datagram that is sent to it."""

from __future__ import annotations

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


class NotifySocket:
    """Binds ``address`` (a path, or ``@name`` for an abstract one) and records until closed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.notices: list[Notice] = []
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

    def _record(self) -> None:
        while True:
            data, ancillary, _flags, _peer = self._socket.recvmsg(65536, 256)
            if not data:
                return
            pid = 0
            for level, kind, raw in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("3i", raw[:12])[0]
            self.notices.append(Notice(pid, parse(data)))

    def with_field(self, name: str) -> list[Notice]:
        return [notice for notice in list(self.notices) if name in notice]

    def states(self) -> list[str]:
        """Return the sequence of READY, RELOADING and STOPPING that was seen."""
        wanted = ("READY", "RELOADING", "STOPPING")
        return [
            name for notice in list(self.notices) for name, _ in notice.fields if name in wanted
        ]
