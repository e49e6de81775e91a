"""The commands that run for one state folder: all of them end with the daemon, however it ends.

A file ``STATE/commands/CALL`` lies there from before a command is started until nothing of it is left. A
start that finds one looks for what carries this state folder's mark and ends it; without one it looks
for nothing. Crash: at any instant the file is there or nothing runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Collection

from netclawd.adapters.tools import marked
from netclawd.adapters.tools.command import Command

#: For all to end, at the end of an image, seconds.
_CLOSE_S = 4.0
#: For what is killed to be gone, seconds.
_KILL_S = 3.0
_LOOK_S = 0.01


class ClosedError(Exception):
    """No command may begin any more."""


class Commands:
    def __init__(self, state: str) -> None:
        self._state = state
        self._folder = os.path.join(state, "commands")
        self._cond = threading.Condition()
        #: None: about to be started.
        self._running: dict[str, Command | None] = {}
        self._closed = False
        #: Children of ours that were there before the first command; None until then.
        self._others: frozenset[marked.Seen] | None = None

    def mark(self, call_id: str) -> dict[str, str]:
        """Return the variables by which what a call has started is found."""
        return {marked.CALL: call_id, marked.OWNER: marked.identity_of(self._state)}

    def begin(self, call_id: str) -> None:
        """Write down that a command is about to be started; raises ClosedError or OSError."""
        with self._cond:
            if self._closed:
                raise ClosedError
            if self._others is None:
                self._others = frozenset(marked.strays(marked.look(), ()))
                marked.take_in_orphans()
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            os.close(os.open(os.path.join(self._folder, call_id), flags, 0o600))
            self._running[call_id] = None

    def begun(self, call_id: str, command: Command) -> None:
        """Name the command of a record, so that it can be ended."""
        with self._cond:
            self._running[call_id] = command
            if self._closed:
                command.end(at_once=True)

    def end(self, call_id: str) -> int:
        """Take the record back: nothing of the command is left. Return how many strays were ended.

        They may be of any command that has run meanwhile, so that the last one has to wait for them.
        """
        with self._cond:
            del self._running[call_id]
            strays = 0 if self._running else _kill(lambda all_: self._strays(all_, ()))
            # If it stays, the next start finds it, and nothing of the command.
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, call_id))
            self._cond.notify_all()
            return strays

    def tidy(self) -> None:
        """Wait for the strays that have ended."""
        with self._cond:
            leaders = [0 if c is None else c.pid for c in self._running.values()]
            if all(leaders):
                marked.reap(s for s in self._strays(marked.look(), leaders) if s.zombie)

    def _strays(
        self, everybody: dict[int, marked.Seen], leaders: Collection[int]
    ) -> list[marked.Seen]:
        others = {(seen.pid, seen.start) for seen in self._others or ()}
        found = marked.strays(everybody, leaders)
        return [seen for seen in found if (seen.pid, seen.start) not in others]

    def close(self) -> None:
        """End all at once and wait until nothing of them is left; none begins any more. Idempotent."""
        with self._cond:
            self._closed = True
            for command in self._running.values():
                if command is not None:
                    command.end(at_once=True)
            self._cond.wait_for(lambda: not self._running, _CLOSE_S)


def _kill(find: Callable[[dict[int, marked.Seen]], list[marked.Seen]]) -> int:
    """End all that ``find`` finds, again and again until it finds nobody; return how many."""
    ended: set[tuple[int, int]] = set()
    deadline = time.monotonic() + _KILL_S
    while found := find(marked.look()):
        marked.reap(seen for seen in found if seen.zombie)
        rest = [seen for seen in found if not seen.zombie]
        ended |= {(seen.pid, seen.start) for seen in rest}
        marked.send(rest, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        if rest:
            time.sleep(_LOOK_S)
    return len(ended)


def end_leftovers(state: str) -> int:
    """End what the commands of a daemon that died on this state folder have left; return how many."""
    folder = os.path.join(state, "commands")
    try:
        records = os.listdir(folder)
    except OSError:
        return 0
    if not records:
        return 0
    mark = [f"{marked.OWNER}={marked.identity_of(state)}".encode()]

    def find(everybody: dict[int, marked.Seen]) -> list[marked.Seen]:
        # After a way back it is this very process that has started them, and nothing else yet.
        strays = marked.strays(everybody, ())
        return [
            *(s for s in marked.family(everybody, mark) if not s.zombie and s not in strays),
            *strays,
        ]

    ended = _kill(find)
    for record in records:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, record))
    return ended
