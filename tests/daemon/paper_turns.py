"""The engine on paper: the real one, with its workers moved by hand, one checkpoint at a time.

Of calls that run beside each other one is led one step further each time: to its start, its effect or
its end; which one it is, chance says.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from netclawd.core import turn as plan
from netclawd.core.session import (
    CallContext,
    CallId,
    FinishReason,
    ModelReply,
    ModelRequest,
    RestartId,
    Role,
    SessionId,
    ToolCall,
    ToolOutcome,
    ToolStatus,
)
from netclawd.core.settings import Policy, Settings
from netclawd.core.values import replace
from netclawd.daemon.board import Board, Drain
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.engine import Engine
from netclawd.daemon.tool_step import Batch
from netclawd.daemon.toolbox import GuardedTool
from netclawd.daemon.turn_parts import Agent, Parts, RunEnd
from netclawd.daemon.turn_run import TurnRun
from netclawd.ports import Cancel, Cancelled, Clock, Ids, Store
from tests.daemon.paper_disk import Disk


@dataclass
class PaperTool:
    """A tool with an effect that is counted, and that may be told to stop before or after it."""

    name: str
    disk: Disk
    description = "on paper"
    parameters: ClassVar[Mapping[str, Any]] = MappingProxyType({"type": "object"})
    safe: bool = False
    asks: bool = False
    #: The next call is ended by the drain's deadline.
    cut: bool = False

    def idempotent(self, call: ToolCall) -> bool:
        return self.safe

    def describe(self, call: ToolCall) -> str:
        return "May I?"

    def refusal(self, call: ToolCall) -> str | None:
        return None

    def close(self) -> None:
        return

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:
        self.disk.touch()
        self.disk.effects[call.id] += 1
        self.disk.touch()
        if self.cut:
            self.cut = False
            raise Cancelled
        return ToolOutcome(ToolStatus.OK, "done")


class PaperProvider:
    """A model that asks for the tools which the message names, ``a+b`` at one step, and then answers."""

    def reply(
        self, request: ModelRequest, on_text: Callable[[str], None], cancel: Cancel
    ) -> ModelReply:
        messages = request.messages
        last = max(n for n, message in enumerate(messages) if message.role is Role.USER)
        done = sum(message.role is Role.ASSISTANT for message in messages[last:])
        steps = messages[last].text.split()[1:]
        if done < len(steps):
            calls = tuple(ToolCall(CallId("c"), name, {}) for name in steps[done].split("+"))
            return ModelReply("", calls, FinishReason.TOOLS)
        return ModelReply(f"answer to {messages[last].text}", (), FinishReason.STOP)


class PaperRun(TurnRun):
    """A run that goes from one checkpoint to the next each time it is told to work."""

    _taken = False
    #: The model call that was begun, while it lasts.
    calling: plan.CallModel | None = None
    #: What the drain's deadline does to it.
    cut_call = False
    #: The tool calls that were let begin, and those of them that have: how they will be said to end,
    #: None before their effect.
    batch: Batch | None = None

    def __init__(
        self, parts: Parts, board: Board, session_id: SessionId, chance: random.Random
    ) -> None:
        super().__init__(parts, board, session_id)
        self._chance = chance
        self._begun: dict[CallId, tuple[plan.PlannedCall, ToolOutcome | None]] = {}

    def work(self) -> RunEnd | None:  # type: ignore[override]
        return super().work()

    def _work(self) -> RunEnd | None:  # type: ignore[override]
        if not self._taken:
            end = super()._work()
            self._taken = self._lease is not None
            return end
        if self.calling is not None:
            return self._end_call(self.calling)
        if self.batch is not None:
            self._lead_batch(self.batch)
            return None
        step = plan.plan_from(self.standing, self.parts.agent.tools)
        idle = self.board.drain is None and self.parked_by is None and not self.cancelled_by
        if isinstance(step, plan.CallModel) and idle:
            self.calling = step
            return None
        if isinstance(step, plan.RunTools) and idle:
            self.batch = self._tools.begin(step)
            return None
        return self._advance_once()

    def _advance(self) -> RunEnd | None:  # type: ignore[override]
        return None

    def _lead_batch(self, batch: Batch) -> None:
        """Let one more call begin, or lead one of those that have."""
        which = self._chance.choice([None, *self._begun])
        if which is None and (planned := batch.take()) is not None:
            batch.start(planned)
            self._begun[planned.call.id] = planned, None
            return
        if not self._begun:
            self.batch = None
            self.board.done(self)
            return
        planned, outcome = self._begun[which or next(iter(self._begun))]
        if outcome is None:
            self._begun[planned.call.id] = planned, batch.perform(planned)
            return
        batch.finish(planned.call, outcome)
        del self._begun[planned.call.id]

    def _end_call(self, step: plan.CallModel) -> RunEnd | None:
        """The reply is whole in time, or the call is cancelled."""
        self.calling = None
        over = self.board.drain is not None or self.parked_by or self.cancelled_by
        if over and self.cut_call:
            return self._model.was_cut(step)
        if not over:
            return self._model.call(step)
        said, agent = self._model.request(), self.parts.agent
        self._model.take_reply(step, agent.provider.reply(said, lambda _text: None, self.cancel))
        return None


class PaperEngine(Engine):
    def __init__(
        self,
        disk: Disk,
        store: Store,
        clock: Clock,
        ids: Ids,
        settings: Settings,
        broadcast: Broadcast,
    ) -> None:
        self.tools = {
            tool.name: tool
            for tool in (
                PaperTool("once", disk),
                PaperTool("safe", disk, safe=True),
                PaperTool("ask", disk, asks=True),
            )
        }
        guarded = {
            name: GuardedTool(tool, Policy.ASK if tool.asks else Policy.ALLOW)
            for name, tool in self.tools.items()
        }
        super().__init__(
            store,
            clock,
            ids,
            Agent(PaperProvider(), guarded, approval_timeout_s=settings.approval_timeout_s),
            replace(settings.sessions, workers=0),  # No threads: :meth:`move` is the worker.
            _no_thread,
            broadcast,
        )
        self._most = settings.sessions.workers
        self._chance = disk.chance
        self._runs: list[PaperRun] = []
        self._on_drained: Callable[[], None] | None = None
        #: The drain cancels the model calls that it meets.
        self.cut_calls = False

    def _begin(self, name: str, target: Callable[[], None]) -> None:
        pass

    def move(self) -> bool:
        """Take a session, or lead one run to its next checkpoint; False when there is nothing to do."""
        board = self._board
        if len(self._runs) < self._most and not board.stopping and board._something_to_take():
            run = board.take(lambda session: PaperRun(self._parts, board, session, self._chance))
            assert isinstance(run, PaperRun)
            self._runs.append(run)
            self._lead(run)
            return True
        if self._expiry.expire_due():
            return True
        if self._runs:
            self._runs.append(self._runs.pop(0))
            self._lead(self._runs[-1])
            return True
        if self._on_drained is not None:
            tell, self._on_drained = self._on_drained, None
            tell()
            return True
        return False

    def _lead(self, run: PaperRun) -> None:
        run.cut_call = self.cut_calls
        end = run.work()
        if end is not None:
            self._runs.remove(run)
            self._close(run, end)

    def drain(
        self,
        model_deadline: float,
        tool_deadline: float,
        deadline: float,
        *,
        cause: str,
        restart_id: str,
        on_drained: Callable[[], None],
    ) -> None:
        drain = Drain(model_deadline, tool_deadline, deadline, cause, RestartId(restart_id))
        self._board.set_drain(drain)
        self._resumption.stop_untaken()
        self._on_drained = on_drained

    def cancel_running(self, session_id: SessionId, by: str) -> None:
        """Tell the run of this session, if there is one, that it is cancelled; nobody waits for it."""
        run = self._board.runs.get(session_id)
        if run is not None and run.turn is not None:
            self._board.cancel_run(session_id, run.turn.id, by)

    def stop(self, timeout_s: float) -> None:
        with self._board.cond:
            self._board.stopping = True
            self._board.abandon_runs()
        self._runs, self._on_drained = [], None


def _no_thread(_name: str, _target: Callable[[], None]) -> threading.Thread:
    raise AssertionError("nothing runs by itself on paper")
