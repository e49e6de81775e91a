"""What the courier does with a message next: before it goes out, after a try, and when nobody knows.

Pure. The one rule behind it: a message is posted only while it is certain that it isn't there. Whatever
may have been posted without our hearing of it (a death, a connection that ended before the answer) is
asked about first, twice with :data:`LANDING_S` between the two, because a request that was under way
may land late.
"""

from __future__ import annotations

from enum import Enum, auto

from netclawd.core.outgoing import Outgoing, OutgoingKind
from netclawd.core.session import OutboxState
from netclawd.core.values import frozen

#: So long after the first look a request that nobody has an answer to may still land, seconds.
LANDING_S = 5.0
#: Between tries of a message, doubled from the first to the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
#: What a platform may ask for at most.
MOST_PAUSE_S = 3600.0
#: A conversation that this configuration doesn't reach is looked at so often.
HOLD_S = 600.0
#: A reply in the making is changed at most so often.
EDIT_S = 1.0


class Judgement(Enum):
    SEND = auto()
    #: Not with this configuration; it waits for another one.
    HOLD = auto()
    #: Not any more.
    DROP = auto()


@frozen
class Judged:
    what: Judgement
    #: For people; empty with SEND.
    reason: str = ""


def judge(
    message: Outgoing, now: float, opened_at: float, unreachable: str, refusal: str
) -> Judged:
    """Judge a message that is about to go out.

    ``now`` is wall clock; ``opened_at`` that at which this image began to take turns: what tells of a
    restart before that is over. ``unreachable`` and ``refusal`` are the channel's words, empty for none.
    """
    if message.receipts and message.kind not in (OutgoingKind.REPLY, OutgoingKind.SAID):
        return Judged(Judgement.SEND)  # It is there: what it says is only brought up to date.
    if message.expires_at is not None:
        if message.kind is OutgoingKind.NOTICE and message.at < opened_at:
            return Judged(Judgement.DROP, "The restart that it tells of is over.")
        if message.expires_at <= now:
            return Judged(Judgement.DROP, "It was out of date before it could be sent.")
    if unreachable:
        return Judged(Judgement.HOLD, unreachable)
    if refusal and message.kind is not OutgoingKind.REFUSAL:
        # The channel's words are what that person is told.
        why = f"Who it is for may not talk there any more ({refusal.rstrip('.')})."
        return Judged(Judgement.DROP, why)
    return Judged(Judgement.SEND)


def given_up(message: Outgoing, state: OutboxState) -> OutboxState:
    """Return where a message stands that failed, or of which nobody knows: a sentence in passing is
    nothing that a person has to look after."""
    return state if message.expires_at is None else OutboxState.DROPPED


def pause_s(attempts: int, asked_s: float | None = None) -> float:
    """Return how long to wait after ``attempts`` failed tries; what the platform asks for is obeyed."""
    if asked_s is not None:
        return min(max(FIRST_PAUSE_S, asked_s), MOST_PAUSE_S)
    return min(FIRST_PAUSE_S * 2.0 ** min(max(0, attempts), 10), LONGEST_PAUSE_S)


# -- a message of which nobody knows whether it is there ------------------------------------------


@frozen
class Doubt:
    """What is known of it; the instants are monotonic."""

    #: The next look, not before.
    look_at: float
    #: Looks that told nothing, in a row.
    failed: int = 0
    #: The first look that found no more than we knew; None before.
    absent_since: float | None = None


class Finding(Enum):
    #: More is there than we knew: what was under way has landed, and nothing else is.
    LANDED = auto()
    #: What was under way isn't there, and will not come any more.
    ABSENT = auto()
    #: It may land yet.
    OPEN = auto()


def take_look(doubt: Doubt, known: int, found: int, now: float) -> tuple[Finding, Doubt]:
    """Judge a look that found so many parts of a message of which so many are known.

    At most one part is under way at a time.
    """
    if found > known:
        return Finding.LANDED, doubt
    since = doubt.absent_since
    if since is not None and now >= since + LANDING_S:
        return Finding.ABSENT, doubt
    first = now if since is None else since
    return Finding.OPEN, Doubt(first + LANDING_S, 0, first)


def put_look_off(doubt: Doubt, now: float, asked_s: float | None = None) -> Doubt:
    """Return the doubt after a look that could not be taken."""
    later = now + pause_s(doubt.failed, asked_s)
    return Doubt(later, doubt.failed + 1, doubt.absent_since)
