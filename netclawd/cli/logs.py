"""``netclaw logs``: what a detached daemon has written, and its crash logs; else where the log goes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from typing import Any

import click

from netclawd.cli import suggest
from netclawd.cli.launch import log_path
from netclawd.cli.log_reader import LogReader, open_log
from netclawd.cli.output import ago, json_option, note, say_json, table, visible
from netclawd.cli.reach import Daemon, own_paths, reach_or_none
from netclawd.errors import ControlError, NetclawError, NotFoundError

#: Seconds between two looks of ``--follow``.
LOOK_S = 0.25
#: A crash log is read up to here, bytes.
_CRASH_BYTES = 16 << 20
_DAEMON_START = "A daemon that `netclaw daemon start` started writes one."


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
@click.option("--crashes", is_flag=True, help="List the crash logs, and show the newest.")
@click.option(
    "--crash",
    "crash_name",
    metavar="NAME",
    shell_complete=suggest.crash_logs,
    help="Show this crash log.",
)
def logs(as_json: bool, follow: bool, lines: int, crashes: bool, crash_name: str | None) -> None:
    """Show the log of a daemon that was started by `netclaw daemon start`.

    Works also while the daemon is down. A daemon in the foreground or under a supervisor writes to
    its standard error: then this says where that goes.
    """
    if follow + crashes + (crash_name is not None) > 1:
        raise click.UsageError("--follow, --crashes and --crash exclude each other.")
    paths, daemon = own_paths(), None
    with contextlib.suppress(NetclawError):  # its log is all the more of interest
        daemon = reach_or_none(paths)
    path = log_path(paths if daemon is None else daemon.paths)
    if crash_name is not None:
        return _show_crash(os.path.dirname(path), crash_name, as_json=as_json)
    if crashes:
        return _list_crashes(os.path.dirname(path), as_json=as_json)
    with _open(path, daemon) as reader:
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                _follow(reader, lines, as_json=as_json)
            return None
        found = reader.last(lines)
        found += [rest] if (rest := reader.rest()) else []
        texts = [_text(line) for line in found[-lines:]] if lines else []
    if as_json:
        return say_json({"path": path, "lines": texts})
    for text in texts:
        click.echo(text)
    return None


def _text(line: bytes) -> str:
    return visible(line.decode(errors="replace"))


def _follow(reader: LogReader, count: int, *, as_json: bool) -> None:
    lines = reader.last(count)
    while True:
        for line in lines:
            click.echo(json.dumps({"line": _text(line)}) if as_json else _text(line))
        time.sleep(LOOK_S)
        lines = reader.more()


def _open(path: str, daemon: Daemon | None) -> LogReader:
    """Open the log; say so when the daemon that runs doesn't write there."""
    elsewhere = None if daemon is None else where_it_goes(daemon.status["pid"], path)
    try:
        reader = LogReader(path)
    except NotFoundError as error:
        if elsewhere is None:
            remedy = f"{_DAEMON_START} Under systemd the journal has it: `journalctl -u netclawd`."
            raise NotFoundError(error.what, remedy) from error
        what, remedy = elsewhere
        raise NotFoundError(f"{error.what} {what}", remedy) from error
    if elsewhere is not None:
        note(f"this log is an older daemon's. {' '.join(elsewhere)}")
    return reader


# -- where else it may go ------------------------------------------------------------------------


def where_it_goes(pid: int, path: str) -> tuple[str, str] | None:
    """Say where the standard error of a daemon goes, and how to see it; None when that is ``path``."""
    try:
        target = os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        whose = f"The daemon (pid {pid}) is another user's, so where its log goes can't be seen."
        return whose, "Run this as that user; under systemd: `journalctl -u netclawd`."
    if os.path.realpath(path) == target:
        return None
    who = f"The daemon (pid {pid}) writes its log"
    if target.startswith("socket:"):
        unit, user = _unit(pid)
        if unit is not None:
            scope = "--user " if user else ""
            return f"{who} to the journal.", f"See it: `journalctl {scope}-u {unit}`."
        return f"{who} to a socket.", "Ask the supervisor that started it."
    if target.startswith("pipe:"):
        return f"{who} to a pipe.", "Ask what started it: a supervisor, a container's runtime."
    if target.startswith(("/dev/pts/", "/dev/tty", "/dev/console")):
        return f"{who} to its terminal, {target}.", _DAEMON_START
    if target == "/dev/null":
        return f"{who} nowhere (/dev/null).", _DAEMON_START
    return f"{who} to {visible(target)}.", f"Look there: `tail -f {visible(target)}`."


def _unit(pid: int) -> tuple[str | None, bool]:
    """Return the service that a process belongs to, by its cgroup, and whether it is a user's."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None, False
    services: list[str] = re.findall(r"/([A-Za-z0-9@_.\\:-]+\.service)", text)
    return (services[-1] if services else None), len(services) > 1


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
