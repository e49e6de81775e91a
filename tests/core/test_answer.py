"""What a client hears of a durable turn: one text, nothing taken back, and an end that is true."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.answer import Answer, End, Ending
from netclawd.core.session import (
    Delta,
    EventType,
    FinishReason,
    SessionEvent,
    SessionId,
    TurnId,
    Usage,
)

SESSION, TURN, OTHER = SessionId("s"), TurnId("t"), TurnId("t-other")


def event(kind: EventType, turn: TurnId = TURN, **data: Any) -> SessionEvent:
    return SessionEvent(SESSION, 1, kind, 12.5, turn, data)


def completed(
    text: str, step: int = 1, attempt: int = 1, finish: str = "stop", **more: Any
) -> SessionEvent:
    data: dict[str, Any] = {
        "step": step,
        "attempt": attempt,
        "text": text,
        "finish": finish,
        "calls": [],
    }
    return event(EventType.MODEL_COMPLETED, **data, **more)


def delta(text: str, offset: int = 0, step: int = 1, attempt: int = 1) -> Delta:
    return Delta(SESSION, TURN, step, attempt, offset, text)


ENDED = event(EventType.TURN_COMPLETED, steps=1)
INTERRUPTED = event(EventType.TURN_INTERRUPTED, cause="restart", restart_id="r", state="cut")
RESUMED = event(EventType.TURN_RESUMED, generation=2, resumes=1, cause="restart")


def parked(reason: str) -> SessionEvent:
    return event(EventType.TURN_PARKED, reason=reason)


def asked(number: int) -> SessionEvent:
    return event(
        EventType.APPROVAL_REQUESTED,
        approval_id=f"a{number}",
        call_id=f"c{number}",
        question=f"May I {number}?",
    )


def hear(answer: Answer, *news: SessionEvent | Delta) -> str:
    said = ""
    for one in news:
        if isinstance(one, Delta):
            assert answer.place(one), one
        else:
            answer.take(one)
        said += answer.take_fresh()
    return said


def ending(answer: Answer) -> Ending | None:
    return None if answer.end is None else answer.end.ending


def test_text_is_told_as_it_comes_and_once() -> None:
    answer = Answer(TURN)
    assert hear(answer, delta("Sal"), delta("ve", 3)) == "Salve"
    assert hear(answer, delta("Salve wo", 0), completed("Salve world")) == " world"
    assert answer.end is None
    assert hear(answer, ENDED) == ""
    assert answer.end == End(Ending.WHOLE)


def test_the_texts_of_all_steps_are_one_text() -> None:
    answer = Answer(TURN)
    news: list[SessionEvent | Delta] = [delta("I look."), completed("I look.", finish="tool_calls")]
    news += [
        completed("", 2, finish="tool_calls"),
        delta("It is", 0, 3),
        completed("It is late.", 3),
    ]
    assert hear(answer, *news, ENDED) == "I look.\n\nIt is late."


def test_other_turns_are_waited_for_and_not_heard() -> None:
    answer = Answer(TURN)
    theirs = [
        event(EventType.MODEL_COMPLETED, OTHER, step=1, attempt=1, text="no", finish="stop"),
        event(EventType.TURN_COMPLETED, OTHER, steps=1),
        event(EventType.TURN_INTERRUPTED, OTHER),
    ]
    assert hear(answer, *theirs) == ""
    assert hear(answer, Delta(SESSION, OTHER, 1, 1, 5, "nor this")) == ""
    assert answer.end is None


def test_a_delta_without_what_comes_before_it_asks_for_that() -> None:
    answer = Answer(TURN)
    assert not answer.place(delta("ve", 3))
    assert answer.place(delta("Salve"))
    assert answer.take_fresh() == "Salve"
    # The commit of step 1 is not known yet.
    assert not answer.place(delta("then", 0, 2))
    assert hear(answer, completed("Salve"), delta("then", 0, 2)) == "\n\nthen"


def test_deltas_of_what_is_over_are_passed_over() -> None:
    answer = Answer(TURN)
    hear(answer, delta("Sal", attempt=2), completed("Salve", attempt=2))
    assert hear(answer, delta("ve", 3, attempt=2), delta("x", 9, attempt=1)) == ""


def test_a_repeated_call_that_says_the_same_goes_on_where_the_first_was_cut() -> None:
    answer = Answer(TURN)
    assert hear(answer, delta("1 2 3")) == "1 2 3"
    news: list[SessionEvent | Delta] = [
        delta("1 2", 0, attempt=2),
        delta(" 3 4", 3, attempt=2),
        completed("1 2 3 4 5", attempt=2),
    ]
    assert hear(answer, *news) == " 4 5"


def test_a_repeated_call_that_says_something_else_breaks_the_answer_off() -> None:
    answer = Answer(TURN)
    hear(answer, delta("1 2 3"))
    assert hear(answer, delta("1 2", 0, attempt=2)) == ""
    assert answer.end is None
    assert hear(answer, delta(" 4", 3, attempt=2), completed("1 2 4", attempt=2), ENDED) == ""
    assert ending(answer) is Ending.RETOLD


def test_a_repeated_call_that_says_less_breaks_the_answer_off() -> None:
    answer = Answer(TURN)
    hear(answer, delta("1 2 3"), completed("1 2", attempt=2))
    assert ending(answer) is Ending.RETOLD


def test_a_reply_that_the_limit_ended_ends_so() -> None:
    answer = Answer(TURN)
    hear(answer, completed("Once upon", finish="length"), ENDED)
    assert answer.end == End(Ending.WHOLE, FinishReason.LENGTH)


def test_tokens_are_those_of_all_steps() -> None:
    answer = Answer(TURN)
    first = completed("a", usage={"input_tokens": 10, "output_tokens": 1})
    second = completed("b", 2, usage={"input_tokens": 20, "output_tokens": 2})
    used = {"input_tokens": 100, "output_tokens": 10}
    summary = event(EventType.CONTEXT_SUMMARISED, upto_seq=1, text="So far.", usage=used)
    hear(answer, first, summary, second, completed("c", 3), ENDED)
    assert answer.usage == Usage(130, 13)


def test_approvals_are_named_in_the_text_with_how_to_decide_them() -> None:
    answer = Answer(TURN)
    said = hear(
        answer, completed("I ask.", finish="tool_calls"), asked(1), asked(2), parked("approval")
    )
    # Both come in one commit, the parking behind them.
    assert said.startswith("I ask.\n\n")
    for number in (1, 2):
        assert f"May I {number}?" in said
        assert f"netclaw approvals grant a{number}" in said
        assert f"netclaw approvals deny a{number}" in said
    assert answer.end == End(Ending.ASKED)


def test_a_turn_behind_one_that_waits_for_a_person_says_so_and_what_for() -> None:
    answer = Answer(TURN)
    answer.wait_behind(SESSION, {"a1": "May I?"})
    said = answer.take_fresh()
    assert "May I?" in said
    assert "netclaw approvals grant a1" in said
    assert answer.end == End(Ending.ASKED)
    answer = Answer(TURN)
    answer.wait_behind(SESSION, {})
    assert "netclaw sessions resume s" in answer.take_fresh()
    # One that has begun isn't behind anybody.
    answer = Answer(TURN)
    hear(answer, event(EventType.TURN_STARTED, generation=1))
    answer.wait_behind(SESSION, {"a1": "May I?"})
    assert (answer.take_fresh(), answer.end) == ("", None)


def test_only_the_approvals_that_wait_are_named() -> None:
    answer = Answer(TURN)
    granted = event(EventType.APPROVAL_GRANTED, approval_id="a1", call_id="c1", by="x")
    answer.take_history([asked(1), asked(2), parked("approval"), granted])
    said = answer.take_fresh()
    assert "a2" in said
    assert "a1" not in said


def test_other_parkings_failures_and_cancellations_say_what_and_how() -> None:
    for reason, word in (
        ("request", "parked"),
        ("resume-limit", "often"),
        ("resume-deadline", "long"),
    ):
        answer = Answer(TURN)
        hear(answer, parked(reason))
        assert answer.end is not None
        assert answer.end.ending is Ending.PARKED
        assert word in answer.end.what
        assert "netclaw sessions resume" in answer.end.remedy
    answer = Answer(TURN)
    hear(answer, event(EventType.TURN_FAILED, slug="provider-busy", reason="No.", remedy="Wait."))
    assert answer.end == End(Ending.FAILED, slug="provider-busy", what="No.", remedy="Wait.")
    answer = Answer(TURN)
    hear(answer, event(EventType.TURN_CANCELLED, by="uid 7"))
    assert answer.end is not None
    assert "uid 7" in answer.end.what


def test_a_live_interruption_ends_the_answer_and_an_old_one_does_not() -> None:
    answer = Answer(TURN)
    hear(answer, delta("1 2"), INTERRUPTED)
    assert ending(answer) is Ending.INTERRUPTED
    answer = Answer(TURN)
    answer.take_history([INTERRUPTED])
    assert answer.end is None
    assert hear(answer, RESUMED, completed("1 2 3", attempt=2), ENDED) == "1 2 3"
    assert ending(answer) is Ending.WHOLE


def test_what_was_parked_and_goes_on_is_waited_for() -> None:
    granted = event(EventType.APPROVAL_GRANTED, approval_id="a1", call_id="c1", by="x")
    for way_on in (granted, RESUMED):
        answer = Answer(TURN)
        answer.take_history([asked(1), parked("approval"), way_on])
        assert answer.end is None
        assert answer.take_fresh() == ""


def test_nothing_is_heard_after_the_end() -> None:
    answer = Answer(TURN)
    hear(answer, completed("a"), ENDED)
    assert hear(answer, delta("b", 0, 2), completed("b", 2), INTERRUPTED) == ""
    assert ending(answer) is Ending.WHOLE


@given(st.data())
def test_whatever_way_the_news_come_the_text_is_that_of_the_events(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text("ab \n", max_size=8), min_size=1, max_size=4))
    answer, said = Answer(TURN), ""
    for step, text in enumerate(texts, 1):
        for attempt in (1, 2):
            cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
            for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
                if data.draw(st.booleans()):
                    # Some are lost, some come again from the beginning.
                    begin = data.draw(st.sampled_from([0, start]))
                    answer.place(delta(text[begin:end], begin, step, attempt))
                    said += answer.take_fresh()
        said += hear(answer, completed(text, step, 2))
    assert said == "\n\n".join(text for text in texts if text)
