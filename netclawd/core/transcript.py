"""The conversation as a model reads it, made from durable events.

Pure. The newest summary stands in the place of the turns that it covers (:func:`converse`), whole
turns all of them; what follows is told in full. The order of the events is kept with one exception:
what the daemon has to say (a restart, an interruption) waits until every call of a reply is answered,
because model APIs want the answers right behind the reply that asked for them. A turn that failed or
was cancelled is told as far as it went, with what ended it, so that nothing is done again unknowingly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netclawd.core.session import (
    CallId,
    EventType,
    Message,
    Role,
    SessionEvent,
    ToolCall,
    ToolStatus,
    TurnId,
)
from netclawd.core.tokens import tokens_of
from netclawd.core.values import frozen

UNKNOWN_TEXT = (
    "[unknown] Outcome unknown: the daemon ended while this call ran. It may or may not have had "
    "its effect; it was not repeated. Check before you try again."
)
#: What only the daemon says.
_OWN_WORDS = ("[netclawd]", "[unknown]", *(f"[{status.value}]" for status in ToolStatus))
DENIED_TEXT = "A person did not grant this call; it was not run."
EXPIRED_TEXT = (
    "Nobody answered in time whether this call may run, so it was denied; it was not run."
)
NOT_RUN_TEXT = "[not run] The turn ended before this call could run; it had no effect."
FAILED_TEXT = "[netclawd] The turn failed here and has no reply: {}"
CANCELLED_TEXT = "[netclawd] The turn was cancelled here and has no reply."
ABSENT_TEXT = "There is no tool {!r}; nothing was run. Use one of those that you were told of."


@frozen
class Told:
    """One earlier turn."""

    #: Number of its last event.
    last_seq: int
    messages: tuple[Message, ...]
    #: Of its messages, estimated.
    tokens: int


@frozen
class History:
    """What the model may be told of earlier turns; it is read once for a turn that runs."""

    #: The newest summary, empty when there is none.
    summary: str
    #: Turns that it doesn't cover, the oldest first.
    turns: tuple[Told, ...]


@frozen
class Conversation:
    """All that there is to tell a model."""

    #: As in the history, but for what was summarised since.
    summary: str
    turns: tuple[Told, ...]
    #: The turn under way.
    current: tuple[Message, ...]


def tell(events: Iterable[SessionEvent]) -> History:
    """Read earlier turns, which the newest summary may precede, as the store returns them."""
    summary, turns = "", dict[TurnId | None, list[SessionEvent]]()
    for event in events:
        if event.type is EventType.CONTEXT_SUMMARISED:
            summary = event.data["text"]
        else:
            turns.setdefault(event.turn_id, []).append(event)
    return History(summary, tuple(_told(own) for own in turns.values()))


def _told(events: Sequence[SessionEvent]) -> Told:
    read = messages(events)
    return Told(events[-1].seq, read, tokens_of(read))


def converse(history: History, current: Sequence[SessionEvent]) -> Conversation:
    """Put the turn under way behind the earlier ones; a summary that it has made replaces what it covers."""
    summary, turns = history.summary, history.turns
    for event in current:
        if event.type is EventType.CONTEXT_SUMMARISED:
            summary, upto = event.data["text"], event.data["upto_seq"]
            # Not there: it was made before the history was read, which is without those turns.
            covered = next((n for n, turn in enumerate(turns, 1) if turn.last_seq == upto), 0)
            turns = turns[covered:]
    return Conversation(summary, turns, messages(current))


def messages(*histories: Iterable[SessionEvent]) -> tuple[Message, ...]:
    """Read earlier turns and then this one as messages."""
    transcript = _Transcript()
    for history in histories:
        for event in history:
            transcript.take(event)
        transcript.end_history()
    return tuple(transcript.rows)


class _Transcript:
    def __init__(self) -> None:
        self.rows: list[Message] = []
        self._notes: list[Message] = []
        #: Calls of the newest reply that have no answer, in their order: whether each was started.
        self._open: dict[CallId, bool] = {}

    def take(self, event: SessionEvent) -> None:
        data = event.data
        match event.type:
            case EventType.INPUT_ADMITTED:
                self.rows.append(Message(Role.USER, data["text"]))
            case EventType.MODEL_COMPLETED:
                calls = read_calls(event)
                self.rows.append(Message(Role.ASSISTANT, data["text"], calls))
                self._open = {call.id: False for call in calls}
            case EventType.TOOL_STARTED:
                self._open[data["call_id"]] = True
            case EventType.TOOL_FINISHED:
                self._answer(data["call_id"], tool_text(data["status"], data["text"]))
            case EventType.TOOL_UNKNOWN:
                self._answer(data["call_id"], UNKNOWN_TEXT)
            case EventType.RESTART:
                self._notes.append(Message(Role.SYSTEM, _restart_note(event)))
                self.end_history()
            case EventType.CONFIG_OUTCOME:
                self._notes.append(Message(Role.SYSTEM, _outcome_note(event)))
                self.end_history()
            case EventType.TURN_FAILED:
                self._end(FAILED_TEXT.format(data["reason"]))
            case EventType.TURN_CANCELLED:
                self._end(CANCELLED_TEXT)

    def _answer(self, call_id: CallId, text: str) -> None:
        self.rows.append(Message(Role.TOOL, text, call_id=call_id))
        self._open.pop(call_id, None)
        self.end_history()

    def _end(self, note: str) -> None:
        """Say that the turn ended without a reply, behind an answer to every call."""
        self._notes.append(Message(Role.SYSTEM, note))
        for call_id, started in tuple(self._open.items()):
            self._answer(call_id, UNKNOWN_TEXT if started else NOT_RUN_TEXT)
        self.end_history()

    def end_history(self) -> None:
        """Put the notes in their place, if that has come."""
        if not self._open:
            self.rows.extend(self._notes)
            self._notes.clear()


def read_calls(event: SessionEvent) -> tuple[ToolCall, ...]:
    """Return the calls of a reply (``model.completed``)."""
    return tuple(
        ToolCall(CallId(call["id"]), call["name"], call["arguments"], call.get("invalid", ""))
        for call in event.data["calls"]
    )


def tool_text(status: str, text: str) -> str:
    """Return what the model reads of an outcome; anything but success says so first.

    So does a success whose text begins like one that isn't, or like a note of the daemon: a file may.
    """
    if status == ToolStatus.OK and not text.lstrip().startswith(_OWN_WORDS):
        return text
    return f"[{status}] {text}"


def _restart_note(event: SessionEvent) -> str:
    data = event.data
    how = {
        "crash": "The daemon ended without warning and was started again",
        "stop": "The daemon was stopped and started again",
    }.get(data["cause"], "The daemon restarted")
    # A crash was no restart that anybody asked for, and has no id.
    which = f"restart {data['restart_id']}, {data['trigger']}; " if data["restart_id"] else ""
    return (
        f"[netclawd] {how} while this turn ran ({which}generation {data['generation']} now). "
        "The turn goes on from its last checkpoint."
    )


def _outcome_note(event: SessionEvent) -> str:
    """Tell the model what became of the configuration that it has written."""
    data = event.data
    why = f"{data['reason']} {data['remedy']}".strip()
    stays = (
        "What was in force before is in force. The file still has the change: propose a value that "
        "works, or the one before."
    )
    became = {
        "applied": f"is applied: generation {data['generation']} runs with it.",
        "refused": f"was refused: {why} {stays}",
        "rolled-back": f"was tried and rolled back: {why} {stays}",
        "superseded": "was replaced in the file by somebody else before it was taken up.",
        "unknown": f"has no known outcome: {why}",
    }.get(data["outcome"], f"ended as {data['outcome']}: {why}")
    return f"[netclawd] Your change of the configuration ({', '.join(data['changes'])}) {became}"
