"""Words for a plan: what a reload, or a start, would do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from netclawd.cli.output import count, duration, note, say_json, visible
from netclawd.core.words import shown

#: Turns that are named one by one; the rest are counted.
NAMED = 20
_WAITING = ("parked", "deferred")


def report(plan: Mapping[str, Any], path: str, *, as_json: bool) -> int:
    """Show a plan and return the exit code. ``path``: the file that was judged."""
    if as_json:
        say_json(plan)
    elif plan["verdict"] == "refused":
        _report_refusal(plan, path)
    else:
        click.echo("\n".join(describe(plan, path)))
    return 1 if plan["verdict"] == "refused" else 0


def _report_refusal(plan: Mapping[str, Any], path: str) -> None:
    goes_on = "" if plan["generation"] is None else f"; generation {plan['generation']} would go on"
    if plan["aborts"]:
        goes_on = ' and, by daemon.on_invalid_config = "abort", end the daemon with exit code 78'
    note(f"{path} would be refused{goes_on}. {visible(plan['refusal']['reason'])}")
    if plan["refusal"]["remedy"]:
        click.echo(f"  {visible(plan['refusal']['remedy'])}", err=True)


def describe(plan: Mapping[str, Any], path: str) -> Iterator[str]:
    """Put a plan that is not refused into words, a line each."""
    yield _headline(plan, path)
    for label, text in _rows(plan):
        yield f"  {label:<14} {visible(text)}"


def _headline(plan: Mapping[str, Any], path: str) -> str:
    match plan["verdict"]:
        case "start":
            return f"No daemon runs. A start with {path} would serve this; nothing was changed."
        case "unchanged":
            return "Nothing to do: configuration and code are what is running."
    now = plan["generation"]
    return (
        f"A reload with {path} would restart generation {now} in place, with the same PID; "
        "nothing was changed."
    )


def _rows(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if plan["note"]:
        yield "note", plan["note"]
    yield from _changes(plan)
    if plan["verdict"] != "unchanged":
        yield from _listeners(plan)
    if plan["verdict"] == "restart":
        yield from _turns(plan["turns"])
        yield "gap", _gap(plan["gap"])
        yield "at the longest", _bounds(plan["bounds"])
    for key, variable in plan["environment"].items():
        yield "environment", f"{variable} decides {key}, whatever the file says"
    if plan["refused_before"]:
        yield (
            "refused before",
            "the daemon tries this content only when it is asked: `netclaw reload`",
        )


def _changes(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for change in plan["changes"]:
        yield "changes", f"{change['key']}: {_value(change['old'])} → {_value(change['new'])}"
    if plan["secrets_changed"]:
        yield "changes", "a secret or the system prompt, behind the same setting"
    if plan["code_changed"]:
        yield "code", "new on disk"
    if plan["verdict"] == "restart" and not (plan["changes"] or plan["secrets_changed"]):
        yield "configuration", "what is running"
    if plan["verdict"] == "start" and not (plan["changes"] or plan["secrets_changed"]):
        yield "configuration", f"the same as {plan['compared_with']}"
    elif plan["verdict"] == "start":
        yield "compared with", plan["compared_with"]


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, float):
        return shown(value)
    if isinstance(value, Mapping):  # Of a whole table the texts say what it is.
        texts = [f"{k} = {_value(v)}" for k, v in value.items() if v and isinstance(v, str)]
        return f"{{{', '.join([*texts, '…'])}}}"
    return json.dumps(value, ensure_ascii=False)


def _listeners(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    listeners = plan["listeners"]
    if listeners["bind"]:
        unsure = " (free or not: that shows when it is tried)"
        yield "binds", ", ".join(listeners["bind"]) + unsure
    if listeners["keep"]:
        yield "keeps", ", ".join(listeners["keep"])
    if listeners["retire"]:
        yield "retires", ", ".join(listeners["retire"])


def _turns(turns: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    at_work = [turn for turn in turns if turn["fate"] not in _WAITING]
    if not turns:
        yield "turns", "none in flight"
    for turn in at_work[:NAMED]:
        yield "turn", f"{turn['session_id']}: {_at(turn)}{_fate(turn)}"
    if len(at_work) > NAMED:
        yield "turns", f"{len(at_work) - NAMED} more at work, with the same deadlines"
    parked = sum(turn["fate"] == "parked" for turn in turns)
    if parked:
        yield "turns", f"{count(parked, 'turn')} parked for a person, before and after"
    deferred = sum(turn["fate"] == "deferred" for turn in turns)
    if deferred:
        yield "turns", f"{count(deferred, 'turn')} not begun: the new generation runs them"


def _at(turn: Mapping[str, Any]) -> str:
    if turn["what"] in ("", "checkpoint"):  # It does nothing that takes time.
        return ""
    return f"{turn['what']} for {duration(turn['for_s'])}, "


def _fate(turn: Mapping[str, Any]) -> str:
    match turn["fate"]:
        case "repeated":
            return f"may end within {duration(turn['at_most_s'])}, else it is cut and repeated"
        case "ended":
            return f"may end within {duration(turn['at_most_s'])}, else it is told to stop"
        case _:
            return "stops at its next checkpoint and is resumed"


def _gap(gap: Mapping[str, Any] | None) -> str:
    if gap is None:
        return "not known yet: this daemon has not restarted so far"
    return (
        f"about {gap['median_ms']:.0f} ms without an accept, {gap['worst_ms']:.0f} ms at worst "
        f"(of {count(gap['restarts'], 'restart')})"
    )


def _bounds(bounds: Mapping[str, Any]) -> str:
    return (
        f"{duration(bounds['sum_s'])} to READY: rehearsal {duration(bounds['rehearsal_s'])}, "
        f"drain {duration(bounds['drain_s'])}, last requests {duration(bounds['quiesce_s'])}, "
        f"start {duration(bounds['boot_s'])} (with a warm-up of {duration(bounds['warm_up_s'])})"
    )
