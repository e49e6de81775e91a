"""One model call of a turn: what the model is told, its text as it comes, its reply as a checkpoint."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from netclawd.core import turn as plan
from netclawd.core.session import (
    EventType,
    ModelReply,
    ModelRequest,
    OutboxChange,
    OutboxState,
    SessionEvent,
    Usage,
)
from netclawd.core.transcript import messages
from netclawd.core.values import as_map
from netclawd.daemon.board import Doing, Kind
from netclawd.daemon.turn_parts import RunEnd
from netclawd.errors import NetclawError
from netclawd.ports import Cancelled

if TYPE_CHECKING:
    from netclawd.daemon.turn_run import TurnRun

_log = logging.getLogger(__name__)

#: Tokens of one call, at most; a server that says more is not believed.
MOST_TOKENS = 1_000_000_000


class ModelStep:
    def __init__(self, run: TurnRun) -> None:
        self._run = run
        self._conversation: tuple[SessionEvent, ...] | None = None

    def call(self, step: plan.CallModel) -> RunEnd | None:
        """Call the model; None when the turn goes on, be it from here again."""
        run, parts = self._run, self._run.parts
        request = self.request()
        cancel = run.board.begin(run, Doing(Kind.MODEL, "", parts.clock.monotonic()))
        if cancel is None:
            return None
        parts.broadcast.begin(run.session_id, run.leased().turn_id, step.step, step.attempt)
        try:
            reply = parts.agent.provider.reply(
                request, lambda text: parts.broadcast.say(run.session_id, text), cancel
            )
        except Cancelled:
            return self.was_cut(step)
        except NetclawError as error:
            if cancel.is_set():
                return self.was_cut(step)
            redact = parts.agent.redact
            return self._failed(error.slug, redact(error.what), redact(error.remedy))
        except Exception as error:  # noqa: BLE001 - a provider's defect ends its turn, no more
            if cancel.is_set():
                return self.was_cut(step)
            _log.exception("provider met a defect", extra=run.ids())
            return self._failed("internal-error", f"The provider failed ({type(error).__name__}).")
        finally:
            run.board.done(run)
        parts.agent.state.replied(parts.clock.wall())
        self.take_reply(step, reply)
        return None

    def _failed(self, slug: str, what: str, remedy: str = "") -> RunEnd:
        parts = self._run.parts
        parts.agent.state.failed(slug, what, parts.clock.wall(), remedy)
        return self._run.fail(slug, what, remedy)

    def request(self) -> ModelRequest:
        """Return what the model is to be told."""
        agent = self._run.parts.agent
        told = messages(self._history(), self._run.events)
        return ModelRequest(told, agent.system, agent.offered)

    def _history(self) -> tuple[SessionEvent, ...]:
        if self._conversation is None:
            lease = self._run.leased()
            self._conversation = self._run.patiently(
                lambda: self._run.parts.store.conversation(self._run.session_id, lease.turn_id)
            )
        return self._conversation

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
            **({"usage": as_map(usage)} if usage is not None else {}),
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
