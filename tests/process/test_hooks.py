"""Webhooks at a daemon that restarts: each delivery is one message, whenever and however often it comes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.process.client import Answer
from tests.process.harness import Daemon
from tests.process.talk import (
    accepted,
    check_history,
    events,
    new_session,
    of_type,
    send,
    wait_all_ended,
    wait_event,
)
from tests.waiting import wait_for
from tests.webhook_sender import OTHER_KEY, SECRET, encode, headers

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]
BODY = encode({"type": "order.paid", "data": {"id": 7}})


def hooked(make_daemon: Make, **tables: Any) -> Daemon:
    hook = {"secret": "env:SHOP", "template": "Order {{json.data.id}}"}
    return make_daemon(
        environment={"SHOP": SECRET},
        tables={"hooks.shop": hook, "drain": {"model_timeout_s": 10}, **tables},
    )


def deliver(
    daemon: Daemon, id_: str, body: bytes = BODY, changes: Any = None, name: str = "shop"
) -> Answer:
    """Make one attempt now."""
    fields = {**headers(id_, int(time.time()), body), **(changes or {})}
    return daemon.ask(f"/api/hooks/{name}", method="POST", data=body, headers=fields)


@contextmanager
def draining(daemon: Daemon) -> Iterator[None]:
    """Have a restart wait for a model call, with the gate closed, and see it through."""
    session = new_session(daemon)
    accepted(daemon, session, "/count 16 0.05")
    wait_event(daemon, session, "turn.started")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(daemon.reload(force=True)))
    thread.start()
    wait_for(lambda: daemon.status()["gate"] == "closed", 10.0, "the gate to close")
    yield
    thread.join()
    assert found[0]["outcome"] == "applied"
    daemon.wait_ready(above=1)


def test_a_delivery_before_during_and_after_a_restart_is_one_message(make_daemon: Make) -> None:
    daemon = hooked(make_daemon).start()
    first = deliver(daemon, "msg_1")
    assert first.status == 202
    with draining(daemon):
        again, late = deliver(daemon, "msg_1"), deliver(daemon, "msg_2")
        assert again.json == {**first.json, "fresh": False}
        assert late.json["deferred"]
        assert late.json["fresh"]
        assert deliver(daemon, "msg_2").json == {**late.json, "fresh": False}
    daemon.interrupt("kill")
    for id_, known in (("msg_1", first), ("msg_2", late)):
        # Another text of the same event is the same delivery.
        for body in (BODY, encode({"data": {"id": 8}})):
            assert deliver(daemon, id_, body).json == {**known.json, "fresh": False}
    texts = [encode({"data": {"id": number}}) for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: deliver(daemon, "msg_3", body), texts))
    assert Counter(answer.json["fresh"] for answer in answers) == {True: 1, False: 15}
    assert len({answer.json["turn_id"] for answer in answers}) == 1
    session = first.json["session_id"]
    assert late.json["session_id"] == session
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    told = [row["text"] for row in of_type(rows, "input.admitted")]
    assert told[:2] == ["Order 7"] * 2
    assert len(told) == 3
    assert len(of_type(rows, "reply.sent")) == 3


def test_a_gate_that_rejects_sends_the_sender_back_and_knows_what_was_taken(
    make_daemon: Make,
) -> None:
    daemon = hooked(make_daemon, drain={"new_work": "reject", "model_timeout_s": 10})
    daemon.tables["hooks.other"] = daemon.tables["hooks.shop"]
    daemon.start()
    first = deliver(daemon, "msg_1")
    with draining(daemon):
        assert deliver(daemon, "msg_1").json == {**first.json, "fresh": False}
        refused = deliver(daemon, "msg_2")
        assert refused.retry_later
        assert refused.json["type"] == "urn:netclaw:problem:draining"
        assert deliver(daemon, "msg_2", name="other").retry_later
    # Nothing was written, the other hook's session included.
    assert len(daemon.ask("/api/sessions").json["sessions"]) == 2
    assert deliver(daemon, "msg_2").json["fresh"]
    rows = wait_all_ended(daemon, [first.json["session_id"]])[first.json["session_id"]]
    assert len(of_type(rows, "input.admitted")) == 2


def test_what_is_refused_writes_nothing_and_no_secret_is_logged(make_daemon: Make) -> None:
    daemon = hooked(make_daemon).start()
    now = int(time.time())
    other = headers("m", now, BODY, OTHER_KEY)["webhook-signature"]
    stale = headers("m", now - 400, BODY)
    answers = [
        deliver(daemon, "m", b"no json"),
        deliver(daemon, "m", b"{}"),
        deliver(daemon, "m", changes={"webhook-signature": other}),
        deliver(daemon, "m", changes=stale),
        deliver(daemon, "m", changes={"webhook-id": ""}),
    ]
    assert [answer.status for answer in answers] == [400, 422, 401, 400, 400]
    assert daemon.ask("/api/sessions").json["sessions"] == []
    assert "of this host" in answers[3].json["detail"]
    daemon.stop()
    written = daemon.errors() + "".join(answer.body.decode() for answer in answers)
    assert SECRET.removeprefix("whsec_") not in written


def test_a_hook_speaks_to_the_session_that_is_configured(make_daemon: Make) -> None:
    daemon = hooked(make_daemon).start()
    session, own = new_session(daemon), deliver(daemon, "msg_1")
    for key in ("hook:shop:msg_2", "reminder:rem_1:1.000"):
        # Who could take it would keep the delivery away, and all reminders.
        assert send(daemon, session, "hi", key).status == 400
    # Nor does anybody talk in the hook's own session by its name.
    words = {
        "model": "netclaw",
        "user": "hook:shop",
        "messages": [{"role": "user", "content": "hi"}],
    }
    assert daemon.ask("/v1/chat/completions", method="POST", data=words).status == 400
    hook = daemon.tables["hooks.shop"]
    daemon.tables["hooks.shop"] = {**hook, "session": "ses_none"}
    daemon.write_config()
    daemon.wait_ready(above=1)
    answer = deliver(daemon, "msg_2")
    assert (answer.status, answer.json["type"]) == (409, "urn:netclaw:problem:conflict")
    assert "hooks.shop.session" in answer.json["detail"]
    daemon.tables["hooks.shop"] = {**hook, "session": session}
    daemon.write_config()
    daemon.wait_ready(above=2)
    assert deliver(daemon, "msg_2").json["session_id"] == session
    # What came while the hook had a session of its own is found there; so is what any other has.
    assert deliver(daemon, "msg_1").json == {**own.json, "fresh": False}
    daemon.tables["hooks.shop"] = {**hook, "session": new_session(daemon)}
    daemon.write_config()
    daemon.wait_ready(above=3)
    again = deliver(daemon, "msg_2").json
    assert (again["session_id"], again["fresh"]) == (session, False)
    for one in (session, own.json["session_id"]):
        assert len(of_type(events(daemon, one), "input.admitted")) == 1


@pytest.mark.parametrize(
    ("secret", "template", "words"),
    [
        ("whsec_short", "{{json}}", "hooks.shop.secret: What it refers to is no key of a webhook"),
        (SECRET, "{{body}}", "hooks.shop.template: {{body}} is not known here"),
    ],
)
def test_a_hook_that_can_not_work_is_a_configuration_error(
    make_daemon: Make, secret: str, template: str, words: str
) -> None:
    daemon = make_daemon(
        environment={"SHOP": secret},
        tables={"hooks.shop": {"secret": "env:SHOP", "template": template}},
    )
    daemon.write_config()
    done = subprocess.run(
        [sys.executable, "-m", "netclawd", "--check"],
        env=daemon.full_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert words in done.stderr
    assert secret.removeprefix("whsec_") not in done.stderr
