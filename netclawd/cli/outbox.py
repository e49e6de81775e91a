"""``netclaw outbox``: what goes out through a channel and has not arrived, and what a person decides of it.

It is read from the daemon, or from the store when it is down; only the daemon changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from netclawd.cli import suggest
from netclawd.cli.output import ago, ahead, count, json_option, say_json, table, visible
from netclawd.cli.reach import call_patiently, reach, reading
from netclawd.core.remarks import shortened

if TYPE_CHECKING:
    from netclawd.adapters.control_client import ControlClient
    from netclawd.adapters.store.sqlite import SqliteStore

Message = Mapping[str, Any]

#: Characters of a text in the list, and where it is repeated.
_SHORT, _REPEATED = 40, 80
_HEAD = ("MESSAGE", "KIND", "STATE", "SINCE", "TRIES", "TO", "TEXT")


@click.group()
def outbox() -> None:
    """See what has not reached its conversation, send it again or drop it."""


@outbox.command("list")
@json_option
@click.option("--all", "everything", is_flag=True, help="What is sent or dropped, too.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=200,
    show_default=True,
    help="So many at most, the newest.",
)
def list_(as_json: bool, everything: bool, limit: int) -> None:
    """List messages that are not sent, the oldest first; works also while the daemon is down."""
    found = _read(everything, limit)
    if as_json:
        return say_json(found)
    if not found:
        return click.echo("The outbox is empty." if everything else "All that was to be sent is.")
    table(_HEAD, map(_row, found))
    for line in troubles(found):
        click.echo(line)
    if len(found) == limit:
        click.echo(f"There may be older ones: --limit {min(1000, 5 * limit)}")
    return None


def _read(everything: bool, limit: int) -> list[dict[str, Any]]:
    def of_daemon(client: ControlClient) -> list[dict[str, Any]]:
        return list(call_patiently(client, "outbox", all=everything, limit=limit))

    def of_store(store: SqliteStore) -> list[dict[str, Any]]:
        from netclawd.core.listing import UNSENT, message_object

        found = store.outgoing.messages(() if everything else UNSENT, limit)
        return [message_object(each) for each in found]

    alone = "no daemon runs, so nothing is delivered; `netclaw daemon start` starts one."
    with reading(of_daemon, of_store, else_=alone) as found:
        return found


def _row(message: Message) -> tuple[str, ...]:
    return (
        message["id"],
        message["kind"],
        message["state"],
        ago(message["changed_at"]),
        str(message["attempts"] or "-"),
        _place(message),
        shortened(visible(message["text"]), _SHORT),
    )


def _place(message: Message) -> str:
    return visible(f"{message['channel']} {message['route']}")


def troubles(found: Sequence[Message]) -> Iterator[str]:
    """Say of each message that is stuck why, and what to do."""
    for each in found:
        name, error = each["id"], visible(" ".join(each["error"].split()))
        match each["state"]:
            case "ambiguous":
                yield (
                    f"{name}: nobody knows whether it has arrived. {error}".rstrip() + " Look into "
                    f"the conversation: if it is not there, `netclaw outbox retry {name}` sends it; "
                    f"if it is, `netclaw outbox drop {name}` ends the matter."
                )
            case "failed":
                why = error or "nobody knows why."
                yield (
                    f"{name}: not delivered: {why} `netclaw outbox retry {name}` sends it again, "
                    f"`netclaw outbox drop {name}` gives it up."
                )
            case "pending" if error:
                yield f"{name}: tried again {_again(each)}: {error}"


def _again(message: Message) -> str:
    from netclawd.adapters.clock import SystemClock

    due = message["due_at"]
    return f"in {ahead(due)}" if due > SystemClock().wall() else "soon"


def _id_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("message_id", metavar="ID", shell_complete=suggest.messages)(command)


@outbox.command()
@json_option
@_id_argument
def retry(as_json: bool, message_id: str) -> None:
    """Send a message now: one that is ambiguous or failed, or that waits for its next try.

    An ambiguous one may then be there twice.
    """
    message = call_patiently(reach().client, "retry_outgoing", message_id=message_id)
    if as_json:
        return say_json(message)
    return click.echo(
        f"To be sent now: {_named(message)}. `netclaw outbox list` shows it until it is."
    )


@outbox.command()
@json_option
@_id_argument
def drop(as_json: bool, message_id: str) -> None:
    """Give a message up: it is not sent any more. The session keeps what it says."""
    message = call_patiently(reach().client, "drop_outgoing", message_id=message_id)
    if as_json:
        return say_json(message)
    parts = len(message["receipts"])
    stays = "stays" if parts == 1 else "stay"
    there = f" {count(parts, 'part')} of it that arrived {stays} there." if parts else ""
    return click.echo(f"Dropped: {_named(message)}. It will not be sent any more.{there}")


def _named(message: Message) -> str:
    text = shortened(visible(message["text"]), _REPEATED)
    kind = {"said": "part of a reply"}.get(message["kind"], f"a {message['kind']}")
    return f"{message['id']}, {kind} to {_place(message)} ({text or 'no text'})"
