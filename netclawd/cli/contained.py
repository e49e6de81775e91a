"""``netclaw daemon …`` where something else starts the daemon: s6 in a container, as its marker says.

Invariant: nothing here starts a process of netclawd. s6 is asked for one, or it is said why it can't be.
"""

from __future__ import annotations

import time

import click

from netclawd.cli.launch import Stopped, stop_running, stop_silent, tell_stopped
from netclawd.cli.output import note, say_json, visible
from netclawd.cli.reach import reach, reach_or_none
from netclawd.cli.reload import reload_and_wait
from netclawd.cli.s6 import down_command
from netclawd.cli.s6_known import Known, capital, describe_known, is_outside, know, known_json
from netclawd.cli.s6_start import start
from netclawd.cli.status import describe, exit_code
from netclawd.core.container import Container
from netclawd.core.paths import Paths
from netclawd.core.s6 import STOPPING
from netclawd.errors import ControlError, NetclawError, NoAnswerError, NotRunningError

# -- stop and restart ----------------------------------------------------------------------------


def stop(container: Container, paths: Paths, *, as_json: bool) -> int:
    """End the daemon with a drain and say what its supervisor does next; return the exit code."""
    began = time.monotonic()
    try:
        running = reach_or_none(paths)
    except NoAnswerError:
        if not as_json:
            note("the daemon does not answer; it is sent SIGTERM, and SIGKILL if it does not end.")
        stopped = stop_silent(paths)
    else:
        if running is None:
            return _say_nothing_to_stop(container, as_json=as_json)
        stopped = stop_running(running, quiet=as_json)
    return _say_stopped(container, stopped, time.monotonic() - began, as_json=as_json)


def _say_nothing_to_stop(container: Container, *, as_json: bool) -> int:
    known = know(container)
    if as_json:
        say_json({"stopped": False, "clean": True, **known_json(container, known, None)})
    else:
        click.echo(f"No daemon runs here; nothing to stop. {describe_known(container, known)}")
        if known.service is not None and known.service.wanted:
            click.echo(f"  {_how_to_keep_down(container)}")
    return 0


def _say_stopped(container: Container, stopped: Stopped, took_s: float, *, as_json: bool) -> int:
    known = know(container)
    again = known.service is None or known.service.wanted
    if as_json:
        shown = {"stopped": True, "clean": stopped.clean, "killed": stopped.killed}
        say_json({**shown, "starts_again": again, **known_json(container, known, None)})
        return 0 if stopped.clean else 1
    tell_stopped(stopped, took_s)
    if again:
        click.echo(f"{capital(container.label)} will start it again in a moment.")
        click.echo(f"  {_how_to_keep_down(container)}")
    else:
        click.echo(f"{capital(container.label)} keeps it down until `netclaw daemon start`.")
    return 0 if stopped.clean else 1


def _how_to_keep_down(container: Container) -> str:
    return (
        f"To keep it down, stop the container, or bring the service down: `{down_command(container)}`; "
        "`netclaw daemon start` brings it up again."
    )


def restart(container: Container, paths: Paths, *, as_json: bool) -> int:
    """Re-execute the daemon in place, which needs no supervisor; have it started when none runs."""
    running = reach_or_none(paths)
    if running is None or running.status["phase"] == STOPPING:
        return start(container, paths, as_json=as_json)
    return reload_and_wait(running.client, force=True, as_json=as_json)


# -- status --------------------------------------------------------------------------------------


def status(container: Container, paths: Paths, *, as_json: bool) -> int:
    """Show what the daemon says of itself and its supervisor beside it; return the exit code."""
    try:
        running = reach(paths)
    except NotRunningError as error:
        known = know(container)
        down = with_service(container, error, known)
        if not as_json:
            raise down from error
        body = {"slug": down.slug, "what": down.what, "remedy": down.remedy}
        say_json({"error": body, **known_json(container, known, None)})
        return down.exit_code
    except ControlError as error:  # it may not be asked, or does not answer: s6 knows more
        raise with_service(container, error, know(container)) from error
    known = know(container)
    if is_outside(running, known.service):
        known = know(container)
    found = running.status
    if as_json:
        say_json({**found, **known_json(container, known, running)})
    else:
        click.echo("\n".join(describe(found)))
        beside = "; it did not start this daemon" if is_outside(running, known.service) else ""
        said = describe_known(container, known).rstrip(".")
        click.echo(f"  {'supervisor':<14} {visible(said)}{beside}")
    return exit_code(found)


def with_service(container: Container, error: NetclawError, known: Known) -> NetclawError:
    """Add what s6 knows to an error of a daemon that does not answer."""
    remedy = error.remedy
    if isinstance(error, NotRunningError):
        if known.why_not is not None:
            remedy = known.why_not.remedy
        elif known.service is not None and known.service.up:
            remedy = "See why it is not ready: `netclaw logs`."
            if known.service.waiting:
                remedy = "See why with `netclaw logs`; `netclaw daemon start` starts it now."
    return type(error)(f"{error.what} {describe_known(container, known)}", remedy)
