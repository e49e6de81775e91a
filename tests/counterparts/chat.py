"""The wire format of chat completions, as a server writes it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tests.counterparts.answers import CUT, Call, CallStyle, Ending, Reply, Status, text_of
from tests.counterparts.wire import Asked, Item, Server, misnamed, paced, tokens


class ChatServer(Server):
    """A server of chat completions; ``base_url`` ends with /v1."""

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    def is_call(self, asked: Asked) -> bool:
        return asked.method == "POST" and asked.path.endswith("/chat/completions")

    def key_of(self, asked: Asked) -> str:
        return asked.headers.get("authorization", "").removeprefix("Bearer ")

    def error_body(self, error: Status) -> Any:
        return {"error": {"message": error.message, "type": error.type, "code": error.code}}

    def models_body(self) -> Any:
        rows = [
            {"id": m, "object": "model", "created": 0, "owned_by": "tests"} for m in self.models
        ]
        return {"object": "list", "data": rows}

    def objection(self, asked: Asked) -> str | None:
        return _objection(asked.body)

    def whole(self, reply: Reply, asked: Asked) -> Any:
        text = "".join(text_of(p) for p in reply.pieces())
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        if reply.calls:
            message["tool_calls"] = [_whole_call(reply, n, c) for n, c in enumerate(reply.calls)]
        choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
        if reply.ending in (Ending.NO_FINISH, Ending.NEITHER):
            choice["finish_reason"] = None
        body = _frame("chat.completion", asked, choice)
        body["usage"] = _usage(reply, asked)
        return body

    def stream(self, reply: Reply, asked: Asked, pace_s: float) -> Iterator[Item]:
        def event(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return sse(_frame("chat.completion.chunk", asked, choice))

        yield event({"role": "assistant", "content": ""})
        for word in reply.reasoning.split():
            yield event({"reasoning_content": word})
            yield pace_s
        for piece in paced(reply, pace_s):
            if isinstance(piece, float):
                yield piece
                continue
            if reply.pings:
                yield b": ping\n\n"
            yield event({"content": text_of(piece)})
        if reply.ending in CUT:
            yield reply.ending
            return
        if reply.ending is Ending.ERROR:
            yield sse({"error": {"message": "scripted", "type": "server_error", "code": None}})
            return
        for delta in _call_deltas(reply):
            yield event({"tool_calls": [delta]})
        if reply.ending in (Ending.WHOLE, Ending.NO_MARKER):
            yield event({}, _finish(reply))
        options = asked.body.get("stream_options")
        if options and options.get("include_usage") and reply.ending is not Ending.NEITHER:
            frame = _frame("chat.completion.chunk", asked, None)
            yield sse({**frame, "usage": _usage(reply, asked)})
        if reply.ending in (Ending.WHOLE, Ending.NO_FINISH):
            yield b"data: [DONE]\n\n"


def sse(data: Any) -> bytes:
    """Write one server-sent event without a name."""
    return f"data: {json.dumps(data)}\n\n".encode()


def _frame(kind: str, asked: Asked, choice: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": kind,
        "created": int(time.time()),
        "model": asked.body.get("model", ""),
        "choices": [] if choice is None else [choice],
    }


def _finish(reply: Reply) -> str:
    return reply.finish or ("tool_calls" if reply.calls else "stop")


def _usage(reply: Reply, asked: Asked) -> dict[str, int]:
    told, said = tokens(reply, asked)
    return {"prompt_tokens": told, "completion_tokens": said, "total_tokens": told + said}


def _call_id(number: int, call: Call) -> str:
    return call.id or f"call_{number + 1:021d}"


def _whole_call(reply: Reply, number: int, call: Call) -> dict[str, Any]:
    arguments: Any = call.text_of(json.dumps)
    if reply.style is CallStyle.OBJECT:
        arguments = call.arguments
    function = {"name": call.name, "arguments": arguments}
    row: dict[str, Any] = {"id": _call_id(number, call), "type": "function", "function": function}
    if reply.style is CallStyle.NO_ID:
        del row["id"]
    return row


def _call_deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    if reply.style is CallStyle.FRAGMENTS:
        yield from _fragments(reply)
        return
    for number, call in enumerate(reply.calls):
        index = {"index": 0 if reply.style is CallStyle.SAME_INDEX else number}
        if reply.style is CallStyle.NO_INDEX:
            index = {}
        yield {**index, **_whole_call(reply, number, call)}


def _fragments(reply: Reply) -> Iterator[dict[str, Any]]:
    for number, call in enumerate(reply.calls):
        function = {"name": call.name, "arguments": ""}
        yield {
            "index": number,
            "id": _call_id(number, call),
            "type": "function",
            "function": function,
        }
    texts = [call.text_of(json.dumps) for call in reply.calls]
    for start in range(0, max(map(len, texts), default=0), 5):
        for number, text in enumerate(texts):
            if start < len(text):
                yield {"index": number, "function": {"arguments": text[start : start + 5]}}


def _objection(body: Any) -> str | None:
    """Say what a careful server would refuse."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str) or not body["model"]:
        return "'model' is missing"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "'messages' is empty"
    for tool in body.get("tools") or []:
        function = tool.get("function") or {}
        if tool.get("type") != "function" or misnamed(function.get("name")):
            return "a tool is no function with a name"
    if "tools" in body and not body["tools"]:
        return "'tools' is an empty array"
    open_calls: list[str] = []
    for place, message in enumerate(messages):
        if problem := _message_objection(message, open_calls):
            return f"messages[{place}]: {problem}"
    return f"calls without an answer: {open_calls}" if open_calls else None


def _message_objection(message: Any, open_calls: list[str]) -> str | None:
    role = message.get("role")
    if role == "tool":
        if message.get("tool_call_id") not in open_calls:
            return "a tool message must answer a call of the reply before it"
        open_calls.remove(message["tool_call_id"])
        return None if isinstance(message.get("content"), str) else "a tool message needs content"
    if open_calls:
        return f"calls must be answered right behind their reply: {open_calls}"
    if role == "assistant":
        calls = message.get("tool_calls")
        if calls is not None and not calls:
            return "'tool_calls' is an empty array"
        for call in calls or []:
            if problem := misnamed(call["function"]["name"]):
                return problem
            if not isinstance(json.loads(call["function"]["arguments"]), dict):
                return "the arguments of a call are no JSON object"
            open_calls.append(call["id"])
        return None if calls or message.get("content") else "an assistant message says nothing"
    if role not in ("system", "developer", "user"):
        return f"unknown role {role!r}"
    return None if isinstance(message.get("content"), str | list) else "no content"
