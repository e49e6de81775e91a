"""One inotify instance and what it watches, through pyinotify's binding.

Of pyinotify only the system calls are used; its event classes log to stderr and walk trees. It is
imported by the first instance: loading it takes 20 ms and runs ldconfig, which a re-exec can't wait
for.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import cache
from typing import Any

from netclawd.adapters.watch.way import Plan, Role
from netclawd.errors import NetclawError

#: struct inotify_event: wd, mask, cookie, length of the name that follows.
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


class InotifyError(NetclawError):
    """inotify can't be had, or not for all that must be watched."""

    slug = "inotify-failed"


@cache
def _binding() -> tuple[Any, Any]:
    """Return pyinotify and its system calls, once: looking for them starts a process."""
    try:
        import pyinotify
    except ImportError as error:
        raise InotifyError(
            f"pyinotify can't be imported ({error}).",
            "Install it for this Python (Debian: python3-pyinotify).",
        ) from error
    calls = pyinotify.INotifyWrapper.create()
    if calls is None:
        raise InotifyError("The C library knows no inotify.", "Use one that does.")
    return pyinotify, calls


class Inotify:
    def __init__(self) -> None:
        """Open an instance; InotifyError says why there is none and what to do."""
        self._names, self._calls = _binding()
        self.fd: int = self._calls.inotify_init()
        if self.fd < 0:
            raise _no_instance(self._calls.get_errno())
        # pyinotify's inotify_init knows no flags.
        os.set_inheritable(self.fd, False)
        os.set_blocking(self.fd, False)
        #: Watch descriptor to path.
        self._paths: dict[int, str] = {}

    def watch(self, plan: Plan) -> bool:
        """Watch what the plan names and stop watching everything else.

        False when something there may not be read, so that its changes are not seen; what has just
        gone is seen from above. InotifyError when the watches are used up.
        """
        wanted: dict[int, str] = {}
        whole = True
        for path, place in plan.items():
            wd = self._add(path, self._mask(place.role))
            if wd >= 0:
                wanted[wd] = path
                continue
            code = self._calls.get_errno()
            if code in (errno.ENOSPC, errno.ENOMEM):
                raise _no_watch(code)
            whole &= code not in (errno.EACCES, errno.EPERM)
        for wd in self._paths.keys() - wanted.keys():
            self._calls.inotify_rm_watch(self.fd, wd)
        self._paths = wanted
        return whole

    def _add(self, path: str, mask: int) -> int:
        try:
            wd: int = self._calls.inotify_add_watch(self.fd, path, mask)
        except UnicodeEncodeError as error:
            raise InotifyError(
                "Its path has a name that is not UTF-8, which pyinotify can't pass on.",
                "Give the folders on the way names in UTF-8.",
            ) from error
        return wd

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


def _no_instance(code: int) -> InotifyError:
    reason = os.strerror(code)
    if code != errno.EMFILE:
        return InotifyError(f"inotify fails ({reason}).", "Allow the daemon inotify_init(2).")
    try:  # The number of descriptors has the same error as that of instances.
        os.close(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError:
        return InotifyError(
            "The daemon has no descriptor left for inotify.", "Raise LimitNOFILE= or `ulimit -n`."
        )
    return InotifyError(
        f"The inotify instances of this user (uid {os.geteuid()}) are used up.",
        "Raise fs.inotify.max_user_instances with sysctl(8).",
    )


def _no_watch(code: int) -> InotifyError:
    if code == errno.ENOSPC:
        return InotifyError(
            f"The inotify watches of this user (uid {os.geteuid()}) are used up.",
            "Raise fs.inotify.max_user_watches with sysctl(8).",
        )
    return InotifyError(f"inotify fails ({os.strerror(code)}).", "Give the host more memory.")
