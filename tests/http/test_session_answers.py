"""Chat completions of a durable session: what is admitted, what is told, how it ends."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from netclawd.core.session import EventType, SessionId, TurnId
from tests.http.live_service import LiveService
from tests.http.model_calls import PATH, Chunks, finish, said, user
from tests.http.running import Images, Running
from tests.http.test_completions import Asking, error_of


class Talk:
    """One session, and the engine that the test is."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.service: LiveService = running.service
        self.session_id: SessionId = running.new_session()

    def headers(self, **more: str | None) -> dict[str, str | None]:
        return {"X_Netclaw_Session": self.session_id, **more}

    def turn(self, number: int = 1) -> TurnId:
        """Wait until so many inputs were admitted; return the turn of the last."""
        log = self.service.log[self.session_id]

        def admitted() -> list[TurnId | None]:
            return [e.turn_id for e in log if e.type is EventType.INPUT_ADMITTED]

        self.running.wait_until(lambda: len(admitted()) >= number, f"{number} inputs")
        found = admitted()[number - 1]
        assert found is not None
        return found

    def add(self, kind: EventType, turn: TurnId, **data: Any) -> None:
        self.service.add(self.session_id, turn, kind, **data)

    def reply(self, turn: TurnId, text: str, step: int = 1, finish: str = "stop") -> None:
        data = {"step": step, "attempt": 1, "text": text, "finish": finish, "calls": []}
        self.add(EventType.MODEL_COMPLETED, turn, **data)

    def end(self, turn: TurnId) -> None:
        self.add(EventType.TURN_COMPLETED, turn, steps=1)

    def wait_followed(self) -> None:
        """Wait until somebody follows, who has read what was there before."""
        pump = self.running.server._pump
        self.running.wait_until(
            lambda: any(f._cursor for f in pump._followers._found.get(self.session_id, ())),
            "somebody to follow",
        )

    def texts(self) -> list[str]:
        log = self.service.log[self.session_id]
        return [e.data["text"] for e in log if e.type is EventType.INPUT_ADMITTED]


@pytest.fixture
def talk(running: Running) -> Talk:
    return Talk(running)


def test_the_last_user_message_is_admitted_and_its_turn_is_the_answer(talk: Talk) -> None:
    body = user("first")
    body["messages"] += [
        {"role": "assistant", "content": "ignored"},
        {"role": "user", "content": "second"},
    ]
    with Asking(talk.running, body, **talk.headers()) as wire:
        turn = talk.turn()
        talk.reply(turn, "I look.", finish="tool_calls")
        talk.reply(turn, "It is late.", 2)
        talk.end(turn)
        answer = wire.answer()
    assert talk.texts() == ["second"]
    assert answer.status == 200
    (choice,) = answer.json["choices"]
    assert choice["message"]["content"] == "I look.\n\nIt is late."
    assert choice["finish_reason"] == "stop"
    assert answer.json["session_id"] == answer.headers["x-netclaw-session"] == talk.session_id
    assert answer.json["id"] == f"chatcmpl-{turn}"
    assert answer.json["created"] == 1_700_000_000


def test_the_text_of_all_steps_is_streamed_as_it_is_made(talk: Talk) -> None:
    with talk.running.wire() as wire:
        chunks = Chunks(wire, user("go"), **talk.headers())
        turn = talk.turn()
        talk.service.say(talk.session_id, "I lo", turn=turn)
        chunks.begin()
        assert chunks.headers["x-netclaw-session"] == talk.session_id
        assert chunks.text(4) == "I lo"
        talk.service.say(talk.session_id, "ok.", turn=turn)
        talk.service.complete(talk.session_id, turn=turn)
        assert chunks.text(3) == "ok."
        talk.add(EventType.TOOL_STARTED, turn, step=1, call_id="c", name="clock", arguments={})
        talk.service.say(talk.session_id, "Late.", turn=turn, step=2)
        assert chunks.text(7) == "\n\nLate."
        talk.service.complete(talk.session_id, turn=turn, step=2)
        talk.end(turn)
        rest = list(chunks.rest())
    assert finish(rest) == ["stop"]
    assert rest[-1] == "[DONE]"
    assert all(chunk["session_id"] == talk.session_id for chunk in rest[:-1])


def test_who_comes_in_the_middle_hears_the_text_from_its_beginning(talk: Talk) -> None:
    """A retry with its key joins the turn; nothing is admitted twice."""
    headers = talk.headers(Idempotency_Key="k")
    with talk.running.wire() as wire, talk.running.wire() as other:
        Chunks(wire, user("go"), **headers)
        turn = talk.turn()
        talk.reply(turn, "One.", finish="tool_calls")
        talk.service.say(talk.session_id, "Tw", turn=turn, step=2)
        joined = Chunks(other, user("go"), **headers).begin()
        assert joined.text(8) == "One.\n\nTw"
        talk.service.say(talk.session_id, "o.", turn=turn, step=2)
        talk.service.complete(talk.session_id, turn=turn, step=2)
        talk.end(turn)
        assert said(list(joined.rest())) == "o."
    assert talk.texts() == ["go"]
    # Also when all is over.
    answer = talk.running.ask("POST", PATH, user("go"), **headers)
    assert answer.json["choices"][0]["message"]["content"] == "One.\n\nTwo."
    answer = talk.running.ask("POST", PATH, user("other"), **headers)
    assert error_of(answer, 422)["code"] == "idempotency_key_reused"


def test_the_turns_before_it_are_waited_for(talk: Talk) -> None:
    talk.service.admit(talk.session_id, "earlier", None)
    earlier = talk.turn()
    with talk.running.wire() as wire:
        chunks = Chunks(wire, user("mine"), **talk.headers())
        mine = talk.turn(2)
        talk.service.say(talk.session_id, "not yours", turn=earlier)
        talk.service.complete(talk.session_id, turn=earlier)
        talk.end(earlier)
        talk.service.say(talk.session_id, "yours", turn=mine)
        talk.service.complete(talk.session_id, turn=mine)
        talk.end(mine)
        rest = list(chunks.begin().rest())
    assert said(rest) == "yours"
    assert finish(rest) == ["stop"]


@pytest.mark.parametrize("before", [False, True])
def test_a_turn_behind_a_parked_one_says_what_that_waits_for(talk: Talk, before: bool) -> None:
    talk.service.admit(talk.session_id, "earlier", None)
    earlier = talk.turn()

    def park() -> None:
        talk.service.ask(talk.session_id, "May I?")
        talk.service.parked.add(talk.session_id)
        talk.add(EventType.TURN_PARKED, earlier, reason="approval")

    if before:
        park()
    with Asking(talk.running, user("mine"), **talk.headers()) as wire:
        talk.turn(2)
        if not before:
            talk.wait_followed()
            park()
        (choice,) = wire.answer().json["choices"]
    assert "netclaw approvals grant apr_1" in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    assert talk.texts() == ["earlier", "mine"]


def test_user_names_a_session_that_is_made_once(running: Running) -> None:
    talk = Talk(running)
    for number in (1, 2):
        with Asking(running, user(f"m{number}", user="alice")) as wire:
            talk.session_id = SessionId("ses_of_alice")
            running.wait_until(lambda: talk.session_id in running.service.log, "the session")
            turn = talk.turn(number)
            talk.reply(turn, "x")
            talk.end(turn)
            assert wire.answer().json["session_id"] == "ses_of_alice"
    assert talk.texts() == ["m1", "m2"]


def test_the_header_wins_over_user_and_an_empty_user_is_none(talk: Talk) -> None:
    with Asking(talk.running, user("x", user="alice"), **talk.headers()) as wire:
        turn = talk.turn()
        talk.reply(turn, "x")
        talk.end(turn)
        assert wire.answer().json["session_id"] == talk.session_id
    with Asking(talk.running, user("x", user="")):
        talk.service.model_calls.wait().end("")
    assert "ses_of_alice" not in talk.service.log


@pytest.mark.parametrize("stream", [False, True])
def test_while_the_gate_is_closed_nothing_is_admitted(talk: Talk, stream: bool) -> None:
    talk.service.is_ready = False
    answer = talk.running.ask("POST", PATH, user(stream=stream), **talk.headers())
    assert error_of(answer, 503)["code"] == "draining"
    assert answer.headers["retry-after"] == "7"
    assert talk.texts() == []
    assert talk.running.server.streams() == 0


def test_an_approval_is_named_in_the_answer(talk: Talk) -> None:
    with Asking(talk.running, user("go"), **talk.headers()) as wire:
        turn = talk.turn()
        talk.reply(turn, "I ask.", finish="tool_calls")
        asked = {"approval_id": "a7", "call_id": "c", "question": "rm -r /?"}
        talk.add(EventType.APPROVAL_REQUESTED, turn, **asked)
        talk.add(EventType.TURN_PARKED, turn, reason="approval")
        (choice,) = wire.answer().json["choices"]
    assert choice["finish_reason"] == "stop"
    assert "rm -r /?" in choice["message"]["content"]
    assert "netclaw approvals grant a7" in choice["message"]["content"]


@pytest.mark.parametrize(
    ("kind", "data", "status", "code"),
    [
        (EventType.TURN_PARKED, {"reason": "request"}, 409, "parked"),
        (EventType.TURN_CANCELLED, {"by": "uid 7"}, 409, "cancelled"),
        (EventType.TURN_FAILED, {"slug": "provider-busy", "reason": "No."}, 429, "provider_busy"),
        (EventType.TURN_FAILED, {"slug": "provider-cut", "reason": "No."}, 502, "provider_cut"),
        (EventType.TURN_FAILED, {"slug": "internal-error", "reason": "No."}, 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_without_an_answer_is_an_error(
    talk: Talk, kind: EventType, data: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    with Asking(talk.running, user(stream=stream), **talk.headers()) as wire:
        talk.add(kind, talk.turn(), **data)
        answer = wire.answer()
    assert error_of_session(answer, status, talk)["code"] == code
    # Clients that send a request again by themselves would say it twice.
    assert answer.headers["x-should-retry"] == "false"


def error_of_session(answer: Any, status: int, talk: Talk) -> dict[str, Any]:
    assert answer.json["session_id"] == answer.headers["x-netclaw-session"] == talk.session_id
    return error_of(answer, status)


@pytest.mark.parametrize("how", ["event", "quiesce"])
def test_a_stream_that_a_drain_cuts_ends_with_an_error_that_carries_the_session(
    talk: Talk, how: str
) -> None:
    with talk.running.wire() as wire:
        chunks = Chunks(wire, user("go"), **talk.headers())
        turn = talk.turn()
        talk.service.say(talk.session_id, "1 2", turn=turn)
        assert chunks.begin().text(3) == "1 2"
        if how == "event":
            talk.add(EventType.TURN_INTERRUPTED, turn, cause="restart", restart_id="r", state="cut")
        else:
            talk.running.quiesce()
        rest = list(chunks.rest())
    (last,) = rest
    assert set(last) == {"error", "session_id"}
    assert last["session_id"] == talk.session_id
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "cut_by_restart")


@pytest.mark.parametrize("key", [None, "k"])
def test_who_waits_at_a_drain_is_sent_away_with_the_session(talk: Talk, key: str | None) -> None:
    with Asking(talk.running, user("go"), **talk.headers(Idempotency_Key=key)) as wire:
        turn = talk.turn()
        talk.wait_followed()
        talk.add(EventType.TURN_INTERRUPTED, turn, cause="restart", restart_id="r", state="cut")
        talk.running.quiesce()
        answer = wire.answer()
    assert error_of_session(answer, 503, talk)["code"] == "cut_by_restart"
    assert talk.session_id in answer.json["error"]["message"]
    assert answer.headers["retry-after"] == "7"
    # With its key the request joins the same turn.
    assert answer.headers["x-should-retry"] == ("false" if key is None else "true")


def test_who_waits_has_the_answer_of_a_turn_that_a_failed_restart_has_interrupted(
    talk: Talk,
) -> None:
    with Asking(talk.running, user("go"), **talk.headers()) as wire:
        turn = talk.turn()
        talk.wait_followed()
        talk.add(EventType.TURN_INTERRUPTED, turn, cause="restart", restart_id="r", state="cut")
        talk.add(EventType.TURN_RESUMED, turn, generation=3, resumes=1, cause="restart")
        talk.reply(turn, "All the same.")
        talk.end(turn)
        assert wire.answer().json["choices"][0]["message"]["content"] == "All the same."


def test_a_retry_that_says_something_else_is_an_error(talk: Talk) -> None:
    with talk.running.wire() as wire:
        chunks = Chunks(wire, user("go"), **talk.headers())
        turn = talk.turn()
        talk.service.say(talk.session_id, "1 2", turn=turn)
        assert chunks.begin().text(3) == "1 2"
        talk.add(EventType.STEP_RETRY, turn, step=1, attempt=2, reason="restart")
        talk.service.say(talk.session_id, "7 8", turn=turn, attempt=2)
        (last,) = chunks.rest()
    assert (last["error"]["code"], last["session_id"]) == ("retold", talk.session_id)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_a_hang_up_cancels_the_turn_only_if_that_was_wanted(
    talk: Talk, stream: bool, wanted: bool
) -> None:
    headers = talk.headers(X_Netclaw_Cancel_On_Close="1" if wanted else "0")
    with Asking(talk.running, user(stream=stream), **headers):
        turn = talk.turn()
        talk.running.wait_until(lambda: talk.running.server.streams() == 1, "it to be taken over")
    if wanted:
        talk.running.wait_until(lambda: talk.service.abandoned, "the turn to be cancelled")
        talk.add(EventType.TURN_CANCELLED, turn, by="api")
    else:
        with talk.running.wire() as wire:
            # What the pump does for this one comes after it has seen the other one go.
            wire.listen(talk.session_id).hear()
        talk.reply(turn, "x")
        talk.end(turn)
    talk.running.wait_until(lambda: talk.running.server.streams() == 0, "its place to be free")
    assert talk.service.abandoned == ([(talk.session_id, turn, "api")] if wanted else [])
    pump = talk.running.server._pump
    talk.running.wait_until(lambda: talk.session_id not in pump._followers, "nobody to follow")


def test_a_store_that_fails_is_told(talk: Talk) -> None:
    with Asking(talk.running, user("go"), **talk.headers()) as wire:
        talk.turn()
        talk.wait_followed()
        log = talk.service.log.pop(talk.session_id)
        talk.service.log[SessionId("elsewhere")] = log
        for watch in talk.service.watches:
            watch.on_events(talk.session_id, 9)
        answer = wire.answer()
    assert error_of(answer, 404)["code"] == "not_found"


def test_a_turn_that_cannot_be_read_is_told_and_not_waited_for(talk: Talk) -> None:
    with Asking(talk.running, user("go"), **talk.headers()) as wire:
        turn = talk.turn()
        talk.wait_followed()
        # As another release might have written it.
        talk.reply(turn, "Salve", finish="unheard-of")
        answer = wire.answer()
    assert error_of(answer, 500)["code"] == "internal_error"
    talk.running.wait_until(lambda: talk.running.server.streams() == 0, "its place to be free")


def test_the_head_that_a_long_silence_sends_out_alone_has_its_time(images: Images) -> None:
    talk = Talk(images.first(heartbeat_s=0.1))
    with talk.running.wire() as wire:
        first = Chunks(wire, user("go"), **talk.headers()).begin().next()
    admitted = talk.service.log[talk.session_id][0]
    assert first["created"] == int(admitted.at)


def test_many_follow_and_each_hears_its_own(images: Images) -> None:
    running = images.first(threads=4)
    talks = [Talk(running) for _ in range(24)]
    readers = []
    for one in talks:
        wire = running.wire()
        readers.append(Chunks(wire, user("go"), **one.headers()))
    turns = [one.turn() for one in talks]

    def speak(part: int) -> None:
        for one, turn in list(zip(talks, turns, strict=True))[part::4]:
            for n in range(20):
                running.service.say(one.session_id, f" {n}", turn=turn)
            running.service.complete(one.session_id, turn=turn)
            one.end(turn)

    threads = [threading.Thread(target=speak, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for one, reader in zip(talks, readers, strict=True):
        rest = list(reader.begin().rest())
        assert said(rest) == "".join(f" {n}" for n in range(20))
        assert {chunk["session_id"] for chunk in rest[:-1]} == {one.session_id}
        reader.wire.close()
    for thread in threads:
        thread.join()
