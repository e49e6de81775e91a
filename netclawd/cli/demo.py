"""``netclaw demo restart``: a daemon of its own, a reply in mid-flow, and a port that moves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from netclawd.cli.output import json_option, say_json, write
from netclawd.errors import NetclawError

#: The whole demonstration, seconds.
LIMIT_S = 30.0


class DemoError(NetclawError):
    """The demonstration could not be carried through."""

    slug = "demo-failed"


@click.group()
def demo() -> None:
    """See it work, in a temporary home; a daemon that runs is not touched."""


@demo.command()
@json_option
@click.pass_context
def restart(ctx: click.Context, as_json: bool) -> None:
    """Move a port under load, in the middle of a reply, and count what was lost.

    Takes less than 30 seconds. Exit codes: 0 nothing was lost, 1 something was.
    """
    from netclawd.cli.demo_story import Story

    with _time_limit(), Story(say=(lambda _: None) if as_json else write) as story:
        result = story.run()
    if as_json:
        say_json(result)
    else:
        click.echo("\n".join(_describe(result)))
    ctx.exit(0 if result["ok"] else 1)


@contextmanager
def _time_limit() -> Iterator[None]:
    def on_alarm(_number: int, _frame: object) -> None:
        raise DemoError(
            f"The demonstration was not over after {LIMIT_S:.0f} s.",
            "Try again on a machine that is less busy.",
        )

    before = signal.signal(signal.SIGALRM, on_alarm)
    # What remains is for ending the daemon.
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S - 4.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _describe(result: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "What became of it:"
    for label, text in _rows(result):
        yield f"  {label:<12} {text}"
    for failure in result["requests"]["failures"]:
        yield f"    lost: {failure}"
    yield "Nothing was lost." if result["ok"] else "SOMETHING WAS LOST."


def _rows(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    process, requests, reply = result["process"], result["requests"], result["reply"]
    same = "before and after" if process["same_pid"] else "only before: IT HAS CHANGED"
    yield "process", f"pid {process['pid']} {same}"
    yield "generation", f"{process['generation_before']} → {process['generation_after']}"
    yield "gap", f"{result['gap_ms']:.0f} ms; who connected in it waited and was answered"
    put_off = f", {requests['put_off']} told when to retry" if requests["put_off"] else ""
    yield "requests", f"{requests['answered']:,} answered{put_off}, {requests['lost']} lost"
    yield (
        "reply",
        f"{reply['words']} words, {reply['lost']} lost, {reply['repeated']} repeated; "
        f"the model was asked {_times(reply['attempts'])}",
    )
    old, new = result["old_address"], result["new_address"]
    refuses = "refuses connections now" if old["refused"] else "STILL ANSWERS"
    yield "old address", f"{old['address']} {refuses}"
    healthy = "is healthy" if new["healthy"] else "IS NOT HEALTHY"
    yield "new address", f"{new['address']} {healthy}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
