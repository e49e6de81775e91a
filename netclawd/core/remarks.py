"""How what happens in a session is put into words for who watches it: a line each.

Pure. Arguments and outputs are shortened here; control characters are made visible by who prints, who
knows whether a terminal reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from netclawd.core.session import FinishReason, Usage

#: Longest remark about a tool call, characters, where nobody knows the terminal.
WIDTH = 120
#: A reason may take so many lines: what to do stands at its end.
_REASON_LINES = 4
#: Least room for arguments or an output beside the words around them, characters.
_LEAST = 24

#: What a reply that has an end of its own kind is followed by.
CUT_SHORT: Mapping[str, str] = {
    FinishReason.LENGTH: "the reply ends here because it reached the limit of output: raise "
    "max_output_tokens of its provider, or ask for the rest",
    FinishReason.FILTERED: "the model server withheld the rest of the reply: ask in other words",
}


def shortened(text: str, width: int) -> str:
    """Return the text as one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def arguments(values: Mapping[str, Any]) -> str:
    """Write the arguments of a call: ``command="ls -la", timeout_s=5``."""
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def usage(value: Any) -> Usage | None:
    """Read the tokens of an event, a turn or a session; None where they are not known."""
    if not isinstance(value, Mapping):
        return None
    return Usage(int(value.get("input_tokens", 0)), int(value.get("output_tokens", 0)))


def tokens(used: Usage) -> str:
    """Word tokens: ``1,200 in, 45 out``."""
    return f"{used.input_tokens:,} in, {used.output_tokens:,} out"


def spent(turn: Usage, session: Usage | None) -> str:
    """Word the tokens of a turn, and of its session where they are more."""
    more = f"; the session {tokens(session)}" if session is not None and session != turn else ""
    return f"tokens: {tokens(turn)}{more}"


def call(name: str, place: str, event: Mapping[str, Any], width: int) -> str:
    """Word the start of a call: which tool, with what."""
    again = " again" if event.get("again") else ""
    head = f"runs the tool {name}{place}{again}"
    given = arguments(event.get("arguments") or {})
    return f"{head}: {_rest(given, head, width)}" if given else head


def ending(name: str, place: str, event: Mapping[str, Any], width: int) -> str:
    """Word how a call ended, with the first line of its output, or the reason and more of it."""
    ok = event["status"] == "ok"
    verb = {
        "ok": "is done",
        "error": "failed",
        "interrupted": "was interrupted",
        "denied": "was denied",
    }.get(event["status"], event["status"])
    head = f"the tool {name}{place} {verb}"
    lines = [line for line in str(event.get("text", "")).splitlines() if line.strip()]
    if not lines or event.get("proposal"):  # What was proposed is told by itself.
        return head
    if not ok:
        return f"{head}: {_rest(' '.join(lines), head, width * _REASON_LINES)}"
    if lines[0].startswith("[") and len(lines) > 1:  # What the tool says of it, then the output.
        lines[:2] = [" ".join(lines[:2])]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"{head}: {_rest(lines[0], head + more, width)}{more}"


def _rest(text: str, head: str, width: int) -> str:
    return shortened(text, max(_LEAST, width - len(head) - 2))


def changes(values: Any) -> str:
    """Word settings that were changed: ``daemon.listen = ["127.0.0.1:5200"]``."""
    if not isinstance(values, Mapping) or not values:
        return "the configuration"
    return ", ".join(
        f"{key} back to its default" if value is None else f"{key} = {_value(value)}"
        for key, value in values.items()
    )


def proposal(event: Mapping[str, Any]) -> str:
    """Word a change of the configuration that a call has written."""
    return (
        f"the configuration file has {changes(event['proposal'].get('changes'))}; a restart follows"
    )


_OUTCOMES = {
    "applied": "the configuration is applied",
    "refused": "the configuration was refused, the one before goes on",
    "rolled-back": "the configuration failed and was rolled back",
    "superseded": "the configuration was changed again before it was applied",
    "unknown": "what became of the configuration is not known",
}


def outcome(event: Mapping[str, Any]) -> str:
    """Word what became of a change of the configuration."""
    words = _OUTCOMES.get(event["outcome"], f"the configuration: {event['outcome']}")
    if event.get("changes"):
        words += f" ({changes(event['changes'])})"
    if event["outcome"] == "applied" and event.get("generation"):
        words += f"; generation {event['generation']} serves"
    return _with(_with(words, event.get("reason"), ": "), event.get("remedy"), " ")


def failure(event: Mapping[str, Any]) -> str:
    """Word the failure of a turn, with what to do."""
    return _with(f"the turn failed: {event.get('reason', '')}", event.get("remedy"), " ")


def _with(words: str, more: Any, between: str) -> str:
    return f"{words}{between}{more}" if more else words


def question(event: Mapping[str, Any], place: str, width: int) -> str:
    """Word that a person is asked."""
    name = event.get("name", "")
    about = f" of the tool {name}{place}" if name else ""
    head = f"asks for the approval {event['approval_id']}{about}"
    return f"{head}: {_rest(event['question'], head, width)}"


def decision(event: Mapping[str, Any], name: str) -> str:
    """Word the end of an approval; ``name`` is the tool's, empty where it is not known."""
    state = event["type"].removeprefix("approval.")
    about = f" of the tool {name}" if name else ""
    if state == "expired":
        if not event.get("by"):
            return f"the approval{about} has expired, which denies it"
        return f"the approval{about} is void: {event['by']} has cancelled the turn"
    by = f" by {event['by']}" if event.get("by") else ""
    return f"the approval{about} was {state}{by}"


def summary(event: Mapping[str, Any], width: int) -> str:
    """Word that the oldest part of the conversation was summarised."""
    upto = event.get("upto_seq")
    head = "the model's window is full: what it is told of the conversation"
    head += f" up to event {upto}" if upto else "'s beginning"
    return f"{head} is a summary from here on: {shortened(str(event.get('text', '')), width)}"
