"""``netclaw approvals``: what waits for a person, and the person's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from netclawd.cli import suggest
from netclawd.cli.output import (
    ago,
    ahead,
    json_option,
    say_json,
    table,
    until,
    visible,
)
from netclawd.cli.reach import call_patiently, reach
from netclawd.core.remarks import shortened
from netclawd.errors import NetclawError, NotFoundError

#: Characters of a question in the list.
_SHORT = 60


@click.group()
def approvals() -> None:
    """See what waits for a person, and grant or deny it."""


def _ids_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument(
        "approval_ids",
        metavar="APPROVAL...",
        nargs=-1,
        required=True,
        shell_complete=suggest.approvals,
    )(command)


@approvals.command("list")
@json_option
@click.option("--all", "everything", is_flag=True, help="Those that are decided, too.")
def list_(as_json: bool, everything: bool) -> None:
    """List approvals that are asked for; `show` has each question whole."""
    found = reach().client.call("approvals", all=everything)
    if as_json:
        return say_json(found)
    if not found:
        return click.echo("Nothing waits for an approval.")
    return table(
        ("APPROVAL", "TOOL", "ASKED", "EXPIRES", "STATE", "SESSION", "QUESTION"),
        [
            (
                a["id"],
                visible(a.get("name") or "-"),
                ago(a["asked_at"]),
                _expires(a),
                a["state"],
                a["session_id"],
                shortened(visible(a["question"]), _SHORT),
            )
            for a in found
        ],
    )


def _expires(approval: Mapping[str, Any]) -> str:
    at = approval.get("expires_at")
    return f"in {ahead(at)}" if at and approval["state"] == "pending" else "-"


@approvals.command()
@json_option
@_ids_argument
def show(as_json: bool, approval_ids: Sequence[str]) -> None:
    """Show what is asked, whole, and what became of it."""
    known = {a["id"]: a for a in reach().client.call("approvals", all=True)}
    for approval_id in approval_ids:
        if approval_id not in known:
            raise NotFoundError(
                f"There is no approval {approval_id}.", "See `netclaw approvals list --all`."
            )
    found = [known[approval_id] for approval_id in approval_ids]
    if as_json:
        return say_json(found[0] if len(found) == 1 else found)
    return click.echo("\n".join(line for approval in found for line in _describe(approval)))


def _describe(approval: Mapping[str, Any]) -> Sequence[str]:
    tool = f" to run the tool {visible(approval['name'])}" if approval.get("name") else ""
    asked = f"asked {ago(approval['asked_at'])}{tool} by the session {approval['session_id']}"
    question = [f"  {line}" for line in visible(approval["question"]).split("\n")]
    return [f"Approval {approval['id']}, {asked}:", *question, _state(approval)]


def _state(approval: Mapping[str, Any]) -> str:
    if approval["state"] == "pending":
        return f"It waits{until(approval)}."
    by = f" by {approval['decided_by']}" if approval.get("decided_by") else ""
    return f"It is {approval['state']}{by}."


@approvals.command()
@json_option
@_ids_argument
@click.pass_context
def grant(ctx: click.Context, as_json: bool, approval_ids: Sequence[str]) -> None:
    """Let the tool run."""
    ctx.exit(_decide(approval_ids, granted=True, as_json=as_json))


@approvals.command()
@json_option
@_ids_argument
@click.pass_context
def deny(ctx: click.Context, as_json: bool, approval_ids: Sequence[str]) -> None:
    """Don't let the tool run; the agent is told."""
    ctx.exit(_decide(approval_ids, granted=False, as_json=as_json))


def _decide(approval_ids: Sequence[str], *, granted: bool, as_json: bool) -> int:
    """Decide each; one that can't be decided keeps none of the others from it."""
    client = reach().client
    if len(approval_ids) == 1:
        answers = [_decide_one(client, approval_ids[0], granted)]
    else:
        answers = [_try(client, approval_id, granted) for approval_id in approval_ids]
    if as_json:
        say_json(answers[0] if len(answers) == 1 else answers)
    else:
        for answer in answers:
            _say(answer, granted)
    return 1 if any("error" in answer for answer in answers) else 0


def _decide_one(client: Any, approval_id: str, granted: bool) -> dict[str, Any]:
    return dict(call_patiently(client, "decide", approval_id=approval_id, granted=granted))


def _try(client: Any, approval_id: str, granted: bool) -> dict[str, Any]:
    try:
        return _decide_one(client, approval_id, granted)
    except NetclawError as error:
        body = {"slug": error.slug, "what": error.what, "remedy": error.remedy}
        return {"id": approval_id, "error": body}


def _say(answer: Mapping[str, Any], granted: bool) -> None:
    if (error := answer.get("error")) is not None:
        return click.echo(f"netclaw: {visible(error['what'])} {visible(error['remedy'])}", err=True)
    name = f"{visible(answer['name'])}: " if answer.get("name") else ""
    word = "Granted" if granted else "Denied"
    return click.echo(f"{word}: {name}{shortened(visible(answer['question']), 200)}")
