"""What a client that asked one question hears of its durable turn: text as it comes, and one end.

Pure. The client knows no steps, tools or restarts: it reads one text from its beginning to an end that
is always true. So the text of all steps is one text, in which nothing that was said is ever taken
back. A model call that is repeated must say the same again; when it doesn't, the answer is broken off,
which the client is told. Invariant: what was told is a beginning of what the events say, up to the
last event that was taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from netclawd.core.session import (
    Delta,
    EventType,
    FinishReason,
    ParkReason,
    SessionEvent,
    SessionId,
    TurnId,
    Usage,
)
from netclawd.core.values import frozen

#: Between the texts of two steps.
_BETWEEN = "\n\n"

_PARKED_WORDS = {
    ParkReason.RESUME_DEADLINE.value: "it was interrupted too long ago to go on by itself",
    ParkReason.RESUME_LIMIT.value: "it was interrupted too often to go on by itself",
    ParkReason.REQUEST.value: "somebody has parked it",
}


class Ending(StrEnum):
    """How an answer ends."""

    #: The turn has ended, and all was told.
    WHOLE = "whole"
    #: A person is asked; what was told ends with whom and how.
    ASKED = "asked"
    PARKED = "parked"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: A drain stopped the turn, which goes on after the restart.
    INTERRUPTED = "interrupted"
    #: The model call was repeated and said something else.
    RETOLD = "retold"


@frozen
class End:
    ending: Ending
    finish: FinishReason = FinishReason.STOP
    #: Slug of the failure.
    slug: str = ""
    #: What happened and what to do, for people; empty for a whole answer.
    what: str = ""
    remedy: str = ""


class _Told:
    """What was told of a step; many small pieces cost no more than one large one."""

    def __init__(self) -> None:
        self.length = 0
        self._pieces: list[str] = []

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self.length += len(text)

    def text(self) -> str:
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]


class Answer:
    """One turn, as far as it was told."""

    def __init__(self, turn_id: TurnId, *, patient: bool = False) -> None:
        self.turn_id = turn_id
        #: An interruption ends nothing: the turn may yet go on.
        self._patient = patient
        #: Wall clock of its input's admission, seconds since the epoch.
        self.asked_at = 0.0
        #: Whether somebody has begun to work on it.
        self.started = False
        self.usage: Usage | None = None
        self.end: End | None = None
        self._fresh: list[str] = []
        #: Whether anything was told in an earlier step.
        self._spoke = False
        #: (step, attempt) whose text is being made, what was told of the step, and how far the attempt
        #: has got.
        self._key = (0, 0)
        #: The last step whose whole text is known.
        self._completed = 0
        self._told = _Told()
        self._at = 0
        self._finish = FinishReason.STOP
        #: Questions that wait for a person, by the approval's id.
        self._asked: dict[str, str] = {}
        #: Where the turn stands still, until it is resumed.
        self._still: End | None = None

    def take_fresh(self) -> str:
        """Return what is to be told now, once."""
        text = "".join(self._fresh)
        self._fresh.clear()
        return text

    def take_history(self, events: Iterable[SessionEvent]) -> None:
        """Take what happened before somebody listened: an old interruption ends nothing."""
        for event in events:
            if self.end is None:
                self._take(event)
        self._stand(patient=True)

    def take(self, event: SessionEvent) -> None:
        """Take an event that has just happened."""
        if self.end is None:
            self._take(event)
        self._stand(patient=self._patient)

    def place(self, delta: Delta) -> bool:
        """Take text of the running model call; False when text or an event before it is missing."""
        key = (delta.step, delta.attempt)
        if self.end is not None or delta.turn_id != self.turn_id:
            return True
        if delta.step <= self._completed or key < self._key:
            return True
        if delta.step > self._completed + 1:
            return False
        if key != self._key:
            self._begin(key)
        if delta.offset > self._at:
            return False
        fresh = delta.text[self._at - delta.offset :]
        if fresh:
            self._hear(fresh)
        return True

    def wait_behind(self, session_id: SessionId, questions: Mapping[str, str]) -> None:
        """Hear that the turn can't begin: one before it waits for a person, with these approvals."""
        if self.end is None and not self.started:
            self._tell(behind(session_id, questions))
            self.end = End(Ending.ASKED)

    # -- inside ----------------------------------------------------------------------------------

    def _stand(self, *, patient: bool) -> None:
        """End where the turn stands still."""
        still = self._still
        if self.end is not None or still is None:
            return
        if not (patient and still.ending is Ending.INTERRUPTED):
            self._close(still)

    def _take(self, event: SessionEvent) -> None:
        if event.turn_id != self.turn_id:
            return
        data = event.data
        match event.type:
            case EventType.INPUT_ADMITTED:
                self.asked_at = event.at
            case EventType.TURN_STARTED:
                self.started = True
            case EventType.MODEL_COMPLETED:
                self._complete(event)
            case EventType.CONTEXT_SUMMARISED:
                self._count(data.get("usage"))
            case EventType.APPROVAL_REQUESTED:
                self._asked[data["approval_id"]] = data["question"]
            case (
                EventType.APPROVAL_GRANTED | EventType.APPROVAL_DENIED | EventType.APPROVAL_EXPIRED
            ):
                self._asked.pop(data["approval_id"], None)
                if not self._asked:
                    self._still = None
            case EventType.TURN_PARKED:
                self._still = self._parked(data["reason"])
            case EventType.TURN_INTERRUPTED:
                self._still = End(
                    Ending.INTERRUPTED,
                    what="The daemon restarts or stops; the turn goes on after it.",
                    remedy="Read the rest of the answer in the session.",
                )
            case EventType.TURN_RESUMED:
                self._still = None
            case EventType.TURN_COMPLETED:
                self._close(End(Ending.WHOLE, self._finish))
            case EventType.TURN_FAILED:
                remedy = data.get("remedy", "")
                self._close(
                    End(Ending.FAILED, slug=data["slug"], what=data["reason"], remedy=remedy)
                )
            case EventType.TURN_CANCELLED:
                what = f"The turn was cancelled ({data['by']})."
                self._close(End(Ending.CANCELLED, slug="cancelled", what=what))

    def _parked(self, reason: str) -> End:
        if reason == ParkReason.APPROVAL.value:
            return End(Ending.ASKED)
        return End(
            Ending.PARKED,
            slug="parked",
            what=f"The turn is parked: {_PARKED_WORDS.get(reason, reason)}.",
            remedy="Let it go on with `netclaw sessions resume`, or end it with "
            "`netclaw sessions cancel`.",
        )

    def _complete(self, event: SessionEvent) -> None:
        """Take the whole text of a step, and tell what of it was not told yet."""
        data = event.data
        key, text = (int(data["step"]), int(data["attempt"])), str(data["text"])
        if key != self._key:
            self._begin(key)
        if not text.startswith(self._told.text()):
            self._retold()
            return
        self._at = self._told.length
        if len(text) > self._at:
            self._hear(text[self._at :])
        self._completed = key[0]
        self._finish = FinishReason(data["finish"])
        self._count(data.get("usage"))

    def _count(self, used: Mapping[str, int] | None) -> None:
        if used is not None:
            spent = Usage(int(used["input_tokens"]), int(used["output_tokens"]))
            self.usage = spent if self.usage is None else self.usage + spent

    def _begin(self, key: tuple[int, int]) -> None:
        """Begin an attempt; what an earlier one of the same step has told stays told."""
        if key[0] != self._key[0]:
            self._spoke = self._spoke or self._told.length > 0
            self._told = _Told()
        self._key, self._at = key, 0

    def _hear(self, text: str) -> None:
        """Take the next text of the attempt, of which an earlier attempt may have told some."""
        known = self._told.text()[self._at : self._at + len(text)] if self._behind() else ""
        if not text.startswith(known):
            self._retold()
            return
        self._at += len(text)
        self._tell(text[len(known) :])

    def _tell(self, text: str) -> None:
        if not text:
            return
        if self._spoke and not self._told.length:
            self._fresh.append(_BETWEEN)
        self._told.add(text)
        self._fresh.append(text)

    def _behind(self) -> bool:
        return self._at < self._told.length

    def _retold(self) -> None:
        self.end = End(
            Ending.RETOLD,
            slug="retold",
            what="The model call was repeated and the model says something else now.",
            remedy="Read the answer in the session.",
        )

    def _close(self, end: End) -> None:
        if end.ending is Ending.ASKED:
            self._begin((self._key[0] + 1, 1))
            self._tell(ask_for(self._asked))
        self.end = end


def ask_for(questions: Mapping[str, str]) -> str:
    """Say which approvals a turn waits for, and how to decide them."""
    lines = [
        f"This needs an approval before it goes on ({len(questions)} to decide):",
        *_ways(questions),
        "The answer goes on in the session once it is decided.",
    ]
    return "\n".join(lines)


def behind(session_id: SessionId, questions: Mapping[str, str]) -> str:
    """Say what a turn waits for that has not begun."""
    waits = "The message is stored, and waits behind a turn that"
    if not questions:
        return (
            f"{waits} is parked. Let that go on with `netclaw sessions resume {session_id}`, or end it "
            f"with `netclaw sessions cancel {session_id}`; the answer to this one comes in the session."
        )
    lines = [
        f"{waits} needs an approval ({len(questions)} to decide):",
        *_ways(questions),
        "Both go on in the session once it is decided.",
    ]
    return "\n".join(lines)


def _ways(questions: Mapping[str, str]) -> Iterator[str]:
    yield ""
    for approval_id, question in questions.items():
        yield from (question, "", f"    netclaw approvals grant {approval_id}")
        yield from (f"    netclaw approvals deny {approval_id}", "")
