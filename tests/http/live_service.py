"""A daemon in memory that also lives: it tells its watchers, makes replies, and can be held up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from netclawd.core.session import (
    Admitted,
    Delta,
    EventType,
    InputId,
    ModelRequest,
    Page,
    ParkReason,
    Session,
    SessionEvent,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.values import replace
from netclawd.errors import (
    BadRequestError,
    ConflictError,
    DrainingError,
    KeyReusedError,
    NotFoundError,
)
from netclawd.ports import Call, CallListener, Watch
from tests.http.model_calls import CallsDouble
from tests.service_double import ServiceDouble
from tests.waiting import scaled


class LiveService(ServiceDouble):
    """Stores inputs with their texts and keys, appends events, broadcasts commits and deltas."""

    def __init__(self) -> None:
        super().__init__()
        self.watches: list[Watch] = []
        self.turns: dict[TurnId, Turn] = {}
        self.texts: dict[tuple[SessionId, str], str] = {}
        self.live: dict[SessionId, Delta] = {}
        self.calls: Counter[str] = Counter()
        self.is_ready = True
        #: ``status`` waits for this, so that a test has a request that runs as long as it likes.
        self.may_answer = threading.Event()
        self.may_answer.set()
        #: Set while a request is inside ``status``.
        self.answering = threading.Event()
        self.admit_error: Exception | None = None
        self.model_calls = CallsDouble()
        #: Sessions whose oldest turn is parked.
        self.parked: set[SessionId] = set()
        #: Turns whose client has hung up and wanted them cancelled then.
        self.abandoned: list[tuple[SessionId, TurnId, str]] = []
        #: Happens once, right after the next look at the events.
        self.after_look: Callable[[], object] | None = None

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        return self.is_ready, super().ready()[1]

    def retry_after_s(self) -> int:
        return 7

    def status(self) -> Mapping[str, Any]:
        self.answering.set()
        assert self.may_answer.wait(scaled(20))
        return super().status()

    def admit(self, session_id: SessionId, text: str, source_id: str | None) -> Admitted:
        if self.admit_error is not None:
            raise self.admit_error
        if source_id is not None and self.texts.setdefault((session_id, source_id), text) != text:
            raise KeyReusedError("The key came with another text.", "Use a fresh key.")
        answer = super().admit(session_id, text, source_id)
        if answer.fresh:
            self.turns[answer.turn_id] = Turn(
                answer.turn_id, session_id, InputId(answer.input_id), TurnState.QUEUED,
                0, 0, None, None, 1, False,
            )  # fmt: skip
        return answer

    def sessions(self, cursor: str | None, limit: int) -> Page:
        if cursor is not None and not cursor.isdigit():
            raise BadRequestError("The cursor is not ours.", "Use `next` of a page.")
        return super().sessions(cursor, limit)

    def cancel_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        turn = self._open_turn(session_id, turn_id)
        self.turns[turn.id] = replace(turn, state=TurnState.CANCELLED)
        self.add(session_id, turn_id, EventType.TURN_CANCELLED, by=by)
        return self.turns[turn.id]

    def _open_turn(self, session_id: SessionId, turn_id: TurnId | None) -> Turn:
        assert turn_id is not None
        turn = self.turns.get(turn_id)
        if turn is None or turn.session_id != session_id:
            raise NotFoundError("There is no such turn.", "See the events of the session.")
        if turn.state.ended:
            raise ConflictError("The turn has ended.", "There is nothing to do.")
        return turn

    def park_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        """Park a queued one; a running one stays as it is."""
        turn = self._open_turn(session_id, turn_id)
        if turn.state is TurnState.QUEUED:
            turn = replace(turn, state=TurnState.PARKED, park_reason=ParkReason.REQUEST)
            self.turns[turn.id] = turn
        return turn

    def resume_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        """Let a parked one run; while the daemon is not ready, after the restart."""
        turn = self._open_turn(session_id, turn_id)
        if turn.state is not TurnState.PARKED:
            raise ConflictError("The turn is not parked.", "There is nothing to do.")
        state = TurnState.RUNNING if self.is_ready else TurnState.INTERRUPTED
        self.turns[turn.id] = turn = replace(turn, state=state, park_reason=None)
        return turn

    # -- what the engine and the store do --------------------------------------------------------

    def add(
        self, session_id: SessionId, turn_id: TurnId | None, kind: EventType, **data: Any
    ) -> SessionEvent:
        event = super().add(session_id, turn_id, kind, **data)
        for watch in tuple(self.watches):
            watch.on_events(session_id, event.seq)
        return event

    def say(
        self, session_id: SessionId, text: str, *, turn: str = "t1", step: int = 1, attempt: int = 1
    ) -> None:
        """Go on with the reply that is being made, or begin one."""
        key = (TurnId(turn), step, attempt)
        before = self.live.get(session_id)
        said = ""
        if before is not None and (before.turn_id, before.step, before.attempt) == key:
            said = before.text
        self.live[session_id] = Delta(session_id, *key, 0, said + text)
        for watch in tuple(self.watches):
            watch.on_delta(Delta(session_id, *key, len(said), text))

    def complete(
        self, session_id: SessionId, *, turn: str = "t1", step: int = 1, attempt: int = 1
    ) -> None:
        """End the reply with its durable event."""
        text = self.live[session_id].text
        self.add(
            session_id, TurnId(turn), EventType.MODEL_COMPLETED,
            step=step, attempt=attempt, text=text, finish="stop", calls=[],
        )  # fmt: skip
        del self.live[session_id]

    def events(self, session_id: SessionId, after: int, limit: int) -> tuple[SessionEvent, ...]:
        self.calls["events"] += 1
        found = super().events(session_id, after, limit)
        happens, self.after_look = self.after_look, None
        if happens is not None:
            happens()
        return found

    def live_text(self, session_id: SessionId) -> Delta | None:
        return self.live.get(session_id)

    def session(self, session_id: SessionId) -> Session:
        found = super().session(session_id)
        state = TurnState.PARKED if session_id in self.parked else None
        return replace(found, turn_state=state)

    def call_model(
        self, request: ModelRequest, listener: Callable[[Call], CallListener], most: int
    ) -> Call:
        self.model_calls.most = most
        return self.model_calls.begin(request, listener)

    def admit_now(self, session_id: SessionId, text: str, source_id: str | None) -> Admitted:
        if not self.is_ready:
            raise DrainingError("The daemon is restarting.", "Come again.", retry_after_s=7)
        return self.admit(session_id, text, source_id)

    def abandon_turn(self, session_id: SessionId, turn_id: TurnId, by: str) -> None:
        self.abandoned.append((session_id, turn_id, by))

    def watch(self, watch: Watch) -> None:
        self.watches.append(watch)

    def unwatch(self, watch: Watch) -> None:
        self.watches.remove(watch)
