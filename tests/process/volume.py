"""A small file system of its own for a daemon under test: it fills up, and it can turn read-only.

A tmpfs in a mount namespace that a child holds until the end of the test; needs root. The daemon
enters it by nsenter(1); the test looks into it through /proc/PID/root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.process.harness import Daemon
from tests.waiting import scaled

#: Ends with its standard input, and by itself after two minutes.
_HOLD = 'mount -t tmpfs -o "size=$2,mode=700" test "$1" && echo && exec timeout 120 cat'


class Volume:
    """Mounted over the daemon's state folder; the daemon is started inside."""

    def __init__(self, daemon: Daemon, size: str) -> None:
        self._folder = daemon.home / "state"
        self._folder.mkdir(exist_ok=True)
        self._holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", _HOLD, "sh", str(self._folder), size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n", "the file system could not be mounted"
        daemon.prefix = self._enter()

    def _enter(self) -> list[str]:
        return ["nsenter", "-t", str(self._holder.pid), "-m"]

    @property
    def root(self) -> Path:
        """The state folder, as seen from here."""
        return Path(f"/proc/{self._holder.pid}/root{self._folder}")

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all the room but this."""
        with open(self.root / "filler", "ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass  # Full.
            os.truncate(filler.fileno(), max(0, filler.tell() - leave_bytes) // 4096 * 4096)

    def make_room(self) -> None:
        (self.root / "filler").unlink()

    def remount(self, options: str) -> None:
        command = [*self._enter(), "mount", "-o", f"remount,{options}", str(self._folder)]
        subprocess.run(command, check=True, timeout=scaled(10))

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()
