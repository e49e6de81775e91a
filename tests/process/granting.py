"""A person who grants whatever is asked, also of a daemon that is about to die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.process.harness import Daemon
from tests.process.talk import SessionEvent, events, of_type, wait_all_ended
from tests.waiting import wait_for


def until_granted(daemon: Daemon) -> Callable[[], bool]:
    """Return a condition that grants whatever is asked, and holds once something was."""

    def grant() -> bool:
        try:
            asked = daemon.control("approvals")
            for one in asked:
                daemon.control("decide", approval_id=one["id"], granted=True)
        except (OSError, ValueError):
            return False  # It has died.
        return bool(asked)

    return grant


def wait_killed(daemon: Daemon) -> None:
    """Answer what is asked until the daemon is killed, be the answer lost with it."""
    grant = until_granted(daemon)

    def dead() -> bool:
        grant()
        return daemon.running.poll() is not None

    wait_for(dead, 20.0, lambda: f"the kill; met: {Counter(daemon.effects(when='after'))}")
    assert daemon.wait_exit() == -9


def finish(daemon: Daemon, session: str) -> list[SessionEvent]:
    """Answer what is asked until the turn has ended; return its events."""
    grant = until_granted(daemon)

    def completed() -> list[SessionEvent]:
        grant()
        return of_type(events(daemon, session), "turn.completed")

    wait_for(completed, 30.0, "the end of the turn")
    return wait_all_ended(daemon, [session])[session]
