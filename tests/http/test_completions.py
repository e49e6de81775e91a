"""Chat completions of a client's own: what goes over the wire, hang-ups, drains, limits."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import pytest

from netclawd.core.session import FinishReason, Role, Usage
from netclawd.errors import (
    ContextOverflowError,
    CutError,
    DrainingError,
    NetclawError,
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    TooManyCallsError,
)
from tests.http.model_calls import (
    PATH,
    Chunks,
    finish,
    said,
    tool_call,
    user,
    wait_hung_up,
)
from tests.http.running import Images, Running
from tests.http.wire import Answer, Wire, request


class Asking:
    """A client that waits for a whole answer."""

    def __init__(self, running: Running, body: Any = None, **headers: str | None) -> None:
        self.wire = running.wire()
        self.wire.send(request("POST", PATH, user() if body is None else body, **headers))

    def __enter__(self) -> Wire:
        return self.wire

    def __exit__(self, *_error: object) -> None:
        self.wire.close()


def error_of(answer: Answer, status: int) -> dict[str, Any]:
    """Return the error of an answer in OpenAI's form."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return dict(error)


# -- models ----------------------------------------------------------------------------------------


def test_there_is_one_model(running: Running) -> None:
    listed = running.ask("GET", "/v1/models").json
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"]) == ("netclaw", "model")
    assert running.ask("GET", "/v1/models/netclaw").json == model
    error = error_of(running.ask("GET", "/v1/models/gpt-4"), 404)
    assert error["code"] == "model_not_found"


# -- one answer ------------------------------------------------------------------------------------


def test_a_request_becomes_a_model_call_and_its_reply_the_answer(running: Running) -> None:
    with Asking(running, user("hi", temperature=0.5, stop="END", max_tokens=7)) as wire:
        call = running.service.model_calls.wait()
        assert dict(call.asked.options) == {"temperature": 0.5, "stop": ["END"], "max_tokens": 7}
        call.say("Sal", "ve")
        call.end("Salve", usage=Usage(3, 2))
        answer = wire.answer()
        assert answer.status == 200
        assert answer.json["object"] == "chat.completion"
        assert answer.json["id"].startswith("chatcmpl-")
        assert (answer.json["created"], answer.json["model"]) == (1_800_000_000, "netclaw")
        (choice,) = answer.json["choices"]
        assert (choice["index"], choice["finish_reason"]) == (0, "stop")
        assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "Salve")
        assert answer.json["usage"] == {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
        }
        # The connection goes on.
        assert wire.ask("GET", "/api/health/live").status == 200
    assert running.server.streams() == 0
    assert not running.service.log, "a session was made"


def test_a_streamed_answer_comes_in_chunks_as_it_is_made(running: Running) -> None:
    with running.wire() as wire:
        chunks = Chunks(wire, user())
        call = running.service.model_calls.wait()
        call.say("Sal")
        first = chunks.begin().next()
        assert first["object"] == "chat.completion.chunk"
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert chunks.text(3) == "Sal"
        call.say("ve")
        assert chunks.text(2) == "ve"
        call.end("Salve", usage=Usage(3, 2))
        rest = list(chunks.rest())
        assert finish(rest) == ["stop"]
        assert rest[-1] == "[DONE]"
        assert {chunk["id"] for chunk in rest[:-1]} == {first["id"]}
        assert not any(chunk.get("usage") for chunk in rest[:-1])


def test_tokens_come_in_a_chunk_of_their_own_if_asked_for(running: Running) -> None:
    with running.wire() as wire:
        chunks = Chunks(wire, user(stream_options={"include_usage": True}))
        running.service.model_calls.wait().end("", usage=Usage(3, 2))
        rest = list(chunks.begin().rest())
        assert rest[-2]["choices"] == []
        assert rest[-2]["usage"]["total_tokens"] == 5
        assert all(chunk["usage"] is None for chunk in rest[:-2])


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (FinishReason.LENGTH, "length"),
        (FinishReason.FILTERED, "content_filter"),
        (FinishReason.STOP, "stop"),
    ],
)
def test_the_reason_of_the_end_is_the_models(
    running: Running, reason: FinishReason, word: str
) -> None:
    with Asking(running) as wire:
        running.service.model_calls.wait().end("x", finish=reason)
        assert wire.answer().json["choices"][0]["finish_reason"] == word


# -- tools -----------------------------------------------------------------------------------------

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "tool-1",
            "description": "Does one.",
            "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}},
        },
    },
    {"type": "function", "function": {"name": "tool-2"}},
]


def test_a_clients_tools_are_told_to_the_model_and_returned_with_their_ids(
    running: Running,
) -> None:
    body = user("go", tools=TOOLS, tool_choice="auto")
    calls = [tool_call(1, n=1, text="ä"), tool_call(2)]
    with Asking(running, body) as wire:
        call = running.service.model_calls.wait()
        assert [spec.name for spec in call.asked.tools] == ["tool-1", "tool-2"]
        assert call.asked.tools[0].description == "Does one."
        assert call.asked.tools[0].parameters["properties"] == {"n": {"type": "integer"}}
        call.end("", *calls, finish=FinishReason.TOOLS)
        (choice,) = wire.answer().json["choices"]
        returned = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert [c["function"]["name"] for c in returned] == ["tool-1", "tool-2"]
    assert json.loads(returned[0]["function"]["arguments"]) == {"n": 1, "text": "ä"}
    assert json.loads(returned[1]["function"]["arguments"]) == {}
    ids = [c["id"] for c in returned]
    assert len(set(ids)) == 2
    # The client runs them and comes back with the answers.
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": returned},
        {"role": "tool", "tool_call_id": ids[1], "content": "two"},
        {"role": "tool", "tool_call_id": ids[0], "content": [{"type": "text", "text": "one"}]},
    ]
    with Asking(running, body) as wire:
        call = running.service.model_calls.wait(2)
        told = call.asked.messages
        assert [m.role for m in told] == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.TOOL]
        assert [(c.id, c.name, dict(c.arguments)) for c in told[1].calls] == [
            (ids[0], "tool-1", {"n": 1, "text": "ä"}),
            (ids[1], "tool-2", {}),
        ]
        assert [(m.call_id, m.text) for m in told[2:]] == [(ids[1], "two"), (ids[0], "one")]
        call.end("done")
        assert wire.answer().json["choices"][0]["message"]["content"] == "done"


def test_streamed_tool_calls_have_index_id_name_and_arguments(running: Running) -> None:
    with running.wire() as wire:
        chunks = Chunks(wire, user("go", tools=TOOLS))
        call = running.service.model_calls.wait()
        call.say("I will.")
        call.end("I will.", tool_call(1, n=1), tool_call(2), finish=FinishReason.TOOLS)
        rest = list(chunks.begin().rest())
    calls = [
        call for chunk in rest[:-1] for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert [(c["index"], c["type"], c["function"]["name"]) for c in calls] == [
        (0, "function", "tool-1"),
        (1, "function", "tool-2"),
    ]
    assert json.loads(calls[0]["function"]["arguments"]) == {"n": 1}
    assert len({c["id"] for c in calls}) == 2
    assert finish(rest) == ["tool_calls"]
    assert said(rest) == "I will."


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ProviderBusyError("Busy."), 429, "provider_busy"),
        (ProviderTimeoutError("Slow."), 504, "provider_timeout"),
        (ProviderError("No."), 502, "provider_failed"),
        (ContextOverflowError("Long."), 400, "context_length_exceeded"),
        (CutError("Cut."), 503, "cut_by_restart"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_word_has_a_status_of_its_own(
    running: Running, error: NetclawError, status: int, code: str, stream: bool
) -> None:
    with Asking(running, user(stream=stream)) as wire:
        running.service.model_calls.wait().hears.on_error(error)
        answer = wire.answer()
        found = error_of(answer, status)
        assert (found["code"], found["message"]) == (code, error.what)
        assert ("retry-after" in answer.headers) is (status in (429, 503))
    running.wait_until(lambda: running.server.streams() == 0, "its place to be free")


def test_a_failure_behind_the_first_word_is_an_error_chunk_and_no_end(running: Running) -> None:
    with running.wire() as wire:
        chunks = Chunks(wire, user())
        call = running.service.model_calls.wait()
        call.say("Sal")
        call.hears.on_error(ProviderError("The model server broke off.", "Try again."))
        rest = list(chunks.begin().rest())
    assert said(rest) == "Sal"
    assert rest[-1]["error"]["message"] == "The model server broke off. Try again."
    assert (rest[-1]["error"]["type"], rest[-1]["error"]["code"]) == (
        "server_error",
        "provider_failed",
    )
    assert finish(rest) == []
    assert "[DONE]" not in rest


def test_a_closed_gate_refuses_with_the_time_to_come_again(running: Running) -> None:
    running.service.model_calls.error = DrainingError("Restarting.", "Wait.", retry_after_s=9)
    answer = running.ask("POST", PATH, user())
    assert error_of(answer, 503)["code"] == "draining"
    assert answer.headers["retry-after"] == "9"
    assert running.server.streams() == 0


def test_whatever_goes_wrong_under_v1_is_told_in_one_form(running: Running) -> None:
    asked: list[tuple[int, str, Answer]] = [
        (404, "not_found", running.ask("GET", "/v1/nothing")),
        (404, "not_found", running.ask("GET", "/v1")),
        (405, "method_not_allowed", running.ask("GET", PATH)),
        (403, "forbidden_host", running.ask("GET", "/v1/models", Host="evil.example")),
        (400, "bad_request", running.ask("POST", PATH, b"{")),
        (400, "bad_request", running.ask("POST", PATH, [1])),
        (400, "bad_request", running.ask("POST", PATH, b"")),
        (415, "unsupported_media_type", running.ask("POST", PATH, {}, Content_Type="text/plain")),
        (413, "body_too_large", running.ask("POST", PATH, None, Content_Length="2000000")),
        (404, "model_not_found", running.ask("POST", PATH, user(model="gpt-4"))),
        (404, "not_found", running.ask("POST", PATH, user(), X_Netclaw_Session="none")),
    ]
    for status, code, answer in asked:
        assert error_of(answer, status)["code"] == code
        assert answer.headers["x-netclaw-generation"] == "3"
    assert running.server.streams() == 0
    # Everybody else is told as before.
    assert running.ask("GET", "/v1x").slug == "not-found"


def test_a_request_that_comes_too_slowly_is_refused_in_the_same_form(images: Images) -> None:
    running = images.first(receive_timeout_s=0.2)
    with running.wire() as wire:
        wire.send(request("POST", PATH, user())[:-3])
        assert error_of(wire.answer(), 408)["code"] == "request_timeout"


# -- hang-ups --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_a_hang_up_cuts_the_model_call_only_if_that_was_wanted(
    running: Running, stream: bool, wanted: bool
) -> None:
    header = "1" if wanted else None
    with Asking(running, user(stream=stream), X_Netclaw_Cancel_On_Close=header):
        call = running.service.model_calls.wait()
        if stream:
            call.say("Sal")
        running.wait_until(lambda: running.server.streams() == 1, "it to be taken over")
    closed_at = time.monotonic()
    if wanted:
        wait_hung_up(call)
        assert time.monotonic() - closed_at < 1
        call.cut()
    else:
        if stream:
            running.wait_until(lambda: running.server.streams() == 0, "the stream to be forgotten")
        assert not call.hung_up.wait(0.05)
        call.end("Salve")
    running.wait_until(lambda: running.server.streams() == 0, "its place to be free")
    running.wait_until(lambda: not running.channels(), "its connection to be closed")
    assert running.ask("GET", "/api/health/live").status == 200


def test_a_client_that_has_ended_its_side_gets_its_answer_all_the_same(running: Running) -> None:
    with Asking(running) as wire:
        call = running.service.model_calls.wait()
        wire.sock.shutdown(socket.SHUT_WR)
        assert not call.hung_up.wait(0.05)
        call.end("Salve")
        assert wire.answer().json["choices"][0]["message"]["content"] == "Salve"


def test_a_reset_connection_frees_its_place(running: Running) -> None:
    with Asking(running) as wire:
        call = running.service.model_calls.wait()
        running.wait_until(lambda: running.server.streams() == 1, "it to wait")
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    running.wait_until(lambda: running.server.streams() == 0, "its place to be free")
    call.end("Salve")
    assert running.ask("GET", "/api/health/live").status == 200


# -- drains ----------------------------------------------------------------------------------------


def test_a_drain_ends_a_stream_with_an_error_and_never_with_an_end(running: Running) -> None:
    with running.wire() as wire:
        chunks = Chunks(wire, user())
        call = running.service.model_calls.wait()
        call.say("Sal")
        chunks.begin()
        assert chunks.text(3) == "Sal"
        running.quiesce()
        rest = list(chunks.rest())
    assert [set(chunk) for chunk in rest] == [{"error"}]
    assert rest[0]["error"]["code"] == "cut_by_restart"
    # Whoever still feeds it does no harm.
    call.say("ve")
    call.end("Salve")


@pytest.mark.parametrize("stream", [False, True])
def test_a_drain_answers_who_has_heard_nothing_with_503(running: Running, stream: bool) -> None:
    with Asking(running, user(stream=stream)) as wire:
        call = running.service.model_calls.wait()
        running.wait_until(lambda: running.server.streams() == 1, "it to wait")
        running.quiesce()
        answer = wire.answer()
        assert error_of(answer, 503)["code"] == "cut_by_restart"
        assert answer.headers["retry-after"] == "7"
    call.end("Salve")


def test_an_answer_that_was_whole_before_the_drain_is_told_whole(running: Running) -> None:
    with running.wire() as wire:
        chunks = Chunks(wire, user())
        call = running.service.model_calls.wait()
        call.end("", finish=FinishReason.LENGTH)
        running.quiesce()
        rest = list(chunks.begin().rest())
    assert finish(rest) == ["length"]
    assert rest[-1] == "[DONE]"


def test_after_a_drain_that_led_nowhere_answers_come_as_before(running: Running) -> None:
    running.quiesce()
    running.server.resume()
    with Asking(running) as wire:
        running.service.model_calls.wait().end("Salve")
        assert wire.answer().status == 200


# -- many, slow and silent -------------------------------------------------------------------------


def test_no_waiting_client_holds_a_worker(images: Images) -> None:
    running = images.first(threads=2)
    asking = [Asking(running, user(stream=bool(n % 2))) for n in range(40)]
    try:
        running.wait_until(lambda: len(running.service.model_calls.begun) == 40, "all to be taken")
        assert running.ask("GET", "/api/health/live").status == 200
        for call in running.service.model_calls.begun:
            call.end("Salve")
        for one in asking:
            assert one.wire.head()[0] == 200
    finally:
        for one in asking:
            one.wire.close()


def test_they_count_among_the_streams(images: Images) -> None:
    running = images.first(max_streams=2)
    with Asking(running), Asking(running, user(stream=True)):
        running.service.model_calls.wait(2)
        answer = running.ask("POST", PATH, user())
        assert error_of(answer, 429)["code"] == "too_many_streams"
        assert answer.headers["retry-after"]
        for call in running.service.model_calls.begun:
            call.end("")
    running.wait_until(lambda: running.server.streams() == 0, "their places to be free")


def test_calls_that_run_on_without_their_clients_have_a_most_and_say_so(images: Images) -> None:
    running = images.first(max_streams=2)
    calls = running.service.model_calls
    calls.error = TooManyCallsError("2 model calls run.", "Try again.")
    answer = running.ask("POST", PATH, user())
    assert error_of(answer, 429)["code"] == "too_many_calls"
    assert answer.headers["retry-after"]
    assert calls.most == 2
    assert running.server.streams() == 0


def test_a_slow_reader_is_dropped_and_the_model_call_goes_on(running: Running) -> None:
    with running.wire() as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        Chunks(wire, user())
        call = running.service.model_calls.wait()
        for _ in range(200):
            call.say("x" * 65536)
        running.wait_until(lambda: running.server.streams() == 0, "it to be dropped")
        assert not call.hung_up.is_set()
        call.end("")


def test_a_long_silence_is_broken_by_comments_that_clients_pass_over(images: Images) -> None:
    running = images.first(heartbeat_s=0.1)
    with running.wire() as wire:
        chunks = Chunks(wire, user())
        call = running.service.model_calls.wait()
        # Nothing was said yet: the head comes all the same, and comments behind it.
        chunks.begin()
        assert chunks.next()["choices"][0]["delta"]["role"] == "assistant"
        assert wire._until(b"\n\n") == b":"
        call.hears.on_error(ProviderError("No."))
        assert [set(chunk) for chunk in chunks.rest()] == [{"error"}]


def test_words_that_come_from_many_threads_arrive_in_their_order(running: Running) -> None:
    streams = []
    for number in range(8):
        wire = running.wire()
        streams.append(Chunks(wire, user()))
        running.service.model_calls.wait(number + 1)
    calls = running.service.model_calls.begun

    def talk(number: int) -> None:
        for n in range(100):
            calls[number].say(f" {n}")
        calls[number].end("")

    threads = [threading.Thread(target=talk, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for stream in streams:
        assert said(list(stream.begin().rest())) == "".join(f" {n}" for n in range(100))
        stream.wire.close()
    for thread in threads:
        thread.join()
