"""Each message is shown exactly once: whatever the platform answers, and wherever the daemon dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.outgoing import NewOutgoing, OutgoingId, OutgoingKind
from netclawd.core.session import AdmitInput, InputId, OutboxState, SessionId, TurnId
from netclawd.daemon.signals import spawn
from netclawd.errors import StoreFullError
from netclawd.ports.channels import ChannelPhase
from tests.daemon.couriers import LATER, NAME, NEVER, PART, UNHEARD, Post, Scene, parts_of
from tests.waiting import scaled, wait_for

#: All points of interruption; otherwise some of them.
PROVE = os.environ.get("NETCLAW_PROVE") == "1"

LONG = "x" * PART + "y" * PART + "z"
QUESTION = "May I?"
GRANTED = "May I?\n\nGranted by paper U1."


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def play(scene: Scene) -> None:
    """A conversation with all that a message can meet: streaming, parts, a question that is answered."""
    first = scene.admit("C/1", 1)
    scene.say(first, "Let me")
    scene.settle(2.0)
    scene.say(first, "Let me see, I think")
    scene.settle(2.0)
    scene.answer(first, LONG)
    asks = scene.admit("C/2", 2)
    scene.ask(asks, "apr-1", QUESTION)
    scene.settle(3.0)
    scene.decide(asks, "apr-1")
    scene.answer(scene.admit("C/3", 3), "short")
    scene.settle(3.0)
    ended = scene.admit("C/1", 4)
    scene.answer(ended, "again")
    scene.settle()


def assert_shown_once(scene: Scene) -> None:
    platform = scene.platform
    assert platform.of("t-1") == list(enumerate(parts_of(LONG)))
    assert platform.of("t-3") == [(0, "short")]
    assert platform.of("t-4") == [(0, "again")]
    states = scene.states()
    if platform.of("apr-1") or states["apr-1"] != "dropped":
        assert platform.of("apr-1") == list(enumerate(parts_of(GRANTED)))
    else:  # It was answered elsewhere before it could be asked here.
        assert scene.deaths, "nothing kept it from being asked"
        del states["apr-1"]
    assert set(states.values()) == {"sent"}


def count_effects(folder: Path) -> list[str]:
    scene = Scene(folder)
    try:
        play(scene)
        assert_shown_once(scene)
        return scene.effects
    finally:
        scene.close()


def test_a_conversation_is_shown_as_it_was_meant(tmp_path: Path) -> None:
    effects = count_effects(tmp_path)
    assert effects.count("post") == len(parts_of(LONG)) + 2 + len(parts_of(GRANTED))
    assert "look" not in effects, "nothing was in doubt"


@pytest.mark.parametrize("lands_after_s", [None, 0.0, 3.0], ids=["cut", "landed", "lands-late"])
def test_a_death_before_any_effect_shows_nothing_twice_and_loses_nothing(
    tmp_path: Path, lands_after_s: float | None
) -> None:
    (tmp_path / "count").mkdir()
    effects = count_effects(tmp_path / "count")
    points = [n for n, what in enumerate(effects) if lands_after_s is None or what == "post"]
    for point in points if PROVE else points[:: max(1, len(points) // 7)]:
        folder = tmp_path / f"{point}"
        folder.mkdir()
        scene = Scene(folder)
        scene.die_before, scene.lands_after_s = point, lands_after_s
        try:
            play(scene)
            assert scene.deaths == 1
            assert_shown_once(scene)
        except AssertionError as error:
            before = effects[max(0, point - 3) : point + 1]
            raise AssertionError(f"dead before effect {point}, {before}: {error}") from error
        finally:
            scene.close()


def reply(scene: Scene, number: int = 1, route: str = "C/1", text: str = "hi") -> str:
    """Put a whole reply into the outbox; return its id."""
    turn = scene.admit(route, number)
    scene.answer(turn, text)
    return turn


def notice(scene: Scene, name: str = "notice:r-1", expires_s: float | None = 60.0) -> OutgoingId:
    wall = scene.clock.wall()
    message = NewOutgoing(
        OutgoingId(name),
        NAME,
        "C/1",
        OutgoingKind.NOTICE,
        "Restarting.",
        expires_at=None if expires_s is None else wall + expires_s,
    )
    scene.store.outgoing.put([message], wall)
    return message.id


# -- what a platform may answer ------------------------------------------------------------------------


def test_a_platform_that_asks_for_a_pause_gets_it(scene: Scene) -> None:
    sent = reply(scene)
    scene.platform.faults["post"] = [LATER("Slow down.", 7.0)]
    scene.settle(6.9)
    assert scene.platform.of(sent) == []
    assert scene.states()[sent] == "pending"
    scene.settle(2.0)
    assert scene.platform.of(sent) == [(0, "hi")]
    assert scene.platform.calls.count("post") == 2


def test_a_pause_for_everything_holds_the_other_conversations_too(scene: Scene) -> None:
    first, other = reply(scene, 1, "C/1"), reply(scene, 2, "C/2")
    scene.platform.faults["post"] = [LATER("Slow down.", 7.0, everything=True)]
    scene.settle(6.0)
    assert scene.platform.calls.count("post") == 1
    scene.settle(3.0)
    assert (scene.platform.of(first), scene.platform.of(other)) == ([(0, "hi")], [(0, "hi")])


def test_tries_that_fail_come_with_growing_pauses(scene: Scene) -> None:
    reply(scene)
    scene.platform.faults["post"] = [LATER("Not now.") for _ in range(40)]
    scene.settle(600.0)
    assert 12 <= scene.platform.calls.count("post") <= 18


def test_a_later_message_does_not_overtake_in_its_conversation(scene: Scene) -> None:
    reply(scene, 1, text="first")
    scene.platform.faults["post"] = [LATER("Not now.", 5.0)]
    scene.settle(1.0)
    reply(scene, 2, text="second")
    scene.settle()
    assert scene.platform.seen("C/1") == ["first", "second"]


def test_what_is_refused_for_good_is_failed_and_a_person_can_have_it_tried_again(
    scene: Scene,
) -> None:
    sent = reply(scene)
    scene.platform.faults["post"] = [NEVER("There is no such channel.")]
    scene.settle()
    (row,) = scene.store.outgoing.messages((OutboxState.FAILED,), 9)
    assert (row.id, row.error) == (sent, "There is no such channel.")
    assert scene.platform.calls.count("post") == 1
    scene.store.outgoing.retry(row.id, scene.clock.wall())
    scene.settle(2.0)
    assert scene.platform.of(sent) == [(0, "hi")]


def test_a_sentence_in_passing_that_fails_is_nobodys_work(scene: Scene) -> None:
    notice(scene)
    scene.platform.faults["post"] = [NEVER("There is no such channel.")]
    scene.settle()
    assert set(scene.states().values()) == {"dropped"}


def test_a_part_that_is_refused_for_now_is_not_posted_twice_with_the_others(scene: Scene) -> None:
    sent = reply(scene, text=LONG)
    scene.settle(0.0)
    scene.platform.faults["post"] = []
    scene.channel.before = lambda what: (
        scene.platform.faults.update(post=[LATER("Not now.", 3.0)])
        if what == "post" and len(scene.platform.posts) == 1
        else None
    )
    scene.step()
    scene.channel.before = lambda _what: None
    scene.settle()
    assert scene.platform.of(sent) == list(enumerate(parts_of(LONG)))


# -- an answer that never came ---------------------------------------------------------------------------


def test_a_post_whose_answer_was_lost_is_looked_up_and_not_repeated(scene: Scene) -> None:
    sent = reply(scene)
    scene.platform.faults["post"] = [UNHEARD("The connection ended.")]
    scene.channel.before = lambda what: (
        scene.platform.land_later(a_post(sent), 0.0) if what == "post" else None
    )
    scene.step()
    scene.channel.before = lambda _what: None
    scene.settle(2.0)
    assert scene.platform.of(sent) == [(0, "hi")]
    assert scene.states()[sent] == "sent", "it need not wait for what has landed"


def a_post(key: str) -> Post:
    return Post("C/1", key, 0, "hi")


@pytest.mark.parametrize("lands_after_s", [1.0, 4.5], ids=str)
def test_a_post_that_lands_late_is_waited_for(scene: Scene, lands_after_s: float) -> None:
    sent = reply(scene)
    scene.platform.faults["post"] = [UNHEARD("The connection ended.")]
    scene.channel.before = lambda what: (
        scene.platform.land_later(a_post(sent), lands_after_s) if what == "post" else None
    )
    scene.step()
    scene.channel.before = lambda _what: None
    scene.settle()
    assert scene.platform.of(sent) == [(0, "hi")]


def test_what_has_not_landed_is_posted_after_the_second_look(scene: Scene) -> None:
    sent = reply(scene)
    scene.platform.faults["post"] = [UNHEARD("The connection ended.")]
    scene.settle(4.9)
    assert scene.platform.of(sent) == []
    scene.settle(2.0)
    assert scene.platform.of(sent) == [(0, "hi")]
    assert scene.platform.calls == ["post", "look", "look", "post"]


def test_a_look_that_can_not_be_taken_now_is_taken_later(scene: Scene) -> None:
    sent = reply(scene)
    scene.platform.faults = {
        "post": [UNHEARD("The connection ended.")],
        "look": [LATER("Not now."), UNHEARD("The connection ended."), LATER("Not now.", 20.0)],
    }
    scene.settle(15.0)
    assert scene.platform.of(sent) == []
    scene.settle(40.0)
    assert scene.platform.of(sent) == [(0, "hi")]


def test_a_look_that_can_never_be_taken_leaves_it_to_a_person(scene: Scene) -> None:
    sent = reply(scene)
    scene.platform.faults = {
        "post": [UNHEARD("The connection ended.")],
        "look": [NEVER("The conversation can't be read.")],
    }
    scene.settle()
    assert scene.states()[sent] == "ambiguous"
    scene.boot()
    scene.settle()
    assert scene.platform.calls == ["post", "look"], "it is not sent again by itself"


def test_a_defect_of_an_adapter_leaves_one_message_to_a_person_and_the_others_go_on(
    scene: Scene,
) -> None:
    broken, fine = reply(scene, 1, "C/1"), reply(scene, 2, "C/2")
    scene.platform.faults["post"] = [ZeroDivisionError()]
    scene.settle()
    assert scene.states() == {broken: "ambiguous", fine: "sent"}


# -- who may hear it, and where ------------------------------------------------------------------------


def test_a_reply_to_who_may_not_talk_here_any_more_is_dropped_with_the_reason(scene: Scene) -> None:
    sent = reply(scene)
    scene.channel.banned["U1"] = "U1 is not on the list."
    scene.settle(2.0)
    (row,) = scene.store.outgoing.messages((OutboxState.DROPPED,), 9)
    assert (row.id, row.error) == (sent, "U1 is not on the list.")
    assert scene.platform.calls == []


def test_nothing_is_shown_of_a_reply_in_the_making_to_who_may_not_talk_here_any_more(
    scene: Scene,
) -> None:
    turn = scene.admit("C/1", 1)
    scene.channel.banned["U1"] = "U1 is not on the list."
    scene.say(turn, "a secret")
    scene.settle(3.0)
    scene.answer(turn, "a secret")
    scene.settle(3.0)
    assert scene.platform.calls == []
    assert scene.states()[turn] == "dropped"


def test_what_this_configuration_does_not_reach_waits_for_one_that_does(scene: Scene) -> None:
    sent = reply(scene)
    scene.channel.far["C/1"] = "It is in another workspace."
    scene.settle(30.0)
    (row,) = scene.store.outgoing.messages((OutboxState.PENDING,), 9)
    assert (row.id, row.error) == (sent, "It is in another workspace.")
    scene.boot()
    scene.settle(2.0)
    assert scene.platform.of(sent) == [(0, "hi")], "the next image need not wait for the old pause"


def test_a_sentence_about_a_restart_that_is_over_is_not_said(scene: Scene) -> None:
    notice(scene)
    scene.clock.now += 1.0
    scene.boot()
    scene.settle(2.0)
    assert scene.platform.calls == []
    assert set(scene.states().values()) == {"dropped"}


def test_what_was_refused_during_a_restart_is_said_even_after_it(scene: Scene) -> None:
    said = notice(scene, expires_s=None)
    scene.clock.now += 1.0
    scene.boot()
    scene.settle(2.0)
    assert scene.platform.of(said) == [(part, t) for part, t in enumerate(parts_of("Restarting."))]


# -- a reply in the making -----------------------------------------------------------------------------


def test_a_reply_in_the_making_is_changed_at_most_once_a_second(scene: Scene) -> None:
    turn = scene.admit("C/1", 1)
    session = scene.store.turn(turn).session_id
    scene.broadcast.begin(session, turn, 1, 1)
    for _ in range(100):
        scene.broadcast.say(session, ".")
        scene.step()
        scene.clock.now += 0.1
    scene.answer(turn, "whole")
    scene.settle(3.0)
    (post,) = scene.platform.posts
    assert post.shown == "whole"
    assert 8 <= len(post.edits) <= 11


def test_a_quick_reply_is_posted_once_and_whole(scene: Scene) -> None:
    turn = scene.admit("C/1", 1)
    scene.say(turn, "who")
    scene.step()
    scene.clock.now += 0.5
    scene.step()
    scene.answer(turn, "whole")
    scene.settle(3.0)
    assert scene.platform.calls == ["post"]


def test_a_resumed_reply_goes_on_in_its_own_message(scene: Scene) -> None:
    turn = scene.admit("C/1", 1)
    scene.say(turn, "I sup")
    scene.settle(2.0)
    scene.boot()
    scene.say(turn, "Well")
    scene.settle(2.0)
    assert scene.platform.seen("C/1") == ["Well"]
    scene.answer(turn, "Well, yes")
    scene.settle(2.0)
    assert scene.platform.seen("C/1") == ["Well, yes"]


def test_the_first_part_of_a_reply_is_found_where_its_answer_was_lost(scene: Scene) -> None:
    turn = scene.admit("C/1", 1)
    scene.platform.faults["post"] = [UNHEARD("The connection ended.")]
    scene.channel.before = lambda what: (
        scene.platform.land_later(Post("C/1", turn, 0, "who"), 1.0) if what == "post" else None
    )
    scene.say(turn, "who")
    scene.clock.now += 1.5
    scene.step()
    scene.clock.now += 1.5
    scene.step()
    scene.channel.before = lambda _what: None
    scene.settle(10.0)
    scene.say(turn, "who is")
    scene.settle(2.0)
    (post,) = scene.platform.posts
    assert set(post.edits) <= {"who", "who is"}, "it never shows nothing"
    assert post.shown == "who is"
    scene.answer(turn, "whole")
    scene.settle()
    assert scene.platform.seen("C/1") == ["whole"]


def test_the_text_of_a_turn_that_goes_through_no_channel_costs_no_look(scene: Scene) -> None:
    session = scene.store.create_session(SessionId("s-api"), 1.0).id
    scene.store.admit(
        AdmitInput(session, InputId("i-9"), TurnId("t-9"), "hello", None, deferred=False), 1.0
    )
    scene.broadcast.begin(session, TurnId("t-9"), 1, 1)
    scene.broadcast.say(session, "to the terminal")
    scene.settle(2.0)
    assert scene.platform.calls == []
    assert scene.live.next_at() is None


def test_a_text_that_the_platform_refuses_while_it_is_made_is_sent_whole(scene: Scene) -> None:
    turn = scene.admit("C/1", 1)
    scene.platform.faults["post"] = [NEVER("Not like that.")]
    scene.say(turn, "who")
    scene.settle(5.0)
    scene.answer(turn, "whole")
    scene.settle(2.0)
    assert scene.platform.seen("C/1") == ["whole"]
    assert scene.platform.calls == ["post", "post"]


def test_a_first_part_that_is_put_off_is_not_looked_up(scene: Scene) -> None:
    turn = scene.admit("C/1", 1)
    scene.platform.faults["post"] = [LATER("Slow down.", 2.0)]
    scene.say(turn, "who")
    scene.settle(2.0)
    scene.answer(turn, "whole")
    scene.settle(3.0)
    assert scene.platform.seen("C/1") == ["whole"]
    assert "look" not in scene.platform.calls


# -- a store that can't write --------------------------------------------------------------------------


class Full:
    """Refuses writes of these names so many times."""

    def __init__(self, scene: Scene, *names: str, times: int) -> None:
        self.left = times
        self.names = names
        scene.refuse = self.refuse

    def refuse(self, what: str) -> None:
        if what in self.names and self.left:
            self.left -= 1
            raise StoreFullError("The disk is full.", "Free some space.")


@pytest.mark.parametrize("write", ["record", "sent", "begin", "put_off"])
def test_a_full_disk_in_the_middle_shows_nothing_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    monkeypatch.setattr("netclawd.daemon.courier._STORE_FIRST_S", 0.01)
    sent = reply(scene, text=LONG)
    scene.platform.faults["post"] = [LATER("Not now.", 1.0)]
    full = Full(scene, write, times=2)
    for _ in range(4):
        try:
            scene.settle(5.0)
        except StoreFullError:
            continue
    assert not full.left
    assert scene.platform.of(sent) == list(enumerate(parts_of(LONG)))
    assert scene.states()[sent] == "sent"


def test_a_receipt_that_was_not_written_before_the_connection_ended_is_not_taken_for_the_next(
    scene: Scene,
) -> None:
    sent = reply(scene, text=LONG)
    second = parts_of(LONG)[1]
    Full(scene, "record", times=1)

    def cut_second(what: str) -> None:
        if what == "post" and len(scene.platform.posts) == 1:
            scene.platform.land_later(Post("C/1", sent, 1, second), 2.0)
            scene.platform.faults["post"] = [UNHEARD("The connection ended.")]

    scene.channel.before = cut_second
    scene.step()
    scene.channel.before = lambda _what: None
    scene.settle()
    assert scene.platform.of(sent) == list(enumerate(parts_of(LONG)))


# -- its thread ----------------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_channel_is_connected(scene: Scene) -> None:
    sent = reply(scene)
    scene.channel.phase = ChannelPhase.CONNECTING
    assert scene.step() > 60.0
    assert scene.platform.calls == []
    scene.channel.phase = ChannelPhase.CONNECTED
    scene.settle(1.0)
    assert scene.platform.of(sent) == [(0, "hi")]


def test_the_thread_is_woken_by_a_commit_says_when_it_is_idle_and_ends(scene: Scene) -> None:
    scene.live._look = scene.courier.look
    scene.store.on_commit(scene.broadcast.on_commit)
    thread = spawn("out", scene.courier.run)
    try:
        sent = reply(scene)
        wait_for(lambda: scene.platform.of(sent), 10.0, "the reply")
        scene.courier.await_idle(scaled(10.0))
        wait_for(lambda: scene.states()[sent] == "sent", 10.0, "it to be sent")
    finally:
        scene.courier.rest()
        thread.join(scaled(10.0))
    assert not thread.is_alive()


def test_a_defect_while_a_reply_is_made_costs_a_look_and_not_the_reply(scene: Scene) -> None:
    turn = scene.admit("C/1", 1)
    scene.platform.faults["post"] = [ZeroDivisionError()]
    scene.say(turn, "who")
    scene.settle(2.0)
    scene.answer(turn, "whole")
    scene.settle()
    assert scene.platform.seen("C/1") == ["whole"]
    assert "look" in scene.platform.calls
