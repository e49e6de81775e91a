"""Model calls that a client of the API makes for itself: no session, no event, nothing durable.

Each runs on a thread of its own, and goes on when its client hangs up: so there is a most of them. The
board counts them, so that a drain waits for them as for the model calls of turns: until their deadline,
then they are cut. Nobody can go on with one after a restart, so none begins while the gate is closed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from netclawd.core.session import ModelReply, ModelRequest
from netclawd.daemon.board import Board, CancelFlag
from netclawd.daemon.turn_parts import Begin, Parts
from netclawd.errors import (
    ContextOverflowError,
    CutError,
    DrainingError,
    HungUpError,
    NetclawError,
    ProviderBadReplyError,
    ProviderError,
    ProviderRefusedError,
    TooManyCallsError,
)
from netclawd.ports import CallListener, Cancelled

_log = logging.getLogger(__name__)

#: What is wrong with what the client wants, not with the provider.
_OF_THE_REQUEST = (ProviderRefusedError, ContextOverflowError)


class ModelCall:
    """Implements :class:`netclawd.ports.Call`."""

    def __init__(self, call_id: str, at: float) -> None:
        self.id = call_id
        self.at = at
        self.cancel = CancelFlag()
        self._hung_up = threading.Event()

    def hang_up(self) -> None:
        self._hung_up.set()
        self.cancel.set()

    def cut(self) -> NetclawError:
        """Return what has cancelled it."""
        if self._hung_up.is_set():
            return HungUpError(
                "The client has closed its connection.", "Nothing was lost but the answer."
            )
        return CutError(
            "The daemon restarts or stops, and the model call did not end in time.",
            "Send the request again in a moment.",
        )


class ModelCalls:
    """Every method may be called from any thread."""

    def __init__(self, parts: Parts, board: Board, begin: Begin) -> None:
        self._parts = parts
        self._board = board
        self._begin = begin

    def call(
        self, request: ModelRequest, listener: Callable[[ModelCall], CallListener], most: int
    ) -> ModelCall:
        """Begin a call unless ``most`` run; ``listener`` makes who hears of it.

        DrainingError while the gate is closed.
        """
        call = ModelCall(self._parts.ids.new("c"), self._parts.clock.wall())
        with self._board.cond:  # Two that ask at the same time don't both get the last place.
            if len(self._board.calls) >= most:
                raise TooManyCallsError(
                    f"{most} model calls of clients run, be it that some of these have hung up.",
                    "Try again after Retry-After seconds. X-Netclaw-Cancel-On-Close: 1 ends a call when "
                    "its client hangs up; daemon.max_streams is the limit.",
                )
            opened = self._board.open_call(call)
        if not opened:
            raise DrainingError(
                "The daemon is restarting.", "Send the request again after the time in Retry-After."
            )
        try:
            hears = listener(call)
            self._begin("call", lambda: self._run(call, request, hears))
        except BaseException:
            self._board.close_call(call)
            raise
        return call

    def _run(self, call: ModelCall, request: ModelRequest, hears: CallListener) -> None:
        try:
            found = self._ask(call, request, hears)
            if isinstance(found, ModelReply):
                hears.on_reply(found)
            else:
                hears.on_error(found)
        finally:
            self._board.close_call(call)

    def _ask(
        self, call: ModelCall, request: ModelRequest, hears: CallListener
    ) -> ModelReply | NetclawError:
        agent, wall = self._parts.agent, self._parts.clock.wall
        try:
            reply = agent.provider.reply(request, hears.on_text, call.cancel)
            agent.state.replied(wall())
            return _usable(reply)
        except Cancelled:
            return call.cut()
        except NetclawError as error:
            if call.cancel.is_set():
                return call.cut()
            error.what, error.remedy = agent.redact(error.what), agent.redact(error.remedy)
            if not isinstance(error, _OF_THE_REQUEST):
                agent.state.failed(error.slug, error.what, wall(), error.remedy)
            return error
        except Exception as error:  # noqa: BLE001 - a provider's defect ends its call, no more
            if call.cancel.is_set():
                return call.cut()
            _log.exception("provider met a defect")
            return ProviderError(f"The provider failed ({type(error).__name__}).", "See the log.")


def _usable(reply: ModelReply) -> ModelReply | NetclawError:
    """Return the reply unless a call in it is garbled, which a client would make without arguments."""
    for call in reply.calls:
        if call.invalid:
            return ProviderBadReplyError(
                f"The model called {call.name or 'a tool'}, and the call can't be made: {call.invalid}",
                "Send the request again.",
            )
    return reply
