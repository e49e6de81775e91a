"""A machine under test: a real systemd as PID 1 of namespaces of its own, on an overlay of a root folder.

It has a network of its own with nothing but loopback, so ports can't clash, and several run beside each
other. What it writes goes to memory. Nothing of it survives: its processes die with PID 1, PID 1 dies with
this process, the mounts go with their namespace, and the cgroups are removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.waiting import scaled, wait_for

STAGE = Path(__file__).with_name("stage.py")
ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SYSTEMD_PAGER": "",
}
#: What a machine leaves outside while it runs is called so, then by the PID of who booted it.
PREFIX = "netclawd-machine-"
CLONE_NEWNET = 0x40000000

_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Result:
    """What a command inside a machine came to."""

    command: str
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"{self.command}: exit {self.code}\n{self.out}{self.err}"


class Machine:
    """One machine, booted on entry of the context and gone after it."""

    #: What a command inside finds in its environment, and nothing else.
    environment: Mapping[str, str] = ENVIRONMENT

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.console = self.folder / "console"
        self._cgroup = _cgroup2() / f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self._outside: subprocess.Popen[bytes] | None = None
        #: PID of its systemd as this system sees it.
        self.pid = 0

    # -- life --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_booted()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        _remove_stale()
        self._cgroup.mkdir()
        stage = self.folder / "stage"
        stage.mkdir()
        self.console.touch()
        # In its cgroup before the namespaces are made: the cgroup namespace begins where it is then.
        into_cgroup = f"echo $$ >{shlex.quote(str(self._cgroup / 'cgroup.procs'))} && exec"
        namespaces = "--mount --pid --uts --ipc --net --cgroup --fork --kill-child"
        inside = shlex.join(self.first_command(stage))
        with open(self.console, "ab") as console:
            self._outside = subprocess.Popen(
                [
                    "sh",
                    "-c",
                    f"{into_cgroup} setpriv --pdeathsig KILL unshare {namespaces} {inside}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={"PATH": os.environ["PATH"]},
                start_new_session=True,
            )

    def first_command(self, stage: Path) -> list[str]:
        """Return what becomes its PID 1; ``stage`` is an empty folder to work in."""
        return [sys.executable, "-I", str(STAGE), str(self.root), str(stage), str(self.console)]

    def _wait_booted(self) -> None:
        def running() -> bool:
            self._check_alive()
            self.pid = self.pid or self._child()
            place = Path(f"/proc/{self.pid}")
            # Only the root folder of the new systemd has this socket: never ask ours.
            return (
                self.pid != 0
                and (place / "comm").read_text() == "systemd\n"
                and (place / "root/run/systemd/private").is_socket()
            )

        wait_for(running, 20.0, lambda: f"a machine on {self.root} to boot\n{self.words()}")
        state = self.run("systemctl", "is-system-running", "--wait", timeout_s=60.0, check=False)
        assert state.out.strip() == "running", f"{state}\n{self._failed_units()}\n{self.words()}"

    def _child(self) -> int:
        assert self._outside is not None
        return next(iter(_children(self._outside.pid)), 0)

    def _check_alive(self) -> None:
        assert self._outside is not None, "it was not started"
        code = self._outside.poll()
        assert code is None, f"the machine ended with {code}\n{self.words()}"

    def _failed_units(self) -> str:
        return self.run("systemctl", "--failed", "--no-legend", check=False).out

    def words(self, limit: int = 4000) -> str:
        """Return the end of what was written to its console."""
        return f"--- console ---\n{self.console.read_text(errors='replace')[-limit:]}"

    def power_off(self, timeout_s: float = 60.0) -> None:
        """Let its systemd stop everything, and wait until it has ended."""
        assert self._outside is not None
        os.kill(self.pid, signal.SIGRTMIN + 4)  # systemd(1): starts poweroff.target
        self._outside.wait(scaled(timeout_s))

    def close(self) -> None:
        """End it at once, whatever state it is in, and remove what it used."""
        try:
            if self._outside is not None:
                self._outside.kill()  # --kill-child: PID 1 goes too, and with it the namespace
                self._outside.wait(scaled(30.0))
        finally:
            wait_for(lambda: remove_cgroup(self._cgroup), 10.0, f"{self._cgroup} to be empty")
            shutil.rmtree(self.folder)

    # -- inside ------------------------------------------------------------------------------

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout_s: float = 30.0,
        user: str | None = None,
        stdin: str | bytes = "",
    ) -> Result:
        """Run a command inside, as root or as ``user``; it is killed when its time is over."""
        with self._popen(*command, user=user, stdin=subprocess.PIPE) as process:
            raw = stdin.encode() if isinstance(stdin, str) else stdin
            try:
                out, err = process.communicate(raw, scaled(timeout_s))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                words = (out + err).decode(errors="replace")
                raise AssertionError(
                    f"{shlex.join(command)} took more than {scaled(timeout_s):g} s: {words}"
                ) from None
        result = Result(
            shlex.join(command),
            process.returncode,
            out.decode(errors="replace"),
            err.decode(errors="replace"),
        )
        assert not check or result.code == 0, f"{result}"
        return result

    @contextlib.contextmanager
    def running(self, *command: str, user: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command inside while the body does something else; it is killed after it."""
        with self._popen(*command, user=user, stdin=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                inside = _children(process.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                # nsenter goes at once; what it ran gives back its ports when it has gone itself.
                wait_for(
                    lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside),
                    10.0,
                    f"{command} to end",
                )

    def _popen(self, *command: str, user: str | None, stdin: int) -> subprocess.Popen[bytes]:
        self._check_alive()
        become = self.become(user) if user else []
        return subprocess.Popen(
            ["/usr/bin/nsenter", "-t", str(self.pid), "-a", *become, *command],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd="/",
            start_new_session=True,
        )

    def become(self, user: str) -> list[str]:
        """Return what a command of another user begins with."""
        return ["runuser", "-u", user, "--"]

    def read(self, path: str) -> str:
        return self.run("cat", path).out

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file in place, its folder made if absent. Never by /proc/PID/root: an absolute
        symbolic link inside would lead outside."""
        self.run("mkdir", "-p", os.path.dirname(path))
        self.run("dd", f"of={path}", "status=none", stdin=content)

    def copy_in(self, source: Path, path: str) -> None:
        self.write(path, source.read_bytes())

    def exists(self, path: str) -> bool:
        return self.run("test", "-e", path, check=False).code == 0

    def proc(self, pid: int, name: str) -> Path:
        """Return the place of a file in /proc about a process inside."""
        return Path(f"/proc/{self.pid}/root/proc/{pid}/{name}")

    def namespace(self, kind: str) -> Path:
        """Return the identity of one of its namespaces, as a link in /proc tells it."""
        return Path(f"/proc/{self.pid}/ns/{kind}").readlink()

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Put this thread, and those that it starts, into the machine's network."""
        with open("/proc/self/ns/net") as home, open(f"/proc/{self.pid}/ns/net") as away:
            _setns(away.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _cgroup2() -> Path:
    """Return where cgroup v2 is mounted; on a hybrid system that is a folder beside the others."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise AssertionError("cgroup v2 is not mounted: no systemd can be booted here")


def remove_cgroup(cgroup: Path) -> bool:
    """Remove a cgroup with all below it, deepest first; return whether it is gone."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not cgroup.exists()


def _remove_stale() -> None:
    """Remove what test runs that were killed have left."""
    for place in (*_cgroup2().glob(f"{PREFIX}*"), *Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        owner = place.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            remove_cgroup(place)
            shutil.rmtree(place, ignore_errors=True)
