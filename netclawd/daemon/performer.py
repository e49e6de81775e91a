"""Performs the effects of the lifecycle, one at a time, on the main thread.

:meth:`Performer.perform` is the one place where the lifecycle touches the world; the tests inject
their faults by wrapping it. What takes long is only started here and posts an event at its end;
what is quick is done and answered by the event returned. docs/internals/restart.md says for every
gap between two effects what a death there leaves.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from netclawd.core import effects, events, upgrade
from netclawd.core.beginning import RefusedConfig
from netclawd.core.effects import Effect
from netclawd.core.events import Event, Refusal
from netclawd.core.lifecycle import Phase, State
from netclawd.core.notices import Notice
from netclawd.core.restart import Outcome
from netclawd.core.values import replace
from netclawd.daemon import handoff, judgement, records, runtime_files
from netclawd.daemon.draining import Draining
from netclawd.daemon.image import Image
from netclawd.daemon.last_words import say_aborted
from netclawd.daemon.rehearsal import Rehearsal
from netclawd.daemon.starting import Starting
from netclawd.daemon.status import status_line
from netclawd.errors import EXIT_CONFIG, AddressError
from netclawd.ports import Post, Service

log = logging.getLogger("netclawd.lifecycle")


#: By how much a tick moves the supervisor's timers, microseconds: a few ticks may be late.
_EXTENSION_USEC = 5_000_000


class Queue(Protocol):
    """The arbiter, as far as the performer needs it."""

    def post(self, event: Event) -> None: ...
    def pending_stop(self) -> events.Request | None: ...
    def pending_requests(self) -> tuple[events.Request, ...]: ...


class Performer:
    def __init__(self, image: Image, service: Service, rehearsal: Rehearsal, post: Post) -> None:
        self._image = image
        self._service = service
        self._rehearsal = rehearsal
        self._queue: Queue | None = None
        self._said_started = False
        #: The last text of STATUS=.
        self._said = ""
        starting = Starting(image, service, post)
        draining = Draining(image, post)
        self._do: dict[type[Effect], Callable[[Any], Event | None]] = {
            effects.ClaimListeners: starting.claim_listeners,
            effects.OpenStore: starting.open_store,
            effects.Serve: starting.serve,
            effects.WarmUp: starting.warm_up,
            effects.OpenGate: starting.open_gate,
            effects.CloseGate: draining.close_gate,
            effects.NotifyReady: self._notify_ready,
            effects.NotifyReloading: self._notify_reloading,
            effects.NotifyStopping: self._notify_stopping,
            effects.StartWatching: starting.start_watching,
            effects.Judge: self._judge,
            effects.Rehearse: self._rehearse,
            effects.CancelRehearsal: self._cancel_rehearsal,
            effects.BindNew: self._bind_new,
            effects.CloseNew: self._close_new,
            effects.MarkManifest: draining.mark_manifest,
            effects.DrainTurns: draining.drain_turns,
            effects.Quiesce: draining.quiesce,
            effects.Settle: draining.settle,
            effects.ListenNew: self._listen_new,
            effects.Exec: self._exec,
            effects.Reopen: starting.reopen,
            effects.Resume: starting.resume,
            effects.Retire: starting.retire,
            effects.Record: self._record,
            effects.RecordApplied: self._record_applied,
            effects.KeepLastGood: starting.keep_last_good,
            effects.Say: self._say,
            effects.Exit: self._exit,
        }

    def attach(self, queue: Queue) -> None:
        """Name the arbiter whose queue is looked at before execve."""
        self._queue = queue

    def perform(self, effect: Effect) -> Event | None:
        """Do one effect; return the event that answers it, if it is answered at once."""
        return self._do[type(effect)](effect)

    def on_step(self, state: State) -> None:
        image, changed = self._image, state.phase is not self._image.phase
        request = state.stop or next(iter(state.requests), None)
        image.restart_id = str(request.id) if request is not None else ""
        image.phase = state.phase
        if changed:
            log.info("phase %s, generation %d", state.phase.value, image.generation)
        if state.phase is Phase.HANDING_OFF:
            # What comes next may hold the arbiter: the last disk writes, and the start of the next image.
            self._say(effects.Say())

    def on_tick(self) -> None:
        image, notifier = self._image, self._image.parts.notifier
        runtime_files.restore_control(image)
        self._follow_upgrade()
        if image.progress.look(image.store, image.http, image.parts.clock.monotonic()):
            notifier.watchdog()
            if image.phase is not Phase.READY:
                # What lasts has a deadline of its own, and the supervisor's timer must not come first. It
                # moves the watchdog's too, so what is stuck doesn't get it.
                notifier.extend_timeout(_EXTENSION_USEC)
        if status_line(image) != self._said:
            self._say(effects.Say())

    def _follow_upgrade(self) -> None:
        """Say that a package upgrade begins or is over, and ask again for what it held back."""
        known = self._image.upgrade
        if known.look():
            log.info("package upgrade %s", "under way" if known.seen else "over")
            self._say(effects.Say())
        held_back = known.take_over()
        if held_back is not None:
            self._service.request_reload(held_back.trigger, held_back.force)

    def exit_code(self) -> int:
        return self._image.exit_code

    # -- notices -------------------------------------------------------------------------------

    def _notify_ready(self, _effect: effects.NotifyReady) -> None:
        """From here on nothing leads back: who waits for READY may rely on this generation."""
        self._image.parts.boot.done()
        self._said = status_line(self._image)
        self._image.parts.notifier.ready(self._said)
        if not self._said_started:
            self._said_started = True
            records.say_started(self._image)

    def _notify_reloading(self, _effect: effects.NotifyReloading) -> None:
        now_usec = int(self._image.parts.clock.monotonic() * 1_000_000)
        self._said = status_line(self._image)
        self._image.parts.notifier.reloading(now_usec, self._said)

    def _notify_stopping(self, _effect: effects.NotifyStopping) -> None:
        """From here on nothing leads back: a drain may take longer than a boot, and goes on to the exit."""
        self._image.parts.boot.done()
        self._said = status_line(self._image)
        self._image.parts.notifier.stopping(self._said)

    def _say(self, _effect: effects.Say) -> None:
        self._said = status_line(self._image)
        self._image.parts.notifier.status(self._said)

    # -- up to the drain -----------------------------------------------------------------------

    def _judge(self, effect: effects.Judge) -> Event:
        return judgement.judge(self._image, effect.request)

    def _rehearse(self, effect: effects.Rehearse) -> None:
        image = self._image
        self._rehearsal.start(
            effect.snapshot, image.parts.folders.state, image.the_store().try_to_write
        )

    def _cancel_rehearsal(self, _effect: effects.CancelRehearsal) -> None:
        self._rehearsal.cancel()

    def _bind_new(self, effect: effects.BindNew) -> Event:
        try:
            self._image.listeners.bind(effect.plan, effect.access)
        except AddressError as error:
            return events.Refused(Refusal(error.slug, error.what, error.remedy))
        return events.Bound()

    def _close_new(self, _effect: effects.CloseNew) -> None:
        """Nobody loses by it who has connected to one that listened already: HTTP empties them."""
        new = self._image.listeners.give_up_new()
        assert self._image.http is not None
        self._image.http.empty(new)

    # -- the handoff ---------------------------------------------------------------------------

    def _listen_new(self, effect: effects.ListenNew) -> Event:
        try:
            self._image.listeners.listen_new(effect.backlog)
        except AddressError as error:
            return events.ExecFailed(Refusal(error.slug, error.what, error.remedy))
        return events.Listening()

    def _exec(self, effect: effects.Exec) -> Event:
        assert self._queue is not None
        return handoff.perform_exec(self._image, effect, self._queue)

    # -- outcomes ------------------------------------------------------------------------------

    def _record(self, effect: effects.Record) -> None:
        image = self._image
        refusal = effect.refusal
        if effect.outcome in (Outcome.REFUSED, Outcome.FAILED):
            assert refusal is not None
            self._note_refusal(effect.request, refusal)
            log.log(
                logging.WARNING if refusal.slug == upgrade.SLUG else logging.ERROR,
                "restart %s: %s %s",
                effect.outcome.value,
                refusal.reason,
                refusal.remedy,
                extra={"MESSAGE_ID": Notice.REFUSED, "RESTART_ID": effect.request.id},
            )
        if effect.outcome is Outcome.UNCHANGED:
            refusal = image.absent
        base = image.restart
        if base is None or base.id != effect.request.id:
            base = judgement.begin_record(image, effect.request, None)
            if effect.outcome is Outcome.REFUSED:  # Who wrote the file finds it by its digest.
                base = replace(base, new_digest=image.candidate_published)
        wall = image.parts.clock.wall()
        image.journal.record(judgement.ended(base, effect.outcome, wall, refusal))
        if image.proposals is not None:
            image.proposals.look()

    def _note_refusal(self, request: events.Request, refusal: Refusal) -> None:
        """Remember what was refused, but for what a package upgrade holds back: that is tried again."""
        image = self._image
        if refusal.slug == upgrade.SLUG:
            image.upgrade.hold_back(request)
            return
        digest = image.candidate_digest
        if digest is not None:  # Remembered before it is shown: who sees it may rely on it.
            image.parts.memory.keep_refused(RefusedConfig(digest, refusal))
        image.refusal, image.refused_digest = refusal, digest

    def _record_applied(self, _effect: effects.RecordApplied) -> None:
        image = self._image
        record = image.parts.handoff
        if record is None:
            return
        assert image.http is not None
        gap_ms = (image.http.serving_since() - record.last_accept) * 1000
        image.counters.observe_restart(gap_ms / 1000, record.restart.drain_s)
        failure = image.refusal if image.parts.boot.failure is not None else None
        wall = image.parts.clock.wall()
        entries = judgement.applied(record, image.generation, wall, gap_ms, failure)
        for entry in entries:
            image.journal.record(entry)
        log.log(
            logging.INFO if failure is None else logging.ERROR,
            "restart %s: generation %d, gap %.0f ms, trigger %s%s",
            entries[0].outcome.value,
            image.generation,
            gap_ms,
            record.restart.trigger,
            "" if failure is None else f": {failure.reason} {failure.remedy}",
            extra={
                "RESTART_ID": record.restart.id,
                **({} if failure is None else {"MESSAGE_ID": Notice.ROLLED_BACK}),
            },
        )

    def _exit(self, effect: effects.Exit) -> None:
        """Close politely what is left, and take our files out of the runtime folder.

        What the supervisor keeps is left as it is, its queue too: whoever comes from now on, or waits
        in it, is for the next start. If there is none the supervisor closes it.
        """
        image, folders = self._image, self._image.parts.folders
        image.parts.boot.done()
        if effect.refusal is not None:
            image.exit_code = EXIT_CONFIG
            redact = image.parts.redact
            reason = redact(effect.refusal.reason)
            image.parts.notifier.status(f"ended, configuration refused: {reason}")
            say_aborted(reason, redact(effect.refusal.remedy))
        if image.control is not None:
            image.control.stop()
        new = image.listeners.give_up_new()
        image.stored.rest()
        kept = [a for a in image.listeners.to_leave() if image.stored.keeps(a.name)]
        image.listeners.withdraw(a for a in image.listeners.held if a not in kept)
        if image.http is not None:
            image.http.empty(new)
            image.http.stop(timeout_s=1.0, leave=[address.name for address in kept])
        image.listeners.leave(kept)
        image.listeners.close()
        for name in ("control.sock", "netclawd.pid"):
            try:
                os.unlink(folders.in_runtime(name))
            except OSError:
                pass  # Somebody was quicker; nothing trusts these files.
        stopped = {"MESSAGE_ID": Notice.STOPPED} if image.exit_code == 0 else None
        log.info("stopped, exit code %d", image.exit_code, extra=stopped)
