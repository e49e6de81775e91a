"""What holds for every step of the lifecycle: the laws of its essay, and the order of effects."""

from __future__ import annotations

import pytest

from netclawd.core import budgets, effects, events
from netclawd.core.drain import plan_deadlines
from netclawd.core.lifecycle import DRAIN, RETIRE, Stage, step
from netclawd.core.listeners import ListenerPlan
from netclawd.core.restart import Outcome
from netclawd.core.values import replace
from tests.core.examples import CHANGE, KEPT, NEW, OLD, REFUSAL, SNAPSHOT, request, snapshot
from tests.core.examples import DRAIN as DRAIN_SETTINGS
from tests.core.stages import (
    BEFORE_EXECVE,
    EVENTS,
    LEGAL,
    NOW,
    STARTING,
    STOPPING,
    WALKS,
    example,
    examples,
    kinds,
)

# -- law 1: serial -----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [*STARTING, Stage.WARMING, *WALKS])
def test_a_request_that_comes_meanwhile_only_waits(stage: Stage) -> None:
    for state in examples(stage):
        after, todo = step(state, EVENTS["relo"], NOW)
        assert not todo
        assert after == replace(state, queued=(*state.queued, request("new", "hup")))


def test_all_that_are_queued_are_judged_once_under_the_name_of_the_first() -> None:
    state = replace(
        example(Stage.JUDGING),
        queued=(request("one", "hup"), request("two", "hup"), request("three", force=True)),
    )
    after, todo = step(state, events.JudgedUnchanged(), NOW)
    assert after.requests == state.queued
    assert after.queued == ()
    judged = [effect.request for effect in todo if isinstance(effect, effects.Judge)]
    assert judged == [request("one", "hup", force=True)], "force of any is force of all"


def test_a_walk_ends_with_a_judgement_if_somebody_asked_and_with_a_word_if_nobody_did() -> None:
    for _, event, after, todo in LEGAL:
        if after.stage in (Stage.JUDGING, Stage.READY) and not isinstance(
            event, (events.ReloadRequested, events.TimerFired, events.TurnsDrained)
        ):
            last = {Stage.JUDGING: effects.Judge, Stage.READY: effects.Say}[after.stage]
            assert not todo or isinstance(todo[-1], last)


# -- law 2: a stop beats a restart ---------------------------------------------------------------


@pytest.mark.parametrize("stage", BEFORE_EXECVE)
def test_a_stop_beats_a_restart_in_every_stage(stage: Stage) -> None:
    for state in examples(stage):
        after, todo = step(state, EVENTS["stop"], NOW)
        if stage in STARTING:
            assert after.stop == request("new-stop", "term")
            assert not todo
            continue
        assert after.stage in STOPPING
        assert kinds(todo).count(effects.NotifyStopping) == 1
        assert after.stop == request("new-stop", "term")


@pytest.mark.parametrize("stage", STARTING)
def test_a_stop_noted_during_a_start_is_carried_out_when_it_serves(stage: Stage) -> None:
    state, _ = step(example(stage), EVENTS["stop"], NOW)
    if stage is Stage.NEW:
        state, todo = step(state, events.Booted(), NOW)
        assert effects.Serve in kinds(todo), "a stop needs an open store"
    state, todo = step(state, events.Serving(), NOW)
    assert state.stage is Stage.STOP_DRAINING
    assert effects.NotifyReady not in kinds(todo)


@pytest.mark.parametrize("stage", [Stage.STOP_DRAINING, Stage.STOP_QUIESCING])
def test_a_second_stop_cuts_the_drain_short(stage: Stage) -> None:
    after, todo = step(example(stage), EVENTS["stop"], NOW)
    assert after.stage is Stage.STOP_SETTLING
    assert kinds(todo) == [effects.CancelTimer, effects.Settle]
    assert after.stop == request("stop", "term"), "the first stop has the name"


def test_a_stop_in_a_drain_moves_no_deadline_back_and_hastens_the_model_calls() -> None:
    state = example(Stage.DRAINING)
    assert state.deadlines is not None
    after, _ = step(state, EVENTS["stop"], NOW)
    assert after.deadlines is not None
    assert after.deadlines.end == state.deadlines.end
    assert after.deadlines.model == NOW + DRAIN_SETTINGS.model_timeout_at_stop_s


# -- law 4: each request is answered once --------------------------------------------------------


def test_a_step_answers_each_request_once_or_keeps_it() -> None:
    for state, event, after, todo in LEGAL:
        before = [r.id for r in (*state.requests, *state.queued)]
        if isinstance(event, events.ReloadRequested):
            before.append(event.request.id)
        recorded = [e.request.id for e in todo if isinstance(e, effects.Record)]
        kept = [r.id for r in (*after.requests, *after.queued)]
        assert sorted(recorded + kept) == sorted(before)


@pytest.mark.parametrize(
    ("stage", "column", "outcome"),
    [
        (Stage.JUDGING, "unch", Outcome.UNCHANGED),
        (Stage.JUDGING, "refu", Outcome.REFUSED),
        (Stage.JUDGING, "fata", Outcome.REFUSED),
        (Stage.REHEARSING, "refu", Outcome.REFUSED),
        (Stage.BINDING, "refu", Outcome.REFUSED),
        (Stage.LISTENING, "fail", Outcome.FAILED),
        (Stage.HANDING_OFF, "fail", Outcome.FAILED),
        *((stage, "stop", Outcome.OVERTAKEN) for stage in WALKS),
    ],
)
def test_who_asked_is_told_what_happened(stage: Stage, column: str, outcome: Outcome) -> None:
    _, todo = step(example(stage), EVENTS[column], NOW)
    answers = [effect for effect in todo if isinstance(effect, effects.Record)]
    assert [a.request.id for a in answers] == ["first", "second"]
    assert {a.outcome for a in answers} == {outcome}
    failed = outcome in (Outcome.REFUSED, Outcome.FAILED)
    assert {a.refusal for a in answers} == {REFUSAL if failed else None}


def test_a_fatal_configuration_is_refused_and_then_leads_the_way_of_a_stop() -> None:
    _, stopped = step(example(Stage.JUDGING), EVENTS["stop"], NOW)
    after, todo = step(example(Stage.JUDGING), EVENTS["fata"], NOW)
    assert kinds(todo)[:2] == [effects.Record, effects.Record]
    assert [k for k in kinds(todo) if k is not effects.Record] == [
        k for k in kinds(stopped) if k is not effects.Record
    ]
    settled, _ = step(replace(after, stage=Stage.STOP_SETTLING), events.Settled(), NOW)
    assert settled.aborted == REFUSAL
    _, end = step(replace(after, stage=Stage.STOP_SETTLING), events.Settled(), NOW)
    assert end == (effects.Exit(request("abort", "abort"), REFUSAL),)


def test_the_handoff_carries_who_waits_and_who_is_queued() -> None:
    state = replace(example(Stage.LISTENING), queued=(request("queued"),))
    _, todo = step(state, events.Listening(), NOW)
    assert todo == (effects.Exec(CHANGE, state.requests, state.queued),)


def test_a_start_that_a_stop_ends_has_still_applied_its_restart() -> None:
    noted = replace(example(Stage.CLAIMING), stop=request("noted"))
    for state, event in ((noted, events.Serving()), (example(Stage.WARMING), EVENTS["stop"])):
        _, todo = step(state, event, NOW)
        assert kinds(todo).count(effects.RecordApplied) == 1


# -- the order of effects --------------------------------------------------------------------------


def test_a_drain_announces_closes_the_gate_marks_and_only_then_drains() -> None:
    drains = [todo for *_, todo in LEGAL if effects.DrainTurns in kinds(todo)]
    assert drains
    for todo in drains:
        order = kinds(todo)
        announce = (
            effects.NotifyStopping if effects.NotifyStopping in order else effects.NotifyReloading
        )
        places = [
            order.index(kind)
            for kind in (announce, effects.CloseGate, effects.MarkManifest, effects.DrainTurns)
        ]
        assert places == sorted(places)


def test_nothing_says_stopping_on_the_way_to_execve_and_nothing_says_ready_on_the_way_out() -> None:
    for _, _, after, todo in LEGAL:
        if effects.NotifyStopping in kinds(todo):
            assert after.stage in STOPPING
        if effects.NotifyReady in kinds(todo):
            assert after.stage in (Stage.READY, Stage.JUDGING)


def test_ready_is_said_when_the_gate_opens_or_a_plain_hup_was_answered() -> None:
    for state, event, _, todo in LEGAL:
        if effects.NotifyReady not in kinds(todo):
            continue
        if isinstance(event, events.JudgedUnchanged):
            assert any(r.trigger.kind == "hup" for r in state.requests)
            order = kinds(todo)
            assert order.index(effects.NotifyReloading) < order.index(effects.NotifyReady)
        else:
            assert state.stage in (Stage.WARMING, Stage.LISTENING, Stage.HANDING_OFF)
            order = kinds(todo)
            assert order.index(effects.OpenGate) < order.index(effects.NotifyReady)


def test_an_unchanged_configuration_says_nothing_to_systemd_unless_it_was_a_plain_hup() -> None:
    state = replace(example(Stage.JUDGING), requests=(request("asked", "control"),))
    _, todo = step(state, events.JudgedUnchanged(), NOW)
    assert kinds(todo) == [effects.Record, effects.Say]


def test_a_failed_execve_puts_everything_back_before_it_says_ready() -> None:
    _, todo = step(example(Stage.HANDING_OFF), EVENTS["fail"], NOW)
    assert kinds(todo)[:5] == [
        effects.Reopen,
        effects.CloseNew,
        effects.Resume,
        effects.OpenGate,
        effects.NotifyReady,
    ]
    assert effects.StartWatching in kinds(todo)


def test_an_exit_is_the_last_effect_and_only_leads_to_the_end() -> None:
    for _, _, after, todo in LEGAL:
        if effects.Exit in kinds(todo):
            assert after.stage is Stage.ENDED
            assert isinstance(todo[-1], effects.Exit)


def test_before_the_drain_a_restart_has_no_effect_but_judging_rehearsing_and_binding() -> None:
    """A refusal changes nothing, so there must be nothing to change back."""
    harmless = {
        effects.Judge,
        effects.Rehearse,
        effects.BindNew,
        effects.Record,
        effects.Say,
        effects.SetTimer,
        effects.NotifyReloading,
        effects.NotifyReady,
    }
    for state, event, after, todo in LEGAL:
        if state.stage in WALKS[:3] and after.stage is not Stage.DRAINING:
            stopped = isinstance(event, events.StopRequested | events.JudgedFatal)
            assert stopped or set(kinds(todo)) <= harmless


# -- plans, deadlines, timers ---------------------------------------------------------------------


def test_the_plan_is_made_again_from_what_the_code_on_disk_reads() -> None:
    read = snapshot(str(OLD), str(KEPT))
    after, todo = step(example(Stage.REHEARSING), events.Rehearsed(read), NOW)
    plan = ListenerPlan(keep=(OLD, KEPT), bind=(), retire=())
    assert todo == (effects.BindNew(plan, read.settings.daemon.unix),)
    assert after.change == replace(CHANGE, snapshot=read, plan=plan)


def test_a_plan_that_the_code_on_disk_reads_alike_stays() -> None:
    after, _ = step(example(Stage.REHEARSING), events.Rehearsed(SNAPSHOT), NOW)
    assert after.change is not None
    assert after.change.plan == ListenerPlan(keep=(KEPT,), bind=(NEW,), retire=(OLD,))


def test_retired_listeners_are_closed_only_while_no_walk_may_adopt_them() -> None:
    for state, event, after, todo in LEGAL:
        if event == events.TimerFired(RETIRE):
            assert after == state
            if state.stage is Stage.READY:
                assert kinds(todo) == [effects.Retire]
            elif state.stage in WALKS:
                assert todo == (effects.SetTimer(RETIRE, NOW + budgets.RETIRE_S),)
            else:
                assert not todo


def test_a_drain_that_begins_now_ends_by_its_own_timer() -> None:
    after, todo = step(example(Stage.BINDING), events.Bound(), NOW)
    assert after.deadlines == plan_deadlines(DRAIN_SETTINGS, NOW, stopping=False)
    assert effects.SetTimer(DRAIN, NOW + DRAIN_SETTINGS.timeout_s) in todo


def test_quiescing_ends_five_seconds_after_the_announcement_and_never_at_once() -> None:
    state = example(Stage.DRAINING)  # announced one second ago
    _, todo = step(state, events.TurnsDrained(), NOW)
    assert effects.Quiesce(NOW - 1 + DRAIN_SETTINGS.request_timeout_s) in todo
    _, todo = step(state, events.TimerFired(DRAIN), NOW + 29)
    assert effects.Quiesce(NOW + 29 + budgets.REQUEST_MINIMUM_S) in todo
