"""``netclaw send``, ``sessions``, ``approvals``, and ``chat`` from a pipe."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from netclawd.adapters.control import ControlServer
from netclawd.core.session import EventType, SessionId, TurnId
from netclawd.core.values import replace
from netclawd.errors import DrainingError
from tests.cli.conftest import CommandLine
from tests.service_double import ServiceDouble
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("server")

SESSION = SessionId("ses_1")
TURN = TurnId("trn_1")


@contextmanager
def agent(service: ServiceDouble, *events: tuple[EventType, dict[str, object]]) -> Iterator[None]:
    """Answer the first message of the first session with these events."""

    def answer() -> None:
        wait_for(lambda: service.log.get(SESSION), 5, "a message")
        for kind, data in events:
            service.add(SESSION, TURN, kind, **data)

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    thread.join()


REPLY: tuple[tuple[EventType, dict[str, object]], ...] = (
    (EventType.TURN_STARTED, {"generation": 3}),
    (
        EventType.MODEL_COMPLETED,
        {"step": 1, "attempt": 1, "text": "one two", "finish": "stop", "calls": []},
    ),
    (EventType.REPLY_SENT, {"text": "one two", "receipt": "api"}),
    (EventType.TURN_COMPLETED, {"steps": 1}),
)
ASK: tuple[EventType, dict[str, object]] = (
    EventType.APPROVAL_REQUESTED,
    {"approval_id": "apr_1", "call_id": "c", "question": "May I?"},
)


def test_send_prints_the_ids(run: CommandLine, service: ServiceDouble) -> None:
    result = run("send", "hello")
    assert (result.exit_code, result.stdout) == (0, "Sent to ses_1 as trn_1.\n")
    assert run.json("send", "--session", "ses_1", "again") == {
        "session_id": "ses_1",
        "input_id": "inp_2",
        "turn_id": "trn_2",
        "deferred": False,
    }
    assert [event.data["text"] for event in service.log[SESSION]] == ["hello", "again"]


def test_send_waits_for_the_reply(run: CommandLine, service: ServiceDouble) -> None:
    with agent(service, *REPLY):
        result = run("send", "--wait", "hello")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one two\n", "")


def test_a_message_from_a_pipe_is_a_chat_of_one(run: CommandLine, service: ServiceDouble) -> None:
    with agent(service, *REPLY):
        result = run("chat", stdin="hello\nworld\n")
    assert result.stdout == "one two\n"
    assert service.log[SESSION][0].data["text"] == "hello\nworld"


def test_json_has_reply_and_state(run: CommandLine, service: ServiceDouble) -> None:
    with agent(service, *REPLY):
        found = run.json("send", "--wait", "-", stdin="hello")
    assert (found["state"], found["reply"], found["turn_id"]) == ("completed", "one two", "trn_1")


def test_a_turn_that_waits_for_an_approval_ends_the_wait_with_what_grants_it(
    run: CommandLine, service: ServiceDouble
) -> None:
    with agent(service, ASK, (EventType.TURN_PARKED, {"reason": "approval"})):
        service.ask(SESSION, "May I?")
        result = run("chat", stdin="hello")
    assert (result.exit_code, result.stdout) == (1, "")
    said = result.stderr.splitlines()
    assert said == [
        "netclaw: asks for the approval apr_1: May I?",
        "netclaw: the turn waits",
        "netclaw: see what is asked: netclaw approvals show apr_1",
        "netclaw: let it go on: netclaw approvals grant apr_1",
        "netclaw: answer, and see the reply: netclaw chat --session ses_1",
    ]


def test_json_names_the_approvals_that_a_turn_waits_for(
    run: CommandLine, service: ServiceDouble
) -> None:
    with agent(service, ASK, (EventType.TURN_PARKED, {"reason": "approval"})):
        found = run.json("send", "--wait", "hello")
    assert (found["state"], found["waits"], found["reply"]) == ("parked", ["apr_1"], "")


def test_tool_calls_and_tokens_are_remarks_beside_the_reply(
    run: CommandLine, service: ServiceDouble
) -> None:
    call = {"step": 1, "call_id": "c", "name": "clock"}
    used = {"usage": {"input_tokens": 7, "output_tokens": 2}}
    with agent(
        service,
        (EventType.TOOL_STARTED, {**call, "arguments": {"zone": "UTC"}}),
        (EventType.TOOL_FINISHED, {**call, "status": "ok", "text": "noon"}),
        (EventType.MODEL_COMPLETED, {**REPLY[1][1], **used}),
        *REPLY[2:],
    ):
        result = run("send", "--wait", "hello")
    assert result.stdout == "one two\n"
    assert result.stderr.splitlines() == [
        'netclaw: runs the tool clock: zone="UTC"',
        "netclaw: the tool clock is done: noon",
        "netclaw: tokens: 7 in, 2 out",
    ]


def test_json_has_tokens_and_the_reason_of_a_failure(
    run: CommandLine, service: ServiceDouble
) -> None:
    used = {"usage": {"input_tokens": 7, "output_tokens": 2}}
    with agent(
        service,
        (EventType.MODEL_COMPLETED, {**REPLY[1][1], **used}),
        (EventType.TURN_FAILED, {"slug": "provider-busy", "reason": "It is busy."}),
    ):
        found = run.json("send", "--wait", "hello")
    assert found["usage"] == used["usage"]
    assert found["error"] == {"slug": "provider-busy", "reason": "It is busy."}


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (EventType.TURN_FAILED, {"slug": "x", "reason": "No model."}, "the turn failed: No model."),
        (EventType.TURN_CANCELLED, {"by": "uid 0"}, "the turn was cancelled"),
        (EventType.TURN_PARKED, {"reason": "resume-limit"}, "the turn is parked (resume-limit)"),
    ],
)
def test_a_turn_without_a_reply_is_a_failure(
    run: CommandLine,
    service: ServiceDouble,
    kind: EventType,
    data: dict[str, object],
    words: str,
) -> None:
    with agent(service, (kind, data)):
        result = run("send", "--wait", "hello")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def test_a_wait_for_a_reply_goes_on_through_restarts(
    run: CommandLine, service: ServiceDouble, server: ControlServer
) -> None:
    def restart_and_answer() -> None:
        wait_for(lambda: service.log.get(SESSION), 5, "a message")
        for kind, data in REPLY:
            server.pause()
            server.resume()
            service.add(SESSION, TURN, kind, **data)

    thread = threading.Thread(target=restart_and_answer)
    thread.start()
    result = run("send", "--wait", "hello")
    thread.join()
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one two\n", "")


def test_rejected_work_is_offered_again(
    run: CommandLine, service: ServiceDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, admit = [], service.admit

    def reject_once(session_id: SessionId, text: str, source_id: str | None) -> object:
        calls.append(source_id)
        if len(calls) == 1:
            raise DrainingError("Restarting.", retry_after_s=0)
        return admit(session_id, text, source_id)

    monkeypatch.setattr(service, "admit", reject_once)
    assert run("send", "hello").exit_code == 0
    assert len(set(calls)) == 1, "the same key each time"


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_message_is_refused(run: CommandLine, service: ServiceDouble, text: str) -> None:
    assert run("send", text).exit_code == 1
    assert run("chat", stdin=text).exit_code == 1
    assert not service.log, "no session was made for it"


def test_a_message_that_is_not_utf8_is_refused(run: CommandLine, service: ServiceDouble) -> None:
    for result in (run("send", "caf\udce9"), run("chat", stdin=b"caf\xe9")):
        assert result.exit_code == 1
        assert "not UTF-8" in result.stderr
    assert not service.log, "no session was made for it"


def test_sessions_are_listed_in_pages(run: CommandLine) -> None:
    assert "no session yet" in run("sessions", "list").stdout
    for _ in range(3):
        run("send", "hello")
    head, *rows = run("sessions", "list").stdout.splitlines()
    assert head.split() == ["SESSION", "BEGAN", "EVENTS", "TOKENS", "CHANNEL", "TURN"]
    assert [row.split()[0] for row in rows] == ["ses_3", "ses_2", "ses_1"]
    page = run("sessions", "list", "--limit", "2").stdout
    assert "--cursor 2" in page
    rest = run.json("sessions", "list", "--limit", "2", "--cursor", "2")
    assert [s["id"] for s in rest["sessions"]] == ["ses_1"]


def test_a_session_of_slack_says_where_it_is_spoken_to(
    run: CommandLine, service: ServiceDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replace(
        service.create_session(), channel="slack", alias="T1/C1/1700.1", turn_state=None
    )
    monkeypatch.setattr(service, "session", lambda _: found)
    assert "  slack T1/C1/1700.1  -" in run("sessions", "list").stdout
    shown = run("sessions", "show", "ses_1").stdout
    assert shown.startswith("Session ses_1, on slack T1/C1/1700.1, began ")


def test_a_session_is_shown_from_its_beginning(run: CommandLine, service: ServiceDouble) -> None:
    run("send", "hello")
    service.add(
        SESSION, TURN, EventType.RESTART, restart_id="r", trigger="hup", cause="crash", generation=4
    )
    for kind, data in REPLY:
        service.add(SESSION, TURN, kind, **data)
    _, *lines = run("sessions", "show", "ses_1").stdout.splitlines()
    assert lines == [
        "> hello",
        "— the daemon ended without warning and was started again; generation 4 goes on —",
        "one two",
    ]
    assert len(run.json("sessions", "show", "ses_1")["events"]) == 6


def test_an_approval_is_listed_shown_and_granted(run: CommandLine, service: ServiceDouble) -> None:
    assert run("approvals", "list").stdout == "Nothing waits for an approval.\n"
    service.ask(service.create_session().id, "Delete\nall of it?" + 99 * "!")
    row = run("approvals", "list").stdout.splitlines()[1]
    assert row.endswith(f"ses_1    Delete all of it?{42 * '!'}…")
    shown = run("approvals", "show", "apr_1").stdout.splitlines()
    assert shown[1:] == ["  Delete", f"  all of it?{99 * '!'}", "It waits."]
    assert run.json("approvals", "show", "apr_1")["question"].endswith("!" * 99)
    assert run("approvals", "grant", "apr_1").stdout.startswith("Granted: Delete all of it?!")
    again = run("approvals", "deny", "apr_1")
    assert (again.exit_code, "decided already" in again.stderr) == (1, True)
    assert run.json("approvals", "list") == []
    assert run.json("approvals", "list", "--all")[0]["state"] == "granted"
    assert run("approvals", "show", "apr_1").stdout.splitlines()[-1].startswith("It is granted by")
    assert run("approvals", "show", "apr_9").exit_code == 1


def test_several_approvals_are_decided_at_once(run: CommandLine, service: ServiceDouble) -> None:
    session = service.create_session().id
    for question in ("one?", "two?", "three?"):
        service.ask(session, question)
    result = run("approvals", "grant", "apr_1", "apr_9", "apr_2")
    assert (result.exit_code, result.stdout) == (1, "Granted: one?\nGranted: two?\n")
    assert "There is no approval apr_9." in result.stderr
    found = run.json("approvals", "deny", "apr_2", "apr_3")
    assert [(a["id"], a.get("state")) for a in found] == [("apr_2", None), ("apr_3", "denied")]
    assert found[0]["error"]["slug"] == "conflict"


def test_what_is_asked_can_not_drive_the_terminal(run: CommandLine, service: ServiceDouble) -> None:
    service.ask(service.create_session().id, "rm \x1b[2J\u202ex")
    for words in (("list",), ("show", "apr_1"), ("grant", "apr_1")):
        shown = run("approvals", *words).stdout
        assert "rm \\x1b[2J\\u202ex" in shown
        assert "\x1b" not in shown
