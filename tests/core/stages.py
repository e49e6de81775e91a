"""Every stage with every event, and what comes of it, written by hand and apart from the table.

The matrix says which stage follows; :data:`LEGAL` has every legal step, performed once.
"""

from __future__ import annotations

from collections.abc import Iterator

from netclawd.core import effects, events
from netclawd.core.drain import plan_deadlines
from netclawd.core.events import Event
from netclawd.core.lifecycle import DRAIN, RETIRE, WARM_UP, Stage, State, step
from netclawd.core.values import replace
from tests.core.examples import CHANGE, REFUSAL, SNAPSHOT, request
from tests.core.examples import DRAIN as DRAIN_SETTINGS

NOW = 1000.0

EVENTS: dict[str, Event] = {
    "boot": events.Booted(),
    "serv": events.Serving(),
    "warm": events.WarmedUp(),
    "relo": events.ReloadRequested(request("new", "hup")),
    "unch": events.JudgedUnchanged(),
    "chan": events.JudgedChanged(CHANGE),
    "refu": events.Refused(REFUSAL),
    "fata": events.JudgedFatal(REFUSAL, request("abort", "abort")),
    "rehe": events.Rehearsed(SNAPSHOT),
    "bind": events.Bound(),
    "drai": events.TurnsDrained(),
    "quie": events.Quiesced(),
    "sett": events.Settled(),
    "list": events.Listening(),
    "fail": events.ExecFailed(REFUSAL),
    "stop": events.StopRequested(request("new-stop", "term")),
    "t-wu": events.TimerFired(WARM_UP),
    "t-dr": events.TimerFired(DRAIN),
    "t-re": events.TimerFired(RETIRE),
    "t-??": events.TimerFired("nobody set this one"),
}

#: The next stage by its initials, "." for the same, "-" for illegal, "?" for READY, or JUDGING if
#: somebody asked meanwhile, "w" for WARMING, or STOP_DRAINING if a stop was noted.
MATRIX = """
               boot serv warm relo unch chan refu fata rehe bind drai quie sett list fail stop t-wu t-dr t-re t-??
NEW            C    -    -    .    -    -    -    -    -    -    -    -    -    -    -    .    -    -    -    -
CLAIMING       -    w    -    .    -    -    -    -    -    -    -    -    -    -    -    .    -    -    -    -
WARMING        -    -    ?    .    -    -    -    -    -    -    -    -    -    -    -    SD   ?    .    .    .
READY          -    -    .    J    -    -    -    -    -    -    .    -    -    -    -    SD   .    .    .    .
JUDGING        -    -    .    .    ?    RH   ?    SD   -    -    .    -    -    -    -    SD   .    .    .    .
REHEARSING     -    -    .    .    -    -    ?    -    B    -    .    -    -    -    -    SD   .    .    .    .
BINDING        -    -    .    .    -    -    ?    -    -    D    -    -    -    -    -    SD   .    .    .    .
DRAINING       -    -    .    .    -    -    -    -    -    -    Q    -    -    -    -    SD   .    Q    .    .
QUIESCING      -    -    .    .    -    -    -    -    -    -    .    S    -    -    -    SQ   .    .    .    .
SETTLING       -    -    .    .    -    -    -    -    -    -    .    -    L    -    -    SS   .    .    .    .
LISTENING      -    -    .    .    -    -    -    -    -    -    .    -    -    H    ?    SS   .    .    .    .
HANDING_OFF    -    -    .    .    -    -    -    -    -    -    .    -    -    -    ?    SS   .    .    .    .
STOP_DRAINING  -    -    .    .    .    .    .    .    .    .    SQ   -    -    -    -    SS   .    SQ   .    .
STOP_QUIESCING -    -    .    .    .    .    .    .    .    .    .    SS   -    -    -    SS   .    .    .    .
STOP_SETTLING  -    -    .    .    .    .    .    .    .    .    .    .    E    .    .    .    .    .    .    .
ENDED          -    -    .    .    -    -    -    -    -    -    .    .    .    .    .    .    .    .    .    .
"""  # noqa: E501 - a table

INITIALS = {
    "C": Stage.CLAIMING,
    "J": Stage.JUDGING,
    "RH": Stage.REHEARSING,
    "B": Stage.BINDING,
    "D": Stage.DRAINING,
    "Q": Stage.QUIESCING,
    "S": Stage.SETTLING,
    "L": Stage.LISTENING,
    "H": Stage.HANDING_OFF,
    "SD": Stage.STOP_DRAINING,
    "SQ": Stage.STOP_QUIESCING,
    "SS": Stage.STOP_SETTLING,
    "E": Stage.ENDED,
}

WALKS = (
    Stage.JUDGING,
    Stage.REHEARSING,
    Stage.BINDING,
    Stage.DRAINING,
    Stage.QUIESCING,
    Stage.SETTLING,
    Stage.LISTENING,
    Stage.HANDING_OFF,
)
STOPPING = (Stage.STOP_DRAINING, Stage.STOP_QUIESCING, Stage.STOP_SETTLING, Stage.ENDED)
STARTING = (Stage.NEW, Stage.CLAIMING)
BEFORE_EXECVE = (*STARTING, Stage.WARMING, Stage.READY, *WALKS)


def example(stage: Stage) -> State:
    """A state of that stage with everything that the stage has."""
    drains = stage in WALKS[3:] or stage in STOPPING
    return State(
        stage,
        DRAIN_SETTINGS,
        requests=(request("first", "file"), request("second", "hup")) if stage in WALKS else (),
        change=CHANGE if stage in WALKS[1:] else None,
        deadlines=plan_deadlines(DRAIN_SETTINGS, NOW - 1, stopping=False) if drains else None,
        stop=request("stop", "term") if stage in STOPPING else None,
    )


def examples(stage: Stage) -> Iterator[State]:
    """Every sort of state of that stage: with and without a queue, with and without a noted stop."""
    plain = example(stage)
    yield plain
    queue = (request("queued-1"), request("queued-2", "hup", force=True))
    if stage in (*STARTING, Stage.WARMING, *WALKS):
        yield replace(plain, queued=queue)
    if stage in STARTING:
        noted = replace(plain, stop=request("noted", "term"))
        yield noted
        yield replace(noted, queued=queue)


def expected(cell: str, state: State) -> Stage | None:
    match cell:
        case "-":
            return None
        case ".":
            return state.stage
        case "?":
            return Stage.JUDGING if state.queued else Stage.READY
        case "w":
            return Stage.STOP_DRAINING if state.stop else Stage.WARMING
    return INITIALS[cell]


def cells() -> Iterator[tuple[Stage, str, str]]:
    head, *rows = (line.split() for line in MATRIX.strip().splitlines())
    for name, *row in rows:
        assert len(row) == len(head)
        for column, cell in zip(head, row, strict=True):
            yield Stage[name], column, cell


CELLS = list(cells())


def legal_steps() -> Iterator[tuple[State, Event, State, tuple[effects.Effect, ...]]]:
    for stage, column, cell in CELLS:
        if cell != "-":
            for state in examples(stage):
                yield state, EVENTS[column], *step(state, EVENTS[column], NOW)


LEGAL = list(legal_steps())


def kinds(todo: tuple[effects.Effect, ...]) -> list[type[effects.Effect]]:
    return [type(effect) for effect in todo]
