"""The provider ``openai``: chat completions, as OpenAI, Ollama, llama.cpp, vLLM and others speak them.

A server that refuses a field is asked again without it, and not sent it any more: ``stream_options``
(older servers), ``max_tokens`` (newer models of OpenAI want ``max_completion_tokens``), and options
that a model doesn't support.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from netclawd.adapters.providers.call import Caller, common_headers, output_limit
from netclawd.adapters.providers.conversation import Replied, Said, arrange
from netclawd.adapters.providers.refusals import GIVEN_UP, read_finish
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

BASE_URL = "https://api.openai.com/v1"

#: Options of a request that are passed on as they are.
_OPTIONS = ("temperature", "top_p", "stop", "tool_choice")
_UNSUPPORTED = ("unsupported_parameter", "unsupported_value")
_STATUS_OF_TYPE = {
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "exceed_context_size_error": 400,
    "authentication_error": 401,
    "not_found_error": 404,
}


class OpenAIProvider(Caller):
    def __init__(self, settings: ProviderSettings, key: str) -> None:
        """Take the settings and the key, empty for none; ConfigMeaningError for one that can't be sent."""
        super().__init__(settings, _Chat(settings, key), key)


class _Chat:
    def __init__(self, settings: ProviderSettings, key: str) -> None:
        base = (settings.base_url or BASE_URL).rstrip("/")
        self.url = f"{base}/chat/completions"
        self.headers = {
            **common_headers(),
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }
        self._settings = settings
        #: The name that the server has for the limit of output; fields that it refuses.
        self._limit_name = "max_completion_tokens" if base == BASE_URL else "max_tokens"
        self._renamed = False
        self._refused: frozenset[str] = frozenset()

    def body(self, request: ModelRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": _messages(request),
            "stream": True,
            "stream_options": {"include_usage": True},
            self._limit_name: output_limit(request, self._settings),
        }
        if request.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": dict(tool.parameters),
                    },
                }
                for tool in request.tools
            ]
        for name in _OPTIONS:
            if name in request.options and (name != "tool_choice" or request.tools):
                body[name] = request.options[name]
        return {name: value for name, value in body.items() if name not in self._refused}

    def reader(self, reply: ReplyUnderWay) -> _ChatReader:
        return _ChatReader(reply)

    def concede(self, body: str) -> None:
        """Do without what the server says that it refuses; see the module."""
        if "context length" in body:
            # It names the limit of output among what is too long.
            return
        if "max_completion_tokens" in body and not self._renamed:
            self._renamed = True
            names = {"max_tokens", "max_completion_tokens"}
            (self._limit_name,) = names - {self._limit_name}
        if "stream_options" in body or "include_usage" in body:
            self._refused |= {"stream_options"}
        if any(code in body for code in _UNSUPPORTED):
            self._refused |= {n for n in ("temperature", "top_p", "stop") if f"'{n}'" in body}


def _messages(request: ModelRequest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if request.system:
        rows.append({"role": "system", "content": request.system})
    for entry in arrange(request.messages):
        match entry:
            case Replied():
                row: dict[str, Any] = {"role": "assistant", "content": entry.text}
                if entry.calls:
                    row["tool_calls"] = [
                        {
                            "id": name,
                            "type": "function",
                            "function": {
                                "name": call.name,
                                "arguments": json.dumps(dict(call.arguments)),
                            },
                        }
                        for name, call in entry.calls
                    ]
                rows.append(row)
            case Said():
                rows += [
                    {"role": "tool", "tool_call_id": name, "content": text}
                    for name, text in entry.results
                ]
                if entry.notes:
                    # Behind an outcome: some servers take no user's message there.
                    rows[-1]["content"] = "\n\n".join((rows[-1]["content"], *entry.notes))
                if entry.texts:
                    rows.append({"role": "user", "content": "\n\n".join(entry.texts)})
    return rows


class _ChatReader:
    def __init__(self, reply: ReplyUnderWay) -> None:
        self._reply = reply
        self._by_index: dict[int, CallDraft] = {}

    def take(self, name: str, data: str) -> None:
        del name
        if data.strip() == "[DONE]":
            self._reply.ended = True
            return
        self._take_frame(read_json(data), data, "delta")

    def take_whole(self, value: Mapping[str, Any]) -> None:
        if "choices" not in value and not value.get("error"):
            raise UnfitError("JSON that is no chat completion")
        self._take_frame(value, json.dumps(value), "message")

    def _take_frame(self, frame: Mapping[str, Any], text: str, part: str) -> None:
        if frame.get("error") or frame.get("object") == "error":
            raise FailedError(_status_of(frame), text)
        usage = frame.get("usage")
        if isinstance(usage, Mapping):
            told, said = tokens(usage, "prompt_tokens"), tokens(usage, "completion_tokens")
            self._reply.usage = Usage(told, said)
        choices = frame.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
            return
        choice = choices[0]
        delta = choice.get(part) or choice.get("message") or choice.get("delta")
        if isinstance(delta, Mapping):
            self._take_delta(delta)
        word = choice.get("finish_reason")
        if isinstance(word, str) and word in GIVEN_UP:
            raise FailedError(500, json.dumps({"error": f"it gave the reply up ({word})"}))
        self._reply.finish = read_finish(word) or self._reply.finish

    def _take_delta(self, delta: Mapping[str, Any]) -> None:
        if any(delta.get(name) for name in ("reasoning_content", "reasoning", "thinking")):
            self._reply.think()
        for name in ("content", "refusal"):
            self._take_content(delta.get(name))
        calls = delta.get("tool_calls")
        for fragment in calls if isinstance(calls, list) else []:
            if isinstance(fragment, Mapping):
                self._take_call(fragment)

    def _take_content(self, content: Any) -> None:
        if isinstance(content, str):
            self._reply.say(content)
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                    self._reply.say(part["text"])
                else:
                    self._reply.think()

    def _take_call(self, fragment: Mapping[str, Any]) -> None:
        function = fragment.get("function")
        function = function if isinstance(function, Mapping) else {}
        call_id, name = string(fragment.get("id")), string(function.get("name"))
        draft = self._find(fragment.get("index"), call_id, name)
        draft.id = draft.id or call_id
        draft.name = draft.name or name
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            arguments = json.dumps(arguments)
        if isinstance(arguments, str):
            self._reply.argue(draft, arguments)

    def _find(self, index: Any, call_id: str, name: str) -> CallDraft:
        """Find the call that a fragment belongs to, or begin one.

        Servers leave out the index, or give all calls the same; leave out the id, or repeat it.
        """
        calls = self._reply.calls
        if isinstance(index, int):
            known = self._by_index.get(index)
        elif call_id:
            known = next((draft for draft in calls if draft.id == call_id), None)
        else:
            known = None if name or not calls else calls[-1]
        if known is not None and not _is_another(known, call_id, name):
            return known
        draft = self._reply.begin_call(call_id, name)
        if isinstance(index, int):
            self._by_index[index] = draft
        return draft


def _is_another(known: CallDraft, call_id: str, name: str) -> bool:
    """Whether a fragment that claims a known call's place begins another one."""
    if call_id and known.id:
        return call_id != known.id
    return bool(name and known.name) and _is_json(known.arguments)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _status_of(frame: Mapping[str, Any]) -> int:
    """Return the status that an error in the midst of a stream would have had as an answer."""
    error = frame.get("error")
    error = error if isinstance(error, Mapping) else frame
    code = error.get("code")
    if isinstance(code, int) and 400 <= code <= 599:
        return code
    for word in (error.get("type"), code):
        if isinstance(word, str) and word in _STATUS_OF_TYPE:
            return _STATUS_OF_TYPE[word]
    return 500
