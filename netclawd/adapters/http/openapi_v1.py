"""What clients of OpenAI's API know of the description already. Pure; imported when it is asked for."""

from __future__ import annotations

from typing import Any

from netclawd.adapters.http.chat_request import MAX_USER_LENGTH, MODEL
from netclawd.adapters.http.completions import CANCEL_HEADER
from netclawd.adapters.http.openai_error import SESSION_HEADER
from netclawd.adapters.http.openapi_parts import (
    TEXT,
    WHOLE,
    Json,
    answer,
    list_of,
    path_parameter,
    ref,
)
from netclawd.adapters.http.query import MAX_KEY_LENGTH
from netclawd.core.session import FinishReason


def paths() -> Json:
    model = path_parameter("model")
    return {
        "/v1/models": {
            "get": _operation(
                "models", "List the one model", answer("The list.", ref("OpenAIModels"))
            )
        },
        "/v1/models/{model}": {
            "parameters": [model],
            "get": _operation("model", "Show a model", answer("It.", ref("OpenAIModel"))),
        },
        "/v1/chat/completions": {"post": _complete()},
    }


def responses() -> Json:
    error = {"application/json": {"schema": ref("OpenAIError")}}
    return {"OpenAIError": {"description": "What went wrong, in OpenAI's form.", "content": error}}


def schemas() -> Json:
    session = {"type": "string", "description": "With a durable session."}
    ends = {"type": ["string", "null"], "enum": [*(reason.value for reason in FinishReason), None]}
    model = {"id": TEXT, "object": {"const": "model"}, "created": WHOLE, "owned_by": TEXT}
    return {
        "OpenAIModel": _object(model, *model),
        "OpenAIModels": _object(
            {"object": {"const": "list"}, "data": list_of(ref("OpenAIModel"))}, "object", "data"
        ),
        "ChatRequest": _request(),
        "ChatCompletion": _object(
            {
                "id": TEXT,
                "object": {"enum": ["chat.completion", "chat.completion.chunk"]},
                "created": WHOLE,
                "model": {"const": MODEL},
                "choices": list_of(_object({"index": WHOLE, "finish_reason": ends}, "index")),
                "usage": {"type": ["object", "null"]},
                "session_id": session,
            },
            "id", "object", "created", "model", "choices",
        ),
        "OpenAIError": _object(
            {
                "error": _object(
                    {
                        "message": TEXT,
                        "type": TEXT,
                        "param": {"type": ["string", "null"]},
                        "code": TEXT,
                    },
                    "message", "type", "param", "code",
                ),
                "session_id": session,
            },
            "error",
        ),
    }  # fmt: skip


def _request() -> Json:
    tool = _object({"type": {"const": "function"}, "function": {"type": "object"}}, "function")
    user = {
        "type": "string",
        "maxLength": MAX_USER_LENGTH,
        "description": "The client's name for a durable session, which is made the first time. Its "
        "last user message is taken and the daemon's tools run; tools of the request are passed over.",
    }
    count: Json = {"type": "integer", "minimum": 1}
    return {
        **_object(
            {
                "model": {"const": MODEL},
                "messages": {**list_of({"type": "object"}), "minItems": 1},
                "stream": {"type": "boolean", "default": False},
                "stream_options": _object({"include_usage": {"type": "boolean"}}),
                "tools": list_of(tool),
                "tool_choice": {},
                "temperature": {"type": "number", "minimum": 0, "maximum": 2},
                "top_p": {"type": "number", "minimum": 0, "maximum": 1},
                "max_completion_tokens": count,
                "max_tokens": count,
                "stop": {"anyOf": [TEXT, list_of(TEXT)]},
                "n": {"const": 1},
                "user": user,
            },
            "messages",
        ),
        "description": "What else clients send is passed over.",
        "additionalProperties": True,
    }


def _complete() -> Json:
    whole = answer("The answer, or a chunk of it.", ref("ChatCompletion"))
    whole["content"]["text/event-stream"] = {"schema": TEXT}
    return _operation(
        "complete",
        "Answer a conversation: as a model without a memory, or in a durable session",
        whole,
        parameters=[
            _header(SESSION_HEADER, TEXT, "A durable session; wins over `user`."),
            _header(
                CANCEL_HEADER,
                {"const": "1"},
                "Cancel when the client closes the connection; else work goes on then.",
            ),
            _header(
                "Idempotency-Key",
                {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
                "With a durable session: the same key and text again join the same turn.",
            ),
        ],
        requestBody={
            "required": True,
            "content": {"application/json": {"schema": ref("ChatRequest")}},
        },
    )


def _header(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "header", "schema": schema, "description": description}


def _operation(name: str, summary: str, answer: Json, **more: Any) -> Json:
    found = {"200": answer, "default": {"$ref": "#/components/responses/OpenAIError"}}
    return {"operationId": name, "summary": summary, "responses": found, **more}


def _object(properties: Json, *required: str) -> Json:
    return {"type": "object", "properties": properties, "required": sorted(required)}
