"""The provider ``demo``: an offline agent that streams at a set pace and repeats itself exactly.

What it says next depends on the conversation alone, so that a repeated model call gives the same
reply. It is stateless: the tools that it asked for since the newest input are counted from the
messages. Its tokens are words.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from netclawd.adapters.providers.reply import refuse_constant
from netclawd.core.session import (
    CallId,
    FinishReason,
    Message,
    ModelReply,
    ModelRequest,
    Role,
    ToolCall,
    Usage,
)
from netclawd.core.values import replace
from netclawd.core.window import asks_for_summary
from netclawd.errors import ProviderError
from netclawd.ports import Cancel, Cancelled

MOST_NUMBERS = 100_000
MOST_LINES = 1_000
MOST_SECONDS = 3_600.0

_USAGE = {
    "/count": f"/count N [SECONDS]: N from 1 to {MOST_NUMBERS}, SECONDS up to {MOST_SECONDS:.0f}.",
    "/ledger": f"/ledger N [SECONDS] [idempotent]: N from 1 to {MOST_LINES}, SECONDS up to "
    f"{MOST_SECONDS:.0f}.",
    "/tool": "/tool NAME {JSON}: {JSON} is an object with the arguments, or is left out.",
    "/tools": "/tools NAME {JSON} ; NAME {JSON}: several calls in one reply.",
    "/each": "/each NAME {JSON} ; NAME {JSON}: several calls, one after the other.",
}
_HELP = (
    "I am the demo agent: I work offline and always answer the same way. Try:\n"
    "  /count N [SECONDS]                count from 1 to N, one number every SECONDS\n"
    "  /clock                            look at the clock with a tool\n"
    "  /ledger N [SECONDS] [idempotent]  N times, let a tool write a line that takes SECONDS\n"
    "  /ask [QUESTION]                   wait until a person grants or denies\n"
    "  /tool NAME {JSON}                 call any tool that I am offered, with these arguments\n"
    "  /tools NAME {JSON} ; NAME {JSON}  call several in one reply\n"
    "  /each NAME {JSON} ; NAME {JSON}   call several, one after the other\n"
    "  /fail                             fail\n"
)

#: What the daemon says of a change of its configuration has these words.
_CHANGE = "Your change of the configuration"
_NAME = re.compile(r"\s*(?P<name>[^\s;{]+)\s*")


_JSON = json.JSONDecoder(parse_constant=refuse_constant)

#: Name and arguments of a tool to call.
_Wanted = tuple[str, dict[str, Any]]


class DemoProvider:
    """Streams one word every ``word_interval_s`` seconds."""

    def __init__(self, word_interval_s: float, api_key: str | None = None) -> None:
        self._interval_s = word_interval_s
        self._has_key = bool(api_key)

    def reply(
        self, request: ModelRequest, on_text: Callable[[str], None], cancel: Cancel
    ) -> ModelReply:
        said = _Answer(self._interval_s, self._has_key, request, on_text, cancel).make()
        return replace(said, usage=_count_words(request, said))


class _Answer:
    """One reply in the making."""

    def __init__(
        self,
        interval_s: float,
        has_key: bool,
        request: ModelRequest,
        on_text: Callable[[str], None],
        cancel: Cancel,
    ) -> None:
        self._interval_s = interval_s
        self._has_key = has_key
        self._offered = [spec.name for spec in request.tools]
        asked, since = _since_newest_input(request.messages)
        #: A reminder asks for what its text says.
        self._asked = asked.removeprefix("Reminder: ")
        #: What tools have answered, and what the daemon has said about changes of its configuration.
        self._outcomes = [m.text for m in since if m.role is Role.TOOL]
        self._notes = [m.text for m in since if m.role is Role.SYSTEM and _CHANGE in m.text]
        self._condense = asks_for_summary(request)
        self._on_text = on_text
        self._cancel = cancel

    def make(self) -> ModelReply:
        command, *arguments = self._asked.split() or [""]
        if self._condense:
            first = " ".join(self._asked.split()[:30])
            return self._say(f"It had {len(arguments) + 1} words and began so: {first}")
        match command:
            case "/count":
                return self._count(arguments)
            case "/clock":
                if not self._outcomes:
                    return self._call("I look at the clock.", ("clock", {}))
                return self._say(f"The clock tool says: {self._outcomes[-1]}")
            case "/ledger":
                return self._ledger(arguments)
            case "/ask":
                return self._ask()
            case "/tool" | "/tools" | "/each":
                return self._use(command)
            case "/fail":
                raise ProviderError(
                    "The demo agent failed because it was asked to.", "Ask it something else."
                )
        return self._say(self._help())

    def _count(self, arguments: Sequence[str]) -> ModelReply:
        parsed = _parse(arguments, MOST_NUMBERS, self._interval_s)
        if parsed is None:
            return self._say(_USAGE["/count"])
        numbers, seconds = parsed
        words = (str(n) if n == 1 else f" {n}" for n in range(1, numbers + 1))
        return self._stream(words, seconds)

    def _ledger(self, arguments: Sequence[str]) -> ModelReply:
        idempotent = arguments[-1:] == ["idempotent"]
        parsed = _parse(arguments[:-1] if idempotent else arguments, MOST_LINES, 0.0)
        if parsed is None:
            return self._say(_USAGE["/ledger"])
        lines, seconds = parsed
        if (written := len(self._outcomes)) < lines:
            values = {"seconds": seconds, "idempotent": idempotent}
            return self._call(f"Line {written + 1} of {lines}.", ("ledger", values))
        counts = Counter(_word_for(outcome) for outcome in self._outcomes)
        summary = ", ".join(f"{n} {word}" for word, n in sorted(counts.items()))
        return self._say(f"The ledger is done: {summary}.")

    def _ask(self) -> ModelReply:
        if self._outcomes:
            return self._say(f"The answer is here: {self._outcomes[-1]}")
        question = self._asked.strip().removeprefix("/ask").strip() or "May the demo agent go on?"
        return self._call("I ask a person first.", ("confirm", {"question": question}))

    def _use(self, command: str) -> ModelReply:
        """Make the calls that the input names, in one reply or each in its own; then say what came of it."""
        wanted = _parse_calls(self._asked.strip().removeprefix(command))
        if not wanted or (command == "/tool" and len(wanted) > 1):
            return self._say(_USAGE[command])
        done = len(self._outcomes)
        if command == "/each" and done < len(wanted):
            return self._call(f"I call {wanted[done][0]}.", wanted[done])
        if done:
            lines = ["The tools say:", *self._outcomes]
            lines += ["The daemon says:", *self._notes] if self._notes else []
            return self._say("\n".join(lines))
        return self._call(f"I call {', '.join(name for name, _ in wanted)}.", *wanted)

    def _help(self) -> str:
        key = "An api key has reached me." if self._has_key else "I have no api key and need none."
        return _HELP + key

    def _say(self, text: str) -> ModelReply:
        return self._stream(_words(text), self._interval_s)

    def _call(self, text: str, *wanted: _Wanted) -> ModelReply:
        """Say something and ask for these calls, or say that a tool is not offered."""
        missing = next((name for name, _ in wanted if name not in self._offered), None)
        if missing is not None:
            there = ", ".join(self._offered) or "none at all"
            return self._say(f"I am offered no tool {missing}; I am offered: {there}.")
        said = self._say(text)
        # The engine gives calls their lasting identity.
        calls = tuple(
            ToolCall(CallId(f"call-{number}"), name, arguments)
            for number, (name, arguments) in enumerate(wanted, 1)
        )
        return ModelReply(said.text, calls, FinishReason.TOOLS)

    def _stream(self, words: Iterable[str], interval_s: float) -> ModelReply:
        said: list[str] = []
        for word in words:
            if self._cancel.wait(interval_s if said else 0.0):
                raise Cancelled
            self._on_text(word)
            said.append(word)
        return ModelReply("".join(said), (), FinishReason.STOP)


def _since_newest_input(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """Return the newest input and what came since."""
    newest = max((n for n, m in enumerate(messages) if m.role is Role.USER), default=-1)
    return messages[newest].text if newest >= 0 else "", messages[newest + 1 :]


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


def _parse_calls(text: str) -> list[_Wanted]:
    """Read ``NAME {JSON} ; NAME {JSON}``; empty when it is something else."""
    calls: list[_Wanted] = []
    while True:
        found = _NAME.match(text)
        if found is None:
            return []
        name, text = found["name"], text[found.end() :]
        values: Any = {}
        if text.startswith("{"):
            try:
                values, end = _JSON.raw_decode(text)
            except (ValueError, RecursionError):
                return []
            text = text[end:].lstrip()
        calls.append((name, values))
        if not text:
            return calls
        if not text.startswith(";"):
            return []
        text = text[1:]


def _count_words(request: ModelRequest, said: ModelReply) -> Usage:
    """Return the tokens of a call, as this provider counts them."""
    told = sum(len(message.text.split()) for message in request.messages)
    return Usage(told + len(request.system.split()), len(said.text.split()))


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
