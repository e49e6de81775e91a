"""The provider ``anthropic``: messages, with streaming and tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from netclawd.adapters.providers.call import Caller, common_headers, output_limit
from netclawd.adapters.providers.conversation import Replied, Said, arrange, name_for_servers
from netclawd.adapters.providers.refusals import read_finish
from netclawd.adapters.providers.reply import (
    CallDraft,
    FailedError,
    ReplyUnderWay,
    UnfitError,
    read_json,
    string,
    tokens,
)
from netclawd.core.session import ModelRequest, Usage
from netclawd.core.settings import ProviderSettings

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"

_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


class AnthropicProvider(Caller):
    def __init__(self, settings: ProviderSettings, key: str) -> None:
        """Take the settings and the key, empty for none; ConfigMeaningError for one that can't be sent."""
        super().__init__(settings, _Messages(settings, key), key)


class _Messages:
    def __init__(self, settings: ProviderSettings, key: str) -> None:
        base = (settings.base_url or BASE_URL).rstrip("/").removesuffix("/v1")
        self.url = f"{base}/v1/messages"
        self.headers = {
            **common_headers(),
            "anthropic-version": VERSION,
            **({"x-api-key": key} if key else {}),
        }
        self._settings = settings

    def body(self, request: ModelRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._settings.model,
            "max_tokens": output_limit(request, self._settings),
            "messages": _messages(request),
            "stream": True,
        }
        if request.system.strip():
            body["system"] = request.system
        body |= _tools(request)
        return body | _options(request.options)

    def reader(self, reply: ReplyUnderWay) -> _MessagesReader:
        return _MessagesReader(reply)

    def concede(self, body: str) -> None:
        """There is nothing to do without."""


def _tools(request: ModelRequest) -> dict[str, Any]:
    if request.tools:
        rows = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": dict(tool.parameters),
            }
            for tool in request.tools
        ]
        choice = _tool_choice(request.options.get("tool_choice"))
        return {"tools": rows, **({"tool_choice": choice} if choice else {})}
    # A history with calls is refused unless their tools are named.
    calls = (call for message in request.messages for call in message.calls)
    names = sorted({name_for_servers(call.name) for call in calls})
    if not names:
        return {}
    rows = [{"name": name, "input_schema": {"type": "object"}} for name in names]
    return {"tools": rows, "tool_choice": {"type": "none"}}


def _tool_choice(asked: Any) -> dict[str, str] | None:
    if isinstance(asked, str) and asked in _TOOL_CHOICES:
        return {"type": _TOOL_CHOICES[asked]}
    if isinstance(asked, Mapping) and isinstance(asked.get("function"), Mapping):
        return {"type": "tool", "name": str(asked["function"].get("name", ""))}
    return None


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    temperature = options.get("temperature")
    if isinstance(temperature, int | float):
        # Chat completions go up to 2, messages up to 1.
        taken["temperature"] = min(float(temperature), 1.0)
    elif isinstance(options.get("top_p"), int | float):
        # Newer models refuse both at once.
        taken["top_p"] = options["top_p"]
    stop = options.get("stop")
    words = [stop] if isinstance(stop, str) else stop
    if isinstance(words, list) and (kept := [w for w in words if isinstance(w, str) and w.strip()]):
        taken["stop_sequences"] = kept
    return taken


def _messages(request: ModelRequest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for entry in arrange(request.messages):
        match entry:
            case Replied():
                blocks: list[dict[str, Any]] = []
                if entry.text:
                    # The end of a reply that is to be gone on with may be no space.
                    blocks.append({"type": "text", "text": entry.text.rstrip()})
                blocks += [
                    {
                        "type": "tool_use",
                        "id": name,
                        "name": call.name,
                        "input": dict(call.arguments),
                    }
                    for name, call in entry.calls
                ]
                rows.append({"role": "assistant", "content": blocks})
            case Said():
                blocks = [
                    {"type": "tool_result", "tool_use_id": name, "content": text}
                    for name, text in entry.results
                ]
                said = (*entry.notes, *entry.texts)
                blocks += [{"type": "text", "text": text} for text in said if text.strip()]
                rows.append({"role": "user", "content": blocks})
    return rows


class _MessagesReader:
    def __init__(self, reply: ReplyUnderWay) -> None:
        self._reply = reply
        self._calls: dict[Any, CallDraft] = {}
        self._told = 0

    def take(self, name: str, data: str) -> None:
        event = read_json(data)
        match event.get("type") or name:
            case "message_start":
                self._take_usage(_mapping(_mapping(event.get("message")).get("usage")))
            case "content_block_start":
                self._begin(event.get("index"), _mapping(event.get("content_block")))
            case "content_block_delta":
                self._take_delta(event.get("index"), _mapping(event.get("delta")))
            case "message_delta":
                self._take_finish(_mapping(event.get("delta")).get("stop_reason"))
                self._take_usage(_mapping(event.get("usage")))
            case "message_stop":
                self._reply.ended = True
            case "error":
                raise FailedError(_status_of(event), data)
            # What else there is (ping, content_block_stop, events to come) says nothing but life.

    def take_whole(self, value: Mapping[str, Any]) -> None:
        if value.get("type") == "error" or value.get("error"):
            raise FailedError(_status_of(value), json.dumps(value))
        content = value.get("content")
        if value.get("type") != "message" or not isinstance(content, list):
            raise UnfitError("JSON that is no message")
        for index, block in enumerate(content):
            self._begin(index, _mapping(block))
        self._take_finish(value.get("stop_reason"))
        self._take_usage(_mapping(value.get("usage")))

    def _begin(self, index: Any, block: Mapping[str, Any]) -> None:
        match block.get("type"):
            case "text":
                self._reply.say(string(block.get("text")))
            case "tool_use":
                draft = self._reply.begin_call(string(block.get("id")), string(block.get("name")))
                self._calls[index] = draft
                if whole := _mapping(block.get("input")):
                    self._reply.argue(draft, json.dumps(whole))
            case _:
                self._reply.think()

    def _take_delta(self, index: Any, delta: Mapping[str, Any]) -> None:
        match delta.get("type"):
            case "text_delta":
                self._reply.say(string(delta.get("text")))
            case "input_json_delta" if index in self._calls:
                self._reply.argue(self._calls[index], string(delta.get("partial_json")))
            case _:
                self._reply.think()

    def _take_finish(self, word: Any) -> None:
        self._reply.finish = read_finish(word) or self._reply.finish

    def _take_usage(self, usage: Mapping[str, Any]) -> None:
        if not usage:
            return
        told = tokens(
            usage, "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"
        )
        # The end counts the output only, with some servers all of it again.
        self._told = told or self._told
        self._reply.usage = Usage(self._told, tokens(usage, "output_tokens"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _status_of(event: Mapping[str, Any]) -> int:
    word = _mapping(event.get("error")).get("type")
    return _STATUS_OF_TYPE.get(word, 500) if isinstance(word, str) else 500
