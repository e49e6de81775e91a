"""What a person who watches a session is shown: deltas and durable events in, pieces of text out.

Pure. Deltas are not durable: they repeat after a re-join, stop in mid-word at a restart, and a
repeated model call streams its text again. The invariant: the text shown of a step since its last
"differs" note is a prefix of the newest attempt that was longer, and once ``model.completed`` has
come it is that event's text, no word lost and none twice. So a repeated attempt prints nothing as
long as it says what stands there already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from netclawd.core import remarks
from netclawd.core.session import Usage
from netclawd.core.text import visible
from netclawd.core.values import frozen

DIFFERS = "the repeated reply differs; here it is from its beginning"


class Kind(StrEnum):
    #: Text of a reply, to be printed behind what was printed of it.
    TEXT = "text"
    #: The reply's text is complete.
    END = "end"
    #: The text ends here for now; what comes of it later stands on a new line.
    PAUSE = "pause"
    #: A remark on a line of its own.
    NOTE = "note"
    #: The same, of something that went wrong.
    TROUBLE = "trouble"
    #: What somebody said to the session.
    INPUT = "input"
    #: A person is asked; ``about`` is the approval.
    ASK = "ask"
    #: A person, or the time, has answered; ``about`` is the approval.
    DECIDED = "decided"
    #: The turn waits for the answers to what was asked.
    WAITS = "waits"
    #: The tokens that the turn and the session have used.
    USAGE = "usage"
    #: The turn needs nobody's attention any more; ``text`` is its state.
    TURN_ENDED = "turn-ended"


@frozen
class Piece:
    kind: Kind
    text: str = ""
    turn_id: str | None = None
    #: Id of the approval that it is about.
    about: str = ""


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
    #: Room for a line, characters.
    width: int = remarks.WIDTH
    #: Tokens that the session has used, None while nobody has told any.
    used: Usage | None = None
    _used_by_turn: dict[str, Usage] = field(default_factory=dict)
    #: Which of a reply's calls a call is, where there are several.
    _places: dict[str, str] = field(default_factory=dict)
    #: The tool that an approval is about.
    _asked: dict[str, str] = field(default_factory=dict)
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
        return self._remark(event)

    def _remark(self, event: Mapping[str, Any]) -> list[Piece]:
        turn_id = event["turn_id"]
        place = self._places.get(event.get("call_id", ""), "")
        match event["type"]:
            case "tool.finished":
                return self._on_tool_end(event, place)
            case "approval.requested":
                text = remarks.question(event, place, self.width)
                self._asked[event["approval_id"]] = f"{event.get('name', '')}{place}"
                return [Piece(Kind.ASK, text, turn_id, event["approval_id"])]
            case "approval.granted" | "approval.denied" | "approval.expired":
                text = remarks.decision(event, self._asked.pop(event["approval_id"], ""))
                return [Piece(Kind.DECIDED, text, turn_id, event["approval_id"])]
            case "context.summarised":
                self._count(event)
                return [Piece(Kind.NOTE, remarks.summary(event, self.width), turn_id)]
            case "config.outcome":
                bad = event["outcome"] in ("refused", "rolled-back", "unknown")
                kind = Kind.TROUBLE if bad else Kind.NOTE
                return [Piece(kind, remarks.outcome(event), turn_id)]
            case "tool.started":
                text = remarks.call(event["name"], place, event, self.width)
                return [Piece(Kind.NOTE, text, turn_id)]
            case "tool.unknown":
                tool = f"{event['name']}{place}"
                text = f"the daemon ended while the tool {tool} ran: its outcome is unknown"
                return [Piece(Kind.TROUBLE, text, turn_id)]
        return []

    def _on_tool_end(self, event: Mapping[str, Any], place: str) -> list[Piece]:
        turn_id, ok = event["turn_id"], event["status"] == "ok"
        text = remarks.ending(event["name"], place, event, self.width)
        pieces = [Piece(Kind.NOTE if ok else Kind.TROUBLE, text, turn_id)]
        if event.get("proposal"):
            pieces.append(Piece(Kind.NOTE, remarks.proposal(event), turn_id))
        return pieces

    def _count(self, event: Mapping[str, Any]) -> None:
        """Add the tokens of a model call."""
        used, turn_id = remarks.usage(event.get("usage")), event["turn_id"]
        if used is not None:
            self.used = (self.used or Usage()) + used
            self._used_by_turn[turn_id] = self._used_by_turn.get(turn_id, Usage()) + used

    def used_by(self, turn_id: str) -> Usage | None:
        """Return the tokens that a turn has used, as far as they were seen."""
        return self._used_by_turn.get(turn_id)

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
        if (why := remarks.CUT_SHORT.get(event.get("finish", ""))) is not None:
            pieces.append(Piece(Kind.TROUBLE, why, step[0]))
        self._count(event)
        self._number(event.get("calls", ()))
        return pieces + self._show_waiting()

    def _number(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Remember the places of the calls of a reply that has several."""
        if len(calls) > 1:
            of = len(calls)
            self._places |= {c["id"]: f" ({n} of {of})" for n, c in enumerate(calls, 1)}

    def _on_retry(self, event: Mapping[str, Any]) -> None:
        reply = self._replies.get((event["turn_id"], event["step"]))
        if reply is not None and event["attempt"] > reply.attempt:
            reply.attempt, reply.received = event["attempt"], ""

    def _on_turn_end(self, event: Mapping[str, Any]) -> list[Piece]:
        turn_id, state = event["turn_id"], event["type"].removeprefix("turn.")
        pieces = self._close() if self._open is not None and self._open[0] == turn_id else []
        if state == "parked" and event.get("reason") == "approval":
            return [*pieces, Piece(Kind.WAITS, turn_id=turn_id)]
        match state:
            case "failed":
                pieces.append(Piece(Kind.TROUBLE, remarks.failure(event), turn_id))
            case "cancelled":
                pieces.append(Piece(Kind.NOTE, "the turn was cancelled", turn_id))
            case "parked":
                text = f"the turn is parked ({event.get('reason', '')})"
                pieces.append(Piece(Kind.TROUBLE, text, turn_id))
        if state != "parked":  # a parked turn can be taken up again
            self._ended_turns.add(turn_id)
            self._replies = {s: r for s, r in self._replies.items() if s[0] != turn_id}
            self._complete = {s for s in self._complete if s[0] != turn_id}
            self._places.clear()
            pieces += self._usage(turn_id)
        pieces.append(Piece(Kind.TURN_ENDED, state, turn_id))
        return pieces + self._show_waiting()

    def _usage(self, turn_id: str) -> list[Piece]:
        turn = self._used_by_turn.get(turn_id)
        if turn is None:
            return []
        return [Piece(Kind.USAGE, remarks.spent(turn, self.used), turn_id)]

    def _close(self, unless: Step | None = None) -> list[Piece]:
        """End the open text where it stands; what comes of it later begins on a new line."""
        if self._open is None or self._open == unless:
            return []
        turn_id, self._open = self._open[0], None
        return [Piece(Kind.PAUSE, turn_id=turn_id)]

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


def as_it_is(_kind: Kind, text: str) -> str:
    """Leave a line unpainted."""
    return text


@dataclass(slots=True)
class Column:
    """Turns pieces into the characters for a terminal: remarks and replies on lines of their own."""

    #: Makes replies and inputs harmless for who reads them.
    clean: Callable[[str], str] = str
    #: Paints a line that is no reply.
    paint: Callable[[Kind, str], str] = as_it_is
    #: Whether the cursor stands behind text.
    in_line: bool = False

    def render(self, pieces: Iterable[Piece]) -> str:
        return "".join(self._render(piece) for piece in pieces)

    def _render(self, piece: Piece) -> str:
        match piece.kind:
            case Kind.TEXT:
                self.in_line = not piece.text.endswith("\n")
                return self.clean(piece.text)
            case Kind.INPUT:
                return f"{self._fresh_line()}> {self.clean(piece.text)}\n"
            case Kind.END | Kind.PAUSE | Kind.WAITS | Kind.TURN_ENDED:
                return self._fresh_line()
        line = f"— {visible(' '.join(piece.text.split()))} —"
        return f"{self._fresh_line()}{self.paint(piece.kind, line)}\n"

    def _fresh_line(self) -> str:
        before = "\n" if self.in_line else ""
        self.in_line = False
        return before
