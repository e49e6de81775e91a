"""``netclaw daemon``: starts, stops and restarts a daemon, itself or through who owns the home.

Invariant: only where nobody owns it does a command here start a process of netclawd.
"""

from __future__ import annotations

import os
import time

import click

from netclawd.cli import contained, s6_start, supervised
from netclawd.cli.install import install, uninstall
from netclawd.cli.launch import (
    Launched,
    Stopped,
    launch,
    log_path,
    stop_running,
    stop_silent,
    tell_stopped,
)
from netclawd.cli.output import json_option, note, say_json
from netclawd.cli.reach import Daemon, answers_for, own_paths, reach_or_none
from netclawd.cli.reload import reload_and_wait
from netclawd.cli.status import status as plain_status
from netclawd.cli.units import Ownership, find_owner
from netclawd.core.container import Container
from netclawd.core.paths import Paths
from netclawd.core.units import Owner
from netclawd.errors import NoAnswerError


@click.group()
def daemon() -> None:
    """Start and stop the daemon."""


daemon.add_command(install)
daemon.add_command(uninstall)


def _owner(paths: Paths) -> Ownership:
    """Return who owns the lifecycle here; say so when it is the system's for want of one's own."""
    owner = find_owner(paths)
    if not isinstance(owner, Owner) or not owner.borrowed:
        return owner
    if answers_for(paths):
        return None
    note(f"this user has no unit: this is the daemon of the system, {owner.label}.")
    return owner


@daemon.command()
@json_option
@click.pass_context
def start(ctx: click.Context, as_json: bool) -> None:
    """Start the daemon in the background and wait until it is ready.

    By systemd when a unit owns this home, by the container's supervisor in a container; they then are
    the only ones that ever start it.

    Exit codes: 0 it is ready, or was already; otherwise the daemon's own.
    """
    ctx.exit(start_through_owner(own_paths(), as_json=as_json))


def start_through_owner(paths: Paths, *, as_json: bool) -> int:
    """Have the daemon started by who owns this home, wait until it is ready, report; return the exit code.

    Starts it itself only where nobody owns the home. 0 also when one runs already.
    """
    match _owner(paths):
        case Container() as container:
            return s6_start.start(container, paths, as_json=as_json)
        case Owner() as owner:
            return supervised.start(owner, as_json=as_json)
    running = reach_or_none(paths)
    if running is not None:
        return _say_running(running, as_json=as_json)
    return _start(paths, as_json=as_json)


def _say_running(running: Daemon, *, as_json: bool) -> int:
    pid, phase = running.status["pid"], running.status["phase"]
    if as_json:
        say_json({"started": False, "pid": pid, "phase": phase})
    else:
        click.echo(f"The daemon runs already: pid {pid}, {phase}.")
    return 0


def _start(paths: Paths, *, as_json: bool) -> int:
    launched = launch(paths, os.environ)
    if launched.status is None:
        return _say_failed(launched, log_path(paths), as_json=as_json)
    found = launched.status
    if as_json:
        say_json({"started": True, "pid": found["pid"], "generation": found["generation"]})
    else:
        click.echo(
            f"The daemon is {found['phase']}: pid {found['pid']}, generation "
            f"{found['generation']}, answers on {', '.join(found['addresses'])}."
        )
    return 0


def _say_failed(launched: Launched, log: str, *, as_json: bool) -> int:
    if as_json:
        say_json({"started": False, "exit_code": launched.code, "log": launched.last_lines})
    else:
        if launched.ended:
            note(f"the daemon did not start (exit code {launched.code}). The end of {log}:")
        else:
            note(f"the daemon is not ready yet; it was left running. The end of {log}:")
        for line in launched.last_lines or ["(nothing was written)"]:
            click.echo(f"  {line}", err=True)
    return launched.code


@daemon.command()
@json_option
@click.pass_context
def stop(ctx: click.Context, as_json: bool) -> None:
    """Let the daemon finish or set aside what it does, and end it.

    In a container its supervisor starts it again; the command says how to keep it down.

    Exit codes: 0 stopped cleanly or was not running, 1 not cleanly.
    """
    paths = own_paths()
    match _owner(paths):
        case Container() as container:
            ctx.exit(contained.stop(container, paths, as_json=as_json))
        case Owner() as owner:
            ctx.exit(supervised.stop(owner, as_json=as_json))
    try:
        running = reach_or_none(paths)
    except NoAnswerError:
        ctx.exit(_stop_silent(paths, as_json=as_json))
    if running is None:
        if as_json:
            say_json({"stopped": False, "clean": True})
        else:
            click.echo("No daemon runs here; nothing to stop.")
        return
    began = time.monotonic()
    stopped = stop_running(running, quiet=as_json)
    ctx.exit(_say_stopped(stopped, time.monotonic() - began, as_json=as_json))


def _stop_silent(paths: Paths, *, as_json: bool) -> int:
    if not as_json:
        note("the daemon does not answer; it is sent SIGTERM, and SIGKILL if it does not end.")
    began = time.monotonic()
    return _say_stopped(stop_silent(paths), time.monotonic() - began, as_json=as_json)


def _say_stopped(stopped: Stopped, took_s: float, *, as_json: bool) -> int:
    if as_json:
        say_json({"stopped": True, "clean": stopped.clean, "killed": stopped.killed})
    else:
        tell_stopped(stopped, took_s)
    return 0 if stopped.clean else 1


@daemon.command()
@json_option
@click.pass_context
def restart(ctx: click.Context, as_json: bool) -> None:
    """Re-execute the daemon in place, under the same PID; start it when it is not running.

    Where a unit owns this home by `systemctl reload`, which does so only when something is new.
    """
    paths = own_paths()
    match _owner(paths):
        case Container() as container:
            ctx.exit(contained.restart(container, paths, as_json=as_json))
        case Owner() as owner:
            ctx.exit(supervised.restart(owner, as_json=as_json))
    running = reach_or_none(paths)
    if running is None:
        ctx.exit(_start(paths, as_json=as_json))
    ctx.exit(reload_and_wait(running.client, force=True, as_json=as_json))


@daemon.command(params=plain_status.params)
@click.pass_context
def status(ctx: click.Context, as_json: bool, watch: bool, probe: str | None) -> None:
    """Show what the daemon does, and the unit or the container's supervisor that owns this home.

    Exit codes: 0 ready, 1 degraded, 3 not running, 4 starting, draining or stopping.
    """
    paths = own_paths()
    match None if watch or probe else _owner(paths):
        case Container() as container:
            ctx.exit(contained.status(container, paths, as_json=as_json))
        case Owner() as owner:
            ctx.exit(supervised.status(owner, as_json=as_json))
        case _:
            ctx.forward(plain_status)
