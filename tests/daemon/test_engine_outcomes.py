"""A turn that waits for the outcome of what it has written: how it is told, and what ends the wait."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from netclawd.core import budgets
from netclawd.core.session import (
    CallContext,
    CallId,
    EventType,
    NewEvent,
    Proposal,
    ProposalOutcome,
    SessionId,
    ToolCall,
    ToolOutcome,
    ToolStatus,
    TurnId,
    TurnState,
)
from netclawd.daemon.engine import Engine
from netclawd.ports import Cancel
from tests.daemon.engines import LONG_S, Drained, Home, ScriptedTool, named
from tests.waiting import wait_for


class Writer(ScriptedTool):
    """Writes the configuration, as far as the engine is told."""

    def run(self, call: ToolCall, _context: CallContext, _cancel: Cancel) -> ToolOutcome:
        self.ran.append(call.id)
        return ToolOutcome(ToolStatus.OK, "written", Proposal("d", {"a.b": 1}))


@dataclass
class Outcomes:
    """Tells an outcome when the test says so, or when a turn has waited for too long."""

    home: Home
    generation: int = 1
    looked: list[int] = field(default_factory=list)

    def look(self) -> None:
        self.looked.append(len(self.looked))

    def give_up(self, calls: Collection[CallId]) -> None:
        self.tell(None, calls, ProposalOutcome.UNKNOWN)

    def tell(
        self,
        engine: Engine | None,
        calls: Collection[CallId] | None = None,
        outcome: ProposalOutcome = ProposalOutcome.APPLIED,
    ) -> None:
        for proposal in self.home.store.open_proposals():
            if calls is None or proposal.call_id in calls:
                data = {"call_id": proposal.call_id, "outcome": outcome.value, "generation": 1}
                more = {"reason": "", "remedy": "", "changes": dict(proposal.proposal.changes)}
                event = NewEvent(EventType.CONFIG_OUTCOME, {**data, **more})
                self.home.store.close_proposal(
                    proposal.call_id, outcome, event, self.generation, 1.0
                )
                if engine is not None:
                    engine.on_outcome(proposal.session_id)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    home.tool(Writer("write", safe=True))
    home.model.script = named(["write", "write"])
    home.outcomes = Outcomes(home)
    yield home
    home.close()


def outcomes_of(home: Home) -> Outcomes:
    assert isinstance(home.outcomes, Outcomes)
    return home.outcomes


def waiting(home: Home, engine: Engine) -> TurnId:
    """Send a message and return its turn once that waits for the outcome."""
    turn = home.send(engine, "a", "x")
    wait_for(lambda: outcomes_of(home).looked, LONG_S, "the turn to wait")
    assert len(home.store.open_proposals()) == 2
    assert home.model.seen == [("x", 1)]
    return turn


def test_the_turn_goes_on_once_all_outcomes_are_told(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "x")
    wait_for(lambda: outcomes_of(home).looked, LONG_S, "the turn to wait")
    first, _second = home.store.open_proposals()
    outcomes_of(home).tell(engine, [first.call_id])
    wait_for(lambda: len(outcomes_of(home).looked) > 1, LONG_S, "the turn to wait again")
    assert home.model.seen == [("x", 1)]
    outcomes_of(home).tell(engine)
    home.await_completed(turn)
    notes = [m.text for m in home.model.heard if "Your change of the configuration" in m.text]
    assert len(notes) == 2
    assert home.data(turn, EventType.TOOL_FINISHED)[0]["proposal"] == {"changes": {"a.b": 1}}


def test_a_drain_does_not_wait_for_it_and_the_restart_costs_no_resume(home: Home) -> None:
    engine = home.boot()
    turn_id = waiting(home, engine)
    Drained(engine).wait()
    turn = home.store.turn(turn_id)
    assert (turn.state, turn.resumes, turn.interrupted_at) == (TurnState.INTERRUPTED, 0, None)
    assert home.data(turn.id, EventType.TURN_INTERRUPTED)[0]["state"] == "drained"
    outcomes_of(home).looked.clear()
    outcomes_of(home).generation = 2
    again = home.boot(cause="restart", is_open=False)
    wait_for(lambda: outcomes_of(home).looked, LONG_S, "the turn to wait again")
    assert home.model.seen == [("x", 1)], "the model isn't asked before it can be told"
    outcomes_of(home).tell(again)
    home.await_completed(turn.id)
    assert home.store.turn(turn.id).resumes == 0
    assert home.store.turn(turn.id).interrupted_at is None
    assert home.tools["write"].ran == [c["id"] for c in calls(home, turn.id)], "written once each"


def calls(home: Home, turn_id: TurnId) -> list[dict[str, str]]:
    return list(home.data(turn_id, EventType.MODEL_COMPLETED)[0]["calls"])


def test_a_crash_while_it_waits_counts_as_every_crash_does(home: Home) -> None:
    first = home.boot()
    turn = waiting(home, first)
    outcomes_of(home).looked.clear()
    outcomes_of(home).generation = 2
    again = home.boot(store=home.second_store())
    wait_for(lambda: outcomes_of(home).looked, LONG_S, "the turn to wait again")
    outcomes_of(home).tell(again)
    home.await_completed(turn)
    assert home.store.turn(turn).resumes == 1
    assert home.types(turn).count("step.retry") == 0


@pytest.mark.parametrize("end", ["park", "cancel"])
def test_a_person_ends_the_wait(home: Home, end: str) -> None:
    engine = home.boot()
    turn = waiting(home, engine)
    session = SessionId("a")
    if end == "cancel":
        engine.cancel(session, None, "uid 0")
        assert home.await_state(turn, TurnState.CANCELLED)
        return
    engine.park(session, None, "uid 0", LONG_S)
    home.await_state(turn, TurnState.PARKED)
    # Told while it is parked: it goes on from there.
    outcomes_of(home).tell(engine)
    engine.resume(session, None, "uid 0")
    home.await_completed(turn)


def test_a_wait_has_an_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "PROPOSAL_S", 0.05)
    turn = home.send(home.boot(), "a", "x")
    home.await_completed(turn)
    told = home.data(turn, EventType.CONFIG_OUTCOME)
    assert [row["outcome"] for row in told] == ["unknown", "unknown"]
    assert home.store.open_proposals() == ()


def test_a_wait_that_nobody_can_end_fails_its_turn(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "PROPOSAL_S", 0.05)
    home.outcomes = None
    turn = home.send(home.boot(), "a", "x")
    home.await_state(turn, TurnState.FAILED)
    assert home.data(turn, EventType.TURN_FAILED)[0]["slug"] == "internal-error"
