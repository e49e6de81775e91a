"""SIGKILL before and after each commit of a turn whose calls run beside each other, one of them granted.

Whatever point it is: the turn completes once, the call that isn't idempotent is issued once, the one that
is has its effect once, and the person is asked once. The ledger's own file proves it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.process.faults import Fault
from tests.process.harness import PROVE, Daemon
from tests.process.talk import (
    SessionEvent,
    accepted,
    check_history,
    check_ledger,
    events,
    ledger,
    new_session,
    of_type,
    wait_all_ended,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.long

CALLS = (
    '/tools ledger {"seconds": 0.1} ; ledger {"seconds": 0.2, "idempotent": true} ; '
    'confirm {"question": "May they?"}'
)
#: Started, reply, asked, granted, taken up, three starts, three ends, the last reply.
COMMITS = 12
#: What a reduced run takes: the question, its answer, and what lies between the last start and the last
#: end.
REDUCED = {("after", 3), ("after", 4), ("after", 8), ("after", 10)}


def points() -> list[Fault]:
    every = itertools.product(range(1, COMMITS + 1), ("before", "after"))
    return [
        Fault("kill", when, "Checkpoint", nth)
        for nth, when in every
        if PROVE or (when, nth) in REDUCED
    ]


def grant_what_is_asked(daemon: Daemon) -> None:
    """Answer as a person would, whose answer may be lost with the daemon."""
    try:
        for asked in daemon.control("approvals"):
            daemon.control("decide", approval_id=asked["id"], granted=True)
    except (OSError, ValueError):
        return  # It has died.


@pytest.mark.parametrize("point", points(), ids=lambda p: f"{p.when}-commit-{p.nth}")
def test_a_kill_repeats_nothing_that_must_not_be_repeated(
    make_daemon: Callable[..., Daemon], point: Fault
) -> None:
    daemon = make_daemon(faults=[point]).start()
    session = new_session(daemon)
    accepted(daemon, session, CALLS)

    def dead() -> bool:
        grant_what_is_asked(daemon)
        return daemon.running.poll() is not None

    wait_for(dead, 20.0, "the kill")
    assert daemon.wait_exit() == -9
    daemon.start()

    def completed() -> list[SessionEvent]:
        grant_what_is_asked(daemon)
        return of_type(events(daemon, session), "turn.completed")

    wait_for(completed, 20.0, "the end of the turn")
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    check_ledger(daemon, rows)
    assert len(of_type(rows, "approval.requested")) == len(of_type(rows, "approval.granted")) == 1
    once, safe, asked = (call["id"] for call in of_type(rows, "model.completed")[0]["calls"])
    ended = {row["call_id"]: row for row in of_type(rows, "tool.finished", "tool.unknown")}
    assert ended.keys() == {once, safe, asked}
    assert ledger(daemon).count(safe) == 1
    unknown = ended[once]["type"] == "tool.unknown"
    assert unknown or ledger(daemon).count(once) == 1
    if unknown:
        assert "[unknown]" in of_type(rows, "reply.sent")[0]["text"]
