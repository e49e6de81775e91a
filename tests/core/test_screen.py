"""The text of a reply on a terminal, whatever restarts, re-joins and repeats do to the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.screen import DIFFERS, Column, Kind, Piece, Screen

Item = dict[str, Any]


def delta(offset: int, text: str, *, attempt: int = 1, step: int = 1, turn: str = "t") -> Item:
    return {"turn_id": turn, "step": step, "attempt": attempt, "offset": offset, "text": text}


class Stream:
    """Numbers events and collects what is shown."""

    def __init__(self) -> None:
        self.screen = Screen()
        self.pieces: list[Piece] = []
        self.seq = 0

    def delta(self, offset: int, text: str, **where: Any) -> Stream:
        self.pieces += self.screen.on_delta(delta(offset, text, **where))
        return self

    def event(self, kind: str, *, turn: str = "t", **data: Any) -> Stream:
        self.seq += 1
        self.pieces += self.screen.on_event(
            {"seq": self.seq, "type": kind, "at": 0.0, "turn_id": turn, **data}
        )
        return self

    def completed(
        self, text: str, *, step: int = 1, attempt: int = 1, turn: str = "t", **more: Any
    ) -> Stream:
        data = {"step": step, "attempt": attempt, "text": text, **more}
        return self.event("model.completed", turn=turn, **data)

    @property
    def text(self) -> str:
        return Column().render(self.pieces)


def final_texts(pieces: Sequence[Piece]) -> list[str]:
    """Return each reply as a reader has it: what follows the last "differs" note is the reply."""
    texts, current = [], ""
    for piece in pieces:
        if piece.kind is Kind.TEXT:
            current += piece.text
        elif piece.kind is Kind.NOTE and piece.text == DIFFERS:
            current = ""
        elif piece.kind is Kind.END:
            texts.append(current)
            current = ""
    return texts


def test_deltas_are_shown_as_they_come_and_not_again_at_the_end() -> None:
    stream = Stream().delta(0, "one").delta(3, " two")
    assert stream.text == "one two"
    assert stream.completed("one two").text == "one two\n"


def test_a_reply_without_deltas_is_shown_when_it_is_complete() -> None:
    assert Stream().completed("one two").text == "one two\n"


def test_the_text_so_far_that_a_joiner_gets_is_not_shown_twice() -> None:
    stream = Stream().delta(0, "one").delta(0, "one two").delta(7, " three")
    assert stream.text == "one two three"


def test_a_delta_behind_a_hole_waits_for_what_fills_it() -> None:
    stream = Stream().delta(0, "one").delta(7, " three")
    assert stream.text == "one"
    assert stream.delta(3, " two").delta(7, " three").text == "one two three"


def test_a_hole_that_nothing_fills_is_filled_at_the_end() -> None:
    stream = Stream().delta(0, "one").delta(7, " three").completed("one two three")
    assert stream.text == "one two three\n"


def test_a_repeated_attempt_prints_nothing_while_it_says_the_same() -> None:
    stream = Stream().delta(0, "one two")
    stream.event("turn.interrupted", cause="restart", restart_id="r", state="cut")
    stream.event("restart", restart_id="r", trigger="file", cause="restart", generation=2)
    stream.event("step.retry", step=1, attempt=2, reason="restart")
    stream.delta(0, "one", attempt=2).delta(3, " tw", attempt=2)
    assert stream.text == "one two"
    stream.delta(6, "o three", attempt=2)
    assert stream.text == "one two three"
    assert stream.completed("one two three", attempt=2).text == "one two three\n"


def test_a_repeated_attempt_that_differs_is_printed_whole() -> None:
    stream = Stream().delta(0, "one two")
    stream.event("step.retry", step=1, attempt=2, reason="restart")
    stream.delta(0, "one", attempt=2).delta(3, " 2", attempt=2).completed("one 2 3", attempt=2)
    assert stream.text == f"one two\n— {DIFFERS} —\none 2 3\n"


def test_a_repeated_attempt_that_ends_earlier_differs() -> None:
    stream = Stream().delta(0, "one two").delta(0, "one", attempt=2).completed("one", attempt=2)
    assert stream.text == f"one two\n— {DIFFERS} —\none\n"


def test_a_repeated_attempt_without_text_says_so() -> None:
    stream = Stream().delta(0, "one").completed("", attempt=2)
    assert stream.text == f"one\n— {DIFFERS} —\n"


def test_deltas_of_a_newer_attempt_may_come_before_the_event_that_announces_it() -> None:
    stream = Stream().delta(0, "one two").delta(0, "one two three", attempt=2)
    stream.event("step.retry", step=1, attempt=2, reason="restart").delta(13, " four", attempt=2)
    assert stream.text == "one two three four"


def test_a_late_delta_of_an_older_attempt_is_dropped() -> None:
    stream = Stream().delta(0, "one").delta(0, "one", attempt=2).delta(3, " zwei")
    assert stream.text == "one"


def test_a_late_delta_of_a_complete_step_is_dropped() -> None:
    assert Stream().completed("one").delta(3, " two").text == "one\n"


def test_a_late_delta_of_an_ended_turn_is_dropped() -> None:
    stream = Stream().event("turn.cancelled", by="uid 0").delta(0, "one")
    assert stream.text == "— the turn was cancelled —\n"


def test_an_event_that_comes_again_is_not_shown_again() -> None:
    stream = Stream().completed("one")
    stream.seq = 0
    assert stream.completed("one").text == "one\n"


def test_steps_stand_on_lines_of_their_own() -> None:
    stream = Stream().delta(0, "I look.").completed("I look.")
    stream.event("tool.started", step=1, call_id="c", name="clock", arguments={}, again=False)
    stream.event("tool.finished", step=1, call_id="c", name="clock", status="ok", text="noon")
    stream.delta(0, "It is noon.", step=2).completed("It is noon.", step=2)
    assert stream.text == (
        "I look.\n— runs the tool clock —\n— the tool clock is done: noon —\nIt is noon.\n"
    )


def test_text_of_the_next_step_waits_for_the_end_of_this_one() -> None:
    stream = Stream().delta(0, "one").delta(0, "uno", step=2).delta(3, " dos", step=2)
    assert stream.text == "one"
    assert stream.completed("one two").text == "one two\nuno dos"
    assert stream.completed("uno dos", step=2).text == "one two\nuno dos\n"


def test_text_of_the_next_turn_waits_for_the_end_of_this_one() -> None:
    stream = Stream().delta(0, "one").delta(0, "uno", turn="u")
    stream.event("turn.cancelled", by="uid 0")
    assert stream.text == "one\n— the turn was cancelled —\nuno"


def test_text_that_was_cut_and_parked_goes_on_when_it_is_resumed() -> None:
    stream = Stream().delta(0, "one").event("turn.parked", reason="resume-limit")
    stream.event("turn.resumed", generation=2, resumes=4, cause="request")
    stream.event("step.retry", step=1, attempt=2, reason="crash")
    stream.completed("one two", attempt=2)
    assert stream.text == "one\n— the turn is parked (resume-limit) —\n two\n"


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("input.admitted", {"text": "hello"}, "> hello"),
        ("tool.started", {"name": "ledger", "again": True}, "runs the tool ledger again"),
        (
            "tool.started",
            {"name": "shell", "arguments": {"command": 'echo "a"', "n": 5}},
            'runs the tool shell: command="echo \\"a\\"", n=5 —',
        ),
        (
            "tool.finished",
            {"name": "ledger", "status": "interrupted", "text": "The daemon ended the call."},
            "the tool ledger was interrupted: The daemon ended the call. —",
        ),
        (
            "tool.finished",
            {"name": "shell", "status": "ok", "text": "\ntotal 3\na\nb\n"},
            "the tool shell is done: total 3 (and 2 more) —",
        ),
        ("tool.finished", {"name": "shell", "status": "ok", "text": " \n"}, "shell is done —"),
        (
            "tool.finished",
            {"name": "shell", "status": "ok", "text": "[Exit code 0]\n1\n2"},
            "the tool shell is done: [Exit code 0] 1 (and 1 more) —",
        ),
        (
            "tool.finished",
            {"name": "fetch", "status": "error", "text": "Refused.\n\n" + "Do this. " * 30},
            "the tool fetch failed: Refused. " + "Do this. " * 29 + "Do this. —",
        ),
        ("tool.unknown", {"name": "ledger"}, "its outcome is unknown"),
        (
            "approval.requested",
            {"approval_id": "apr_1", "question": "Delete\nit?"},
            "asks for the approval apr_1: Delete it? —",
        ),
        (
            "approval.requested",
            {"approval_id": "apr_1", "question": "rm x", "name": "shell", "expires_at": 9.0},
            "asks for the approval apr_1 of the tool shell: rm x —",
        ),
        (
            "approval.granted",
            {"approval_id": "a", "by": "uid 0"},
            "the approval was granted by uid 0",
        ),
        (
            "approval.expired",
            {"approval_id": "a", "by": ""},
            "the approval has expired, which denies it",
        ),
        (
            "approval.expired",
            {"approval_id": "a", "by": "uid 0"},
            "the approval is void: uid 0 has cancelled the turn",
        ),
        ("turn.failed", {"slug": "x", "reason": "No model."}, "the turn failed: No model. —"),
        (
            "turn.failed",
            {"slug": "provider-unauthorized", "reason": "401.", "remedy": "Renew it."},
            "the turn failed: 401. Renew it. —",
        ),
        ("turn.parked", {"reason": "resume-deadline"}, "parked (resume-deadline)"),
        (
            "config.outcome",
            {"outcome": "refused", "reason": "Bad.", "remedy": "Mend it.", "changes": {"a.b": 1}},
            "the configuration was refused, the one before goes on (a.b = 1): Bad. Mend it. —",
        ),
        (
            "config.outcome",
            {"outcome": "applied", "changes": {"a.b": None}, "generation": 4},
            "the configuration is applied (a.b back to its default); generation 4 serves —",
        ),
        (
            "context.summarised",
            {"upto_seq": 40, "text": "They spoke\nof ports."},
            "up to event 40 is a summary from here on: They spoke of ports. —",
        ),
    ],
)
def test_what_is_not_text_is_put_into_words(kind: str, data: Item, words: str) -> None:
    assert words in Stream().event(kind, **data).text


def test_a_remark_is_one_line_that_can_not_drive_the_terminal() -> None:
    stream = Stream().event("turn.failed", slug="x", reason="a\x1b[2J\nb\u202ec")
    assert stream.text == "— the turn failed: a\\x1b[2J b\\u202ec —\n"


def test_a_change_of_the_configuration_is_told_with_the_call_that_wrote_it() -> None:
    stream = Stream().event(
        "tool.finished",
        name="config_propose",
        status="ok",
        text="Written.",
        proposal={"changes": {"daemon.listen": ["127.0.0.1:5200"]}},
    )
    assert stream.text == (
        "— the tool config_propose is done —\n"
        '— the configuration file has daemon.listen = ["127.0.0.1:5200"]; a restart follows —\n'
    )


def test_parallel_calls_are_told_apart() -> None:
    calls = [{"id": f"c{n}", "name": "shell", "arguments": {}} for n in (1, 2)]
    stream = Stream().completed("I look.", calls=calls)
    for n in (1, 2):
        stream.event("tool.started", step=1, call_id=f"c{n}", name="shell", arguments={"n": n})
    stream.event("tool.finished", step=1, call_id="c2", name="shell", status="ok", text="two")
    stream.event("tool.finished", step=1, call_id="c1", name="shell", status="error", text="one")
    assert stream.text == (
        "I look.\n"
        "— runs the tool shell (1 of 2): n=1 —\n"
        "— runs the tool shell (2 of 2): n=2 —\n"
        "— the tool shell (2 of 2) is done: two —\n"
        "— the tool shell (1 of 2) failed: one —\n"
    )


@pytest.mark.parametrize("width", [40, 80, 200])
def test_arguments_and_outputs_are_shortened_to_a_line(width: int) -> None:
    stream = Stream()
    stream.screen.width = width
    stream.event("tool.started", step=1, call_id="c", name="shell", arguments={"x": "a b " * 99})
    stream.event("tool.finished", step=1, call_id="c", name="shell", status="ok", text="c d " * 99)
    stream.event("approval.requested", approval_id="a", call_id="c", question="e f " * 99)
    lines = stream.text.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= max(width, 60) + len("—  —") and "…" in line for line in lines)


@pytest.mark.parametrize(
    ("finish", "words"), [("length", "max_output_tokens"), ("content_filter", "withheld")]
)
def test_a_reply_that_was_cut_short_by_the_model_server_says_so(finish: str, words: str) -> None:
    stream = Stream().completed("one", finish=finish)
    assert stream.text.startswith("one\n— ")
    assert words in stream.text
    assert Stream().completed("one", finish="stop").text == "one\n"


def test_the_tokens_of_turn_and_session_are_told_at_the_end_of_a_turn() -> None:
    first = {"input_tokens": 1000, "output_tokens": 20}
    stream = Stream().completed("one", usage=first).event("turn.completed", steps=1)
    stream.event("context.summarised", turn="u", upto_seq=2, text="s", usage=first)
    stream.completed("two", turn="u", usage=first).completed("three", turn="u", step=2)
    stream.event("turn.completed", turn="u", steps=2)
    told = [p.text for p in stream.pieces if p.kind is Kind.USAGE]
    assert told == [
        "tokens: 1,000 in, 20 out",
        "tokens: 2,000 in, 40 out; the session 3,000 in, 60 out",
    ]


def test_tokens_that_nobody_counts_are_not_told() -> None:
    stream = Stream().completed("one").event("turn.completed", steps=1)
    assert [p.kind for p in stream.pieces] == [Kind.TEXT, Kind.END, Kind.TURN_ENDED]


@pytest.mark.parametrize(
    "kind", ["turn.started", "turn.resumed", "turn.interrupted", "restart", "reply.sent"]
)
def test_what_a_reader_needs_not_know_is_not_shown(kind: str) -> None:
    assert Stream().event(kind, text="x", status="ok").pieces == []


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_the_end_of_a_turn_is_told(state: str) -> None:
    pieces = Stream().event(f"turn.{state}", reason="r").pieces
    assert pieces[-1] == Piece(Kind.TURN_ENDED, state, "t")


def test_a_turn_that_waits_for_an_approval_has_not_ended() -> None:
    stream = Stream().event("turn.parked", reason="approval")
    assert stream.pieces == [Piece(Kind.WAITS, "", "t")]


def test_what_is_asked_and_decided_names_its_approval() -> None:
    stream = Stream().event("approval.requested", approval_id="a", call_id="c", question="q")
    stream.event("approval.denied", approval_id="a", call_id="c", by="uid 0")
    assert [(p.kind, p.about) for p in stream.pieces] == [(Kind.ASK, "a"), (Kind.DECIDED, "a")]


def test_the_end_of_an_approval_names_the_tool_that_was_asked_for() -> None:
    stream = Stream().event("approval.requested", approval_id="a", question="q", name="shell")
    stream.event("approval.expired", approval_id="a", by="")
    assert "the approval of the tool shell has expired, which denies it" in stream.text


def test_a_note_in_the_middle_of_a_reply_stands_on_its_own_line() -> None:
    column = Column()
    shown = column.render([Piece(Kind.TEXT, "one")])
    shown += column.render([Piece(Kind.NOTE, "the daemon restarted, going on")])
    shown += column.render([Piece(Kind.TEXT, " two"), Piece(Kind.END)])
    assert shown == "one\n— the daemon restarted, going on —\n two\n"


# -- whatever happens ----------------------------------------------------------------------------

WORDS = st.text(alphabet="ab \n", max_size=12)


@st.composite
def interrupted_reply(draw: st.DrawFn) -> tuple[list[Item], str]:
    """Attempts of one reply, each cut somewhere, streamed in pieces with re-joins and losses."""
    attempts = draw(st.lists(WORDS, min_size=1, max_size=4))
    items: list[Item] = []
    for number, text in enumerate(attempts, 1):
        end = draw(st.integers(0, len(text)))
        at = 0
        while at < end:
            size = draw(st.integers(1, 4))
            offset = draw(st.sampled_from([at, 0, max(0, at - 2)]))
            if draw(st.integers(0, 9)):  # one in ten is lost
                items.append(delta(offset, text[offset : min(end, at + size)], attempt=number))
            at += size
    late = draw(st.lists(st.sampled_from(items), max_size=3)) if items else []
    return items + late, attempts[-1]


@given(interrupted_reply())
def test_the_finished_text_is_the_reply_no_word_lost_and_none_twice(
    case: tuple[list[Item], str],
) -> None:
    items, text = case
    stream = Stream()
    last = max((item["attempt"] for item in items), default=1)
    for item in items:
        stream.pieces += stream.screen.on_delta(item)
    stream.completed(text, attempt=max(last, 1) if items else 1)
    shown = final_texts(stream.pieces)
    assert shown == ([text] if text else [])


@given(WORDS, st.lists(st.integers(1, 4), max_size=6))
def test_a_reply_that_repeats_itself_exactly_is_never_said_to_differ(
    text: str, cuts: list[int]
) -> None:
    stream = Stream()
    for attempt, cut in enumerate(cuts, 1):
        stream.delta(0, text[: cut * attempt], attempt=attempt)
    stream.completed(text, attempt=len(cuts) + 1)
    assert [p for p in stream.pieces if p.kind is Kind.NOTE] == []
    assert "".join(p.text for p in stream.pieces if p.kind is Kind.TEXT) == text


#: What may come between the pieces of a reply.
PARKED = ("turn.parked", {"reason": "approval"})
BETWEEN = st.just(PARKED) | st.sampled_from(
    [
        ("tool.started", {"call_id": "c1", "name": "shell", "arguments": {"x": "1"}}),
        ("tool.finished", {"call_id": "c2", "name": "shell", "status": "ok", "text": "two"}),
        ("tool.unknown", {"call_id": "c1", "name": "shell"}),
        ("approval.requested", {"call_id": "c1", "approval_id": "a", "question": "q"}),
        ("approval.expired", {"call_id": "c1", "approval_id": "a", "by": ""}),
        ("context.summarised", {"upto_seq": 1, "text": "ab a"}),
        ("config.outcome", {"outcome": "applied", "reason": "", "changes": {"a": 1}}),
        ("turn.resumed", {"generation": 2, "resumes": 0, "cause": "approval"}),
    ]
)


@given(
    st.lists(interrupted_reply(), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 10), BETWEEN), max_size=12),
    st.integers(0, 5),
)
def test_whatever_comes_between_each_step_is_read_whole_and_once(
    replies: list[tuple[list[Item], str]],
    between: list[tuple[int, tuple[str, Item]]],
    calls: int,
) -> None:
    stream, count = Stream(), 0

    def tick() -> None:
        nonlocal count
        for at, (kind, data) in between:
            if at == count:
                stream.event(kind, step=1, **data)
        count += 1

    asked = [{"id": f"c{n}", "name": "shell", "arguments": {}} for n in range(1, calls + 1)]
    for step, (items, text) in enumerate(replies, 1):
        for item in items:
            tick()
            stream.pieces += stream.screen.on_delta({**item, "step": step})
        last = max((item["attempt"] for item in items), default=1)
        stream.completed(text, step=step, attempt=last, calls=asked)
    assert final_texts(stream.pieces) == [text for _, text in replies if text]
