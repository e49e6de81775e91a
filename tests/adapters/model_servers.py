"""Both kinds of provider before their counterparts, for the tests of providers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from netclawd.adapters.providers.anthropic import AnthropicProvider
from netclawd.adapters.providers.openai import OpenAIProvider
from netclawd.core.session import Message, ModelReply, ModelRequest, Role, ToolSpec
from netclawd.core.settings import ProviderSettings
from netclawd.daemon.board import CancelFlag
from netclawd.errors import ProviderError
from netclawd.ports import Cancelled
from tests.counterparts import ChatServer, MessagesServer, Server
from tests.waiting import wait_for

KEY = "sk-test-3vRy53cr3t4b5c6d7e8f"
KINDS = ["openai", "anthropic"]
HELLO = ModelRequest((Message(Role.USER, "hello"),))
CLOCK = ToolSpec("clock", "Tells the time.", {"type": "object", "properties": {}})


class Patience(CancelFlag):
    """A Cancel that notes how long it would have been waited for, and is not."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout_s: float) -> bool:
        self.pauses.append(timeout_s)
        return self.is_set()


@dataclass
class Model:
    """A provider, and the server that it asks."""

    kind: str
    server: Server
    provider: OpenAIProvider | AnthropicProvider
    #: What on_text was given.
    said: list[str] = field(default_factory=list)
    cancel: Patience = field(default_factory=Patience)

    def ask(self, request: ModelRequest = HELLO) -> ModelReply:
        self.said.clear()
        return self.provider.reply(request, self.said.append, self.cancel)

    def fail(self, request: ModelRequest = HELLO) -> ProviderError:
        """Ask, and return the error."""
        try:
            reply = self.ask(request)
        except ProviderError as error:
            return error
        raise AssertionError(f"a reply came: {reply}")


@contextmanager
def model(
    kind: str,
    *,
    base_url: str | None = None,
    key: str = KEY,
    server: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Model]:
    """Start a counterpart and make the provider; ``settings`` are those of the provider."""
    with (ChatServer if kind == "openai" else MessagesServer)(**(server or {})) as counterpart:
        chosen = ProviderSettings(
            "main",
            kind,
            0.0,
            base_url=counterpart.base_url if base_url is None else base_url,
            model="test-model",
            **settings,
        )
        make = OpenAIProvider if kind == "openai" else AnthropicProvider
        provider = make(chosen, key)
        try:
            yield Model(kind, counterpart, provider)
        finally:
            provider.close()


class Asking:
    """A call in a thread of its own, to be cancelled."""

    def __init__(self, asked: Model, request: ModelRequest = HELLO) -> None:
        self.cancel = CancelFlag()
        self.outcome: object = None
        self._asked = asked
        self._request = request
        self.said: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self._asked.provider.reply(self._request, self.said.append, self.cancel)
        except (Cancelled, ProviderError) as error:
            self.outcome = error

    def end(self, timeout_s: float = 2.0) -> object:
        """Cancel, wait until it has ended, and return what came of it."""
        self.cancel.set()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 10.0) -> object:
        wait_for(lambda: not self._thread.is_alive(), timeout_s, "the call to end")
        return self.outcome


@contextmanager
def full_listener() -> Iterator[int]:
    """Give a port of the loopback where a connection is neither made nor refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def conversation(*texts: str, tools: Sequence[ToolSpec] = ()) -> ModelRequest:
    """Return a request of user and assistant in turn."""
    roles = (Role.USER, Role.ASSISTANT)
    messages = tuple(Message(roles[n % 2], text) for n, text in enumerate(texts))
    return ModelRequest(messages, tools=tuple(tools))
