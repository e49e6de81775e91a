"""``netclaw status``: what the daemon does, in words, as JSON, again and again, or as an exit code."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from netclawd.cli.output import ago, due, elapsed, json_option, say_json, visible
from netclawd.cli.progress import at_most, at_work, describe_turn
from netclawd.cli.reach import Daemon, own_paths, reach
from netclawd.core.remarks import shortened
from netclawd.core.uptake import SERVING as SERVING
from netclawd.errors import ControlError, NetclawError, NotRunningError

#: Seconds between two looks of ``--watch``.
WATCH_S = 1.0
#: Characters of a reminder's text.
_REMINDER = 60


@click.command()
@json_option
@click.option("--watch", is_flag=True, help="Go on until interrupted, once a second.")
@click.option(
    "--probe",
    type=click.Choice(["live", "ready", "settled"]),
    help="For health checks: exit 0 or 1. live: something answers; ready: it is ready; "
    "settled: it also has no restart under way and all its code in memory.",
)
@click.pass_context
def status(ctx: click.Context, as_json: bool, watch: bool, probe: str | None) -> None:
    """Show what the daemon does.

    Exit codes: 0 ready, 1 degraded, 3 not running, 4 starting, draining or stopping.
    """
    if probe is not None:
        ctx.exit(_probe(probe, as_json))
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(as_json)
        return
    try:
        found = reach().status
    except (NotRunningError, ControlError) as error:
        raise _with_owner(error) from error
    if as_json:
        say_json(found)
    else:
        click.echo("\n".join(describe(found)))
    ctx.exit(exit_code(found))


def _with_owner(error: NetclawError) -> NetclawError:
    """Add what the supervisor that owns this home says; asked only when no daemon answers."""
    from netclawd.cli import contained, supervised
    from netclawd.cli.s6_known import know
    from netclawd.cli.units import find_owner
    from netclawd.core.container import Container
    from netclawd.core.units import Owner

    with contextlib.suppress(NetclawError):
        match find_owner(own_paths()):
            case Container() as container:
                return contained.with_service(container, error, know(container))
            case Owner(unit=unit):
                what = f"{error.what} {supervised.describe_unit(unit)}"
                return type(error)(what, supervised.remedy(unit, error.remedy))
    return error


def exit_code(found: Mapping[str, Any]) -> int:
    """Return the exit code that stands for a status."""
    if found["phase"] not in SERVING:
        return 4
    return 1 if found["degraded"] or found["refusal"] else 0


def _probe(probe: str, as_json: bool) -> int:
    phase: str | None = None
    try:
        found = reach().status
        phase = found["phase"]
        why, healthy = phase, _is_healthy(probe, found)
    except (NotRunningError, ControlError) as error:
        why, healthy = error.what, False
    except NetclawError as error:  # it answers, if with an error
        why, healthy = error.what, probe == "live"
    if as_json:
        say_json({"probe": probe, "healthy": healthy, "phase": phase, "why": why})
    else:
        click.echo(f"{'yes' if healthy else 'no'}: {why}")
    return 0 if healthy else 1


def _is_healthy(probe: str, found: Mapping[str, Any]) -> bool:
    match probe:
        case "live":
            return True
        case "settled":
            return bool(found.get("settled"))
        case _:
            return found["phase"] in SERVING


def _watch(as_json: bool) -> None:
    """Show it once a second: redrawn on a terminal, else again when it has changed."""
    redraws = sys.stdout.isatty() and not as_json
    before: Mapping[str, Any] | None = None
    daemon: Daemon | None = None
    while True:
        try:
            daemon, found = _look(daemon)
            text = "\n".join(describe(found))
        except NotRunningError as error:
            daemon = None
            found = {"error": {"slug": error.slug, "what": error.what, "remedy": error.remedy}}
            text = error.what
        if redraws:
            click.clear()
        if redraws or found != before:  # The words change each second: "started 5 s ago".
            click.echo(json.dumps(found) if as_json else text)
        before = found
        time.sleep(WATCH_S)


def _look(daemon: Daemon | None) -> tuple[Daemon, dict[str, Any]]:
    if daemon is None:
        daemon = reach()
        return daemon, daemon.status
    return daemon, daemon.client.call("status")


def describe(found: Mapping[str, Any]) -> Iterator[str]:
    """Put a status into words, a line each."""
    yield (
        f"netclawd {found['version']} is {found['phase']}: generation {found['generation']}, "
        f"pid {found['pid']}, started {ago(found['started_at'])}"
    )
    for label, text in _rows(found):
        yield f"  {label:<14} {visible(text)}"


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "answers on", ", ".join(found["addresses"]) or "no address"
    yield "home", found["home"]
    of = "the last good one of " if found.get("configuration") == "last-good" else ""
    yield "configuration", f"{of}{found['config_path']} (digest {found['digest'][:12]})"
    if found.get("watcher"):  # not yet, right after a start
        yield "watched by", found["watcher"].replace("+", " and ")
    yield from _provider(found.get("provider"), found["generation"])
    yield "turns", describe_turns(found["turns"])
    if found.get("approvals"):
        yield "approvals", f"{found['approvals']} pending: `netclaw approvals list`"
    yield from (("channel", describe_channel(each)) for each in found.get("channels") or ())
    yield from _outbox(found.get("outbox") or {})
    yield from _reminders(found.get("reminders"))
    yield "streams", str(found["streams"])
    if found.get("calls"):
        yield "calls", f"{found['calls']} of the model, by clients that have no session"
    yield from _exposure(found)
    if found["gate"] != "open":
        until = "start" if found["phase"] == "stopping" else "generation"
        waits = "are refused" if found.get("new_work") == "reject" else f"wait for the next {until}"
        yield "gate", f"closed: new turns {waits}"
    if found["drain"] is not None:
        yield from (("draining", line) for line in describe_drain(found))
    if found["last_restart"] is not None:
        yield "last restart", describe_restart(found["last_restart"])
    if found["refusal"] is not None:
        yield "refused", f"{found['refusal']['reason']} {found['refusal']['remedy']}".strip()
    if found.get("upgrade") is not None:
        yield "upgrade", _upgrade(found["upgrade"])
    for reason in found["degraded"]:
        yield "degraded", reason


def _provider(provider: Mapping[str, Any] | None, generation: int) -> Iterator[tuple[str, str]]:
    """Word who answers, when it did last, and what went wrong since."""
    if provider is None:
        return
    words = provider["name"]
    if provider["kind"] != provider["name"]:
        words += f" ({provider['kind']})"
    if provider.get("model"):
        words += f", model {provider['model']}"
    if host := _host(provider.get("base_url") or ""):
        words += f", at {host}"
    at = provider.get("last_reply_at")
    none = "no reply yet" if generation == 1 else f"no reply yet in generation {generation}"
    yield "provider", f"{words}, last reply {ago(at)}" if at else f"{words}, {none}"
    if (error := provider.get("error")) is not None:
        text = f"{error['what']} {error.get('remedy') or ''}".strip()
        yield "provider error", f"{error['slug']}, {ago(error['at'])}: {text}"


def _host(url: str) -> str:
    """Return host and port of a URL, without what may stand before them."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]


#: How a channel stands, where that isn't the word itself.
_CHANNEL_STATES = {
    "absent": "gone",
    "refused": "refused by the platform",
    "stopped": "at rest",
}
#: What a channel has to do, in the order of what an operator asks first.
_CHANNEL_COUNTS = ("deferred", "pending", "ambiguous", "failed")


def describe_channel(channel: Mapping[str, Any]) -> str:
    """Word how a channel stands: since when, what it heard last, what waits, what is wrong."""
    state = channel["state"]
    words = f"{channel['name']}: {_CHANNEL_STATES.get(state, state)}"
    if state == "connected" and channel.get("connected_since") is not None:
        words += f" for {elapsed(channel['connected_since'])}"
    at = channel.get("last_event_at")
    if at is not None:
        words += f", last event {ago(at)}"
    elif state != "absent":
        words += ", no event yet"
    for name in _CHANNEL_COUNTS:
        words += f", {channel[name]} {name}" if channel.get(name) else ""
    again = "It is tried again by itself." if state == "down" else ""
    wrong = " ".join(filter(None, (channel.get("trouble"), again)))
    return f"{words}. {wrong}" if wrong else words


def _outbox(states: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Word what has not reached its conversation; nothing when all has."""
    waits = [
        f"{states[name]} {name}"
        for name in ("pending", "streaming", "sending", "ambiguous", "failed")
        if states.get(name)
    ]
    if states.get("ambiguous") or states.get("failed"):
        yield "outbox", f"{', '.join(waits)}: `netclaw outbox list` says what to do"
    elif waits:
        yield "outbox", f"{', '.join(waits)}: `netclaw outbox list`"


def _reminders(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Word how many there are, and the next ones; nothing where there are none."""
    if not found or not any(found.get(name) for name in ("active", "paused", "under_way")):
        return
    paused = f", {found['paused']} paused" if found.get("paused") else ""
    running = f", {found['under_way']} under way" if found.get("under_way") else ""
    if found.get("waiting"):
        running += f" ({found['waiting']} waiting for a person)"
    yield "reminders", f"{found['active']} active{paused}{running}: `netclaw reminders list`"
    for each in found.get("next") or ():
        yield (
            "",
            f"{due(each['next_at'])}: {shortened(visible(each['text']), _REMINDER)} ({each['id']})",
        )


def _exposure(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    exposure, allowed = found.get("exposure", "local"), found.get("unauthenticated", False)
    if exposure != "local":
        setting = " (daemon.allow_unauthenticated)" if allowed else ""
        yield (
            "exposure",
            f"{exposure}; the daemon authenticates nobody{setting}:"
            " whoever comes in can drive every session",
        )
    elif allowed:
        yield "exposure", "local; daemon.allow_unauthenticated is set, without effect"


def _upgrade(upgrade: Mapping[str, Any]) -> str:
    asked = upgrade["waiting"]
    if asked is None:
        return f"{upgrade['reason']} No restart until it is over."
    return (
        f"{upgrade['reason']} A reload asked for by {asked['trigger']['kind']} waits for its end."
    )


def describe_turns(turns: Mapping[str, int]) -> str:
    """Word how many turns are in which state."""
    present = [f"{turns[name]} {name}" for name in turns if turns[name]]
    return ", ".join(present) or "none"


def describe_drain(status: Mapping[str, Any]) -> Iterator[str]:
    """Word what a drain still waits for."""
    drain = status["drain"]
    yield f"{at_work(status)}, {at_most(drain['deadline_s'])}"
    for turn in drain["running"]:
        yield f"{turn['session_id']}: {describe_turn(turn)}"


def describe_restart(entry: Mapping[str, Any]) -> str:
    """Word one entry of the restart journal."""
    at = entry["ended_at"] or entry["requested_at"]
    words = f"{entry['outcome']} {ago(at)}, asked by {entry['trigger']}"
    if entry["actor"]:
        words += f" ({entry['actor']})"
    if entry["outcome"] == "applied":
        words += f"; {what_changed(entry)}; generation {entry['new_generation']}"
    if entry["gap_ms"] is not None:
        words += f", gap {entry['gap_ms']:.0f} ms"
    return words


def what_changed(entry: Mapping[str, Any]) -> str:
    """Name what a restart applied, or would have."""
    keys = entry["changed_keys"]
    if len(keys) > 3:
        keys = [*keys[:3], f"{len(keys) - 3} more"]
    parts = [f"{', '.join(keys)} changed"] if keys else []
    parts += ["a secret or the system prompt changed"] if entry.get("secrets_changed") else []
    parts += ["new code"] if entry["code_changed"] else []
    as_it_was = "re-executed as it was" if entry["outcome"] == "applied" else ""
    return ", ".join(parts) or as_it_was
