"""A daemon in memory: the Service port with sessions in lists, for tests of the sockets and the CLI."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netclawd.core.events import Trigger
from netclawd.core.outgoing import Outgoing, OutgoingId
from netclawd.core.reading import Reading
from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import (
    Admitted,
    Approval,
    ApprovalId,
    ApprovalState,
    CallId,
    Delta,
    EventType,
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
from netclawd.core.values import replace
from netclawd.errors import ConflictError, DrainingError, NotFoundError
from netclawd.ports import Call, CallListener, Watch
from tests.readings import a_reading
from tests.reminders_double import RemindersDouble


class ServiceDouble:
    """Keeps what it was asked; a test sets what it answers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.status_values: dict[str, Any] = {
            "pid": 4711,
            "phase": "ready",
            "generation": 3,
            "version": "0.1.0",
            "digest": "ab" * 32,
            "home": "/srv/claw",
            "config_path": "/srv/claw/netclaw.toml",
            "state_dir": "/srv/claw/state",
            "runtime_dir": "/srv/claw/run",
            "addresses": ["127.0.0.1:5199"],
            "watcher": "inotify",
            "degraded": [],
            "refusal": None,
            "started_at": time.time() - 3700,
            "gate": "open",
            "drain": None,
            "turns": {"running": 0, "queued": 0, "parked": 0, "deferred": 0},
            "streams": 0,
            "last_restart": None,
        }
        self.journal: dict[RestartId, RestartRecord] = {}
        self.log: dict[SessionId, list[SessionEvent]] = {}
        self.keys: dict[tuple[SessionId, str], Admitted] = {}
        self.asked: list[Approval] = []
        #: Messages of channels.
        self.messages: list[Outgoing] = []
        self.triggers: list[tuple[str, Trigger, bool]] = []
        self.failing: Exception | None = None
        #: What a plan is answered with, and what was asked for one.
        self.plan_values: dict[str, Any] = {}
        self.planned: list[tuple[str | None, str]] = []
        self.reading = a_reading()
        self.reminders = RemindersDouble()

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        return True, {k: self.status_values[k] for k in ("phase", "generation", "digest")}

    def generation(self) -> int:
        return int(self.status_values["generation"])

    def retry_after_s(self) -> int:
        return 1

    def status(self) -> Mapping[str, Any]:
        if self.failing is not None:
            raise self.failing
        return self.status_values

    def metrics(self) -> Reading:
        return self.reading

    def restarts(self, limit: int) -> Sequence[Mapping[str, Any]]:
        return [record.as_dict() for record in reversed(self.journal.values())][:limit]

    def create_session(self) -> Session:
        session_id = SessionId(f"ses_{len(self.log) + 1}")
        self.log[session_id] = []
        return self.session(session_id)

    def session(self, session_id: SessionId) -> Session:
        if session_id not in self.log:
            raise NotFoundError(
                f"There is no session {session_id}.", "See `netclaw sessions list`."
            )
        return Session(session_id, 1_700_000_000.0, "api", len(self.log[session_id]), None)

    def sessions(self, cursor: str | None, limit: int) -> Page:
        found = tuple(self.session(session_id) for session_id in reversed(self.log))
        start = int(cursor or 0)
        more = str(start + limit) if start + limit < len(found) else None
        return Page(found[start : start + limit], more)

    def admit(self, session_id: SessionId, text: str, source_id: str | None) -> Admitted:
        self.session(session_id)
        with self.lock:
            if source_id is not None and (session_id, source_id) in self.keys:
                return replace(self.keys[session_id, source_id], fresh=False)
            number = len(self.log[session_id]) + 1
            answer = Admitted(InputId(f"inp_{number}"), TurnId(f"trn_{number}"), False, True)
            self.keys[session_id, source_id or f"none-{number}"] = answer
        self.add(session_id, answer.turn_id, EventType.INPUT_ADMITTED, text=text, deferred=False)
        return answer

    def add(
        self, session_id: SessionId, turn_id: TurnId | None, kind: EventType, **data: Any
    ) -> SessionEvent:
        """Append a durable event, as the engine would."""
        log = self.log[session_id]
        event = SessionEvent(session_id, len(log) + 1, kind, 1_700_000_000.0, turn_id, data)
        log.append(event)
        return event

    def events(self, session_id: SessionId, after: int, limit: int) -> tuple[SessionEvent, ...]:
        self.session(session_id)
        return tuple(self.log[session_id][after : after + limit])

    def cancel_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        raise ConflictError("The turn has ended.")

    def cancel_turns(self, session_id: SessionId, by: str) -> tuple[Turn, ...]:
        raise ConflictError("The turns have ended.")

    def park_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        raise ConflictError("The turn has ended.")

    def resume_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        raise ConflictError("The turn is not parked.")

    def live_text(self, session_id: SessionId) -> Delta | None:
        return None

    def call_model(
        self, request: ModelRequest, listener: Callable[[Call], CallListener], most: int
    ) -> Call:
        raise DrainingError("Nobody is here to be called.")

    def open_session(self, alias: str) -> Session:
        session_id = SessionId(f"ses_of_{alias}")
        self.log.setdefault(session_id, [])
        return self.session(session_id)

    def admit_now(self, session_id: SessionId, text: str, source_id: str | None) -> Admitted:
        return self.admit(session_id, text, source_id)

    def receive_hook(self, name: str, delivery_id: str, text: str) -> tuple[SessionId, Admitted]:
        session = self.open_session(f"hook:{name}")
        return session.id, self.admit(session.id, text, f"hook:{name}:{delivery_id}")

    def turn_events(self, turn_id: TurnId) -> tuple[SessionEvent, ...]:
        return tuple(e for log in self.log.values() for e in log if e.turn_id == turn_id)

    def abandon_turn(self, session_id: SessionId, turn_id: TurnId, by: str) -> None: ...

    def watch(self, watch: Watch) -> None: ...
    def unwatch(self, watch: Watch) -> None: ...

    def ask(self, session_id: SessionId, question: str) -> Approval:
        """Put an approval in front of a person."""
        approval = Approval(
            ApprovalId(f"apr_{len(self.asked) + 1}"),
            session_id,
            TurnId("trn_1"),
            CallId("call_1"),
            ApprovalState.PENDING,
            question,
            1_700_000_000.0,
            None,
        )
        self.asked.append(approval)
        return approval

    def outgoing(self, states: Sequence[OutboxState], limit: int) -> tuple[Outgoing, ...]:
        return tuple(m for m in self.messages if not states or m.state in states)[-limit:]

    def retry_outgoing(self, message_id: OutgoingId) -> Outgoing:
        return self._move_outgoing(message_id, OutboxState.PENDING)

    def drop_outgoing(self, message_id: OutgoingId) -> Outgoing:
        return self._move_outgoing(message_id, OutboxState.DROPPED)

    def _move_outgoing(self, message_id: OutgoingId, state: OutboxState) -> Outgoing:
        for index, message in enumerate(self.messages):
            if message.id == message_id:
                if message.state in (OutboxState.SENT, OutboxState.SENDING):
                    raise ConflictError(f"The message {message_id} is {message.state.value}.")
                self.messages[index] = replace(message, state=state)
                return self.messages[index]
        raise NotFoundError(f"There is no message {message_id} in the outbox.")

    def approvals(self, pending_only: bool) -> tuple[Approval, ...]:
        return tuple(a for a in self.asked if not pending_only or a.state is ApprovalState.PENDING)

    def decide_approval(self, approval_id: ApprovalId, granted: bool, decided_by: str) -> Approval:
        for index, approval in enumerate(self.asked):
            if approval.id == approval_id:
                if approval.state is not ApprovalState.PENDING:
                    raise ConflictError(f"The approval {approval_id} was decided already.")
                state = ApprovalState.GRANTED if granted else ApprovalState.DENIED
                self.asked[index] = replace(approval, state=state, decided_by=decided_by)
                return self.asked[index]
        raise NotFoundError(f"There is no approval {approval_id}.")

    def plan(self, text: str | None, name: str) -> Mapping[str, Any]:
        self.planned.append((text, name))
        return self.plan_values

    def request_reload(self, trigger: Trigger, force: bool) -> RestartId:
        restart_id = RestartId(f"rst_{len(self.journal) + 1}")
        self.triggers.append(("reload", trigger, force))
        self.journal[restart_id] = RestartRecord(
            restart_id, Outcome.PENDING, trigger.kind, trigger.actor, 1_700_000_000.0, generation=3
        )
        return restart_id

    def end_restart(self, restart_id: RestartId, outcome: Outcome, **values: Any) -> None:
        """Write the outcome of a request into the journal."""
        record = self.journal[restart_id]
        self.journal[restart_id] = replace(
            record, outcome=outcome, ended_at=record.requested_at + 1, **values
        )

    def outcome(self, restart_id: RestartId, wait_s: float) -> RestartRecord | None:
        assert wait_s == 0.0, "the control socket's thread must not be made to wait"
        return self.journal.get(restart_id)

    def request_stop(self, trigger: Trigger) -> None:
        self.triggers.append(("stop", trigger, False))
