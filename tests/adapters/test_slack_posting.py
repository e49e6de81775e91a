"""How a message of the outbox is shown in a conversation, found again, and what a failure means for it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from netclawd.adapters.slack.channel import SlackChannel
from netclawd.adapters.slack.posting import DELETED, LIMITS
from netclawd.core.outgoing import OutgoingId, OutgoingKind, answered
from netclawd.core.session import ApprovalState, OutboxState
from netclawd.core.values import replace
from netclawd.ports.channels import (
    ChannelPhase,
    DeliveryError,
    TryLaterError,
    UncertainError,
    UndeliverableError,
)
from tests.adapters.slack_parts import QUICK, await_phase, make_channel, outgoing, started
from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Cut, Fault, Limited, Message, Page, Refuse
from tests.waiting import wait_for

LONG = "\n\n".join(f"Paragraph {n}: {'words and more words ' * 20}".strip() for n in range(30))


@pytest.fixture
def slack() -> Iterator[Workspace]:
    with Workspace() as workspace:
        yield workspace


@pytest.fixture
def channel(slack: Workspace) -> Iterator[SlackChannel]:
    with started(slack) as (one, _):
        yield one


@pytest.fixture
def asked(slack: Workspace) -> Message:
    return slack.say("ada", "general", "hello")


@pytest.fixture
def route(slack: Workspace, asked: Message) -> str:
    return f"{slack.team}/{asked.channel}/{asked.ts}"


def texts(slack: Workspace, asked: Message) -> list[str]:
    return [m.text for m in slack.answers(asked)]


def test_a_reply_goes_into_its_thread_with_its_identity(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    recorded: list[tuple[str, ...]] = []
    receipts = channel.deliver(outgoing(route, "**Yes**, <!channel>"), recorded.append)
    (shown,) = slack.answers(asked)
    assert shown.text == "*Yes*, &lt;!channel&gt;"
    assert receipts == (shown.ts,)
    assert recorded == [receipts]
    assert shown.metadata == {
        "event_type": "netclawd_message",
        "event_payload": {"id": "t-1", "part": 0},
    }
    (call,) = slack.called("chat.postMessage")
    assert (call.arguments["unfurl_links"], call.arguments["unfurl_media"]) == (False, False)
    assert (call.arguments["parse"], call.arguments["link_names"]) == ("none", False)


def test_what_has_a_receipt_is_edited_and_only_if_it_changes(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    receipts = channel.deliver(outgoing(route, "one"), lambda _: None)
    for text in ("two", "two", "three"):
        assert channel.deliver(outgoing(route, text, receipts=receipts), lambda _: None) == receipts
    assert texts(slack, asked) == ["three"]
    assert len(slack.called("chat.update")) == 2


def test_a_long_reply_is_split_and_stays_so_when_it_is_shown_again(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    recorded: list[tuple[str, ...]] = []
    receipts = channel.deliver(outgoing(route, LONG), recorded.append)
    shown = texts(slack, asked)
    assert len(shown) == len(receipts) == len(recorded) > 2
    assert all(len(text) <= LIMITS[0] for text in shown)
    assert "".join("".join(shown).split()) == "".join(LONG.split())
    again = make_channel(slack)
    again.deliver(outgoing(route, LONG, receipts=receipts), lambda _: None)
    again.stop(5.0)
    assert texts(slack, asked) == shown


def test_while_it_is_made_only_its_first_part_is_shown(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    making = outgoing(route, "", state=OutboxState.STREAMING)
    receipts: tuple[str, ...] = ()
    for length in (10, 3_000, 5_000, len(LONG)):
        message = replace(making, text=LONG[:length], receipts=receipts)
        receipts = channel.deliver(message, lambda _: None)
        assert len(receipts) == 1
    (shown,) = slack.answers(asked)
    assert shown.edits == 2, "what is beyond the first part changes nothing"
    assert len(shown.text) <= LIMITS[0]
    whole = channel.deliver(outgoing(route, LONG, receipts=receipts), lambda _: None)
    assert whole[0] == receipts[0]
    assert len(whole) > 2


def test_what_is_too_long_for_slack_is_split_smaller(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    text = LONG[:3_500]
    slack.fault("chat.postMessage", Refuse("msg_too_long"))
    receipts = channel.deliver(outgoing(route, text), lambda _: None)
    assert len(receipts) == 2
    assert all(len(shown) <= LIMITS[1] for shown in texts(slack, asked))
    slack.always("chat.postMessage", Refuse("msg_too_long"))
    with pytest.raises(UndeliverableError, match="msg_too_long"):
        channel.deliver(outgoing(route, text), lambda _: None)


@pytest.mark.parametrize("fault", [None, Refuse("cant_delete_message")])
def test_parts_that_a_shorter_text_does_not_need_are_taken_away(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str, fault: Fault | None
) -> None:
    recorded: list[tuple[str, ...]] = []
    receipts = channel.deliver(outgoing(route, LONG), lambda _: None)
    slack.always("chat.delete", fault)
    short = outgoing(route, "short", receipts=receipts)
    assert channel.deliver(short, recorded.append) == receipts[:1]
    assert recorded[-1] == receipts[:1]
    assert texts(slack, asked)[0] == "short"
    assert len(texts(slack, asked)) == (1 if fault is None else len(receipts))


def test_an_empty_reply_is_shown_as_one(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    channel.deliver(outgoing(route, " \n "), lambda _: None)
    assert texts(slack, asked) == ["(no text)"]


# -- questions -----------------------------------------------------------------------------------


def test_a_question_is_shown_as_it_is_with_its_buttons_until_it_is_decided(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    text = "May I run this?\nrm *old* <@U1> `x`"
    open_one = outgoing(route, text, kind=OutgoingKind.QUESTION, id=OutgoingId("a-1"))
    receipts = channel.deliver(open_one, lambda _: None)
    (shown,) = slack.answers(asked)
    inside = "May I run this?\nrm *old* &lt;@U1&gt; `x`"
    assert shown.blocks[0]["text"]["text"] == f"```\n{inside}\n```"
    assert [b["type"] for b in shown.blocks] == ["section", "actions"]
    assert [b["text"]["text"] for b in shown.buttons] == ["Grant", "Deny"]
    assert {b["value"] for b in shown.buttons} == {"a-1"}
    decided = replace(
        open_one, text=answered(text, ApprovalState.GRANTED, "ada"), version=2, receipts=receipts
    )
    channel.deliver(decided, lambda _: None)
    (shown,) = slack.answers(asked)
    assert shown.buttons == []
    assert "Granted by ada." in shown.blocks[-1]["text"]["text"]
    assert "Granted by ada." in shown.text


def test_a_long_question_is_shown_in_full_over_sections_and_messages(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    text = "May I write this?\n" + "\n".join(f"line {n} & more" for n in range(1_000))
    channel.deliver(outgoing(route, text, kind=OutgoingKind.QUESTION), lambda _: None)
    shown = slack.answers(asked)
    assert len(shown) > 1
    pieces = [b["text"]["text"] for m in shown for b in m.blocks if b["type"] == "section"]
    assert all(len(piece) <= 3_000 for piece in pieces)
    together = "".join(pieces).replace("```", "").replace("&amp;", "&")
    assert "".join(together.split()) == "".join(text.split())
    assert [len(m.buttons) for m in shown] == [0] * (len(shown) - 1) + [2]
    # Who sees the buttons is told that there is more above them.
    notes = [b["elements"][0]["text"] for m in shown for b in m.blocks if b["type"] == "context"]
    assert notes == [f"This question is {len(shown)} messages long. Read all of them first."]
    assert "context" in [b["type"] for b in shown[-1].blocks]


# -- looking up ----------------------------------------------------------------------------------


def test_what_was_posted_is_found_again_by_its_identity(
    slack: Workspace, channel: SlackChannel, route: str
) -> None:
    message = outgoing(route, LONG)
    assert channel.look_up(message) == ()
    other = outgoing(route, "other", id=OutgoingId("t-2"))
    channel.deliver(other, lambda _: None)
    receipts = channel.deliver(message, lambda _: None)
    assert channel.look_up(message) == receipts
    assert len(channel.look_up(other)) == 1


def test_it_is_found_in_a_thread_of_many_pages(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    for number in range(450):
        slack.say("ada", "general", str(number), asked, mention=False)
    receipts = channel.deliver(outgoing(route, "late"), lambda _: None)
    assert channel.look_up(outgoing(route, "late")) == receipts
    assert len(slack.called("conversations.replies")) == 3


def test_what_another_app_has_posted_is_not_ours(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    channel.deliver(outgoing(route, "ours"), lambda _: None)
    (shown,) = slack.answers(asked)
    shown.user = slack.bot_id = "UOTHER"
    assert channel.look_up(outgoing(route, "ours")) == ()


def test_without_the_names_of_our_messages_nobody_can_say_that_one_is_absent(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    channel.deliver(outgoing(route, "ours"), lambda _: None)
    (shown,) = slack.answers(asked)
    shown.metadata = None
    with pytest.raises(UndeliverableError, match="metadata"):
        channel.look_up(outgoing(route, "ours"))


def test_a_part_that_somebody_deleted_stays_deleted(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    receipts = channel.deliver(outgoing(route, LONG), lambda _: None)
    del slack.channels[asked.channel][receipts[0]]
    found = channel.look_up(outgoing(route, LONG))
    assert found == (DELETED, *receipts[1:])
    again = outgoing(route, f"{LONG}\n\nChanged.", receipts=found)
    assert channel.deliver(again, lambda _: None) == found
    gone = outgoing(route, "Changed.", receipts=(receipts[0],))
    assert channel.deliver(gone, lambda _: None) == (receipts[0],)
    assert len(slack.called("chat.postMessage")) == len(receipts)


# -- what a failure means --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Refuse("channel_not_found"), UndeliverableError, "Invite the app"),
        (Refuse("not_in_channel"), UndeliverableError, "Invite it"),
        (Refuse("is_archived"), UndeliverableError, "Unarchive"),
        (Refuse("thread_not_found"), UndeliverableError, "deleted"),
        (Refuse("missing_scope"), UndeliverableError, "scope"),
        (Refuse("something_new"), UndeliverableError, "something_new"),
        (Refuse("<script>"), UncertainError, "unknown"),
        (Refuse("ratelimited"), TryLaterError, "pause"),
        (Refuse("service_unavailable"), UncertainError, "service_unavailable"),
        (Refuse("internal_error"), UncertainError, "internal_error"),
        (Refuse("fatal_error"), UncertainError, "fatal_error"),
        (Limited(7), TryLaterError, "pause"),
        (Page(), UncertainError, "500"),
        (Page(503), UncertainError, "503"),
        (Page(404), TryLaterError, "404"),
        (Page(200), UncertainError, "not one of Slack's"),
        (Page(200, b'{"ok": true}', "application/json"), UncertainError, "names no message"),
        (Cut(), UncertainError, "breaks the connection off"),
        (Cut(performed=True), UncertainError, "breaks the connection off"),
    ],
)
def test_each_failure_of_a_post_has_its_meaning_and_its_words(
    slack: Workspace,
    channel: SlackChannel,
    route: str,
    fault: Fault,
    kind: type[DeliveryError],
    words: str,
) -> None:
    slack.fault("chat.postMessage", fault)
    with pytest.raises(kind, match=words) as caught:
        channel.deliver(outgoing(route, "answer"), lambda _: None)
    if isinstance(fault, Limited):
        assert isinstance(caught.value, TryLaterError)
        assert (caught.value.after_s, caught.value.everything) == (7.0, True)
    if kind is UncertainError:
        there = getattr(fault, "performed", False)
        assert len(channel.look_up(outgoing(route, "answer"))) == (1 if there else 0)


@pytest.mark.parametrize("fault", [Page(), Cut(), Cut(performed=True), Refuse("internal_error")])
def test_an_edit_may_be_repeated_so_that_its_failure_is_never_a_doubt(
    slack: Workspace, channel: SlackChannel, route: str, fault: Fault
) -> None:
    receipts = channel.deliver(outgoing(route, "one"), lambda _: None)
    slack.fault("chat.update", fault)
    with pytest.raises(TryLaterError):
        channel.deliver(outgoing(route, "two", receipts=receipts), lambda _: None)


def test_an_edit_that_lands_late_does_not_have_the_last_word(
    slack: Workspace,
    channel: SlackChannel,
    route: str,
    asked: Message,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("netclawd.adapters.slack.posting.LANDING_S", 1.0)
    receipts = channel.deliver(outgoing(route, "one"), lambda _: None)
    slack.fault("chat.update", Cut(late_s=0.1))
    with pytest.raises(TryLaterError):
        channel.deliver(outgoing(route, "older", receipts=receipts), lambda _: None)
    newer = outgoing(route, "newer", receipts=receipts)
    with pytest.raises(TryLaterError, match="may still arrive"):
        channel.deliver(newer, lambda _: None)
    (shown,) = slack.answers(asked)
    wait_for(lambda: "older" in [t for _, t in shown.history], 5.0, "the older one to land")

    def delivered() -> bool:
        try:
            return channel.deliver(newer, lambda _: None) == receipts
        except TryLaterError:
            return False

    wait_for(delivered, 5.0, "it to be delivered")
    assert texts(slack, asked) == ["newer"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Refuse("channel_not_found"), UndeliverableError),
        (Refuse("thread_not_found"), UndeliverableError),
        (Refuse("missing_scope"), UndeliverableError),
        (Limited(1), TryLaterError),
        (Page(), TryLaterError),
        (Cut(), TryLaterError),
    ],
)
def test_a_look_that_fails_says_whether_another_one_helps(
    slack: Workspace, channel: SlackChannel, route: str, fault: Fault, kind: type[DeliveryError]
) -> None:
    slack.fault("conversations.replies", fault)
    with pytest.raises(kind):
        channel.look_up(outgoing(route, "answer"))


def test_a_limit_of_looks_or_edits_is_obeyed_and_holds_up_nothing_else(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    receipts = channel.deliver(outgoing(route, "answer"), lambda _: None)
    edited = outgoing(route, "another", receipts=receipts)
    tries: dict[str, Callable[[], object]] = {
        "conversations.replies": lambda: channel.look_up(edited),
        "chat.update": lambda: channel.deliver(edited, lambda _: None),
    }
    for method, once in tries.items():
        slack.fault(method, Limited(7))
        for _ in range(2):
            with pytest.raises(TryLaterError) as raised:
                once()
            assert 6 < (raised.value.after_s or 0) <= 7
            assert not raised.value.everything
        assert len(slack.called(method)) == 1
    channel.deliver(outgoing(route, "new", id=OutgoingId("t-2")), lambda _: None)
    assert texts(slack, asked) == ["answer", "new"]


def test_what_was_posted_before_a_failure_is_recorded_and_gone_on_from(
    slack: Workspace, channel: SlackChannel, asked: Message, route: str
) -> None:
    recorded: list[tuple[str, ...]] = []
    slack.fault("chat.postMessage", None, None, Limited(0))
    with pytest.raises(TryLaterError):
        channel.deliver(outgoing(route, LONG), recorded.append)
    assert [len(receipts) for receipts in recorded] == [1, 2]
    channel.deliver(outgoing(route, LONG, receipts=recorded[-1]), recorded.append)
    assert "".join("".join(texts(slack, asked)).split()) == "".join(LONG.split())


def test_a_request_that_was_never_sent_is_no_doubt(slack: Workspace, route: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    alone = make_channel(slack, base_url=f"http://127.0.0.1:{port}/api/")
    with pytest.raises(TryLaterError, match="Connection refused"):
        alone.deliver(outgoing(route, "answer"), lambda _: None)
    alone.stop(1.0)


def test_a_token_that_is_revoked_is_a_state_until_it_is_taken_again(
    slack: Workspace, route: str
) -> None:
    with started(slack, replace(QUICK, refused_s=0.3)) as (channel, host):
        slack.fault("chat.postMessage", Refuse("token_revoked"))
        slack.fault("auth.test", Refuse("token_revoked"))
        with pytest.raises(TryLaterError) as caught:
            channel.deliver(outgoing(route, "answer"), lambda _: None)
        assert caught.value.everything
        state = await_phase(channel, ChannelPhase.REFUSED)
        assert "token_revoked" in state.trouble
        await_phase(channel, ChannelPhase.CONNECTED)
        assert host.phases[-2:] == [ChannelPhase.REFUSED, ChannelPhase.CONNECTED]
        assert channel.state().trouble == ""
        assert len(slack.called("auth.test")) == 3
        assert len(slack.sockets) == 1


def test_a_route_that_is_none_of_ours_is_undeliverable(channel: SlackChannel) -> None:
    with pytest.raises(UndeliverableError):
        channel.deliver(outgoing("nonsense", "answer"), lambda _: None)


def test_a_direct_message_is_answered_in_its_thread(
    slack: Workspace, channel: SlackChannel
) -> None:
    asked = slack.say("ada", DIRECT, "hello")
    channel.deliver(outgoing(f"{slack.team}/{asked.channel}/{asked.ts}", "hi"), lambda _: None)
    assert texts(slack, asked) == ["hi"]
