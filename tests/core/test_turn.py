"""Every prefix of every run is an interruption; each is resumed and judged by the invariants."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest

from netclawd.core import turn
from netclawd.core.session import (
    EventType,
    InputId,
    ParkReason,
    SessionEvent,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.turn_invariants import InvariantError, check_invariants
from netclawd.core.values import replace
from tests.core.turns import (
    LATE,
    NO,
    TOOLS,
    TURN,
    YES,
    Order,
    Play,
    in_turn,
    interrupt,
    park,
    stamp,
    together,
)

_STEPS = [(), ("once",), ("safe",), ("ask",), ("once", "safe"), ("ask", "once"), ("safe", "ask")]
#: Every turn of up to two steps with tools, and some longer ones.
PLANS = [
    *[tuple(s for s in steps if s) for steps in itertools.product(_STEPS, repeat=2)],
    (("once",), ("safe", "once", "ask"), ("ask",)),
    (("ask", "safe", "ask", "once"), ("ask", "ask")),
    (("never", "ask", "absent"), ("never",)),
    (("writes",),),
    (("writes", "once", "writes"), ("writes",)),
    (("ask", "writes"), ("once",)),
]
#: Tools whose calls are repeated if nobody knows how they ended.
SAFE = ("safe", "writes")
DECISIONS = [(YES,), (NO,), (YES, NO, LATE), (LATE, YES)]
#: Each plan with each way in which its questions can be decided.
DECIDED = [
    (plan, decisions)
    for plan in PLANS
    for decisions in DECISIONS[: 1 + sum(step.count("ask") for step in plan)]
]


def _types(events: list[SessionEvent]) -> list[EventType]:
    return [event.type for event in events]


def _tool_of(effect: str, play: Play) -> str:
    """Name the tool behind an effect ``tool t1-STEP-NUMBER``."""
    step, number = (int(part) for part in effect.rsplit("-", 2)[1:])
    return play.plan[step - 1][number - 1]


@pytest.mark.parametrize("order", [together, in_turn])
@pytest.mark.parametrize(("plan", "decisions"), DECIDED)
def test_an_uninterrupted_turn_keeps_the_invariants(
    plan: tuple[tuple[str, ...], ...], decisions: tuple[EventType, ...], order: Order
) -> None:
    play = Play(plan, decisions, order)
    check_invariants(play.finish())
    assert play.events[-1].type is EventType.TURN_COMPLETED
    assert not [e for e, n in Counter(play.effects).items() if n > 1]


@pytest.mark.parametrize("cause", ["crash", "restart"])
@pytest.mark.parametrize(("plan", "decisions"), DECIDED)
def test_a_turn_interrupted_anywhere_completes_with_at_most_the_promised_repeats(
    plan: tuple[tuple[str, ...], ...], decisions: tuple[EventType, ...], cause: str
) -> None:
    for order in (together, in_turn):
        _interrupt_everywhere(plan, decisions, cause, order)


def _interrupt_everywhere(
    plan: tuple[tuple[str, ...], ...], decisions: tuple[EventType, ...], cause: str, order: Order
) -> None:
    whole = Play(plan, decisions, order).finish()
    for length in range(1, len(whole) + 1):
        play = Play(plan, decisions, order, events=list(whole[:length]))
        # What a process that died here may have done without a commit: what was under way, once.
        under_way = _possibly_done(play)
        play.effects += _effects_of(whole[:length]) + under_way
        interrupt(play, cause=cause)
        check_invariants(play.finish())
        assert play.events[-1].type is EventType.TURN_COMPLETED
        counts = Counter(play.effects)
        repeated = [effect for effect, n in counts.items() if n > 1]
        assert all(counts[effect] == 2 for effect in repeated)
        assert set(repeated) <= set(under_way), "what had ended is not repeated"
        for effect in repeated:
            assert effect.startswith("model ") or _tool_of(effect, play) in SAFE
        for effect in under_way:
            if effect.startswith("tool ") and _tool_of(effect, play) in SAFE:
                assert effect in repeated, "what may be repeated is"


def _orders(calls: int) -> list[tuple[int, ...]]:
    """Every order in which so many calls can begin and end; they begin in theirs."""
    rows = set(itertools.permutations([n for n in range(calls) for _ in range(2)]))
    firsts = tuple(range(calls))
    return sorted(row for row in rows if tuple(dict.fromkeys(row)) == firsts)


@pytest.mark.parametrize(
    "names", [*itertools.product(("once", "safe"), repeat=3), ("ask", "safe", "once")]
)
def test_a_batch_is_interrupted_in_every_order_of_its_calls(names: tuple[str, ...]) -> None:
    orders = _orders(3)
    assert len(orders) == 15
    for row in orders:
        _interrupt_everywhere((names,), (YES,), "crash", _in_order(row))


def _in_order(row: Sequence[int]) -> Order:
    """A batch of so many in this order; what is left of it after an interruption: together."""
    return lambda calls: row if 2 * calls == len(row) else together(calls)


@pytest.mark.parametrize("plan", PLANS[:20])
def test_a_turn_interrupted_twice_anywhere_completes(plan: tuple[tuple[str, ...], ...]) -> None:
    whole = Play(plan).finish()
    for length in range(1, len(whole)):
        once = Play(plan, events=list(whole[:length]))
        interrupt(once)
        start = len(once.events)
        resumed = list(once.finish())
        for again in range(start, len(resumed)):
            twice = Play(plan, events=resumed[:again])
            interrupt(twice)
            check_invariants(twice.finish())
            assert twice.events[-1].type is EventType.TURN_COMPLETED


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("state", ["drained", "cut"])
def test_a_turn_that_is_parked_anywhere_and_resumed_completes(
    plan: tuple[tuple[str, ...], ...], state: str
) -> None:
    whole = Play(plan).finish()
    for length in range(1, len(whole) + 1):
        play = Play(plan, events=list(whole[:length]))
        park(play, state)
        check_invariants(play.finish())
        assert play.events[-1].type is EventType.TURN_COMPLETED
        retries = [event.data for event in play.events if event.type is EventType.STEP_RETRY]
        assert all(retry["reason"] == "request" for retry in retries)
        assert not retries or state == "cut"


def _effects_of(events: list[SessionEvent]) -> list[str]:
    effects = []
    for event in events:
        if event.type is EventType.MODEL_COMPLETED:
            effects.append(f"model {event.data['step']}")
        elif event.type is EventType.TOOL_FINISHED and event.data["status"] == "ok":
            effects.append(f"tool {event.data['call_id']}")
    return effects


def _possibly_done(play: Play) -> list[str]:
    standing = turn.read_turn(play.events)
    begun = [f"tool {call.id}" for call in standing.open_calls if call.id in standing.begun]
    if begun:
        return begun
    if isinstance(step := turn.plan_next(play.events, TOOLS), turn.CallModel):
        return [f"model {step.step}"]
    return []


def test_a_model_call_that_was_cut_is_announced_as_repeated() -> None:
    play = Play((("once",),))
    play.advance()
    interrupt(play, cause="restart")
    assert play.advance() == turn.Retry(1, 2, "restart")
    interrupt(play)
    assert play.advance() == turn.Retry(1, 3, "crash")
    assert play.advance() == turn.CallModel(1, 3)


def test_a_turn_that_stopped_at_a_checkpoint_repeats_nothing() -> None:
    play = Play((("once",),))
    play.advance()
    interrupt(play, state="drained", cause="restart")
    assert play.advance() == turn.CallModel(1, 1)


def test_a_cut_tool_is_no_reason_to_announce_a_repeated_model_call() -> None:
    play = Play((("once",),))
    while not isinstance(play.advance(), turn.RunTools):
        pass
    last = play.events[-1]
    play.events[-1] = replace(last, data={**last.data, "status": "interrupted"})
    interrupt(play, cause="restart")
    assert play.advance() == turn.CallModel(2, 1)


def test_a_cut_tool_is_told_from_a_cut_model_call_whichever_of_its_siblings_ended_last() -> None:
    play = Play((("once", "once"),))
    while not isinstance(play.advance(), turn.RunTools):
        pass
    first = play.events[-2]
    play.events[-2] = replace(first, data={**first.data, "status": "interrupted"})
    assert turn.read_turn(play.events).tool_was_cut
    interrupt(play, cause="restart")
    assert turn.plan_next(play.events, TOOLS) == turn.CallModel(2, 1)
    interrupt(play, cause="restart")
    assert play.advance() == turn.Retry(2, 2, "restart")


def test_all_questions_of_a_reply_are_asked_at_once_and_all_that_is_granted_runs_together() -> None:
    play = Play((("ask", "once", "ask", "safe"),), (YES, NO))
    while not isinstance(step := play.advance(), turn.Ask):
        assert not isinstance(step, turn.RunTools)
    assert [question.call.id for question in step.questions] == ["t1-1-1", "t1-1-3"]
    assert play.events[-1].type is EventType.TURN_PARKED
    steps = [play.advance() for _ in range(4)]
    assert steps[:3] == [
        turn.Wait(ParkReason.APPROVAL),
        turn.Wait(ParkReason.APPROVAL),
        turn.TakeUp(),
    ]
    assert isinstance(steps[3], turn.Answer)
    ran = play.advance()
    assert isinstance(ran, turn.RunTools)
    assert [planned.call.id for planned in ran.calls] == ["t1-1-1", "t1-1-2", "t1-1-4"]


def test_a_call_that_cannot_run_is_answered_without_a_question_or_a_start() -> None:
    play = Play((("never", "absent", "ask"),))
    while not isinstance(play.advance(), turn.Ask):
        pass
    answered = [e.data for e in play.events if e.type is EventType.TOOL_FINISHED]
    assert [row["status"] for row in answered] == ["error", "error"]
    assert "'absent'" in answered[1]["text"]
    assert not [e for e in play.events if e.type is EventType.TOOL_STARTED]


@pytest.mark.parametrize(("decision", "word"), [(NO, "did not grant"), (LATE, "Nobody answered")])
def test_the_model_is_told_whether_a_person_said_no_or_nobody_answered(
    decision: EventType, word: str
) -> None:
    play = Play((("ask",),), (decision,))
    play.finish()
    (told,) = [e.data for e in play.events if e.type is EventType.TOOL_FINISHED]
    assert told["status"] == "denied"
    assert word in told["text"]


def test_a_call_whose_tool_is_gone_or_no_longer_idempotent_is_unknown() -> None:
    play = Play((("safe",),))
    while not isinstance(play.advance(), turn.RunTools):
        pass
    started = play.events[:-1]
    assert isinstance(turn.plan_next(started, TOOLS), turn.RunTools)
    assert isinstance(turn.plan_next(started, {}), turn.Unknown)
    assert isinstance(turn.plan_next(started, {"safe": TOOLS["once"]}), turn.Unknown)


@pytest.mark.parametrize("plan", PLANS)
def test_a_cancel_anywhere_leaves_no_call_and_no_question_open(
    plan: tuple[tuple[str, ...], ...],
) -> None:
    whole = Play(plan).finish()
    for length in range(1, len(whole)):
        play = Play(plan, events=list(whole[:length]))
        closing = turn.plan_cancel(turn.read_turn(play.events), "uid 0")
        play.commit(*[(e.type, dict(e.data)) for e in closing])
        check_invariants(play.events)
        standing = turn.read_turn(play.events)
        assert standing.ended
        assert not standing.pending_approvals
        assert not standing.begun.keys() - standing.answered
        assert isinstance(turn.plan_next(play.events, TOOLS), turn.Ended)


def _advance_to_wait(play: Play) -> None:
    for _ in range(20):
        if isinstance(turn.plan_next(play.events, TOOLS), turn.AwaitOutcome):
            return
        play.advance()
    raise AssertionError("the turn doesn't wait for the outcome")


def _written(*, told: bool = False) -> Play:
    """Play up to where the outcome of what was written is waited for, or was told."""
    play = Play((("writes",),))
    _advance_to_wait(play)
    if told:
        play.advance()
    return play


def test_the_model_is_called_only_once_the_outcome_is_told() -> None:
    play = _written()
    call = turn.call_id(TURN, 1, 1)
    assert turn.plan_next(play.events, TOOLS) == turn.AwaitOutcome((call,))
    assert turn.AwaitOutcome in turn.STARTS_WORK, "a drain doesn't wait for what it brings about"
    play.advance()
    assert turn.plan_next(play.events, TOOLS) == turn.CallModel(2, 1)


@pytest.mark.parametrize("state", ["drained", "cut"])
@pytest.mark.parametrize("cause", ["crash", "restart", "stop"])
def test_no_model_call_is_announced_as_repeated_while_an_outcome_is_waited_for(
    cause: str, state: str
) -> None:
    play = _written()
    interrupt(play, state, cause)
    play.advance()
    assert turn.plan_next(play.events, TOOLS) == turn.CallModel(2, 1)


@pytest.mark.parametrize(
    ("cause", "told", "own"),
    [
        ("restart", False, True),
        ("stop", False, True),
        ("crash", False, False),
        ("restart", True, False),
    ],
)
def test_a_restart_is_the_turns_own_while_it_waits_for_the_outcome(
    cause: str, told: bool, own: bool
) -> None:
    play = _written(told=told)
    interrupt(play, "drained", cause)
    assert turn.read_turn(play.events).own_restart is own
    interrupt(play)
    assert not turn.read_turn(play.events).own_restart, "a crash afterwards is a crash"


def test_an_outcome_that_is_told_beside_the_calls_is_read_in_any_order() -> None:
    play = Play((("writes", "once"),))
    _advance_to_wait(play)
    told = stamp([(EventType.CONFIG_OUTCOME, {"call_id": turn.call_id(TURN, 1, 1)})])
    ended = next(n for n, e in enumerate(play.events) if "proposal" in e.data)
    for place in range(ended + 1, len(play.events) + 1):
        events = [*play.events[:place], *told, *play.events[place:]]
        assert turn.plan_next(events, TOOLS) == turn.CallModel(2, 1)


def test_a_drain_that_a_turn_has_brought_about_is_not_held_against_it() -> None:
    spent = _turn(TurnState.INTERRUPTED, 3, 0.0)
    judged = turn.judge_interrupted(spent, 1000.0, LIMITS, awaiting=True)
    assert judged == turn.Resume(counted=False)
    crashed = _turn(TurnState.RUNNING, 3, 0.0)
    parked = turn.Park(ParkReason.RESUME_LIMIT)
    assert turn.judge_interrupted(crashed, 1000.0, LIMITS, awaiting=True) == parked


LIMITS = turn.Limits(resumes=3, deadline_s=600.0)


def _turn(state: TurnState, resumes: int = 0, interrupted_at: float | None = None) -> Turn:
    ids = TurnId("t1"), SessionId("s1"), InputId("i1")
    return Turn(*ids, state, 1, resumes, interrupted_at, None, 1, False)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        (_turn(TurnState.QUEUED), turn.Leave()),
        (_turn(TurnState.PARKED, 9, 0.0), turn.Leave()),
        (_turn(TurnState.COMPLETED), turn.Leave()),
        (_turn(TurnState.RUNNING), turn.Resume()),
        (_turn(TurnState.INTERRUPTED, 2, 400.0), turn.Resume()),
        (_turn(TurnState.INTERRUPTED, 3, 999.0), turn.Park(ParkReason.RESUME_LIMIT)),
        (_turn(TurnState.INTERRUPTED, 0, 399.0), turn.Park(ParkReason.RESUME_DEADLINE)),
    ],
)
def test_an_interrupted_turn_is_judged_by_budget_and_deadline(
    case: Turn, verdict: turn.Resume | turn.Park | turn.Leave
) -> None:
    assert turn.judge_interrupted(case, 1000.0, LIMITS) == verdict


@pytest.mark.parametrize(("resumes", "suspect"), [(0, False), (1, False), (2, True), (3, False)])
def test_only_a_turn_at_its_last_resume_is_a_suspect(resumes: int, suspect: bool) -> None:
    assert turn.is_suspect(_turn(TurnState.RUNNING, resumes), LIMITS) is suspect
    only = turn.Limits(resumes=1, deadline_s=600.0)
    assert not turn.is_suspect(_turn(TurnState.RUNNING, 0), only), "one crash is no pattern"


def _call(**more: object) -> dict[str, object]:
    return {"step": 1, "call_id": "c1", "name": "once", **more}


_ADMIT = (EventType.INPUT_ADMITTED, {"text": "go"})
_START = (EventType.TURN_STARTED, {"generation": 1})
_CALLS = [{"id": "c1", "name": "once", "arguments": {}}]
_REPLY = (
    EventType.MODEL_COMPLETED,
    {"step": 1, "attempt": 1, "text": "", "finish": "tool_calls", "calls": _CALLS},
)
_FINAL = (
    EventType.MODEL_COMPLETED,
    {"step": 1, "attempt": 1, "text": "x", "finish": "stop", "calls": []},
)
_BEGIN = (EventType.TOOL_STARTED, _call(idempotent=False, again=False))
_AGAIN = (EventType.TOOL_STARTED, _call(idempotent=False, again=True))
_DONE = (EventType.TOOL_FINISHED, _call(status="ok", text=""))
_ERROR = (EventType.TOOL_FINISHED, _call(status="error", text=""))
_DENIAL = (EventType.TOOL_FINISHED, _call(status="denied", text=""))
_STOP = (EventType.TURN_INTERRUPTED, {"cause": "crash", "state": "cut", "restart_id": "r"})
_RESUME = (EventType.TURN_RESUMED, {"cause": "crash"})
_WROTE = (EventType.TOOL_FINISHED, _call(status="ok", text="", proposal={}))
_FAILED = (EventType.TOOL_FINISHED, _call(status="error", text="", proposal={}))
_TOLD = (EventType.CONFIG_OUTCOME, {"call_id": "c1"})
_NEXT = (EventType.MODEL_COMPLETED, {**_FINAL[1], "step": 2})
_SENT = (EventType.REPLY_SENT, {"text": "x"})
_END = (EventType.TURN_COMPLETED, {"steps": 1})
_ASKED = (EventType.APPROVAL_REQUESTED, {"approval_id": "a", "call_id": "c1", "question": "?"})
_NO = (EventType.APPROVAL_DENIED, {"approval_id": "a", "call_id": "c1", "by": "x"})


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([_START], "admitted"),
        ([_ADMIT, _ADMIT], "admitted"),
        ([_ADMIT, _FINAL], "not started"),
        ([_ADMIT, _START, _START], "started already"),
        ([_ADMIT, _START, _FINAL, _END], "not been sent"),
        ([_ADMIT, _START, _FINAL, _SENT, _END, _START], "follows the end"),
        ([_ADMIT, _START, _FINAL, _SENT, _SENT], "sent already"),
        ([_ADMIT, _START, _FINAL, _FINAL], "final"),
        ([_ADMIT, _START, _REPLY, _SENT], "not final"),
        ([_ADMIT, _START, _REPLY, _REPLY], "open"),
        ([_ADMIT, _START, _REPLY, _DONE], "not started"),
        ([_ADMIT, _START, _REPLY, _BEGIN, _BEGIN], "again"),
        ([_ADMIT, _START, _REPLY, _BEGIN, _AGAIN], "repeated"),
        ([_ADMIT, _START, _REPLY, _BEGIN, _DONE, _DONE], "answered"),
        ([_ADMIT, _START, _BEGIN], "no model asked"),
        ([_ADMIT, _START, _REPLY, _ASKED, _BEGIN], "question is open"),
        ([_ADMIT, _START, _REPLY, _ASKED, _DENIAL], "question is open"),
        ([_ADMIT, _START, _REPLY, _ASKED, _NO, _ERROR], "not granted"),
        ([_ADMIT, _START, _REPLY, _BEGIN, _ASKED], "started already"),
        ([_ADMIT, _START, _REPLY, _ERROR, _ASKED], "answered already"),
        ([_ADMIT, _START, _REPLY, _ASKED, _NO, _BEGIN], "not granted"),
        ([_ADMIT, _START, _REPLY, _ASKED, _ASKED], "asked already"),
        ([_ADMIT, _START, _REPLY, _NO], "nobody asked"),
        ([_ADMIT, _START, _STOP, _FINAL], "interrupted"),
        ([_ADMIT, _START, _RESUME], "nothing to resume"),
        ([_ADMIT, _START, _REPLY, _BEGIN, _WROTE, _NEXT], "has not been told"),
        ([_ADMIT, _START, _REPLY, _BEGIN, _FAILED], "written nothing"),
        ([_ADMIT, _START, _REPLY, _BEGIN, _DONE, _TOLD], "no outcome to tell"),
        ([_ADMIT, _START, _REPLY, _BEGIN, _WROTE, _TOLD, _TOLD], "no outcome to tell"),
    ],
)
def test_events_that_break_the_promise_are_found(
    rows: list[tuple[EventType, dict[str, object]]], word: str
) -> None:
    with pytest.raises(InvariantError, match=word):
        check_invariants(stamp(rows))
