"""The lifecycle of the daemon as a table: (stage, event) -> (next stage, effects).

Pure. How to think about it:

The daemon is one process that serves, and now and then replaces itself. A replacement is a walk
through the stages JUDGING, REHEARSING, BINDING (nothing has changed yet; every failure leads back
to READY with a refusal), DRAINING, QUIESCING, SETTLING, LISTENING, HANDING_OFF (everything is on its
way to execve, the commit point). The new image begins at NEW with what it inherited. A stop walks
the same drain under names of its own, because the rules differ: a reload that comes then is
answered at once, a second stop cuts the drain short, and nothing leads back to READY.

Four laws, which ``tests/core/test_lifecycle.py`` checks over every stage and event:

1. Lifecycle is serial. There is one stage; requests that come meanwhile are queued, and all that
   are queued are judged once, together: the last content wins and a burst of HUPs is one reload.
2. A stop beats a restart. In every stage before execve StopRequested leads to a stopping stage; one
   that comes before the store is open (NEW, CLAIMING) is noted and leads there as soon as it is.
3. An illegal event raises and changes nothing.
4. Whoever asked is answered exactly once: every request ends in one Record, or crosses execve.

An event that comes late (a warm-up that ends after READY, the verdict of a cancelled rehearsal) is
legal and without effect in the stages where it can come; these rows are in :data:`LATE`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from netclawd.core import budgets, effects, events
from netclawd.core.drain import Deadlines, hasten, plan_deadlines, quiesce_deadline
from netclawd.core.effects import Effect
from netclawd.core.events import Event, Request
from netclawd.core.listeners import parse_addresses, plan_listeners
from netclawd.core.restart import Outcome
from netclawd.core.settings import DrainSettings
from netclawd.core.values import frozen, replace


class Phase(StrEnum):
    """What is shown to people; the values are protocol."""

    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    REHEARSING = "rehearsing"
    DRAINING = "draining"
    HANDING_OFF = "handing-off"
    STOPPING = "stopping"


class Stage(StrEnum):
    """Where the lifecycle stands; finer than the phase."""

    NEW = "new"
    CLAIMING = "claiming"
    WARMING = "warming"
    READY = "ready"
    JUDGING = "judging"
    REHEARSING = "rehearsing"
    BINDING = "binding"
    DRAINING = "draining"
    QUIESCING = "quiescing"
    SETTLING = "settling"
    LISTENING = "listening"
    HANDING_OFF = "handing-off"
    STOP_DRAINING = "stop-draining"
    STOP_QUIESCING = "stop-quiescing"
    STOP_SETTLING = "stop-settling"
    ENDED = "ended"


PHASE_OF: dict[Stage, Phase] = {
    Stage.NEW: Phase.STARTING,
    Stage.CLAIMING: Phase.STARTING,
    Stage.WARMING: Phase.WARMING,
    Stage.READY: Phase.READY,
    Stage.JUDGING: Phase.REHEARSING,
    Stage.REHEARSING: Phase.REHEARSING,
    Stage.BINDING: Phase.REHEARSING,
    Stage.DRAINING: Phase.DRAINING,
    Stage.QUIESCING: Phase.DRAINING,
    Stage.SETTLING: Phase.HANDING_OFF,
    Stage.LISTENING: Phase.HANDING_OFF,
    Stage.HANDING_OFF: Phase.HANDING_OFF,
    Stage.STOP_DRAINING: Phase.STOPPING,
    Stage.STOP_QUIESCING: Phase.STOPPING,
    Stage.STOP_SETTLING: Phase.STOPPING,
    Stage.ENDED: Phase.STOPPING,
}

#: Names of the timers.
WARM_UP, DRAIN, RETIRE = "warm-up", "drain", "retire"

_STARTING = (Stage.NEW, Stage.CLAIMING)
_STOPPABLE = (
    Stage.WARMING,
    Stage.READY,
    Stage.JUDGING,
    Stage.REHEARSING,
    Stage.BINDING,
)
_STOPPING = (Stage.STOP_DRAINING, Stage.STOP_QUIESCING, Stage.STOP_SETTLING)
_COMMITTED = (Stage.SETTLING, Stage.LISTENING, Stage.HANDING_OFF)
_WITH_CHANGE = (Stage.REHEARSING, Stage.BINDING, Stage.DRAINING, Stage.QUIESCING, *_COMMITTED)
_WITH_REQUEST = (Stage.JUDGING, *_WITH_CHANGE)
_WITH_DEADLINES = (Stage.DRAINING, Stage.QUIESCING, Stage.STOP_DRAINING, Stage.STOP_QUIESCING)


class IllegalEventError(Exception):
    """The event can't happen in this stage; the state is as it was."""


@frozen
class State:
    stage: Stage
    #: Deadlines of the drain as the running configuration has them.
    drain: DrainSettings
    #: Requests that the walk in progress answers, the first is its name.
    requests: tuple[Request, ...] = ()
    #: What the walk would change; known from REHEARSING on.
    change: events.Change | None = None
    #: Requests that came during the walk.
    queued: tuple[Request, ...] = ()
    deadlines: Deadlines | None = None
    #: The request for a stop, once there is one.
    stop: Request | None = None
    #: The wrong configuration that the stop comes of, if it does.
    aborted: events.Refusal | None = None

    @property
    def phase(self) -> Phase:
        return PHASE_OF[self.stage]


def check_invariants(state: State) -> None:
    """Raise AssertionError when the state contradicts itself."""
    assert bool(state.requests) == (state.stage in _WITH_REQUEST), "a walk has requests"
    assert (state.change is not None) == (state.stage in _WITH_CHANGE), "a judged walk has a change"
    assert state.deadlines is not None or state.stage not in _WITH_DEADLINES, (
        "a drain has deadlines"
    )
    stopping = state.stage in (*_STOPPING, Stage.ENDED)
    assert (state.stop is not None) == stopping or state.stage in _STARTING, "a stop has a trigger"
    assert not (stopping and state.queued), "a stop answers at once"
    assert stopping or state.aborted is None, "an abort is a stop"


Step = tuple[State, list[Effect]]
Action = Callable[[State, Event, float], Step]
Guard = Callable[[State, Event], bool]


@frozen
class Rule:
    """One row of the table. ``when`` is None or the guard; the first row whose guard holds applies."""

    stage: Stage
    event: type[Event]
    to: Stage
    action: Action
    when: Guard | None = None


def step(state: State, event: Event, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Return the next state and the effects to perform in order.

    ``now`` is an instant on CLOCK_MONOTONIC. Raises IllegalEventError, and then nothing changed.
    """
    rule = find_rule(state, event)
    after, todo = rule.action(state, event, now)
    return replace(after, stage=rule.to), tuple(todo)


def find_rule(state: State, event: Event) -> Rule:
    """Return the row that applies, or raise IllegalEventError."""
    for rule in _INDEX.get((state.stage, type(event)), ()):
        if rule.when is None or rule.when(state, event):
            return rule
    raise IllegalEventError(f"{type(event).__name__} can't happen while {state.stage.value}")


# -- guards --------------------------------------------------------------------------------------


def _has_queue(state: State, _event: Event) -> bool:
    return bool(state.queued)


def _stop_noted(state: State, _event: Event) -> bool:
    return state.stop is not None


def _timer(name: str) -> Guard:
    def is_due(_state: State, event: Event) -> bool:
        return isinstance(event, events.TimerFired) and event.name == name

    return is_due


def _timer_and_queue(name: str) -> Guard:
    due = _timer(name)
    return lambda state, event: due(state, event) and bool(state.queued)


# -- actions -------------------------------------------------------------------------------------


def _nothing(state: State, _event: Event, _now: float) -> Step:
    return state, []


def _boot(state: State, _event: Event, _now: float) -> Step:
    return state, [effects.ClaimListeners(), effects.OpenStore(), effects.Serve()]


def _warm_up(state: State, _event: Event, now: float) -> Step:
    return state, [
        effects.SetTimer(WARM_UP, now + budgets.WARM_UP_S),
        effects.Say(),
        effects.WarmUp(),
    ]


def _open(state: State, _event: Event, now: float) -> Step:
    """Step 14 of the write order, and the timer of step 15."""
    todo: list[Effect] = [
        effects.CancelTimer(WARM_UP),
        effects.OpenGate(),
        effects.NotifyReady(),
        effects.RecordApplied(),
        effects.KeepLastGood(),
        effects.SetTimer(RETIRE, now + budgets.RETIRE_S),
        effects.StartWatching(),
    ]
    return _judge_queued(state, todo)


def _judge_queued(state: State, todo: list[Effect]) -> Step:
    """End a walk; begin the next one if somebody asked meanwhile."""
    if not state.queued:
        return replace(state, requests=(), change=None, deadlines=None), [*todo, effects.Say()]
    # Who asked by name comes first: a file that was refused is tried again for a person only.
    asked = tuple(sorted(state.queued, key=lambda r: r.trigger.kind in events.BY_ITSELF))
    after = replace(state, requests=asked, queued=(), change=None, deadlines=None)
    return after, [*todo, _judge(after.requests)]


def _judge(requests: tuple[Request, ...]) -> Effect:
    """Judge all that were asked at once, under the name of the first."""
    return effects.Judge(replace(requests[0], force=any(r.force for r in requests)))


def _begin(state: State, event: Event, _now: float) -> Step:
    assert isinstance(event, events.ReloadRequested)
    after = replace(state, requests=(event.request,))
    return after, [_judge(after.requests), effects.Say()]


def _queue(state: State, event: Event, _now: float) -> Step:
    assert isinstance(event, events.ReloadRequested)
    return replace(state, queued=(*state.queued, event.request)), []


def _answer_stopping(state: State, event: Event, _now: float) -> Step:
    assert isinstance(event, events.ReloadRequested)
    return state, [effects.Record(event.request, Outcome.OVERTAKEN)]


def _unchanged(state: State, _event: Event, _now: float) -> Step:
    """Answer all. A plain HUP has been announced by systemd: tell it that we are ready again."""
    todo: list[Effect] = [effects.Record(r, Outcome.UNCHANGED) for r in state.requests]
    if any(r.trigger.kind == "hup" for r in state.requests):
        todo = [effects.NotifyReloading(), effects.NotifyReady(), *todo]
    return _judge_queued(state, todo)


def _refuse(state: State, event: Event, _now: float) -> Step:
    assert isinstance(event, events.Refused)
    todo: list[Effect] = [effects.Record(r, Outcome.REFUSED, event.refusal) for r in state.requests]
    return _judge_queued(state, todo)


def _abort(state: State, event: Event, now: float) -> Step:
    """Refuse, and stop: ``daemon.on_invalid_config = "abort"`` and a configuration of wrong meaning."""
    assert isinstance(event, events.JudgedFatal)
    refused: list[Effect] = [
        effects.Record(r, Outcome.REFUSED, event.refusal) for r in state.requests
    ]
    after, todo = _stop(replace(state, requests=()), events.StopRequested(event.stop), now)
    return replace(after, aborted=event.refusal), [*refused, *todo]


def _rehearse(state: State, event: Event, _now: float) -> Step:
    assert isinstance(event, events.JudgedChanged)
    return replace(state, change=event.change), [
        effects.Rehearse(event.change.snapshot),
        effects.Say(),
    ]


def _bind(state: State, event: Event, _now: float) -> Step:
    """Plan the listeners again from the snapshot as the code on disk reads it."""
    assert isinstance(event, events.Rehearsed)
    assert state.change is not None
    held = (*state.change.plan.keep, *state.change.plan.retire)
    daemon = event.snapshot.settings.daemon
    wanted = parse_addresses(daemon.listen)
    change = replace(state.change, snapshot=event.snapshot, plan=plan_listeners(held, wanted))
    return replace(state, change=change), [effects.BindNew(change.plan, daemon.unix)]


def _drain(state: State, _event: Event, now: float) -> Step:
    """Steps 5 to 7: announce, close the gate, mark, drain. Mark comes first of what takes time."""
    assert state.change is not None
    deadlines = plan_deadlines(state.drain, now, stopping=False)
    return replace(state, deadlines=deadlines), [
        effects.NotifyReloading(),
        effects.CloseGate(deadlines.end, stopping=False),
        effects.MarkManifest("reload", state.requests[0], state.change.snapshot),
        *_drain_turns(deadlines),
    ]


def _drain_turns(deadlines: Deadlines) -> list[Effect]:
    return [
        effects.SetTimer(DRAIN, deadlines.end),
        effects.DrainTurns(deadlines.model, deadlines.tool, deadlines.end),
        effects.Say(),
    ]


def _quiesce(state: State, _event: Event, now: float) -> Step:
    assert state.deadlines is not None
    until = quiesce_deadline(state.deadlines, now)
    return state, [effects.CancelTimer(DRAIN), effects.Quiesce(until)]


def _settle(state: State, _event: Event, _now: float) -> Step:
    assert state.change is not None
    return state, [effects.Settle("reload", state.requests[0], state.change.snapshot)]


def _listen(state: State, _event: Event, _now: float) -> Step:
    assert state.change is not None
    return state, [effects.ListenNew(state.change.snapshot.settings.daemon.backlog)]


def _hand_off(state: State, _event: Event, _now: float) -> Step:
    assert state.change is not None
    return state, [effects.Exec(state.change, state.requests, state.queued)]


def _undo(state: State, event: Event, _now: float) -> Step:
    """execve (or listen) failed: the old generation goes on where it was."""
    assert isinstance(event, events.ExecFailed)
    todo: list[Effect] = [
        effects.Reopen(),
        effects.CloseNew(),
        effects.Resume(),
        effects.OpenGate(),
        effects.NotifyReady(),
        *(effects.Record(r, Outcome.FAILED, event.refusal) for r in state.requests),
        effects.KeepLastGood(),
        # Quiescing has ended the watcher.
        effects.StartWatching(),
    ]
    return _judge_queued(state, todo)


def _note_stop(state: State, event: Event, _now: float) -> Step:
    assert isinstance(event, events.StopRequested)
    return replace(state, stop=event.request), []


def _overtake(state: State) -> list[Effect]:
    """Answer everybody who waits for a restart that a stop has overtaken."""
    return [effects.Record(r, Outcome.OVERTAKEN) for r in (*state.requests, *state.queued)]


def _stop(state: State, event: Event, now: float) -> Step:
    """Begin the stop's drain, or turn the restart's drain into it."""
    asked = event.request if isinstance(event, events.StopRequested) else state.stop
    assert asked is not None
    deadlines = (
        hasten(state.deadlines, state.drain, now)
        if state.deadlines is not None
        else plan_deadlines(state.drain, now, stopping=True)
    )
    todo: list[Effect] = [
        effects.CancelTimer(WARM_UP),
        effects.CancelTimer(RETIRE),
        *_end_start_or_walk(state),
        *_overtake(state),
        effects.NotifyStopping(),
        effects.CloseGate(deadlines.end, stopping=True),
        effects.MarkManifest("stop", asked, None),
        *_drain_turns(deadlines),
    ]
    return _stopping(state, asked, deadlines), todo


def _end_start_or_walk(state: State) -> list[Effect]:
    """A start that serves has applied the restart it came from, even if it never gets ready."""
    if state.stage in (Stage.CLAIMING, Stage.WARMING):
        return [effects.RecordApplied()]
    return [effects.CancelRehearsal(), effects.CloseNew()]


def _stopping(state: State, asked: Request, deadlines: Deadlines | None) -> State:
    return replace(state, requests=(), queued=(), change=None, stop=asked, deadlines=deadlines)


def _stop_quiescing(state: State, event: Event, _now: float) -> Step:
    """The turns are drained already: go on quiescing, as a stop."""
    assert isinstance(event, events.StopRequested)
    assert state.deadlines is not None
    todo: list[Effect] = [
        *_overtake(state),
        effects.CloseNew(),
        effects.NotifyStopping(),
        effects.CloseGate(state.deadlines.end, stopping=True),
    ]
    return _stopping(state, event.request, state.deadlines), todo


def _stop_settled(state: State, event: Event, _now: float) -> Step:
    """Only the execve is left out; manifest and journal are written once more, as a stop's.

    Crash: before that the manifest says "reload", and the next start takes it for a restart that
    ended in the middle. No turn is affected.
    """
    assert isinstance(event, events.StopRequested)
    todo: list[Effect] = [*_overtake(state), effects.CloseNew(), effects.NotifyStopping()]
    return _stopping(state, event.request, None), [
        *todo,
        effects.Settle("stop", event.request, None),
    ]


def _settle_stop(state: State, _event: Event, _now: float) -> Step:
    assert state.stop is not None
    return state, [effects.CancelTimer(DRAIN), effects.Settle("stop", state.stop, None)]


def _end(state: State, _event: Event, _now: float) -> Step:
    return state, _exit(state)


def _exit(state: State) -> list[Effect]:
    assert state.stop is not None
    return [effects.Exit(state.stop, state.aborted)]


def _retire(state: State, _event: Event, _now: float) -> Step:
    return state, [effects.Retire()]


def _retire_later(state: State, _event: Event, now: float) -> Step:
    """Look again later: the walk's plan may adopt what would be closed now, or hand it over."""
    return state, [effects.SetTimer(RETIRE, now + budgets.RETIRE_S)]


# -- the table -----------------------------------------------------------------------------------

S = Stage

TABLE: tuple[Rule, ...] = (
    # A start, cold or from a handoff.
    Rule(S.NEW, events.Booted, S.CLAIMING, _boot),
    Rule(S.CLAIMING, events.Serving, S.STOP_DRAINING, _stop, _stop_noted),
    Rule(S.CLAIMING, events.Serving, S.WARMING, _warm_up),
    *(Rule(stage, events.StopRequested, stage, _note_stop) for stage in _STARTING),
    Rule(S.WARMING, events.WarmedUp, S.JUDGING, _open, _has_queue),
    Rule(S.WARMING, events.WarmedUp, S.READY, _open),
    Rule(S.WARMING, events.TimerFired, S.JUDGING, _open, _timer_and_queue(WARM_UP)),
    Rule(S.WARMING, events.TimerFired, S.READY, _open, _timer(WARM_UP)),
    # A restart, up to the point where nothing has changed yet.
    Rule(S.READY, events.ReloadRequested, S.JUDGING, _begin),
    Rule(S.JUDGING, events.JudgedUnchanged, S.JUDGING, _unchanged, _has_queue),
    Rule(S.JUDGING, events.JudgedUnchanged, S.READY, _unchanged),
    Rule(S.JUDGING, events.JudgedChanged, S.REHEARSING, _rehearse),
    Rule(S.JUDGING, events.JudgedFatal, S.STOP_DRAINING, _abort),
    Rule(S.REHEARSING, events.Rehearsed, S.BINDING, _bind),
    *(
        rule
        for stage in (S.JUDGING, S.REHEARSING, S.BINDING)
        for rule in (
            Rule(stage, events.Refused, S.JUDGING, _refuse, _has_queue),
            Rule(stage, events.Refused, S.READY, _refuse),
        )
    ),
    # The drain, and the handoff.
    Rule(S.BINDING, events.Bound, S.DRAINING, _drain),
    Rule(S.DRAINING, events.TurnsDrained, S.QUIESCING, _quiesce),
    Rule(S.DRAINING, events.TimerFired, S.QUIESCING, _quiesce, _timer(DRAIN)),
    Rule(S.QUIESCING, events.Quiesced, S.SETTLING, _settle),
    Rule(S.SETTLING, events.Settled, S.LISTENING, _listen),
    Rule(S.LISTENING, events.Listening, S.HANDING_OFF, _hand_off),
    *(
        rule
        for stage in (S.LISTENING, S.HANDING_OFF)
        for rule in (
            Rule(stage, events.ExecFailed, S.JUDGING, _undo, _has_queue),
            Rule(stage, events.ExecFailed, S.READY, _undo),
        )
    ),
    # A request that comes meanwhile waits for its turn.
    *(
        Rule(stage, events.ReloadRequested, stage, _queue)
        for stage in (*_STARTING, S.WARMING, *_WITH_REQUEST)
    ),
    # A stop beats a restart.
    *(
        Rule(stage, events.StopRequested, S.STOP_DRAINING, _stop)
        for stage in (*_STOPPABLE, S.DRAINING)
    ),
    Rule(S.QUIESCING, events.StopRequested, S.STOP_QUIESCING, _stop_quiescing),
    Rule(S.SETTLING, events.StopRequested, S.STOP_SETTLING, _stop_settled),
    Rule(S.LISTENING, events.StopRequested, S.STOP_SETTLING, _stop_settled),
    Rule(S.HANDING_OFF, events.StopRequested, S.STOP_SETTLING, _stop_settled),
    # The stop's own drain.
    Rule(S.STOP_DRAINING, events.TurnsDrained, S.STOP_QUIESCING, _quiesce),
    Rule(S.STOP_DRAINING, events.TimerFired, S.STOP_QUIESCING, _quiesce, _timer(DRAIN)),
    Rule(S.STOP_QUIESCING, events.Quiesced, S.STOP_SETTLING, _settle_stop),
    Rule(S.STOP_SETTLING, events.Settled, S.ENDED, _end),
    # A second stop cuts the drain short.
    Rule(S.STOP_DRAINING, events.StopRequested, S.STOP_SETTLING, _settle_stop),
    Rule(S.STOP_QUIESCING, events.StopRequested, S.STOP_SETTLING, _settle_stop),
    *(
        Rule(stage, events.ReloadRequested, stage, _answer_stopping)
        for stage in (*_STOPPING, S.ENDED)
    ),
    # Listeners that are no longer configured are retired while no walk has a plan for them.
    Rule(S.READY, events.TimerFired, S.READY, _retire, _timer(RETIRE)),
    *(
        Rule(stage, events.TimerFired, stage, _retire_later, _timer(RETIRE))
        for stage in _WITH_REQUEST
    ),
)

_AFTER_WARM_UP = tuple(s for s in Stage if s not in (*_STARTING, S.WARMING))

#: What can still come in when its time is over, without effect.
LATE: tuple[Rule, ...] = (
    *(Rule(s, events.WarmedUp, s, _nothing) for s in _AFTER_WARM_UP),
    *(Rule(s, events.TimerFired, s, _nothing) for s in Stage if s not in _STARTING),
    *(
        Rule(s, events.TurnsDrained, s, _nothing)
        for s in (S.QUIESCING, *_COMMITTED, *_STOPPING[1:])
    ),
    *(
        Rule(s, events.TurnsDrained, s, _nothing)
        for s in (S.READY, S.JUDGING, S.REHEARSING, S.ENDED)
    ),
    *(Rule(s, events.Quiesced, s, _nothing) for s in (S.STOP_SETTLING, S.ENDED)),
    # A stop that overtakes a settled restart settles again; what its last steps answer comes late.
    Rule(S.ENDED, events.Settled, S.ENDED, _nothing),
    *(
        Rule(s, e, s, _nothing)
        for s in (S.STOP_SETTLING, S.ENDED)
        for e in (events.Listening, events.ExecFailed)
    ),
    *(Rule(s, e, s, _nothing) for s in _STOPPING for e in (events.Rehearsed, events.Refused)),
    *(Rule(s, events.Bound, s, _nothing) for s in _STOPPING),
    *(
        Rule(s, e, s, _nothing)
        for s in _STOPPING
        for e in (events.JudgedUnchanged, events.JudgedChanged, events.JudgedFatal)
    ),
    *(Rule(s, events.StopRequested, s, _nothing) for s in (S.STOP_SETTLING, S.ENDED)),
)


def _index(rules: tuple[Rule, ...]) -> dict[tuple[Stage, type[Event]], tuple[Rule, ...]]:
    index: dict[tuple[Stage, type[Event]], tuple[Rule, ...]] = {}
    for rule in rules:
        key = (rule.stage, rule.event)
        index[key] = (*index.get(key, ()), rule)
    return index


_INDEX = _index(TABLE + LATE)
