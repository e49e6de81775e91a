"""The provider ``demo``: an offline agent that streams at a set pace and repeats itself exactly.

What it says next depends on the conversation alone, so that a repeated model call gives the same
reply. It is stateless: the tools that it asked for since the newest input are counted from the
messages.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from netclawd.core.session import (
    CallId,
    FinishReason,
    Message,
    ModelReply,
    ModelRequest,
    Role,
    ToolCall,
)
from netclawd.errors import ProviderError
from netclawd.ports import Cancel, Cancelled

MOST_NUMBERS = 100_000
MOST_LINES = 1_000
MOST_SECONDS = 3_600.0

_USAGE = {
    "/count": f"/count N [SECONDS]: N from 1 to {MOST_NUMBERS}, SECONDS up to {MOST_SECONDS:.0f}.",
    "/ledger": f"/ledger N [SECONDS] [idempotent]: N from 1 to {MOST_LINES}, SECONDS up to "
    f"{MOST_SECONDS:.0f}.",
}
_HELP = (
    "I am the demo agent: I work offline and always answer the same way. Try:\n"
    "  /count N [SECONDS]                count from 1 to N, one number every SECONDS\n"
    "  /clock                            look at the clock with a tool\n"
    "  /ledger N [SECONDS] [idempotent]  N times, let a tool write a line that takes SECONDS\n"
    "  /ask [QUESTION]                   wait until a person grants or denies\n"
    "  /fail                             fail\n"
)


class DemoProvider:
    """Streams one word every ``word_interval_s`` seconds."""

    def __init__(self, word_interval_s: float, api_key: str | None = None) -> None:
        self._interval_s = word_interval_s
        self._has_key = bool(api_key)

    def reply(
        self, request: ModelRequest, on_text: Callable[[str], None], cancel: Cancel
    ) -> ModelReply:
        asked, outcomes = _since_newest_input(request.messages)
        command, *arguments = asked.split() or [""]
        match command:
            case "/count":
                return self._count(arguments, on_text, cancel)
            case "/clock":
                if not outcomes:
                    return self._call("I look at the clock.", "clock", {}, on_text, cancel)
                return self._say(f"The clock tool says: {outcomes[-1]}", on_text, cancel)
            case "/ledger":
                return self._ledger(arguments, outcomes, on_text, cancel)
            case "/ask":
                return self._ask(asked, outcomes, on_text, cancel)
            case "/fail":
                raise ProviderError(
                    "The demo agent failed because it was asked to.", "Ask it something else."
                )
        return self._say(self._help(), on_text, cancel)

    def _count(
        self, arguments: Sequence[str], on_text: Callable[[str], None], cancel: Cancel
    ) -> ModelReply:
        parsed = _parse(arguments, MOST_NUMBERS, self._interval_s)
        if parsed is None:
            return self._say(_USAGE["/count"], on_text, cancel)
        numbers, seconds = parsed
        words = (str(n) if n == 1 else f" {n}" for n in range(1, numbers + 1))
        return self._stream(words, seconds, on_text, cancel)

    def _ledger(
        self,
        arguments: Sequence[str],
        outcomes: Sequence[str],
        on_text: Callable[[str], None],
        cancel: Cancel,
    ) -> ModelReply:
        idempotent = arguments[-1:] == ["idempotent"]
        parsed = _parse(arguments[:-1] if idempotent else arguments, MOST_LINES, 0.0)
        if parsed is None:
            return self._say(_USAGE["/ledger"], on_text, cancel)
        lines, seconds = parsed
        if len(outcomes) < lines:
            text = f"Line {len(outcomes) + 1} of {lines}."
            values = {"seconds": seconds, "idempotent": idempotent}
            return self._call(text, "ledger", values, on_text, cancel)
        counts = Counter(_word_for(outcome) for outcome in outcomes)
        summary = ", ".join(f"{n} {word}" for word, n in sorted(counts.items()))
        return self._say(f"The ledger is done: {summary}.", on_text, cancel)

    def _ask(
        self,
        asked: str,
        outcomes: Sequence[str],
        on_text: Callable[[str], None],
        cancel: Cancel,
    ) -> ModelReply:
        if not outcomes:
            question = asked.removeprefix("/ask").strip() or "May the demo agent go on?"
            values = {"question": question}
            return self._call("I ask a person first.", "confirm", values, on_text, cancel)
        return self._say(f"The answer is here: {outcomes[-1]}", on_text, cancel)

    def _help(self) -> str:
        key = "An api key has reached me." if self._has_key else "I have no api key and need none."
        return _HELP + key

    def _say(self, text: str, on_text: Callable[[str], None], cancel: Cancel) -> ModelReply:
        return self._stream(_words(text), self._interval_s, on_text, cancel)

    def _call(
        self,
        text: str,
        tool: str,
        arguments: dict[str, Any],
        on_text: Callable[[str], None],
        cancel: Cancel,
    ) -> ModelReply:
        said = self._say(text, on_text, cancel)
        # The engine gives calls their lasting identity.
        call = ToolCall(CallId("call-1"), tool, arguments)
        return ModelReply(said.text, (call,), FinishReason.TOOLS)

    def _stream(
        self,
        words: Iterable[str],
        interval_s: float,
        on_text: Callable[[str], None],
        cancel: Cancel,
    ) -> ModelReply:
        said: list[str] = []
        for word in words:
            if cancel.wait(interval_s if said else 0.0):
                raise Cancelled
            on_text(word)
            said.append(word)
        return ModelReply("".join(said), (), FinishReason.STOP)


def _since_newest_input(messages: Sequence[Message]) -> tuple[str, list[str]]:
    """Return the newest input and what tools have answered since."""
    newest = max((n for n, m in enumerate(messages) if m.role is Role.USER), default=-1)
    asked = messages[newest].text if newest >= 0 else ""
    return asked, [m.text for m in messages[newest + 1 :] if m.role is Role.TOOL]


def _parse(arguments: Sequence[str], most: int, seconds: float) -> tuple[int, float] | None:
    """Read ``N [SECONDS]``; None when it is something else or out of bounds."""
    if not 1 <= len(arguments) <= 2:
        return None
    try:
        number = int(arguments[0])
        seconds = float(arguments[1]) if len(arguments) == 2 else seconds
    except ValueError:
        return None
    sound = 1 <= number <= most and math.isfinite(seconds) and 0 <= seconds <= MOST_SECONDS
    return (number, seconds) if sound else None


def _word_for(outcome: str) -> str:
    """Name an outcome by the word that the transcript puts before all but successes."""
    if outcome.startswith("[") and "]" in outcome:
        return outcome[1 : outcome.index("]")]
    return "written"


def _words(text: str) -> Iterator[str]:
    """Split so that the parts joined are the text: each word with the white space before it."""
    start = 0
    for before, (place, char) in itertools.pairwise(enumerate(text)):
        if char.isspace() and not before[1].isspace():
            yield text[start:place]
            start = place
    if start < len(text):
        yield text[start:]
