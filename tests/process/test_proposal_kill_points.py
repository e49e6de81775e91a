"""SIGKILL at each point of a change that an agent makes: of its call, of the restart, of its outcome.

Whatever point it is: the file is written at most once, the turn completes once, and if the change stands
in the file the model is told once what became of it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.process.faults import PROPOSAL, Fault, kill_points
from tests.process.harness import PROVE, Daemon
from tests.process.proposing import ALLOWED, check_turn, commented, outcomes, propose, reply
from tests.process.talk import accepted, new_session, of_type, wait_all_ended
from tests.waiting import wait_for

pytestmark = pytest.mark.long

#: What a reduced run takes: each step of the call, and one point each of drain, handoff and start.
REDUCED = {
    ("after", "StartProposal"),
    ("after", "WriteProposal"),
    ("after", "OpenProposal"),
    ("after", "DrainTurns"),
    ("after", "Settle"),
    ("before", "CloseProposal"),
    ("after", "CloseProposal"),
}
#: Never fires: it has each write noted in the trace.
TRACED = Fault("kill", "after", "WriteProposal", nth=99)


def points() -> list[Fault]:
    steps = [Fault("kill", when, step) for step in PROPOSAL for when in ("before", "after")]
    return [p for p in (*steps, *kill_points()) if PROVE or (p.when, p.effect) in REDUCED]


@pytest.mark.parametrize("point", points(), ids=lambda p: f"{p.when}-{p.effect}")
def test_a_kill_writes_nothing_twice_and_tells_each_outcome_once(
    make_daemon: Callable[..., Daemon], point: Fault
) -> None:
    daemon = make_daemon(tables=dict(ALLOWED), faults=[point, TRACED])
    before = commented(daemon)
    daemon.start()
    session = new_session(daemon)
    if point.effect == "Retire":
        wait_for(lambda: "Retire" in daemon.effects(), 10.0, "the first image to have retired")
    accepted(daemon, session, propose({"drain.timeout_s": 25}))
    assert daemon.wait_exit(30.0) == -9
    daemon.start()
    rows = wait_all_ended(daemon, [session])[session]
    check_turn(rows)

    assert daemon.effects(when="after").count("WriteProposal") <= 1
    text = daemon.config_path.read_text()
    finished = of_type(rows, "tool.finished")[0]
    assert len(of_type(rows, "reply.sent")) == 1
    never = (point.when, point.effect) in (("after", "StartProposal"), ("before", "WriteProposal"))
    assert (finished["status"] == "error") is never
    if not never:
        assert text == before + "\n[drain]\ntimeout_s = 25\n"
        (outcome,) = outcomes(rows)
        last_good = daemon.status()["configuration"] == "last-good"
        assert outcome == ("rolled-back" if last_good else "applied")
        assert "Your change of the configuration (drain.timeout_s)" in reply(rows)
    else:
        # Killed between the start of the call and the write: that is not made up for.
        assert "Not written" in finished["text"]
        assert text == before
        assert outcomes(rows) == []


def test_an_outcome_is_not_told_by_an_image_on_trial(make_daemon: Callable[..., Daemon]) -> None:
    """Resumed before READY, the turn finds that the image serves its change; the image then fails."""
    fails = Fault("raise", "before", "NotifyReady", nth=2)
    daemon = make_daemon(tables=dict(ALLOWED), faults=[fails])
    commented(daemon)
    daemon.start()
    session = new_session(daemon)
    accepted(daemon, session, propose({"drain.timeout_s": 25}))
    rows = wait_all_ended(daemon, [session])[session]
    check_turn(rows)
    assert outcomes(rows) == ["rolled-back"]
    assert len(of_type(rows, "turn.resumed")) == 2
    assert [row["resumes"] for row in of_type(rows, "turn.resumed")][-1] <= 1
