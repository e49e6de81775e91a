"""``netclaw approvals``: what waits for a person, and the person's answer."""

from __future__ import annotations

import click

from netclawd.cli import suggest
from netclawd.cli.output import ago, json_option, say_json, table, visible
from netclawd.cli.reach import reach


@click.group()
def approvals() -> None:
    """See what waits for a person, and grant or deny it."""


@approvals.command("list")
@json_option
@click.option("--all", "everything", is_flag=True, help="Those that are decided, too.")
def list_(as_json: bool, everything: bool) -> None:
    """List approvals that are asked for."""
    found = reach().client.call("approvals", all=everything)
    if as_json:
        return say_json(found)
    if not found:
        return click.echo("Nothing waits for an approval.")
    return table(
        ("APPROVAL", "ASKED", "STATE", "SESSION", "QUESTION"),
        [
            (a["id"], ago(a["asked_at"]), a["state"], a["session_id"], _short(a["question"]))
            for a in found
        ],
    )


def _short(question: str) -> str:
    text = " ".join(visible(question).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


@approvals.command()
@json_option
@click.argument("approval_id", metavar="APPROVAL", shell_complete=suggest.approvals)
def grant(as_json: bool, approval_id: str) -> None:
    """Let the tool run."""
    _decide(approval_id, granted=True, as_json=as_json)


@approvals.command()
@json_option
@click.argument("approval_id", metavar="APPROVAL", shell_complete=suggest.approvals)
def deny(as_json: bool, approval_id: str) -> None:
    """Don't let the tool run; the agent is told."""
    _decide(approval_id, granted=False, as_json=as_json)


def _decide(approval_id: str, *, granted: bool, as_json: bool) -> None:
    approval = reach().client.call("decide", approval_id=approval_id, granted=granted)
    if as_json:
        return say_json(approval)
    word = "Granted" if granted else "Denied"
    return click.echo(f"{word}: {visible(approval['question'])}")
