"""Stages in namespaces: a plain s6 whose parent is an init, and s6-svscan as PID 1.

Each is a machine (:mod:`tests.systemd.machine`) on the root folder that :mod:`tests.container.rootfs` makes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.container import rootfs
from tests.container.stage import CONFIG, ENVIRONMENT, STATE
from tests.systemd import machine
from tests.systemd.machine import Machine
from tests.systemd.roots import CLONE
from tests.waiting import scaled, wait_for

#: Code that takes the place of the package's: what tests/guards.py has broken.
SOURCE = os.path.abspath(found) if (found := os.environ.get("TEST_SOURCE")) else None
CODE = "/usr/lib/python3/dist-packages/netclawd"


class Namespace(Machine):
    """s6-svscan is PID 1, and its end is the container's."""

    service = "/run/service/netclawd"
    boot: tuple[str, ...] = ("overlay",)

    def __init__(
        self,
        *,
        user: int = 0,
        read_only: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        assert rootfs.ROOT.is_dir(), f"no {rootfs.ROOT}: run `make test-container`"
        super().__init__(rootfs.ROOT)
        self.user = user
        self.read_only = read_only
        self.environment = {
            "LANG": "C.UTF-8",
            # The image has /command there, for execline; Debian's execline is elsewhere.
            "PATH": f"{machine.ENVIRONMENT['PATH']}:/usr/lib/execline/bin",
            **ENVIRONMENT,
            **(environment or {}),
        }
        self.config = self._volume("config")
        self.state = self._volume("state")

    def _volume(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        os.chown(place, self.user, 0)
        return place

    def __enter__(self) -> Self:
        return self

    # -- life --------------------------------------------------------------------------------

    def start(self) -> None:
        assert self._outside is None, "it runs already"
        self.pid = 0
        self._start()
        wait_for(self._supervised, 20.0, lambda: f"a supervised service\n{self.words()}")

    def first_command(self, stage: Path) -> list[str]:
        plan = {
            "root": str(self.root),
            "stage": str(stage),
            "console": str(self.console),
            "volumes": {CONFIG: str(self.config), STATE: str(self.state)},
            "laid_over": {CODE: f"{SOURCE}/netclawd"} if SOURCE else {},
            "read_only": self.read_only,
            "user": self.user,
            "command": [rootfs.BOOT, *self.boot],
            "environment": dict(self.environment),
        }
        furnish = "import runpy; runpy.run_module('tests.container.furnish', run_name='__main__')"
        path = f"import sys; sys.path.insert(0, {str(CLONE)!r}); "
        return [sys.executable, "-I", "-c", path + furnish, json.dumps(plan)]

    def _supervised(self) -> bool:
        self._check_alive()
        self.pid = self.pid or self._child()
        root = Path(f"/proc/{self.pid}/root")
        # Before that a question would reach our own root folder, which has neither.
        entered = self.pid != 0 and Path(f"{root}{rootfs.BOOT}").exists()
        return (
            entered
            and not (root / ".old").exists()
            and self.run("s6-svstat", self.service, check=False).code == 0
        )

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait_end(self, timeout_s: float) -> int:
        assert self._outside is not None
        try:
            code = self._outside.wait(scaled(timeout_s))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {timeout_s} s\n{self.words()}") from None
        self._ended()
        return code

    def kill(self) -> None:
        assert self._outside is not None
        self._outside.kill()
        self._outside.wait(scaled(30.0))
        self._ended()

    def _ended(self) -> None:
        self._outside = None
        wait_for(lambda: machine.remove_cgroup(self._cgroup), 10.0, f"{self._cgroup} to be empty")
        (self.folder / "stage").rmdir()

    # -- inside ------------------------------------------------------------------------------

    def _popen(self, *command: str, user: str | None, stdin: int) -> subprocess.Popen[bytes]:
        own = str(self.user) if self.user else None
        return super()._popen(*command, user=user or own, stdin=stdin)

    def become(self, user: str) -> list[str]:
        """A number is a user that no file knows; its group is root's, as runtimes give it."""
        group, groups = ("0", "--clear-groups") if user.isdigit() else (user, "--init-groups")
        return ["setpriv", f"--reuid={user}", f"--regid={group}", groups, "--"]

    def words(self, limit: int = 1_000_000) -> str:
        return self.console.read_text(errors="replace")[-limit:]


class Plain(Namespace):
    """s6-svscan is the child of an init that knows nothing of it."""

    service = "/srv/s6/netclawd"
    boot = ("plain", "/srv/s6")

    def __init__(self, *, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(environment={"NETCLAW_S6_SERVICE": self.service, **(environment or {})})
