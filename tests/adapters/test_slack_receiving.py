"""What becomes of what people say and press in Slack, and of all that Slack sends besides."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from netclawd.adapters.slack import receiving
from netclawd.adapters.slack.envelopes import Identity, Nothing, Pressed, Said, read_envelope
from netclawd.core.outgoing import OutgoingId, OutgoingKind
from tests.adapters.slack_parts import make_channel, outgoing, started
from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Mute
from tests.waiting import wait_for

ME = Identity("T1", "UBOT", "B1")


@pytest.fixture
def slack() -> Iterator[Workspace]:
    with Workspace(acknowledge_s=3.0) as workspace:
        yield workspace


def all_heard(slack: Workspace) -> None:
    wait_for(lambda: not slack.unacknowledged, 10.0, "every event to be acknowledged")


# -- people who talk -----------------------------------------------------------------------------


def test_a_mention_begins_a_thread_and_is_one_message_whatever_tells_of_it(
    slack: Workspace,
) -> None:
    with started(slack) as (_, host):
        asked = slack.say("ada", "general", "a < b & c?")
        all_heard(slack)
        both = host.received
        assert [i.text for i in both] == ["a < b & c?"] * 2
        assert {i.route for i in both} == {f"{slack.team}/{asked.channel}/{asked.ts}"}
        assert {i.message_id for i in both} == {f"{asked.channel}:{asked.ts}"}
        assert {i.requester for i in both} == {asked.user}
        assert len({i.event_id for i in both}) == 2


def test_a_thread_goes_on_without_a_mention_and_others_are_left_alone(
    slack: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "EARLY_S", 0.1)
    with started(slack) as (_, host):
        asked = slack.say("ada", "general", "hello")
        all_heard(slack)
        other = slack.say("ada", "general", "among ourselves", mention=False)
        slack.say("bob", "general", "what about it?", other, mention=False)
        more = slack.say("bob", "general", "and this?", asked, mention=False)
        all_heard(slack)
        assert {i.text for i in host.received} == {"hello", "and this?"}
        (last,) = [i for i in host.received if i.text == "and this?"]
        assert last.route == f"{slack.team}/{asked.channel}/{asked.ts}"
        assert last.message_id == f"{asked.channel}:{more.ts}"


def test_a_direct_message_is_a_thread_of_its_own_and_one_in_a_thread_goes_on(
    slack: Workspace,
) -> None:
    with started(slack, allow_channels=[]) as (_, host):
        first = slack.say("ada", DIRECT, "one")
        slack.say("ada", DIRECT, "two", first)
        third = slack.say("ada", DIRECT, "three")
        all_heard(slack)
        routes = {i.text: i.route.rsplit("/", 1)[1] for i in host.received}
        assert routes == {"one": first.ts, "two": first.ts, "three": third.ts}


def test_a_reply_that_overtakes_the_mention_before_it_waits_for_it(slack: Workspace) -> None:
    with started(slack) as (_, host):
        slack.hold()
        asked = slack.say("ada", "general", "first")
        slack.say("ada", "general", "second", asked, mention=False)
        slack.release(lambda events: events[::-1])
        all_heard(slack)
        texts = [i.text for i in host.received]
        assert sorted(texts) == ["first", "first", "second"]
        assert texts.index("first") < texts.index("second")


def test_messages_of_a_thread_keep_their_order(slack: Workspace) -> None:
    with started(slack) as (_, host):
        asked = slack.say("ada", DIRECT, "0")
        for number in range(1, 30):
            slack.say("ada", DIRECT, str(number), asked)
        all_heard(slack)
        assert [i.text for i in host.received] == [str(n) for n in range(30)]


def test_what_the_daemon_does_not_take_is_not_acknowledged_and_comes_again(
    slack: Workspace,
) -> None:
    slack.acknowledge_s = 0.2
    with started(slack) as (_, host):
        host.closed = True
        slack.say("ada", DIRECT, "hello")
        wait_for(lambda: len(slack.deliveries) >= 2, 10.0, "another delivery")
        assert slack.unacknowledged
        host.closed = False
        all_heard(slack)
        assert [i.text for i in host.received] == ["hello"]


def test_what_one_event_breaks_does_not_silence_the_others(slack: Workspace) -> None:
    slack.acknowledge_s = 0.2
    with started(slack) as (_, host):
        receive, broken = host.receive, threading.Event()

        def receive_once_more(incoming: Any) -> Any:
            if not broken.is_set():
                broken.set()
                raise ZeroDivisionError
            return receive(incoming)

        host.receive = receive_once_more  # type: ignore[method-assign]
        slack.say("ada", DIRECT, "hello")
        all_heard(slack)
        assert [i.text for i in host.received] == ["hello"]


def test_an_event_is_acknowledged_only_once_the_daemon_has_it(slack: Workspace) -> None:
    entered, go_on = threading.Event(), threading.Event()
    with started(slack) as (_, host):
        receive = host.receive

        def wait_first(incoming: Any) -> Any:
            entered.set()
            assert go_on.wait(10.0)
            return receive(incoming)

        host.receive = wait_first  # type: ignore[method-assign]
        slack.say("ada", DIRECT, "hello")
        assert entered.wait(10.0)
        assert slack.unacknowledged
        go_on.set()
        all_heard(slack)


# -- who may -------------------------------------------------------------------------------------


def test_nobody_may_talk_by_default(slack: Workspace) -> None:
    with started(slack, allow_users=[], allow_channels=[]) as (_, host):
        slack.say("ada", DIRECT, "hello")
        slack.say("ada", "general", "hello")
        all_heard(slack)
        assert host.received == []
        assert {i.requester for i, _ in host.refused} == {slack.user("ada")}
        assert all(
            sentence.startswith("I'm not set up to talk with you.") for _, sentence in host.refused
        )


def test_a_user_who_may_still_needs_a_channel_that_may(slack: Workspace) -> None:
    ada, bob, general = slack.user("ada"), slack.user("bob"), slack.channel("general")
    with started(slack, allow_users=[ada], allow_channels=[general]) as (channel, host):
        slack.say("ada", "general", "yes")
        slack.say("ada", DIRECT, "yes")
        slack.say("ada", "random", "wrong channel")
        slack.say("bob", "general", "wrong user")
        slack.say("bob", DIRECT, "wrong user")
        all_heard(slack)
        assert {i.text for i in host.received} == {"yes"}
        assert {i.text: s.split(".")[0] for i, s in host.refused} == {
            "wrong channel": "I'm not set up to answer in this channel",
            "wrong user": "I'm not set up to talk with you",
        }
        assert channel.refusal(f"T/{general}/1.1", ada) == ""
        assert channel.refusal("T/D123/1.1", ada) == ""
        assert channel.refusal(f"T/{general}/1.1", bob) != ""
        assert channel.refusal("T/C999/1.1", ada) != ""
        assert channel.refusal("nonsense", ada) != ""


def test_everybody_is_nobody_of_another_workspace(slack: Workspace) -> None:
    with started(slack) as (_, host):
        said = {
            "type": "message",
            "user": "UFAR",
            "channel": "C1",
            "text": f"<@{slack.bot_user}> hi",
        }
        payload = {"event_id": "Ev1", "event": {**said, "ts": "1.1", "user_team": "TFAR"}}
        slack.send({"type": "events_api", "payload": payload})
        wait_for(lambda: host.refused, 10.0, "the refusal")
        assert host.received == []
    with started(slack, allow_users=["UFAR"]) as (channel, host):
        slack.send({"type": "events_api", "payload": payload})
        wait_for(lambda: host.received, 10.0, "the message of who is named")
        (heard,) = host.received
        assert channel.refusal(heard.route, heard.requester) == ""
    # Asked again before a reply goes out, when they are named no more.
    assert make_channel(slack).refusal(heard.route, heard.requester) != ""


@pytest.mark.parametrize(
    ("team", "shared", "requester"),
    [
        ({"team": "T1"}, True, "U1"),
        ({"team": "T2"}, True, "U1@T2"),
        ({"source_team": "T2", "team": "T1"}, True, "U1@T2"),
        ({"user_team": "T1", "team": "T2"}, True, "U1"),
        ({}, False, "U1"),
        ({}, True, "U1@unknown"),
    ],
)
def test_who_shares_the_channel_is_an_outsider_unless_slack_names_our_workspace(
    team: dict[str, str], shared: bool, requester: str
) -> None:
    found = read_envelope(event(event=team, is_ext_shared_channel=shared), ME)
    assert isinstance(found, Said)
    assert found.incoming.requester == requester


def test_a_conversation_of_another_workspace_is_out_of_reach(slack: Workspace) -> None:
    with started(slack) as (channel, _):
        assert channel.unreachable(f"{slack.team}/C1/1.1") == ""
        assert "another Slack workspace" in channel.unreachable("TOTHER/C1/1.1")
        assert channel.unreachable("nonsense") != ""


# -- buttons -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "granted"), [("Grant", True), ("Deny", False)])
def test_a_button_decides_and_the_one_who_pressed_it_is_told(
    slack: Workspace, label: str, granted: bool
) -> None:
    with started(slack) as (channel, host):
        asked = slack.say("ada", "general", "do it")
        route = f"{slack.team}/{asked.channel}/{asked.ts}"
        question = outgoing(route, "May I?", kind=OutgoingKind.QUESTION, id=OutgoingId("a-1"))
        channel.deliver(question, lambda _: None)
        (shown,) = slack.answers(asked)
        delivery = slack.press("ada", shown, label)
        wait_for(lambda: host.presses, 10.0, "the press")
        (press,) = host.presses
        assert (press.route, press.requester) == (route, slack.user("ada"))
        assert (press.approval_id, press.granted) == ("a-1", granted)
        assert delivery is not None
        wait_for(lambda: slack.whispers("ada"), 10.0, "the sentence")
        assert delivery.acknowledged_at is not None
        (told,) = slack.whispers("ada")
        assert told.text == ("Granted." if granted else "Denied.")
        assert told.thread_ts == asked.ts


def test_who_may_not_talk_may_not_press(slack: Workspace) -> None:
    ada = slack.user("ada")
    with started(slack, allow_users=[ada]) as (channel, host):
        asked = slack.say("ada", "general", "do it")
        route = f"{slack.team}/{asked.channel}/{asked.ts}"
        channel.deliver(outgoing(route, "May I?", kind=OutgoingKind.QUESTION), lambda _: None)
        slack.press("eve", slack.answers(asked)[0], "Grant")
        wait_for(lambda: slack.whispers("eve"), 10.0, "the sentence")
        assert host.presses == []
        assert slack.whispers("eve")[0].text.startswith("I'm not set up to talk with you.")


def test_a_web_api_that_is_slow_holds_up_nothing_that_is_said(slack: Workspace) -> None:
    with started(slack) as (channel, host):
        asked = slack.say("ada", "general", "do it")
        route = f"{slack.team}/{asked.channel}/{asked.ts}"
        channel.deliver(outgoing(route, "May I?", kind=OutgoingKind.QUESTION), lambda _: None)
        slack.always("chat.postEphemeral", Mute())
        slack.press("ada", slack.answers(asked)[0], "Grant")
        wait_for(lambda: host.presses, 10.0, "the press")
        slack.say("ada", "general", "hello?", asked)
        wait_for(lambda: host.received[-1].text == "hello?", 2.0, "the message behind it")


# -- everything else that Slack sends ------------------------------------------------------------


def test_our_own_messages_and_edits_are_acknowledged_and_left_alone(slack: Workspace) -> None:
    with started(slack) as (channel, host):
        asked = slack.say("ada", DIRECT, "hello")
        all_heard(slack)
        route = f"{slack.team}/{asked.channel}/{asked.ts}"
        receipts = channel.deliver(outgoing(route, "one"), lambda _: None)
        channel.deliver(outgoing(route, "two", receipts=receipts), lambda _: None)
        all_heard(slack)
        assert len(slack.events) == 3
        assert [i.text for i in host.received] == ["hello"]


@pytest.mark.parametrize(
    "envelope",
    [
        {"type": "slash_commands", "payload": {"command": "/x"}},
        {"type": "something_new", "payload": 7},
        {"type": "events_api", "payload": {"event": {"type": "reaction_added"}}},
        {"type": "events_api", "payload": {"event": {"type": "message"}}},
        {"type": "events_api", "payload": None},
        {"type": "interactive", "payload": {"type": "view_submission"}},
        {"type": "interactive", "payload": {"type": "block_actions", "actions": [7]}},
        {"type": 7},
        {},
    ],
)
def test_what_asks_for_nothing_is_acknowledged_and_left_alone(
    slack: Workspace, envelope: dict[str, Any]
) -> None:
    with started(slack) as (_, host):
        delivery = slack.send(envelope)
        assert delivery is not None
        wait_for(lambda: delivery.acknowledged_at is not None, 10.0, "the acknowledgement")
        assert (host.received, host.refused, host.presses) == ([], [], [])


def event(**more: Any) -> dict[str, Any]:
    said = {"type": "app_mention", "user": "U1", "channel": "C1", "ts": "1.2", "text": "<@UBOT> hi"}
    payload = {"event_id": "Ev1", "event": {**said, **more.pop("event", {})}, **more}
    return {"type": "events_api", "envelope_id": "e", "payload": payload}


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        (event(event={"user": "UBOT"}), "bot"),
        (event(event={"bot_id": "B2"}), "bot"),
        (event(event={"user": "USLACKBOT"}), "bot"),
        (event(event={"subtype": "message_changed"}), "subtype"),
        (event(event={"subtype": "channel_join"}), "subtype"),
        (event(event={"user": None}), "incomplete"),
        (event(event={"channel": "C1/../x"}), "incomplete"),
        (event(event={"thread_ts": "a b"}), "incomplete"),
        (event(event={"ts": ""}), "incomplete"),
        (event(event_id=""), "incomplete"),
        (event(event_id="Ev\ud800"), "incomplete"),
        (event(event={"type": "message", "text": "hi"}), "not for us"),
        (event(authorizations=[{"team_id": "T2"}]), "another workspace"),
    ],
)
def test_what_is_not_said_to_us_is_nothing(envelope: dict[str, Any], why: str) -> None:
    assert read_envelope(envelope, ME) == Nothing(why)


def test_a_message_without_text_says_so() -> None:
    found = read_envelope(event(event={"text": "<@UBOT>", "subtype": "file_share"}), ME)
    assert isinstance(found, Said)
    assert found.incoming.text == "(a message without text)"


def test_a_press_outside_a_thread_belongs_to_the_thread_of_its_message() -> None:
    action = {"action_id": "netclawd_grant", "value": "a-1", "action_ts": "9.9"}
    payload = {
        "type": "block_actions",
        "user": {"id": "U1"},
        "channel": {"id": "D1"},
        "container": {"message_ts": "3.4"},
        "actions": [action],
    }
    found = read_envelope({"type": "interactive", "payload": payload}, ME)
    assert isinstance(found, Pressed)
    assert found.press.route == "T1/D1/3.4"
