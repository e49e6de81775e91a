"""A daemon under a supervisor that keeps its descriptors, as systemd does with a unit of ``Restart=``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.process.harness import Daemon
from tests.process.notify_socket import NotifySocket

#: Does what systemd does between fork and exec: argv is the names, the descriptors, and the command.
_ACTIVATE = """
import fcntl, os, sys
names, numbers, command = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
lifted = [fcntl.fcntl(int(n), fcntl.F_DUPFD_CLOEXEC, 3 + len(numbers)) for n in numbers]
for place, fd in enumerate(lifted, 3):
    os.dup2(fd, place, inheritable=True)
for n in numbers:
    if int(n) >= 3 + len(numbers):
        os.close(int(n))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(lifted)), LISTEN_FDNAMES=names)
os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


class Supervised(Daemon):
    """What ``supervisor`` keeps is handed over at each start."""

    def __init__(
        self, supervisor: NotifySocket, *, watchdog_s: float = 0.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.supervisor = supervisor
        self.environment["NOTIFY_SOCKET"] = supervisor.address
        if watchdog_s:
            self.environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))

    def command(self) -> list[str]:
        kept = list(self.supervisor.kept)
        names, numbers = ":".join(name for name, _ in kept), " ".join(str(fd) for _, fd in kept)
        return [sys.executable, "-c", _ACTIVATE, names, numbers, *super().command()]

    def spawn(self, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        return super().spawn([*pass_fds, *(fd for _name, fd in self.supervisor.kept)])
