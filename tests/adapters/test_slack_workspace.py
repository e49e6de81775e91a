"""The Slack workspace that the tests have, tried with slack_sdk itself: what it promises, it keeps."""

from __future__ import annotations

import http.client
import socket
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web import WebClient

from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Cut, Held, Limited, Message, Page, Refuse
from tests.waiting import wait_for

QUESTION: list[dict[str, Any]] = [
    {"type": "section", "text": {"type": "mrkdwn", "text": "May it run?"}},
    {
        "type": "actions",
        "elements": [
            {
                "type": "button",
                "action_id": word,
                "text": {"type": "plain_text", "text": word},
                "value": "a1",
            }
            for word in ("allow", "deny")
        ],
    },
]


class App:
    """An app that acknowledges what ``acknowledges`` says."""

    def __init__(self, slack: Workspace) -> None:
        self.web = web_of(slack)
        self.heard: list[SocketModeRequest] = []
        self.acknowledges: Callable[[SocketModeRequest], bool] = lambda _: True
        self.client = SocketModeClient(slack.app_token, web_client=self.web, ping_interval=0.3)
        self.client.socket_mode_request_listeners.append(self._take)

    def _take(self, client: Any, request: SocketModeRequest) -> None:
        self.heard.append(request)
        if self.acknowledges(request):
            client.send_socket_mode_response(SocketModeResponse(request.envelope_id))

    def kinds(self) -> list[str]:
        return [r.payload.get("event", {}).get("type", r.type) for r in self.heard]


def web_of(slack: Workspace) -> WebClient:
    return WebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])


@pytest.fixture
def slack() -> Iterator[Workspace]:
    with Workspace(acknowledge_s=0.3) as workspace:
        yield workspace


@pytest.fixture
def app(slack: Workspace) -> Iterator[App]:
    one = App(slack)
    yield one
    one.client.auto_reconnect_enabled = False
    # So that the client's thread doesn't wait for something to read.
    slack.drop_sockets()
    one.client.close()


def all_heard(slack: Workspace) -> None:
    wait_for(lambda: not slack.unacknowledged, 10.0, "every event to be acknowledged")


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(SlackApiError) as caught:
        call()
    return str(caught.value.response["error"])


def test_what_is_said_without_a_socket_waits_for_one(slack: Workspace, app: App) -> None:
    said = slack.say("ada", "general", "a < b")
    direct = slack.say("ada", DIRECT, "psst")
    app.client.connect()
    all_heard(slack)
    assert sorted(app.kinds()) == ["app_mention", "message", "message"]
    told = {
        r.payload["event"]["type"]: r.payload["event"] for r in app.heard if r.retry_attempt == 0
    }
    assert told["app_mention"]["text"] == "<@U0NETCLAW> a &lt; b"
    assert told["app_mention"]["ts"] == said.ts
    assert any(r.payload["event"]["ts"] == direct.ts for r in app.heard)


def test_an_event_that_nobody_acknowledges_comes_again_under_another_envelope(
    slack: Workspace, app: App
) -> None:
    app.acknowledges = lambda request: bool(request.retry_attempt)
    app.client.connect()
    slack.say("ada", "general", "hello", mention=False)
    all_heard(slack)
    first, second = app.heard
    assert first.payload["event_id"] == second.payload["event_id"]
    assert first.envelope_id != second.envelope_id
    assert (second.retry_attempt, second.retry_reason) == (1, "timeout")


@pytest.mark.prove
def test_a_socket_that_drops_gives_its_events_back(slack: Workspace, app: App) -> None:
    slack.acknowledge_s = 30.0
    app.acknowledges = lambda request: bool(request.retry_attempt)
    app.client.connect()
    slack.say("ada", "general", "hello", mention=False)
    wait_for(lambda: app.heard, 5.0, "the event")
    slack.drop_sockets()
    all_heard(slack)
    assert app.heard[-1].retry_reason == "connection_lost"
    assert len(slack.sockets) == 2


@pytest.mark.prove
def test_an_app_that_is_asked_to_leave_opens_the_next_socket_first(
    slack: Workspace, app: App
) -> None:
    app.client.connect()
    wait_for(lambda: slack.open_sockets, 5.0, "a socket")
    slack.disconnect()
    wait_for(lambda: len(slack.sockets) == 2 and slack.sockets[0].closed_at, 5.0, "the next one")
    old, new = slack.sockets
    assert old.closed_at is not None
    assert new.opened_at < old.closed_at


def test_a_handshake_can_break_off_and_a_ticket_is_good_for_one(slack: Workspace) -> None:
    slack.fault("socket", Cut(), Page(503))
    url = web_of(slack).apps_connections_open(app_token=slack.app_token)["url"]
    again = web_of(slack).apps_connections_open(app_token=slack.app_token)["url"]
    assert shake_hands(slack, url) == "HTTP/1.1 101 Switching Proto"
    assert shake_hands(slack, url).startswith("HTTP/1.1 503")
    assert shake_hands(slack, url).startswith("HTTP/1.1 400")
    assert shake_hands(slack, again).startswith("HTTP/1.1 101 Switching Protocols\r\n")
    wait_for(lambda: len(slack.sockets) == 1, 5.0, "the socket")


def shake_hands(slack: Workspace, url: str) -> str:
    """Return what comes back before it breaks off, or the head."""
    parts = urllib.parse.urlsplit(url)
    fields = (
        f"GET {parts.path}?{parts.query} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    )
    with socket.create_connection(("127.0.0.1", parts.port or 0), timeout=5.0) as connection:
        connection.sendall(("\r\n".join(fields) + "\r\n\r\n").encode())
        received = b""
        while b"\r\n\r\n" not in received and (data := connection.recv(4096)):
            received += data
    return received.decode("latin-1")


@pytest.mark.prove
def test_a_silent_socket_is_noticed_by_its_pings(slack: Workspace, app: App) -> None:
    app.client.connect()
    wait_for(lambda: slack.open_sockets and slack.sockets[0].pings, 5.0, "a ping")
    slack.sockets[0].silence()
    slack.say("ada", "general", "is anybody there?", mention=False)
    all_heard(slack)
    assert len(slack.sockets) == 2


def test_posts_are_threaded_edited_and_found_page_by_page_with_their_metadata(
    slack: Workspace,
) -> None:
    web, asked = web_of(slack), slack.say("ada", "general", "tell me")
    for number in range(5):
        metadata = {"event_type": "netclaw", "event_payload": {"id": number}}
        web.chat_postMessage(
            channel=asked.channel, thread_ts=asked.ts, text=f"{number}", metadata=metadata
        )
    web.chat_update(channel=asked.channel, ts=slack.posts[0].ts, text="zero")
    found: list[dict[str, Any]] = []
    sizes = []
    # An answer that is iterated becomes the next page.
    for page in web.conversations_replies(
        channel=asked.channel, ts=asked.ts, limit=3, include_all_metadata=True
    ):
        found += [m for m in page["messages"] if "metadata" in m]
        sizes.append(len(page["messages"]))
    assert [m["text"] for m in found] == ["zero", "1", "2", "3", "4"]
    assert [m["metadata"]["event_payload"]["id"] for m in found] == [0, 1, 2, 3, 4]
    assert sizes == [3, 3, 2]
    plain = web.conversations_replies(channel=asked.channel, ts=asked.ts)
    assert all("metadata" not in m for m in plain["messages"])
    assert slack.answers(asked)[0].edits == 1


def test_what_slack_refuses_is_refused(slack: Workspace) -> None:
    web, asked = web_of(slack), slack.say("ada", "general", "hello")
    here, post = asked.channel, web.chat_postMessage(channel=asked.channel, text="x")
    wrong = WebClient("xoxb-9", base_url=slack.base_url)
    app = WebClient(slack.app_token, base_url=slack.base_url)
    calls: dict[str, Callable[[], object]] = {
        "channel_not_found": lambda: web.chat_postMessage(channel="C9", text="x"),
        "msg_too_long": lambda: web.chat_postMessage(channel=here, text="x" * 40_001),
        "no_text": lambda: web.api_call("chat.postMessage", params={"channel": here}),
        "thread_not_found": lambda: web.chat_postMessage(channel=here, text="x", thread_ts="1.2"),
        "message_not_found": lambda: web.chat_update(channel=here, ts="1.2", text="x"),
        "cant_update_message": lambda: web.chat_update(channel=here, ts=asked.ts, text="x"),
        "invalid_auth": wrong.auth_test,
        "not_allowed_token_type": app.auth_test,
        "unknown_method": lambda: web.api_call("no.such"),
        "invalid_blocks": lambda: web.chat_postMessage(
            channel=here, text="x", blocks=[{"type": "section"}]
        ),
    }
    assert {name: error_of(call) for name, call in calls.items()} == {name: name for name in calls}
    too_long = error_of(lambda: web.chat_update(channel=here, ts=post["ts"], text="x" * 4_001))
    assert too_long == "msg_too_long"


def test_faults_are_scripted_call_by_call(slack: Workspace) -> None:
    web, held = web_of(slack), Held(performed=True)
    channel = slack.channel("general")
    slack.fault(
        "chat.postMessage",
        Limited(7),
        Page(),
        Refuse("fatal_error"),
        Cut(),
        Cut(performed=True),
        held,
    )

    def post() -> Any:
        return web.chat_postMessage(channel=channel, text="x")

    with pytest.raises(SlackApiError) as limited:
        post()
    assert limited.value.response.status_code == 429
    assert limited.value.response.headers["Retry-After"] == "7"
    assert "Server Error" in error_of(post)
    assert error_of(post) == "fatal_error"
    assert slack.posts == []
    for _ in range(2):
        with pytest.raises(http.client.RemoteDisconnected):
            post()
    assert len(slack.posts) == 1
    held.release()
    post()
    assert [call.fault for call in slack.called("chat.postMessage")][-1] is held
    assert len(slack.posts) == 2


def test_a_button_is_pressed_once_and_a_whisper_is_for_one(slack: Workspace, app: App) -> None:
    app.client.connect()
    asked = slack.say("ada", "general", "do it")
    app.web.chat_postMessage(
        channel=asked.channel, thread_ts=asked.ts, text="May it run?", blocks=QUESTION
    )
    pressed = slack.press("bob", slack.answers(asked)[0], "allow")
    assert pressed is not None
    wait_for(lambda: pressed.acknowledged_at, 5.0, "the press to be acknowledged")
    (heard,) = (r for r in app.heard if r.type == "interactive")
    assert heard.payload["user"]["id"] == slack.user("bob")
    assert heard.payload["actions"][0]["value"] == "a1"
    assert heard.payload["message"]["ts"] == slack.posts[0].ts
    app.web.chat_postEphemeral(channel=asked.channel, user=asked.user, text="not you")
    assert [m.text for m in slack.whispers("ada")] == ["not you"]


@pytest.mark.prove
def test_what_waits_can_come_in_another_order_and_come_again(slack: Workspace, app: App) -> None:
    app.client.connect()
    slack.hold()
    said: list[Message] = [slack.say("ada", "general", word, mention=False) for word in "abc"]
    slack.release(lambda events: events[::-1])
    all_heard(slack)
    first = [d.envelope["payload"]["event"]["text"] for d in slack.deliveries]
    assert first == ["c", "b", "a"]
    slack.repeat(said[0])
    all_heard(slack)
    assert slack.deliveries[-1].event_id == slack.deliveries[2].event_id
