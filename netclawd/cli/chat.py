"""``netclaw chat``: a conversation on the terminal that goes on through restarts of the daemon."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

import click

from netclawd.adapters.control_client import ControlClient
from netclawd.cli import stream, suggest
from netclawd.cli.output import json_option, write
from netclawd.cli.reach import reach
from netclawd.cli.send import admit, open_session, read_message, send_one
from netclawd.core.screen import Column, Kind, Piece, Screen
from netclawd.errors import NotRunningError

RESTARTED = "the daemon restarted, going on"
#: States in which a turn's next words come by themselves.
MOVING = ("queued", "running", "interrupted")


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

    From a pipe: one message, and its reply as plain text.
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
        self._screen = Screen(session["last_seq"])
        self._column = Column()
        self._stream = stream.SessionStream(client, session["id"], session["last_seq"], generation)
        #: Turns whose input was typed here: it stands on the screen already.
        self._own: set[str] = set()

    def run(self) -> None:
        """Ask and show until the person leaves."""
        import readline  # noqa: F401 - gives input() its line editing

        session_id = self._session["id"]
        write(f"Session {session_id}. Ctrl-D leaves.\n")
        try:
            self._catch_up()
            while True:
                text = input("> ")
                if text.strip():
                    turn_id = admit(self._client, session_id, text)["turn_id"]
                    self._own.add(turn_id)
                    self.follow(turn_id)
        except NotRunningError:
            self._show([Piece(Kind.NOTE, "the daemon is gone; the session and its turn are kept")])
            raise
        except (KeyboardInterrupt, EOFError):
            write(f"\nThe session stays: netclaw chat --session {session_id}\n")

    def _catch_up(self) -> None:
        """Show what is being made in a session that was joined in the middle of a turn."""
        state = self._session["turn_state"]
        if state in MOVING:
            self._show([Piece(Kind.NOTE, "a turn is running; here is what comes of it")])
            self.follow(None)
        elif state == "parked":
            self._show([Piece(Kind.NOTE, self._parked())])

    def _parked(self) -> str:
        remedy = (
            "see `netclaw approvals list`"
            if self._session["park_reason"] == "approval"
            else f"`netclaw sessions resume {self._session['id']}` lets it go on"
        )
        return f"a turn is parked ({self._session['park_reason']}): {remedy}"

    def follow(self, turn_id: str | None) -> None:
        """Show the session until this turn (or whichever is first) has ended."""
        with closing(self._stream.items()) as items:
            for item in items:
                pieces = self._pieces(item)
                self._show(pieces)
                ended = [p.turn_id for p in pieces if p.kind is Kind.TURN_ENDED]
                if ended and turn_id in (None, *ended):
                    return

    def _pieces(self, item: stream.Item) -> list[Piece]:
        match item.kind:
            case stream.Kind.DELTA:
                return self._screen.on_delta(item.data)
            case stream.Kind.EVENT:
                return self._screen.on_event(item.data)
        return [Piece(Kind.NOTE, RESTARTED)]

    def _show(self, pieces: list[Piece]) -> None:
        shown = [p for p in pieces if p.kind is not Kind.INPUT or p.turn_id not in self._own]
        write(self._column.render(shown))
