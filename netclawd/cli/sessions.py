"""``netclaw sessions``: what the store has, and what becomes of a turn.

Sessions are read from the daemon, or from the store when it is down; turns are the daemon's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import click

from netclawd.cli import suggest
from netclawd.cli.display import at_terminal, in_colour, paint
from netclawd.cli.output import ago, json_option, note, say_json, table, visible
from netclawd.cli.reach import call_patiently, reach, reading
from netclawd.core.remarks import tokens, usage
from netclawd.core.screen import Column, Kind, Piece, Screen, as_it_is
from netclawd.core.session import API, Usage

#: A park waits so long before it says that it waits, and then so long, seconds.
PROMPT_S, PATIENCE_S = 0.5, 60.0


class Archive(Protocol):
    """Sessions to read, wherever they are read from."""

    def page(self, cursor: str | None, limit: int) -> dict[str, Any]: ...
    def session(self, session_id: str) -> dict[str, Any]: ...
    def events(self, session_id: str, after: int) -> list[dict[str, Any]]: ...


class _FromDaemon:
    def __init__(self, client: Any) -> None:
        self._call = client.call

    def page(self, cursor: str | None, limit: int) -> dict[str, Any]:
        found: dict[str, Any] = self._call("sessions", cursor=cursor, limit=limit)
        return found

    def session(self, session_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._call("session", session_id=session_id)
        return found

    def events(self, session_id: str, after: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("events", session_id=session_id, after=after)
        return found


class _FromStore:
    def __init__(self, store: Any) -> None:
        self._store = store

    def page(self, cursor: str | None, limit: int) -> dict[str, Any]:
        from netclawd.core.values import as_map

        page = self._store.sessions(cursor, limit)
        return {"sessions": [as_map(s) for s in page.sessions], "next": page.next}

    def session(self, session_id: str) -> dict[str, Any]:
        from netclawd.core.values import as_map

        return as_map(self._store.session(session_id))

    def events(self, session_id: str, after: int) -> list[dict[str, Any]]:
        return [
            {"seq": e.seq, "type": e.type, "at": e.at, "turn_id": e.turn_id, **e.data}
            for e in self._store.events(session_id, after, 200)
        ]


def archive() -> AbstractContextManager[Archive]:
    """Read from the daemon; from the store of this user when no daemon answers."""
    return reading(_FromDaemon, _FromStore)


@click.group()
def sessions() -> None:
    """Look at sessions; park, resume and cancel their turns."""


@sessions.command("list")
@json_option
@click.option(
    "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="So many at most."
)
@click.option("--cursor", help="Go on where a page before ended.")
def list_(as_json: bool, limit: int, cursor: str | None) -> None:
    """List sessions, the newest first; works also while the daemon is down."""
    with archive() as source:
        page = source.page(cursor, limit)
    if as_json:
        return say_json(page)
    if not page["sessions"]:
        return click.echo("There is no session yet; `netclaw chat` begins one.")
    table(
        ("SESSION", "BEGAN", "EVENTS", "TOKENS", "CHANNEL", "TURN"),
        [
            (
                s["id"],
                ago(s["created_at"]),
                str(s["last_seq"]),
                _tokens(s) or "-",
                _channel(s),
                _in_flight(s),
            )
            for s in page["sessions"]
        ],
    )
    if page["next"]:
        click.echo(f"There are more: --cursor {page['next']}")
    return None


def _tokens(session: Mapping[str, Any]) -> str:
    """Word what a session has used; empty where no model server has said anything."""
    used = usage(session.get("usage"))
    return tokens(used) if used is not None and used != Usage() else ""


def _channel(session: Mapping[str, Any]) -> str:
    """Word where a session is spoken to, and what it is called there."""
    return visible(f"{session['channel']} {session.get('alias') or ''}").rstrip()


def _in_flight(session: Mapping[str, Any]) -> str:
    reason = f" ({session['park_reason']})" if session["park_reason"] else ""
    return f"{session['turn_state'] or '-'}{reason}"


@sessions.command()
@json_option
@click.argument("session_id", metavar="SESSION", shell_complete=suggest.sessions)
def show(as_json: bool, session_id: str) -> None:
    """Show a session from its beginning; works also while the daemon is down."""
    with archive() as source:
        session = source.session(session_id)
        events = list(_all_events(source, session_id, session["last_seq"]))
    if as_json:
        return say_json({**session, "events": events})
    used = f", tokens: {words}" if (words := _tokens(session)) else ""
    at = f", on {_channel(session)}" if session["channel"] != API else ""
    click.echo(f"Session {session['id']}{at}, began {ago(session['created_at'])}{used}")
    _print(events)
    if session["turn_state"] == "parked":
        click.echo(f"A turn is parked ({session['park_reason']}); {_remedy(session)}.")
    return None


def _remedy(session: Mapping[str, Any]) -> str:
    """Say what moves a parked turn."""
    if session["park_reason"] == "approval":
        return f"`netclaw chat --session {session['id']}` asks for what it needs"
    return f"`netclaw sessions resume {session['id']}` lets it go on"


def _print(events: Iterable[dict[str, Any]]) -> None:
    """Print a session as a column; a program reads it as it is, without colours."""
    column = Column(visible if at_terminal() else str, paint if in_colour() else as_it_is)
    screen = Screen()
    for event in events:
        sys.stdout.write(column.render([*_restart_note(event), *screen.on_event(event)]))
    sys.stdout.flush()


def _all_events(source: Archive, session_id: str, last_seq: int) -> Iterator[dict[str, Any]]:
    after = 0
    while after < last_seq:
        page = source.events(session_id, after)
        if not page:
            return
        yield from page
        after = page[-1]["seq"]


#: How the daemon went and came, where it didn't re-execute itself.
_RETURNS = {
    "crash": "the daemon ended without warning and was started again",
    "stop": "the daemon was stopped and started again",
}


def _restart_note(event: dict[str, Any]) -> list[Piece]:
    if event["type"] != "restart":
        return []
    how = _RETURNS.get(event["cause"], "the daemon restarted")
    return [Piece(Kind.NOTE, f"{how}; generation {event['generation']} goes on")]


# -- turns ---------------------------------------------------------------------------------------


def _turn_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--turn", "turn_id", metavar="TURN", help="This turn instead of the one in flight."
    )(command)


@sessions.command()
@json_option
@_turn_option
@click.argument("session_id", metavar="SESSION", shell_complete=suggest.sessions)
@click.pass_context
def park(ctx: click.Context, as_json: bool, turn_id: str | None, session_id: str) -> None:
    """Stop a turn at its next checkpoint until it is resumed; the inputs behind it wait.

    A model call is cut and made again later; a tool may take as long as in a drain. Exit code 1: it
    has not come to a checkpoint yet.
    """
    client = reach().client
    about = {"session_id": session_id, "turn_id": turn_id}
    turn = call_patiently(client, "park", wait_s=PROMPT_S, **about)
    if turn["state"] == "running":
        if not as_json:
            note("the turn is at work; it stops at its next checkpoint. Waiting for that.")
        about["turn_id"] = turn["id"]
        turn = call_patiently(client, "park", wait_s=PATIENCE_S, **about)
    parked = turn["state"] == "parked"
    if as_json:
        say_json(turn)
    elif not parked:
        note(f"the turn {turn['id']} is still at work; it will be parked at its next checkpoint.")
    elif turn["park_reason"] == "request":
        click.echo(f"Parked: {turn['id']}. `netclaw sessions resume {session_id}` lets it go on.")
    else:
        click.echo(f"The turn {turn['id']} is parked already ({turn['park_reason']}).")
    ctx.exit(0 if parked else 1)


@sessions.command()
@json_option
@_turn_option
@click.argument("session_id", metavar="SESSION", shell_complete=suggest.sessions)
def resume(as_json: bool, turn_id: str | None, session_id: str) -> None:
    """Let a parked turn go on from its last checkpoint, with a new budget of resumes and time.

    One that waits for an approval goes on when that is granted or denied.
    """
    about = {"session_id": session_id, "turn_id": turn_id}
    turn = call_patiently(reach().client, "resume", **about)
    if as_json:
        say_json(turn)
    elif turn["state"] == "interrupted":
        click.echo(f"{turn['id']} goes on after the restart that is under way.")
    else:
        click.echo(f"{turn['id']} goes on.")


@sessions.command()
@json_option
@_turn_option
@click.option(
    "--all", "everything", is_flag=True, help="All turns of the session, queued ones too."
)
@click.argument("session_id", metavar="SESSION", shell_complete=suggest.sessions)
def cancel(as_json: bool, turn_id: str | None, everything: bool, session_id: str) -> None:
    """End a turn, wherever it stands; the next input of the session is taken up."""
    if everything and turn_id is not None:
        raise click.UsageError("--turn and --all exclude each other.")
    about = {"session_id": session_id, "turn_id": turn_id, "all": everything}
    found = call_patiently(reach().client, "cancel", **about)
    if as_json:
        return say_json(found)
    for turn in found["turns"]:
        click.echo(f"Cancelled: {turn['id']}.")
    return None
