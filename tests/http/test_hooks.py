"""Webhooks over HTTP: what each delivery is answered, and that nothing is written where it is refused."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import pytest

from netclawd.adapters.http.options import HookOptions
from netclawd.core.settings import HookSettings
from netclawd.errors import ConflictError, DrainingError, StoreFullError
from tests.http.running import Images, Running
from tests.http.wire import Answer
from tests.webhook_sender import OTHER_KEY, SECRET, encode, headers

NOW = 1_700_000_000
BODY = encode({"type": "order.paid", "data": {"id": 7}})
HOOKS = {
    "shop": HookSettings("env:SHOP", "Order {{json.data.id}}: {{json.type}}"),
    "all": HookSettings("env:ALL"),
}


def options(hooks: Mapping[str, HookSettings] = HOOKS) -> HookOptions:
    return HookOptions(hooks, dict.fromkeys(hooks, SECRET), lambda: NOW + 0.5)


@pytest.fixture
def hooked(images: Images) -> Running:
    return images.first(hooks=options())


def deliver(
    running: Running,
    id_: str = "msg_1",
    body: bytes = BODY,
    name: str = "shop",
    timestamp: int | str = NOW,
    **more: str | None,
) -> Answer:
    fields = {k.replace("-", "_"): v for k, v in headers(id_, timestamp, body).items()}
    return running.ask("POST", f"/api/hooks/{name}", body, **{**fields, **more})


def texts(running: Running) -> list[Any]:
    return [event.data["text"] for log in running.service.log.values() for event in log]


def test_a_delivery_becomes_a_message_of_the_hook_s_own_session(hooked: Running) -> None:
    answer = deliver(hooked)
    assert answer.status == 202
    (session,) = hooked.service.log
    assert answer.json == {
        "input_id": "inp_1",
        "turn_id": "trn_1",
        "session_id": session,
        "deferred": False,
        "fresh": True,
    }
    assert texts(hooked) == ["Order 7: order.paid"]
    assert deliver(hooked, name="all").json["session_id"] != session
    assert texts(hooked)[1] == BODY.decode()


def test_a_delivery_that_comes_again_is_the_one_that_was(hooked: Running) -> None:
    first, again = deliver(hooked), deliver(hooked, timestamp=NOW + 60)
    assert again.status == 202
    assert again.json == {**first.json, "fresh": False}
    assert len(texts(hooked)) == 1


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"name": "nobody"}, 404, "not-found", "no webhook of this name"),
    ({"webhook_id": None}, 400, "bad-request", "no webhook-id"),
    ({"webhook_timestamp": None}, 400, "bad-request", "no webhook-timestamp"),
    ({"webhook_signature": None}, 400, "bad-request", "no webhook-signature"),
    ({"webhook_id": "a b"}, 400, "bad-request", "webhook-id can't"),
    ({"webhook_timestamp": "yesterday"}, 400, "bad-request", "webhook-timestamp can't"),
    ({"webhook_signature": "AAAA"}, 400, "bad-request", "webhook-signature can't"),
    ({"webhook_id": "msg_2"}, 401, "bad-signature", "No signature"),
    ({"webhook_signature": "v1,AAAA"}, 401, "bad-signature", "No signature"),
    ({"timestamp": NOW - 301}, 400, "bad-timestamp", "301 s behind the clock of this host"),
    ({"timestamp": NOW + 302}, 400, "bad-timestamp", "302 s ahead of the clock"),
    ({"body": b"x=1"}, 400, "bad-request", "not JSON"),
    ({"body": b""}, 400, "bad-request", "not JSON"),
    ({"body": b'{"type": "a"}'}, 422, "template-unfilled", 'json is an object without "data"'),
]


@pytest.mark.parametrize(("what", "status", "slug", "words"), REFUSED, ids=str)
def test_what_is_refused_says_why_and_writes_nothing(
    hooked: Running, what: dict[str, Any], status: int, slug: str, words: str
) -> None:
    answer = deliver(hooked, **what)
    assert answer.status == status
    assert answer.slug == slug
    assert words in answer.json["detail"]
    assert answer.json["remedy"]
    assert ("www-authenticate" in answer.headers) is (status == 401)
    assert hooked.service.log == {}


def test_a_signature_of_another_secret_is_refused(hooked: Running) -> None:
    fields = {k.replace("-", "_"): v for k, v in headers("m", NOW, BODY, OTHER_KEY).items()}
    answer = hooked.ask("POST", "/api/hooks/shop", BODY, **fields)
    assert answer.slug == "bad-signature"
    mine = headers("m", NOW, BODY)["webhook-signature"]
    fields["webhook_signature"] = f"v9,AAAA {fields['webhook_signature']} {mine}"
    assert hooked.ask("POST", "/api/hooks/shop", BODY, **fields).status == 202


def test_without_hooks_there_is_none(running: Running) -> None:
    answer = deliver(running)
    assert (answer.status, answer.slug) == (404, "not-found")
    assert "[hooks.NAME]" in answer.json["remedy"]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (DrainingError("Restarting.", "Again.", retry_after_s=9), 503, "9"),
        (ConflictError("hooks.shop.session names none.", "Set it."), 409, None),
        (StoreFullError("The disk is full.", "Make room."), 507, None),
    ],
)
def test_what_is_not_durable_is_not_acknowledged(
    hooked: Running, error: Exception, status: int, retry: str | None
) -> None:
    hooked.service.admit_error = error
    answer = deliver(hooked)
    assert (answer.status, answer.headers.get("retry-after")) == (status, retry)
    assert texts(hooked) == []
    hooked.service.admit_error = None
    assert deliver(hooked).json["fresh"]


def test_other_methods_are_not_allowed(hooked: Running) -> None:
    answer = hooked.ask("GET", "/api/hooks/shop")
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]


def test_a_body_is_as_large_as_elsewhere_at_most(hooked: Running) -> None:
    fits = b'{"a": "' + b"x" * ((1 << 20) - 9) + b'"}'
    assert deliver(hooked, body=fits, name="all").status == 202
    assert deliver(hooked, body=fits + b" ", name="all", id_="msg_2").status == 413
    assert len(texts(hooked)) == 1


def test_a_delivery_comes_in_through_a_proxy_under_the_name_that_is_allowed(images: Images) -> None:
    """A sender is no browser: it has no Origin. Its Host is that of the proxy, or forwarded by it."""
    running = images.first(
        hooks=options(), allowed_hosts=("claw.example",), trusted_proxies=("127.0.0.2",)
    )

    def through(id_: str, peer: str = "127.0.0.2", **more: str | None) -> Answer:
        fields = {k.replace("-", "_"): v for k, v in headers(id_, NOW, BODY).items()}
        with running.wire() as wire:
            wire.close()
            wire.sock = socket.create_connection(running.address, 10, (peer, 0))
            return wire.ask("POST", "/api/hooks/shop", BODY, **{**fields, **more})

    assert through("a", Host="claw.example").status == 202
    assert through("b", Host="upstream:5199", X_Forwarded_Host="claw.example").status == 202
    other = through("c", Host="upstream:5199", X_Forwarded_Host="evil.example")
    assert (other.status, other.slug) == (403, "forbidden-host")
    stranger = through("d", peer="127.0.0.9", Host="upstream", X_Forwarded_Host="claw.example")
    assert stranger.status == 403
    page = through("e", Host="claw.example", Origin="https://evil.example")
    assert page.slug == "forbidden-origin"
    assert len(texts(running)) == 2


def test_no_secret_is_shown_by_what_holds_it() -> None:
    assert SECRET not in repr(options())
