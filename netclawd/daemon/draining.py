"""The effects of a drain: close the gate, mark, drain the turns, come to rest, make it durable."""

from __future__ import annotations

import logging

from netclawd.core import budgets, effects, events
from netclawd.core.events import Event
from netclawd.core.lifecycle import Phase
from netclawd.core.manifest import Manifest, Work
from netclawd.core.restart import Outcome
from netclawd.core.settings import Snapshot
from netclawd.daemon import judgement, records
from netclawd.daemon.image import Image
from netclawd.daemon.status import tally
from netclawd.errors import ManifestError, StoreError
from netclawd.ports import Post, Quiesced

log = logging.getLogger("netclawd.lifecycle")

#: How long to wait for the imports of a start that is followed by a restart at once, seconds.
_IMPORTS_TIMEOUT_S = 5.0


class Draining:
    def __init__(self, image: Image, post: Post) -> None:
        self._image = image
        self._post = post

    def close_gate(self, effect: effects.CloseGate) -> None:
        self._image.gate.close(effect.deadline, stopping=effect.stopping)
        if self._image.engine is not None:
            self._image.engine.close_gate()
        if self._image.reminders is not None:
            self._image.reminders.close()
        if self._image.channels is not None:
            self._image.channels.close_gate()
        if self._image.drain_began is None:
            self._image.drain_began = self._image.parts.clock.monotonic()

    def mark_manifest(self, effect: effects.MarkManifest) -> None:
        """Crash: the next start knows what ran, and resumes it from the store."""
        record = judgement.begin_record(self._image, effect.request, effect.snapshot)
        self._image.restart = record
        self._image.journal.record(record)
        self._put_manifest_away()
        self._write_manifest(effect.reason, effect.request, effect.snapshot, self._work())

    def _put_manifest_away(self) -> None:
        """A start that a stop ends before it is ready has still its own manifest to explain.

        That manifest tells a crash what was on trial; if this start came of a rollback, only a note can
        from here on.
        """
        parts = self._image.parts
        if self._image.refused is not None:
            parts.memory.keep_refused(self._image.refused)
        try:
            parts.manifests.put_away()
        except ManifestError as error:
            log.error("%s", error)

    def _work(self) -> tuple[Work, ...]:
        """Return what is in flight; a store that can't be read costs the order, not the restart."""
        engine = self._image.engine
        try:
            return engine.work_in_flight() if engine is not None else ()
        except StoreError as error:
            log.error("work in flight is not in the manifest: %s", error)
            return ()

    def _write_manifest(
        self,
        reason: str,
        request: events.Request,
        snapshot: Snapshot | None,
        work: tuple[Work, ...],
        *,
        settled: bool = False,
    ) -> bool:
        """Write the manifest; a disk that is full costs the order of the warm-up, not the restart."""
        image = self._image
        manifest = Manifest(
            generation=image.generation,
            restart_id=request.id,
            reason=reason,
            trigger=request.trigger.kind,
            requested_at=request.at,
            old_digest=image.snapshot.published_digest,
            new_digest=(snapshot or image.snapshot).published_digest,
            writer=image.parts.version,
            listeners={address.name: str(address) for address in image.listeners.held},
            work=work,
            settled=settled,
        )
        try:
            image.parts.manifests.write(manifest)
        except (OSError, ManifestError) as error:
            log.error("manifest not written: %s", error)
            return False
        return True

    def drain_turns(self, effect: effects.DrainTurns) -> None:
        engine = self._image.engine
        if engine is None:
            # A stop that came before the warm-up: nothing runs.
            self._post(events.TurnsDrained())
            return
        if self._image.draining:
            engine.hasten(effect.model_deadline, effect.tool_deadline, effect.deadline)
            return
        self._image.draining = True
        restart = self._image.restart
        engine.drain(
            effect.model_deadline,
            effect.tool_deadline,
            effect.deadline,
            cause="stop" if self._image.phase is Phase.STOPPING else "restart",
            restart_id=str(restart.id) if restart is not None else "",
            on_drained=self._on_drained,
        )

    def _on_drained(self) -> None:
        """Let what the turns have left in the outbox go out, a moment, while everything is served yet.

        On the drain's thread; a platform that is down isn't waited for.
        """
        if self._image.channels is not None:
            self._image.channels.await_sent(budgets.CHANNEL_SEND_S)
        self._post(events.TurnsDrained())

    def quiesce(self, effect: effects.Quiesce) -> None:
        image = self._image
        assert image.http is not None
        if image.channels is not None:
            # What it is sending has until the store is closed; while HTTP comes to rest, that goes on.
            image.channels.pause()
        self._still()
        image.the_store().prepare_close()
        image.gate.end_drain(effect.deadline)
        # Who is answered 503 is answered at the deadline: then only the start is left to wait for.
        retry_after_s = image.gate.retry_after_s(effect.deadline)
        image.http.quiesce(effect.deadline, retry_after_s, self._on_quiesced)

    def _still(self) -> None:
        """End the threads that might touch a descriptor while another lies under its number (Exec).

        What they miss of the file is found by the comparison at the next start.
        """
        image = self._image
        if image.imports is not None:
            image.imports.join(_IMPORTS_TIMEOUT_S)
        if image.channels is not None:
            image.channels.await_made(_IMPORTS_TIMEOUT_S)
        if image.watcher is not None:
            image.watcher.stop()
            image.watcher = None
        if image.reminders is not None:
            image.reminders.rest()
        image.stored.rest()

    def _on_quiesced(self, quiesced: Quiesced) -> None:
        self._image.quiesced = quiesced
        self._post(events.Quiesced())

    def settle(self, effect: effects.Settle) -> Event:
        """Make everything durable, then close the store.

        Crash: before the manifest's rename the mark of step 6 holds; after it the next start
        resumes as after a stop. The store is whole at any instant.
        """
        image = self._image
        assert image.control is not None
        image.control.pause()
        self._settle_work(effect)
        if image.engine is not None:
            image.engine.stop(timeout_s=0.0 if effect.reason == "reload" else 1.0)
        if image.channels is not None:
            image.channels.stop(budgets.CHANNEL_REST_S)
        self._close_store()
        return events.Settled()

    def _settle_work(self, effect: effects.Settle) -> None:
        """Write manifest and journal; after a stop that overtook a settled restart, once more."""
        image = self._image
        if image.store is None:
            image.store = image.parts.open_store()
            image.journal.attach(image.store)
        else:
            image.settled_work = self._work()
            records.say_drained(tally(image.settled_work), self._drain_s())
        work = image.settled_work
        written = self._write_manifest(
            effect.reason, effect.request, effect.snapshot, work, settled=True
        )
        if image.restart is not None and effect.reason == "reload":
            image.restart = judgement.with_drain(image.restart, tally(work), self._drain_s())
        if effect.reason == "stop":
            image.exit_code = 0 if written else 1
            self._record_stop(effect.request, work)

    def _close_store(self) -> None:
        """Close it. What was committed is durable, whatever closing says."""
        image = self._image
        image.journal.attach(None)
        try:
            image.the_store().close()
        except StoreError as error:
            log.error("session store not closed cleanly: %s", error)
        image.store = None

    def _record_stop(self, request: events.Request, work: tuple[Work, ...]) -> None:
        image, wall = self._image, self._image.parts.clock.wall()
        record = image.restart
        if record is None or record.id != request.id:
            record = judgement.begin_record(image, request, None)
        drained = judgement.with_drain(record, tally(work), self._drain_s())
        image.journal.record(judgement.ended(drained, Outcome.STOPPED, wall, None))

    def _drain_s(self) -> float | None:
        began = self._image.drain_began
        return None if began is None else self._image.parts.clock.monotonic() - began
