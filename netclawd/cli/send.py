"""``netclaw send``: one message into a session, and its reply if it is waited for."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import click

from netclawd.adapters.control_client import ControlClient
from netclawd.cli import suggest
from netclawd.cli.output import json_option, note, say_json, until, visible, write
from netclawd.cli.reach import call_patiently, reach
from netclawd.core.remarks import spent, usage
from netclawd.core.screen import Kind, Piece, Screen
from netclawd.core.session import Usage
from netclawd.core.values import as_map, frozen
from netclawd.errors import BadRequestError, StoreClosedError

#: Largest message: what any client of the daemon can send.
MOST_BYTES = 1 << 20
#: One wait for events, seconds; the next follows at once.
WAIT_S = 20.0


@click.command()
@json_option
@click.option(
    "--session",
    "session_id",
    metavar="SESSION",
    shell_complete=suggest.sessions,
    help="Default: a new session.",
)
@click.option("--wait", is_flag=True, help="Wait for the reply and print it.")
@click.argument("text", required=False)
@click.pass_context
def send(
    ctx: click.Context, as_json: bool, session_id: str | None, wait: bool, text: str | None
) -> None:
    """Send TEXT, or what standard input holds, to a session.

    It is durable when this returns. Exit codes with --wait: 0 replied, 1 failed, cancelled or parked.
    """
    if text is None or text == "-":
        if sys.stdin.isatty():
            raise click.UsageError("Give a TEXT, or pipe one in.")
        text = read_message()
    ctx.exit(send_one(text, session_id, wait=wait, as_json=as_json))


def send_one(text: str, session_id: str | None, *, wait: bool, as_json: bool) -> int:
    """Send one message, print what is asked for, return the exit code."""
    _check_text(text)  # Before a session is made for it.
    client = reach().client
    session = open_session(client, session_id)
    ids = {"session_id": session["id"], **admit(client, session["id"], text)}
    if not wait:
        return _say_ids(ids, as_json=as_json)
    try:
        ended = wait_for_reply(client, ids, session)
    except KeyboardInterrupt:
        note(f"no longer waited for; the turn goes on: netclaw sessions show {session['id']}")
        raise
    if as_json:
        say_json({**ids, **as_map(ended)})
    else:
        _say_reply(ended)
    if ended.waits:
        _say_what_waits(client, session["id"])
    elif ended.state == "queued":
        note(
            f"the message waits behind a turn that is parked: netclaw chat --session {session['id']}"
        )
    return 0 if ended.state == "completed" else 1


def open_session(client: ControlClient, session_id: str | None) -> dict[str, Any]:
    """Return the session, a new one for None."""
    if session_id is None:
        return dict(client.call("create_session"))
    return dict(client.call("session", session_id=session_id))


def admit(client: ControlClient, session_id: str, text: str) -> dict[str, Any]:
    """Make an input durable, whatever restarts come between; return its ids.

    The key makes a repeat harmless when the connection ended before the answer.
    """
    _check_text(text)
    key = secrets.token_hex(16)
    found = call_patiently(client, "admit", session_id=session_id, text=text, key=key)
    return {name: found[name] for name in ("input_id", "turn_id", "deferred")}


def read_message() -> str:
    """Return what standard input holds, without its last newline."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _check_text(text: str) -> None:
    if not text.strip():
        raise BadRequestError("The message is empty.", "Say something.")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # An argument's bytes that are no text are lone surrogates.
        raise _not_utf8() from None
    if size > MOST_BYTES:
        raise BadRequestError(
            f"The message has {size} bytes, more than {MOST_BYTES}.",
            "Say less, or put it into a file that the agent can read.",
        )


def _not_utf8() -> BadRequestError:
    return BadRequestError("The message is not UTF-8.", "Convert it, for example with iconv(1).")


def _say_ids(ids: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        say_json(ids)
    else:
        later = " It runs after the restart." if ids["deferred"] else ""
        click.echo(f"Sent to {ids['session_id']} as {ids['turn_id']}.{later}")
    return 0


@frozen
class Ended:
    state: str
    reply: str
    #: Tokens of the turn, None where they are not known.
    usage: Usage | None = None
    #: Tokens of the session so far, likewise.
    session_usage: Usage | None = None
    #: Slug and reason of a failure.
    error: Mapping[str, str] | None = None
    #: Ids of the approvals that the turn waits for.
    waits: tuple[str, ...] = ()


def wait_for_reply(client: ControlClient, ids: dict[str, Any], session: Mapping[str, Any]) -> Ended:
    """Wait until the turn ends or is parked; what happens meanwhile is said on stderr."""
    if session["turn_state"] == "parked":
        return Ended("queued", "")
    screen, reading = Screen(session["last_seq"]), _Reading(ids["turn_id"])
    screen.used = usage(session.get("usage"))
    while True:
        try:
            events = client.call(
                "events", session_id=ids["session_id"], after=screen.last_seq, wait_s=WAIT_S
            )
        except StoreClosedError:  # between two generations
            time.sleep(0.1)
            continue
        for event in events:
            if (state := reading.take(event, screen.on_event(event))) is not None:
                used = screen.used_by(ids["turn_id"])
                waits = tuple(reading.asked) if state == "parked" else ()
                return Ended(state, reading.reply, used, screen.used, reading.error, waits)


def _say_reply(ended: Ended) -> None:
    if ended.reply:
        write(ended.reply.removesuffix("\n") + "\n")
    if ended.usage is not None:
        note(spent(ended.usage, ended.session_usage))


class _Reading:
    """What comes of one turn."""

    def __init__(self, turn_id: str) -> None:
        self._turn_id = turn_id
        #: What the model has said last.
        self._said = ""
        self.reply = ""
        self.error: Mapping[str, str] | None = None
        #: Approvals that are asked for, by id, in order.
        self.asked: dict[str, None] = {}

    def take(self, event: Mapping[str, Any], pieces: Iterable[Piece]) -> str | None:
        """Take an event; return the turn's state once it needs nobody, or somebody else."""
        if event["turn_id"] != self._turn_id:  # One before it, which it may have to wait for.
            return "queued" if event["type"] == "turn.parked" else None
        if event["type"] == "model.completed":
            self._said = event["text"]
        if event["type"] == "turn.completed":  # Whatever delivers it.
            self.reply = self._said
        if event["type"] == "turn.failed":
            self.error = {"slug": event.get("slug", ""), "reason": event.get("reason", "")}
        state = None
        for piece in pieces:
            state = self._take(piece) or state
        return state

    def _take(self, piece: Piece) -> str | None:
        match piece.kind:
            case Kind.TURN_ENDED:
                return piece.text
            case Kind.WAITS:
                return "parked"
            case Kind.ASK:
                self.asked[piece.about] = None
                note(visible(piece.text))
            case Kind.DECIDED:
                self.asked.pop(piece.about, None)
                note(visible(piece.text))
            case Kind.NOTE | Kind.TROUBLE:
                note(visible(piece.text))
        return None


def _say_what_waits(client: ControlClient, session_id: str) -> None:
    """Say how to see and grant what a turn waits for, and where its reply will be."""
    pending = call_patiently(client, "approvals")
    mine = [approval for approval in pending if approval["session_id"] == session_id]
    if not mine:  # decided by now
        return note(f"the turn goes on: netclaw chat --session {session_id}")
    names = " ".join(approval["id"] for approval in mine)
    note(f"the turn waits{until(mine[0])}")
    note(f"see what is asked: netclaw approvals show {names}")
    note(f"let it go on: netclaw approvals grant {names}")
    return note(f"answer, and see the reply: netclaw chat --session {session_id}")
