"""One command: started clean, followed to its end, and ended with all that it has started.

The shell is the leader of a session of its own and is not waited for until nothing of the session is
left, so that the session's number belongs to nobody else meanwhile. The ending is always the same: TERM
to all (:mod:`marked`), two seconds, KILL until nobody is found. What the shell leaves running when it
has ended by itself is ended too. Only its own PIDs are waited for: nobody's status is taken away.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from enum import Enum, auto

from netclawd.adapters.tools import marked
from netclawd.adapters.tools.output import Output
from netclawd.core.values import frozen

#: From TERM to KILL, seconds.
GRACE_S = 2.0
#: What the shell has left running may end by itself in so many seconds.
_AFTERWARDS_S = 0.3
#: KILL is repeated for at most so long: something in the kernel may hold a process.
_KILL_S = 3.0
#: Between two looks for what is left, and after a KILL, seconds.
_LOOK_S = 0.05
_KILLED_S = 0.002
#: Between two waits for orphans that have ended, seconds.
_TIDY_S = 2.0
#: The same at the beginning, and while so many end between two of them.
_MANY, _TIDY_SOON_S = 16, 0.05
#: Bytes read at a time, and from a pipe whose writers have been ended.
_PIECE, _MOST_DRAINED = 65_536, 4_194_304

#: Enters the folder, takes back the raised limit of descriptors, becomes the shell of the command.
_BEGIN = 'cd -- "$0" || exit 126; ulimit -S -n 1024 2>/dev/null; exec /bin/sh -c "$1"'


class Why(Enum):
    """Why a command has ended."""

    EXITED = auto()
    TIMEOUT = auto()
    TOO_MUCH = auto()
    CANCELLED = auto()


@frozen
class Ended:
    why: Why
    #: As os.waitpid gives it.
    status: int
    #: How many processes the shell has left running, and how many couldn't be ended.
    left: int
    immortal: int


class Command:
    def __init__(
        self, text: str, workspace: str, environ: Mapping[str, str], mark: Collection[bytes]
    ) -> None:
        """Start it; raises OSError when that can't be done."""
        self._mark = mark
        #: Set by :meth:`end`, to be obeyed by :meth:`follow`.
        self._wish: Why | None = None
        self._at_once = False
        self._lock = threading.Lock()
        self._is_over = False
        with contextlib.ExitStack() as until_begun:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            until_begun.callback(os.close, self._wake)
            self._pipe, writer = os.pipe2(os.O_CLOEXEC)
            until_begun.callback(os.close, self._pipe)
            os.set_blocking(self._pipe, False)
            # Not select(2): a descriptor of ours may have any number.
            self._printed = select.poll()
            self._printed.register(self._pipe, select.POLLIN)
            try:
                self.pid = _spawn(text, workspace, environ, writer)
            finally:
                os.close(writer)
            self._leader = self._open_leader()
            until_begun.callback(os.close, self._leader)
            self._open = until_begun.pop_all()
        leader = marked.see(self.pid)
        #: Nothing of it is older.
        self._since = leader.start if leader is not None else 0

    def _open_leader(self) -> int:
        try:
            return os.pidfd_open(self.pid)
        except OSError:  # No descriptor is left.
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise

    def end(self, *, at_once: bool = False) -> None:
        """Have it ended, ``at_once``: by KILL; from any thread, while :meth:`follow` runs."""
        with self._lock:
            if self._is_over:
                return
            self._wish = Why.CANCELLED
            self._at_once = self._at_once or at_once
            os.eventfd_write(self._wake, 1)

    def follow(self, output: Output, timeout_s: float, tidy: Callable[[], None]) -> Ended:
        """Take in what it prints until it has ended; nothing of it is left then.

        ``tidy`` is called every few seconds.
        """
        try:
            why = self._await_end(output, time.monotonic() + timeout_s, tidy)
            rest, left = self._rest(), 0
            if rest and why is Why.EXITED:
                self._pump(output, _AFTERWARDS_S)
                rest = self._rest()
                left = len(rest)
            immortal = self._end_all(rest, output) if rest else 0
            self._drain(output)
            _pid, status = os.waitpid(self.pid, 0)
            return Ended(why, status, left, immortal)
        finally:
            with self._lock:
                self._is_over = True
                self._open.close()

    def _await_end(self, output: Output, deadline: float, tidy: Callable[[], None]) -> Why:
        tidy_at, pause_s = time.monotonic() + _TIDY_S, _TIDY_SOON_S
        poll = select.poll()
        for descriptor in (self._pipe, self._wake, self._leader):
            poll.register(descriptor, select.POLLIN)
        while self._wish is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return Why.TIMEOUT
            soon = marked.reap_group(self.pid) > _MANY
            pause_s = _TIDY_SOON_S if soon else min(2 * pause_s, _TIDY_S)
            ready = {fd for fd, _event in poll.poll(min(left_s, pause_s) * 1000)}
            if time.monotonic() >= tidy_at:
                tidy()
                tidy_at = time.monotonic() + _TIDY_S
            if self._pipe in ready and not self._take_in(output):
                poll.unregister(self._pipe)
            if output.is_full:
                return Why.TOO_MUCH
            if self._leader in ready:
                return Why.EXITED
        return self._wish

    # -- what it prints --------------------------------------------------------------------------

    def _has_printed(self, timeout_s: float) -> bool:
        """Wait for so long until there is a piece, or the end."""
        return bool(self._printed.poll(timeout_s * 1000))

    def _take_in(self, output: Output) -> bool:
        """Read one piece; False at the end, when nobody can write any more."""
        try:
            piece = os.read(self._pipe, _PIECE)
        except BlockingIOError:
            return True
        output.add(piece)
        return bool(piece)

    def _drain(self, output: Output) -> None:
        """Read what the pipe holds; one whose writer can't be ended may go on writing."""
        for _ in range(_MOST_DRAINED // _PIECE):
            if not self._has_printed(0) or not self._take_in(output):
                return

    def _pump(self, output: Output, timeout_s: float) -> None:
        """Take in what comes until nothing of the command is left, at most so long."""
        deadline, is_open = time.monotonic() + timeout_s, True
        look_at = 0.0
        while (now := time.monotonic()) < deadline:
            if now >= look_at:
                if self._at_once or not self._rest():
                    return
                look_at = now + _LOOK_S
            if not is_open:
                time.sleep(_LOOK_S)
            elif self._has_printed(_LOOK_S):
                is_open = self._take_in(output)

    # -- its end ---------------------------------------------------------------------------------

    def _rest(self) -> list[marked.Seen]:
        """Return what of it still runs; what has ended as a child of ours is waited for."""
        marked.reap_group(self.pid)
        found = marked.family(marked.look(), self._mark, self.pid, self._since)
        marked.reap(seen for seen in found if seen.zombie and seen.pid != self.pid)
        return [seen for seen in found if not seen.zombie]

    def _end_all(self, rest: list[marked.Seen], output: Output) -> int:
        """End all of it, of which this is left; return how many can't be ended."""
        if not self._at_once:
            for number in (signal.SIGTERM, signal.SIGCONT):  # Who is stopped hears nothing.
                marked.send(rest, number)
            self._pump(output, GRACE_S)
        deadline = time.monotonic() + _KILL_S
        while (rest := self._rest()) and time.monotonic() < deadline:
            marked.send(rest, signal.SIGKILL)
            self._pump_once(output)
        return len(rest)

    def _pump_once(self, output: Output) -> None:
        if self._has_printed(_LOOK_S) and not self._take_in(output):
            time.sleep(_KILLED_S)


def _spawn(text: str, workspace: str, environ: Mapping[str, str], writer: int) -> int:
    """Start the shell and return its PID.

    posix_spawn(3) and not a fork of ours: many threads run. Threads of the daemon have signals blocked
    and Python ignores some; a command has neither. Its descriptors are the null device and the pipe.
    """
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_DUP2, writer, 2),
        *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()),
    ]
    return os.posix_spawn(
        "/bin/sh",
        ["/bin/sh", "-c", _BEGIN, workspace, text],
        environ,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )


def _inheritable() -> list[int]:
    """Return what a supervisor may have left open for all who come; ours are closed by execve."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # The listing's own is closed by now.
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found
