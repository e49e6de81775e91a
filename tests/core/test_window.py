"""What fits into a model's window: what is summarised, what shortened, and that planning ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netclawd.core import tokens, window
from netclawd.core.session import CallId, Message, Role, ToolCall, ToolSpec
from netclawd.core.transcript import Conversation, Told
from netclawd.core.values import replace
from netclawd.core.window import Send, Summarise, TooLarge, Window, plan_window

ROOM = Window(room=1_000, summary=100)


def user(size: int) -> Message:
    """Make a message of so many tokens, all in all."""
    return Message(Role.USER, "x" * tokens.BYTES_PER_TOKEN * (size - tokens.MESSAGE_TOKENS))


def tool(size: int, call: str = "c") -> Message:
    return replace(user(size), role=Role.TOOL, call_id=CallId(call))


def reply(text: str = "", **arguments: object) -> Message:
    calls = (ToolCall(CallId("c"), "tool", arguments),) if arguments else ()
    return Message(Role.ASSISTANT, text, calls)


def told(*turns: int, current: tuple[Message, ...] = (), summary: str = "") -> Conversation:
    """Make a conversation of turns with so many tokens, the n-th ending with event 10 n."""
    earlier = (Told(10 * n, (user(size),), size) for n, size in enumerate(turns, 1))
    return Conversation(summary, tuple(earlier), current or (user(20),))


# -- estimates ---------------------------------------------------------------------------------


def test_tokens_are_estimated_from_bytes_and_calls_count() -> None:
    assert tokens.text_tokens("") == 0
    assert tokens.text_tokens("abcd") == 2
    assert tokens.text_tokens("日本語") == 3
    assert tokens.text_tokens("half \ud83d") > 0
    bare, call = Message(Role.ASSISTANT, "x"), reply("x", path="/etc/hosts")
    assert tokens.message_tokens(call) > tokens.message_tokens(bare) + tokens.text_tokens(
        "/etc/hosts"
    )
    spec = ToolSpec("shell", "Runs a command.", {"type": "object"})
    assert tokens.fixed_tokens("Be kind.", (spec,)) > tokens.fixed_tokens("Be kind.", ())


@pytest.mark.parametrize(
    ("estimated", "counted", "factor"),
    [(1000, 1000, 1.1), (1000, 2000, 2.2), (1000, 10, 0.6), (10, 1000, 4.0), (0, 5, 1), (5, 0, 1)],
)
def test_what_was_counted_corrects_the_estimate_within_reason(
    estimated: int, counted: int, factor: float
) -> None:
    assert window.correction(estimated, counted) == pytest.approx(factor)


def test_the_room_is_what_a_reply_leaves() -> None:
    assert window.window_of(10_000, 2_000) == Window(8_000, 2_000)
    assert window.window_of(10_000, 4_000) == Window(6_000, 1_500)
    # Texts whose tokens are shorter than thought leave less room, as the estimate counts.
    assert window.window_of(10_000, 2_000, 2.0) == Window(4_000, 1_000)
    assert window.window_of(10_000, 2_000, 0.8).room == 10_000
    assert Window(8_000, 2_000).squeezed(1_000) == Window(1_000, 250)
    assert Window(8_000, 2_000).squeezed(9_000) == Window(8_000, 2_000)


def test_a_summary_takes_its_part_of_what_the_prompt_and_the_tools_leave() -> None:
    assert window.window_of(2_048, 512, fixed=1_136) == Window(1_536, 100)
    assert window.window_of(2_048, 512, 2.0, fixed=368) == Window(768, 100)
    assert window.window_of(2_048, 512, fixed=3_000).summary == 1
    assert Window(1_536, 100).squeezed(1_336, 1_136) == Window(1_336, 50)


# -- the plan ----------------------------------------------------------------------------------


def test_what_fits_is_sent_whole_and_in_order() -> None:
    plan = plan_window(told(100, 200, summary="before"), 50, ROOM)
    assert isinstance(plan, Send)
    assert [m.role for m in plan.messages] == ["system", "user", "user", "user"]
    assert plan.messages[0].text == window.SUMMARY_NOTE.format("before")
    assert plan.shortened == 0


def test_the_oldest_turns_are_summarised_so_that_half_of_the_room_is_free() -> None:
    # 50 + 20 + 100 (the summary) leave 330 of the half.
    plan = plan_window(told(200, 200, 200, 200, 150, summary=""), 50, ROOM)
    assert isinstance(plan, Summarise)
    assert ([turn.last_seq for turn in plan.turns], plan.upto_seq) == ([10, 20, 30, 40], 40)
    assert plan.earlier == ""


def test_a_large_turn_under_way_lets_what_fits_beside_it_stay() -> None:
    plan = plan_window(told(100, 100, 100, 90, current=(user(700),)), 0, ROOM)
    assert isinstance(plan, Summarise)
    assert plan.upto_seq == 20, "700 and 100 for the summary leave 200, which 100 and 90 take"


def test_more_than_one_summary_can_take_is_summarised_in_parts() -> None:
    conversation = told(*[400] * 8, summary="long ago")
    plan = plan_window(conversation, 0, ROOM)
    assert isinstance(plan, Summarise)
    assert len(plan.turns) in (1, 2)
    assert plan.earlier == "long ago"
    assert "long ago" in window.summary_request(plan, ROOM).messages[0].text


def test_old_outputs_are_shortened_where_summaries_would_not_do() -> None:
    current = (user(20), reply(a=1), tool(2_000), reply(b=1), tool(100))
    plan = plan_window(told(100, current=current), 0, ROOM)
    assert isinstance(plan, Send)
    assert plan.shortened == 1
    assert plan.messages[0] == user(100), "the turn before is told whole"
    old, newest = (m for m in plan.messages if m.role is Role.TOOL)
    assert len(old.text.encode()) <= window.SHORT_BYTES + 100
    assert "bytes left out to fit the model's window" in old.text
    assert newest == tool(100)


def test_a_summary_is_preferred_to_shortening_where_it_is_enough() -> None:
    current = (user(20), reply(a=1), tool(500), reply(b=1), tool(100))
    assert isinstance(plan_window(told(600, current=current), 0, ROOM), Summarise)


def test_the_newest_output_is_shortened_last_and_no_more_than_it_must_be() -> None:
    current = (user(20), reply(a=1), tool(300), reply(b=1), tool(3_000))
    plan = plan_window(told(current=current), 0, ROOM)
    assert isinstance(plan, Send)
    old, newest = (m for m in plan.messages if m.role is Role.TOOL)
    assert plan.shortened == 2
    assert window.SHORT_BYTES < len(newest.text.encode()) <= 2_148
    assert len(old.text.encode()) <= window.SHORT_BYTES


def test_what_a_tool_was_given_is_shortened_too() -> None:
    current = (user(20), reply(path="/x", content="y" * 9_000), tool(20), reply(b=1), tool(20))
    plan = plan_window(told(current=current), 0, ROOM)
    assert isinstance(plan, Send)
    (call,) = plan.messages[1].calls
    assert call.arguments["path"] == "/x"
    assert len(call.arguments["content"]) < 700


def test_an_input_that_is_larger_than_the_room_is_too_large() -> None:
    plan = plan_window(told(current=(user(1_200),)), 10, ROOM)
    assert plan == TooLarge(1_210, 1_000)
    assert plan_window(told(5, 900, current=(user(1_200),)), 10, ROOM) == plan, (
        "nothing is condensed"
    )


def test_a_summary_gives_way_to_the_turn_under_way() -> None:
    long = "s" * 900
    plan = plan_window(told(current=(user(700),), summary=long), 10, ROOM)
    assert isinstance(plan, Send)
    note, asked = plan.messages
    assert (note.role, asked) == (Role.SYSTEM, user(700))
    assert "bytes left out to fit" in note.text
    assert tokens.tokens_of(plan.messages) + 10 <= ROOM.room
    assert plan_window(told(current=(user(600),), summary=long), 10, ROOM) == Send(
        (Message(Role.SYSTEM, window.SUMMARY_NOTE.format(long)), user(600))
    )


def test_what_is_too_large_beside_a_summary_says_so_in_its_numbers() -> None:
    plan = plan_window(told(current=(user(900),), summary="s" * 900), 10, ROOM)
    assert isinstance(plan, TooLarge)
    assert 910 + window.SHORT_BYTES // tokens.BYTES_PER_TOKEN < plan.tokens < 1_150


messages_of_turns = st.lists(st.lists(st.integers(9, 3_000), min_size=1, max_size=6), max_size=12)


@settings(max_examples=100, deadline=None)
@given(
    turns=messages_of_turns,
    outputs=st.lists(st.integers(9, 3_000), max_size=6),
    asked=st.integers(9, 1_500),
    room=st.integers(600, 4_000),
    share=st.floats(0.01, 0.25),
    said=st.integers(0, 5_000),
)
def test_planning_ends_and_nothing_is_ever_sent_that_does_not_fit(
    turns: list[list[int]], outputs: list[int], asked: int, room: int, share: float, said: int
) -> None:
    size = Window(room, max(1, int(room * share)))
    current: list[Message] = [user(asked)]
    for n in outputs:
        current += [reply(a=1), tool(n)]
    earlier = (
        Told(n, (user(sizes[0]), *map(tool, sizes[1:])), sum(sizes))
        for n, sizes in enumerate(turns, 1)
    )
    conversation = Conversation("", tuple(earlier), tuple(current))
    for _ in range(len(turns) + 1):
        plan = plan_window(conversation, 30, size)
        if not isinstance(plan, Summarise):
            break
        request = window.summary_request(plan, size)
        assert window.request_tokens(request) <= room
        text = window.summary_text("s" * said, plan, size)
        assert tokens.text_tokens(text) <= max(size.summary, window.SHORT_BYTES // 3) + 1
        left = conversation.turns[len(plan.turns) :]
        assert len(left) < len(conversation.turns)
        conversation = Conversation(text, left, conversation.current)
    else:
        raise AssertionError("planning does not end")
    if isinstance(plan, Send):
        assert 30 + tokens.tokens_of(plan.messages) <= room
        assert plan.messages[-1].role is conversation.current[-1].role
    else:
        assert isinstance(plan, TooLarge)
        assert plan.tokens > plan.room == room
        alone = replace(conversation, summary="", turns=())
        assert not conversation.turns or plan_window(alone, 30, size) == plan


# -- summaries ---------------------------------------------------------------------------------


def test_a_request_for_a_summary_holds_what_was_said_and_done() -> None:
    turn = Told(7, (Message(Role.USER, "Look."), reply("I do.", path="/x"), tool(20)), 60)
    request = window.summary_request(Summarise((turn,), "They met."), ROOM)
    (message,) = request.messages
    assert message.role is Role.USER
    said = (
        "Summary so far:\nThey met.",
        "user: Look.",
        'assistant: I do.\ncalls tool {"path": "/x"}',
    )
    assert all(part in message.text for part in said)
    assert request.system.startswith("You condense")
    assert request.options == {"max_tokens": 100}
    assert request.tools == ()


def test_a_model_that_says_nothing_leaves_what_people_had_asked() -> None:
    turn = Told(7, (Message(Role.USER, "Mend\n the  roof."), reply("Done.")), 30)
    text = window.summary_text(" \n", Summarise((turn,), "They met."), ROOM)
    assert text.startswith("They met.")
    assert text.endswith("- Mend the roof.")


@pytest.mark.parametrize("text", ["short", "x" * 5_000, "ü" * 5_000, "👋" * 2_000, "\ud800" * 900])
def test_a_clipped_text_is_text_and_no_longer_than_asked(text: str) -> None:
    clipped = window.clip(text, 1_000)
    assert len(clipped.encode("utf-8", "surrogatepass")) <= 1_000
    assert (clipped == text) is (len(text) == 5)
    if len(text) > 5:
        assert "bytes left out" in clipped
    assert window.clip("x" * 500, 20)
