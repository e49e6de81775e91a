"""OpenAI's own client and a real daemon: a model without a memory, and a durable session over restarts."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.counterparts import Call, ChatServer, Ending, Reply, Status
from tests.process.harness import Daemon
from tests.process.talk import events, new_session, of_type, wait_event
from tests.waiting import scaled, wait_for

#: Its types are thousands, and of no use here.
openai: Any = importlib.import_module("openai")

Make = Callable[..., Daemon]

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "clock"}},
]
#: Longer than it takes from a reload to the drain.
LONG = "/count 100 0.05"
COUNTED = " ".join(str(n) for n in range(1, 101))
#: The drain cuts a model call soon, and says to come again soon.
QUICK: dict[str, Any] = {"model_timeout_s": 0.3, "timeout_s": 5}


def connect(daemon: Daemon, **options: Any) -> Any:
    """Return a client that has nothing but a base URL, and sends nothing twice by itself."""
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{daemon.port}/v1",
        api_key="none-is-needed",
        **{"max_retries": 0, "timeout": scaled(20.0), **options},
    )


def say(client: Any, text: str, **more: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="netclaw", messages=messages, **more)


def of_session(session: str, **more: str) -> dict[str, str]:
    return {"X-Netclaw-Session": session, **more}


def text_of(stream: Any) -> tuple[str, list[str]]:
    """Read a stream to its end; return its text and the reasons of its end."""
    chunks = [choice for chunk in stream for choice in chunk.choices]
    ends = [choice.finish_reason for choice in chunks if choice.finish_reason]
    return "".join(choice.delta.content or "" for choice in chunks), ends


class Reading:
    """Asks for a stream on a thread of its own, and reads it until an end or an error."""

    def __init__(self, client: Any, text: str, **more: Any) -> None:
        self.text = ""
        self.ends: list[str] = []
        self.error: Any = None
        self._ask: Callable[[], Any] = partial(say, client, text, stream=True, **more)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for chunk in self._ask():
                for choice in chunk.choices:
                    self.text += choice.delta.content or ""
                    self.ends += [choice.finish_reason] if choice.finish_reason else []
        except openai.APIError as error:
            self.error = error

    def begun(self) -> Reading:
        wait_for(lambda: self.text, 10.0, "the first words")
        return self

    def over(self) -> Reading:
        self._thread.join(scaled(30.0))
        assert not self._thread.is_alive()
        return self


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Any]:
    with connect(daemon) as one:
        yield one


# -- a model without a memory ----------------------------------------------------------------------


def test_the_demo_agent_is_a_model(daemon: Daemon, client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["netclaw"]
    assert client.models.retrieve("netclaw").owned_by == "netclawd"
    answer = say(client, "/count 3")
    assert answer.choices[0].message.content == "1 2 3"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 3
    stream = say(client, "/count 3", stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert text_of(chunks) == ("1 2 3", ["stop"])
    assert chunks[-1].usage.completion_tokens == 3
    assert daemon.ask("/api/sessions").json["sessions"] == []


def test_tools_are_the_clients_and_their_ids_come_back(client: Any) -> None:
    answer = say(client, '/tools weather {"city": "Bonn"} ; clock {}', tools=TOOLS)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in message.tool_calls] == ["weather", "clock"]
    assert message.tool_calls[0].function.arguments == '{"city": "Bonn"}'
    messages = [
        {"role": "user", "content": '/tools weather {"city": "Bonn"} ; clock {}'},
        message.model_dump(exclude_none=True),
        *(
            {"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name} says."}
            for call in message.tool_calls
        ),
    ]
    text, ends = text_of(
        client.chat.completions.create(model="netclaw", messages=messages, tools=TOOLS, stream=True)
    )
    assert "weather says." in text
    assert "clock says." in text
    assert ends == ["stop"]


def test_the_helpers_of_the_client_accumulate_streamed_tool_calls(client: Any) -> None:
    with client.chat.completions.stream(
        model="netclaw",
        messages=[{"role": "user", "content": '/tools weather {"city": "Bonn"} ; clock {}'}],
        tools=TOOLS,
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["weather", "clock"]
    assert message.tool_calls[0].function.arguments == '{"city": "Bonn"}'


def test_errors_are_the_clients_own(daemon: Daemon, client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="netclaw", messages=[{"role": "user"}])
    assert bad.value.param == "messages[0].content"
    with pytest.raises(openai.NotFoundError):
        say(client, "x", extra_headers=of_session("none"))
    with pytest.raises(openai.InternalServerError) as failed:
        say(client, "/fail")
    assert failed.value.status_code == 502
    assert daemon.ask("/api/sessions").json["sessions"] == []


class Behind:
    """A daemon whose model is a counterpart."""

    def __init__(self, make_daemon: Make, **tables: Any) -> None:
        self.server = ChatServer()
        self.daemon = make_daemon(
            tables={
                "providers.model": {
                    "kind": "openai",
                    "base_url": self.server.base_url,
                    "model": "test-model",
                    "retries": 0,
                },
                "agent": {"provider": "model"},
                **tables,
            }
        ).start()
        self.client = connect(self.daemon)

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def behind(make_daemon: Make) -> Iterator[Behind]:
    one = Behind(make_daemon, drain=QUICK)
    yield one
    one.close()


def test_a_real_model_server_is_asked_what_the_client_asks(behind: Behind) -> None:
    behind.server.script(
        Reply("I look.", calls=[Call("weather", {"city": "Bonn"}), Call("clock")], usage=(7, 3)),
        Reply("It rains."),
    )
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How is it?"}]},
    ]
    create = behind.client.chat.completions.create
    answer = create(
        model="netclaw", messages=messages, tools=TOOLS, temperature=0.5, max_tokens=9, stop="END"
    )
    message = answer.choices[0].message
    assert message.content == "I look."
    assert answer.usage.prompt_tokens == 7
    messages += [
        message.model_dump(exclude_none=True),
        *({"role": "tool", "tool_call_id": c.id, "content": "rain"} for c in message.tool_calls),
    ]
    text, ends = text_of(create(model="netclaw", messages=messages, tools=TOOLS, stream=True))
    assert (text, ends) == ("It rains.", ["stop"])
    first, second = (asked.body for asked in behind.server.asked)
    assert [m["role"] for m in first["messages"]] == ["system", "user"]
    assert first["messages"][0]["content"] == "Be brief."
    assert [tool["function"]["name"] for tool in first["tools"]] == ["weather", "clock"]
    assert (first["temperature"], first["stop"]) == (0.5, ["END"])
    assert 9 in (first.get("max_tokens"), first.get("max_completion_tokens"))
    assert [m["role"] for m in second["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
    ]


WRONG: list[tuple[Any, str, int]] = [
    (Status(401), "InternalServerError", 502),
    (Status(404), "InternalServerError", 502),
    (Status(429), "RateLimitError", 429),
    (Status(500), "InternalServerError", 502),
    (Reply("x", ending=Ending.CUT, after=0), "InternalServerError", 502),
]


def test_what_a_model_server_does_wrong_has_a_status(behind: Behind) -> None:
    for answer, error, status in WRONG:
        for stream in (False, True):
            behind.server.script(answer)
            with pytest.raises(getattr(openai, error)) as caught:
                say(behind.client, "x", stream=stream)
            assert caught.value.status_code == status, answer


def test_a_reply_that_breaks_off_is_an_error_and_has_no_end(behind: Behind) -> None:
    behind.server.script(Reply("one two three", ending=Ending.CUT, after=2))
    reading = Reading(behind.client, "x").over()
    assert reading.text == "one two"
    assert reading.ends == []
    assert reading.error.code == "provider_cut"


def test_a_hang_up_closes_the_socket_to_the_model_only_if_that_was_wanted(behind: Behind) -> None:
    for bound in (False, True):
        for wanted in (True, False):
            hang_up(behind, wanted=wanted, session=new_session(behind.daemon) if bound else "")


def hang_up(behind: Behind, *, wanted: bool, session: str) -> None:
    behind.server.script(Reply("word " * 12, pace_s=0.05))
    headers = {"X-Netclaw-Cancel-On-Close": "1" if wanted else "0"}
    if session:
        headers |= of_session(session)
    stream = say(behind.client, "x", stream=True, extra_headers=headers)
    assert next(iter(stream)).choices
    closed_at = time.monotonic()
    stream.close()
    asked = behind.server.asked[-1]
    if wanted:
        wait_for(lambda: asked.hung_up_at, 5.0, "the socket to the model to be closed")
        assert asked.hung_up_at is not None
        assert asked.hung_up_at - closed_at < scaled(0.1)
    else:
        wait_for(lambda: asked.ended_at, 10.0, "the reply to be read to its end")
    if session:
        wait_event(behind.daemon, session, "turn.cancelled" if wanted else "turn.completed")


def test_a_waiting_client_that_hangs_up_closes_the_socket_to_the_model(behind: Behind) -> None:
    behind.server.script(Reply("word", first_byte_s=20.0))
    with pytest.raises(openai.APITimeoutError):
        say(behind.client, "x", timeout=0.5, extra_headers={"X-Netclaw-Cancel-On-Close": "1"})
    (asked,) = behind.server.asked
    wait_for(lambda: asked.hung_up_at, 5.0, "the socket to the model to be closed")
    assert behind.daemon.status()["streams"] == 0


# -- a durable session -----------------------------------------------------------------------------


def test_user_and_the_header_name_one_durable_session(daemon: Daemon, client: Any) -> None:
    first = say(client, "/clock", user="alice")
    session = first.session_id
    assert "The clock tool says" in first.choices[0].message.content
    assert [e["name"] for e in of_type(events(daemon, session), "tool.finished")] == ["clock"]
    text, ends = text_of(say(client, "/count 3", stream=True, user="alice"))
    assert (text, ends) == ("1 2 3", ["stop"])
    raw = client.chat.completions.with_raw_response.create(
        model="netclaw",
        messages=[{"role": "user", "content": "/count 2"}],
        extra_headers=of_session(session),
    )
    assert raw.headers["x-netclaw-session"] == session
    told = [e["text"] for e in of_type(events(daemon, session), "input.admitted")]
    assert told == ["/clock", "/count 3", "/count 2"]


def test_an_approval_is_named_and_the_turn_goes_on_when_it_is_granted(
    daemon: Daemon, client: Any
) -> None:
    answer = say(client, "/ask May I?", user="alice")
    (asked,) = of_type(events(daemon, answer.session_id), "approval.requested")
    text = answer.choices[0].message.content
    assert "May I?" in text
    assert f"netclaw approvals grant {asked['approval_id']}" in text
    # Whoever speaks next is told what that waits for, and need not say it again.
    headers = {"Idempotency-Key": "next"}
    reading = Reading(client, "/count 2", user="alice", extra_headers=headers).over()
    assert "waits behind" in reading.text
    assert f"netclaw approvals grant {asked['approval_id']}" in reading.text
    assert reading.ends == ["stop"]
    daemon.control("decide", approval_id=asked["approval_id"], granted=True)
    wait_event(daemon, answer.session_id, "turn.completed", count=2)
    assert (
        say(client, "/count 2", user="alice", extra_headers=headers).choices[0].message.content
        == "1 2"
    )


@pytest.mark.long
def test_streams_that_a_drain_cuts_end_with_errors_and_the_session_goes_on(
    make_daemon: Make,
) -> None:
    daemon = make_daemon(tables={"drain": QUICK}).start()
    session = new_session(daemon)
    with connect(daemon) as client:
        short = Reading(client, "/count 4 0.05").begun()
        plain = Reading(client, "/count 1200 0.05").begun()
        bound = Reading(client, LONG, extra_headers=of_session(session)).begun()
        assert daemon.reload(force=True)["outcome"] == "applied"
        for reading in (plain, bound):
            assert reading.over().error is not None, reading.text
            assert reading.error.code == "cut_by_restart"
            assert reading.ends == []
        assert session in reading.error.message
        # What ended in time is whole.
        assert (short.over().text, short.ends) == ("1 2 3 4", ["stop"])
        wait_event(daemon, session, "turn.completed")
        (sent,) = of_type(events(daemon, session), "reply.sent")
        assert sent["text"] == COUNTED
        assert sent["text"].startswith(bound.text)
        # The connection of the client is another one now, the session the same.
        answer = say(client, "/count 2", extra_headers=of_session(session))
        assert answer.choices[0].message.content == "1 2"


@pytest.mark.long
def test_in_a_drain_nothing_is_admitted_for_who_waits(make_daemon: Make) -> None:
    daemon = make_daemon(tables={"drain": {"model_timeout_s": 5, "timeout_s": 10}}).start()
    session = new_session(daemon)
    with connect(daemon) as client:
        held = Reading(client, "/count 1200 0.05").begun()
        daemon.control("reload", force=True)
        wait_for(lambda: daemon.status()["phase"] == "draining", 20.0, "the drain")
        assert daemon.status()["calls"] == 1
        for more in ({}, {"user": "alice"}, {"extra_headers": of_session(session)}):
            for stream in (False, True):
                with pytest.raises(openai.InternalServerError) as refused:
                    say(client, "hello", stream=stream, **more)
                assert (refused.value.status_code, refused.value.code) == (503, "draining")
                assert int(refused.value.response.headers["retry-after"]) >= 1
        assert [row["id"] for row in daemon.ask("/api/sessions").json["sessions"]] == [session]
        assert events(daemon, session) == []
        assert held.over().error.code == "cut_by_restart"


@pytest.mark.long
def test_the_clients_own_retries_have_the_answer_over_a_restart(make_daemon: Make) -> None:
    daemon = make_daemon(tables={"drain": QUICK}).start()
    found: dict[str, str] = {}
    with connect(daemon, max_retries=2) as client:

        def ask(name: str, **more: Any) -> None:
            found[name] = say(client, LONG, **more).choices[0].message.content

        durable = {"user": "ann", "extra_headers": {"Idempotency-Key": "once"}}
        asking = [
            threading.Thread(target=ask, args=("plain",)),
            threading.Thread(target=ask, args=("durable",), kwargs=durable),
        ]
        for thread in asking:
            thread.start()
        wait_for(lambda: daemon.status()["calls"] == 1, 10.0, "the call")
        wait_for(lambda: daemon.ask("/api/sessions").json["sessions"], 10.0, "the session")
        (row,) = daemon.ask("/api/sessions").json["sessions"]
        wait_event(daemon, row["id"], "turn.started")
        assert daemon.reload(force=True)["outcome"] == "applied"
        for thread in asking:
            thread.join(scaled(30.0))
    assert found == {"plain": COUNTED, "durable": COUNTED}
    told = events(daemon, row["id"])
    assert len(of_type(told, "input.admitted")) == 1
    assert of_type(told, "turn.interrupted"), "the restart has met the turn"


@pytest.mark.long
def test_a_waiting_client_without_a_key_is_sent_away_and_says_nothing_twice(
    make_daemon: Make,
) -> None:
    daemon = make_daemon(tables={"drain": QUICK}).start()
    session = new_session(daemon)
    failed: list[Any] = []
    with connect(daemon, max_retries=2) as client:

        def ask() -> None:
            try:
                say(client, "/count 1200 0.05", extra_headers=of_session(session))
            except openai.APIStatusError as error:
                failed.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        wait_event(daemon, session, "turn.started")
        assert daemon.reload(force=True)["outcome"] == "applied"
        asking.join(scaled(30.0))
        (error,) = failed
        assert (error.status_code, error.code) == (503, "cut_by_restart")
        assert error.response.headers["x-netclaw-session"] == session
        assert int(error.response.headers["retry-after"]) >= 1
        assert len(of_type(events(daemon, session), "input.admitted")) == 1


@pytest.mark.long
def test_a_stream_of_a_daemon_that_is_killed_has_no_end(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    with connect(daemon) as client:
        headers = of_session(session)
        reading = Reading(client, "/count 30 0.05", extra_headers=headers)
        reading.begun()
        daemon.kill()
        assert reading.over().ends == []
    daemon.start()
    wait_event(daemon, session, "turn.completed", timeout_s=30.0)


@pytest.mark.long
def test_two_hundred_streams_leave_room_for_health(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    with connect(daemon, timeout=scaled(60.0)) as client:
        readings = [Reading(client, "/count 5 1") for _ in range(200)]
        wait_for(lambda: all(r.text for r in readings), 30.0, "all to have begun")
        assert daemon.status()["streams"] == 200
        began = time.monotonic()
        assert daemon.ask("/api/health/live").status == 200
        assert time.monotonic() - began < scaled(1.0)
        for reading in readings:
            assert (reading.over().text, reading.ends) == ("1 2 3 4 5", ["stop"])
