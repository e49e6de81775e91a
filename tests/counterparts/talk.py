"""What a counterpart answers when nothing is scripted: it does what the newest input asks for.

- ``/count N``: the numbers from 1 to N
- ``/stamps N``: N words, each the monotonic instant at which it was sent
- ``/tool NAME {JSON}``, ``/tools NAME {JSON} ; NAME {JSON}``: calls, then the tools' answers
- ``/think N``: N words of reasoning, then an answer
- anything else is repeated
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from typing import Any

from tests.counterparts.answers import Answer, Call, Piece, Reply
from tests.counterparts.wire import Asked


def answer_by_input(asked: Asked) -> Answer:
    """Answer what the newest input asks for."""
    newest, outcomes = _newest(asked.body["messages"])
    word, _, rest = newest.partition(" ")
    if word in ("/tool", "/tools"):
        if outcomes:
            return Reply("The tools said: " + " | ".join(outcomes))
        return Reply("I call.", tuple(_call(part) for part in rest.split(" ; ")))
    if word in ("/count", "/stamps", "/think") and rest.strip().isdigit():
        number = int(rest)
        if word == "/count":
            return Reply([str(n) if n == 1 else f" {n}" for n in range(1, number + 1)])
        if word == "/stamps":
            pieces: list[Piece] = [functools.partial(_stamp, n) for n in range(number)]
            return Reply(pieces)
        return Reply("I have thought.", reasoning=" ".join(["hm"] * number))
    return Reply(f"You said: {newest}")


def _stamp(number: int) -> str:
    return f"{' ' if number else ''}{time.monotonic():.6f}"


def _call(text: str) -> Call:
    name, _, arguments = text.strip().partition(" ")
    return Call(name, json.loads(arguments) if arguments.strip() else {})


def _newest(messages: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """Return the newest input and what tools have answered since, in either wire format."""
    newest, outcomes = "", []
    for message in messages:
        for kind, text in _parts(message):
            if kind == "outcome":
                outcomes.append(text)
            elif message["role"] == "user" and not text.startswith("[netclawd]"):
                newest, outcomes = text, []
    return newest, outcomes


def _parts(message: dict[str, Any]) -> Iterator[tuple[str, str]]:
    content = message.get("content") or ""
    if message["role"] == "tool":
        yield "outcome", content if isinstance(content, str) else _joined(content)
    elif isinstance(content, str):
        yield "text", content
    else:
        for block in content:
            if block["type"] == "tool_result":
                inner = block.get("content", "")
                yield "outcome", inner if isinstance(inner, str) else _joined(inner)
            elif block["type"] == "text":
                yield "text", block["text"]


def _joined(blocks: list[dict[str, Any]]) -> str:
    return "".join(block.get("text", "") for block in blocks)
