"""``netclaw daemon …`` where a unit of systemd owns the home: systemd acts, and this says what came of it.

Invariant: nothing here starts a process of netclawd. A daemon that somebody started beside the unit is
named as such, and only ever stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from netclawd.adapters.control_client import ControlClient
from netclawd.cli.launch import LAST_LINES, LOOK_ANSWER_S, Stopped, stop_running
from netclawd.cli.output import count, duration, note, say_json, visible
from netclawd.cli.progress import Progress, describe_wait
from netclawd.cli.reach import Daemon, reach, reach_or_none
from netclawd.cli.reload import GOOD, reload_and_wait, report_entry
from netclawd.cli.status import describe, exit_code
from netclawd.cli.units import (
    ANSWER_S,
    Answer,
    arguments,
    call,
    failed,
    last_lines,
    look_again,
    one_line,
)
from netclawd.core import budgets
from netclawd.core.paths import Paths
from netclawd.core.units import Owner, Scope, Unit
from netclawd.core.values import frozen, replace
from netclawd.errors import (
    EXIT_CONFIG,
    EXIT_FAILURE,
    EXIT_TEMPORARY,
    ControlError,
    NetclawError,
    NotRunningError,
    SupervisorError,
)

#: systemd ends by itself what takes longer than its own limits; this is for one that doesn't, seconds.
SPARE_S = 15.0
START_S = budgets.UNIT_START_S + SPARE_S
#: TimeoutStopSec= counts twice: up to SIGTERM's effect, then up to SIGKILL's.
STOP_S = 2 * budgets.UNIT_STOP_S + SPARE_S
#: Journal entries among which a new one is looked for.
ENTRIES = 50


def exactly(owner: Owner) -> Paths:
    """Return the owner's paths as a chosen home: where it is silent nobody else is meant."""
    return replace(owner.paths, chosen=True)


def answering(owner: Owner) -> Daemon | None:
    """Return the daemon that answers in the owner's home, None also when it can't be asked."""
    with contextlib.suppress(ControlError):
        return reach_or_none(exactly(owner))
    return None


def look_at_both(owner: Owner) -> tuple[Owner, Daemon | None]:
    """Return the owner with its unit as it is now, and the daemon that answers in its home."""
    running = answering(owner)
    return replace(owner, unit=unit_beside(owner, running)), running


def unit_beside(owner: Owner, running: Daemon | None) -> Unit:
    """Return the owner's unit, looked at again if it is not the daemon's.

    systemd may have started that one since the first look: then nobody did it by hand.
    """
    return look_again(owner) if is_outside(running, owner.unit) else owner.unit


def is_outside(daemon: Daemon | None, unit: Unit) -> bool:
    """Whether a daemon runs in the unit's home that the unit did not start."""
    return daemon is not None and daemon.status["pid"] != unit.main_pid


# -- start ---------------------------------------------------------------------------------------


def start(owner: Owner, *, as_json: bool) -> int:
    """Let systemd start the unit, report, and return the exit code."""
    refuse_masked(owner.unit)
    owner, running = look_at_both(owner)
    if running is not None and (owner.unit.runs or is_outside(running, owner.unit)):
        return _say_running(owner.unit, running, as_json=as_json)
    unit, said = _start(owner, quiet=as_json)
    if said.code == 0 and unit.runs:
        return _say_started(unit, answering(owner), as_json=as_json)
    return _say_not_started(unit, said, as_json=as_json)


def _start(owner: Owner, *, quiet: bool) -> tuple[Unit, Answer]:
    """Start it; a latch of the start limit, or of a failure, is cleared first."""
    unit = owner.unit
    for last in (False, True):
        if unit.active == "failed":
            _do(owner, "reset-failed", ANSWER_S, quiet=quiet)
        said = _do(owner, "start", START_S, quiet=quiet)
        unit = look_again(owner)
        # The limit counts starts that went well, too: then nothing was failed beforehand.
        if last or said.code == 0 or unit.result != "start-limit-hit":
            break
    return unit, said


def refuse_masked(unit: Unit) -> None:
    """Raise SupervisorError when the unit is masked."""
    if unit.masked:
        raise SupervisorError(
            f"{unit.label} is masked: systemd starts no daemon here, and nothing else may.",
            f"Unmask it first: `{_systemctl(unit)} unmask {unit.name}`.",
        )


def _say_running(unit: Unit, running: Daemon, *, as_json: bool) -> int:
    pid, phase = running.status["pid"], running.status["phase"]
    outside = is_outside(running, unit)
    if as_json:
        say_json({"started": False, "pid": pid, "phase": phase, **_unit_json(unit, running)})
        return 0
    under = f", but not under {unit.label}" if outside else f", under {unit.label}"
    click.echo(f"The daemon runs already: pid {pid}, {phase}{under}.")
    if outside:
        note("it was started by hand; `netclaw daemon stop`, then `start`, gives it to systemd.")
    return 0


def _say_started(unit: Unit, running: Daemon | None, *, as_json: bool) -> int:
    found = running.status if running is not None else {}
    if as_json:
        generation = found.get("generation")
        shown = {"started": True, "pid": unit.main_pid, "generation": generation}
        say_json({**shown, **_unit_json(unit, running)})
    elif running is None:  # who may not ask it can still have it started
        click.echo(f"{unit.label} is {unit.active}: pid {unit.main_pid}.")
    else:
        click.echo(
            f"The daemon is {found['phase']}: pid {found['pid']}, generation "
            f"{found['generation']}, answers on {', '.join(found['addresses']) or 'no address'}; "
            f"under {unit.label}."
        )
    return 0


def _say_not_started(unit: Unit, said: Answer, *, as_json: bool) -> int:
    # Then, and without a result, what systemd still knows, and the journal, is of an earlier start.
    left_out = said.code == 0
    told = not left_out and unit.exit_code in (EXIT_TEMPORARY, EXIT_CONFIG)
    code = unit.exit_code if told and unit.exit_code else EXIT_FAILURE
    explained = unit.result != "success"
    lines = last_lines(unit, LAST_LINES) if explained and not left_out else []
    if as_json:
        say_json({"started": False, "exit_code": code, "log": lines, **_unit_json(unit, None)})
        return code
    note(f"the daemon did not start. {describe_unit(unit)}")
    if left_out:
        click.echo("  systemd left it out: a condition of the unit is not met.", err=True)
    elif said.stderr and not explained:
        click.echo(f"  systemctl: {visible(one_line(said.stderr))}.", err=True)
    if lines:
        click.echo("  The end of its journal:", err=True)
    for line in lines:
        click.echo(f"    {visible(line)}", err=True)
    if unit.active == "activating":
        click.echo("  systemd goes on trying; `netclaw daemon stop` ends that.", err=True)
    click.echo(f"  More: `{_systemctl(unit)} status {unit.name}`.", err=True)
    return code


# -- stop ----------------------------------------------------------------------------------------


@frozen
class Ended:
    """What became of a stop."""

    unit: Unit
    #: How each daemon ended: the unit's, and one beside it.
    daemons: tuple[Stopped, ...]

    @property
    def clean(self) -> bool:
        return all(each.clean for each in self.daemons)

    @property
    def killed(self) -> bool:
        return any(each.killed for each in self.daemons)


def stop(owner: Owner, *, as_json: bool) -> int:
    """Let systemd stop the unit, end a daemon beside it too, report, and return the exit code."""
    began = time.monotonic()
    ended = end(owner, quiet=as_json)
    if ended is not None:
        return _say_stopped(ended, time.monotonic() - began, as_json=as_json)
    if as_json:
        say_json({"stopped": False, "clean": True, **_unit_json(owner.unit, None)})
    else:
        click.echo(f"No daemon runs here; nothing to stop. {describe_unit(owner.unit)}")
    return 0


def end(owner: Owner, *, quiet: bool) -> Ended | None:
    """Stop the unit, and a daemon beside it; None when there is neither."""
    owner, running = look_at_both(owner)
    unit, outside = owner.unit, is_outside(running, owner.unit)
    if unit.rests and not outside:
        return None
    daemons: list[Stopped] = []
    if not unit.rests:
        unit, stopped = _stop_unit(owner, quiet=quiet)
        # One that was about to start had nothing to drain, however it ended.
        daemons += [stopped] if owner.unit.active != "activating" or unit.active == "failed" else []
    if running is not None and outside:
        note(
            f"pid {running.status['pid']} was not started by {unit.label}; it is stopped as it is."
        )
        daemons.append(stop_running(running, quiet=quiet))
    return Ended(unit, tuple(daemons))


def _stop_unit(owner: Owner, *, quiet: bool) -> tuple[Unit, Stopped]:
    """Stop it; return the unit, and how its daemon ended."""
    said = _do(owner, "stop", STOP_S, quiet=quiet)
    if said.code != 0:
        raise failed(arguments(owner.unit.scope, "stop", owner.unit.name), said.stderr)
    if said.stderr and not quiet:  # a socket unit would start it again
        note(f"{visible(one_line(said.stderr))}.")
    unit = look_again(owner)
    # The daemon exits with 0 once its manifest is written, with 1 if that failed (netclawd(8)). systemd
    # forgets a unit that is not enabled once it is inactive, but only after an exit that it calls good.
    exited = unit.exit_code if unit.invocation else 0
    clean = unit.active == "inactive" and unit.result == "success" and exited == 0
    return unit, Stopped(clean=clean, killed=not clean and exited is None)


def _say_stopped(ended: Ended, took_s: float, *, as_json: bool) -> int:
    unit, clean, killed = ended.unit, ended.clean, ended.killed
    if as_json:
        say_json({"stopped": True, "clean": clean, "killed": killed, **_unit_json(unit, None)})
    elif not ended.daemons:
        click.echo(f"{unit.label} stopped: no daemon served, and systemd no longer starts one.")
    elif clean:
        click.echo(
            f"{unit.label} stopped cleanly in {duration(took_s)}: every turn goes on with the next "
            "start."
        )
    elif killed:
        note(
            "the daemon did not end in time and was killed; the next start finds out what it did. "
            f"{describe_unit(unit)}"
        )
    else:
        note(
            "the daemon ended, but not cleanly; the next start finds out what it did. "
            f"{describe_unit(unit)} See `netclaw restarts` and `netclaw logs`."
        )
    return 0 if clean else 1


# -- restart -------------------------------------------------------------------------------------


def restart(owner: Owner, *, as_json: bool) -> int:
    """Let systemd reload the unit, which re-executes the daemon for what is new; return the exit code."""
    owner, running = look_at_both(owner)
    unit = owner.unit
    if running is not None and is_outside(running, unit):
        note(f"pid {running.status['pid']} was not started by {unit.label}; it re-executes itself.")
        return reload_and_wait(running.client, force=True, as_json=as_json)
    if not unit.runs:
        return start(owner, as_json=as_json)
    before = _ended(owner)
    said = _do(owner, "reload", START_S, quiet=as_json)
    unit = look_again(owner)
    went_well = said.code == 0
    new = [entry for key, entry in _ended(owner).items() if key not in before]
    new = [entry for entry in new if (entry["outcome"] in GOOD) is went_well]
    # What the watcher was about to apply leaves nothing to do for the reload, and is what counts.
    entry = next((e for e in new if e["outcome"] != "unchanged"), new[0] if new else None)
    if entry is None and not went_well:  # nothing of ours explains it
        command = arguments(unit.scope, "reload", unit.name)
        raise failed(command, f"{said.stderr} {unit.status_text}")
    return _say_reloaded(unit, entry, as_json=as_json)


def _say_reloaded(unit: Unit, entry: Mapping[str, Any] | None, *, as_json: bool) -> int:
    """Say what became of a reload; without an entry all that is known is that it went well."""
    code = 0 if entry is None or entry["outcome"] in GOOD else 1
    if as_json:
        say_json({**(entry or {"outcome": "unknown"}), **_unit_json(unit, None)})
        return code
    if entry is None:
        click.echo(f"{unit.label} was reloaded; `netclaw restarts` tells what it did.")
        return code
    report_entry(entry)
    if entry["outcome"] == "unchanged" and not entry["reason"]:
        click.echo("  `netclaw reload --force --wait` re-executes all the same.")
    elif code == 0:
        click.echo(f"  By a reload of {unit.label}, pid {unit.main_pid}.")
    return code


def _ended(owner: Owner) -> dict[str, Mapping[str, Any]]:
    """Return the newest journal entries that have an outcome, by id; empty when nobody may be asked."""
    with contextlib.suppress(NetclawError):
        running = reach_or_none(exactly(owner))
        if running is not None:
            entries = running.client.call("restarts", limit=ENTRIES)
            return {e["id"]: e for e in entries if e["outcome"] != "pending"}
    return {}


# -- words ---------------------------------------------------------------------------------------


def describe_unit(unit: Unit) -> str:
    """Say in a sentence how a unit is."""
    words = "".join(_state_words(unit))
    stale = " Its file has changed since systemd read it." if unit.stale else ""
    return f"{unit.label} {words}.{stale}"


def _state_words(unit: Unit) -> Iterator[str]:
    if unit.masked:
        yield "is masked"
        return
    if unit.broken:
        yield f"can't be read by systemd ({unit.load}) and "
    if unit.active == "failed":
        yield "has failed"
    elif unit.sub == "auto-restart":
        yield "is about to be started again"
    else:
        yield f"is {unit.active}"
    if unit.result != "success" and not unit.runs:
        code = f", exit code {unit.exit_code}" if unit.exit_code else ""
        yield f" ({unit.result}{code})"
    elif unit.enabled and unit.enabled != "static":
        yield f" and {unit.enabled}"
    if unit.restarts and unit.active != "inactive":
        gave_up = ", which has given up" if unit.active == "failed" else ""
        yield f", started again {count(unit.restarts, 'time')} by systemd{gave_up}"
    if unit.status_text and not unit.runs and unit.active != "inactive":
        yield f"; its last status: {visible(unit.status_text).rstrip('.')}"


def _unit_json(unit: Unit, running: Daemon | None) -> dict[str, Any]:
    return {"unit": unit.as_dict(), "outside_unit": is_outside(running, unit)}


# -- waiting -------------------------------------------------------------------------------------


def _do(owner: Owner, verb: str, timeout_s: float, *, quiet: bool) -> Answer:
    """Let systemctl act on the unit; what the daemon waits for is shown meanwhile."""
    with Progress(quiet=quiet) as progress:
        return call(
            owner.unit.scope,
            verb,
            owner.unit.name,
            timeout_s=timeout_s,
            while_waiting=_shows(progress, owner),
        )


def _shows(progress: Progress, owner: Owner) -> Callable[[], None]:
    path = f"{owner.paths.runtime}/control.sock"

    def show() -> None:
        with (
            ControlClient(path, patience_s=0, answer_s=LOOK_ANSWER_S) as client,
            contextlib.suppress(NetclawError),
        ):
            progress.show(describe_wait(client.call("status")))

    return show


# -- status --------------------------------------------------------------------------------------


def status(owner: Owner, *, as_json: bool) -> int:
    """Show what the daemon says of itself and its unit beside it; return the exit code."""
    try:
        running = reach(exactly(owner))
    except NotRunningError as error:
        return _say_down(owner.unit, error, as_json=as_json)
    except ControlError as error:  # it may not be asked, or does not answer: systemd knows more
        raise ControlError(f"{error.what} {describe_unit(owner.unit)}", error.remedy) from error
    found, unit = running.status, unit_beside(owner, running)
    if as_json:
        say_json({**found, **_unit_json(unit, running)})
    else:
        click.echo("\n".join(describe(found)))
        beside = "; this daemon was started by hand" if is_outside(running, unit) else ""
        click.echo(f"  {'unit':<14} {describe_unit(unit).rstrip('.')}{beside}")
    return exit_code(found)


def _say_down(unit: Unit, error: NotRunningError, *, as_json: bool) -> int:
    said = describe_unit(unit)
    if unit.active == "failed" and (
        lines := last_lines(unit, LAST_LINES)
    ):  # nearer to the end than its status
        said = (
            f"{describe_unit(replace(unit, status_text=''))} Its last words: {visible(lines[-1])}"
        )
    down = NotRunningError(f"{error.what} {said}", remedy(unit, error.remedy))
    if not as_json:
        raise down
    body = {"slug": down.slug, "what": down.what, "remedy": down.remedy}
    say_json({"error": body, **_unit_json(unit, None)})
    return down.exit_code


def remedy(unit: Unit, usual: str) -> str:
    """Say what to do when no daemon answers."""
    if unit.masked:
        return f"Unmask it: `{_systemctl(unit)} unmask {unit.name}`."
    if unit.broken:
        option = " --user" if unit.scope == Scope.USER else ""
        return (
            f"Mend it (`systemd-analyze{option} verify {unit.name}` says what is wrong), then "
            f"`{_systemctl(unit)} daemon-reload` and `netclaw daemon start`."
        )
    if unit.active == "failed":
        see = f"`{_systemctl(unit)} status {unit.name}`"
        return f"Mend the cause ({see}), then `netclaw daemon start`; it clears a start limit, too."
    return usual


def _systemctl(unit: Unit) -> str:
    return "systemctl --user" if unit.scope == Scope.USER else "systemctl"
