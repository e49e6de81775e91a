"""SIGKILL before and after each commit of a turn whose calls run beside each other, one of them granted.

Whatever point it is: the turn completes once, the call that isn't idempotent is issued once, the one that
is has its effect once, and the person is asked once. The ledger's own file proves it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.process.faults import Fault
from tests.process.granting import finish, wait_killed
from tests.process.harness import PROVE, Daemon
from tests.process.talk import (
    accepted,
    check_history,
    check_ledger,
    ledger,
    new_session,
    of_type,
)

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


@pytest.mark.parametrize("point", points(), ids=lambda p: f"{p.when}-commit-{p.nth}")
def test_a_kill_repeats_nothing_that_must_not_be_repeated(
    make_daemon: Callable[..., Daemon], point: Fault
) -> None:
    daemon = make_daemon(faults=[point]).start()
    session = new_session(daemon)
    accepted(daemon, session, CALLS)
    wait_killed(daemon)
    daemon.start()
    rows = finish(daemon, session)
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
