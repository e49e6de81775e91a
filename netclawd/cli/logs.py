"""``netclaw logs``: a daemon's log in the journal or in files, its crash logs; else where the log goes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from netclawd.cli import suggest
from netclawd.cli.journal_log import LogUnit, json_of, line_of, open_journal, unit_of
from netclawd.cli.launch import log_path
from netclawd.cli.log_reader import (
    LogReader,
    S6LogReader,
    SessionLines,
    is_written,
    open_log,
    s6_log_path,
)
from netclawd.cli.output import ago, json_option, note, say_json, table, visible
from netclawd.cli.reach import Daemon, own_paths, reach_or_none
from netclawd.core.container import CONTAINER_LOG, Container
from netclawd.core.paths import Paths
from netclawd.errors import ControlError, NetclawError, NotFoundError

#: Seconds between two looks of ``--follow``.
LOOK_S = 0.25
#: A crash log is read up to here, bytes.
_CRASH_BYTES = 16 << 20
_DAEMON_START = "A daemon that `netclaw daemon start` started in the background writes one."
#: More lines than a log and its rotated files have.
_ALL = 1 << 40


@click.command()
@json_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until interrupted.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 1_000_000),
    default=50,
    show_default=True,
    help="So many of the last lines.",
)
@click.option(
    "--session",
    "session",
    metavar="ID",
    shell_complete=suggest.sessions,
    help="Only what is about this session.",
)
@click.option("--crashes", is_flag=True, help="List the crash logs, and show the newest.")
@click.option(
    "--crash",
    "crash_name",
    metavar="NAME",
    shell_complete=suggest.crash_logs,
    help="Show this crash log.",
)
def logs(
    as_json: bool,
    follow: bool,
    lines: int,
    session: str | None,
    crashes: bool,
    crash_name: str | None,
) -> None:
    """Show the log of the daemon: from the journal under systemd, else from its files.

    Works also while the daemon is down. A daemon in the foreground or under a supervisor other than
    systemd and s6 writes to its standard error: then this says where that goes.
    """
    if follow + crashes + (crash_name is not None) > 1:
        raise click.UsageError("--follow, --crashes and --crash exclude each other.")
    if session is not None and (crashes or crash_name is not None):
        raise click.UsageError("Crash logs are not about one session.")
    paths, daemon = own_paths(), None
    with contextlib.suppress(NetclawError):  # its log is all the more of interest
        daemon = reach_or_none(paths)
    path = log_path(paths if daemon is None else daemon.paths)
    if crash_name is not None:
        return _show_crash(os.path.dirname(path), crash_name, as_json=as_json)
    if crashes:
        return _list_crashes(os.path.dirname(path), as_json=as_json)
    unit = _owner(paths) if daemon is None else journal_unit(daemon.status["pid"])
    if unit is not None:
        return _show_journal(unit, lines, session, follow=follow, as_json=as_json)
    kept = _kept_by_s6(paths, daemon, path)
    with _open(path, daemon) if kept is None else S6LogReader(kept) as reader:
        return _show_file(reader, kept or path, lines, session, follow=follow, as_json=as_json)


# -- the journal ---------------------------------------------------------------------------------


def _owner(paths: Paths) -> LogUnit | None:
    """Return the unit that owns this home; None when systemd has none, or can't be asked."""
    from netclawd.cli.units import find_owner
    from netclawd.core.units import Owner, Scope

    try:
        owner = find_owner(paths)
    except NetclawError:
        return None
    if not isinstance(owner, Owner):
        return None
    if owner.borrowed:
        note(f"this is the log of the system's daemon, {owner.unit.name}.")
    return LogUnit(owner.unit.name, os.getuid() if owner.unit.scope == Scope.USER else None)


def _show_journal(
    unit: LogUnit, count: int, session: str | None, *, follow: bool, as_json: bool
) -> None:
    with open_journal(unit, session) as reader:
        records = reader.last(count)
        if not follow and not records and session is not None:
            note(f"nothing in the journal is about the session {visible(session)}.")
        if not follow and as_json:
            lines = [line_of(record) for record in records]
            return say_json(
                {"unit": unit.name, "lines": lines, "records": [*map(json_of, records)]}
            )
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                for record in records:
                    line = line_of(record)
                    text = {"line": line, "record": json_of(record)}
                    click.echo(json.dumps(text) if as_json else line)
                if not follow:
                    break
                records = reader.more(LOOK_S)
    return None


# -- the file ------------------------------------------------------------------------------------


def _kept_by_s6(paths: Paths, daemon: Daemon | None, path: str) -> str | None:
    """Return the log of s6-log when that has what the daemon says; ``path`` is of one without s6."""
    found = s6_log_path(paths if daemon is None else daemon.paths)
    if not os.path.exists(found):
        return None
    if daemon is None:
        newer = not os.path.exists(path) or os.stat(path).st_mtime < os.stat(found).st_mtime
        return found if newer or _container() is not None else None
    target = _target(daemon.status["pid"])
    if target is None:  # another user's; that one's supervisor is the container's
        return found if _container() is not None else None
    return found if target.startswith("pipe:") and is_written(found) else None


def _container() -> Container | None:
    from netclawd.cli.units import find_container

    return find_container()


def _show_file(
    reader: LogReader,
    path: str,
    count: int,
    session: str | None,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    wanted = SessionLines(session) if session is not None else list
    last = wanted(reader.last(_ALL if session is not None else count))
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            for line in _follow(reader, last[-count:] if count else [], wanted):
                click.echo(json.dumps({"line": line}) if as_json else line)
        return None
    last += wanted([rest] if (rest := reader.rest()) else [])
    texts = [_text(line) for line in last[-count:]] if count else []
    if not texts and session is not None:
        note(f"nothing in the log is about the session {visible(session)}.")
    if as_json:
        return say_json({"path": path, "lines": texts})
    for text in texts:
        click.echo(text)
    return None


def _text(line: bytes) -> str:
    return visible(line.decode(errors="replace"))


def _follow(
    reader: LogReader, lines: list[bytes], wanted: Callable[[Iterable[bytes]], list[bytes]]
) -> Iterator[str]:
    while True:
        yield from map(_text, lines)
        time.sleep(LOOK_S)
        lines = wanted(reader.more())


def _open(path: str, daemon: Daemon | None) -> LogReader:
    """Open the log; say so when the daemon that runs doesn't write there."""
    elsewhere = None if daemon is None else where_it_goes(daemon.status["pid"], path)
    try:
        reader = LogReader(path)
    except NotFoundError as error:
        if elsewhere is None:
            remedy = f"{_DAEMON_START} Under systemd the journal has it: `journalctl -u netclawd`."
            if _container() is not None:
                remedy = CONTAINER_LOG
            raise NotFoundError(error.what, remedy) from error
        what, remedy = elsewhere
        raise NotFoundError(f"{error.what} {what}", remedy) from error
    if elsewhere is not None:
        note(f"this log is an older daemon's. {' '.join(elsewhere)}")
    return reader


# -- where else it may go ------------------------------------------------------------------------


def journal_unit(pid: int) -> LogUnit | None:
    """Return the unit under which a daemon logs to the journal; None when it logs elsewhere.

    Of another user's daemon only its unit can be seen: that the journal has its log is then assumed.
    """
    target = _target(pid)
    if target is not None and target != f"socket:[{_journal_inode(pid)}]":
        return None
    return unit_of(pid)


def _journal_inode(pid: int) -> str:
    """Return which stream its supervisor connected to the journal (JOURNAL_STREAM, systemd.exec(5))."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            found = re.search(rb"(?:^|\0)JOURNAL_STREAM=\d+:(\d+)", file.read())
    except OSError:
        return ""
    return found[1].decode() if found else ""


def _target(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        return None


def where_it_goes(pid: int, path: str) -> tuple[str, str] | None:
    """Say where the standard error of a daemon goes, and how to see it; None when that is ``path``."""
    target = _target(pid)
    if target is None:
        whose = f"The daemon (pid {pid}) is another user's, so where its log goes can't be seen."
        return whose, "Run this as that user; under systemd: `journalctl -u netclawd`."
    if os.path.realpath(path) == target:
        return None
    who = f"The daemon (pid {pid}) writes its log"
    if target.startswith("socket:"):
        return f"{who} to a socket.", "Ask the supervisor that started it."
    if target.startswith("pipe:"):
        return f"{who} to a pipe.", "Ask what started it: a supervisor, a container's runtime."
    if target.startswith(("/dev/pts/", "/dev/tty", "/dev/console")):
        return f"{who} to its terminal, {target}.", _DAEMON_START
    if target == "/dev/null":
        return f"{who} nowhere (/dev/null).", _DAEMON_START
    return f"{who} to {visible(target)}.", f"Look there: `tail -f {visible(target)}`."


# -- crash logs ----------------------------------------------------------------------------------


def _list_crashes(folder: str, *, as_json: bool) -> None:
    found = [_facts(folder, name) for name in crash_names(folder)]
    if as_json:
        return say_json(found)
    if not found:
        return click.echo(f"There is no crash log in {folder}.")
    table(
        ("CRASH", "WHEN", "GENERATION", "PHASE", "REASON"),
        [
            (each["name"], ago(each["at"]), each["generation"], each["phase"], each["reason"])
            for each in found
        ],
    )
    click.echo(f"\n{found[0]['path']}:")
    return click.echo(_read(found[0]["path"]))


def _show_crash(folder: str, name: str, *, as_json: bool) -> None:
    if name not in crash_names(folder):
        raise NotFoundError(
            f"There is no crash log {visible(name)} in {folder}.",
            "List them: `netclaw logs --crashes`.",
        )
    path = os.path.join(folder, name)
    text = _read(path)
    if as_json:
        return say_json({"path": path, "text": text})
    return click.echo(text)


def crash_names(folder: str) -> list[str]:
    """Return the names of the crash logs, the newest first."""
    try:
        with os.scandir(folder) as entries:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name)
                for entry in entries
                if re.fullmatch(r"crash-[0-9TZ-]+\.log", entry.name) and entry.is_file()
            ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ControlError(
            f"The logs in {folder} can't be read: {error.strerror}.",
            "Run this as the daemon's user, or as root.",
        ) from error
    return [name for _, name in sorted(found, reverse=True)]


def _facts(folder: str, name: str) -> dict[str, Any]:
    """Return what the head of a crash log says."""
    path = os.path.join(folder, name)
    head = dict(re.findall(r"^(reason|generation|phase|pid): (.*)$", _read(path)[:4096], re.M))
    facts = {key: head.get(key, "") for key in ("reason", "generation", "phase", "pid")}
    return {"name": name, "path": path, "at": os.stat(path).st_mtime, **facts}


def _read(path: str) -> str:
    file = open_log(path)
    if file is None:
        raise NotFoundError(f"The crash log {path} is gone.", "Only the newest twenty are kept.")
    with file:
        return visible(file.read(_CRASH_BYTES).decode(errors="replace")).rstrip("\n")
