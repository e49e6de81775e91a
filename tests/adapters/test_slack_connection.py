"""The connection to Slack: how it is made, lost, replaced and ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from netclawd.adapters.slack.channel import Pace, SlackChannel
from netclawd.core.values import replace
from netclawd.ports.channels import ChannelPhase, DeliveryError
from tests.adapters.slack_parts import (
    QUICK,
    PaperHost,
    await_phase,
    make_channel,
    outgoing,
    started,
)
from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Cut, Held, Limited, Mute, Page, Refuse
from tests.waiting import wait_for


@pytest.fixture
def slack() -> Iterator[Workspace]:
    with Workspace(acknowledge_s=0.5) as workspace:
        yield workspace


def all_heard(slack: Workspace) -> None:
    wait_for(lambda: not slack.unacknowledged, 10.0, "every event to be acknowledged")


def test_it_connects_and_says_since_when(slack: Workspace) -> None:
    with started(slack) as (channel, host):
        before = channel.state()
        assert before.connected_since is not None
        assert abs(time.time() - before.connected_since) < 5.0
        assert before.last_event_at is None
        assert before.trouble == ""
        slack.say("ada", DIRECT, "hello")
        all_heard(slack)
        wait_for(lambda: channel.state().last_event_at, 5.0, "the instant of the event")
        wait_for(
            lambda: (channel.state().last_alive_at or 0) > (before.last_alive_at or 0),
            5.0,
            "a pong",
        )
        assert host.phases == [ChannelPhase.CONNECTED]
        (one,) = slack.open_sockets
        wait_for(lambda: one.pings > 1, 5.0, "pings")


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("auth.test", "invalid_auth"),
        ("auth.test", "account_inactive"),
        ("apps.connections.open", "token_revoked"),
        ("apps.connections.open", "missing_scope"),
    ],
)
def test_what_slack_refuses_is_a_state_and_no_storm(
    slack: Workspace, method: str, error: str
) -> None:
    slack.always(method, Refuse(error))
    with started(slack, replace(QUICK, refused_s=60.0), wait=False) as (channel, _):
        state = await_phase(channel, ChannelPhase.REFUSED)
        token = "bot token" if method == "auth.test" else "app-level token"
        assert f"Slack refuses the {token} ({error})." in state.trouble
        assert state.trouble.count(".") >= 2, "what happened, and what to do"
        assert state.connected_since is None
        begun = len(slack.calls)
        with pytest.raises(AssertionError, match="in vain"):
            wait_for(lambda: len(slack.calls) > begun, 0.2, "another call")


def test_a_token_that_is_taken_again_connects(slack: Workspace) -> None:
    slack.fault("auth.test", Refuse("invalid_auth"))
    with started(slack, replace(QUICK, refused_s=0.1)) as (channel, host):
        assert host.phases == [ChannelPhase.REFUSED, ChannelPhase.CONNECTED]
        assert channel.state().trouble == ""


def test_a_token_of_the_wrong_kind_is_refused(slack: Workspace) -> None:
    with started(slack, wait=False, app_token=slack.bot_token) as (channel, _):
        state = await_phase(channel, ChannelPhase.REFUSED)
        assert "not_allowed_token_type" in state.trouble
        assert "xapp-" in state.trouble
        assert slack.bot_token not in state.trouble


def test_a_pause_that_slack_asks_for_is_kept(slack: Workspace) -> None:
    slack.fault("apps.connections.open", Limited(1))
    with started(slack) as (_, host):
        assert host.phases == [ChannelPhase.DOWN, ChannelPhase.CONNECTED]
        first, second = slack.called("apps.connections.open")
        assert second.at - first.at >= 1.0


@pytest.mark.parametrize(
    ("method", "fault", "words"),
    [
        ("apps.connections.open", Page(), "status 500"),
        ("apps.connections.open", Page(200), "not one of Slack's"),
        ("apps.connections.open", Page(200, b'{"ok": true, "url": 7}'), "names no address"),
        ("apps.connections.open", Page(200, b'{"ok": true, "url": "http://a.b/"}'), "WebSocket"),
        ("apps.connections.open", Page(200, b'{"ok": true, "url": "ws://a.b/"}'), "WebSocket"),
        ("apps.connections.open", Page(200, b'{"ok": true, "url": "wss://[/"}'), "is none"),
        ("apps.connections.open", Page(200, b"[" * 100_000), "not one of Slack's"),
        ("apps.connections.open", Cut(), "breaks the connection off"),
        ("auth.test", Page(200, b'{"ok": true}'), "who we are"),
        ("auth.test", Page(302), "status 302"),
        ("socket", Page(), "refuses the handshake (500)"),
        ("socket", Page(200), "refuses the handshake (200)"),
        ("socket", Limited(), "refuses the handshake (429)"),
        ("socket", Cut(), "breaks the handshake off"),
    ],
)
def test_what_fails_for_now_is_said_and_tried_again(
    slack: Workspace, method: str, fault: Page | Cut | Limited, words: str
) -> None:
    slack.fault(method, fault)
    troubles: list[str] = []
    channel, host = make_channel(slack), PaperHost()

    def state() -> object:
        troubles.append(channel.state().trouble)
        return channel.state()

    host.state = state  # type: ignore[assignment]
    channel.start(host)
    try:
        await_phase(channel, ChannelPhase.CONNECTED)
        assert host.phases == [ChannelPhase.DOWN, ChannelPhase.CONNECTED]
        assert words in troubles[0]
    finally:
        channel.stop(5.0)


def test_pauses_grow_while_nothing_works(slack: Workspace) -> None:
    slack.always("apps.connections.open", Page())
    with started(slack, wait=False) as (channel, _):
        wait_for(lambda: len(slack.called("apps.connections.open")) >= 5, 10.0, "five tries")
        at = [call.at for call in slack.called("apps.connections.open")]
        assert at[4] - at[3] > at[1] - at[0]
        assert channel.state().phase is ChannelPhase.DOWN


def test_the_new_connection_comes_before_the_old_one_is_left(slack: Workspace) -> None:
    with started(slack) as (channel, host):
        since = channel.state().connected_since
        said = [slack.say("ada", DIRECT, "first")]
        slack.disconnect()
        said.append(slack.say("ada", DIRECT, "second"))
        wait_for(lambda: len(slack.sockets) == 2 and not slack.sockets[0].is_open, 10.0, "the swap")
        said.append(slack.say("ada", DIRECT, "third"))
        all_heard(slack)
        old, new = slack.sockets
        assert old.closed_at is not None
        assert new.opened_at < old.closed_at
        assert host.phases == [ChannelPhase.CONNECTED, ChannelPhase.CONNECTED]
        assert channel.state().connected_since == since
        assert {i.message_id.split(":")[1] for i in host.received} == {m.ts for m in said}


def test_an_old_connection_is_left_once_its_events_are_acknowledged(slack: Workspace) -> None:
    entered, go_on = threading.Event(), threading.Event()
    with started(slack) as (_, host):
        receive = host.receive

        def slowly(incoming: object) -> object:
            entered.set()
            assert go_on.wait(10.0)
            return receive(incoming)  # type: ignore[arg-type]

        host.receive = slowly  # type: ignore[method-assign, assignment]
        slack.say("ada", DIRECT, "slow")
        assert entered.wait(10.0)
        slack.disconnect()
        wait_for(lambda: len(slack.sockets) == 2, 10.0, "the new connection")
        wait_for(lambda: slack.sockets[1].pings > 3, 10.0, "it to be used")
        assert slack.sockets[0].is_open
        go_on.set()
        wait_for(lambda: not slack.sockets[0].is_open, 10.0, "the old one to be left")
        (event,) = slack.events
        assert [d.lost for d in event.deliveries] == [""]


def test_while_no_new_connection_can_be_had_the_old_one_serves(slack: Workspace) -> None:
    with started(slack) as (channel, host):
        slack.fault("apps.connections.open", Page(), Page())
        slack.disconnect()
        wait_for(lambda: len(slack.called("apps.connections.open")) >= 3, 10.0, "two tries")
        wait_for(lambda: len(slack.sockets) == 2 and len(slack.open_sockets) == 1, 10.0, "the swap")
        assert host.phases == [ChannelPhase.CONNECTED, ChannelPhase.CONNECTED]
        assert channel.state().phase is ChannelPhase.CONNECTED


def test_a_pause_that_slack_asks_for_outlives_the_old_connection(slack: Workspace) -> None:
    with started(slack) as (channel, _):
        slack.fault("apps.connections.open", Limited(1))
        slack.disconnect()
        wait_for(lambda: len(slack.called("apps.connections.open")) == 2, 10.0, "the try")
        slack.drop_sockets()
        await_phase(channel, ChannelPhase.DOWN)
        await_phase(channel, ChannelPhase.CONNECTED)
        _, refused, taken = slack.called("apps.connections.open")
        assert taken.at - refused.at >= 1.0


def test_a_connection_that_drops_is_made_anew_and_nothing_is_lost(slack: Workspace) -> None:
    with started(slack) as (_, host):
        for number in range(2):
            slack.drop_sockets()
            slack.say("ada", DIRECT, f"message {number}")
            wait_for(lambda: slack.open_sockets, 10.0, "a new connection")
            all_heard(slack)
        assert {i.text for i in host.received} == {f"message {n}" for n in range(2)}
        assert ChannelPhase.DOWN in host.phases


def test_a_connection_that_slack_closes_is_made_anew(slack: Workspace) -> None:
    with started(slack) as (channel, host):
        slack.open_sockets[0].leave()
        wait_for(lambda: len(slack.sockets) == 2, 10.0, "a new connection")
        await_phase(channel, ChannelPhase.CONNECTED)
        assert host.phases == [ChannelPhase.CONNECTED, ChannelPhase.DOWN, ChannelPhase.CONNECTED]


def test_a_connection_that_falls_silent_is_given_up(slack: Workspace) -> None:
    with started(slack) as (channel, host):
        silent = slack.open_sockets[0]
        silent.silence()
        wait_for(lambda: len(slack.sockets) == 2, 10.0, "a new connection")
        await_phase(channel, ChannelPhase.CONNECTED)
        assert ChannelPhase.DOWN in host.phases
        silent.drop()


def test_a_connection_that_lives_is_kept(slack: Workspace) -> None:
    with started(slack, replace(QUICK, ping_s=0.03, deaf_s=0.2)):
        (one,) = slack.open_sockets
        wait_for(lambda: one.pings > 10, 10.0, "pings over longer than a silent one is kept")
        assert len(slack.sockets) == 1


@pytest.mark.parametrize(
    "text", ["not JSON", "[1]", "7", "{}", '{"type": 7}', '{"type": "hello"}', "[" * 9999]
)
def test_what_is_no_envelope_harms_nothing(slack: Workspace, text: str) -> None:
    with started(slack) as (_, host):
        slack.send_raw(text)
        slack.say("ada", DIRECT, "after")
        all_heard(slack)
        assert [i.text for i in host.received] == ["after"]
        assert len(slack.sockets) == 1


def test_an_event_of_any_length_arrives_whole(slack: Workspace) -> None:
    texts = ["x" * n for n in (0, 1, 125, 126, 127, 4000, 65_535, 65_536, 400_000)]
    with started(slack) as (_, host):
        for text in texts:
            slack.say("ada", DIRECT, f"a{text}")
        all_heard(slack)
        assert sorted(len(i.text) - 1 for i in host.received) == sorted(map(len, texts))


# -- the stop ------------------------------------------------------------------------------------


def stop_quickly(channel: SlackChannel) -> None:
    begun = time.monotonic()
    channel.stop(0.5)
    assert time.monotonic() - begun < 0.5
    assert not channel.working
    assert channel.state().phase is ChannelPhase.STOPPED


@pytest.mark.parametrize("place", ["auth.test", "apps.connections.open", "socket"])
def test_nothing_is_left_after_a_stop_in_the_midst_of_connecting(
    slack: Workspace, place: str
) -> None:
    held = Held()
    slack.fault(place, held)
    channel, host = make_channel(slack, Pace()), PaperHost()
    host.state = channel.state
    channel.start(host)
    assert held.reached.wait(10.0)
    stop_quickly(channel)
    held.lose()


def test_nothing_is_left_after_a_stop_while_hello_is_awaited(slack: Workspace) -> None:
    slack.fault("socket", Mute())
    channel, host = make_channel(slack, Pace()), PaperHost()
    host.state = channel.state
    channel.start(host)
    wait_for(lambda: slack.called("socket"), 10.0, "the handshake")
    stop_quickly(channel)


def test_nothing_is_left_after_a_stop_in_the_midst_of_a_call(slack: Workspace) -> None:
    asked = slack.say("ada", DIRECT, "hello")
    held, failed = Held(), []
    slack.fault("chat.postMessage", held)
    with started(slack, Pace()) as (channel, _):
        message = outgoing(f"{slack.team}/{asked.channel}/{asked.ts}", "answer")

        def deliver() -> None:
            try:
                channel.deliver(message, lambda _: None)
            except DeliveryError as error:
                failed.append(type(error).__name__)

        courier = threading.Thread(target=deliver)
        courier.start()
        assert held.reached.wait(10.0)
        stop_quickly(channel)
        courier.join(5.0)
        assert failed == ["UncertainError"]
        with pytest.raises(DeliveryError, match="at rest"):
            channel.deliver(message, lambda _: None)
        held.lose()


def test_a_stop_may_come_before_a_start_twice_and_to_a_channel_that_waits(slack: Workspace) -> None:
    make_channel(slack).stop(0.5)
    slack.always("apps.connections.open", Page())
    with started(slack, Pace(), wait=False) as (channel, _):
        await_phase(channel, ChannelPhase.DOWN)
        stop_quickly(channel)
        stop_quickly(channel)


def test_what_comes_after_a_pause_is_not_acknowledged(slack: Workspace) -> None:
    with started(slack) as (channel, host):
        channel.pause()
        assert channel.state().phase is ChannelPhase.STOPPED
        wait_for(lambda: not slack.open_sockets, 10.0, "the hang-up")
        slack.say("ada", DIRECT, "later")
    with started(slack) as (_, next_host):
        all_heard(slack)
        assert [i.text for i in next_host.received] == ["later"]
    assert host.received == []
