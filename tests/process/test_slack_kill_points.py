"""SIGKILL at each point of a message's way from Slack into the store, and of its answer's way back.

The points are read off an undisturbed message, one whose answer is quick and one whose answer is shown
while it is made; :func:`test_the_points_are_all_that_a_message_meets` sees that the tables are whole.
Whatever point it is, and if each death is followed by another one: the thread has the answer once,
nothing was posted and taken back, and nobody has to say it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from netclawd.core.outgoing import OutgoingKind
from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Message
from tests.process.faults import CHANNEL, Fault
from tests.process.harness import PROVE, Daemon
from tests.process.slack import connected, counted, in_slack, replies
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Point = tuple[str, str, int]

QUICK, SLOW = "/count 3", "/count 12 0.25"
WHOLE = {QUICK: counted(3), SLOW: counted(12)}
#: The quick one is asked for directly, so that one event alone tells of it; of a mention there are two.
PLACES = {QUICK: DIRECT, SLOW: "general"}
#: How often each point is met, before and after.
POINTS: Mapping[str, Mapping[str, int]] = {
    QUICK: {"Receive": 1, "Acknowledge": 1, "Begin": 1, "Post": 1, "Record": 1, "Sent": 1},
    SLOW: {
        "Receive": 2,
        "Acknowledge": 2,
        "Stream": 1,
        "Post": 1,
        "Record": 1,
        "Edit": 2,
        "Begin": 1,
        "Sent": 1,
    },
}
#: Points of the way back from a death: the message may be there, so it is looked for, twice if it isn't.
RETURNS: Mapping[Point, Mapping[str, int]] = {
    ("before", "Post", 1): {"LookUp": 2, "PutOff": 1},
    ("after", "Post", 1): {"LookUp": 1, "Record": 1, "Edit": 1, "Sent": 1},
}
#: A message each, whose daemon dies at all of these, one after the other; a reduced run takes the quick one.
CHAINS: Mapping[str, tuple[Point, ...]] = {
    QUICK: (
        ("after", "Receive", 1),
        ("before", "Post", 1),
        ("after", "Post", 1),
        ("after", "Record", 1),
        ("after", "Sent", 1),
    ),
    SLOW: (("after", "Post", 1), ("after", "Edit", 1)),
}


def kills(points: Sequence[Point]) -> list[Fault]:
    return [Fault("kill", when, effect, nth) for when, effect, nth in points]


def every() -> list[tuple[str, tuple[Point, ...]]]:
    """Return every point by itself and every way back from a death, or the reduced chains."""
    if not PROVE:
        return [(QUICK, CHAINS[QUICK])]
    found: list[tuple[str, tuple[Point, ...]]] = [
        (text, ((when, effect, nth),))
        for text, counts in POINTS.items()
        for effect, count in counts.items()
        for nth in range(1, count + 1)
        for when in ("before", "after")
    ]
    found += [
        (QUICK, (death, (when, effect, nth)))
        for death, counts in RETURNS.items()
        for effect, count in counts.items()
        for nth in range(1, count + 1)
        for when in ("before", "after")
    ]
    return [*found, *CHAINS.items()]


def name_of(value: str | tuple[Point, ...]) -> str:
    if isinstance(value, str):
        return "quick" if value == QUICK else "slow"
    return "+".join("-".join(map(str, point)) for point in value)


def live_through(daemon: Daemon, slack: Workspace, said: Message, text: str, deaths: int) -> None:
    """Start the daemon again after each death, until the message is answered."""
    died: list[int] = []

    def answered() -> bool:
        code = daemon.running.poll()
        if code is not None:
            died.append(code)
            daemon.spawn()
        return len(died) == deaths and replies(slack, said) == [text] and not slack.unacknowledged

    def seen() -> str:
        met = Counter(daemon.effects(when="after"))
        return f"the answer; died {died}, met {met}, said {replies(slack, said)}\n{daemon.errors()}"

    wait_for(answered, 10.0 + 8.0 * deaths, seen)
    assert set(died) <= {-9}


def settled(daemon: Daemon, slack: Workspace) -> None:
    """Wait until nothing of the outbox is under way."""
    daemon.wait_ready()
    connected(daemon, slack)
    wait_for(
        lambda: not daemon.control("outbox"),
        20.0,
        lambda: f"all to be sent: {daemon.control('outbox')}",
    )


@pytest.mark.parametrize("text", [QUICK, pytest.param(SLOW, marks=pytest.mark.prove)], ids=name_of)
def test_the_points_are_all_that_a_message_meets(slack: Workspace, text: str) -> None:
    never = [Fault("kill", "after", effect, 99) for effect in CHANNEL]
    with in_slack(slack, faults=never) as daemon:
        daemon.start()
        connected(daemon, slack)
        said = slack.say("ada", PLACES[text], text)
        live_through(daemon, slack, said, WHOLE[text], deaths=0)
        settled(daemon, slack)
        wait_for(
            lambda: [differences(daemon, text, when) for when in ("before", "after")] == [{}, {}],
            5.0,
            lambda: f"all points: {[differences(daemon, text, w) for w in ('before', 'after')]}",
        )


def differences(daemon: Daemon, text: str, when: str) -> dict[str, tuple[int, int]]:
    """Return what was met and what should have been, of the points in which these differ."""
    met = Counter(daemon.effects(when=when))
    expected = {**dict.fromkeys(CHANNEL, 0), **POINTS[text]}
    # What the app has posted is told to it too, and acknowledged without a commit; how often a reply is
    # edited while it is made depends on the machine.
    more = {"Acknowledge", "Edit"} if text == SLOW else {"Acknowledge"}
    met = Counter({e: min(n, expected.get(e, 0)) if e in more else n for e, n in met.items()})
    return {e: (met[e], n) for e, n in expected.items() if met[e] != n}


@pytest.mark.parametrize(("text", "points"), every(), ids=name_of)
def test_a_kill_neither_loses_nor_doubles_an_answer(
    slack: Workspace, text: str, points: tuple[Point, ...]
) -> None:
    with in_slack(slack, faults=kills(points)) as daemon:
        daemon.write_config()
        daemon.spawn()
        said = slack.say("ada", PLACES[text], text)
        live_through(daemon, slack, said, WHOLE[text], len(points))
        settled(daemon, slack)
        assert replies(slack, said) == [WHOLE[text]]
        posted = [m for m in slack.posts if m.metadata is not None]
        kinds = {m["id"]: m["kind"] for m in daemon.control("outbox", all=True)}
        ids = [(m.metadata or {})["event_payload"]["id"] for m in posted]
        assert [kinds[i] for i in ids].count(OutgoingKind.REPLY) == 1
        assert len(set(ids)) == len(ids)


@pytest.mark.prove
@pytest.mark.parametrize(
    "point",
    [
        (when, effect, nth)
        for nth in (1, 2)
        for when in ("before", "after")
        for effect in ("Begin", "Post", "Record", "Sent")
    ],
    ids=lambda point: "-".join(map(str, point)),
)
def test_a_kill_neither_loses_nor_doubles_a_question(slack: Workspace, point: Point) -> None:
    """The first post is the question, the second one the answer."""
    with in_slack(slack, faults=kills([point])) as daemon:
        daemon.start()
        said = slack.say("ada", DIRECT, "/ask May I?")
        pressed = False
        died: list[int] = []

        def answered() -> bool:
            nonlocal pressed
            code = daemon.running.poll()
            if code is not None:
                died.append(code)
                daemon.spawn()
            asked = [m for m in slack.answers(said) if m.buttons]
            # A press is delivered once: people press again what has done nothing.
            if asked and (not pressed or died) and slack.open_sockets:
                pressed = slack.press("ada", asked[0], "Grant") is not None
                wait_for(lambda: pressed_through(slack, daemon, asked[0]), 15.0, "the press")
            done = any(m.text.startswith("The answer") for m in slack.answers(said))
            return done and died == [-9]

        wait_for(answered, 30.0, lambda: f"{died}, {replies(slack, said)}\n{daemon.errors()}")
        settled(daemon, slack)
        question, answer = slack.answers(said)
        assert not question.buttons
        assert answer.text.startswith("The answer is here")
        assert len([m for m in slack.posts if not m.only_for]) == 2


def pressed_through(slack: Workspace, daemon: Daemon, asked: Message) -> bool:
    """Whether a press has had its effect, or what it was pressed at has died."""
    gone = daemon.running.poll() is not None or not slack.open_sockets
    return gone or not asked.buttons
