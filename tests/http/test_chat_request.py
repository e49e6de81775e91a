"""What clients of chat completions send: what is taken, what is passed over, what is refused and where."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.adapters.http.chat_request import (
    InvalidError,
    ModelNotFoundError,
    last_words,
    read_chat,
    to_model_request,
)
from netclawd.core.session import Message, Role

HELLO = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "look"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}


def body(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "netclaw", "messages": list(messages or (HELLO,)), **more}


def test_what_clients_send_besides_is_passed_over() -> None:
    asked = body(
        {**HELLO, "name": "me"},
        store=False,
        metadata={"a": "b"},
        seed=7,
        logit_bias={},
        presence_penalty=0.1,
        parallel_tool_calls=True,
        response_format={"type": "text"},
        service_tier="auto",
        n=1,
        tools=None,
        tool_choice=None,
        stop=None,
        stream_options=None,
        user=None,
        temperature=None,
        max_tokens=None,
        options={"num_ctx": 1},
    )
    chat, request = read_chat(asked), to_model_request(asked)
    assert (chat.stream, chat.include_usage, chat.user) == (False, False, "")
    assert request.messages == (Message(Role.USER, "hello"),)
    assert (request.system, request.tools, dict(request.options)) == ("", (), {})


def test_system_messages_before_all_others_are_the_system_prompt() -> None:
    request = to_model_request(
        body(
            {"role": "system", "content": "One."},
            {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
            HELLO,
            {"role": "system", "content": "Three."},
        )
    )
    assert request.system == "One.\n\nTwo."
    assert request.messages == (Message(Role.USER, "hello"), Message(Role.SYSTEM, "Three."))


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert to_model_request(body({"role": "user", "content": parts})).messages[0].text == "ab"
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert to_model_request(body(HELLO, refusal)).messages[1].text == "No."


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 6}),
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop": []}, {}),
        ({"temperature": 0, "top_p": 1}, {"temperature": 0, "top_p": 1}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
    ],
)
def test_options_in_their_several_forms(given: dict[str, Any], options: dict[str, Any]) -> None:
    assert to_model_request(body(**given)).options == options


def test_a_tool_without_parameters_takes_none() -> None:
    (spec,) = to_model_request(body(tools=[TOOL])).tools
    assert (spec.name, spec.description) == ("look", "")
    assert spec.parameters == {"type": "object", "properties": {}}


def test_arguments_that_a_model_has_garbled_stay_in_the_conversation() -> None:
    garbled = {**CALL, "function": {"name": "look", "arguments": '{"a": '}}
    asked = body(HELLO, {"role": "assistant", "tool_calls": [garbled]})
    (call,) = to_model_request(asked).messages[1].calls
    assert (dict(call.arguments), bool(call.invalid)) == ({}, True)


def answering(call_id: Any = "c1", *, calls: Any = (CALL,), content: Any = "x") -> dict[str, Any]:
    assistant = {"role": "assistant", "content": "", "tool_calls": list(calls)}
    return body(HELLO, assistant, {"role": "tool", "tool_call_id": call_id, "content": content})


def call_with(**function: Any) -> dict[str, Any]:
    return {**CALL, "function": {**CALL["function"], **function}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"model": "netclaw"}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        (body(1), "messages[0]"),
        (body(HELLO, {"role": "wizard", "content": "x"}), "messages[1].role"),
        (body({"content": "x"}), "messages[0].role"),
        (body({"role": "user"}), "messages[0].content"),
        (body({"role": "user", "content": 7}), "messages[0].content"),
        (body({"role": "user", "content": "\ud800"}), "messages[0].content"),
        (body(HELLO, {"role": "user", "content": [IMAGE]}), "messages[1].content[0]"),
        (
            body({"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}),
            "messages[0].content[1]",
        ),
        (body({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0]"),
        (body({"role": "user", "content": ["a"]}), "messages[0].content[0]"),
        (body({"role": "system", "content": "alone"}), "messages"),
        (body(HELLO, {"role": "assistant", "content": None}), "messages[1].content"),
        (
            body(HELLO, {"role": "assistant", "tool_calls": {}, "content": None}),
            "messages[1].content",
        ),
        (body(HELLO, {"role": "assistant", "tool_calls": "x"}), "messages[1].tool_calls"),
        (
            body(HELLO, {"role": "assistant", "function_call": {"name": "x"}}),
            "messages[1].function_call",
        ),
        (answering("c2"), "messages[2].tool_call_id"),
        (answering(None), "messages[2].tool_call_id"),
        (answering(content=None), "messages[2].content"),
        (answering(calls=[CALL, CALL]), "messages[1].tool_calls"),
        (answering(calls=[CALL, {"id": "c2"}]), "messages[1].tool_calls[1].function"),
        (answering(calls=[{**CALL, "id": ""}]), "messages[1].tool_calls[0]"),
        (answering(calls=[call_with(name="a b")]), "messages[1].tool_calls[0].function.name"),
        (
            answering(calls=[call_with(arguments={"a": 1})]),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (body(tools="x"), "tools"),
        (body(tools=[TOOL, 1]), "tools[1]"),
        (body(tools=[{"type": "custom"}]), "tools[0].type"),
        (body(tools=[{"type": "function"}]), "tools[0].function"),
        (body(tools=[{"function": {"name": "a b"}}]), "tools[0].function.name"),
        (body(tools=[TOOL, TOOL]), "tools[1]"),
        (
            body(tools=[{"function": {"name": "a", "parameters": []}}]),
            "tools[0].function.parameters",
        ),
        (body(tools=[{"function": {"name": "a", "description": 1}}]), "tools[0].function"),
        (body(tool_choice="maybe"), "tool_choice"),
        (body(tool_choice={"function": {"name": "look"}}), "tool_choice"),
        (body(temperature="hot"), "temperature"),
        (body(temperature=True), "temperature"),
        (body(temperature=2.5), "temperature"),
        (body(top_p=-1), "top_p"),
        (body(max_tokens=0), "max_tokens"),
        (body(max_completion_tokens=1.5), "max_completion_tokens"),
        (body(stop=[1]), "stop"),
        (body(stop=["x"] * 17), "stop"),
        (body(stop={"a": 1}), "stop"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_place(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidError) as caught:
        to_model_request(asked)
    assert caught.value.param == param
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": "1"}, "n"),
        ({"functions": [1]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream_options": 7}, "stream_options.include_usage"),
        ({"user": 7}, "user"),
        ({"user": "x" * 256}, "user"),
        ({"user": "\udfff"}, "user"),
        ({"model": 7}, "model"),
    ],
)
def test_what_cannot_be_had_is_refused(more: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidError) as caught:
        read_chat(body(**more))
    assert caught.value.param == param


def test_the_model_may_be_left_out_and_is_never_another_one() -> None:
    assert read_chat({"messages": [HELLO]}).user == ""
    with pytest.raises(ModelNotFoundError):
        read_chat(body(model="gpt-4"))


def test_a_durable_session_takes_the_last_user_message_alone() -> None:
    told = body({"role": "system", "content": "x"}, HELLO, {"role": "assistant", "content": "a"})
    assert last_words(told) == "hello"
    told["messages"].append({"role": "user", "content": [{"type": "text", "text": "more"}]})
    assert last_words(told) == "more"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (body({"role": "system", "content": "x"}), "messages"),
        (body({"role": "user", "content": "  "}), "messages[0]"),
        (body({"role": "user", "content": [IMAGE]}), "messages[0].content[0]"),
        (answering(), "messages[2]"),
        (body(HELLO, 1), "messages[1]"),
    ],
)
def test_a_durable_session_refuses_what_it_cannot_take(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidError) as caught:
        last_words(asked)
    assert caught.value.param == param


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
_WHOLE = answering() | {
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "stop": ["a"],
    "stream_options": {"include_usage": True},
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "max_tokens": 1,
    "temperature": 1.0,
    "user": "me",
    "n": 1,
}


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with every key of it."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


@given(st.data())
def test_whatever_stands_in_a_request_is_taken_or_refused(data: st.DataObject) -> None:
    asked = json.loads(json.dumps(_WHOLE))
    for _ in range(data.draw(st.integers(1, 2))):
        inside, key = data.draw(st.sampled_from(list(_places(asked))))
        inside[key] = data.draw(_JSON)
    for read in (read_chat, to_model_request, last_words):
        with contextlib.suppress(InvalidError, ModelNotFoundError):
            read(asked)
