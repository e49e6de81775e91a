"""Tells when the configuration file may have changed: inotify(7) through pyinotify's binding.

What is watched are folders, not only the file: editors and Kubernetes replace files, they don't
rewrite them. The path is walked name by name and link by link, and every folder on the way is
watched for the one name that leads on; so is the file itself, for writes through another name (a
bind mount). Where the way ends early, the last folder is watched for what is missing.

Invariant: the watches stand before the path is walked for the last time, so whatever changes
afterwards raises an event. What changed before :meth:`FileWatcher.start` is the caller's to find:
it compares digests at boot, which is also why a missed event is no disaster.

Of pyinotify only the system calls are used; its event classes log to stderr and walk trees. It is
imported by ``start``: loading it takes 20 ms and runs ldconfig, which a re-exec can't wait for.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import struct
import threading
import time
from collections.abc import Callable
from enum import Enum

from netclawd.core.values import frozen
from netclawd.errors import NetclawError

#: The content has settled when nothing happened for this long, seconds.
SETTLE_S = 0.2
#: Links that the kernel follows in one path (path_resolution(7)).
LINK_LIMIT = 40
#: Walks of a path that keeps changing before the watcher waits for it to settle.
WALK_LIMIT = 8

#: struct inotify_event: wd, mask, cookie, length of the name that follows.
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


class Role(Enum):
    #: A folder on the way: what matters is that a name appears, goes or is replaced.
    WAY = "way"
    #: The folder where the file should be: writes and permissions matter too.
    FOLDER = "folder"
    FILE = "file"


@frozen
class Place:
    """What is watched at one path."""

    role: Role
    #: Names in the folder that matter; none for a file.
    names: frozenset[str] = frozenset()


#: Starts a thread with this name and target.
Spawn = Callable[[str, Callable[[], None]], threading.Thread]
#: Path to what is watched there.
Plan = dict[str, Place]


class WatchError(NetclawError):
    """The configuration can't be watched."""

    slug = "watch-failed"


class FileWatcher:
    """Watches one configuration file; see :class:`netclawd.ports.Watcher`."""

    def __init__(self, path: str, spawn: Spawn) -> None:
        self._path = os.path.abspath(path)
        self._spawn = spawn
        self._inotify: _Inotify | None = None
        self._plan: Plan = {}
        self._thread: threading.Thread | None = None
        self._wake: tuple[int, int] = (-1, -1)

    def start(self, on_change: Callable[[], None]) -> None:
        """Watch from now on; ``on_change`` is called from the watcher's thread.

        The folder is created if it is absent. Once this returns no later change is missed.
        Raises WatchError, and has then changed nothing but the folder.
        """
        folder = os.path.dirname(self._path)
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
        except OSError as error:
            raise WatchError(
                f"The folder {folder} can't be created: {error.strerror}.", "Create it."
            ) from error
        self._inotify = _Inotify()
        try:
            if not self._arm(self._inotify):
                raise WatchError(
                    f"{self._path} can't be watched: the user's inotify watches are used up.",
                    "Raise fs.inotify.max_user_watches; until then reload by hand.",
                )
            self._wake = os.pipe2(os.O_CLOEXEC)
            self._thread = self._spawn("watch", lambda: self._run(on_change))
        except BaseException:
            self._close()
            raise

    def stop(self) -> None:
        """End the thread and close the descriptors. Idempotent."""
        if self._thread is not None:
            os.write(self._wake[1], b"\0")
            self._thread.join()
            self._thread = None
        self._close()

    def _close(self) -> None:
        for fd in self._wake:
            if fd >= 0:
                os.close(fd)
        self._wake = (-1, -1)
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _run(self, on_change: Callable[[], None]) -> None:
        inotify = self._inotify
        assert inotify is not None
        poll = select.poll()
        poll.register(inotify.fd, select.POLLIN)
        poll.register(self._wake[0], select.POLLIN)
        #: Instant at which the content will have settled, None while nothing has happened.
        settled: float | None = None
        while True:
            left_s = None if settled is None else max(0.0, settled - time.monotonic())
            ready = {fd for fd, _ in poll.poll(None if left_s is None else left_s * 1000 + 1)}
            if self._wake[0] in ready:
                return
            if inotify.fd in ready and self._concerns_us(inotify):
                self._arm(inotify)  # what stands is enough to go on when watches run out
                settled = time.monotonic() + SETTLE_S
            elif settled is not None and time.monotonic() >= settled:
                settled = None
                on_change()

    def _concerns_us(self, inotify: _Inotify) -> bool:
        """Read what has happened; whether any of it can have changed the file."""
        # An event without a name is about the folder or file itself. After an overflow anything
        # may have happened; its watch is unknown.
        return any(
            not name or place is None or name in self._plan[place].names
            for place, name in inotify.read()
        )

    def _arm(self, inotify: _Inotify) -> bool:
        """Watch what the path leads through now, and nothing else; False when watches ran out."""
        complete = True
        for _ in range(WALK_LIMIT):
            self._plan = plan_watches(self._path)
            complete = inotify.watch(self._plan)
            if plan_watches(self._path) == self._plan:
                break
        return complete


def plan_watches(path: str) -> Plan:
    """Walk an absolute path as the kernel does; return what must be watched to see it change."""
    ways: dict[str, set[str]] = {}
    links = 0
    folder, rest = "/", _parts(path)
    while rest:
        name, rest = rest[0], rest[1:]
        if name == "..":
            folder = os.path.dirname(folder)
            continue
        ways.setdefault(folder, set()).add(name)
        entry = os.path.join(folder, name)
        mode = _mode(entry)
        if stat.S_ISLNK(mode) and links < LINK_LIMIT:
            links += 1
            target = _target(entry)
            folder = "/" if target.startswith("/") else folder
            rest = _parts(target) + rest
        elif stat.S_ISDIR(mode) and rest:
            folder = entry
        else:
            return _plan(ways, folder, entry if stat.S_ISREG(mode) and not rest else None)
    return _plan(ways, folder, None)


def _plan(ways: dict[str, set[str]], last: str, file: str | None) -> Plan:
    plan = {
        folder: Place(Role.FOLDER if folder == last else Role.WAY, frozenset(names))
        for folder, names in ways.items()
    }
    return plan if file is None else {**plan, file: Place(Role.FILE)}


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _mode(path: str) -> int:
    """Return type and permissions, 0 where there is nothing to be seen."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:  # gone since: the next walk sees it
        return ""


class _Inotify:
    """One inotify instance and what it watches."""

    def __init__(self) -> None:
        import pyinotify

        self._names = pyinotify
        self._calls = pyinotify.INotifyWrapper.create()
        self.fd = -1 if self._calls is None else self._calls.inotify_init()
        if self.fd < 0:
            reason = "there is no binding" if self._calls is None else self._calls.str_errno()
            raise WatchError(
                f"The configuration can't be watched, inotify fails ({reason}).",
                "Raise fs.inotify.max_user_instances; until then reload by hand.",
            )
        # pyinotify's inotify_init knows no flags.
        os.set_inheritable(self.fd, False)
        os.set_blocking(self.fd, False)
        #: Watch descriptor to path.
        self._paths: dict[int, str] = {}

    def watch(self, plan: Plan) -> bool:
        """Watch what the plan names, stop watching everything else; False when watches ran out.

        What can't be watched (it has just gone, or we may not read it) is passed over: its change
        is seen from above or not at all.
        """
        wanted: dict[int, str] = {}
        complete = True
        for path, place in plan.items():
            wd = self._calls.inotify_add_watch(self.fd, path, self._mask(place.role))
            if wd >= 0:
                wanted[wd] = path
            else:
                complete &= self._calls.get_errno() not in (errno.ENOSPC, errno.ENOMEM)
        for wd in self._paths.keys() - wanted.keys():
            self._calls.inotify_rm_watch(self.fd, wd)
        self._paths = wanted
        return complete

    def _mask(self, role: Role) -> int:
        n = self._names
        written = n.IN_MODIFY | n.IN_CLOSE_WRITE | n.IN_ATTRIB
        replaced = n.IN_CREATE | n.IN_DELETE | n.IN_MOVED_FROM | n.IN_MOVED_TO | n.IN_ONLYDIR
        mask = n.IN_DELETE_SELF | n.IN_MOVE_SELF | n.IN_DONT_FOLLOW
        mask |= 0 if role is Role.WAY else written
        mask |= 0 if role is Role.FILE else replaced
        return int(mask)

    def read(self) -> list[tuple[str | None, str]]:
        """Return what has happened as (path, name in it); None for what isn't known."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return []
        events, offset = [], 0
        while offset < len(data):
            wd, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            name = os.fsdecode(data[offset - length : offset].rstrip(b"\0"))
            # IN_IGNORED only confirms that a watch is gone.
            if not mask & self._names.IN_IGNORED and (wd in self._paths or wd < 0):
                events.append((self._paths.get(wd), name))
        return events

    def close(self) -> None:
        os.close(self.fd)
