"""The lifecycle's transition table as Mermaid diagrams and as a Markdown table.

Pure. Nothing here is drawn by hand: what a guard stands for is found by asking it, so a page can't
say what the table doesn't do. The late events (:data:`netclawd.core.lifecycle.LATE`) change
nothing and are left out.

A restart and a stop are two diagrams. In both, the rows that differ only in whether somebody has
asked meanwhile are one arrow to READY, and the note there says where the other leads; a row that
stays in its stage is no arrow. The table has every row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from netclawd.core import events
from netclawd.core.events import Event, Request, Trigger
from netclawd.core.lifecycle import (
    DRAIN,
    PHASE_OF,
    RETIRE,
    TABLE,
    WARM_UP,
    Phase,
    Rule,
    Stage,
    State,
)
from netclawd.core.session import RestartId
from netclawd.core.settings import DrainSettings, NewWork
from netclawd.core.values import frozen, replace

QUEUED = "a reload is queued"
NOTED = "a stop was noted"

#: The ends. execve is the effect with which HANDING_OFF begins.
_START, _EXIT = "[*] --> NEW: start", "ENDED --> [*]: exit"
_EXECVE = "HANDING_OFF --> [*]: execve, the commit point"

_COLOURS = {
    Phase.STARTING: "#eef2f7",
    Phase.WARMING: "#fdf1d6",
    Phase.READY: "#d9f2d9",
    Phase.REHEARSING: "#e3ecfb",
    Phase.DRAINING: "#fbe3c8",
    Phase.HANDING_OFF: "#f7d6e6",
    Phase.STOPPING: "#e4e4e4",
}


@frozen
class Row:
    """One rule of the table, with its guard in words."""

    stage: Stage
    #: Name of the event; of a timer, "timer NAME".
    event: str
    #: What must hold besides, empty for nothing.
    when: str
    to: Stage


def rows(table: Iterable[Rule] = TABLE) -> tuple[Row, ...]:
    """Return the rules in the order of the table, which is the order in which they are tried."""
    return tuple(_row(rule) for rule in table)


def _row(rule: Rule) -> Row:
    name, condition = rule.event.__name__, ""
    if rule.when is not None:
        name, condition = _ask(rule)
    return Row(rule.stage, name, condition, rule.to)


_SOMEBODY = Request(RestartId("r"), Trigger("hup"))
_PLAIN = State(Stage.NEW, DrainSettings(NewWork.DEFER, 0, 0, 0, 0, 0))
#: States in which exactly one of the things holds that guards ask about.
_CONDITIONS = {
    QUEUED: replace(_PLAIN, queued=(_SOMEBODY,)),
    NOTED: replace(_PLAIN, stop=_SOMEBODY),
}


def _ask(rule: Rule) -> tuple[str, str]:
    """Return event and condition of a guarded rule, by trying the guard."""
    assert rule.when is not None
    for event in _candidates(rule.event):
        name = (
            f"timer {event.name}" if isinstance(event, events.TimerFired) else type(event).__name__
        )
        if rule.when(_PLAIN, event):
            return name, ""
        for words, state in _CONDITIONS.items():
            if rule.when(state, event):
                return name, words
    raise ValueError(f"the guard of {rule.stage.name}, {rule.event.__name__} holds never")


def _candidates(kind: type[Event]) -> Iterator[Event]:
    if kind is events.TimerFired:
        yield from (events.TimerFired(name) for name in (WARM_UP, DRAIN, RETIRE))
    else:
        # Guards look at the name of a timer, and at the state: any instance will do.
        yield object.__new__(kind)


# -- diagrams ------------------------------------------------------------------------------------


def restart_diagram() -> str:
    """Draw the start, the restart and all that leads back, without the stop."""
    shown = [row for row in _arrows() if not _is_stop(row)]
    note = [
        "note right of READY",
        f"    An arrow that leads here leads to JUDGING instead while {QUEUED}.",
        "end note",
    ]
    return _diagram(shown, [_START, _EXECVE, *note])


def stop_diagram() -> str:
    """Draw what StopRequested does in each stage, and the stop's own drain."""
    return _diagram([row for row in _arrows() if _is_stop(row)], [_EXIT])


def _is_stop(row: Row) -> bool:
    return PHASE_OF[row.to] is Phase.STOPPING


def _arrows() -> list[Row]:
    """Return the rows that are drawn: none that stays, and of a pair the one that leads to READY."""
    moving = [row for row in rows() if row.to is not row.stage]
    # JUDGING is where a queued reload leads, so that row of JUDGING itself stays.
    queued = [row for row in rows() if row.when == QUEUED]
    paired = {(row.stage, row.event) for row in queued}
    ready = {(row.stage, row.event) for row in moving if row.to is Stage.READY and not row.when}
    if paired != ready or any(row.to is not Stage.JUDGING for row in queued):
        raise ValueError("the note at READY would not be true")
    return [row for row in moving if row.when != QUEUED]


def _diagram(shown: list[Row], more: Iterable[str]) -> str:
    arrows = _merged(shown)
    nodes = _grouped(arrows)
    node_of = {stage: node for node in nodes for stage in node}
    lines = {
        f"{_id(node_of[stage])} --> {_id(node_of[to])}: {label}": None
        for (stage, to), label in arrows.items()
    }
    out = ["stateDiagram-v2"]
    out += [f'    state "{_label(node)}" as {_id(node)}' for node in nodes]
    out += [f"    {line}" for line in (*lines, *more)]
    for phase in Phase:
        members = ",".join(_id(n) for n in nodes if {PHASE_OF[s] for s in n} == {phase})
        if members:
            name = "phase_" + phase.name.lower()
            out += [f"    classDef {name} fill:{_COLOURS[phase]},color:#222"]
            out += [f"    class {members} {name}"]
    return "\n".join(out) + "\n"


def _merged(shown: Iterable[Row]) -> dict[tuple[Stage, Stage], str]:
    """Make one arrow of all that have both ends in common, with the events on it."""
    labels: dict[tuple[Stage, Stage], str] = {}
    for row in shown:
        label = f"{row.event} ({row.when})" if row.when else row.event
        ends = (row.stage, row.to)
        labels[ends] = f"{labels[ends]}, {label}" if ends in labels else label
    return labels


def _grouped(arrows: Mapping[tuple[Stage, Stage], str]) -> list[tuple[Stage, ...]]:
    """Make one node of the stages that nothing leads to and from which the same arrows go out."""
    targets = {to for _, to in arrows}
    groups: dict[object, tuple[Stage, ...]] = {}
    for stage in Stage:
        out = tuple((to, label) for (begin, to), label in arrows.items() if begin is stage)
        if out or stage in targets:
            key = stage if stage in targets else out
            groups[key] = (*groups.get(key, ()), stage)
    return list(groups.values())


def _id(node: tuple[Stage, ...]) -> str:
    return "_OR_".join(stage.name for stage in node)


def _label(node: tuple[Stage, ...]) -> str:
    if len(node) > 1:
        return ", ".join(stage.value for stage in node[:-1]) + f" or {node[-1].value}"
    stage, phase = node[0].value, PHASE_OF[node[0]].value
    return stage if stage == phase else f"{stage} · {phase}"


# -- the table ------------------------------------------------------------------------------------


def stage_table() -> str:
    """Return stage, event and next stage as a Markdown table; of two rows the upper one is tried first."""
    out = ["| stage | phase | event | while | next stage |", "| --- | --- | --- | --- | --- |"]
    stage = None
    for row in sorted(rows(), key=lambda row: list(Stage).index(row.stage)):
        head = " | " if row.stage is stage else f"{row.stage.name} | {PHASE_OF[row.stage].value}"
        stage = row.stage
        after = "stays" if row.to is stage else row.to.name
        out.append(f"| {head} | {row.event} | {row.when} | {after} |")
    return "\n".join(out) + "\n"
