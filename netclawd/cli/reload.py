"""``netclaw reload``: asks the daemon to compare the configuration and the code with what it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from netclawd.adapters.control_client import ControlClient
from netclawd.cli.output import duration, json_option, note, say_json
from netclawd.cli.progress import Progress, describe_wait
from netclawd.cli.reach import reach
from netclawd.cli.status import what_changed
from netclawd.core import budgets
from netclawd.errors import ControlError, NetclawError

#: Seconds between two looks at what is waited for.
LOOK_S = 0.5

GOOD = ("applied", "unchanged")


@click.command()
@json_option
@click.option("--wait", is_flag=True, help="Wait until it is applied, refused, or nothing was new.")
@click.option("--force", is_flag=True, help="Re-execute even if nothing is new.")
@click.option("--plan", is_flag=True, help="Say what it would do; change nothing.")
@click.pass_context
def reload(ctx: click.Context, as_json: bool, wait: bool, force: bool, plan: bool) -> None:
    """Apply a new configuration or new code, without losing anything.

    Exit codes with --wait and --plan: 0 applied or nothing to do, 1 refused (the daemon goes on as
    it was).
    """
    if plan and (wait or force):
        raise click.UsageError("--plan changes nothing: it goes with neither --wait nor --force.")
    daemon = reach()
    client = daemon.client
    if plan:
        from netclawd.cli.plan import report

        ctx.exit(report(client.call("plan"), daemon.paths.config, as_json=as_json))
    if wait:
        ctx.exit(reload_and_wait(client, force=force, as_json=as_json))
    restart_id = client.call("reload", force=force)["restart_id"]
    if as_json:
        say_json({"restart_id": restart_id})
    else:
        click.echo(f"Asked; what becomes of {restart_id} stands in `netclaw restarts`.")


def reload_and_wait(client: ControlClient, *, force: bool, as_json: bool) -> int:
    """Ask, wait, report; return the exit code."""
    restart_id = client.call("reload", force=force)["restart_id"]
    entry = wait_for_outcome(client, restart_id, quiet=as_json)
    if as_json:
        say_json(entry)
    else:
        report_entry(entry)
    return 0 if entry["outcome"] in GOOD else 1


def wait_for_outcome(client: ControlClient, restart_id: str, *, quiet: bool) -> dict[str, Any]:
    """Return the journal entry of a request once it has ended, across the restart itself."""
    deadline = time.monotonic() + budgets.OUTCOME_S
    with Progress(quiet=quiet) as progress:
        while time.monotonic() < deadline:
            try:
                entry = client.call("outcome", restart_id=restart_id, wait_s=LOOK_S)
                if entry is not None:
                    return dict(entry)
                progress.show(describe_wait(client.call("status")))
            except NetclawError as error:
                if error.slug != "store-closed":  # for a moment, between two generations
                    raise
    raise ControlError(
        f"The request {restart_id} has no outcome after {duration(budgets.OUTCOME_S)}.",
        "Look at `netclaw status`; `netclaw restarts` will show the outcome when there is one.",
    )


def report_entry(entry: Mapping[str, Any]) -> None:
    """Say in words what became of a request."""
    match entry["outcome"]:
        case "applied":
            took = duration((entry["ended_at"] or entry["requested_at"]) - entry["requested_at"])
            gap = f", gap {entry['gap_ms']:.0f} ms" if entry["gap_ms"] is not None else ""
            click.echo(
                f"Applied in {took}{gap}: {what_changed(entry)}; "
                f"generation {entry['new_generation']} serves."
            )
            _report_work(entry)
        case "unchanged" if entry["reason"]:
            note(f"nothing was changed. {entry['reason']}")
            _remedy(entry)
        case "unchanged":
            click.echo("Nothing to do: configuration and code are what is running.")
        case "refused":
            note(f"refused; generation {entry['generation']} goes on. {entry['reason']}")
            _remedy(entry)
        case "failed":
            note(f"the restart failed; generation {entry['generation']} goes on. {entry['reason']}")
            _remedy(entry)
        case "rolled-back":
            note(f"rolled back; the last good configuration serves again. {entry['reason']}")
            _remedy(entry)
        case other:
            note(f"not applied: {_why_not(other)}")
            _remedy(entry)


def _why_not(outcome: str) -> str:
    return {
        "overtaken": "the daemon was asked to stop first.",
        "stopped": "the daemon has stopped.",
        "crashed": "the daemon ended without warning and was started again.",
    }.get(outcome, f"{outcome}.")


def _remedy(entry: Mapping[str, Any]) -> None:
    if entry["remedy"]:
        click.echo(f"  {entry['remedy']}", err=True)


def _report_work(entry: Mapping[str, Any]) -> None:
    going_on = [f"{entry[key]} {key}" for key in ("drained", "cut") if entry[key]]
    words = [f"{', '.join(going_on)} (resumed)"] if going_on else []
    words += [f"{entry['deferred']} deferred (run in their order)"] if entry["deferred"] else []
    words += [f"{entry['parked']} parked (waiting for a person)"] if entry["parked"] else []
    if words:
        click.echo(f"  Turns in flight: {'; '.join(words)}.")
