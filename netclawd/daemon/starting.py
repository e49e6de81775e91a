"""The effects of a start: from inherited descriptors to an open gate, and back after a failed execve.

On the main thread but for the warm-up and the imports, which have threads of their own and end in
an event.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from netclawd.core import effects, events
from netclawd.core.listeners import parse_addresses
from netclawd.core.restart import Outcome
from netclawd.core.values import replace
from netclawd.daemon import handoff, judgement, records
from netclawd.daemon.durable import replace_file
from netclawd.daemon.image import Image
from netclawd.daemon.signals import blocked, spawn
from netclawd.daemon.status import status_line
from netclawd.errors import AddressError, ManifestError, NetclawError, StoreError
from netclawd.ports import Post, Service

if TYPE_CHECKING:
    # Not needed to serve.
    from netclawd.daemon.channels import Channels
    from netclawd.daemon.engine import Engine

log = logging.getLogger("netclawd.lifecycle")

#: Journal entries in which to look for restarts that never ended.
_LOOK_BACK = 20
#: How long to wait for retired listeners to be emptied, seconds.
_RETIRE_TIMEOUT_S = 1.0


class Starting:
    def __init__(self, image: Image, service: Service, post: Post) -> None:
        self._image = image
        self._service = service
        self._post = post
        self._watcher_started = False

    def claim_listeners(self, _effect: effects.ClaimListeners) -> None:
        image, parts = self._image, self._image.parts
        parts.notifier.status(status_line(image))
        # Nothing is told until this image serves: neither a timer nor a watchdog must come before the stub.
        parts.notifier.extend_timeout(int((image.settings.daemon.boot_timeout_s + 1) * 1_000_000))
        wanted = parse_addresses(image.settings.daemon.listen)
        image.retiring = image.listeners.claim(
            parts.inheritance,
            wanted,
            image.settings.daemon.backlog,
            image.settings.daemon.unix,
            handed_over=parts.handoff is not None,
        )
        image.control_socket = handoff.claim_control(parts.inheritance) or parts.bind_control()
        if parts.handoff is not None:
            image.kept = handoff.claim_kept(parts.inheritance, parts.handoff.kept)
        unclaimed = parts.inheritance.close_rest()
        if unclaimed:
            log.warning("inherited descriptors closed, nobody claimed them: %s", unclaimed)
        if parts.handoff is None:
            image.unclaimed = unclaimed

    def open_store(self, _effect: effects.OpenStore) -> None:
        image, parts = self._image, self._image.parts
        restart_id = parts.handoff.restart.id if parts.handoff is not None else None
        store = image.store = parts.open_store()
        image.counters.begin(store, parts.handoff.counters if parts.handoff is not None else {})
        # An image that failed has used up its number, even if it never came to ask for it.
        above = parts.handoff.generation + parts.boot.failed if parts.handoff is not None else 0
        image.generation = store.begin_generation(parts.clock.wall(), restart_id, above)
        image.journal.attach(store)
        store.on_commit(image.broadcast.on_commit)

    def _write_pid_file(self) -> None:
        image = self._image
        content = f"{os.getpid()} {image.generation}\n".encode()
        path = image.parts.folders.in_runtime("netclawd.pid")
        try:
            replace_file(path, content, 0o644, durable=False)
        except OSError as error:
            log.warning("PID file not written: %s", error)

    def _take_manifest(self) -> None:
        """Consume the manifest. A damaged one costs order and a reason, never a turn."""
        image = self._image
        try:
            image.manifest = image.parts.manifests.take(image.generation)
        except ManifestError as error:
            log.error("manifest set aside: %s", error, extra=records.DEGRADED)
            image.degraded["manifest"] = f"A damaged drain manifest was set aside: {error.what}"

    def _close_broken_restarts(self) -> None:
        """End the journal entries of restarts whose process died before it could."""
        try:
            self._close_each_broken_restart()
        except StoreError as error:
            log.error("restart journal not read: %s", error, extra=records.DEGRADED)
            self._image.degraded["journal"] = f"The restart journal can't be read: {error}"

    def _close_each_broken_restart(self) -> None:
        image = self._image
        ours = image.parts.handoff.restart.id if image.parts.handoff is not None else None
        for record in image.the_store().restarts(_LOOK_BACK):
            if record.outcome is Outcome.PENDING and record.id != ours:
                image.journal.record(
                    replace(
                        record,
                        outcome=Outcome.CRASHED,
                        ended_at=image.parts.clock.wall(),
                        new_generation=image.generation,
                        reason="The process ended in the middle of it.",
                        remedy="Nothing: the sessions were resumed by this start.",
                    )
                )

    def serve(self, _effect: effects.Serve) -> events.Event:
        image, parts = self._image, self._image.parts
        http = image.http = parts.make_http(self._service, image.settings)
        with blocked():
            http.start(image.listeners.sockets(), image.kept)
        parts.boot.release_connections()
        # What a start has allocated lives on: no collection needs to look at it.
        gc.freeze()
        gc.enable()
        # HTTP answers from here on; what comes below is imported behind the gap.
        control = image.control = parts.make_control(self._service)
        assert image.control_socket is not None
        with blocked():
            control.start(image.control_socket)
        image.kept = ()
        self._keep_listeners()
        self._give_access()
        log.info(
            "serving on %s: netclawd %s, pid %d, generation %d",
            ", ".join(str(a) for a in image.listeners.held if a not in image.retiring),
            parts.version,
            os.getpid(),
            image.generation,
        )
        records.say_unauthenticated(image)
        records.say_last_good(image)
        return events.Serving()

    def _keep_listeners(self) -> None:
        """Have the supervisor keep what is served, and not what will be retired."""
        image = self._image
        image.stored.keep(image.listeners.to_store(image.retiring), image.unclaimed)
        image.unclaimed = ()

    def _give_access(self) -> None:
        """Give adopted Unix sockets the mode and owner that are configured now; it was tried before."""
        try:
            self._image.listeners.give_access(self._image.settings.daemon.unix)
        except AddressError as error:
            log.error("a Unix socket keeps its mode and owner: %s", error, extra=records.DEGRADED)
            self._image.degraded["unix"] = f"A Unix socket keeps its mode and owner: {error.what}"

    def warm_up(self, _effect: effects.WarmUp) -> None:
        """Make the engine. An input admitted before is in the store, where reconciling finds it."""
        self._write_pid_file()
        self._take_manifest()
        self._close_broken_restarts()
        self._make_engine()
        spawn("warm-up", self._reconcile_and_tell)

    def _reconcile_and_tell(self) -> None:
        self._try_to_reconcile()
        self._post(events.WarmedUp())

    def _try_to_reconcile(self) -> None:
        try:
            self._reconcile()
        except NetclawError as error:
            log.error(
                "warm-up failed, turns wait for the next start: %s", error, extra=records.DEGRADED
            )
            self._image.degraded["warm-up"] = f"The warm-up failed: {error.what}"

    def _reconcile(self) -> None:
        """Judge every interrupted turn and let the ones to resume run."""
        cause, restart_id, trigger = self._origin()
        self._image.the_engine().reconcile(self._image.manifest, cause, restart_id, trigger)

    def _origin(self) -> tuple[str, str, str]:
        """Return why there is a new beginning: cause, restart id and trigger."""
        image = self._image
        record = image.restart  # One of our own, after a failed execve.
        if record is None and image.parts.handoff is not None:
            record = image.parts.handoff.restart
        manifest = image.manifest
        if record is not None:
            return "restart", str(record.id), record.trigger
        if manifest is not None and manifest.reason == "stop":
            return "stop", manifest.restart_id, manifest.trigger
        return "crash", manifest.restart_id if manifest else "", "start"

    def _make_engine(self) -> None:
        image = self._image
        if image.proposals is None:
            from netclawd.daemon.proposals import Proposals  # Not needed to serve.

            image.proposals = Proposals(image)
        if image.reminders is None:
            from netclawd.daemon.reminders import Reminders  # Not needed to serve.

            image.reminders = Reminders(image)
        tools = (image.proposals.tool, image.reminders.tool)
        engine = image.parts.make_engine(
            image.the_store(), image.settings, image.broadcast, image.proposals, tools
        )
        with blocked():
            engine.start(image.generation)
        image.engine = engine
        image.channels = self._make_channels(engine)

    def _make_channels(self, engine: Engine) -> Channels:
        from netclawd.daemon.channels import Channels, Ground  # Not needed to serve.

        image, parts = self._image, self._image.parts
        ground = Ground(
            store=image.the_store(),
            gate=image.gate,
            broadcast=image.broadcast,
            clock=parts.clock,
            ids=parts.ids,
            spawn=spawn,
            generation=image.generation,
            came_of=self._origin()[1],
            restart_id=lambda: image.restart_id,
            submit=engine.submit,
            decide=engine.decide_approval,
        )
        names = ("slack",) if image.settings.slack is not None else ()
        return Channels(ground, lambda: parts.make_channels(image.settings), names)

    def open_gate(self, _effect: effects.OpenGate) -> None:
        self._image.draining = False
        self._image.gate.open()
        self._image.the_engine().open()
        self._begin("reminders", self._image.the_reminders().open)

    def _begin(self, what: str, start: Callable[[], None]) -> None:
        """Start what serves without being needed to; degraded without it."""
        try:
            start()
        except RuntimeError as error:  # No thread.
            log.error("%s not started: %s", what, error, extra=records.DEGRADED)
            self._image.degraded[what] = f"The {what} are not started: {error}."

    def keep_last_good(self, _effect: effects.KeepLastGood) -> None:
        """Crash: before the manifest is put away, which comes last, it still says which configuration
        was on trial; after that the notes say what was good and what was refused."""
        image, parts = self._image, self._image.parts
        parts.memory.keep_last_good(image.snapshot.text or b"")
        parts.memory.keep_refused(image.refused)
        try:
            parts.manifests.put_away()
        except ManifestError as error:
            log.error("%s", error)
        # Now that no crash leads back: what an agent is told is also what the next start serves.
        if image.proposals is not None:
            image.proposals.on_ready()

    def start_watching(self, _effect: effects.StartWatching) -> None:
        assert self._image.channels is not None
        self._begin("channels", self._image.channels.start)
        if not self._watcher_started:
            self._watcher_started = True
            self._image.imports = spawn("imports", self._watch)

    def _watch(self) -> None:
        """Import what serving did not need, then watch; compare the digest once, for a lost event."""
        image = self._image
        image.parts.import_rest()
        try:
            watcher = image.parts.make_watcher()
            watcher.start(lambda: self._ask("file"))
            image.watcher = watcher
            image.degraded.pop("watcher", None)  # After a failed execve it is tried again.
        except (NetclawError, OSError, RuntimeError) as error:  # No descriptor, no thread.
            log.error("configuration is not watched: %s", error, extra=records.DEGRADED)
            image.degraded["watcher"] = f"The configuration file is not watched: {error}"
        # With a refusal the file may have been mended before anybody watched: that is no difference.
        if image.refusal is not None or judgement.file_differs(image):
            self._ask("boot")

    def _ask(self, kind: str) -> None:
        self._service.request_reload(events.Trigger(kind), force=False)

    def reopen(self, _effect: effects.Reopen) -> None:
        """After a failed execve: a store and an engine anew, the same generation."""
        image, parts = self._image, self._image.parts
        image.store = parts.open_store()
        image.journal.attach(image.store)
        image.store.on_commit(image.broadcast.on_commit)
        # It says that nobody has been ready since: not for long.
        self._take_manifest()
        self._make_engine()
        assert image.http is not None
        assert image.control is not None
        with blocked():
            image.http.resume()
            image.control.resume()
        self._keep_listeners()
        self._watcher_started = False
        image.drain_began = None

    def resume(self, _effect: effects.Resume) -> None:
        with blocked():
            self._try_to_reconcile()

    def retire(self, _effect: effects.Retire) -> None:
        image = self._image
        if not image.retiring:
            return
        assert image.http is not None
        # First: as long as the supervisor holds them, closing ours leaves them open.
        names = [address.name for address in image.retiring]
        image.stored.remove([*names, *(a.file_name for a in image.retiring if a.path is not None)])
        image.listeners.withdraw(image.retiring)
        emptied = threading.Event()
        image.http.retire(names, emptied.set)
        if not emptied.wait(_RETIRE_TIMEOUT_S):
            # The loop closes them when it gets there; closing them under it could hit another's number.
            log.warning("retired listeners are not emptied yet")
            return
        log.info("listeners retired: %s", ", ".join(map(str, image.retiring)))
        image.listeners.forget(image.retiring)
        image.retiring = ()
