"""What goes out through a channel: one identity for each message, and where each of them stands.

Pure. Replies, questions, notices and refusals are rows of one kind. The identity travels with what is
posted, so that after a crash the platform can be asked whether it has arrived. What is to be shown may
change (a reply that is being made, a question that was answered): a change counts up ``version``, and
only who has delivered that very version may call it sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NewType

from netclawd.core.session import (
    AdmitInput,
    Admitted,
    ApprovalState,
    OutboxState,
    SessionId,
    TurnId,
)
from netclawd.core.values import field, frozen

OutgoingId = NewType("OutgoingId", str)


class OutgoingKind(StrEnum):
    #: What a turn came to; its identity is :func:`reply_id`.
    REPLY = "reply"
    #: What a turn had shown of its reply when it asked a question or was parked. That stays where it is:
    #: the reply comes below, with an identity of its own.
    SAID = "said"
    #: An approval that a person is asked for; its identity is the approval's id.
    QUESTION = "question"
    #: A sentence about a restart, one for each conversation and restart.
    NOTICE = "notice"
    #: The one sentence for who may not talk here; it belongs to no session.
    REFUSAL = "refusal"


@frozen
class NewOutgoing:
    """A message to be put into the outbox; one whose id is known there is left out."""

    id: OutgoingId
    channel: str
    #: The conversation, in the channel's own words; its session has it as its alias.
    route: str
    kind: OutgoingKind
    text: str
    session_id: SessionId | None = None
    turn_id: TurnId | None = None
    #: Whom it answers, as the channel names them; empty for nobody.
    requester: str = ""
    #: Wall clock after which it isn't sent any more, None for never.
    expires_at: float | None = None


@frozen
class Outgoing:
    """A message of the outbox."""

    id: OutgoingId
    channel: str
    route: str
    kind: OutgoingKind
    state: OutboxState
    text: str
    #: Counts the changes of the text, from 1; 0 for a reply whose text isn't there yet.
    version: int
    #: The platform's name of each part that was posted, in order; there may be more to come.
    receipts: tuple[str, ...]
    session_id: SessionId | None
    turn_id: TurnId | None
    requester: str
    #: Why it isn't sent, in one line with what to do; empty when nothing is wrong.
    error: str
    #: Tries that failed.
    attempts: int
    #: Wall clock, seconds since the epoch: made, changed last, not to be tried before, not after.
    at: float
    changed_at: float
    due_at: float
    expires_at: float | None


@frozen
class Received:
    """What a channel has received, to be made durable in one transaction."""

    channel: str
    #: The platform's id of the event: a repeat within :data:`netclawd.core.budgets.EVENT_MEMORY_S` does
    #: nothing.
    event_id: str
    #: The conversation: the alias of its session.
    route: str
    #: What to admit, None for nothing. Its ``session_id`` is the one that a new session gets: a
    #: conversation that has a session keeps that.
    input: AdmitInput | None = None
    #: Messages to be put into the outbox with it; they get the session of the conversation, if there is one.
    messages: tuple[NewOutgoing, ...] = ()
    #: Where a message is turned away (there is no ``input``): the platform's id of it, which would be the
    #: source id. Two events may tell of one message: what was admitted under the other one is not turned
    #: away, and what was turned away is not admitted. None: it is no message.
    turned_away: str | None = None


@frozen
class Reception:
    """What became of it."""

    #: The event was seen before; nothing was written.
    repeat: bool
    #: None where nothing was to be admitted; not ``fresh`` when the message was admitted under another event.
    admitted: Admitted | None = None
    session_id: SessionId | None = None


@frozen
class ChannelCounts:
    """What a channel has to do."""

    #: Inputs that wait for a turn: those of the next generation included.
    deferred: int = 0
    #: Messages by state; sent and dropped ones are not counted.
    messages: Mapping[OutboxState, int] = field(default_factory=dict)


def reply_id(turn_id: TurnId, number: int = 1) -> OutgoingId:
    """Name the reply of a turn: by the turn, and behind what it had said before by a number too."""
    return OutgoingId(turn_id if number == 1 else f"{turn_id}:{number}")


def answered(question: str, state: ApprovalState, by: str) -> str:
    """Return the text of a question that was decided: the question, and what became of it."""
    if state is ApprovalState.EXPIRED:
        what = (
            f"Not needed any more: {by} has cancelled this." if by else "Nobody answered in time."
        )
    else:
        what = f"{state.value.capitalize()} by {by}." if by else f"{state.value.capitalize()}."
    return f"{question}\n\n{what}"
