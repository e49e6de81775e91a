"""A reply while it is made, a store that can't write, and the courier's thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.session import AdmitInput, InputId, SessionId, TurnId
from netclawd.daemon.signals import spawn
from netclawd.errors import StoreFullError
from netclawd.ports.channels import ChannelPhase
from tests.daemon.couriers import LATER, LONG, NEVER, UNHEARD, Post, Scene, parts_of, reply
from tests.waiting import scaled, wait_for


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


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


def test_where_each_call_takes_long_what_is_whole_goes_first_and_the_others_take_turns(
    scene: Scene,
) -> None:
    turns = [scene.admit(f"C/{number}", number) for number in range(1, 4)]
    for turn in turns:
        scene.say(turn, "who")
    scene.clock.now += 1.5

    def take_long(_what: str) -> None:
        scene.clock.now += 1.0

    scene.channel.before = take_long
    scene.step()
    whole = reply(scene, 9, "C/9")
    for _ in range(3):
        for turn in turns:
            scene.broadcast.say(scene.store.turn(turn).session_id, ".")
        scene.step()
    assert [post.key for post in scene.platform.posts] == [turns[0], whole, *turns[1:]]


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


def test_what_others_say_while_the_channel_is_down_is_not_kept(scene: Scene) -> None:
    scene.channel.phase = ChannelPhase.DOWN
    for number in range(5):
        session = SessionId(f"s-{number}")
        scene.broadcast.begin(session, TurnId(f"t-{number}"), 1, 1)
        scene.broadcast.say(session, "to the terminal")
        scene.broadcast.end(session)
    scene.step()
    assert scene.live.next_at() is None
