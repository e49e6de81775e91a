"""podman in namespaces of its own: all that it starts ends with this process, and the system stays as it is.

crun wants /sys/fs/cgroup to be a pure cgroup v2 and may not raise a limit that this process may not raise;
both are arranged here. What is built and run lies in a folder that is removed; the base image, which takes
longest, stays in build/container/images until the packages in it change.
"""

from __future__ import annotations

import fcntl
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

from tests.systemd import machine
from tests.systemd.machine import Machine, Result
from tests.systemd.roots import CLONE
from tests.waiting import wait_for

FOLDER = CLONE / "build" / "container"
#: The images that outlive a test run, for every engine to read.
KEPT = FOLDER / "images"
#: What is made and run lies in a folder called so, then by the PID of who made it.
GRAPH = "podman-"
#: What becomes PID 1: it mounts what crun looks at, and reaps.
INIT = """
import os, signal, subprocess, sys
def run(*command): return subprocess.run(command, stderr=subprocess.DEVNULL).returncode
run("mount", "--make-rprivate", "/")
run("umount", "--recursive", "/sys/fs/cgroup") and run("umount", "--lazy", "/sys/fs/cgroup")
subprocess.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"], check=True)
subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
open(sys.argv[1], "w").close()
while True: signal.pause()
"""


class NoPodmanError(Exception):
    """podman doesn't run here; the words say why."""


class Engine(Machine):
    """podman, ready on entry of the context, with an image of Debian; gone after it with all that it ran."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        #: Its name says what is in it.
        self.base = f"localhost/{base.name}:1"
        self.console.touch()
        # An overlay can't lie on every file system of a temporary folder: on that of the clone it can.
        self.graph = FOLDER / f"{GRAPH}{self.folder.name.removeprefix(machine.PREFIX)}"

    def __enter__(self) -> Engine:
        if shutil.which("podman") is None:
            raise NoPodmanError("podman is not installed")
        _remove_stale()
        ready = self.folder / "ready"
        self.environment = {**machine.ENVIRONMENT, **self._settings(self.graph, shared=True)}
        try:
            self._start()
            wait_for(ready.exists, 20.0, lambda: f"namespaces for podman\n{self.words()}")
            self.pid = self._child()
            self._import_base()
            self._try()
        except BaseException:
            self.close()
            raise
        return self

    def first_command(self, stage: Path) -> list[str]:
        return [sys.executable, "-I", "-c", INIT, str(stage.parent / "ready")]

    def close(self) -> None:
        try:
            super().close()
        finally:
            shutil.rmtree(self.graph, ignore_errors=True)

    def _settings(self, graph: Path, *, shared: bool) -> dict[str, str]:
        """Write podman's settings; return the environment that names them."""
        limits = ", ".join(
            f'"{name}={soft}:{hard}"'
            for name, (soft, hard) in (
                ("nofile", resource.getrlimit(resource.RLIMIT_NOFILE)),
                ("nproc", resource.getrlimit(resource.RLIMIT_NPROC)),
            )
        )
        containers = self.folder / "containers.conf"
        containers.write_text(
            f'[containers]\ndefault_ulimits = [{limits}]\ncgroups = "disabled"\nnetns = "none"\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "crun"\n'
        )
        storage = self.folder / f"storage-{shared}.conf"
        others = f'[storage.options]\nadditionalimagestores = ["{KEPT}"]\n' if shared else ""
        storage.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{graph}"\n'
            f'runroot = "{self.folder}/run-{shared}"\n{others}'
        )
        return {"CONTAINERS_CONF": str(containers), "CONTAINERS_STORAGE_CONF": str(storage)}

    def _import_base(self) -> None:
        """Have the base image in the kept store, made of the root folder of Debian."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        KEPT.mkdir(exist_ok=True)
        with open(FOLDER / ".images.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.podman("image", "exists", self.base, check=False).code == 0:
                return
            shutil.rmtree(KEPT)
            KEPT.mkdir()
            own = [f"{k}={v}" for k, v in self._settings(KEPT, shared=False).items()]
            # Crash: half an image has no name yet.
            pipe = 'tar --directory="$1" --create . | env "$3" "$4" podman import --quiet - "$2"'
            self._judge(
                self.run(
                    "sh",
                    "-c",
                    pipe,
                    "sh",
                    str(self.root),
                    self.base,
                    *own,
                    check=False,
                    timeout_s=300.0,
                )
            )

    def _try(self) -> None:
        """Find out whether it can run anything at all."""
        self._judge(self.podman("run", "--rm", "--pull=never", self.base, "/bin/true", check=False))

    @staticmethod
    def _judge(result: Result) -> None:
        if result.code != 0:
            raise NoPodmanError(f"podman does not run here: {result}")

    def podman(self, *words: str, check: bool = True, timeout_s: float = 60.0) -> Result:
        return self.run("podman", *words, check=check, timeout_s=timeout_s)

    def spawn(self, *command: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command that goes on, its words going to a file."""
        return subprocess.Popen(
            ["/usr/bin/nsenter", "-t", str(self.pid), "-a", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=self.environment,
            cwd="/",
            start_new_session=True,
        )

    def pid_here(self, pid: int) -> int:
        """Return as this system sees it the PID of what podman knows as ``pid``."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                lines = status.read_text().splitlines()
            except OSError:
                continue  # It has just ended.
            known = next((it.split()[1:] for it in lines if it.startswith("NSpid:")), [])
            # Its namespace of PIDs is the one below ours, and its own PID 1 is below that.
            if len(known) > 1 and known[1] == str(pid) and self._is_ours(int(known[0])):
                return int(known[0])
        return 0

    def _is_ours(self, pid: int) -> bool:
        while pid > 1 and pid != self.pid:
            try:
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                return False
        return pid == self.pid


def _remove_stale() -> None:
    """Remove what test runs that were killed have left; their containers ended with them."""
    for graph in FOLDER.glob(f"{GRAPH}*"):
        owner = graph.name.removeprefix(GRAPH).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(graph, ignore_errors=True)
