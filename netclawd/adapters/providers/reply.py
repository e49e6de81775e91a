"""A reply on its way: text as it comes, calls out of their fragments, and whether it is whole.

Pure. A reply is whole once it has a finish reason or an end marker; without either it is never
made into a :class:`~netclawd.core.session.ModelReply`. Whatever a model writes becomes text that can
be stored: halves of surrogate pairs are joined, or replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from netclawd.core.session import CallId, FinishReason, ModelReply, ToolCall, Usage

#: Characters of a reply at most: its text, and the arguments of its calls.
LIMIT_CHARACTERS = 4 * 1024 * 1024
MOST_CALLS = 128


class UnfitError(Exception):
    """What came is no reply; the text says what it is, to go on with "It answered with …"."""


class FailedError(Exception):
    """The server ended its reply with an error: as if it had answered with this status."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class CallDraft:
    """A call whose fragments are still coming."""

    def __init__(self, call_id: str = "", name: str = "") -> None:
        self.id = call_id
        self.name = name
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    def finish(self) -> ToolCall:
        """Return the call, with what is wrong with its arguments."""
        call_id = CallId(self.id or f"call_{os.urandom(12).hex()}")
        name = _storable(self.name)
        if not name:
            return ToolCall(call_id, name, {}, "The call names no tool.")
        if not (text := self.arguments).strip():
            return ToolCall(call_id, name, {})
        try:
            value = json.loads(text, parse_constant=refuse_constant)
        except (ValueError, RecursionError):
            return ToolCall(call_id, name, {}, "The arguments of the call are not valid JSON.")
        if not isinstance(value, dict):
            return ToolCall(call_id, name, {}, "The arguments of the call are no JSON object.")
        return ToolCall(call_id, name, _storable_value(value))


class ReplyUnderWay:
    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._text: list[str] = []
        self._held = ""
        self._size = 0
        self.calls: list[CallDraft] = []
        #: Something of the model has come: text, thoughts or a call.
        self.begun = False
        self.finish: FinishReason | None = None
        #: The end marker has come.
        self.ended = False
        self.usage: Usage | None = None

    def say(self, text: str) -> None:
        """Take text of the reply."""
        if not text:
            return
        self.begun = True
        self._count(text)
        text = self._held + text
        self._held = ""
        if "\ud800" <= text[-1] <= "\udbff":
            # Its other half comes with the next text.
            self._held = text[-1]
            text = text[:-1]
        self._pass_on(text)

    def think(self) -> None:
        """Take note that the model works on the reply, without a word of it."""
        self.begun = True

    def begin_call(self, call_id: str, name: str) -> CallDraft:
        self.begun = True
        if len(self.calls) >= MOST_CALLS:
            raise UnfitError(f"more than {MOST_CALLS} tool calls")
        draft = CallDraft(call_id, name)
        self.calls.append(draft)
        return draft

    def argue(self, draft: CallDraft, piece: str) -> None:
        """Take a fragment of a call's arguments."""
        self.begun = True
        self._count(piece)
        draft.add(piece)

    @property
    def whole(self) -> bool:
        """Whether all of it has come. A marker behind nothing at all ends no reply."""
        return self.finish is not None or (self.ended and bool(self._text or self.calls))

    def result(self) -> ModelReply:
        """Return the whole reply."""
        assert self.whole
        if self._held:
            held, self._held = self._held, ""
            self._pass_on(held)
        finish = self.finish or FinishReason.STOP
        # Some servers finish a reply that has calls with "stop", and one that has none with "tool_calls".
        if finish in (FinishReason.STOP, FinishReason.TOOLS):
            finish = FinishReason.TOOLS if self.calls else FinishReason.STOP
        calls = tuple(draft.finish() for draft in self.calls)
        return ModelReply("".join(self._text), calls, finish, self.usage)

    def _pass_on(self, text: str) -> None:
        if text:
            text = _storable(text)
            self._text.append(text)
            self._on_text(text)

    def _count(self, text: str) -> None:
        self._size += len(text)
        if self._size > LIMIT_CHARACTERS:
            raise UnfitError(f"a reply of more than {LIMIT_CHARACTERS // 1024 // 1024} MiB")


def tokens(counted: Mapping[str, Any], *names: str) -> int:
    """Return the sum of these counts; what is no count is nothing."""
    values = [counted.get(name) for name in names]
    return sum(v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0)


def string(value: Any) -> str:
    """Return the text; what is no text is none."""
    return value if isinstance(value, str) else ""


def read_json(text: str) -> Mapping[str, Any]:
    """Return the JSON object; UnfitError for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise UnfitError("broken JSON") from None
    if not isinstance(value, dict):
        raise UnfitError("JSON that is no object")
    return value


def refuse_constant(name: str) -> None:
    """Raise ValueError for what Python takes for JSON and nobody else does: NaN and the infinities."""
    raise ValueError(name)


def _storable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _storable_value(value: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(value, ensure_ascii=False)
    clean = _storable(text)
    if clean is text:
        return value
    again: dict[str, Any] = json.loads(clean)
    return again
