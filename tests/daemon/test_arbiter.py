"""The arbiter: what comes first, what is heard, what is never lost. Real signals, pipes and threads."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from netclawd.adapters.clock import SystemClock
from netclawd.core import effects, events
from netclawd.core.effects import Effect
from netclawd.core.events import Event, Request
from netclawd.core.lifecycle import Stage, State
from netclawd.core.restart import Outcome
from netclawd.daemon import signals
from netclawd.daemon.arbiter import Arbiter
from netclawd.daemon.signals import SignalPipe
from tests.core.examples import CHANGE, DRAIN, REFUSAL, request
from tests.waiting import scaled


class Counted:
    """Identifiers in order."""

    def __init__(self) -> None:
        self.count = 0

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"


class Played:
    """Performs effects as a test wants it, and writes down what was asked."""

    def __init__(self) -> None:
        self.done: list[Effect] = []
        self.stages: list[Stage] = []
        #: What an effect does, by its class; the result is its answer.
        self.on: dict[type[Effect], Callable[[], Event | None]] = {}
        self.ticks = 0
        self.on_a_tick: Callable[[], None] = lambda: None

    def perform(self, effect: Effect) -> Event | None:
        self.done.append(effect)
        act = self.on.get(type(effect))
        return act() if act is not None else None

    def on_step(self, state: State) -> None:
        self.stages.append(state.stage)

    def exit_code(self) -> int:
        return 7

    def on_tick(self) -> None:
        self.ticks += 1
        self.on_a_tick()

    def kinds(self) -> list[type[Effect]]:
        return [type(effect) for effect in self.done]

    def recorded(self) -> list[tuple[str, Outcome]]:
        return [(e.request.id, e.outcome) for e in self.done if isinstance(e, effects.Record)]


@pytest.fixture
def pipe() -> Iterator[SignalPipe]:
    """The handlers installed, the handled signals let in; all as before afterwards."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.HANDLED)
    before = {number: signal.getsignal(number) for number in signals.HANDLED}
    wakeup = signal.set_wakeup_fd(-1)
    made = SignalPipe()
    made.install()
    made.unblock()
    yield made
    made.close()
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(wakeup)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture
def played() -> Played:
    return Played()


Make = Callable[..., Arbiter]


@pytest.fixture
def make(pipe: SignalPipe, played: Played) -> Iterator[Make]:
    made: list[Arbiter] = []

    def arbiter(stage: Stage = Stage.READY, *, queued: tuple[Request, ...] = ()) -> Arbiter:
        walk = {
            Stage.DRAINING: (request("walk"),),
            Stage.SETTLING: (request("walk"),),
            Stage.HANDING_OFF: (request("walk"),),
        }.get(stage, ())
        state = State(stage, DRAIN, requests=walk, change=CHANGE if walk else None, queued=queued)
        made.append(Arbiter(state, SystemClock(), Counted(), pipe, played))
        return made[-1]

    yield arbiter
    for each in made:
        each.close()


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def run(arbiter: Arbiter) -> int:
    """Run until the exit; a watchdog ends what would run for ever."""
    timer = threading.Timer(scaled(20), lambda: os.kill(os.getpid(), signal.SIGALRM))
    before = signal.signal(signal.SIGALRM, _too_long)
    timer.start()
    try:
        return arbiter.run()
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGALRM, before)


def _too_long(*_: object) -> None:
    raise AssertionError("the arbiter never came to its end")


def drain_at_once(played: Played) -> None:
    """Let the stop's own effects be answered, so that it comes to its end."""
    played.on[effects.DrainTurns] = events.TurnsDrained
    played.on[effects.Quiesce] = events.Quiesced
    played.on[effects.Settle] = events.Settled


def post_many(arbiter: Arbiter, many: list[events.ReloadRequested]) -> None:
    for event in many:
        arbiter.post(event)


def stop(name: str = "stop") -> events.StopRequested:
    return events.StopRequested(request(name, "control"))


# -- the loop ------------------------------------------------------------------------------------


def test_a_stop_leads_to_the_exit_code_of_the_performer(make: Make, played: Played) -> None:
    arbiter = make()
    drain_at_once(played)
    arbiter.post(stop())
    assert run(arbiter) == 7
    assert played.kinds()[-1] is effects.Exit
    assert played.stages[-1] is Stage.ENDED


def test_effects_are_performed_in_order_after_the_step_was_noted(
    make: Make, played: Played
) -> None:
    arbiter = make()
    drain_at_once(played)
    seen: list[Stage] = []
    played.on[effects.CloseGate] = lambda: seen.append(played.stages[-1])
    arbiter.post(stop())
    run(arbiter)
    assert seen == [Stage.STOP_DRAINING]
    in_order = [effects.NotifyStopping, effects.CloseGate, effects.MarkManifest, effects.DrainTurns]
    assert [kind for kind in played.kinds() if kind in in_order] == in_order


def test_an_answer_comes_before_what_others_posted(make: Make, played: Played) -> None:
    """A chain of steps done on the arbiter's thread isn't interleaved."""
    arbiter = make()
    drain_at_once(played)

    def judged() -> Event:
        arbiter.post(events.ReloadRequested(request("late")))
        arbiter.post(stop())
        return events.JudgedUnchanged()

    played.on[effects.Judge] = judged
    arbiter.post(events.ReloadRequested(request("first")))
    run(arbiter)
    assert played.stages[:3] == [Stage.JUDGING, Stage.READY, Stage.JUDGING]
    assert played.recorded()[0] == ("first", Outcome.UNCHANGED)


def test_an_illegal_event_is_logged_and_changes_nothing(
    make: Make, played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = make()
    drain_at_once(played)
    arbiter.post(events.Listening())
    arbiter.post(stop())
    with caplog.at_level(logging.WARNING, "netclawd.arbiter"):
        run(arbiter)
    assert caplog.messages == ["event ignored: Listening can't happen while ready"]
    assert played.stages[0] is Stage.STOP_DRAINING, "no step was made of it"


def test_every_thread_may_post_and_nothing_is_lost(make: Make, played: Played) -> None:
    arbiter = make(Stage.DRAINING)
    threads = [
        threading.Thread(
            target=lambda n=n: post_many(
                arbiter, [events.ReloadRequested(request(f"{n}-{i}")) for i in range(100)]
            )
        )
        for n in range(8)
    ]

    def post_all() -> None:
        for thread in threads:
            thread.join()
        arbiter.post(stop())

    last = threading.Thread(target=post_all)
    for thread in threads:
        thread.start()
    last.start()
    drain_at_once(played)
    run(arbiter)
    last.join()
    answered = [name for name, outcome in played.recorded() if outcome is Outcome.OVERTAKEN]
    assert len(answered) == len(set(answered)) == 801, "each once, and the walk's own"


def test_a_post_from_another_thread_wakes_the_arbiter_at_once(make: Make, played: Played) -> None:
    arbiter = make()
    drain_at_once(played)
    thread = threading.Thread(target=lambda: arbiter.post(stop()))
    at_its_only_tick(arbiter, played, thread.start)
    run(arbiter)
    thread.join()
    assert played.ticks == 1


def at_its_only_tick(arbiter: Arbiter, played: Played, act: Callable[[], object]) -> None:
    """Do this at its first tick; no other ends its wait behind it."""

    def tick() -> None:
        arbiter._next_tick = time.monotonic() + 1000
        act()

    arbiter._next_tick = time.monotonic()
    played.on_a_tick = tick


# -- timers --------------------------------------------------------------------------------------


def test_a_timer_fires_when_it_is_due(make: Make, played: Played) -> None:
    """The warm-up's timer opens the gate though nobody reports."""
    arbiter = make(Stage.WARMING)
    drain_at_once(played)
    arbiter._timers["warm-up"] = time.monotonic() + 0.05
    played.on[effects.NotifyReady] = stop
    began = time.monotonic()
    run(arbiter)
    assert time.monotonic() - began >= 0.05
    assert played.stages[0] is Stage.READY


def test_a_timer_that_is_set_again_replaces_the_earlier_one(make: Make) -> None:
    arbiter = make()
    arbiter._perform(effects.SetTimer("retire", 0.0))
    arbiter._perform(effects.SetTimer("retire", time.monotonic() + 1000))
    assert arbiter._take() is None


def test_a_cancelled_timer_does_not_fire(make: Make) -> None:
    arbiter = make()
    arbiter._perform(effects.SetTimer("retire", 0.0))
    arbiter._perform(effects.CancelTimer("retire"))
    arbiter._perform(effects.CancelTimer("never set"))
    assert arbiter._take() is None


def test_a_timer_fires_once(make: Make) -> None:
    arbiter = make()
    arbiter._perform(effects.SetTimer("retire", 0.0))
    assert arbiter._take() == events.TimerFired("retire")
    assert arbiter._take() is None


# -- signals -------------------------------------------------------------------------------------


def test_a_term_comes_before_what_was_asked_earlier(make: Make, played: Played) -> None:
    arbiter = make()
    drain_at_once(played)
    for name in ("a", "b"):
        arbiter.post(events.ReloadRequested(request(name)))
    send(signal.SIGTERM)
    run(arbiter)
    assert played.stages[0] is Stage.STOP_DRAINING
    assert effects.Judge not in played.kinds()
    last = played.done[-1]
    assert isinstance(last, effects.Exit)
    assert last.request.trigger == events.Trigger("term")


def test_a_stop_comes_before_a_hup_of_the_same_moment(make: Make, played: Played) -> None:
    arbiter = make()
    drain_at_once(played)
    send(signal.SIGHUP, signal.SIGTERM)
    run(arbiter)
    assert effects.Judge not in played.kinds()
    assert played.stages[0] is Stage.STOP_DRAINING


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, "term"), (signal.SIGINT, "int")])
def test_the_trigger_of_a_stop_is_its_signal(
    make: Make, played: Played, number: signal.Signals, kind: str
) -> None:
    arbiter = make()
    drain_at_once(played)
    send(number)
    run(arbiter)
    marks = [e for e in played.done if isinstance(e, effects.MarkManifest)]
    assert [mark.request.trigger.kind for mark in marks] == [kind]


def test_a_second_term_cuts_the_drain_short(make: Make, played: Played) -> None:
    """Nobody reports that the turns are drained; the second one ends it all the same."""
    arbiter = make()

    def drain() -> None:
        send(signal.SIGTERM)

    played.on[effects.DrainTurns] = drain
    played.on[effects.Settle] = events.Settled
    send(signal.SIGTERM)
    assert run(arbiter) == 7
    assert effects.Quiesce not in played.kinds()
    assert played.stages == [Stage.STOP_DRAINING, Stage.STOP_SETTLING, Stage.ENDED]


def test_usr1_and_usr2_are_logged_and_ignored(
    make: Make, played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = make()
    drain_at_once(played)
    send(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
    arbiter.post(stop())
    with caplog.at_level(logging.INFO, "netclawd.arbiter"):
        run(arbiter)
    assert caplog.messages == ["signal ignored: SIGUSR1", "signal ignored: SIGUSR2"]
    assert played.stages[0] is Stage.STOP_DRAINING


def test_a_storm_of_hups_is_one_request_and_stays_small(make: Make, played: Played) -> None:
    """Ten thousand while one is judged, and a TERM behind them all."""
    arbiter = make()
    drain_at_once(played)
    judged = 0

    def judge() -> Event:
        nonlocal judged
        judged += 1
        if judged == 1:
            for _ in range(10_000):
                send(signal.SIGHUP)
            return events.JudgedUnchanged()
        return stop()

    played.on[effects.Judge] = judge
    send(signal.SIGHUP)
    run(arbiter)
    assert judged == 2, "once for the first, once for all that came meanwhile"
    assert len(played.recorded()) == 2


def test_hups_during_a_drain_stay_one_request(make: Make, played: Played) -> None:
    arbiter = make(Stage.DRAINING)
    send(signal.SIGHUP)
    while (event := arbiter._take()) is not None:
        arbiter._handle(event)
        if len(arbiter._state.queued) < 3 and len(played.stages) < 50:
            send(signal.SIGHUP)
    assert [r.trigger.kind for r in arbiter._state.queued] == ["hup"]


def test_a_hup_waits_its_turn_beside_named_requests(make: Make) -> None:
    """Those have somebody who waits for their outcome: none of them is dropped."""
    arbiter = make(Stage.DRAINING)
    send(signal.SIGHUP)
    arbiter.post(events.ReloadRequested(request("a")))
    arbiter.post(events.ReloadRequested(request("b")))
    while (event := arbiter._take()) is not None:
        arbiter._handle(event)
    assert [r.trigger.kind for r in arbiter._state.queued] == ["hup", "control", "control"]


def test_the_arbiters_wait_ends_with_a_signal(make: Make, played: Played) -> None:
    arbiter = make()
    drain_at_once(played)
    at_its_only_tick(arbiter, played, lambda: send(signal.SIGTERM))
    run(arbiter)
    assert played.ticks == 1


def test_other_threads_are_never_handed_a_signal(pipe: SignalPipe) -> None:
    masks: list[set[int]] = []
    thread = signals.spawn("a", lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    thread.join()
    assert masks[0] >= set(signals.HANDLED)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(signals.HANDLED)


def test_a_signal_that_came_before_the_handlers_is_heard_after_them() -> None:
    """As at an execve: blocked, pending, and delivered to the new image."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.HANDLED)
    before = {number: signal.getsignal(number) for number in signals.HANDLED}
    send(signal.SIGTERM, signal.SIGHUP)
    made = SignalPipe()
    made.install()
    assert made.read() == []
    made.unblock()
    try:
        assert sorted(made.read()) == [signal.SIGHUP, signal.SIGTERM]
    finally:
        made.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# -- the moment before execve --------------------------------------------------------------------


def test_a_term_in_the_pipe_is_found_before_execve(make: Make) -> None:
    arbiter = make(Stage.HANDING_OFF)
    send(signal.SIGHUP, signal.SIGTERM)
    found = arbiter.pending_stop()
    assert found is not None
    assert found.trigger.kind == "term"
    assert [r.trigger.kind for r in arbiter.pending_requests()] == ["hup"], "for the next image"


def test_without_a_stop_nothing_is_found_and_reloads_are_kept(make: Make) -> None:
    arbiter = make(Stage.HANDING_OFF)
    arbiter.post(events.ReloadRequested(request("a")))
    send(signal.SIGHUP)
    assert arbiter.pending_stop() is None
    kinds = sorted(r.trigger.kind for r in arbiter.pending_requests())
    assert kinds == ["control", "hup"]


def test_a_stop_that_a_thread_has_posted_is_found_before_execve(make: Make) -> None:
    """The answers of Settle and ListenNew came before it: nobody has looked at it yet."""
    arbiter = make(Stage.HANDING_OFF)
    arbiter.post(events.ReloadRequested(request("a")))
    arbiter.post(stop("asked"))
    found = arbiter.pending_stop()
    assert found is not None
    assert found.id == "asked"
    assert arbiter.pending_stop() is None, "taken out"


def test_a_stop_posted_while_the_restart_settles_ends_the_process(
    make: Make, played: Played
) -> None:
    """A stop beats a restart in every stage before execve."""
    arbiter = make(Stage.SETTLING)

    def listen() -> Event:
        arbiter.post(stop("asked"))
        return events.Listening()

    def execute() -> Event:
        found = arbiter.pending_stop()
        return events.ExecFailed(REFUSAL) if found is None else events.StopRequested(found)

    played.on[effects.ListenNew] = listen
    played.on[effects.Exec] = execute
    played.on[effects.Settle] = events.Settled
    arbiter.post(events.Settled())
    run(arbiter)
    assert played.stages[-1] is Stage.ENDED
    assert played.recorded() == [("walk", Outcome.OVERTAKEN)]
