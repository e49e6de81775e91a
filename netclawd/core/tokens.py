"""Estimates of tokens, from bytes and on the safe side: what a model server counts is known only later.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from netclawd.core.session import Message, ToolCall, ToolSpec

#: Prose of most languages has more bytes in a token, code and numbers about as many.
BYTES_PER_TOKEN = 3
#: What a message costs besides its text.
MESSAGE_TOKENS = 8


def text_tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def message_tokens(message: Message) -> int:
    """Return what a message takes, its calls included."""
    calls = sum(MESSAGE_TOKENS + text_tokens(c.name + arguments_of(c)) for c in message.calls)
    return MESSAGE_TOKENS + text_tokens(message.text) + calls


def tokens_of(messages: Iterable[Message]) -> int:
    return sum(map(message_tokens, messages))


def fixed_tokens(system: str, tools: Iterable[ToolSpec]) -> int:
    """Return what each request takes besides its messages."""
    specs = (tool.name + tool.description + json.dumps(dict(tool.parameters)) for tool in tools)
    return MESSAGE_TOKENS + text_tokens(system) + sum(map(text_tokens, specs))


def arguments_of(call: ToolCall) -> str:
    """Write the arguments of a call down as a model server does."""
    return json.dumps(dict(call.arguments), ensure_ascii=False)
