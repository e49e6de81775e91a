"""``netclaw sessions``: what the store has; from the daemon, or from the store when it is down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

from netclawd.cli.output import ago, json_option, say_json, table, write
from netclawd.cli.reach import own_paths, reach_or_none
from netclawd.core.screen import Column, Kind, Piece, Screen


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


@contextmanager
def archive() -> Iterator[Archive]:
    """Read from the daemon; from the store of this user when no daemon answers."""
    paths = own_paths()
    daemon = reach_or_none(paths)
    if daemon is not None:
        with daemon.client:
            yield _FromDaemon(daemon.client)
        return
    from netclawd.cli.wiring import open_store_read_only

    store = open_store_read_only(paths)
    try:
        yield _FromStore(store)
    finally:
        store.close()


@click.group()
def sessions() -> None:
    """Look at sessions; works also while the daemon is down."""


@sessions.command("list")
@json_option
@click.option(
    "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="So many at most."
)
@click.option("--cursor", help="Go on where a page before ended.")
def list_(as_json: bool, limit: int, cursor: str | None) -> None:
    """List sessions, the newest first."""
    with archive() as source:
        page = source.page(cursor, limit)
    if as_json:
        return say_json(page)
    if not page["sessions"]:
        return click.echo("There is no session yet; `netclaw chat` begins one.")
    table(
        ("SESSION", "BEGAN", "EVENTS", "TURN"),
        [
            (s["id"], ago(s["created_at"]), str(s["last_seq"]), s["turn_state"] or "-")
            for s in page["sessions"]
        ],
    )
    if page["next"]:
        click.echo(f"There are more: --cursor {page['next']}")
    return None


@sessions.command()
@json_option
@click.argument("session_id", metavar="SESSION")
def show(as_json: bool, session_id: str) -> None:
    """Show a session from its beginning."""
    with archive() as source:
        session = source.session(session_id)
        events = list(_all_events(source, session_id, session["last_seq"]))
    if as_json:
        return say_json({**session, "events": events})
    click.echo(f"Session {session['id']}, began {ago(session['created_at'])}")
    screen, column = Screen(), Column()
    for event in events:
        write(column.render([*_restart_note(event), *screen.on_event(event)]))
    return None


def _all_events(source: Archive, session_id: str, last_seq: int) -> Iterator[dict[str, Any]]:
    after = 0
    while after < last_seq:
        page = source.events(session_id, after)
        if not page:
            return
        yield from page
        after = page[-1]["seq"]


def _restart_note(event: dict[str, Any]) -> list[Piece]:
    if event["type"] != "restart":
        return []
    text = f"the daemon restarted ({event['cause']}), generation {event['generation']}"
    return [Piece(Kind.NOTE, text)]
