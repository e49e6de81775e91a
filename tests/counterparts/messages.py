"""The wire format of Anthropic's messages, as a server writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.counterparts.answers import CUT, Call, Ending, Reply, Status, text_of
from tests.counterparts.wire import Asked, Item, Server, misnamed, paced, tokens


class MessagesServer(Server):
    """A server of messages; ``base_url`` is what precedes /v1/messages."""

    @property
    def base_url(self) -> str:
        return self.root

    def is_call(self, asked: Asked) -> bool:
        return asked.method == "POST" and asked.path.endswith("/v1/messages")

    def key_of(self, asked: Asked) -> str:
        return asked.headers.get("x-api-key", "")

    def error_body(self, error: Status) -> Any:
        return {"type": "error", "error": {"type": error.type, "message": error.message}}

    def models_body(self) -> Any:
        rows = [
            {"type": "model", "id": m, "display_name": m, "created_at": "2025-01-01T00:00:00Z"}
            for m in self.models
        ]
        first, last = (self.models[0], self.models[-1]) if self.models else (None, None)
        return {"data": rows, "has_more": False, "first_id": first, "last_id": last}

    def objection(self, asked: Asked) -> str | None:
        if not asked.headers.get("anthropic-version"):
            return "anthropic-version: header is required"
        return _objection(asked.body)

    def whole(self, reply: Reply, asked: Asked) -> Any:
        content: list[dict[str, Any]] = []
        if reply.reasoning:
            content.append({"type": "thinking", "thinking": reply.reasoning, "signature": "s"})
        if text := "".join(text_of(p) for p in reply.pieces()):
            content.append({"type": "text", "text": text})
        for number, call in enumerate(reply.calls):
            arguments = call.arguments
            if isinstance(arguments, str):
                arguments = json.loads(arguments)
            content.append({**_call_block(number, call), "input": arguments})
        body = _message(asked, content)
        told, said = tokens(reply, asked)
        body["stop_reason"] = _finish(reply)
        if reply.ending in (Ending.NO_FINISH, Ending.NEITHER):
            body["stop_reason"] = None
        body["usage"] = {"input_tokens": told, "output_tokens": said}
        return body

    def stream(self, reply: Reply, asked: Asked, pace_s: float) -> Iterator[Item]:
        told, said = tokens(reply, asked)
        start = _message(asked, [])
        start["usage"] = {"input_tokens": told, "output_tokens": 1}
        yield event({"type": "message_start", "message": start})
        yield event({"type": "ping"})
        index = 0
        if reply.reasoning:
            yield from _thinking(reply, pace_s)
            index += 1
        if reply.text:
            yield _begin(index, {"type": "text", "text": ""})
            for piece in paced(reply, pace_s):
                if isinstance(piece, float):
                    yield piece
                    continue
                if reply.pings:
                    yield event({"type": "ping"})
                yield _delta(index, {"type": "text_delta", "text": text_of(piece)})
            if reply.ending not in (*CUT, Ending.ERROR):
                yield event({"type": "content_block_stop", "index": index})
            index += 1
        if reply.ending in CUT:
            yield reply.ending
            return
        if reply.ending is Ending.ERROR:
            error = {"type": "overloaded_error", "message": "scripted"}
            yield event({"type": "error", "error": error})
            return
        for number, call in enumerate(reply.calls):
            yield from _call_events(index + number, number, call)
        if reply.ending in (Ending.WHOLE, Ending.NO_MARKER):
            delta = {"stop_reason": _finish(reply), "stop_sequence": None}
            yield event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": said}})
        if reply.ending in (Ending.WHOLE, Ending.NO_FINISH):
            yield event({"type": "message_stop"})


def event(data: dict[str, Any]) -> bytes:
    """Write one server-sent event, named by its type."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def _message(asked: Asked, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked.body["model"],
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {},
    }


def _begin(index: int, block: dict[str, Any]) -> bytes:
    return event({"type": "content_block_start", "index": index, "content_block": block})


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return event({"type": "content_block_delta", "index": index, "delta": delta})


def _thinking(reply: Reply, pace_s: float) -> Iterator[Item]:
    yield _begin(0, {"type": "thinking", "thinking": "", "signature": ""})
    for word in reply.reasoning.split():
        yield _delta(0, {"type": "thinking_delta", "thinking": word})
        yield pace_s
    yield _delta(0, {"type": "signature_delta", "signature": "s"})
    yield event({"type": "content_block_stop", "index": 0})


def _call_block(number: int, call: Call) -> dict[str, Any]:
    name = call.id or f"toolu_{number + 1:024d}"
    return {"type": "tool_use", "id": name, "name": call.name, "input": {}}


def _call_events(index: int, number: int, call: Call) -> Iterator[Item]:
    yield _begin(index, _call_block(number, call))
    yield _delta(index, {"type": "input_json_delta", "partial_json": ""})
    # A call without arguments has no fragment at all.
    text = "" if call.arguments == {} else call.text_of(json.dumps)
    for start in range(0, len(text), 5):
        yield _delta(index, {"type": "input_json_delta", "partial_json": text[start : start + 5]})
    yield event({"type": "content_block_stop", "index": index})


def _finish(reply: Reply) -> str:
    return reply.finish or ("tool_use" if reply.calls else "end_turn")


def _objection(body: Any) -> str | None:
    """Say what the real server would refuse."""
    if not isinstance(body, dict) or not body.get("model"):
        return "model: field required"
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        return "max_tokens: field required"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages: at least one message is required"
    if messages[0].get("role") != "user":
        return "messages: first message must use the user role"
    for tool in body.get("tools") or []:
        if misnamed(tool.get("name")) or tool.get("input_schema", {}).get("type") != "object":
            return "tools: a tool needs a name and the input_schema of an object"
    open_calls: list[str] = []
    role = "assistant"
    for place, message in enumerate(messages):
        if message.get("role") not in ("user", "assistant"):
            return f"messages.{place}: unexpected role {message.get('role')!r}"
        if message["role"] == role:
            return f"messages.{place}: roles must alternate"
        role = message["role"]
        if problem := _content_objection(message, open_calls):
            return f"messages.{place}: {problem}"
    return f"tool_use ids without tool_result: {open_calls}" if open_calls else None


def _content_objection(message: Any, open_calls: list[str]) -> str | None:
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        return "content must be non-empty"
    results = [b for b in content if b.get("type") == "tool_result"]
    if content[: len(results)] != results:
        return "tool_result blocks must come first in the content"
    answered = [b.get("tool_use_id") for b in results]
    if sorted(answered) != sorted(open_calls):
        return f"tool_use ids {open_calls} must be answered next, and were answered: {answered}"
    open_calls.clear()
    for block in content:
        if block.get("type") == "text" and not block.get("text", "").strip():
            return "text content blocks must contain non-whitespace text"
        if block.get("type") == "tool_use":
            if message["role"] != "assistant" or not isinstance(block.get("input"), dict):
                return "tool_use: input must be an object, of the assistant"
            if problem := misnamed(block.get("name")):
                return problem
            open_calls.append(block["id"])
    return None
