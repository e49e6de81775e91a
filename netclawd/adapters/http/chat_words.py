"""How an answer of chat completions looks on the wire, whole and in chunks.

Pure but for what it asks the daemon of the moment: its generation, and when to come again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from netclawd.adapters.http import openai_error, sse
from netclawd.adapters.http.chat_request import MODEL
from netclawd.adapters.http.openai_error import Failure
from netclawd.core.session import FinishReason, SessionId, ToolCall, Usage
from netclawd.core.values import replace
from netclawd.errors import CutError, NetclawError
from netclawd.ports import Service

_DONE = b"data: [DONE]\n\n"
#: Digits of the completion's id that its calls' ids have: 96 random bits.
_OF_ID = 24


class ChatWords:
    """Implements :class:`netclawd.adapters.http.relay.Words`."""

    def __init__(
        self,
        service: Service,
        answer_id: str,
        created: float,
        *,
        retry_after_s: Callable[[], int],
        include_usage: bool = False,
        session_id: SessionId | None = None,
        may_repeat: bool = False,
    ) -> None:
        self._service = service
        self._id = answer_id
        #: Wall clock, seconds since the epoch.
        self.created = created
        self._retry_after_s = retry_after_s
        self._include_usage = include_usage
        self.session_id = session_id
        #: Whether the same request, sent again, finds the same turn.
        self._may_repeat = may_repeat

    # -- whole -----------------------------------------------------------------------------------

    def whole(
        self, text: str, calls: Sequence[ToolCall], finish: FinishReason, usage: Usage | None
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message["content"] = text or None
            message["tool_calls"] = [self._call(n, call) for n, call in enumerate(calls)]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _finish(calls, finish),
        }
        used = {} if usage is None else {"usage": _usage(usage)}
        return {**self._object("chat.completion"), "choices": [choice], **used}

    # -- in chunks -------------------------------------------------------------------------------

    def head(self) -> bytes:
        named = (
            ()
            if self.session_id is None
            else (f"{openai_error.SESSION_HEADER}: {self.session_id}",)
        )
        first = self._chunk({"role": "assistant", "content": ""})
        return sse.head(self._service.generation(), named) + first

    def text(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def last(self, calls: Sequence[ToolCall], finish: FinishReason, usage: Usage | None) -> bytes:
        """Return the calls, the reason of the end, the tokens if asked for, and the end marker."""
        said = [
            self._chunk({"tool_calls": [{"index": n, **self._call(n, call)}]})
            for n, call in enumerate(calls)
        ]
        said.append(self._chunk({}, _finish(calls, finish)))
        if self._include_usage and usage is not None:
            counted = {**self._object("chat.completion.chunk"), "choices": []}
            said.append(_event({**counted, "usage": _usage(usage)}))
        return b"".join((*said, _DONE))

    def failure(self, error: NetclawError, *, begun: bool) -> bytes:
        failure = self.of_session(openai_error.failure_of(error))
        if begun:
            return _event(openai_error.error_object(failure))
        return openai_error.raw_response(
            failure,
            generation=self._service.generation(),
            retry_after_s=self._retry_after_s(),
        )

    def cut(self) -> NetclawError:
        if self.session_id is None:
            return CutError(
                "The daemon restarts or stops, and the answer was not whole yet.",
                "Send the request again.",
            )
        return CutError(
            f"The daemon restarts or stops; the turn goes on in the session {self.session_id}.",
            "Read the rest of the answer there.",
        )

    def of_session(self, failure: Failure) -> Failure:
        """Return the failure with its session, and whether sending the request again does no harm.

        A client that sends the message again by itself would say it twice.
        """
        if self.session_id is None:
            return failure
        again = self._may_repeat and failure.slug == CutError.slug
        return replace(failure, session_id=self.session_id, again=again)

    # -- inside ----------------------------------------------------------------------------------

    def _object(self, kind: str) -> dict[str, Any]:
        session = {} if self.session_id is None else {"session_id": self.session_id}
        return {
            "id": f"chatcmpl-{self._id}",
            "object": kind,
            "created": int(self.created),
            "model": MODEL,
            **session,
        }

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        used = {"usage": None} if self._include_usage else {}
        return _event({**self._object("chat.completion.chunk"), "choices": [choice], **used})

    def _call(self, number: int, call: ToolCall) -> dict[str, Any]:
        """Return a call under an id of ours: the model server's may come twice in a conversation."""
        return {
            "id": f"call_{self._id[-_OF_ID:]}_{number + 1}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
            },
        }


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + sse.encode(value) + b"\n\n"


def _finish(calls: Sequence[ToolCall], finish: FinishReason) -> str:
    # Some model servers say stop behind their calls.
    return FinishReason.TOOLS.value if calls and finish is FinishReason.STOP else finish.value


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
