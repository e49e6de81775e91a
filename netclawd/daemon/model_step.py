"""One model call of a turn: what the model is told, its text as it comes, its reply as a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from netclawd.core import turn as plan
from netclawd.core import window
from netclawd.core.session import (
    EventType,
    ModelReply,
    ModelRequest,
    OutboxChange,
    OutboxState,
    SessionEvent,
    Usage,
)
from netclawd.core.tokens import fixed_tokens, tokens_of
from netclawd.core.transcript import History, converse, tell
from netclawd.core.values import as_map, frozen
from netclawd.daemon.board import Doing, Kind
from netclawd.daemon.turn_parts import RunEnd
from netclawd.errors import ContextOverflowError, NetclawError
from netclawd.ports import Cancelled

if TYPE_CHECKING:
    from netclawd.daemon.turn_run import TurnRun

_log = logging.getLogger(__name__)

#: Tokens of one call, at most; a server that says more is not believed.
MOST_TOKENS = 1_000_000_000


@frozen
class _Stopped:
    """A model call gave no reply; ``end`` is that of the run, None when the turn goes on."""

    end: RunEnd | None


@frozen
class _Earlier:
    """The earlier turns of the session, as they were when this run first called the model."""

    events: tuple[SessionEvent, ...]
    told: History


class ModelStep:
    def __init__(self, run: TurnRun) -> None:
        self._run = run
        self._earlier: _Earlier | None = None
        agent = run.parts.agent
        #: What each request takes besides its messages, estimated.
        self._fixed = fixed_tokens(agent.system, agent.offered)
        #: The estimate of the request that was sent last.
        self._sent = 0
        #: What fits, since the server called more than that too long; and at which step it did.
        self._squeezed: int | None = None
        self._squeezed_at = 0

    def call(self, step: plan.CallModel) -> RunEnd | None:
        """Call the model, or have the conversation's oldest part summarised first.

        None when the turn goes on, be it from here again.
        """
        match self._plan():
            case window.TooLarge() as over:
                return self._too_large(over)
            case window.Summarise() as part:
                return self._summarise(step, part)
            case window.Send() as send:
                return self._ask(step, send)

    def _ask(self, step: plan.CallModel, send: window.Send) -> RunEnd | None:
        run, parts = self._run, self._run.parts
        request = self._request(send)
        self._sent = self._fixed + tokens_of(request.messages)
        if send.shortened:
            more = {**run.ids(), "COUNT": send.shortened}
            _log.info("old tool outputs shortened to fit the model's window", extra=more)

        def begun() -> None:
            parts.broadcast.begin(run.session_id, run.leased().turn_id, step.step, step.attempt)

        def on_text(text: str) -> None:
            parts.broadcast.say(run.session_id, text)

        reply = self._make(step, request, begun, on_text)
        if not isinstance(reply, ModelReply):
            return reply.end
        self.take_reply(step, reply)
        return None

    def _summarise(self, step: plan.CallModel, part: window.Summarise) -> RunEnd | None:
        """Have turns summarised. Crash: before the commit nothing is known of it, and it is made again."""
        run, room = self._run, self._window()
        request = window.summary_request(part, room)
        self._sent = window.request_tokens(request)
        reply = self._make(step, request, lambda: None, lambda _text: None)
        if not isinstance(reply, ModelReply):
            return reply.end
        usage = _counted(reply.usage)
        text = window.summary_text(run.parts.agent.redact(reply.text), part, room)
        data: dict[str, Any] = {"upto_seq": part.upto_seq, "text": text}
        if usage is not None:
            data["usage"] = as_map(usage)
        run.commit(EventType.CONTEXT_SUMMARISED, data, usage=usage)
        _log.info("conversation summarised", extra={**run.ids(), "COUNT": len(part.turns)})
        return None

    def _make(
        self,
        step: plan.CallModel,
        request: ModelRequest,
        on_begin: Callable[[], None],
        on_text: Callable[[str], None],
    ) -> ModelReply | _Stopped:
        """Make a model call that a drain, a person or an error may end."""
        run, parts = self._run, self._run.parts
        cancel = run.board.begin(run, Doing(Kind.MODEL, "", parts.clock.monotonic()))
        if cancel is None:
            return _Stopped(None)
        on_begin()
        try:
            reply = parts.agent.provider.reply(request, on_text, cancel)
        except Cancelled:
            return _Stopped(self.was_cut(step))
        except NetclawError as error:
            if cancel.is_set():
                return _Stopped(self.was_cut(step))
            redact = parts.agent.redact
            told = (error.slug, redact(error.what), redact(error.remedy))
            return _Stopped(self._failed(step, *told))
        except Exception as error:  # noqa: BLE001 - a provider's defect ends its turn, no more
            if cancel.is_set():
                return _Stopped(self.was_cut(step))
            _log.exception("provider met a defect", extra=run.ids())
            what = f"The provider failed ({type(error).__name__})."
            return _Stopped(self._failed(step, "internal-error", what))
        finally:
            run.board.done(run)
        parts.agent.state.replied(parts.clock.wall())
        return reply

    def _failed(
        self, step: plan.CallModel, slug: str, what: str, remedy: str = ""
    ) -> RunEnd | None:
        run, parts = self._run, self._run.parts
        parts.agent.state.failed(slug, what, parts.clock.wall(), remedy)
        if slug != ContextOverflowError.slug or self._squeezed_at == step.step:
            return run.fail(slug, what, remedy)
        # What was sent is too long for the server, whatever the settings say: once more with less.
        self._squeezed, self._squeezed_at = int(self._sent * window.SQUEEZE), step.step
        _log.warning("the model server calls the conversation too long", extra=run.ids())
        return None

    def _too_large(self, over: window.TooLarge) -> RunEnd:
        factor = self._factor()
        tokens, fixed, room = (int(n * factor) for n in (over.tokens, self._fixed, over.room))
        return self._run.fail(
            ContextOverflowError.slug,
            f"This turn alone has about {tokens} tokens, {fixed} of them the system prompt and the tools,"
            f" and the model's window has room for {room} beside a reply.",
            "Send less at once, or raise context_tokens of the provider if its model's window is larger.",
        )

    # -- what the model is told ------------------------------------------------------------------

    def request(self) -> ModelRequest:
        """Return what the model is to be told, as if all fitted."""
        told = converse(self._history().told, self._run.events)
        return self._request(window.Send(window.joined(told, told.current)))

    def _request(self, send: window.Send) -> ModelRequest:
        agent = self._run.parts.agent
        return ModelRequest(send.messages, agent.system, agent.offered)

    def _plan(self) -> window.Send | window.Summarise | window.TooLarge:
        told = converse(self._history().told, self._run.events)
        return window.plan_window(told, self._fixed, self._window())

    def _window(self) -> window.Window:
        agent, fixed = self._run.parts.agent, self._fixed
        found = window.window_of(
            agent.context_tokens, agent.max_output_tokens, self._factor(), fixed
        )
        return found if self._squeezed is None else found.squeezed(self._squeezed, fixed)

    def _factor(self) -> float:
        return window.factor_of(self._history().events, self._run.events)

    def _history(self) -> _Earlier:
        if self._earlier is None:
            lease = self._run.leased()
            events = self._run.patiently(
                lambda: self._run.parts.store.conversation(self._run.session_id, lease.turn_id)
            )
            self._earlier = _Earlier(events, tell(events))
        return self._earlier

    def take_reply(self, step: plan.CallModel, reply: ModelReply) -> None:
        """Commit a whole reply, with the calls' lasting identities."""
        turn_id, usage = self._run.leased().turn_id, _counted(reply.usage)
        calls = [
            {
                "id": plan.call_id(turn_id, step.step, number),
                "name": call.name,
                "arguments": dict(call.arguments),
                **({"invalid": call.invalid} if call.invalid else {}),
            }
            for number, call in enumerate(reply.calls, 1)
        ]
        data = {
            "step": step.step,
            "attempt": step.attempt,
            "text": reply.text,
            "finish": reply.finish.value,
            "calls": calls,
            **({"usage": as_map(usage), "estimated": self._sent} if usage is not None else {}),
        }
        outbox = None if calls else OutboxChange(OutboxState.PENDING, text=reply.text)
        self._run.commit(EventType.MODEL_COMPLETED, data, outbox=outbox, usage=usage)
        self._run.parts.broadcast.end(self._run.session_id)

    def was_cut(self, step: plan.CallModel) -> RunEnd | None:
        """Go on after a call that was cancelled, by whoever it was."""
        if self._run.cancelled_by is not None:
            return None
        if self._run.parked_by is not None:
            return self._run.park(self._run.parked_by, cut=True)
        if (drain := self._run.board.drain) is not None:
            return self._run.interrupt(drain, cut=True)
        if self._run.board.stopping:
            return RunEnd.DROPPED
        # The restart that cut it failed meanwhile: go on at once.
        self.announce_retry(step.step, step.attempt + 1, "restart")
        return None

    def announce_retry(self, step: int, attempt: int, reason: str) -> None:
        """Commit that the step's model call is made again."""
        data = {"step": step, "attempt": attempt, "reason": reason}
        self._run.commit(EventType.STEP_RETRY, data)


def _counted(usage: Usage | None) -> Usage | None:
    """Return what a model server has counted, as far as it can be true."""
    if usage is None:
        return None
    return Usage(
        *(min(max(0, count), MOST_TOKENS) for count in (usage.input_tokens, usage.output_tokens))
    )
