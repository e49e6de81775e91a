from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from netclawd.core import remind
from netclawd.core.reminders import Missed, NewReminder, ReminderId, ReminderState, as_json
from netclawd.core.session import (
    CallContext,
    CallId,
    SessionId,
    ToolCall,
    ToolStatus,
    TurnId,
    TurnState,
)
from netclawd.daemon.board import CancelFlag
from netclawd.daemon.reminders import status
from netclawd.errors import BadRequestError, ConflictError, KeyReusedError, NotFoundError
from tests.daemon.desk import HOUR, NOON, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


# -- what people ask -------------------------------------------------------------------------------


def test_a_reminder_gets_a_session_of_its_own_or_speaks_in_one_that_is_there(desk: Desk) -> None:
    own = desk.add(in_s=10)
    assert own.own_session
    assert desk.store.session(own.session_id).channel == "api"
    there = desk.store.create_session(SessionId("s-there"), NOON)
    other = desk.add(in_s=10, session_id=there.id)
    assert (other.session_id, other.own_session) == (there.id, False)
    with pytest.raises(NotFoundError):
        desk.add(in_s=10, session_id=SessionId("s-gone"))
    assert desk.store.reminders.reminders(all_=False) == (own, other)


def test_what_can_not_be_meant_is_not_added(desk: Desk) -> None:
    for wrong in ({}, {"in_s": -1.0}, {"cron": "0 0 30 2 *"}, {"at": "2020-01-01T10:00"}):
        with pytest.raises(BadRequestError):
            desk.reminders.add(NewReminder("tea", **cast(Any, wrong)), "test")
    assert desk.store.reminders.reminders(all_=True) == ()


def test_an_interval_begins_with_a_pause_however_long_it_takes_to_add_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wall() -> float:
        desk.clock.pass_time(0.25)
        return desk.clock.wall_s

    monkeypatch.setattr(desk.clock, "wall", wall)
    tea = desk.add(every_s=HOUR)
    assert tea.next_at is not None
    assert tea.next_at >= NOON + HOUR


def test_the_same_key_adds_one_reminder(desk: Desk) -> None:
    first = desk.reminders.add(NewReminder("tea", at="2026-11-28T12:10"), "test", key="k")
    # Even when that time is past, and after a restart.
    desk.restart(HOUR)
    again = desk.reminders.add(NewReminder("tea", at="2026-11-28T12:10"), "test", key="k")
    assert again == first
    for other in (NewReminder("coffee", at="2026-11-28T12:10"), NewReminder("tea", every_s=5)):
        with pytest.raises(KeyReusedError):
            desk.reminders.add(other, "test", key="k")
    desk.reminders.remove(first.id)
    with pytest.raises(NotFoundError):
        desk.reminders.add(NewReminder("tea", in_s=5), "test", key="k")
    assert [one.id for one in desk.store.reminders.reminders(all_=True)] == [first.id]


def test_a_paused_one_is_not_due_and_a_resumed_one_is_due_next(desk: Desk) -> None:
    tea = desk.add(every_s=HOUR)
    paused = desk.reminders.pause(tea.id)
    assert (paused.state, paused.next_at) == (ReminderState.PAUSED, None)
    assert paused.reason
    assert desk.reminders.pause(tea.id) == paused
    desk.wait(2.5 * HOUR)
    assert desk.submitted == []
    resumed = desk.reminders.resume(tea.id)
    assert (resumed.state, resumed.reason) == (ReminderState.ACTIVE, "")
    assert resumed.next_at == NOON + 3 * HOUR
    assert desk.reminders.resume(tea.id) == resumed


def test_a_single_time_that_passed_in_a_pause_was_missed(desk: Desk) -> None:
    tea, late = desk.add(in_s=60), desk.add(in_s=60, max_late_s=100)
    for one in (tea, late):
        desk.reminders.pause(one.id)
    desk.clock.pass_time(HOUR / 2)
    desk.boot()
    for one in (tea, late):
        desk.reminders.resume(one.id)
    desk.scheduler.step()
    assert desk.seen(tea) == [(60, "started", 0)]
    assert desk.seen(late) == [(60, "skipped", 0)]


def test_what_is_done_or_gone_says_so(desk: Desk) -> None:
    tea = desk.add(in_s=1)
    desk.wait(1)
    desk.end(desk.turn_of(tea))
    desk.scheduler.step()
    for act in (desk.reminders.pause, desk.reminders.resume):
        with pytest.raises(ConflictError, match="is done"):
            act(tea.id)
    assert desk.store.reminders.reminders(all_=False) == ()
    assert [one.id for one in desk.store.reminders.reminders(all_=True)] == [tea.id]
    assert desk.reminders.remove(tea.id).state is ReminderState.REMOVED
    for act in (desk.reminders.show, desk.reminders.pause, desk.reminders.remove):
        with pytest.raises(NotFoundError):
            act(tea.id)


def test_the_status_counts_them_and_names_the_next(desk: Desk) -> None:
    for n in (50, 20, 30, 40):
        desk.add(f"tea {n}", in_s=n)
    desk.reminders.pause(desk.add("paused", in_s=1).id)
    image = SimpleNamespace(store=desk.store, parts=SimpleNamespace(clock=desk.clock))
    shown = status(cast(Any, image))
    assert (shown["active"], shown["paused"]) == (4, 1)
    assert [one["text"] for one in shown["next"]] == ["tea 20", "tea 30", "tea 40"]
    assert shown["next"][0]["next_at"] == NOON + 20
    assert (shown["under_way"], shown["waiting"]) == (0, 0)
    desk.wait(20)
    often = desk.add("often", every_s=1)
    desk.wait(1)
    desk.end(desk.turn_of(often), TurnState.PARKED)
    desk.wait(5)
    # What comes due while it runs is skipped: it is not what comes.
    shown = status(cast(Any, image))
    assert [one["text"] for one in shown["next"]] == ["tea 30", "tea 40", "tea 50"]
    assert (shown["under_way"], shown["waiting"]) == (2, 1)
    desk.store.close()
    closed = {"active": 0, "paused": 0, "under_way": 0, "waiting": 0, "next": []}
    assert status(cast(Any, SimpleNamespace(store=None))) == closed
    assert status(cast(Any, image)) == closed


def test_its_object_has_no_word_of_who_asked(desk: Desk) -> None:
    tea = desk.add(in_s=10)
    desk.wait(10)
    shown = as_json(desk.now(tea), desk.rows(tea))
    assert "origin" not in shown
    assert shown["schedule"]["kind"] == "once"
    assert shown["occurrences"][0]["turn_id"] == desk.turn_of(tea)


# -- the tool --------------------------------------------------------------------------------------


@pytest.fixture
def agent(desk: Desk) -> Agent:
    return Agent(desk)


class Agent:
    """Calls the tool in a session, in a turn that answers somebody."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.session_id = SessionId("s-agent")
        desk.store.create_session(self.session_id, NOON)
        self.turn_id = desk.say(self.session_id, {"requester": "U1"})
        self.calls = 0

    def call(self, _again: str = "", **arguments: Any) -> tuple[ToolStatus, str]:
        self.calls += 1
        call = ToolCall(CallId(_again or f"c-{self.calls}"), "remind", arguments)
        context = CallContext(self.session_id, self.turn_id, bool(_again), None)
        outcome = self.desk.reminders.tool.run(call, context, CancelFlag())
        # Whoever is asked first is told the same.
        refused = self.desk.reminders.tool.refusal(call)
        assert refused is None or outcome.text == refused
        assert self.desk.reminders.tool.describe(call)
        return outcome.status, outcome.text


def test_an_agent_adds_lists_and_removes(desk: Desk, agent: Agent) -> None:
    assert agent.call(action="list") == (ToolStatus.OK, "There is none.")
    status, text = agent.call(action="add", text="water", cron="0 18 * * *", tz="Europe/Berlin")
    assert status is ToolStatus.OK
    (added,) = desk.store.reminders.reminders(all_=False)
    assert (added.session_id, added.text) == (agent.session_id, "water")
    assert added.created_by == f"turn {agent.turn_id}"
    assert added.id in text
    assert "next 2026-11-28 18:00 Europe/Berlin" in text
    assert "water" in agent.call(action="list")[1]
    assert agent.call(action="remove", id=added.id) == (ToolStatus.OK, "Removed.")
    assert desk.store.reminders.reminders(all_=False) == ()


def test_who_asked_is_kept_for_who_delivers(desk: Desk, agent: Agent) -> None:
    agent.call(action="add", text="water", in_s=5)
    (added,) = desk.store.reminders.reminders(all_=False)
    assert added.origin == {"requester": "U1"}
    desk.wait(5)
    turn = desk.store.turn(desk.turn_of(added))
    assert turn.origin == {"requester": "U1"}
    assert turn.session_id == agent.session_id


def test_a_call_that_is_made_again_has_one_effect(desk: Desk, agent: Agent) -> None:
    first = agent.call(action="add", text="water", in_s=5)
    assert agent.call("c-1", action="add", text="water", in_s=5) == first
    (added,) = desk.store.reminders.reminders(all_=False)
    agent.call(action="remove", id=added.id)
    assert agent.call("c-2", action="remove", id=added.id) == (ToolStatus.OK, "Removed.")
    assert desk.reminders.tool.idempotent(ToolCall(CallId("c"), "remind", {}))
    # The same id in another turn is another call.
    agent.turn_id = desk.say(agent.session_id, {})
    agent.call("c-1", action="add", text="water", in_s=5)
    assert len(desk.store.reminders.reminders(all_=False)) == 1


def test_other_conversations_are_out_of_reach(desk: Desk, agent: Agent) -> None:
    theirs = desk.add(in_s=10)
    status, text = agent.call(action="remove", id=theirs.id)
    assert status is ToolStatus.ERROR
    assert "has no reminder" in text
    assert agent.call(action="list") == (ToolStatus.OK, "There is none.")
    status, _text = agent.call(action="add", text="x", in_s=5, session_id=theirs.session_id)
    assert status is ToolStatus.ERROR
    assert desk.store.reminders.reminders(all_=False) == (theirs,)


def test_a_conversation_has_a_hundred_at_most(
    desk: Desk, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remind, "MOST_OF_A_SESSION", 2)
    first = agent.call(action="add", text="1", in_s=5)
    agent.call(action="add", text="2", in_s=5)
    status, text = agent.call(action="add", text="3", in_s=5)
    assert (status, "may be no more" in text) == (ToolStatus.ERROR, True)
    # What is there is told even so.
    assert agent.call("c-1", action="add", text="1", in_s=5) == first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "`action` can't be left out"),
        ({"action": "dance"}, "add, list or remove"),
        ({"action": ["add"]}, "add, list or remove"),
        ({"action": "add"}, "needs a text"),
        ({"action": "add", "text": "x"}, "one time"),
        ({"action": "add", "in_s": 5}, "needs a text"),
        ({"action": "add", "text": 5, "in_s": 5}, "`text` can't be 5. Give a text."),
        ({"action": "add", "text": "x", "in_s": "5"}, "a number of seconds"),
        ({"action": "add", "text": "x", "in_s": True}, "a number of seconds"),
        ({"action": "add", "text": "x", "in_s": 10**400}, "a number of seconds"),
        ({"action": "add", "text": "x", "in_s": 5, "missed": "never"}, "skip, once or all"),
        ({"action": "add", "text": "x", "in_s": 5, "missed": ["all"]}, "skip, once or all"),
        ({"action": "add", "text": "x", "in_s": 5, "colour": "red"}, "nothing that a reminder has"),
        ({"action": "add", "text": "x", "in_s": 5, "tz": "Mars"}, "is not known"),
        ({"action": "remove"}, "the id of a reminder"),
        ({"action": "remove", "id": 7}, "the id of a reminder"),
        ({"action": "remove", "id": "rem", "text": "x"}, "doesn't take"),
        ({"action": "list", "id": "rem"}, "doesn't take"),
    ],
)
def test_whatever_a_model_says_is_answered_in_words(
    agent: Agent, arguments: dict[str, Any], words: str
) -> None:
    status, text = agent.call(**arguments)
    assert status is ToolStatus.ERROR
    assert words in text


def test_what_the_model_is_told_names_all_that_is_read() -> None:
    told = set(remind.PARAMETERS["properties"])
    new = remind.read_new(
        {
            "text": "x",
            "at": None,
            "in_s": 5,
            "every_s": None,
            "cron": None,
            "tz": "UTC",
            "missed": "all",
            "max_late_s": 7,
        }
    )
    assert new == NewReminder("x", in_s=5.0, zone="UTC", missed=Missed.ALL, max_late_s=7.0)
    assert told == {
        "action",
        "id",
        *["text", "in_s", "at", "every_s", "cron", "tz", "missed", "max_late_s"],
    }


def test_a_cancelled_call_does_nothing(desk: Desk, agent: Agent) -> None:
    cancel = CancelFlag()
    cancel.set()
    call = ToolCall(CallId("c"), "remind", {"action": "add", "text": "x", "in_s": 5})
    context = CallContext(agent.session_id, TurnId(agent.turn_id), False, None)
    assert desk.reminders.tool.run(call, context, cancel).status is ToolStatus.INTERRUPTED
    assert desk.store.reminders.reminders(all_=False) == ()
    assert ReminderId("rem") not in [one.id for one in desk.store.reminders.reminders(all_=True)]
