"""Model calls that say what the test wants, when it wants it; and a reader of what a client is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from netclawd.core.session import (
    CallId,
    FinishReason,
    ModelReply,
    ModelRequest,
    ToolCall,
    Usage,
)
from netclawd.errors import HungUpError
from netclawd.ports import Call, CallListener
from tests.http.wire import Wire, request
from tests.waiting import scaled, wait_for

PATH = "/v1/chat/completions"


class CallDouble:
    """A model call; the test is the model."""

    def __init__(self, number: int, asked: ModelRequest) -> None:
        self.id = f"c_{number:035}"
        self.at = 1_800_000_000.5
        self.asked = asked
        self.hung_up = threading.Event()
        self.hears: CallListener

    def hang_up(self) -> None:
        self.hung_up.set()

    def cut(self) -> None:
        """Behave as a provider does that was told to stop."""
        self.hears.on_error(HungUpError("The client has gone."))

    def say(self, *texts: str) -> None:
        for text in texts:
            self.hears.on_text(text)

    def end(
        self,
        text: str = "",
        *calls: ToolCall,
        finish: FinishReason = FinishReason.STOP,
        usage: Usage | None = None,
    ) -> None:
        self.hears.on_reply(ModelReply(text, calls, finish, usage))


class CallsDouble:
    """The calls that were begun."""

    def __init__(self) -> None:
        self.begun: list[CallDouble] = []
        self.error: Exception | None = None
        #: How many may run, as it was said last.
        self.most = 0

    def begin(self, asked: ModelRequest, listener: Callable[[Call], CallListener]) -> CallDouble:
        if self.error is not None:
            raise self.error
        call = CallDouble(len(self.begun) + 1, asked)
        call.hears = listener(call)
        self.begun.append(call)
        return call

    def wait(self, number: int = 1) -> CallDouble:
        """Wait for the call of this number."""
        wait_for(lambda: len(self.begun) >= number, 10, f"{number} calls", interval_s=0.002)
        return self.begun[number - 1]


def tool_call(number: int, **arguments: Any) -> ToolCall:
    return ToolCall(CallId(f"theirs-{number}"), f"tool-{number}", arguments)


def user(text: Any = "hello", **more: Any) -> dict[str, Any]:
    """Return the body of a request that says this."""
    return {"model": "netclaw", "messages": [{"role": "user", "content": text}], **more}


class Chunks:
    """A client that reads a streamed answer."""

    def __init__(self, wire: Wire, body: dict[str, Any], **headers: str | None) -> None:
        self.wire = wire
        self.headers: dict[str, str] = {}
        wire.send(request("POST", PATH, {**body, "stream": True}, **headers))

    def begin(self) -> Chunks:
        """Read the head."""
        status, self.headers = self.wire.head()
        assert status == 200, (status, self.headers)
        assert self.headers["content-type"].startswith("text/event-stream")
        return self

    def next(self) -> Any:
        """Read one chunk: an object, or the end marker as it stands; comments are passed over."""
        while True:
            block = self.wire._until(b"\n\n").decode()
            if block.startswith("data: "):
                text = block.removeprefix("data: ")
                return text if text == "[DONE]" else json.loads(text)
            assert block.startswith(":"), block

    def rest(self) -> Iterator[Any]:
        """Read to the end of the connection."""
        while True:
            try:
                yield self.next()
            except EOFError:
                assert not self.wire.buffer
                return

    def text(self, length: int) -> str:
        """Read chunks until there is a text of this length."""
        said = ""
        while len(said) < length:
            said += content(self.next())
        return said


def content(chunk: Any) -> str:
    (choice,) = chunk["choices"]
    return str(choice["delta"].get("content") or "")


def said(chunks: list[Any]) -> str:
    """Join the text of chunks."""
    return "".join(content(c) for c in chunks if isinstance(c, dict) and c.get("choices"))


def finish(chunks: list[Any]) -> list[str]:
    """Return the reasons of an end that were told."""
    return [
        choice["finish_reason"]
        for chunk in chunks
        if isinstance(chunk, dict)
        for choice in chunk.get("choices", ())
        if choice["finish_reason"] is not None
    ]


def wait_hung_up(call: CallDouble) -> None:
    assert call.hung_up.wait(scaled(5)), "the call was not cut"
