"""Each route, and each error that it can give, as a client sees them."""

from __future__ import annotations

from typing import Any

import pytest

from netclawd.core.session import EventType, TurnState
from netclawd.core.values import replace
from netclawd.errors import DrainingError, StoreClosedError
from tests.http.running import Running
from tests.http.wire import request

MESSAGES = "/api/sessions/{}/messages"


def test_live_answers_while_the_process_serves(running: Running) -> None:
    running.service.is_ready = False
    answer = running.ask("GET", "/api/health/live")
    assert (answer.status, answer.json) == (200, {"status": "live"})
    assert answer.headers["x-netclaw-generation"] == "3"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


def test_ready_says_phase_generation_and_digest(running: Running) -> None:
    answer = running.ask("GET", "/api/health/ready")
    facts = {"phase": "ready", "generation": 3, "digest": "ab" * 32}
    assert (answer.status, answer.json) == (200, facts)
    running.service.is_ready = False
    answer = running.ask("GET", "/api/health/ready")
    assert (answer.status, answer.slug) == (503, "not-ready")
    assert answer.headers["retry-after"] == "7"
    assert answer.json.items() >= facts.items()


def test_status_and_restarts_are_the_services(running: Running) -> None:
    assert running.ask("GET", "/api/status").json["home"] == "/srv/claw"
    assert running.ask("GET", "/api/restarts").json == {"restarts": []}
    assert running.ask("GET", "/api/restarts?limit=0").slug == "bad-request"


def test_the_metrics_come_in_the_format_that_is_asked_for(running: Running) -> None:
    answer = running.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"\nnetclawd_generation 3.0\n" in answer.body
    answer = running.ask("GET", "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    assert running.ask("POST", "/metrics").slug == "method-not-allowed"
    assert running.ask("GET", "/metrics", Host="evil.example").slug == "forbidden-host"


def test_a_session_is_created_listed_and_shown(running: Running) -> None:
    created = running.ask("POST", "/api/sessions")
    session_id = created.json["id"]
    assert (created.status, created.json) == (201, {"id": session_id})
    assert created.headers["location"] == f"/api/sessions/{session_id}"
    shown = running.ask("GET", f"/api/sessions/{session_id}").json
    assert shown == {
        "id": session_id,
        "created_at": 1_700_000_000.0,
        "channel": "api",
        "alias": None,
        "last_seq": 0,
        "turn_state": None,
        "park_reason": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    assert running.ask("GET", "/api/sessions").json == {"sessions": [shown], "next": None}


def test_sessions_are_paged_by_cursor(running: Running) -> None:
    ids = [running.new_session() for _ in range(5)]
    seen, path = [], "/api/sessions?limit=2"
    while True:
        page = running.ask("GET", path).json
        seen += [session["id"] for session in page["sessions"]]
        if page["next"] is None:
            break
        path = f"/api/sessions?limit=2&cursor={page['next']}"
    assert seen == ids[::-1]
    assert running.ask("GET", "/api/sessions?cursor=nonsense").slug == "bad-request"


def test_a_message_is_stored_before_it_is_acknowledged(running: Running) -> None:
    session_id = running.new_session()
    answer = running.ask("POST", MESSAGES.format(session_id), {"text": "größer 🦀"})
    assert answer.status == 202
    assert answer.json == {"input_id": "inp_1", "turn_id": "trn_1", "deferred": False}
    assert running.service.log[session_id][0].data["text"] == "größer 🦀"


def test_the_same_key_is_one_input(running: Running) -> None:
    path = MESSAGES.format(running.new_session())
    first = running.ask("POST", path, {"text": "once"}, Idempotency_Key="k 1")
    again = running.ask("POST", path, {"text": "once"}, Idempotency_Key="k 1")
    assert (first.status, again.status) == (202, 200)
    assert again.json == first.json
    other = running.ask("POST", path, {"text": "twice"}, Idempotency_Key="k 1")
    assert (other.status, other.slug) == (422, "idempotency-key-reused")
    elsewhere = MESSAGES.format(running.new_session())
    assert running.ask("POST", elsewhere, {"text": "twice"}, Idempotency_Key="k 1").status == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "ta\tb", "ü"])
def test_an_unusable_key_is_refused(running: Running, key: str) -> None:
    path = MESSAGES.format(running.new_session())
    answer = running.ask("POST", path, {"text": "hi"}, Idempotency_Key=key)
    assert (answer.status, answer.slug) == (400, "bad-request")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"text=hi",
        b"[]",
        b'"text"',
        b"{}",
        b'{"text": 1}',
        b'{"text": ""}',
        b'{"text": " \\n"}',
        b'{"text": "hi", "role": "system"}',
        b'{"text": "\\ud800"}',
        b'{"text": NaN}',
        b"\xff\xfe",
        b'{"text": "' + b"\xff" + b'"}',
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_message_is_refused_and_stores_nothing(
    running: Running, body: bytes
) -> None:
    session_id = running.new_session()
    answer = running.ask("POST", MESSAGES.format(session_id), body)
    assert (answer.status, answer.slug) == (400, "bad-request")
    assert answer.json["remedy"]
    assert running.service.log[session_id] == []


def test_a_body_of_another_kind_is_refused(running: Running) -> None:
    path = MESSAGES.format(running.new_session())
    for media in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
        answer = running.ask("POST", path, {"text": "hi"}, Content_Type=media)
        assert (answer.status, answer.slug) == (415, "unsupported-media-type")
    for fine in (
        "application/json; charset=utf-8",
        "application/ld+json",
        "Application/JSON",
        None,
    ):
        assert running.ask("POST", path, {"text": "hi"}, Content_Type=fine).status == 202


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (DrainingError("Not now.", "Later.", retry_after_s=4), "4"),
        (StoreClosedError("The store is closed."), "7"),
    ],
)
def test_what_is_refused_for_a_while_says_for_how_long(
    running: Running, error: Exception, retry_after: str
) -> None:
    running.service.admit_error = error
    answer = running.ask("POST", MESSAGES.format(running.new_session()), {"text": "hi"})
    assert answer.status == 503
    assert answer.headers["retry-after"] == retry_after


def test_events_are_the_stores(running: Running) -> None:
    session_id = running.new_session()
    for text in ("one", "two", "three"):
        running.service.admit(session_id, text, None)
    path = f"/api/sessions/{session_id}/events"
    events = running.ask("GET", path).json["events"]
    assert [event["seq"] for event in events] == [1, 2, 3]
    assert events[1] == {
        "seq": 2,
        "type": "input.admitted",
        "at": 1_700_000_000.0,
        "turn_id": "trn_2",
        "text": "two",
        "deferred": False,
    }
    assert running.ask("GET", path + "?after=1&limit=1").json["events"] == events[1:2]
    assert running.ask("GET", path + "?after=9").json == {"events": []}


@pytest.mark.parametrize(
    "query",
    ["after=-1", "after=x", "after=1.5", "after=1&after=2", "after=99999999999999999999",
     "limit=0", "limit=1001", "wait_s=61", "wait_s=-1", "wait_s=nan", "wait_s=x"],
)  # fmt: skip
def test_a_wrong_parameter_is_named(running: Running, query: str) -> None:
    answer = running.ask("GET", f"/api/sessions/{running.new_session()}/events?{query}")
    assert (answer.status, answer.slug) == (400, "bad-request")
    assert answer.json["detail"].startswith(query.partition("=")[0])


def test_a_turn_is_cancelled_once(running: Running) -> None:
    session_id = running.new_session()
    turn_id = running.service.admit(session_id, "hi", None).turn_id
    path = f"/api/sessions/{session_id}/turns/{turn_id}/cancel"
    answer = running.ask("POST", path)
    assert (answer.status, answer.json["id"], answer.json["state"]) == (200, turn_id, "cancelled")
    again = running.ask("POST", path)
    assert (again.status, again.slug) == (409, "conflict")
    assert running.service.log[session_id][-1].type is EventType.TURN_CANCELLED


def test_a_turn_is_parked_and_resumed(running: Running) -> None:
    session_id = running.new_session()
    turn_id = running.service.admit(session_id, "hi", None).turn_id
    path = f"/api/sessions/{session_id}/turns/{turn_id}"
    parked = running.ask("POST", f"{path}/park")
    assert (parked.status, parked.json["park_reason"]) == (200, "request")
    resumed = running.ask("POST", f"{path}/resume", {})
    assert (resumed.status, resumed.json["state"]) == (200, "running")
    again = running.ask("POST", f"{path}/resume")
    assert (again.status, again.slug) == (409, "conflict")
    assert running.ask("POST", f"{path}/resume", {"force": True}).status == 400


def test_what_happens_to_a_turn_only_later_is_202(running: Running) -> None:
    session_id = running.new_session()
    turn_id = running.service.admit(session_id, "hi", None).turn_id
    path = f"/api/sessions/{session_id}/turns/{turn_id}"
    running.ask("POST", f"{path}/park")
    running.service.is_ready = False
    resumed = running.ask("POST", f"{path}/resume")
    assert (resumed.status, resumed.json["state"]) == (202, "interrupted")
    running.service.turns[turn_id] = replace(
        running.service.turns[turn_id], state=TurnState.RUNNING
    )
    parked = running.ask("POST", f"{path}/park")
    assert (parked.status, parked.json["state"]) == (202, "running")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/", None),
        ("GET", "/api", None),
        ("GET", "/api/sessions/none", None),
        ("GET", "/api/sessions/none/events", None),
        ("GET", "/api/sessions/none/events?wait_s=5", None),
        ("POST", "/api/sessions/none/messages", {"text": "hi"}),
        ("POST", "/api/sessions/none/turns/t/cancel", None),
        ("POST", "/api/sessions/none/turns/t/park", None),
        ("POST", "/api/sessions/none/turns/t/resume", None),
    ],
)
def test_what_is_not_there_is_404(running: Running, method: str, path: str, body: Any) -> None:
    answer = running.ask(method, path, body)
    assert (answer.status, answer.slug) == (404, "not-found")
    assert answer.json["instance"] == path.partition("?")[0]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/status"), ("DELETE", "/api/sessions/x"), ("GET", "/api/sessions/x/messages")],
)
def test_another_method_is_405_and_says_which_are_allowed(
    running: Running, method: str, path: str
) -> None:
    answer = running.ask(method, path)
    assert (answer.status, answer.slug) == (405, "method-not-allowed")
    assert answer.headers["allow"]


def test_a_defect_is_reported_without_its_words(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.service.failing = ZeroDivisionError("secret words")
    answer = running.ask("GET", "/api/status")
    assert (answer.status, answer.slug) == (500, "internal-error")
    assert b"secret words" not in answer.body
    assert "ZeroDivisionError" in caplog.text
    assert running.ask("GET", "/api/health/live").status == 200


def test_every_answer_says_its_generation(running: Running) -> None:
    with running.wire() as wire:
        wire.send(b"nonsense\r\n\r\n")
        assert wire.answer().headers["x-netclaw-generation"] == "3"
    for path in ("/api/health/live", "/nowhere", "/api/status"):
        assert running.ask("GET", path).headers["x-netclaw-generation"] == "3"


def test_the_description_names_every_route_and_method(running: Running) -> None:
    document = running.ask("GET", "/openapi.json").json
    assert document["openapi"].startswith("3.")
    known = {
        (path, method)
        for path, methods in document["paths"].items()
        for method in methods
        if method != "parameters"
    }
    assert known == {
        ("/api/health/live", "get"),
        ("/api/health/ready", "get"),
        ("/api/status", "get"),
        ("/api/restarts", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
        ("/api/sessions", "get"),
        ("/api/sessions", "post"),
        ("/api/sessions/{session_id}", "get"),
        ("/api/sessions/{session_id}/messages", "post"),
        ("/api/sessions/{session_id}/events", "get"),
        ("/api/sessions/{session_id}/turns/{turn_id}/park", "post"),
        ("/api/sessions/{session_id}/turns/{turn_id}/resume", "post"),
        ("/api/sessions/{session_id}/turns/{turn_id}/cancel", "post"),
        ("/api/hooks/{name}", "post"),
        ("/api/reminders", "get"),
        ("/api/reminders", "post"),
        ("/api/reminders/{reminder_id}", "get"),
        ("/api/reminders/{reminder_id}", "delete"),
        ("/api/reminders/{reminder_id}/pause", "post"),
        ("/api/reminders/{reminder_id}/resume", "post"),
        ("/api/reminders/{reminder_id}/run", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{model}", "get"),
        ("/v1/chat/completions", "post"),
    }


def test_the_description_refers_only_to_what_it_defines(running: Running) -> None:
    document = running.ask("GET", "/openapi.json").json

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [ref for value in node.values() for ref in references(value)]
        if isinstance(node, list):
            return [ref for value in node for ref in references(value)]
        return []

    found = references(document)
    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_the_description_names_every_type_of_event(running: Running) -> None:
    document = running.ask("GET", "/openapi.json").json
    types = document["components"]["schemas"]["Event"]["properties"]["type"]["enum"]
    assert types == [kind.value for kind in EventType]


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("/api/health/live", "application/json"),
        ("/api/health/ready", "application/json"),
        ("/api/status", "application/json"),
        ("/v1/models", "application/json"),
        ("/v1/models/netclaw", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_head_is_answered_like_get_without_the_body(
    running: Running, path: str, media: str
) -> None:
    with running.wire() as wire:
        wire.send(request("HEAD", path, Connection="close"))
        status, headers = wire.head()
        assert status == 200
        assert int(headers["content-length"]) > 0
        assert headers["content-type"] == media
        assert wire.rest() == b""
