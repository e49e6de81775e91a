"""A child process that watches a file with limits on inotify of its own, and tells what it notices.

Run as a program: ``watching.py FILE POLL_S WHERE``. It enters a user namespace, where the limits are its
own, unless WHERE is the number of another user to be, or ``fuse``: a file system mounted on the file's
folder. Then it obeys lines of standard input, and ends with that:

* ``start``, ``state``;
* ``limit NAME VALUE``: of inotify (``max_inotify_instances``, ``max_inotify_watches``);
* ``no-descriptors``, ``descriptors``: from now on none can be opened, or they can again;
* ``content WORD``, ``hang``: of the file system.

On standard output are lines of JSON: ``{"change": CONTENT}``, ``{"state": [MODE, TROUBLE]}``,
``{"error": WORDS}``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netclawd.adapters.watch import FileWatcher
from netclawd.errors import NetclawError
from tests.adapters.fuse import OneFile
from tests.waiting import wait_for


class Watching:
    """The parent's side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.changes: list[str | None] = []
        self.errors: list[str] = []
        self._states: list[tuple[str, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "change" in told:
                self.changes.append(told["change"])
            elif "error" in told:
                self.errors.append(told["error"])
            else:
                self._states.append(tuple(told["state"]))

    def say(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def state(self) -> tuple[str, str]:
        """Ask how it watches: mode and trouble."""
        before = len(self._states)
        self.say("state")
        wait_for(lambda: len(self._states) > before, 10, "the watching child to answer")
        return self._states[-1]

    def expect(self, content: str) -> None:
        """Wait until a change was told at which the file held ``content``."""
        wait_for(lambda: content in self.changes, 10, lambda: f"{content!r} in {self.changes}")
        self.changes.clear()

    @property
    def stopped(self) -> bool:
        """Whether the watcher's end has come; only after the context."""
        return ("stopped", "") in self._states

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(10) == 0
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            assert self._process.stdout is not None
            self._process.stdout.close()


@contextmanager
def watching(file: Path, poll_s: float, where: int | str = "") -> Iterator[Watching]:
    """Run the child; it has not started to watch yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(file), str(poll_s), str(where)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = Watching(process)
    try:
        yield child
    finally:
        child.end()


def replace(file: Path, content: str) -> None:
    """Rename another file over this one."""
    fresh = file.with_name(".fresh")
    fresh.write_text(content)
    fresh.rename(file)


def enter_user_namespace() -> None:
    """Become root of a new user namespace; the process must have one thread."""
    import ctypes

    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000):  # CLONE_NEWUSER
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def limit(name: str, value: str) -> None:
    """Set a limit of this user namespace."""
    Path("/proc/sys/user", name).write_text(value)


def main(path: str, poll_s: float, where: str) -> None:
    # Imported before the privileges go: the other user may not read the code.
    import pyinotify  # noqa: F401

    mounted: OneFile | None = None
    if where == "fuse":
        mounted = OneFile(os.path.dirname(path), os.path.basename(path), "old")
    elif not where:
        enter_user_namespace()
    else:
        uid = int(where)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)

    def on_change() -> None:
        file = Path(path)
        tell(change=file.read_text() if file.exists() else None)

    watcher = FileWatcher(path, spawn, poll_s=poll_s)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "limit":
            limit(words[1], words[2])
        elif words[0] == "content":
            assert mounted is not None
            mounted.change(words[1])
        elif words[0] == "hang":
            assert mounted is not None
            mounted.hang()
        elif words[0] == "start":
            start(watcher, on_change)
        elif words[0] == "no-descriptors":
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
        elif words[0] == "descriptors":
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        else:
            tell(state=[watcher.state().mode.value, watcher.state().trouble])
    watcher.stop()
    tell(state=["stopped", ""])
    if mounted is not None:
        mounted.unmount()


def start(watcher: FileWatcher, on_change: Callable[[], None]) -> None:
    try:
        watcher.start(on_change)
    except NetclawError as error:
        tell(error=str(error))


def tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def spawn(name: str, target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
