"""Makes the agent's provider and tools from the settings; names adapters only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from netclawd.adapters.clock import SystemClock
from netclawd.adapters.prompt_file import read_prompt
from netclawd.core.prompt import BUILT_IN_PROMPT
from netclawd.core.session import ToolSpec
from netclawd.core.settings import ProviderSettings, Settings
from netclawd.ports import Provider, Tool

#: Tools that are there for the demo agent, and that no other model is told of.
DEMO_TOOLS = frozenset({"confirm", "ledger"})


class Offer(Protocol):
    """A tool that may be offered."""

    @property
    def spec(self) -> ToolSpec | None: ...


def make_provider(chosen: ProviderSettings, resolve: Callable[[str], str]) -> Provider:
    """Return the provider; ConfigMeaningError when its key can't be had, or is none.

    No connection is made, and what makes connections is not imported, before the first call.
    """
    key = resolve(chosen.api_key) if chosen.api_key is not None else None
    match chosen.kind:
        case "openai":
            from netclawd.adapters.providers.openai import OpenAIProvider

            return OpenAIProvider(chosen, key or "")
        case "anthropic":
            from netclawd.adapters.providers.anthropic import AnthropicProvider

            return AnthropicProvider(chosen, key or "")
    from netclawd.adapters.providers.demo import DemoProvider

    return DemoProvider(chosen.word_interval_s, key)


def system_prompt(settings: Settings) -> str:
    """Return what the model is told first; ConfigMeaningError when its file can't be read."""
    path = settings.system_prompt_file
    return read_prompt(path) if path else BUILT_IN_PROMPT


def make_tools(settings: Settings, state: str) -> list[Tool]:
    """Return every tool; ``state`` is the state folder."""
    del settings
    from netclawd.adapters.tools.clock_tool import ClockTool
    from netclawd.adapters.tools.confirm import ConfirmTool
    from netclawd.adapters.tools.ledger import LedgerTool

    return [ClockTool(SystemClock()), ConfirmTool(), LedgerTool(f"{state}/ledger.txt")]


def offered(chosen: ProviderSettings, tools: Mapping[str, Offer]) -> tuple[ToolSpec, ...]:
    """Return what this provider's model is told of."""
    return tuple(
        spec
        for name, tool in tools.items()
        if (spec := tool.spec) is not None and (chosen.kind == "demo" or name not in DEMO_TOOLS)
    )
