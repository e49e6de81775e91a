"""Replies of model servers, whole and otherwise, with both kinds of provider."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.adapters.providers.anthropic import (
    AnthropicProvider,
    _Messages,
    _MessagesReader,
)
from netclawd.adapters.providers.events import EventParser
from netclawd.adapters.providers.openai import _Chat, _ChatReader
from netclawd.adapters.providers.reply import FailedError, ReplyUnderWay, UnfitError
from netclawd.core.session import (
    CallId,
    FinishReason,
    Message,
    ModelRequest,
    Role,
    ToolCall,
    ToolSpec,
    Usage,
)
from netclawd.core.settings import ProviderSettings
from netclawd.errors import ConfigMeaningError
from tests.adapters.model_servers import CLOCK, HELLO, KEY, KINDS, Model, model
from tests.counterparts import Call, CallStyle, Ending, Events, Reply
from tests.counterparts import chat as chat_wire
from tests.counterparts import messages as messages_wire


@pytest.fixture(params=KINDS)
def asked(request: pytest.FixtureRequest) -> Iterator[Model]:
    with model(request.param) as made:
        yield made


def test_text_comes_in_pieces_and_whole(asked: Model) -> None:
    asked.server.script(Reply("All is well.", usage=(12, 34), pings=True))
    reply = asked.ask()
    assert asked.said == ["All", " is", " well."]
    assert reply.text == "All is well."
    assert (reply.calls, reply.finish) == ((), FinishReason.STOP)
    assert reply.usage == Usage(12, 34)


def test_the_server_is_given_the_key_the_model_and_the_system_prompt(asked: Model) -> None:
    asked.ask(ModelRequest(HELLO.messages, "Be brief.", (CLOCK,)))
    (sent,) = asked.server.asked
    assert asked.server.key_of(sent) == KEY
    assert sent.body["model"] == "test-model"
    assert sent.body["max_tokens"] == 4096
    system = sent.body.get("system") or sent.body["messages"][0]["content"]
    assert system == "Be brief."
    assert sent.headers["accept-encoding"] == "identity"


def test_a_connection_is_used_again(asked: Model) -> None:
    asked.server.script(Reply("one"), Reply("two", unstreamed=True))
    for text in ("one", "two", "You said: hello"):
        assert asked.ask().text == text
    assert asked.server.connections == 1


def test_calls_in_fragments_become_whole_ones(asked: Model) -> None:
    calls = (Call("read_file", {"path": "a/b", "of": [1, {"x": None}]}, "id-1"), Call("clock"))
    asked.server.script(Reply("I look.", calls))
    reply = asked.ask(ModelRequest(HELLO.messages, tools=(CLOCK,)))
    assert reply.text == "I look."
    assert reply.finish is FinishReason.TOOLS
    assert [(c.name, c.arguments, c.invalid) for c in reply.calls] == [
        ("read_file", {"path": "a/b", "of": [1, {"x": None}]}, ""),
        ("clock", {}, ""),
    ]
    assert reply.calls[0].id == "id-1"
    assert len({c.id for c in reply.calls}) == 2


@pytest.mark.parametrize("style", CallStyle)
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_calls_are_understood_however_a_server_writes_them(style: CallStyle, finish: str) -> None:
    calls = (Call("a", {"n": 1}), Call("b", {"n": 2}), Call("a", {"n": 1}))
    with model("openai") as asked:
        asked.server.script(Reply("", calls, style=style, finish=finish))
        reply = asked.ask()
    assert [(c.name, c.arguments) for c in reply.calls] == [(c.name, c.arguments) for c in calls]
    assert reply.finish is FinishReason.TOOLS
    assert all(c.id for c in reply.calls)
    assert len({c.id for c in reply.calls}) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('{"path": "a', "not valid JSON"),
        ("certainly!", "not valid JSON"),
        ('{"n": NaN}', "not valid JSON"),
        ("[" * 20_000, "not valid JSON"),
        ("[1]", "no JSON object"),
        ("null", "no JSON object"),
    ],
)
def test_arguments_that_cannot_be_used_are_told(asked: Model, arguments: str, words: str) -> None:
    asked.server.script(Reply("", (Call("clock", arguments),)))
    (call,) = asked.ask().calls
    assert (call.name, call.arguments) == ("clock", {})
    assert words in call.invalid


def test_thoughts_are_no_text(asked: Model) -> None:
    asked.server.script(Reply("Four.", reasoning="two and two"))
    assert asked.ask().text == "Four."
    assert asked.said == ["Four."]


def test_a_whole_answer_to_a_streaming_request_is_taken(asked: Model) -> None:
    calls = (Call("clock", {"zone": "UTC"}),)
    asked.server.script(Reply("At once.", calls, unstreamed=True, usage=(5, 6), reasoning="hm"))
    reply = asked.ask()
    assert (reply.text, reply.usage, reply.finish) == ("At once.", Usage(5, 6), FinishReason.TOOLS)
    assert reply.calls[0].arguments == {"zone": "UTC"}
    assert asked.said == ["At once."]


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/octet-stream"])
@pytest.mark.parametrize("unstreamed", [True, False])
def test_a_type_that_says_nothing_is_told_by_how_the_answer_begins(
    asked: Model, content_type: str, unstreamed: bool
) -> None:
    asked.server.script(Reply("Yes.", content_type=content_type, unstreamed=unstreamed))
    assert asked.ask().text == "Yes."


@pytest.mark.parametrize("ending", [Ending.NO_MARKER, Ending.NO_FINISH])
def test_a_finish_reason_or_an_end_marker_is_enough(asked: Model, ending: Ending) -> None:
    asked.server.script(Reply("All of it.", ending=ending))
    assert asked.ask().text == "All of it."
    calls = (Call("clock"),)
    asked.server.script(Reply("", calls, ending=ending))
    assert asked.ask().finish is FinishReason.TOOLS


@pytest.mark.parametrize("ending", [Ending.NEITHER, Ending.CUT, Ending.RESET])
def test_a_reply_that_is_not_whole_is_none_and_not_asked_for_again(
    asked: Model, ending: Ending
) -> None:
    asked.server.script(Reply("Half of it is here", ending=ending, after=2))
    error = asked.fail()
    assert error.slug == "provider-cut"
    assert asked.said[:2] == ["Half", " of"]
    assert len(asked.server.asked) == 1


def test_a_whole_answer_without_a_finish_reason_is_none(asked: Model) -> None:
    asked.server.script(Reply("Half", unstreamed=True, ending=Ending.NEITHER))
    assert asked.fail().slug == "provider-cut"


def test_an_end_marker_behind_nothing_is_no_reply(asked: Model) -> None:
    marker = (
        b'data: {"type": "message_stop"}\n\n' if asked.kind == "anthropic" else b"data: [DONE]\n\n"
    )
    asked.server.script(*[Events(items=[marker])] * 5)
    assert asked.fail().slug == "provider-cut"
    assert len(asked.server.asked) == 5


@pytest.mark.parametrize(
    ("kind", "word", "finish"),
    [
        ("openai", "length", FinishReason.LENGTH),
        ("openai", "content_filter", FinishReason.FILTERED),
        ("openai", "tool_calls", FinishReason.STOP),
        ("openai", "eos", FinishReason.STOP),
        ("anthropic", "max_tokens", FinishReason.LENGTH),
        ("anthropic", "model_context_window_exceeded", FinishReason.LENGTH),
        ("anthropic", "refusal", FinishReason.FILTERED),
        ("anthropic", "stop_sequence", FinishReason.STOP),
        ("anthropic", "tool_use", FinishReason.STOP),
    ],
)
def test_each_finish_reason_means_what_it_says(kind: str, word: str, finish: FinishReason) -> None:
    with model(kind) as asked:
        asked.server.script(Reply("Said.", finish=word))
        assert asked.ask().finish is finish


def test_a_reply_that_the_server_gave_up_is_none() -> None:
    with model("openai") as asked:
        asked.server.script(Reply("Half", finish="abort"))
        assert asked.fail().slug == "provider-unavailable"


def test_halves_of_a_character_are_joined_and_lone_ones_replaced(asked: Model) -> None:
    call = Call("clock", '{"a\\ud800": ["\\udfff", "\\ud83d\\ude00"]}')
    asked.server.script(Reply(["a\ud83d", "\ude00b", "\udc00c", "d\ud800"], (call,)))
    reply = asked.ask()
    assert reply.text == "".join(asked.said) == "a😀b\ufffdcd\ufffd"
    assert reply.calls[0].arguments == {"a\ufffd": ["\ufffd", "😀"]}


def test_options_are_passed_on_in_the_words_of_each_wire() -> None:
    options = {
        "temperature": 1.5,
        "top_p": 0.5,
        "max_tokens": 99,
        "stop": ["END", " "],
        "tool_choice": {"type": "function", "function": {"name": "clock"}},
        "logit_bias": {},
    }
    request = ModelRequest(HELLO.messages, tools=(CLOCK,), options=options)
    with model("openai") as asked:
        asked.ask(request)
        body = asked.server.asked[0].body
        assert {name: body.get(name) for name in options} == {**options, "logit_bias": None}
    with model("anthropic") as asked:
        asked.ask(request)
        body = asked.server.asked[0].body
        assert (body["temperature"], body["stop_sequences"]) == (1.0, ["END"])
        assert body["max_tokens"] == 99
        assert body["tool_choice"] == {"type": "tool", "name": "clock"}
        assert "top_p" not in body
        asked.ask(ModelRequest(HELLO.messages, options={"max_tokens": 9_000, "top_p": 0.5}))
        body = asked.server.asked[1].body
        assert (body["max_tokens"], body["top_p"]) == (4096, 0.5)


def _call(number: int) -> ToolCall:
    return ToolCall(CallId(f"t_1-1-{number}"), "clock", {"n": number})


def test_a_history_with_everything_in_it_is_taken(asked: Model) -> None:
    history = (
        Message(Role.USER, "What time is it?"),
        Message(Role.ASSISTANT, "", (_call(1), _call(2))),
        Message(Role.TOOL, "two", call_id=CallId("t_1-1-2")),
        Message(Role.TOOL, "", call_id=CallId("t_1-1-1")),
        Message(Role.SYSTEM, "[netclawd] The daemon restarted."),
        Message(Role.ASSISTANT, ""),
        Message(Role.ASSISTANT, "It is two.", (_call(3),)),
        Message(Role.USER, "Never mind."),
        Message(Role.USER, "And now?"),
    )
    reply = asked.ask(ModelRequest(history))
    assert reply.text.startswith("You said: ")
    assert "And now?" in reply.text
    sent = str(asked.server.asked[0].body)
    assert "call00001" in sent
    assert "t_1-1-1" not in sent
    assert "no recorded outcome" in sent
    assert "[netclawd] The daemon restarted." in sent


@pytest.mark.parametrize("tools", [(), (CLOCK,)])
def test_a_tool_that_a_model_made_up_spoils_no_later_request(
    asked: Model, tools: tuple[ToolSpec, ...]
) -> None:
    names = ("", "functions.shell", "zeig uhr:zeit", "x" * 100)
    calls = tuple(ToolCall(CallId(str(n)), name, {}) for n, name in enumerate(names))
    history = (
        Message(Role.USER, "go"),
        Message(Role.ASSISTANT, "", calls),
        *(Message(Role.TOOL, f"[error] no {c.name}", call_id=c.id) for c in calls),
    )
    asked.ask(ModelRequest(history, tools=tools))
    assert "functions_shell" in json.dumps(asked.server.requests[-1].body)


def test_half_a_character_is_sent_as_text(asked: Model) -> None:
    asked.ask(ModelRequest((Message(Role.USER, "half \ud83d, whole \U0001f600, Grüße"),)))
    message = asked.server.requests[-1].body["messages"][-1]
    said = json.dumps(message, ensure_ascii=False)
    assert "half ?, whole \U0001f600, Grüße" in said


def test_a_note_behind_an_outcome_does_not_come_between_it_and_the_reply() -> None:
    history = (
        Message(Role.USER, "Go."),
        Message(Role.ASSISTANT, "", (_call(1),)),
        Message(Role.TOOL, "one", call_id=_call(1).id),
        Message(Role.SYSTEM, "[netclawd] The daemon restarted."),
    )
    with model("openai") as asked:
        asked.ask(ModelRequest(history))
        last = asked.server.asked[0].body["messages"][-1]
    assert last["role"] == "tool"
    assert last["content"] == "one\n\n[netclawd] The daemon restarted."


_TEXTS = st.sampled_from(["", " ", "a", "b\n", "é"])
_CALLS = st.lists(
    st.builds(
        ToolCall,
        st.sampled_from(["x", "y", "z"]).map(CallId),
        st.sampled_from(["clock", "shell", "", "a.b"]),
        st.just({"a": 1}),
    ),
    max_size=3,
)
_MESSAGES = st.lists(
    st.one_of(
        st.builds(Message, st.sampled_from([Role.USER, Role.SYSTEM]), _TEXTS),
        st.builds(Message, st.just(Role.ASSISTANT), _TEXTS, _CALLS.map(tuple)),
        st.builds(
            Message,
            st.just(Role.TOOL),
            _TEXTS,
            st.just(()),
            st.sampled_from(["x", "y", "z", "w"]).map(CallId),
        ),
    ),
    max_size=12,
)
_SETTINGS = ProviderSettings("main", "openai", 0.0, model="m")


@given(_MESSAGES, st.booleans())
def test_whatever_the_history_careful_servers_take_it(
    messages: list[Message], with_tools: bool
) -> None:
    tools = (CLOCK, ToolSpec("shell", "", {"type": "object"})) if with_tools else ()
    request = ModelRequest(tuple(messages), "system", tools)
    body = _Chat(_SETTINGS, "").body(request)
    assert chat_wire._objection(body) is None
    body = _Messages(_SETTINGS, "").body(request)
    assert messages_wire._objection(body) is None


_PARTS = st.lists(
    st.sampled_from(
        [
            b"data: one\n",
            b"data:two\r\n",
            b"data: \xc3\xa9\r",
            b"\n",
            b"\r\n",
            b"\r",
            b": hm\n",
            b"event: x\n",
        ]
    ),
    max_size=12,
)


@given(_PARTS, st.lists(st.integers(0, 80), max_size=8))
def test_events_are_the_same_however_the_bytes_are_cut(parts: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(parts)
    parser = EventParser()
    expected = [*parser.feed(whole), *parser.end()]
    places = sorted({0, len(whole), *(c for c in cuts if c < len(whole))})
    parser = EventParser()
    found: list[tuple[str, str]] = []
    for start, end in itertools.pairwise(places):
        found += parser.feed(whole[start:end])
    assert [*found, *parser.end()] == expected


_OF_CHOICES = ["choices", "delta", "message", "content", "tool_calls", "function", "index", "id"]
_OF_MESSAGES = ["type", "content_block", "input", "partial_json", "stop_reason", "input_tokens"]
_NAMES = [
    *_OF_CHOICES,
    *_OF_MESSAGES,
    "name",
    "arguments",
    "finish_reason",
    "usage",
    "prompt_tokens",
    "text",
]
_FRAMES = [
    "choices",
    "usage",
    "error",
    "type",
    "message",
    "content_block",
    "delta",
    "index",
    "content",
]
_WORDS = ["", "stop", "x", "error", "message", "message_start", "content_block_start", "tool_use"]
_WORDS += ["content_block_delta", "input_json_delta", "message_delta", "text", "text_delta", "{}"]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 600) | st.sampled_from(_WORDS),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(_NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(_FRAMES), _JSON), max_size=4), st.booleans())
def test_no_json_however_odd_is_a_defect(
    frames: list[Mapping[str, Any]], of_messages: bool
) -> None:
    reply = ReplyUnderWay(lambda _: None)
    reader = _MessagesReader(reply) if of_messages else _ChatReader(reply)
    try:
        for frame in frames:
            reader.take("", json.dumps(frame))
            reader.take_whole(frame)
    except (FailedError, UnfitError):
        return
    if reply.whole:
        reply.result()


def test_a_key_that_no_header_carries_is_a_wrong_configuration() -> None:
    for key in ("sk\nsecret", "sk-\u20ac", "sk \t", " sk"):
        with pytest.raises(ConfigMeaningError) as failed:
            AnthropicProvider(_SETTINGS, key)
        assert key not in str(failed.value)
        assert "providers.main.api_key" in str(failed.value)
    AnthropicProvider(_SETTINGS, "")
