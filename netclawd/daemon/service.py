"""The daemon as HTTP and the control socket see it; called from their threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netclawd.core.approvals import with_expiry
from netclawd.core.events import ReloadRequested, Request, StopRequested, Trigger
from netclawd.core.lifecycle import Phase
from netclawd.core.restart import RestartRecord
from netclawd.core.session import (
    OWN_SOURCES,
    AdmitInput,
    Admitted,
    Approval,
    ApprovalId,
    Delta,
    InputId,
    ModelRequest,
    OutboxState,
    Page,
    RestartId,
    Session,
    SessionEvent,
    SessionId,
    Turn,
    TurnId,
)
from netclawd.daemon.image import Image
from netclawd.daemon.status import status
from netclawd.errors import BadRequestError, DrainingError
from netclawd.ports import Call, CallListener, Post, Watch

if TYPE_CHECKING:
    from netclawd.core.outgoing import Outgoing, OutgoingId
    from netclawd.core.reading import Reading
    from netclawd.ports.reminders import Reminders


def _refuse_own(source_id: str | None) -> None:
    """Raise BadRequestError for a client's key, or name of a session, that is one of the daemon's own."""
    if source_id is not None and source_id.startswith(OWN_SOURCES):
        raise BadRequestError(
            f"What begins with {' or '.join(OWN_SOURCES)} is a name of the daemon's own.",
            "Send another Idempotency-Key, or user.",
        )


class DaemonService:
    """Implements :class:`netclawd.ports.Service`."""

    def __init__(self, image: Image, post: Post) -> None:
        self._image = image
        self._post = post
        self._new_id: Callable[[str], str] = image.parts.ids.new
        self._clock = image.parts.clock

    # -- the daemon ----------------------------------------------------------------------------

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        image = self._image
        phase = image.phase
        return phase in (Phase.READY, Phase.REHEARSING), {
            "phase": phase.value,
            "generation": image.generation,
            "digest": image.snapshot.published_digest,
        }

    def generation(self) -> int:
        return self._image.generation

    def retry_after_s(self) -> int:
        return self._image.gate.retry_after_s(self._clock.monotonic())

    def status(self) -> Mapping[str, Any]:
        shown: Mapping[str, Any] = self._image.parts.redact(status(self._image))
        return shown

    def metrics(self) -> Reading:
        from netclawd.daemon.reading import read  # Not on the way to serving.

        return read(self._image)

    def restarts(self, limit: int) -> Sequence[Mapping[str, Any]]:
        records = self._image.the_store().restarts(limit)
        shown: Sequence[Mapping[str, Any]] = self._image.parts.redact(
            [record.as_dict() for record in records]
        )
        return shown

    def plan(self, text: str | None, name: str) -> Mapping[str, Any]:
        from netclawd.daemon.plan import plan  # Not on the way to serving.

        shown: Mapping[str, Any] = self._image.parts.redact(plan(self._image, text, name))
        return shown

    def request_reload(self, trigger: Trigger, force: bool) -> RestartId:
        request = Request(RestartId(self._new_id("r")), trigger, force, at=self._clock.wall())
        self._post(ReloadRequested(request))
        return request.id

    def outcome(self, restart_id: RestartId, wait_s: float) -> RestartRecord | None:
        return self._image.journal.outcome(restart_id, wait_s)

    def request_stop(self, trigger: Trigger) -> None:
        wall = self._clock.wall()
        self._post(StopRequested(Request(RestartId(self._new_id("r")), trigger, at=wall)))

    # -- sessions ------------------------------------------------------------------------------

    def create_session(self) -> Session:
        session_id = SessionId(self._new_id("s"))
        return self._image.the_store().create_session(session_id, self._clock.wall())

    def session(self, session_id: SessionId) -> Session:
        return self._image.the_store().session(session_id)

    def sessions(self, cursor: str | None, limit: int) -> Page:
        return self._image.the_store().sessions(cursor, limit)

    def admit(self, session_id: SessionId, text: str, source_id: str | None) -> Admitted:
        """Ask the gate, make the input durable, tell the engine; in this order.

        A repeat of what was admitted is no new turn: a gate that refuses those lets it pass.
        """
        _refuse_own(source_id)
        image, store = self._image, self._image.the_store()
        try:
            deferred = image.gate.judge(self._clock.monotonic())
        except DrainingError:
            known = store.admitted(session_id, source_id, text) if source_id is not None else None
            if known is None:
                raise
            return known
        return self._admit(session_id, text, source_id, deferred=deferred)

    def _admit(
        self, session_id: SessionId, text: str, source_id: str | None, *, deferred: bool
    ) -> Admitted:
        image = self._image
        new = AdmitInput(
            session_id=session_id,
            input_id=InputId(self._new_id("i")),
            turn_id=TurnId(self._new_id("t")),
            text=text,
            source_id=source_id,
            deferred=deferred,
        )
        admitted = image.the_store().admit(new, self._clock.wall())
        if admitted.fresh and image.engine is not None:
            image.engine.submit(admitted.turn_id, session_id)
        return admitted

    def events(self, session_id: SessionId, after: int, limit: int) -> tuple[SessionEvent, ...]:
        return self._image.the_store().events(session_id, after, limit)

    def cancel_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        return self._image.the_engine().cancel(session_id, turn_id, by)

    def cancel_turns(self, session_id: SessionId, by: str) -> tuple[Turn, ...]:
        return self._image.the_engine().cancel_all(session_id, by)

    def park_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        timeout_s = self._image.settings.drain.tool_timeout_s
        return self._image.the_engine().park(session_id, turn_id, by, timeout_s)

    def resume_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        return self._image.the_engine().resume(session_id, turn_id, by)

    def live_text(self, session_id: SessionId) -> Delta | None:
        engine = self._image.engine
        return engine.live_text(session_id) if engine is not None else None

    # -- messages of channels --------------------------------------------------------------------

    def outgoing(self, states: Sequence[OutboxState], limit: int) -> tuple[Outgoing, ...]:
        return self._image.the_store().outgoing.messages(states, limit)

    def retry_outgoing(self, message_id: OutgoingId) -> Outgoing:
        found = self._image.the_store().outgoing.retry(message_id, self._clock.wall())
        if self._image.channels is not None:
            self._image.channels.look()
        return found

    def drop_outgoing(self, message_id: OutgoingId) -> Outgoing:
        found = self._image.the_store().outgoing.drop(message_id, self._clock.wall())
        if self._image.channels is not None:
            self._image.channels.look()  # What comes behind it needs not wait any more.
        return found

    # -- clients that wait for the answer in the very response -----------------------------------

    def call_model(
        self, request: ModelRequest, listener: Callable[[Call], CallListener], most: int
    ) -> Call:
        self._refuse_while_closed()
        return self._image.the_engine().calls.call(request, listener, most)

    def open_session(self, alias: str) -> Session:
        _refuse_own(alias)
        self._refuse_while_closed()
        session_id = SessionId(self._new_id("s"))
        return self._image.the_store().open_session(alias, session_id, self._clock.wall())

    def admit_now(self, session_id: SessionId, text: str, source_id: str | None) -> Admitted:
        """As :meth:`admit`, but for the gate; an input that passed just before it closed is deferred."""
        _refuse_own(source_id)
        self._refuse_while_closed()
        return self._admit(session_id, text, source_id, deferred=False)

    def receive_hook(self, name: str, delivery_id: str, text: str) -> tuple[SessionId, Admitted]:
        from netclawd.daemon.hooks import receive_hook  # Not on the way to serving.

        def admit(session_id: SessionId, text: str, source_id: str, deferred: bool) -> Admitted:
            return self._admit(session_id, text, source_id, deferred=deferred)

        return receive_hook(self._image, self._new_id, admit, (name, delivery_id, text))

    def _refuse_while_closed(self) -> None:
        gate = self._image.gate
        if not gate.state.open:
            raise gate.refusal(self._clock.monotonic())

    def turn_events(self, turn_id: TurnId) -> tuple[SessionEvent, ...]:
        return self._image.the_store().turn_events(turn_id)

    def abandon_turn(self, session_id: SessionId, turn_id: TurnId, by: str) -> None:
        engine = self._image.engine
        if engine is not None:
            engine.abandon(session_id, turn_id, by)

    @property
    def reminders(self) -> Reminders:
        return self._image.the_reminders()

    def watch(self, watch: Watch) -> None:
        self._image.broadcast.watch(watch)

    def unwatch(self, watch: Watch) -> None:
        self._image.broadcast.unwatch(watch)

    def approvals(self, pending_only: bool) -> tuple[Approval, ...]:
        timeout_s = self._image.settings.approval_timeout_s
        found = self._image.the_store().approvals(pending_only)
        return tuple(with_expiry(approval, timeout_s) for approval in found)

    def decide_approval(self, approval_id: ApprovalId, granted: bool, decided_by: str) -> Approval:
        return self._image.the_engine().decide_approval(approval_id, granted, decided_by)
