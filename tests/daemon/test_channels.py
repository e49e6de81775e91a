"""What a channel brings in: the gate, its sentences, refusals and buttons; and the channels' own life."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from netclawd.core import conversations
from netclawd.core.outgoing import ChannelCounts
from netclawd.core.session import (
    Approval,
    ApprovalId,
    EventType,
    OutboxState,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.core.settings import NewWork
from netclawd.daemon.channels import Channels, Ground
from netclawd.daemon.gate import Gate
from netclawd.errors import ConflictError, StoreClosedError
from netclawd.ports.channels import Channel, ChannelHost, ChannelPhase, Incoming, Press
from tests.daemon.couriers import NAME, PaperChannel, Scene

RESTART = "r-7"


class Daemon:
    """The parts of a daemon that channels stand on; threads are the test's to run."""

    def __init__(self, scene: Scene, new_work: NewWork = NewWork.DEFER, came_of: str = "") -> None:
        self.scene = scene
        self.gate = Gate(new_work)
        self.gate.open()
        self.threads: dict[str, Callable[[], None]] = {}
        self.submitted: list[TurnId] = []
        self.decided: list[tuple[str, bool, str]] = []
        self.conflict = False
        self.restart_id = ""
        self.ids = iter(range(1, 10_000))
        self.channel = PaperChannel(scene.platform)
        self.channels = self.make([self.channel], came_of)
        self.run("channels")

    def make(self, made: Sequence[Channel], came_of: str = "") -> Channels:
        ground = Ground(
            store=self.scene.store,
            gate=self.gate,
            broadcast=self.scene.broadcast,
            clock=self.scene.clock,
            ids=self,
            spawn=self.spawn,
            generation=self.scene.generation,
            came_of=came_of,
            restart_id=lambda: self.restart_id,
            submit=lambda turn, _session: self.submitted.append(turn),
            decide=self.decide,
        )
        channels = Channels(ground, lambda: made, ["paper"])
        channels._over = cast(Any, SimpleNamespace(wait=lambda _s: False, set=lambda: None))
        channels.start()
        return channels

    def new(self, prefix: str) -> str:
        return f"{prefix}-{next(self.ids)}"

    def spawn(self, name: str, target: Callable[[], None]) -> threading.Thread:
        self.threads[name] = target
        return cast("threading.Thread", SimpleNamespace(join=lambda _s: None))

    def run(self, name: str) -> None:
        self.threads.pop(name)()

    def decide(self, approval_id: ApprovalId, granted: bool, by: str) -> Approval:
        if self.conflict:
            raise ConflictError("The turn is being worked on.", "Try again.")
        self.decided.append((approval_id, granted, by))
        self.scene.decide(TurnId("t-1"), approval_id)
        return self.scene.store.approval(approval_id)

    @property
    def host(self) -> ChannelHost:
        assert self.channel.host is not None
        return self.channel.host

    def drain(self, *, stopping: bool = False, restart_id: str = RESTART) -> None:
        self.restart_id = restart_id
        self.gate.close(self.scene.clock.monotonic() + 30.0, stopping=stopping)
        self.channels.close_gate()

    def hear(self, event: int, route: str = "C/1", message: int | None = None) -> Any:
        number = event if message is None else message
        return self.host.receive(Incoming(f"e-{event}", route, f"m-{number}", "U1", "hello"))

    def said(self) -> list[tuple[str, str]]:
        """Return the sentences in the outbox, with their conversations."""
        found = self.scene.store.outgoing.messages((), 100)
        return [(m.route, m.text) for m in found if m.kind in ("notice", "refusal")]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


@pytest.fixture
def daemon(scene: Scene) -> Daemon:
    return Daemon(scene)


# -- the gate -------------------------------------------------------------------------------------------


def test_a_message_is_admitted_with_who_says_it_and_the_engine_is_told(daemon: Daemon) -> None:
    reception = daemon.hear(1)
    turn = daemon.scene.store.turn(reception.admitted.turn_id)
    assert (turn.channel, dict(turn.origin), turn.deferred) == (NAME, {"user": "U1"}, False)
    assert daemon.submitted == [turn.id]
    assert daemon.said() == []
    assert daemon.host.knows("C/1")
    assert not daemon.host.knows("C/2")


def test_what_is_delivered_again_is_answered_once(daemon: Daemon) -> None:
    daemon.hear(1)
    assert daemon.hear(1).repeat
    assert not daemon.hear(2, message=1).admitted.fresh, "two events may tell of one message"
    assert len(daemon.submitted) == 1


def test_in_a_drain_a_message_is_deferred_with_one_sentence_for_its_conversation(
    daemon: Daemon,
) -> None:
    daemon.hear(1, "C/1")
    daemon.drain()
    receptions = [daemon.hear(2, "C/1"), daemon.hear(3, "C/1"), daemon.hear(4, "C/2")]
    assert all(reception.admitted.deferred for reception in receptions)
    assert daemon.said() == [("C/1", conversations.DEFERRED), ("C/2", conversations.DEFERRED)]
    assert daemon.channel.gate == [True, False]


def test_the_other_event_of_a_message_that_was_admitted_says_nothing_of_the_restart(
    daemon: Daemon,
) -> None:
    daemon.hear(1)
    daemon.drain()
    daemon.hear(2, message=1)
    assert daemon.said() == []


def test_with_reject_a_message_is_turned_away_with_one_sentence(scene: Scene) -> None:
    daemon = Daemon(scene, NewWork.REJECT)
    daemon.drain()
    for event in (1, 2):
        assert daemon.hear(event).admitted is None
    assert daemon.said() == [("C/1", conversations.REJECTED)]
    assert daemon.submitted == []
    (message,) = scene.store.outgoing.messages((OutboxState.PENDING,), 9)
    assert message.expires_at is None, "who isn't told has lost the message"


def test_with_reject_what_was_admitted_is_not_turned_away_under_another_event(
    scene: Scene,
) -> None:
    daemon = Daemon(scene, NewWork.REJECT)
    daemon.hear(1)
    daemon.drain()
    daemon.hear(2, message=1)
    assert daemon.said() == []


@pytest.mark.parametrize(
    ("new_work", "sentence"),
    [
        (NewWork.DEFER, conversations.DEFERRED_AT_STOP),
        (NewWork.REJECT, conversations.REJECTED_AT_STOP),
    ],
)
def test_at_a_stop_it_says_that_it_may_take_longer(
    scene: Scene, new_work: NewWork, sentence: str
) -> None:
    daemon = Daemon(scene, new_work)
    daemon.drain(stopping=True)
    daemon.hear(1)
    assert daemon.said() == [("C/1", sentence)]


@pytest.mark.parametrize("new_work", NewWork)
def test_while_it_warms_up_a_message_is_deferred_silently(scene: Scene, new_work: NewWork) -> None:
    daemon = Daemon(scene, new_work)
    daemon.gate = Gate(new_work)
    daemon.channels = daemon.make([daemon.channel])
    daemon.run("channels")
    assert daemon.hear(1).admitted.deferred
    assert daemon.said() == []


def test_the_next_restart_has_a_sentence_of_its_own(daemon: Daemon) -> None:
    daemon.drain()
    daemon.hear(1)
    daemon.drain(restart_id="r-8")
    daemon.hear(2)
    assert len(daemon.said()) == 2


def test_while_the_store_is_closed_nothing_is_taken(daemon: Daemon) -> None:
    daemon.scene.store.close()
    with pytest.raises(StoreClosedError):
        daemon.hear(1)
    assert daemon.submitted == []


# -- who may not talk here -------------------------------------------------------------------------------


def refuse(daemon: Daemon, event: int, user: str = "U9", place: str = "C", route: str = "") -> None:
    incoming = Incoming(f"e-{event}", route or f"C/{event}", f"m-{event}", user, "let me in", place)
    daemon.host.refuse(incoming, "Ask for access.")


def test_who_may_not_talk_somewhere_is_told_so_once_in_a_day(daemon: Daemon) -> None:
    refuse(daemon, 1)
    refuse(daemon, 2)
    refuse(daemon, 3, user="U8")
    refuse(daemon, 4, place="D")
    refuse(daemon, 4, place="D")
    assert [route for route, _ in daemon.said()] == ["C/1", "C/3", "C/4"]
    daemon.scene.clock.now += 86_401.0
    refuse(daemon, 5)
    assert [route for route, _ in daemon.said()] == ["C/1", "C/3", "C/4", "C/5"]
    assert not daemon.host.knows("C/1"), "there is no session for it"


def test_a_place_that_is_not_named_is_the_conversation(daemon: Daemon) -> None:
    for event, route in ((1, "C/1"), (2, "C/1"), (3, "C/2")):
        refuse(daemon, event, place="", route=route)
    assert [route for route, _ in daemon.said()] == ["C/1", "C/2"]


# -- buttons ---------------------------------------------------------------------------------------------


def press(daemon: Daemon, granted: bool = True, route: str = "C/1", asked: str = "apr-1") -> str:
    return daemon.host.press(Press(route, "U1", ApprovalId(asked), granted))


def test_a_button_decides_in_the_name_of_who_pressed_it(daemon: Daemon) -> None:
    daemon.scene.ask(daemon.scene.admit("C/1", 1), "apr-1", "May I?")
    assert press(daemon) == "Granted."
    assert daemon.decided == [("apr-1", True, "paper U1")]


def test_a_button_of_another_conversation_decides_nothing(daemon: Daemon) -> None:
    daemon.scene.ask(daemon.scene.admit("C/1", 1), "apr-1", "May I?")
    assert press(daemon, route="C/2") == "That question was not asked here."
    assert press(daemon, asked="apr-9") == "There is no such question."
    assert daemon.decided == []


def test_who_comes_too_late_is_told_what_was_decided(daemon: Daemon) -> None:
    turn = daemon.scene.admit("C/1", 1)
    daemon.scene.ask(turn, "apr-1", "May I?")
    daemon.conflict = True
    assert press(daemon) == "That did not work just now. Press it again."
    daemon.scene.decide(turn, "apr-1")
    assert press(daemon, granted=False) == "That was granted already."


# -- after the restart -------------------------------------------------------------------------------------


def resume(scene: Scene, turn: TurnId) -> None:
    """Interrupt a turn and begin the next image, which resumes it."""
    scene.commit(
        turn, EventType.TURN_INTERRUPTED, {"cause": "restart"}, state=TurnState.INTERRUPTED
    )
    scene.boot()
    data = {"generation": scene.generation, "resumes": 1, "cause": "restart"}
    scene.commit(turn, EventType.TURN_RESUMED, data, state=TurnState.RUNNING)


def test_a_resumed_turn_whose_reply_is_late_is_announced_once(scene: Scene) -> None:
    late = scene.admit("C/1", 1)
    scene.admit("C/2", 2)  # It runs, but nothing has cut it.
    resume(scene, late)
    scene.admit("C/3", 3)
    for _ in range(2):
        Daemon(scene, came_of=RESTART)
    found = [m for m in scene.store.outgoing.messages((), 9) if m.kind == "notice"]
    assert {(m.route, m.text) for m in found} == {("C/1", conversations.LATE)}
    assert {m.turn_id for m in found} == {late}


def test_a_resumed_turn_that_has_answered_by_then_is_not_announced(scene: Scene) -> None:
    turn = scene.admit("C/1", 1)
    resume(scene, turn)
    scene.answer(turn, "done")
    assert Daemon(scene, came_of=RESTART).said() == []


def test_a_conversation_that_was_told_of_the_restart_is_not_told_again(scene: Scene) -> None:
    turn = scene.admit("C/1", 1)
    before = Daemon(scene)
    before.drain()
    before.hear(2, "C/1")
    scene.settle(1.0)
    resume(scene, turn)
    assert Daemon(scene, came_of=RESTART).said() == [("C/1", conversations.DEFERRED)]


def test_one_that_could_not_be_told_before_the_restart_was_over_is_told_that_it_is_late(
    scene: Scene,
) -> None:
    turn = scene.admit("C/1", 1)
    before = Daemon(scene)
    before.drain()
    before.hear(2, "C/1")
    scene.clock.now += 2.0
    resume(scene, turn)
    scene.settle(1.0)  # What is said of a restart is dropped once that is over.
    Daemon(scene, came_of=RESTART)
    scene.settle(1.0)
    assert scene.platform.seen("C/1") == [
        "I was restar",
        "ted and am s",
        "till working",
        " on this.",
    ]


# -- their own life ----------------------------------------------------------------------------------------


def test_what_is_paused_before_it_was_made_is_never_started(scene: Scene) -> None:
    daemon = Daemon(scene)
    channel = PaperChannel(scene.platform)
    channels = daemon.make([channel])
    channels.pause()
    daemon.run("channels")
    assert channel.host is None
    channels.stop(0.1)
    assert channel.rested == []


def test_what_is_made_in_a_drain_hears_that_the_gate_is_closed(scene: Scene) -> None:
    daemon = Daemon(scene)
    channel = PaperChannel(scene.platform)
    daemon.channels = daemon.make([channel])
    daemon.drain()
    assert channel.gate == []
    daemon.run("channels")
    assert channel.gate == [False]


def test_a_stop_hangs_up_and_may_be_asked_for_twice(daemon: Daemon) -> None:
    daemon.channels.pause()
    daemon.channels.stop(0.1)
    daemon.channels.stop(0.1)
    assert daemon.channel.rested[:2] == ["pause", "pause"]
    assert daemon.channel.rested[-1] == "stop"


def test_channels_that_can_not_be_made_degrade_the_daemon_and_no_more(scene: Scene) -> None:
    daemon = Daemon(scene)

    def fail() -> Sequence[Channel]:
        raise ImportError("no such module")

    channels = daemon.make([])
    channels._make = fail
    daemon.run("channels")
    (trouble,) = channels.troubles()
    assert trouble.startswith("The channels can't be started")
    (shown,) = channels.told({})
    assert (shown["state"], shown["trouble"]) == ("down", trouble)


def test_the_status_has_a_channel_before_it_is_made(scene: Scene) -> None:
    (shown,) = Daemon(scene).make([]).told({"paper": ChannelCounts(1, {})})
    assert (shown["name"], shown["state"], shown["trouble"]) == ("paper", "connecting", "")


def test_a_channel_that_takes_long_to_connect_degrades_the_daemon_after_a_while(
    daemon: Daemon,
) -> None:
    daemon.channel.phase = ChannelPhase.CONNECTING
    assert daemon.channels.troubles() == ()
    daemon.scene.clock.now += 11.0
    assert daemon.channels.troubles() == ("The channel paper has not connected for 11 s.",)


@pytest.mark.parametrize("phase", [ChannelPhase.DOWN, ChannelPhase.REFUSED])
def test_a_channel_that_is_down_degrades_the_daemon_at_once(
    daemon: Daemon, phase: ChannelPhase
) -> None:
    daemon.channel.phase, daemon.channel.trouble = phase, "The token is refused. Renew it."
    (trouble,) = daemon.channels.troubles()
    assert trouble == f"The channel paper is {phase.value}: The token is refused. Renew it."


def test_the_status_has_each_channel_and_those_that_messages_wait_for_in_vain(
    daemon: Daemon,
) -> None:
    daemon.scene.answer(daemon.scene.admit("C/1", 1), "hi")
    daemon.drain()
    daemon.hear(2, "C/2")
    tally = {
        **daemon.scene.store.outgoing.tally(),
        "gone": ChannelCounts(0, {OutboxState.PENDING: 3}),
    }
    gone, here = daemon.channels.told(tally)
    assert (gone["name"], gone["state"], gone["pending"]) == ("gone", "absent", 3)
    assert gone["trouble"] == "It is not configured: 3 messages wait for it."
    assert (here["state"], here["deferred"], here["pending"]) == ("connected", 1, 2)


def test_an_open_session_of_an_unknown_alias_is_nobodys(daemon: Daemon) -> None:
    daemon.scene.store.open_session("C/1", SessionId("s-api"), 1.0)
    assert not daemon.host.knows("C/1"), "a client's name is not a channel's"
