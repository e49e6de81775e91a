"""Approvals that are answered where they are met: in the conversation that waits for them.

The daemon is asked what waits, again and again while a person thinks, so that an answer given
elsewhere, and the time, are noticed. What is asked is shown whole, broken into lines of our own behind a
bar: no question can look like a prompt or an answer of ours. What was typed before a question stood
there is no answer to it.
"""

from __future__ import annotations

import select
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from netclawd.adapters.control_client import ControlClient
from netclawd.cli.display import Display
from netclawd.cli.output import until, visible
from netclawd.cli.reach import call_patiently
from netclawd.core.screen import Kind
from netclawd.core.text import broken
from netclawd.errors import ConflictError, ControlError, NotFoundError, StoreClosedError

#: Seconds between two looks at whether it was decided elsewhere.
LOOK_S = 1.0
_BAR = "  │ "
_PROMPT = "Grant it? [y/n/later] "
#: A line of a question has room for so many columns at least: for a wide character.
_LEAST_ROOM = 2


class Answer(StrEnum):
    YES = "y"
    NO = "n"
    LATER = "later"


_ANSWERS = {
    "y": Answer.YES,
    "yes": Answer.YES,
    "n": Answer.NO,
    "no": Answer.NO,
    "l": Answer.LATER,
    "later": Answer.LATER,
}


class Questions:
    """What one session asks the person at this terminal."""

    def __init__(
        self,
        client: ControlClient,
        session_id: str,
        display: Display,
        catch_up: Callable[[], None],
    ) -> None:
        """``catch_up`` shows what has happened in the session meanwhile."""
        self._client = client
        self._session_id = session_id
        self._display = display
        self._catch_up = catch_up
        #: Approvals that were decided here.
        self.own: set[str] = set()
        #: A question stands on the screen.
        self.asking = False

    def pending(self) -> list[dict[str, Any]]:
        """Return what the session waits for, in the order in which it was asked."""
        found = call_patiently(self._client, "approvals")
        return [a for a in found if a["session_id"] == self._session_id]

    def ask_all(self) -> bool:
        """Ask one after the other; return whether all are decided, be it elsewhere."""
        while pending := self.pending():
            answer = self._ask(pending[0], len(pending))
            self.asking = False
            if answer is Answer.LATER:
                return False
            if answer is None:
                self._catch_up()
            else:
                self._decide(pending[0]["id"], granted=answer is Answer.YES)
        return True

    def _ask(self, approval: Mapping[str, Any], left: int) -> Answer | None:
        """Ask until there is an answer; None when it was decided elsewhere."""
        self.asking = True
        self._display.remark(asked_for(approval, left), Kind.ASK)
        self._display.prompt("\n".join(block(approval["question"], self._display.columns)) + "\n")
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        while True:
            self._display.prompt(_PROMPT)
            line = self._read_line(approval["id"])
            if line is None:
                self._display.prompt("\n")
                return None
            if (answer := _ANSWERS.get(line.strip().lower())) is not None:
                return answer
            self._display.prompt("Type y to let it run, n to deny it, or later.\n")

    def _read_line(self, approval_id: str) -> str | None:
        while not select.select([sys.stdin], [], [], LOOK_S)[0]:
            if not self._waits(approval_id):
                return None
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line

    def _waits(self, approval_id: str) -> bool:
        try:
            return any(a["id"] == approval_id for a in self._client.call("approvals"))
        except StoreClosedError:  # between two generations
            return True

    def _decide(self, approval_id: str, *, granted: bool) -> None:
        self.own.add(approval_id)
        try:
            call_patiently(self._client, "decide", approval_id=approval_id, granted=granted)
        except (ConflictError, NotFoundError):
            self.own.discard(approval_id)
            self._display.remark("it was decided elsewhere in this moment")
            self._catch_up()
        except ControlError as error:
            # It may have been taken or not: what waits is looked up again.
            self._display.remark(error.what, Kind.TROUBLE)


def asked_for(approval: Mapping[str, Any], left: int) -> str:
    """Word who asks for what, how many questions there are, and how long this one stands."""
    name = approval.get("name")
    words = f"the agent asks to run the tool {name}" if name else "the agent asks"
    more = f" (the first of {left} questions)" if left > 1 else ""
    return f"{words}{more}{until(approval)}"


def block(question: str, columns: int) -> Iterator[str]:
    """Show a question whole: each line behind a bar, none so long that the terminal breaks it itself."""
    # Some terminals take two columns for the bar, and some wrap when the last one is filled.
    room = max(_LEAST_ROOM, columns - len(_BAR) - 2)
    for line in visible(question.expandtabs(4)).split("\n"):
        yield from (f"{_BAR}{piece}" for piece in broken(line, room))
