"""How the commands speak: words for people, ``--json`` for programs; and how they are told which."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from netclawd.core.text import visible as visible

_JSON = "netclaw.json"


def _remember(ctx: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    ctx.meta[_JSON] = value
    return value


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--json``; its function takes ``as_json``."""
    return click.option(
        "--json", "as_json", is_flag=True, callback=_remember, help="Print JSON instead of words."
    )(command)


def wants_json(ctx: click.Context) -> bool:
    """Whether the command that runs was called with ``--json``."""
    return bool(ctx.meta.get(_JSON))


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


def write(text: str) -> None:
    """Print a session's text: to a program as it is, to a terminal without control characters."""
    stream = sys.stdout
    stream.write(visible(text) if stream.isatty() else text)
    stream.flush()


def note(text: str) -> None:
    """Say something that is not the answer, on standard error."""
    click.echo(f"netclaw: {text}", err=True)


def duration(seconds: float) -> str:
    """Word a duration: ``850 ms``, ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for size, unit, smaller_size, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def elapsed(at: float) -> str:
    """Word how long it is since an instant of the wall clock."""
    from netclawd.adapters.clock import SystemClock

    return duration(SystemClock().wall() - at)


def ago(at: float) -> str:
    """Word how long ago an instant of the wall clock was."""
    return f"{elapsed(at)} ago"


def ahead(at: float) -> str:
    """Word how far ahead an instant of the wall clock is."""
    from netclawd.adapters.clock import SystemClock

    return duration(at - SystemClock().wall())


def due(at: float) -> str:
    """Word when something is due: ``in 4.2 s``, or ``due for 3 min`` where that is past."""
    from netclawd.adapters.clock import SystemClock

    return f"in {ahead(at)}" if at > SystemClock().wall() else f"due for {elapsed(at)}"


def clock_time(at: float) -> str:
    """Word an instant of the wall clock: ``2026-11-29 18:53``, in local time."""
    from datetime import datetime

    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M}"


def until(approval: Mapping[str, Any]) -> str:
    """Word when an approval expires, behind what it is about; empty where it does not."""
    at = approval.get("expires_at")
    if not at:
        return ""
    return f"; unless answered in {ahead(at)} (by {clock_time(at)}) it is denied"


def count(number: int, noun: str) -> str:
    """Word a number of things."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns, as wide as they need to be."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
