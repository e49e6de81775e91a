"""``netclaw reminders``: set reminders, look at them, hold them back, start them and take them away.

They are read from the daemon, or from the store when it is down; only the daemon changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import click

from netclawd.cli import suggest
from netclawd.cli.output import json_option, say_json, table, visible
from netclawd.cli.reach import call_patiently, reach, reading
from netclawd.core.durations import seconds_of

#: Reminders in one answer of the daemon.
_PAGE = 200


class Agenda(Protocol):
    """Reminders to read, wherever they are read from."""

    def reminders(self, *, all_: bool, occurrences: bool) -> list[dict[str, Any]]: ...
    def reminder(self, reminder_id: str) -> dict[str, Any]: ...


class _FromDaemon:
    def __init__(self, client: Any) -> None:
        self._call = partial(call_patiently, client)

    def reminders(self, *, all_: bool, occurrences: bool) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}  # One that has been due meanwhile comes again.
        cursor = None
        while True:
            page = self._call(
                "reminders", all=all_, occurrences=occurrences, cursor=cursor, limit=_PAGE
            )
            found.update((each["id"], each) for each in page["reminders"])
            cursor = page["next"]
            if cursor is None:
                return list(found.values())

    def reminder(self, reminder_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._call("reminder", reminder_id=reminder_id)
        return found


class _FromStore:
    def __init__(self, store: Any) -> None:
        self._store = store.reminders

    def reminders(self, *, all_: bool, occurrences: bool) -> list[dict[str, Any]]:
        found = self._store.reminders(all_=all_)
        if occurrences:
            return [self._whole(each) for each in found]
        from netclawd.core.reminders import as_json, under_way_of

        under_way = under_way_of(self._store.open_occurrences())
        return [as_json(each, under_way.get(each.id, ())) for each in found]

    def reminder(self, reminder_id: str) -> dict[str, Any]:
        return self._whole(self._store.reminder(reminder_id))

    def _whole(self, reminder: Any) -> dict[str, Any]:
        from netclawd.core.listing import OCCURRENCES
        from netclawd.core.reminders import as_json

        return as_json(reminder, self._store.occurrences(reminder.id, OCCURRENCES))


def agenda() -> AbstractContextManager[Agenda]:
    """Read from the daemon; from the store of this user when no daemon answers."""
    alone = "no daemon runs, so nothing is started; `netclaw daemon start` starts one."
    return reading(_FromDaemon, _FromStore, else_=alone)


def _seconds(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Read a DURATION."""
    try:
        return None if value is None else float(seconds_of(value))
    except ValueError as error:
        raise click.BadParameter(
            f"'{visible((value or '')[:40])}' is no duration: {error}"
        ) from None


@click.group()
def reminders() -> None:
    """Have the agent come back later: once, at intervals, or by the calendar."""


@reminders.command()
@json_option
@click.option("--in", "in_s", callback=_seconds, metavar="DURATION", help="Once, so long from now.")
@click.option("--at", metavar="TIME", help="Once, at this time: HH:MM or ISO 8601.")
@click.option(
    "--every",
    "every_s",
    callback=_seconds,
    metavar="DURATION",
    help="Again and again, so far apart.",
)
@click.option("--cron", metavar="EXPR", help="By a cron expression of five fields, in quotes.")
@click.option(
    "--tz",
    metavar="ZONE",
    help="Time zone of TIME and EXPR; default: the host's.",
    shell_complete=suggest.zones,
)
@click.option(
    "--missed",
    type=click.Choice(["skip", "once", "all"]),
    default="once",
    show_default=True,
    help="What becomes of those that were due while the daemon could not start them.",
)
@click.option(
    "--max-late",
    "max_late_s",
    callback=_seconds,
    default="1h",
    metavar="DURATION",
    show_default=True,
    help="A missed one that is later than this is skipped.",
)
@click.option(
    "--session",
    "session_id",
    metavar="SESSION",
    help="Speak in this session instead of one of its own.",
    shell_complete=suggest.sessions,
)
@click.argument("text")
def add(as_json: bool, text: str, **asked: Any) -> None:
    """Set a reminder: TEXT is what the agent is told when it is due.

    Say when by one of --in, --at, --every and --cron. A DURATION is 30s, 5m, 2h, 1d or 1h30m.
    """
    _insist_on_one_schedule(asked)
    if not text.strip():
        raise click.UsageError("TEXT is empty: say what the agent is to be told.")
    for name, option in (("session_id", "--session"), ("tz", "--tz")):
        if asked[name] == "":  # A variable of the shell that isn't set.
            raise click.UsageError(f"{option} is empty: say which, or leave it out.")
    from netclawd.adapters.clock import RandomIds

    # The same key each time: however often it is asked for, it is set once.
    key = RandomIds().new("k")
    made = call_patiently(reach().client, "add_reminder", text=text, key=key, **asked)
    if as_json:
        return say_json(made)
    from netclawd.cli.reminder_words import describe_new

    return click.echo("\n".join(describe_new(made)))


def _insist_on_one_schedule(asked: dict[str, Any]) -> None:
    options = {"in_s": "--in", "at": "--at", "every_s": "--every", "cron": "--cron"}
    given = [option for name, option in options.items() if asked[name] is not None]
    if not given:
        raise click.UsageError("Say when: --in 30s, --at 08:00, --every 1h or --cron '0 8 * * *'.")
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other.")


@reminders.command("list")
@json_option
@click.option("--all", "everything", is_flag=True, help="Those that are done or removed, too.")
def list_(as_json: bool, everything: bool) -> None:
    """List reminders, the next due first; works also while the daemon is down."""
    with agenda() as source:
        found = source.reminders(all_=everything, occurrences=as_json)
    if as_json:
        return say_json(found)
    from netclawd.cli import reminder_words

    if not found:
        return click.echo(reminder_words.none(everything=everything))
    table(reminder_words.HEAD, map(reminder_words.row, found))
    for line in reminder_words.troubles(found):
        click.echo(line)
    return None


def _id_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("reminder_id", metavar="ID", shell_complete=suggest.reminders)(command)


@reminders.command()
@json_option
@_id_argument
def show(as_json: bool, reminder_id: str) -> None:
    """Show a reminder and its newest occurrences; works also while the daemon is down."""
    with agenda() as source:
        found = source.reminder(reminder_id)
    if as_json:
        return say_json(found)
    from netclawd.cli import reminder_words

    click.echo("\n".join(reminder_words.describe(found)))
    if found["occurrences"]:
        click.echo()
        table(
            reminder_words.OCCURRENCE_HEAD,
            (reminder_words.occurrence_row(found, each) for each in found["occurrences"]),
        )
    return None


@reminders.command()
@json_option
@_id_argument
def pause(as_json: bool, reminder_id: str) -> None:
    """Start nothing of a reminder until it is resumed; a turn that runs goes on."""
    _change("pause_reminder", reminder_id, as_json=as_json)


@reminders.command()
@json_option
@_id_argument
def resume(as_json: bool, reminder_id: str) -> None:
    """Let a paused reminder go on; its failures so far are forgotten."""
    _change("resume_reminder", reminder_id, as_json=as_json)


@reminders.command()
@json_option
@_id_argument
def run(as_json: bool, reminder_id: str) -> None:
    """Start a reminder now, besides its schedule."""
    _change("run_reminder", reminder_id, as_json=as_json)


@reminders.command()
@json_option
@_id_argument
def remove(as_json: bool, reminder_id: str) -> None:
    """Take a reminder away; its session stays, and a turn that runs goes on."""
    _change("remove_reminder", reminder_id, as_json=as_json)


def _change(do: str, reminder_id: str, *, as_json: bool) -> None:
    changed = call_patiently(reach().client, do, reminder_id=reminder_id)
    if as_json:
        return say_json(changed)
    from netclawd.cli.reminder_words import describe_change

    return click.echo("\n".join(describe_change(do, changed)))
