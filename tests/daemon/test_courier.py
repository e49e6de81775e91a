"""Each message is shown exactly once: whatever the platform answers, and wherever the daemon dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.outgoing import NewOutgoing, OutgoingId, OutgoingKind
from netclawd.core.session import OutboxState
from netclawd.ports.channels import ChannelPhase
from tests.daemon.couriers import LATER, LONG, NAME, NEVER, UNHEARD, Post, Scene, parts_of, reply

#: All points of interruption; otherwise some of them.
PROVE = os.environ.get("NETCLAW_PROVE") == "1"

QUESTION = "May I?"
GRANTED = "May I?\n\nGranted by paper U1."
SAID = "I need this:"


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
    scene.say(asks, "I need")
    scene.settle(2.0)
    scene.ask(asks, "apr-1", QUESTION, SAID)
    scene.settle(3.0)
    scene.decide(asks, "apr-1")
    scene.say(asks, "So I")
    scene.settle(2.0)
    scene.answer(asks, "So I may.")
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
    keys = list(dict.fromkeys(post.key for post in platform.posts if post.route == "C/2"))
    if "t-2:2" in states:
        assert platform.of("t-2") == [(0, SAID)]
        order = ["t-2", "apr-1", "t-2:2"]
    else:
        assert scene.deaths, "its beginning was shown"
        order = ["apr-1", "t-2"]
    assert keys == [key for key in order if key in keys], "one below the other"
    assert platform.of(order[-1]) == [(0, "So I may.")]
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
    assert effects.count("post") == len(parts_of(LONG)) + 4 + len(parts_of(GRANTED))
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


@pytest.mark.parametrize("call", ["post", "look"])
def test_what_a_platform_that_refuses_us_holds_up_goes_out_once_it_takes_us(
    scene: Scene, call: str
) -> None:
    reply(scene)
    if call == "look":
        scene.platform.faults["post"] = [UNHEARD("The connection ended.")]
    scene.platform.faults[call] = [LATER("It refuses the token.", 300.0, everything=True)]

    def refuse(what: str) -> None:
        if what == call and scene.platform.faults[call]:
            scene.channel.phase = ChannelPhase.REFUSED

    scene.channel.before = refuse
    scene.settle(20.0)
    assert scene.platform.posts == []
    scene.channel.phase = ChannelPhase.CONNECTED
    scene.settle(8.0)
    assert scene.platform.seen("C/1") == ["hi"]


def test_a_pause_for_everything_holds_the_other_conversations_too(scene: Scene) -> None:
    first, other = reply(scene, 1, "C/1"), reply(scene, 2, "C/2")
    scene.platform.faults["post"] = [LATER("Slow down.", 7.0, everything=True)]
    scene.settle(6.0)
    assert scene.platform.calls.count("post") == 1
    scene.settle(3.0)
    assert (scene.platform.of(first), scene.platform.of(other)) == ([(0, "hi")], [(0, "hi")])


def test_a_conversation_that_the_platform_puts_off_lets_the_others_go_first(scene: Scene) -> None:
    first, other = reply(scene, 1, "C/1"), reply(scene, 2, "C/2")
    scene.platform.faults["post"] = [LATER("Slow down.", 7.0, everything=True)]
    scene.settle(9.0)
    assert [post.key for post in scene.platform.posts] == [other, first]


def test_tries_that_fail_come_with_growing_pauses(scene: Scene) -> None:
    reply(scene)
    scene.platform.faults["post"] = [LATER("Not now.") for _ in range(40)]
    scene.settle(600.0)
    assert 12 <= scene.platform.calls.count("post") <= 18


def test_a_clock_that_is_put_back_makes_no_message_wait_for_it(scene: Scene) -> None:
    sent = reply(scene)
    scene.platform.faults["post"] = [LATER("Not now.", 5.0)]
    scene.step()
    scene.clock.forward_s = -3600.0
    other = reply(scene, 2, "C/2")
    scene.settle(60.0)
    assert (scene.platform.of(sent), scene.platform.of(other)) == ([(0, "hi")], [(0, "hi")])


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
    why = "Who it is for may not talk there any more (U1 is not on the list)."
    assert (row.id, row.error) == (sent, why)
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


def test_a_defect_in_a_look_leaves_that_message_to_a_person(scene: Scene) -> None:
    broken, fine = reply(scene, 1, "C/1"), reply(scene, 2, "C/2")
    scene.platform.faults = {
        "post": [UNHEARD("The connection ended.")],
        "look": [ZeroDivisionError()],
    }
    scene.settle()
    assert scene.states() == {broken: "ambiguous", fine: "sent"}
