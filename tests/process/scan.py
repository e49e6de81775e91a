"""The service folders of s6/ under a real s6-svscan, for the daemon of one home; nothing survives the test.

They are copied as they are, but for one thing: root's daemon stays root's, since this system need not have
the service user. tests/container drops the privileges.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from netclawd.cli import s6
from netclawd.core.container import Container
from netclawd.core.s6 import Service
from netclawd.errors import SupervisorError
from tests.process.process_facts import arguments
from tests.waiting import scaled, wait_for

SOURCE = Path(__file__).parents[2] / "s6" / "etc" / "s6-overlay" / "s6-rc.d"
_MISSING = [name for name in ("s6-svscan", "s6-log", "execlineb") if shutil.which(name) is None]
needs_s6 = pytest.mark.skipif(
    bool(_MISSING), reason=f"needs s6 and execline (`make setup-tests` installs them): {_MISSING}"
)
#: What only s6-rc reads.
_OF_S6_RC = shutil.ignore_patterns("type", "dependencies.d", "*-for", "pipeline-name")
_PRIVILEGED, _UNPRIVILEGED = "eltest ${uid} -eq 0", "eltest ${uid} -eq -1"


class Scan:
    """A scan folder and its s6-svscan. Use as a context manager."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "scan"
        self.service = self.folder / "netclawd"
        self.output = home / "container.log"
        self.process: subprocess.Popen[bytes] | None = None
        shutil.copytree(SOURCE / "netclawd", self.service, ignore=_OF_S6_RC)
        shutil.copytree(SOURCE / "netclawd-log", self.service / "log", ignore=_OF_S6_RC)
        for run in (self.service / "run", self.service / "log" / "run"):
            text = run.read_text()
            assert _PRIVILEGED in text
            run.write_text(text.replace(_PRIVILEGED, _UNPRIVILEGED))

    @property
    def container(self) -> Container:
        return Container("s6", str(self.service))

    def environment(self) -> dict[str, str]:
        """Return that of everything in this container."""
        programs = os.path.dirname(sys.executable)
        return {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "NETCLAW_HOME": str(self.home),
            "NETCLAW_CONTAINER_SUPERVISOR": "s6",
            "NETCLAW_S6_SERVICE": str(self.service),
        }

    def keep_down(self) -> None:
        """Let s6 not start the service by itself."""
        (self.service / "down").touch()

    def start(self) -> Self:
        """Start s6-svscan, and wait until s6-supervise watches the service."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                ["s6-svscan", str(self.folder)],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_for(self._is_watched, 10.0, "s6-supervise to watch the service")
        return self

    def _is_watched(self) -> bool:
        try:
            return self.look() is not None
        except SupervisorError:
            return False

    def look(self) -> Service:
        return s6.look(self.container)

    def control(self, *options: str) -> None:
        """Call s6-svc(8), as an operator does."""
        subprocess.run(["s6-svc", *options, str(self.service)], check=True)

    def wait_serving(self, *, other_than: int = 0) -> int:
        """Wait until s6 has a daemon ready, and return its PID."""

        def serving() -> int:
            service = self.look()
            return service.pid if service.serves and service.pid != other_than else 0

        return wait_for(serving, 20.0, lambda: f"a daemon to be ready\n{self.words()}")

    def wait_waiting(self, at_least_s: float = 0.0) -> int:
        """Wait until netclawd-wait stands between two starts, for so long; return its PID."""

        def waiting() -> int:
            service = self.look()
            return service.pid if (service.starts_in_s or 0.0) > at_least_s else 0

        return wait_for(waiting, 20.0, lambda: f"netclawd-wait to wait\n{self.words()}")

    def daemons(self) -> list[int]:
        """Return the PIDs of all daemons of this home, whoever started them."""
        entry = f"NETCLAW_HOME={self.home}".encode()
        found = []
        for place in Path("/proc").iterdir():
            try:
                words = arguments(int(place.name)) if place.name.isdigit() else [b""]
                # `s6-supervise netclawd` is named by the service.
                ours = words[0] != b"s6-supervise" and b"netclawd" in map(
                    os.path.basename, words[:4]
                )
                if ours and entry in (place / "environ").read_bytes().split(b"\0"):
                    found.append(int(place.name))
            except OSError:  # it has ended
                continue
        return sorted(found)

    def words(self) -> str:
        """Return what the container has printed."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def end(self) -> None:
        """Stop it as an operator does, which drains the daemon."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(scaled(40.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.end()
        except subprocess.TimeoutExpired:
            assert self.process is not None
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            if kind is not None:
                sys.stdout.write(self.words())
