"""What is true of every turn's events, whatever interrupted it: the promise as code.

Pure. Tests replay every interruption through this; so can anyone who doubts a store.

1. Numbers rise; the first event admits the input, once; nothing follows the end.
2. Nothing is done before the start, nor between an interruption or a parking and the resume. (A
   person may decide at any time before the end.)
3. Steps complete in order, each once, with the attempt that ``step.retry`` announced last.
4. A call is started once; again only if it was idempotent and says so. It is answered once; one
   that was never started is answered with a denial or an error.
5. Where a person was asked, the call starts only once granted, and none of its reply starts while a
   question about one of them is open. Nobody is asked about a call that was started.
6. A reply is sent once, after the last step; the turn completes after that. Through a channel other
   than the API the turn completes once the reply is in the outbox, which has the rest.
7. Of a configuration that a call has written the outcome is told once, before the next step.
"""

from __future__ import annotations

from collections.abc import Sequence

from netclawd.core.session import API, EventType, SessionEvent

_ENDS = (EventType.TURN_COMPLETED, EventType.TURN_FAILED, EventType.TURN_CANCELLED)
_WORK = (
    EventType.MODEL_COMPLETED,
    EventType.STEP_RETRY,
    EventType.CONTEXT_SUMMARISED,
    EventType.TOOL_STARTED,
    EventType.TOOL_FINISHED,
    EventType.APPROVAL_REQUESTED,
    EventType.REPLY_SENT,
)


class InvariantError(AssertionError):
    """A turn's events say what can't have happened."""


def check_invariants(events: Sequence[SessionEvent], channel: str = API) -> None:
    """Raise InvariantError, naming the event, unless these events of one turn keep the promise."""
    check = _Check(channel)
    for event in events:
        check.take(event)


class _Check:
    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._seq = 0
        self._admitted = False
        self._started = False
        self._held = False
        self._ended = False
        self._steps = 0
        self._attempt = 1
        self._sent = False
        #: Call id -> idempotent as declared at its start, None when not started.
        self._begun: dict[str, bool | None] = {}
        self._answered: set[str] = set()
        self._asked: dict[str, str] = {}
        #: Calls that have written the configuration and whose outcome wasn't told.
        self._awaited: set[str] = set()

    def take(self, event: SessionEvent) -> None:
        self._need(event, event.seq > self._seq, "its number does not rise")
        self._seq = event.seq
        self._need(event, not self._ended, "it follows the end of the turn")
        first = event.type is EventType.INPUT_ADMITTED
        self._need(event, first is not self._admitted, "the input is admitted once, first")
        self._admitted = True
        if event.type in _WORK:
            self._need(event, self._started, "the turn has not started")
            self._need(event, not self._held, "the turn is interrupted or parked")
        self._take_state(event)
        self._take_step(event)
        self._take_call(event)
        self._take_question(event)
        self._take_outcome(event)

    def _take_outcome(self, event: SessionEvent) -> None:
        match event.type:
            case EventType.TOOL_FINISHED if "proposal" in event.data:
                self._need(event, event.data["status"] == "ok", "what failed has written nothing")
                self._awaited.add(event.data["call_id"])
            case EventType.CONFIG_OUTCOME:
                call = event.data["call_id"]
                self._need(event, call in self._awaited, "there was no outcome to tell")
                self._awaited.discard(call)
            case EventType.MODEL_COMPLETED | EventType.STEP_RETRY:
                self._need(event, not self._awaited, "an outcome has not been told")

    def _take_state(self, event: SessionEvent) -> None:
        match event.type:
            case EventType.TURN_STARTED:
                self._need(event, not self._started, "the turn has started already")
                self._need(event, not self._held, "the turn is interrupted or parked")
                self._started = True
            case EventType.TURN_INTERRUPTED | EventType.TURN_PARKED:
                self._held = True
            case EventType.TURN_RESUMED:
                self._need(event, self._held, "there was nothing to resume")
                self._held = False
            case EventType.TURN_COMPLETED:
                made = self._sent if self._channel == API else self._is_final()
                self._need(event, made and not self._held, "the reply has not been sent")
        self._ended = event.type in _ENDS

    def _take_step(self, event: SessionEvent) -> None:
        data = event.data
        match event.type:
            case EventType.STEP_RETRY:
                self._need(event, not self._unanswered(), "a call of the last step is open")
                self._need(event, data["step"] == self._steps + 1, "it is not the next step")
                self._need(event, data["attempt"] == self._attempt + 1, "an attempt is left out")
                self._attempt = data["attempt"]
            case EventType.MODEL_COMPLETED:
                self._need(event, not self._unanswered(), "a call of the last step is open")
                self._need(event, not self._steps or bool(self._begun), "the reply was final")
                self._need(event, data["step"] == self._steps + 1, "it is not the next step")
                self._need(event, data["attempt"] == self._attempt, "its attempt is another")
                self._steps, self._attempt = data["step"], 1
                self._begun = {call["id"]: None for call in data["calls"]}
                self._need(event, not self._answered & self._begun.keys(), "a call id comes twice")
            case EventType.REPLY_SENT:
                self._need(event, not self._sent, "the reply was sent already")
                self._need(event, self._channel == API, "the outbox sends it")
                self._need(event, self._is_final(), "the reply is not final")
                self._sent = True

    def _is_final(self) -> bool:
        return bool(self._steps) and not self._begun

    def _take_call(self, event: SessionEvent) -> None:
        if event.type not in (
            EventType.TOOL_STARTED,
            EventType.TOOL_FINISHED,
            EventType.TOOL_UNKNOWN,
        ):
            return
        call = event.data["call_id"]
        self._need(event, call in self._begun, "no model asked for this call")
        self._need(event, call not in self._answered, "the call is answered already")
        before = self._begun[call]
        if event.type is EventType.TOOL_STARTED:
            self._need(event, "pending" not in self._asked.values(), "a question is open")
            self._need(event, self._asked.get(call, "granted") == "granted", "it was not granted")
            self._need(event, event.data["again"] is (before is not None), "'again' is wrong")
            self._need(event, before is not False, "a call that is not idempotent is repeated")
            self._begun[call] = event.data["idempotent"]
            return
        status = event.data.get("status")
        if before is None:
            self._need(event, status in ("denied", "error"), "the call was not started")
            self._need(event, self._asked.get(call) != "pending", "a question is open")
        self._need(
            event, self._asked.get(call) != "refused" or status == "denied", "it was not granted"
        )
        self._answered.add(call)

    def _take_question(self, event: SessionEvent) -> None:
        match event.type:
            case EventType.APPROVAL_REQUESTED:
                call = event.data["call_id"]
                self._need(event, call in self._begun, "no model asked for this call")
                self._need(event, call not in self._asked, "it was asked already")
                self._need(event, self._begun[call] is None, "the call was started already")
                self._need(event, call not in self._answered, "the call is answered already")
                self._asked[call] = "pending"
            case (
                EventType.APPROVAL_GRANTED | EventType.APPROVAL_DENIED | EventType.APPROVAL_EXPIRED
            ):
                call = event.data["call_id"]
                self._need(event, self._asked.get(call) == "pending", "nobody asked")
                granted = event.type is EventType.APPROVAL_GRANTED
                self._asked[call] = "granted" if granted else "refused"

    def _unanswered(self) -> set[str]:
        return self._begun.keys() - self._answered

    def _need(self, event: SessionEvent, true: bool, why: str) -> None:
        if not true:
            raise InvariantError(f"event {event.seq} ({event.type.value}): {why}")
