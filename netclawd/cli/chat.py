"""``netclaw chat``: a conversation on the terminal that goes on through restarts of the daemon.

A turn that waits for a person is asked about right here; "later", and leaving, leave it parked.
"""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

import click

from netclawd.adapters.control_client import ControlClient
from netclawd.cli import stream, suggest
from netclawd.cli.display import Display
from netclawd.cli.output import json_option
from netclawd.cli.questions import Questions
from netclawd.cli.reach import call_patiently, reach
from netclawd.cli.send import admit, open_session, read_message, send_one
from netclawd.core.remarks import usage
from netclawd.core.screen import Kind, Piece, Screen
from netclawd.errors import BadRequestError, NotRunningError, StoreClosedError

RESTARTED = "the daemon restarted, going on"
#: States in which a turn's next words come by themselves.
MOVING = ("queued", "running", "interrupted")
#: So many events of a session that is gone on with are looked at for what was said last.
_LOOK_BACK = 200


@click.command()
@json_option
@click.option(
    "--session",
    "session_id",
    metavar="SESSION",
    shell_complete=suggest.sessions,
    help="Default: a new session.",
)
@click.pass_context
def chat(ctx: click.Context, as_json: bool, session_id: str | None) -> None:
    """Talk with an agent; Ctrl-D or Ctrl-C leaves, the session stays.

    Approvals that the agent needs are asked for here. From a pipe: one message, and its reply as plain
    text.
    """
    if not sys.stdin.isatty():
        ctx.exit(send_one(read_message(), session_id, wait=True, as_json=as_json))
    if as_json:
        raise click.UsageError("--json is for a message from a pipe.")
    daemon = reach()
    session = open_session(daemon.client, session_id)
    Conversation(daemon.client, session, daemon.status["generation"]).run()


class Conversation:
    """One terminal, one session."""

    def __init__(self, client: ControlClient, session: dict[str, Any], generation: int) -> None:
        self._client = client
        self._session = session
        self._display = Display()
        self._screen = Screen(session["last_seq"], self._display.width)
        self._stream = stream.SessionStream(client, session["id"], session["last_seq"], generation)
        self._questions = Questions(client, session["id"], self._display, self._catch_up)
        #: Turns whose input was typed here: it stands on the screen already.
        self._own: set[str] = set()
        #: Turns that were seen to end.
        self._ended: set[str] = set()

    def run(self) -> None:
        """Ask and show until the person leaves."""
        session_id = self._session["id"]
        self._display.prompt(f"Session {session_id}. Ctrl-D leaves.\n")
        try:
            self._look_back()
            self._join()
            while True:
                text = self._input()
                if text.strip():
                    self._say(text)
                else:  # What waits is asked again, what was answered elsewhere is shown.
                    self._go_on(self._look()["turn_state"])
        except NotRunningError:
            if self._questions.asking:
                self._display.prompt("\n")
            self._display.remark(
                "the daemon is gone; the session and its turn are kept", Kind.TROUBLE
            )
            raise
        except (KeyboardInterrupt, EOFError):
            waits = "turn waits" if self._questions.asking else "session stays"
            self._display.prompt(f"\nThe {waits}: netclaw chat --session {session_id}\n")

    def _say(self, text: str) -> None:
        try:
            turn_id = admit(self._client, self._session["id"], text)["turn_id"]
        except BadRequestError as error:
            self._display.remark(f"{error.what} {error.remedy}", Kind.TROUBLE)
        else:
            self._own.add(turn_id)
            self.follow(turn_id)

    def _input(self) -> str:
        if self._display.terminal:
            import readline  # noqa: F401 - gives input() its line editing

            return input("> ")
        self._display.prompt("> ")
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def _look_back(self) -> None:
        """Show the last turn of a session that is gone on with, and count on from what it has used."""
        last = self._session["last_seq"]
        if not last:
            return
        first = max(0, last - _LOOK_BACK)
        self._screen.last_seq = first
        events = self._client.call(
            "events", session_id=self._session["id"], after=first, limit=_LOOK_BACK
        )
        pieces, before = list[Piece](), set[str]()
        for event in events:
            if event["type"] == "turn.started":  # What it answers, and what waits behind it, stay.
                pieces = [p for p in pieces if p.kind is Kind.INPUT and p.turn_id not in before]
                before.add(event["turn_id"])
            pieces += self._screen.on_event(event)
        self._stream.last_seq = self._screen.last_seq
        self._screen.used = usage(self._session.get("usage")) or self._screen.used
        self._display.show(p for p in pieces if p.kind not in (Kind.USAGE, Kind.ASK))

    def _join(self) -> None:
        """Go on with a turn of a session that was joined in the middle of it."""
        state = self._session["turn_state"]
        if state in MOVING:
            self._display.remark("a turn is running; here is what comes of it")
        self._go_on(state)

    def _go_on(self, state: str | None) -> None:
        """Show the turns that have not ended, until none is left or one is left waiting."""
        while state is not None and self.follow(None):
            state = self._look()["turn_state"]
        self._catch_up()  # Of those that ended since one was followed.

    def _look(self) -> dict[str, Any]:
        found: dict[str, Any] = call_patiently(
            self._client, "session", session_id=self._session["id"]
        )
        return found

    def follow(self, turn_id: str | None) -> bool:
        """Show the session until this turn (or whichever is first) has ended.

        False: one is left waiting for a person.
        """
        self._ended.clear()
        while self._questions.ask_all():
            if self._has_ended(turn_id):
                return True
            if self._is_held():
                return False
            if self._watch(turn_id):
                return True
        self._display.remark("it waits: Enter asks again, `netclaw approvals list` has it too")
        return False

    def _is_held(self) -> bool:
        """Say what moves a turn that is parked for another reason than a question, if one is."""
        session = self._look()
        reason = session["park_reason"]
        if session["turn_state"] != "parked" or reason == "approval":
            return False
        remedy = f"`netclaw sessions resume {session['id']}` lets it go on"
        self._display.remark(f"a turn is parked ({reason}): {remedy}", Kind.TROUBLE)
        return True

    def _has_ended(self, turn_id: str | None) -> bool:
        return bool(self._ended) if turn_id is None else turn_id in self._ended

    def _watch(self, turn_id: str | None) -> bool:
        """Show what comes; return True once the turn has ended, False when one waits for a person."""
        with closing(self._stream.items()) as items:
            for item in items:
                pieces = self._pieces(item)
                self._take(pieces)
                if self._has_ended(turn_id):
                    return True
                if any(_parks(piece) for piece in pieces):
                    return False
        raise AssertionError("the stream goes on for ever")

    def _pieces(self, item: stream.Item) -> list[Piece]:
        self._screen.width = self._display.width  # Its window may have been drawn wider.
        match item.kind:
            case stream.Kind.DELTA:
                return self._screen.on_delta(item.data)
            case stream.Kind.EVENT:
                return self._screen.on_event(item.data)
        return [Piece(Kind.NOTE, RESTARTED)]

    def _catch_up(self) -> None:
        """Show what has happened while the stream was not read."""
        try:
            events = self._client.call(
                "events", session_id=self._session["id"], after=self._screen.last_seq
            )
        except StoreClosedError:  # between two generations: the stream has it later
            return
        for event in events:
            self._take(self._screen.on_event(event))
        self._stream.last_seq = self._screen.last_seq

    def _take(self, pieces: list[Piece]) -> None:
        """Show what is news to the person: not what was typed, asked or answered here."""
        self._ended |= {p.turn_id for p in pieces if p.kind is Kind.TURN_ENDED and p.turn_id}
        self._display.show(p for p in pieces if not self._known(p))

    def _known(self, piece: Piece) -> bool:
        match piece.kind:
            case Kind.INPUT:
                return piece.turn_id in self._own
            case Kind.ASK:
                return True  # it is asked in full
            case Kind.DECIDED:
                return piece.about in self._questions.own
        return False


def _parks(piece: Piece) -> bool:
    return piece.kind is Kind.WAITS or (piece.kind is Kind.TURN_ENDED and piece.text == "parked")
