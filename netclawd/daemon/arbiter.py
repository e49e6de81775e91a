"""The arbiter: one thread, one queue, one state; the only place where the lifecycle moves.

It takes an event, asks :func:`netclawd.core.lifecycle.step`, and has the performer do the effects
in order. Signals come before queued events, so that a stop overtakes what was asked earlier; an
event that an effect answers with comes before what others posted, so that a chain of synchronous
steps isn't interleaved. Everything else in the daemon only calls :meth:`Arbiter.post`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from netclawd.core import events
from netclawd.core.effects import CancelTimer, Effect, Exit, SetTimer
from netclawd.core.events import Event, Request, Trigger
from netclawd.core.lifecycle import IllegalEventError, State, step
from netclawd.core.session import RestartId
from netclawd.daemon.signals import SignalPipe
from netclawd.ports import Clock, Ids

log = logging.getLogger("netclawd.arbiter")

#: The arbiter wakes at least this often, seconds, to tell the watchdog and to refresh STATUS=; more often
#: for a supervisor whose watchdog is impatient.
TICK_S = 1.0


class Effects(Protocol):
    def perform(self, effect: Effect) -> Event | None:
        """Do one effect; the event returned, if any, is the next to be taken."""

    def on_step(self, state: State) -> None:
        """Note the state that a step led to, before its effects are performed."""

    def exit_code(self) -> int:
        """Return the exit code, once an Exit effect has been performed."""

    def on_tick(self) -> None:
        """Called once a tick."""


class Arbiter:
    def __init__(
        self,
        state: State,
        clock: Clock,
        ids: Ids,
        signals: SignalPipe,
        executor: Effects,
        tick_s: float = TICK_S,
    ) -> None:
        self._state = state
        self._clock = clock
        self._ids = ids
        self._signals = signals
        self._executor = executor
        self._queue: deque[Event] = deque()
        self._lock = threading.Lock()
        self._waker, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._timers: dict[str, float] = {}
        self._tick_s = tick_s
        self._next_tick = clock.monotonic() + tick_s
        self._exit: int | None = None

    # -- from any thread ---------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Queue an event; never blocks."""
        with self._lock:
            self._queue.append(event)
            first = len(self._queue) == 1
        if first:
            self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b"\0")
        except BlockingIOError:
            pass  # The pipe is full of wake-ups already.

    # -- the loop, on the main thread ----------------------------------------------------------

    def run(self) -> int:
        """Run until an Exit effect; return the exit code."""
        while self._exit is None:
            event = self._take()
            if event is None:
                self._wait()
            else:
                self._handle(event)
        return self._exit

    def close(self) -> None:
        os.close(self._waker)
        os.close(self._wake_writer)

    def pending_stop(self) -> Request | None:
        """Read the wakeup pipe once more; take out the first request to stop, there or queued.

        For the moment before execve, with signals blocked: what else came stays queued. A stop that
        another thread posted while the effects before this one were performed is in the queue still,
        because their answers come first.
        """
        self._hear_signals()
        with self._lock:
            for event in self._queue:
                if isinstance(event, events.StopRequested):
                    self._queue.remove(event)
                    return event.request
        return None

    def pending_requests(self) -> tuple[Request, ...]:
        """Return the reloads that are queued and not yet seen by the lifecycle, for the handoff."""
        with self._lock:
            waiting = [e.request for e in self._queue if isinstance(e, events.ReloadRequested)]
        return tuple(waiting)

    def waiting_requests(self) -> tuple[Request, ...]:
        """Return every reload that nobody has judged yet, for an image that takes over from this one."""
        return (*self._state.queued, *self.pending_requests())

    def unheeded_signals(self) -> list[int]:
        """Return the signals that were heard and led to nothing yet: a TERM must outlive a rollback."""
        with self._lock:
            asked = any(isinstance(event, events.StopRequested) for event in self._queue)
        noted = [signal.SIGTERM] if asked or self._state.stop is not None else []
        return [*noted, *self._signals.read()]

    def _take(self) -> Event | None:
        self._hear_signals()
        now = self._clock.monotonic()
        for name, at in list(self._timers.items()):
            if at <= now:
                del self._timers[name]
                self.post(events.TimerFired(name))
        with self._lock:
            return self._queue.popleft() if self._queue else None

    def _hear_signals(self) -> None:
        """Put what came before what is queued: stops first, then in the order of coming."""
        heard: list[Event] = []
        for number in self._signals.read():
            event = self._from_signal(number, heard)
            if event is not None:
                heard.append(event)
        heard.sort(key=lambda event: not isinstance(event, events.StopRequested))
        with self._lock:
            self._queue.extendleft(reversed(heard))

    def _from_signal(self, number: int, heard: Sequence[Event]) -> Event | None:
        if number == signal.SIGHUP:
            if self._hup_waits(heard):
                return None  # It will be judged after this one came; nobody knows its id.
            return events.ReloadRequested(self._request("hup"))
        if number in (signal.SIGTERM, signal.SIGINT):
            kind = "term" if number == signal.SIGTERM else "int"
            return events.StopRequested(self._request(kind))
        if number in (signal.SIGUSR1, signal.SIGUSR2):
            log.info("signal ignored: %s", signal.Signals(number).name)
        return None

    def _hup_waits(self, heard: Sequence[Event]) -> bool:
        """Whether a HUP is waiting to be judged: a storm of them is one request, and stays small."""
        with self._lock:
            waiting = [*self._queue, *heard]
        asked = [e.request for e in waiting if isinstance(e, events.ReloadRequested)]
        return any(r.trigger.kind == "hup" for r in (*asked, *self._state.queued))

    def _request(self, kind: str) -> Request:
        return Request(RestartId(self._ids.new("r")), Trigger(kind), at=self._clock.wall())

    def _wait(self) -> None:
        now = self._clock.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + self._tick_s
            self._executor.on_tick()
        due = min([self._next_tick, *self._timers.values()])
        poller = select.poll()
        poller.register(self._signals.fileno(), select.POLLIN)
        poller.register(self._waker, select.POLLIN)
        poller.poll(max(0.0, (due - self._clock.monotonic()) * 1000))
        try:
            os.read(self._waker, 4096)
        except BlockingIOError:
            pass  # A signal or a timer woke us.

    def _handle(self, event: Event) -> None:
        try:
            state, todo = step(self._state, event, self._clock.monotonic())
        except IllegalEventError as error:
            log.warning("event ignored: %s", error)
            return
        self._state = state
        self._executor.on_step(state)
        for effect in todo:
            answer = self._perform(effect)
            if answer is not None:
                with self._lock:
                    self._queue.appendleft(answer)

    def _perform(self, effect: Effect) -> Event | None:
        if isinstance(effect, SetTimer):
            self._timers[effect.name] = effect.at
            return None
        if isinstance(effect, CancelTimer):
            self._timers.pop(effect.name, None)
            return None
        if isinstance(effect, Exit):
            self._executor.perform(effect)
            self._exit = self._executor.exit_code()
            return None
        return self._executor.perform(effect)
