"""``/api/reminders``: each route, and each error that it can give, as a client sees them."""

from __future__ import annotations

from typing import Any

import pytest

from netclawd.core.reminders import ReminderState
from netclawd.errors import DrainingError
from tests.http.running import Running

ALL = "/api/reminders"
BODY = {"text": "look", "every_s": 3600, "tz": "Europe/Berlin", "missed": "all"}


def test_a_reminder_is_set_listed_shown_and_removed(running: Running) -> None:
    made = running.ask("POST", ALL, BODY)
    one = f"{ALL}/rem_1"
    assert (made.status, made.headers["location"]) == (201, one)
    assert made.json == {
        "id": "rem_1",
        "text": "look",
        "schedule": made.json["schedule"],
        "missed": "all",
        "max_late_s": 3600.0,
        "session_id": "ses_of_1",
        "own_session": True,
        "state": "active",
        "reason": "",
        "failures": 0,
        "created_at": made.json["created_at"],
        "created_by": "api",
        "next_at": made.json["next_at"],
        "occurrences": [],
    }
    assert made.json["schedule"].items() >= {"kind": "interval", "every_s": 3600.0}.items()
    assert running.ask("GET", ALL).json == {"reminders": [made.json], "next": None}
    assert running.ask("GET", one).json == made.json
    gone = running.ask("DELETE", one)
    assert (gone.status, gone.json["state"]) == (200, "removed")
    for method, path in (("GET", one), ("DELETE", one), ("POST", f"{one}/run")):
        again = running.ask(method, path)
        assert (again.status, again.slug) == (404, "not-found")
    assert running.ask("GET", ALL).json["reminders"] == []
    assert len(running.ask("GET", f"{ALL}?all=1").json["reminders"]) == 1


def test_a_reminder_is_paused_resumed_and_run(running: Running) -> None:
    running.ask("POST", ALL, BODY)
    paused = running.ask("POST", f"{ALL}/rem_1/pause").json
    assert (paused["state"], paused["next_at"]) == (ReminderState.PAUSED, None)
    assert running.ask("POST", f"{ALL}/rem_1/resume").json["state"] == "active"
    run = running.ask("POST", f"{ALL}/rem_1/run")
    (one,) = run.json["occurrences"]
    assert (run.status, one["state"], one["turn_id"]) == (202, "started", "trn_1")
    assert running.ask("POST", f"{ALL}/rem_1/run", {"at": "once"}).slug == "bad-request"
    assert running.ask("GET", f"{ALL}/rem_1/run").slug == "method-not-allowed"


def test_the_same_key_again_sets_one_reminder(running: Running) -> None:
    key = {"Idempotency_Key": "k"}
    first, again = (running.ask("POST", ALL, BODY, **key) for _ in range(2))
    assert (first.status, again.status, again.json) == (201, 200, first.json)
    other = running.ask("POST", ALL, BODY | {"text": "listen"}, **key)
    assert other.slug == "idempotency-key-reused"
    assert len(running.service.reminders.all) == 1
    assert running.ask("POST", ALL, BODY, Idempotency_Key="").slug == "bad-request"


def test_reminders_are_paged_by_cursor(running: Running) -> None:
    for _ in range(5):
        running.ask("POST", ALL, BODY)
    seen, path = [], f"{ALL}?limit=2"
    while path:
        page = running.ask("GET", path).json
        seen += [each["id"] for each in page["reminders"]]
        path = f"{ALL}?limit=2&cursor={page['next']}" if page["next"] else ""
    assert seen == [f"rem_{number}" for number in range(1, 6)]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "all=2", "all=yes", "cursor=x", "cursor=0:x:y"]
)
def test_a_query_that_can_not_be_used_is_refused(running: Running, query: str) -> None:
    assert running.ask("GET", f"{ALL}?{query}").slug == "bad-request"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"every_s": 60},
        {"text": "look"},
        {"text": "look", "in_s": 60, "at": "08:00"},
        {"text": " ", "in_s": 60},
        {"text": ["look"], "in_s": 60},
        {"text": "\ud800", "in_s": 60},
        {"text": "look", "in_s": "soon"},
        {"text": "look", "in_s": True},
        {"text": "look", "in_s": -1},
        {"text": "look", "in_s": 10**400},
        {"text": "look", "in_s": 60, "missed": "never"},
        {"text": "look", "in_s": 60, "missed": {}},
        {"text": "look", "in_s": 60, "max_late_s": "1h"},
        {"text": "look", "in_s": 60, "tz": 1},
        {"text": "look", "in_s": 60, "session_id": 7},
        {"text": "look", "in_s": 60, "when": "now"},
        ["look"],
    ],
)
def test_a_body_that_can_not_be_used_says_what_is_wrong(running: Running, body: Any) -> None:
    answer = running.ask("POST", ALL, body)
    assert (answer.status, answer.slug) == (400, "bad-request"), answer.json
    assert answer.json["detail"]
    assert answer.json["remedy"]
    assert not running.service.reminders.all


def test_what_a_restart_puts_off_says_when_to_come_again(running: Running) -> None:
    running.ask("POST", ALL, BODY)
    running.service.reminders.refusal = DrainingError("Restarting.", retry_after_s=9)
    answer = running.ask("POST", f"{ALL}/rem_1/run")
    assert (answer.status, answer.headers["retry-after"]) == (503, "9")


def test_a_foreign_page_sets_nothing(running: Running) -> None:
    answer = running.ask("POST", ALL, BODY, Origin="https://evil.example")
    assert answer.slug == "forbidden-origin"
    assert not running.service.reminders.all
