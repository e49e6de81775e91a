"""What a client of chat completions says, checked and turned into what a model is told: pure.

Clients send more than is used here; what isn't known is passed over. What can't be honoured is refused with
the place where it stands (``messages[2].content[0]``), which :class:`InvalidError` carries as the API's
``param``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from netclawd.core.session import (
    CallId,
    Message,
    ModelRequest,
    Role,
    ToolCall,
    ToolSpec,
)
from netclawd.core.values import frozen
from netclawd.errors import BadRequestError, NetclawError

#: The one model that there is.
MODEL = "netclaw"
MAX_USER_LENGTH = 255
_MAX_STOPS = 16
#: OpenAI's rule for the names of functions, with a longer name allowed, and with the dots that some send.
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


class InvalidError(BadRequestError):
    """A member of the request can't be used."""

    def __init__(self, what: str, remedy: str, param: str) -> None:
        super().__init__(what, remedy)
        self.param = param


class ModelNotFoundError(NetclawError):
    """The request names another model."""

    slug = "model-not-found"
    status = 404
    param = "model"


@frozen
class Chat:
    """What both kinds of conversation take from a request."""

    stream: bool
    include_usage: bool
    #: The client's name for a durable session, empty for none.
    user: str


def read_chat(body: Mapping[str, Any]) -> Chat:
    """Read what is asked for, and refuse what can't be had."""
    model = body.get("model", MODEL)
    if not isinstance(model, str):
        raise InvalidError("model is not a string.", f'Ask for "{MODEL}".', "model")
    judge_model(model)
    number = body.get("n")
    if number not in (None, 1) or isinstance(number, bool):
        raise InvalidError("n is not 1.", "Ask for one choice, as often as you like.", "n")
    for name in ("functions", "function_call"):
        if body.get(name):
            raise InvalidError(f"{name} is not known here.", "Use tools and tool_choice.", name)
    wanted = body.get("modalities")
    if isinstance(wanted, list) and any(kind != "text" for kind in wanted):
        raise InvalidError("There is nothing here but text.", "Ask for text.", "modalities")
    form = body.get("response_format")
    kind = form.get("type", "text") if isinstance(form, dict) else "text"
    if kind != "text":
        raise InvalidError(
            "The form of the answer can't be enforced.",
            "Leave response_format out, and ask for the form in a message.",
            "response_format",
        )
    return Chat(
        _flag(body, "stream", "stream"),
        _flag(body.get("stream_options") or {}, "include_usage", "stream_options.include_usage"),
        _user(body),
    )


def judge_model(model: str) -> None:
    if model != MODEL:
        raise ModelNotFoundError(
            "There is no model of that name.", f'Ask for "{MODEL}"; GET /v1/models lists it.'
        )


def _flag(values: Any, name: str, param: str) -> bool:
    value = values.get(name) if isinstance(values, dict) else values
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidError(f"{param} is not true or false.", "Correct it or leave it out.", param)


def _user(body: Mapping[str, Any]) -> str:
    user = body.get("user")
    if user is None:
        return ""
    if not isinstance(user, str) or len(user) > MAX_USER_LENGTH or not _sound(user):
        raise InvalidError(
            f"user is not a string of at most {MAX_USER_LENGTH} characters.",
            "Correct it; with one, the conversation is a durable session of that name.",
            "user",
        )
    return user


def last_words(body: Mapping[str, Any]) -> str:
    """Return the text of the last user message: all that a durable session takes."""
    messages = _messages(body)
    for index in range(len(messages) - 1, -1, -1):
        place = f"messages[{index}]"
        message = _object(messages[index], place)
        if message.get("role") == "tool":
            raise InvalidError(
                f"{place} answers a tool call, and a durable session runs the daemon's own tools.",
                "Send a user message, or leave user and X-Netclaw-Session out.",
                place,
            )
        if message.get("role") == "user":
            text = _content(message, place, needed=True)
            if not text.strip():
                raise InvalidError(f"{place} says nothing.", "Send a text.", place)
            return text
    raise InvalidError("There is no user message.", "Send one; it is what is answered.", "messages")


def to_model_request(body: Mapping[str, Any]) -> ModelRequest:
    """Return the model call that the request asks for."""
    system: list[str] = []
    told: list[Message] = []
    asked: set[str] = set()
    for index, item in enumerate(_messages(body)):
        place = f"messages[{index}]"
        message = _object(item, place)
        match message.get("role"):
            case "system" | "developer":
                text = _content(message, place, needed=True)
                if told:
                    told.append(Message(Role.SYSTEM, text))
                else:
                    system.append(text)
            case "user":
                told.append(Message(Role.USER, _content(message, place, needed=True)))
            case "assistant":
                told.append(_assistant(message, place))
                asked.update(call.id for call in told[-1].calls)
            case "tool":
                told.append(_outcome(message, place, asked))
            case _:
                raise InvalidError(
                    f"The role of {place} is none of system, developer, user, assistant, tool.",
                    "Correct it.",
                    f"{place}.role",
                )
    if not told:
        raise InvalidError("There is nothing to answer.", "Send a user message.", "messages")
    return ModelRequest(tuple(told), "\n\n".join(system), _tools(body), _options(body))


# -- messages ------------------------------------------------------------------------------------


def _messages(body: Mapping[str, Any]) -> Sequence[Any]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidError("messages is not a list of messages.", "Send at least one.", "messages")
    return messages


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidError(f"{place} is not an object.", "Correct it.", place)
    return value


def _content(message: Mapping[str, Any], place: str, *, needed: bool) -> str:
    """Return the text of a message, of which the parts are joined."""
    content, place = message.get("content"), f"{place}.content"
    if content is None and not needed:
        return ""
    if isinstance(content, str):
        return _text(content, place)
    if not isinstance(content, list):
        raise InvalidError(f"{place} is not a text.", "Send a string, or text parts.", place)
    return "".join(_part(part, f"{place}[{n}]") for n, part in enumerate(content))


def _part(value: Any, place: str) -> str:
    part = _object(value, place)
    kind = part.get("type")
    text = part.get("refusal" if kind == "refusal" else "text")
    if kind not in ("text", "refusal"):
        raise InvalidError(
            f"{place} is not a text part: images, sound and files can't be taken.",
            "Send text.",
            place,
        )
    if not isinstance(text, str):
        raise InvalidError(f"{place} has no text.", "Correct it.", place)
    return _text(text, place)


def _text(text: str, place: str) -> str:
    if not _sound(text):
        raise InvalidError(
            f"{place} has half of a surrogate pair.", "Send text that UTF-8 can hold.", place
        )
    return text


def _sound(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _assistant(message: Mapping[str, Any], place: str) -> Message:
    if message.get("function_call"):
        raise InvalidError(
            f"{place}.function_call is not known here.", "Use tool_calls.", f"{place}.function_call"
        )
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        where = f"{place}.tool_calls"
        raise InvalidError(f"{where} is not a list.", "Correct it.", where)
    made = tuple(_call(call, f"{place}.tool_calls[{n}]") for n, call in enumerate(calls))
    if len({call.id for call in made}) < len(made):
        raise InvalidError(
            f"Two calls of {place} have one id.", "Give each its own.", f"{place}.tool_calls"
        )
    return Message(Role.ASSISTANT, _content(message, place, needed=not made), made)


def _call(value: Any, place: str) -> ToolCall:
    call = _object(value, place)
    function = _object(call.get("function"), f"{place}.function")
    call_id, name, written = call.get("id"), function.get("name"), function.get("arguments")
    if not isinstance(call_id, str) or not call_id:
        raise InvalidError(f"{place} has no id.", "Send the call as it was returned.", place)
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise InvalidError(f"{place} names no function.", "Correct it.", f"{place}.function.name")
    where = f"{place}.function.arguments"
    if not isinstance(written, str):
        raise InvalidError(f"{where} is not a string.", "Send JSON in a string.", where)
    try:
        arguments = json.loads(_text(written, where) or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        # What a model has said badly is part of the conversation all the same.
        return ToolCall(CallId(call_id), name, {}, invalid="The arguments are no JSON object.")
    return ToolCall(CallId(call_id), name, arguments)


def _outcome(message: Mapping[str, Any], place: str, asked: set[str]) -> Message:
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str) or call_id not in asked:
        raise InvalidError(
            f"{place} answers a tool call that no message before it has made.",
            "Send the assistant message with that call too.",
            f"{place}.tool_call_id",
        )
    return Message(Role.TOOL, _content(message, place, needed=True), call_id=CallId(call_id))


# -- tools and options ---------------------------------------------------------------------------


def _tools(body: Mapping[str, Any]) -> tuple[ToolSpec, ...]:
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise InvalidError("tools is not a list.", "Correct it or leave it out.", "tools")
    specs = tuple(_tool(tool, f"tools[{n}]") for n, tool in enumerate(tools))
    names = [spec.name for spec in specs]
    for index, name in enumerate(names):
        if name in names[:index]:
            place = f"tools[{index}]"
            raise InvalidError(f"{place} has the name of one before it.", "Rename it.", place)
    return specs


def _tool(value: Any, place: str) -> ToolSpec:
    tool = _object(value, place)
    if tool.get("type", "function") != "function":
        raise InvalidError(f"{place} is not a function.", "Send functions.", f"{place}.type")
    place = f"{place}.function"
    function = _object(tool.get("function"), place)
    name, description = function.get("name"), function.get("description")
    parameters = function.get("parameters")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise InvalidError(
            f"The name of {place} is not 1 to 128 of letters, digits, dots, _ and -.",
            "Correct it.",
            f"{place}.name",
        )
    if not isinstance(description, str | None):
        raise InvalidError(f"{place}.description is not a text.", "Correct it.", place)
    if not isinstance(parameters, dict | None):
        raise InvalidError(
            f"{place}.parameters is not an object.", "Send a JSON Schema.", f"{place}.parameters"
        )
    return ToolSpec(name, description or "", parameters or {"type": "object", "properties": {}})


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a model server may know, in the words of chat completions."""
    found = {
        "temperature": _number(body, "temperature", 0.0, 2.0),
        "top_p": _number(body, "top_p", 0.0, 1.0),
        "max_tokens": _tokens(body),
        "stop": _stop(body),
        "tool_choice": _choice(body),
    }
    return {name: value for name, value in found.items() if value is not None}


def _number(body: Mapping[str, Any], name: str, lowest: float, highest: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidError(f"{name} is not a number.", "Correct it or leave it out.", name)
    if not lowest <= value <= highest:
        raise InvalidError(
            f"{name} is not from {lowest:g} to {highest:g}.", "Correct it or leave it out.", name
        )
    return value


def _tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidError(
                f"{name} is not a whole number from 1.", "Correct it or leave it out.", name
            )
        return value
    return None


def _stop(body: Mapping[str, Any]) -> list[str] | None:
    value = body.get("stop")
    if value is None:
        return None
    stops = [value] if isinstance(value, str) else value
    sound = isinstance(stops, list) and len(stops) <= _MAX_STOPS
    if not sound or not all(isinstance(stop, str) and stop and _sound(stop) for stop in stops):
        raise InvalidError(
            f"stop is not a text, or up to {_MAX_STOPS} of them.",
            "Correct it or leave it out.",
            "stop",
        )
    return stops or None


def _choice(body: Mapping[str, Any]) -> Any:
    choice = body.get("tool_choice")
    if choice is None or (isinstance(choice, str) and choice in ("none", "auto", "required")):
        return choice
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidError(
            "tool_choice is none of none, auto, required and a function.",
            "Correct it or leave it out.",
            "tool_choice",
        )
    if name not in {spec.name for spec in _tools(body)}:
        raise InvalidError(
            "tool_choice names a function that is not among tools.", "Correct it.", "tool_choice"
        )
    return {"type": "function", "function": {"name": name}}
