"""The daemon around the lifecycle, on paper: what each effect leaves, and what may be reported next.

A :class:`World` is a lifecycle state together with everything that the effects so far have begun,
opened or promised. It is a value, so worlds can be collected and every order in which things may
happen can be walked. :meth:`World.take` asserts on the way what no order may break.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cached_property

from netclawd.core import effects, events, lifecycle
from netclawd.core.effects import Effect
from netclawd.core.events import Event, Request
from netclawd.core.lifecycle import Stage, State, check_invariants, step
from netclawd.core.session import RestartId
from tests.core.examples import CHANGE, DRAIN, REFUSAL, SNAPSHOT, request

NOW = 1000.0

TERM_AT_EXEC = events.StopRequested(request("term-at-exec", "term"))

#: What an effect that was begun may report, once.
REPORTS: dict[type[Effect], tuple[Event, ...]] = {
    effects.Serve: (events.Serving(),),
    effects.WarmUp: (events.WarmedUp(),),
    effects.Judge: (
        events.JudgedChanged(CHANGE),
        events.JudgedUnchanged(),
        events.Refused(REFUSAL),
        events.JudgedFatal(REFUSAL, request("abort", "abort")),
    ),
    effects.Rehearse: (events.Rehearsed(SNAPSHOT), events.Refused(REFUSAL)),
    effects.BindNew: (events.Bound(), events.Refused(REFUSAL)),
    effects.DrainTurns: (events.TurnsDrained(),),
    effects.Quiesce: (events.Quiesced(),),
    effects.Settle: (events.Settled(),),
    effects.ListenNew: (events.Listening(), events.ExecFailed(REFUSAL)),
    effects.Exec: (events.ExecFailed(REFUSAL), TERM_AT_EXEC),
}

#: Done on the arbiter's thread: the report comes before what others have posted.
AT_ONCE = (effects.Judge, effects.BindNew, effects.Settle, effects.ListenNew, effects.Exec)


#: Where a timer may be set; the one for retiring may be anywhere.
TIMER_STAGES = {
    lifecycle.WARM_UP: (Stage.WARMING,),
    lifecycle.DRAIN: (Stage.DRAINING, Stage.STOP_DRAINING),
}


class Told(StrEnum):
    """What the supervisor was told last."""

    NOTHING = "nothing"
    RELOADING = "reloading"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, eq=False)
class World:
    state: State
    #: Events that the arbiter has not taken yet, the next one first.
    posted: tuple[Event, ...] = ()
    under_way: frozenset[type[Effect]] = frozenset()
    timers: frozenset[str] = frozenset()
    #: Timers that were set again when they fired; they are not due again in the same stage.
    set_again: frozenset[str] = frozenset()
    gate_open: bool = False
    accepting: bool = False
    store_open: bool = False
    #: Sockets of a restart that has not taken place are held.
    bound: bool = False
    #: The manifest says what is in flight, and then what became of it.
    marked: bool = False
    settled: bool = False
    told: Told = Told.NOTHING
    #: Requests of the restart that this image came from.
    crossed: frozenset[RestartId] = frozenset()
    waiting: frozenset[RestartId] = frozenset()
    answered: frozenset[RestartId] = frozenset()
    #: What the next image is given, once execve is tried.
    handoff: effects.Exec | None = None
    #: execve took place, or the process exited.
    replaced: bool = False
    exited: bool = False

    @cached_property
    def key(self) -> tuple[object, ...]:
        """All in which two worlds can differ: requests by their ids, what is constant left out."""
        state = self.state
        return (
            state.stage,
            tuple(request.id for request in state.requests),
            tuple(request.id for request in state.queued),
            state.change is None,
            state.deadlines and state.deadlines.model,
            state.stop and state.stop.id,
            state.aborted is None,
            tuple(type(e).__name__ + getattr(e, "name", "") for e in self.posted),
            *(getattr(self, name) for name in _COMPARED),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, World) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def over(self) -> bool:
        return self.replaced or self.exited

    @property
    def exec_tried(self) -> bool:
        """Whether the arbiter is in execve: it takes nothing then, what is posted is handed over."""
        return effects.Exec in self.under_way

    # -- what may happen next ---------------------------------------------------------------

    def outcomes(self) -> Iterator[tuple[str, World]]:
        """Yield all that may happen by itself, with its name: nobody asks for anything new."""
        if self.over:
            return
        if self.exec_tried:
            yield from self._reports(effects.Exec)
            yield "execve", self._execve()
            return
        if self.posted:
            first, rest = self.posted[0], self.posted[1:]
            yield f"take {type(first).__name__}", replace(self, posted=rest).take(first)
        for effect in sorted(self.under_way, key=lambda e: e.__name__):
            yield from self._reports(effect)
        for name in sorted(self.timers - self.set_again):
            fired = replace(self, timers=self.timers - {name})
            yield f"timer {name}", fired._post(events.TimerFired(name))

    def _reports(self, effect: type[Effect]) -> Iterator[tuple[str, World]]:
        for event in REPORTS[effect]:
            world = replace(self, under_way=self.under_way - {effect})
            if isinstance(event, events.Refused) and effect is effects.BindNew:
                world = replace(world, bound=False)
            label = f"{effect.__name__} reports {type(event).__name__}"
            if effect in AT_ONCE:
                yield label, replace(world, posted=(event, *world.posted))
            else:
                yield label, world._post(event)

    def _post(self, event: Event) -> World:
        return replace(self, posted=(*self.posted, event))

    def ask(self, asked: Request, now: float = NOW) -> World:
        event = events.ReloadRequested(asked)
        return replace(self, waiting=self.waiting | {asked.id}).take(event, now)

    # -- what an event does -------------------------------------------------------------------

    def take(self, event: Event, now: float = NOW) -> World:
        state, todo = step(self.state, event, now)
        check_invariants(state)
        moved = state.stage is not self.state.stage
        world = replace(self, state=state, set_again=frozenset() if moved else self.set_again)
        for effect in todo:
            world = world._perform(effect)
        if isinstance(event, events.TimerFired) and not moved:
            again = world.timers & {event.name}
            world = replace(world, set_again=world.set_again | again)
        for name, stages in TIMER_STAGES.items():
            assert name not in world.timers or state.stage in stages, f"{name} is left set"
        return world

    def _perform(self, effect: Effect) -> World:
        assert not self.over, f"{effect} after the end"
        if type(effect) in REPORTS:
            return self._begin(effect)
        match effect:
            case effects.OpenStore():
                return replace(self, store_open=True)
            case effects.SetTimer(name=name):
                return replace(self, timers=self.timers | {name})
            case effects.CancelTimer(name=name):
                return replace(self, timers=self.timers - {name})
            case effects.OpenGate():
                assert self.accepting
                assert self.store_open
                assert not self.gate_open, "the gate opens once"
                return replace(self, gate_open=True)
            case effects.CloseGate():
                return replace(self, gate_open=False)
            case effects.NotifyReady():
                assert self.gate_open, "READY is true"
                assert not self.bound, "READY comes with nothing left over"
                return replace(self, told=Told.READY)
            case effects.NotifyReloading():
                assert self.told is Told.READY, "RELOADING comes once, after READY"
                return replace(self, told=Told.RELOADING)
            case effects.NotifyStopping():
                assert self.told is not Told.STOPPING, "STOPPING comes once"
                return replace(self, told=Told.STOPPING)
            case effects.CancelRehearsal():
                return replace(self, under_way=self.under_way - {effects.Rehearse})
            case effects.CloseNew():
                return replace(self, bound=False)
            case effects.MarkManifest():
                assert not self.gate_open, "the gate closes before the mark"
                return replace(self, marked=True)
            case effects.Reopen():
                assert not self.store_open
                return replace(self, store_open=True, accepting=True, settled=False)
            case effects.Resume():
                assert self.store_open
                return replace(self, under_way=self.under_way - {effects.DrainTurns})
            case effects.Retire():
                assert self.state.change is None, "a plan may name what is retired"
                assert effects.Judge not in self.under_way, "a plan is being made of what is held"
                return self
            case effects.Record(request=asked):
                return self._answer({asked.id})
            case effects.RecordApplied():
                return replace(self._answer(self.crossed), crossed=frozenset())
            case effects.Exit():
                return self._exit()
        return self

    def _begin(self, effect: Effect) -> World:
        world = replace(self, under_way=self.under_way | {type(effect)})
        match effect:
            case effects.Serve():
                assert self.store_open
                return replace(world, accepting=True)
            case effects.BindNew():
                assert not self.bound
                return replace(world, bound=True)
            case effects.DrainTurns():
                assert self.marked, "the mark comes before the drain"
            case effects.Quiesce():
                assert not self.gate_open
                return replace(world, accepting=False)
            case effects.Settle():
                again = effect.reason == "stop" and self.settled
                assert self.store_open or again, "it settles once, but for a stop that overtakes"
                assert self.marked
                return replace(world, store_open=False, settled=True)
            case effects.ListenNew():
                assert self.settled
            case effects.Exec():
                return replace(world, handoff=effect)._check_commit_point()
        return world

    def _answer(self, ids: frozenset[RestartId] | set[RestartId]) -> World:
        assert ids <= self.waiting - self.answered, "each is answered once"
        return replace(self, answered=self.answered | ids)

    def _check_commit_point(self) -> World:
        assert self.told is Told.RELOADING, "never STOPPING before an execve"
        assert self.settled
        assert not self.store_open
        assert not self.accepting
        assert not self.gate_open
        return self

    def _execve(self) -> World:
        assert self.handoff is not None
        crossing = (*self.handoff.requests, *self.handoff.queued)
        assert len({r.id for r in crossing}) == len(crossing)
        assert {r.id for r in crossing} == self.waiting - self.answered, (
            "who isn't answered crosses"
        )
        return replace(self, replaced=True)

    def _exit(self) -> World:
        assert self.told is Told.STOPPING
        assert self.answered == self.waiting, "everybody is answered before the end"
        assert self.settled
        assert not self.bound
        assert not self.store_open
        assert not self.gate_open
        return replace(self, exited=True)

    # -- where it may rest -----------------------------------------------------------------------

    def check_rest(self) -> None:
        """Assert that this is an end: nothing more happens by itself, and nothing is left over."""
        if self.over:
            return
        assert self.state.stage is Stage.READY
        assert self.told is Told.READY
        assert self.gate_open
        assert self.accepting
        assert self.store_open
        assert not self.bound
        assert self.answered == self.waiting, "everybody is answered"
        assert not self.under_way
        assert not self.timers
        assert not self.posted


#: What is compared as it is.
_COMPARED = tuple(
    field.name for field in fields(World) if field.name not in ("state", "posted", "handoff")
)


def cold_start() -> World:
    return World(State(Stage.NEW, DRAIN), posted=(events.Booted(),))


def start_from_handoff() -> World:
    """Return a new image: one request to answer as applied, one still to be judged."""
    return _image((request("applied"),), (request("queued"),))


def successor(old: World) -> World:
    """Return the image that an execve has started."""
    assert old.handoff is not None
    return _image(old.handoff.requests, old.handoff.queued)


def _image(applied: tuple[Request, ...], queued: tuple[Request, ...]) -> World:
    return World(
        State(Stage.NEW, DRAIN, queued=queued),
        posted=(events.Booted(),),
        crossed=frozenset(r.id for r in applied),
        waiting=frozenset(r.id for r in (*applied, *queued)),
    )
