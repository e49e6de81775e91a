"""Watches one configuration file: by inotify(7), by looking at it again and again, or by both.

What is watched are folders, not only the file: editors and Kubernetes replace files, they don't
rewrite them. Every folder that the path leads through is watched for the one name that leads on; so
is the file itself, for writes through another name (a bind mount).

Where inotify can't be had, or its limits are used up (at the start or later), the file is looked at
every :data:`POLL_S`; that is a trouble that the status shows, and inotify is tried again from time to
time. Where inotify can't see everything (a network file system, a folder that may not be read) the
file is looked at in addition, which is no trouble.

Invariant: the watches stand before the path is walked for the last time, and the first look is taken
before :meth:`FileWatcher.start` returns, so whatever changes afterwards is noticed. What changed
before is the caller's to find: it compares digests at boot, which is also why a missed event is no
disaster.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable

from netclawd.adapters.watch.content import Content
from netclawd.adapters.watch.inotify import Inotify, InotifyError
from netclawd.adapters.watch.mounts import silent_type
from netclawd.adapters.watch.way import Plan, plan_watches
from netclawd.core.notices import Notice
from netclawd.errors import NetclawError
from netclawd.ports import WatchMode, WatchState

log = logging.getLogger("netclawd.watch")

#: The content has settled when nothing happened for this long, seconds.
SETTLE_S = 0.2
#: Between two looks at the file, seconds.
POLL_S = 2.0
#: How long a stop waits for a look that is being taken, seconds.
STOP_S = 1.0
#: Looks after which inotify is tried again where it was used up.
RETRY_LOOKS = 15
#: Walks of a path that keeps changing before the watcher waits for it to settle.
WALK_LIMIT = 8

#: Starts a thread with this name and target.
Spawn = Callable[[str, Callable[[], None]], threading.Thread]


class WatchError(NetclawError):
    """The configuration can't be watched."""

    slug = "watch-failed"


class FileWatcher:
    """Watches one configuration file; see :class:`netclawd.ports.Watcher`."""

    def __init__(self, path: str, spawn: Spawn, *, poll_s: float = POLL_S) -> None:
        self._path = os.path.abspath(path)
        self._spawn = spawn
        self._poll_s = poll_s
        self._inotify: _Armed | None = None
        #: What polling compares with; None where inotify sees everything.
        self._content: Content | None = None
        self._state = WatchState(WatchMode.INOTIFY)
        #: Monotonic instants: when to look again, and when the content will have settled.
        self._look_at: float | None = None
        self._settled_at: float | None = None
        #: Looks until inotify is tried again.
        self._patience = RETRY_LOOKS
        self._thread: threading.Thread | None = None
        self._wake: tuple[int, int] = (-1, -1)

    def state(self) -> WatchState:
        return self._state

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
        try:
            self._arm()
            self._wake = _pipe()
            self._thread = self._spawn("watch", lambda: self._run(on_change))
        except BaseException:
            self._close()
            raise

    def stop(self) -> None:
        """End the thread and close the descriptors. Idempotent.

        A thread that hangs in a dead network file system is left behind, with what it holds: neither a
        restart nor a stop may wait for that.
        """
        if self._thread is not None:
            os.write(self._wake[1], b"\0")
            self._thread.join(STOP_S)
            if self._thread.is_alive():
                log.warning("the watcher hangs in the file system of %s: left behind", self._path)
                self._wake, self._inotify = (-1, -1), None
            self._thread = None
        self._close()

    def _close(self) -> None:
        for fd in self._wake:
            if fd >= 0:
                os.close(fd)
        self._wake = (-1, -1)
        self._drop_inotify()

    # -- the thread --------------------------------------------------------------------------

    def _run(self, on_change: Callable[[], None]) -> None:
        wake = self._wake[0]
        while True:
            happened = self._wait(wake)
            if wake in happened:
                return
            now = time.monotonic()
            inotify = self._inotify
            if inotify is not None and inotify.fd in happened and inotify.concern_us():
                self._arm()
                self._settled_at = now + SETTLE_S
            if self._look_at is not None and now >= self._look_at:
                self._look(now)
            if self._settled_at is not None and now >= self._settled_at:
                self._settle(now, on_change)

    def _wait(self, wake: int) -> frozenset[int]:
        """Wait until something happens or is due; return the descriptors that are ready."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if self._inotify is not None:
            poll.register(self._inotify.fd, select.POLLIN)
        due = [at for at in (self._look_at, self._settled_at) if at is not None]
        left_s = max(0.0, min(due) - time.monotonic()) if due else None
        return frozenset(fd for fd, _ in poll.poll(None if left_s is None else left_s * 1000 + 1))

    def _look(self, now: float) -> None:
        self._look_at = now + self._poll_s
        if self._inotify is None:
            self._patience -= 1
            if self._patience <= 0:
                self._arm()
        if self._content is not None and self._content.changed():
            self._settled_at = now + SETTLE_S

    def _settle(self, now: float, on_change: Callable[[], None]) -> None:
        """Tell of the change, unless the content has changed meanwhile without an event."""
        if self._content is not None and self._content.changed():
            self._settled_at = now + SETTLE_S
            return
        self._settled_at = None
        on_change()

    # -- inotify or not ----------------------------------------------------------------------

    def _arm(self) -> None:
        """Watch what the path leads through now, and nothing else; look at it where that isn't enough."""
        try:
            self._inotify = self._inotify or _Armed()
            polls = self._inotify.arm(self._path)
        except InotifyError as error:
            self._drop_inotify()
            self._patience = RETRY_LOOKS
            self._poll()
            trouble = f"The configuration file is watched by polling: {error}"
            self._enter(WatchState(WatchMode.POLLING, trouble))
            return
        if polls:
            self._poll()
            self._enter(WatchState(WatchMode.BOTH))
        else:
            if self._content is not None and self._content.changed():
                self._settled_at = time.monotonic() + SETTLE_S
            self._content = self._look_at = None
            self._enter(WatchState(WatchMode.INOTIFY))

    def _poll(self) -> None:
        if self._content is None:
            self._content = Content(self._path)
            self._look_at = time.monotonic() + self._poll_s

    def _enter(self, state: WatchState) -> None:
        if state.mode is not self._state.mode:
            if state.trouble:
                log.warning("%s", state.trouble, extra={"MESSAGE_ID": Notice.DEGRADED})
            else:
                log.info("configuration file watched by %s", state.mode)
        self._state = state

    def _drop_inotify(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None


def _pipe() -> tuple[int, int]:
    try:
        return os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise WatchError(
            f"The configuration file can't be watched: {error.strerror}.",
            "Raise LimitNOFILE= or `ulimit -n`, and run `netclaw daemon restart`.",
        ) from error


class _Armed(Inotify):
    """An inotify instance that watches a path."""

    def __init__(self) -> None:
        super().__init__()
        self._plan: Plan = {}

    def arm(self, path: str) -> bool:
        """Watch what the path leads through; whether something there can change without an event."""
        whole = True
        for _ in range(WALK_LIMIT):
            self._plan = plan_watches(path)
            whole = self.watch(self._plan)
            if plan_watches(path) == self._plan:
                break
        return not whole or silent_type(self._plan) is not None

    def concern_us(self) -> bool:
        """Read what has happened; whether any of it can have changed the file."""
        # An event without a name is about the folder or file itself. After an overflow anything
        # may have happened; its watch is unknown.
        return any(
            not name or place is None or name in self._plan[place].names
            for place, name in self.read()
        )
