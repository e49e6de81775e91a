"""What a person who watches a session is shown: deltas and durable events in, pieces of text out.

Pure. Deltas are not durable: they repeat after a re-join, stop in mid-word at a restart, and a
repeated model call streams its text again. The invariant: the text shown of a step since its last
"differs" note is a prefix of the newest attempt that was longer, and once ``model.completed`` has
come it is that event's text, no word lost and none twice. So a repeated attempt prints nothing as
long as it says what stands there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from netclawd.core.values import frozen

DIFFERS = "the repeated reply differs; here it is from its beginning"


class Kind(StrEnum):
    #: Text of a reply, to be printed behind what was printed of it.
    TEXT = "text"
    #: The reply's text is complete.
    END = "end"
    #: A remark on a line of its own.
    NOTE = "note"
    #: What somebody said to the session.
    INPUT = "input"
    #: The turn needs nobody's attention any more; ``text`` is its state.
    TURN_ENDED = "turn-ended"


@frozen
class Piece:
    kind: Kind
    text: str = ""
    turn_id: str | None = None


Step = tuple[str, int]


@dataclass(slots=True)
class _Reply:
    """One step's text."""

    #: What the reader has before their eyes.
    shown: str = ""
    #: The attempt that ``received`` belongs to.
    attempt: int = 0
    received: str = ""


@dataclass(slots=True)
class Screen:
    """The reading of one session from some event on."""

    #: Number of the newest durable event that was taken.
    last_seq: int = 0
    _replies: dict[Step, _Reply] = field(default_factory=dict)
    #: The step whose text stands open at the end of the screen.
    _open: Step | None = None
    _complete: set[Step] = field(default_factory=set)
    _ended_turns: set[str] = field(default_factory=set)

    def on_delta(self, data: Mapping[str, Any]) -> list[Piece]:
        """Place text of a reply that is being made.

        A delta with a hole before it is left out: its text comes with a later one or at the end.
        """
        step = (data["turn_id"], data["step"])
        if step in self._complete or step[0] in self._ended_turns:
            return []
        reply = self._replies.setdefault(step, _Reply())
        if data["attempt"] < reply.attempt:
            return []
        if data["attempt"] > reply.attempt:
            reply.attempt, reply.received = data["attempt"], ""
        offset, text = data["offset"], data["text"]
        if offset > len(reply.received) or offset + len(text) <= len(reply.received):
            return []
        reply.received = reply.received[:offset] + text
        return self._show(step)

    def on_event(self, event: Mapping[str, Any]) -> list[Piece]:
        """Take a durable event; one that was taken before is nothing new."""
        if event["seq"] <= self.last_seq:
            return []
        self.last_seq = event["seq"]
        match event["type"]:
            case "model.completed":
                return self._on_completed(event)
            case "step.retry":
                self._on_retry(event)
                return []
            case "input.admitted":
                return [Piece(Kind.INPUT, event["text"], event["turn_id"])]
            case "turn.completed" | "turn.failed" | "turn.cancelled" | "turn.parked":
                return self._on_turn_end(event)
        note = _note(event)
        return [Piece(Kind.NOTE, note, event["turn_id"])] if note else []

    def _on_completed(self, event: Mapping[str, Any]) -> list[Piece]:
        step = (event["turn_id"], event["step"])
        reply = self._replies.setdefault(step, _Reply())
        reply.attempt, reply.received = event["attempt"], event["text"]
        before = self._close(unless=step)
        self._open = step
        pieces = before + self._show(step, whole=True)
        self._complete.add(step)
        del self._replies[step]
        self._open = None
        if event["text"]:
            pieces.append(Piece(Kind.END, turn_id=step[0]))
        return pieces + self._show_waiting()

    def _on_retry(self, event: Mapping[str, Any]) -> None:
        reply = self._replies.get((event["turn_id"], event["step"]))
        if reply is not None and event["attempt"] > reply.attempt:
            reply.attempt, reply.received = event["attempt"], ""

    def _on_turn_end(self, event: Mapping[str, Any]) -> list[Piece]:
        turn_id, state = event["turn_id"], event["type"].removeprefix("turn.")
        waits = state == "parked" and event.get("reason") == "approval"
        pieces = self._close() if self._open is not None and self._open[0] == turn_id else []
        if note := _note(event):
            pieces.append(Piece(Kind.NOTE, note, turn_id))
        if waits:
            return pieces
        if state != "parked":  # a parked turn can be taken up again
            self._ended_turns.add(turn_id)
            self._replies = {s: r for s, r in self._replies.items() if s[0] != turn_id}
            self._complete = {s for s in self._complete if s[0] != turn_id}
        pieces.append(Piece(Kind.TURN_ENDED, state, turn_id))
        return pieces + self._show_waiting()

    def _close(self, unless: Step | None = None) -> list[Piece]:
        """End the open text where it stands; what comes of it later begins on a new line."""
        if self._open is None or self._open == unless:
            return []
        turn_id, self._open = self._open[0], None
        return [Piece(Kind.END, turn_id=turn_id)]

    def _show_waiting(self) -> list[Piece]:
        """Show what came for another step while one was open."""
        for step, reply in self._replies.items():
            if self._open is None and reply.received:
                return self._show(step)
        return []

    def _show(self, step: Step, *, whole: bool = False) -> list[Piece]:
        """Print what the newest attempt has beyond what stands there.

        ``whole``: the text is complete, so standing there with more is a difference too.
        """
        reply = self._replies[step]
        if self._open not in (None, step):
            return []
        shown, received = reply.shown, reply.received
        if shown.startswith(received) and not (whole and shown != received):
            return []
        self._open = step
        reply.shown = received
        if received.startswith(shown):
            return [Piece(Kind.TEXT, received[len(shown) :], step[0])]
        again = [Piece(Kind.TEXT, received, step[0])] if received else []
        return [Piece(Kind.NOTE, DIFFERS, step[0]), *again]


def _note(event: Mapping[str, Any]) -> str:
    """Put an event that is not text into words; "" when a reader needs none."""
    name, text = event.get("name", ""), event.get("reason", "")
    match event["type"]:
        case "tool.started":
            again = " again" if event.get("again") else ""
            return f"runs the tool {name}{again}"
        case "tool.finished" if event["status"] != "ok":
            return f"the tool {name} ended: {event['status']}"
        case "tool.unknown":
            return f"the daemon ended while the tool {name} ran: its outcome is unknown"
        case "approval.requested":
            approval_id = event["approval_id"]
            return (
                f"waits for an approval: {event['question']} · grant it with "
                f"`netclaw approvals grant {approval_id}`, or deny it"
            )
        case "approval.granted" | "approval.denied" | "approval.expired":
            by = f" by {event['by']}" if event.get("by") else ""
            return f"the approval was {event['type'].removeprefix('approval.')}{by}"
        case "turn.failed":
            return f"the turn failed: {text}"
        case "turn.cancelled":
            return "the turn was cancelled"
        case "turn.parked" if text != "approval":
            return f"the turn is parked ({text})"
        case "config.outcome":
            return f"the configuration: {event['outcome']}{': ' + text if text else ''}"
    return ""


@dataclass(slots=True)
class Column:
    """Turns pieces into the characters for a terminal: notes and replies on lines of their own."""

    #: Whether the cursor stands behind text.
    in_line: bool = False

    def render(self, pieces: Iterable[Piece]) -> str:
        return "".join(self._render(piece) for piece in pieces)

    def _render(self, piece: Piece) -> str:
        match piece.kind:
            case Kind.TEXT:
                self.in_line = not piece.text.endswith("\n")
                return piece.text
            case Kind.NOTE:
                return f"{self._fresh_line()}— {piece.text} —\n"
            case Kind.INPUT:
                return f"{self._fresh_line()}> {piece.text}\n"
        return self._fresh_line()

    def _fresh_line(self) -> str:
        before = "\n" if self.in_line else ""
        self.in_line = False
        return before
