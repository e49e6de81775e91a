"""A conversation on a terminal: streams that end, move and repeat leave one whole reply."""

from __future__ import annotations

import builtins
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd import errors
from netclawd.adapters.control_client import ControlClient
from netclawd.cli import chat, display, stream
from netclawd.cli.display import Display
from netclawd.core.screen import DIFFERS, Kind, Piece
from netclawd.core.session import EventType, ParkReason, SessionId, TurnId, TurnState
from netclawd.core.values import replace
from tests.cli.event_server import END, EventServer, Reply, delta, event
from tests.service_double import ServiceDouble
from tests.waiting import scaled

pytestmark = pytest.mark.usefixtures("server")

STARTED = event(1, "input.admitted", text="hello") + event(2, "turn.started", generation=3)
RETRIED = (
    event(3, "turn.interrupted", cause="restart", restart_id="r", state="cut")
    + event(4, "restart", restart_id="r", trigger="file", cause="restart", generation=4)
    + event(5, "turn.resumed", generation=4, resumes=1, cause="restart")
    + event(6, "step.retry", step=1, attempt=2, reason="restart")
)


def completed(seq: int, text: str, attempt: int = 1) -> bytes:
    done = event(seq, "model.completed", step=1, attempt=attempt, text=text, finish="stop")
    return done + event(seq + 1, "turn.completed", steps=1)


@pytest.fixture
def client(home: Path) -> Iterator[ControlClient]:
    with ControlClient(str(home / "run" / "control.sock")) as client:
        yield client


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "REJOIN_S", 0.0)
    monkeypatch.setattr(stream, "ROOM_S", 0.0)
    monkeypatch.setattr(stream, "JOIN_S", scaled(3))


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be at a terminal that has no colours."""
    monkeypatch.setattr(display, "at_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")


def follow(
    client: ControlClient, service: ServiceDouble, capsys: pytest.CaptureFixture[str]
) -> str:
    """Follow turn t in a session as chat does; return what is on the screen."""
    session = client.call("create_session")
    conversation = chat.Conversation(client, session, 3)
    conversation._own.add("t")
    conversation.follow("t")
    return capsys.readouterr().out


def test_a_reply_is_shown_as_it_comes(
    client: ControlClient, service: ServiceDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    body = STARTED + b":\n\n" + delta(0, "one") + delta(3, " two") + completed(3, "one two")
    with EventServer([Reply(body)]) as server:
        service.status_values["addresses"] = ["fd:http", server.address]
        assert follow(client, service, capsys) == "one two\n"
    assert "Last-Event-ID: 0" in server.requests[0]


def test_a_restart_in_mid_reply_loses_and_repeats_no_word(
    client: ControlClient, service: ServiceDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    again = delta(0, "one", 2) + delta(3, " two thr", 2) + delta(11, "ee", 2)
    script = [
        Reply(STARTED + delta(0, "one") + delta(3, " two") + END),
        Reply(RETRIED + again + completed(7, "one two three", 2), generation=4),
    ]
    with EventServer(script) as server:
        service.status_values["addresses"] = [server.address]
        shown = follow(client, service, capsys)
    assert shown == "one two\n— the daemon restarted, going on —\n three\n"
    assert "Last-Event-ID: 2" in server.requests[1]


def test_the_stream_is_found_again_at_another_port(
    client: ControlClient,
    service: ServiceDouble,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = Reply(RETRIED + completed(7, "one two", 2), generation=4)
    old = EventServer([Reply(STARTED + delta(0, "one") + END)])
    with old, EventServer([moved]) as new:
        addresses = itertools.chain([[old.address]], itertools.repeat([new.address]))
        status = dict(service.status_values)
        monkeypatch.setattr(service, "status", lambda: {**status, "addresses": next(addresses)})
        assert follow(client, service, capsys).replace("\n", "").endswith("going on — two")


def test_a_stream_that_breaks_without_a_word_is_joined_again(
    client: ControlClient, service: ServiceDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    script = [
        Reply(STARTED + delta(0, "one") + delta(3, " two")[:-9]),
        Reply(b"", status=503, headers="Retry-After: 0\r\n"),
        Reply(b"", status=429),
        Reply(delta(0, "one two") + completed(3, "one two three")),
    ]
    with EventServer(script) as server:
        service.status_values["addresses"] = [server.address]
        assert follow(client, service, capsys) == "one two three\n"


def test_a_stream_that_is_refused_for_good_is_an_error(
    client: ControlClient, service: ServiceDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    with EventServer([Reply(b'{"detail": "Foreign Host."}', status=403)]) as server:
        service.status_values["addresses"] = [server.address]
        with pytest.raises(errors.ControlError, match="Foreign Host"):
            follow(client, service, capsys)


def test_an_address_that_nobody_serves_is_given_up(
    client: ControlClient,
    service: ServiceDouble,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "JOIN_S", 0.05)
    with EventServer([]) as server:
        service.status_values["addresses"] = [server.address]
    with pytest.raises(errors.ControlError, match="does not serve the event stream"):
        follow(client, service, capsys)


def test_without_a_tcp_address_the_durable_events_are_shown(
    client: ControlClient, service: ServiceDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    service.status_values["addresses"] = ["fd:http"]
    session = client.call("create_session")
    conversation = chat.Conversation(client, session, 3)
    for kind, data in (
        (EventType.MODEL_COMPLETED, {"step": 1, "attempt": 1, "text": "one", "calls": []}),
        (EventType.TURN_COMPLETED, {"steps": 1}),
    ):
        service.add(SessionId(session["id"]), TurnId("t"), kind, **data)
    conversation.follow("t")
    assert capsys.readouterr().out == "one\n"


@pytest.mark.parametrize("leave", [EOFError, KeyboardInterrupt])
def test_a_person_asks_is_answered_and_leaves(
    client: ControlClient,
    service: ServiceDouble,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    leave: type[BaseException],
) -> None:
    typed = iter(["", "hello"])

    def ask(prompt: str) -> str:
        sys.stdout.write(prompt)
        try:
            return next(typed)
        except StopIteration:
            raise leave from None

    monkeypatch.setattr(builtins, "input", ask)
    body = STARTED.replace(b'"t"', b'"trn_1"') + completed(3, "one two").replace(b'"t"', b'"trn_1"')
    with EventServer([Reply(body)]) as server:
        service.status_values["addresses"] = [server.address]
        chat.Conversation(client, client.call("create_session"), 3).run()
    assert capsys.readouterr().out == (
        "Session ses_1. Ctrl-D leaves.\n"
        "> > one two\n"
        "> \nThe session stays: netclaw chat --session ses_1\n"
    )


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        (["127.0.0.1:5199"], ("127.0.0.1", 5199)),
        (["fd:http", "[::1]:80"], ("::1", 80)),
        (["0.0.0.0:80"], ("127.0.0.1", 80)),
        (["[::]:80"], ("::1", 80)),
        (["*:80"], ("127.0.0.1", 80)),
        (["fd:80", "unix:/run/x.sock", "unix:/run/x:80", "unix:@x:80"], None),
        ([], None),
    ],
)
def test_an_address_to_speak_http_to_is_found(
    addresses: list[str], found: tuple[str, int] | None
) -> None:
    assert stream.tcp_address(addresses) == found


def test_frames_are_read_as_the_standard_says() -> None:
    lines = [b": comment\n", b"\n", b"event:x\n", b'data: {"a":\n', b"data:1}\r\n", b"\r\n"]
    assert list(stream.frames([*lines, b"event: cut\n", b"data: {}\n"])) == [("x", {"a": 1})]


def test_text_for_a_terminal_can_not_drive_it(capsys: pytest.CaptureFixture[str]) -> None:
    Display().show([Piece(Kind.TEXT, "a\tb\n\x1b[2Jé\x07"), Piece(Kind.NOTE, "\x1b[1m")])
    assert capsys.readouterr().out == "a\tb\n\\x1b[2Jé\\x07\n— \\x1b[1m —\n"


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"NO_COLOR": "", "TERM": "xterm"}, True),
        ({"NO_COLOR": "1", "TERM": "xterm"}, False),
        ({"NO_COLOR": "", "TERM": "dumb"}, False),
    ],
)
def test_remarks_are_set_off_in_colour_unless_somebody_said_no(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    colours: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Display().show([Piece(Kind.TEXT, "one"), Piece(Kind.NOTE, "a"), Piece(Kind.TROUBLE, "b")])
    plain, shaded = "one\n— a —\n— b —\n", "one\n\x1b[2m— a —\x1b[0m\n\x1b[31m— b —\x1b[0m\n"
    assert capsys.readouterr().out == (shaded if colours else plain)


def test_where_no_terminal_is_standard_output_is_the_replies_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "at_terminal", lambda: False)
    monkeypatch.setenv("NO_COLOR", "")
    beside = Display()
    beside.show([Piece(Kind.INPUT, "hello"), Piece(Kind.TEXT, "one tw"), Piece(Kind.PAUSE)])
    beside.show([Piece(Kind.NOTE, DIFFERS), Piece(Kind.TEXT, "uno"), Piece(Kind.TEXT, " dos")])
    beside.remark("the tool\x1b clock is done")
    beside.show([Piece(Kind.END), Piece(Kind.TEXT, "cut"), Piece(Kind.TURN_ENDED, "failed")])
    beside.show([Piece(Kind.TEXT, "tres\n"), Piece(Kind.END)])
    shown = capsys.readouterr()
    assert shown.out == "uno dos\ntres\n"
    assert shown.err.splitlines() == [
        "netclaw: > hello",
        f"netclaw: {DIFFERS}",
        "netclaw: the tool\\x1b clock is done",
    ]


def test_who_joins_a_session_with_a_parked_turn_is_told_what_moves_it(
    client: ControlClient,
    service: ServiceDouble,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = service.create_session()
    parked = replace(session, turn_state=TurnState.PARKED, park_reason=ParkReason.REQUEST)
    monkeypatch.setattr(service, "session", lambda _: parked)
    conversation = chat.Conversation(client, client.call("session", session_id=session.id), 3)
    conversation._join()
    said = capsys.readouterr().out
    assert "parked (request)" in said
    assert "netclaw sessions resume ses_1" in said
    conversation.follow("t")
    assert capsys.readouterr().out == said, "nobody waits for ever behind it"


def test_who_goes_on_with_a_session_sees_its_last_turn(
    client: ControlClient, service: ServiceDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    session = SessionId(client.call("create_session")["id"])
    for turn in ("one", "two"):
        turn_id = TurnId(turn)
        service.add(session, turn_id, EventType.INPUT_ADMITTED, text=f"say {turn}")
    for turn in ("one", "two"):
        turn_id = TurnId(turn)
        service.add(session, turn_id, EventType.TURN_STARTED, generation=3)
        data = {"step": 1, "attempt": 1, "text": turn, "finish": "stop", "calls": []}
        service.add(session, turn_id, EventType.MODEL_COMPLETED, **data)
        service.add(session, turn_id, EventType.TURN_COMPLETED, steps=1)
    conversation = chat.Conversation(client, client.call("session", session_id=session), 3)
    conversation._look_back()
    assert capsys.readouterr().out == "> say two\ntwo\n"
    assert conversation._stream.last_seq == 8, "the stream goes on behind it"
