"""Makes the agent's provider and tools from the settings; names adapters only.

Some of it lies on the way from execve to serving: what that doesn't need is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from netclawd.adapters.clock import SystemClock
from netclawd.core.session import ToolSpec
from netclawd.core.settings import Policy, ProviderSettings, Settings
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
    from netclawd.core.prompt import BUILT_IN_PROMPT

    path = settings.system_prompt_file
    return read_prompt(path) if path else BUILT_IN_PROMPT


def read_prompt(path: str) -> str:
    """Return the text of a file with the system prompt; ConfigMeaningError when it can't be read."""
    from netclawd.adapters import prompt_file

    return prompt_file.read_prompt(path)


def judge_told(settings: Settings, prompt: str | None) -> None:
    """Raise ConfigMeaningError when what the model is told in each request leaves no room for more.

    ``prompt``: the text of the settings' file, None without one.
    """
    from netclawd.core import proposals, remind
    from netclawd.core.prompt import BUILT_IN_PROMPT
    from netclawd.core.providers import judge_room

    chosen = settings.providers[settings.provider]
    specs = [_spec(tool) for tool in make_tools(settings, "", {}, ())]
    specs.append(ToolSpec(proposals.NAME, proposals.DESCRIPTION, proposals.PARAMETERS))
    specs.append(ToolSpec(remind.NAME, remind.DESCRIPTION, remind.PARAMETERS))
    policies = settings.tools.policies
    told = (s for s in specs if policies.get(s.name) is not Policy.DENY and _hears(chosen, s.name))
    judge_room(settings, BUILT_IN_PROMPT if prompt is None else prompt, told)


def _spec(tool: Tool) -> ToolSpec:
    return ToolSpec(tool.name, tool.description, tool.parameters)


def make_tools(
    settings: Settings, state: str, environ: Mapping[str, str], secrets: Collection[str]
) -> list[Tool]:
    """Return every tool.

    ``state`` is the state folder, ``environ`` what the daemon was started with, ``secrets`` the values
    that no command may find in its environment.
    """
    from netclawd.adapters.tools.clock_tool import ClockTool
    from netclawd.adapters.tools.commands import Commands
    from netclawd.adapters.tools.confirm import ConfirmTool
    from netclawd.adapters.tools.edit_file import EditFileTool
    from netclawd.adapters.tools.environment import scrubbed
    from netclawd.adapters.tools.fetch_url import FetchUrlTool
    from netclawd.adapters.tools.ledger import LedgerTool
    from netclawd.adapters.tools.list_files import ListFilesTool
    from netclawd.adapters.tools.read_file import ReadFileTool
    from netclawd.adapters.tools.shell import ShellTool
    from netclawd.adapters.tools.workspace import Workspaces
    from netclawd.adapters.tools.write_file import WriteFileTool

    references = settings.secret_references.values()
    referenced = {
        name for scheme, _, name in (r.partition(":") for r in references) if scheme == "env"
    }
    workspaces = Workspaces(f"{state}/workspaces")
    clean = scrubbed(environ, referenced, secrets)
    return [
        ShellTool(workspaces, Commands(state), settings.tools, clean),
        ReadFileTool(workspaces),
        WriteFileTool(workspaces),
        EditFileTool(workspaces),
        ListFilesTool(workspaces),
        FetchUrlTool(settings.tools),
        ClockTool(SystemClock()),
        ConfirmTool(),
        LedgerTool(f"{state}/ledger.txt"),
    ]


def end_leftovers(state: str) -> int:
    """End the commands that a daemon which died on this state folder has left; return how many processes."""
    from netclawd.adapters.tools.commands import end_leftovers

    return end_leftovers(state)


def is_of_a_command(pid: int) -> bool:
    """Say whether a process belongs to a command that an agent runs."""
    from netclawd.adapters.tools.marked import is_of_a_command

    return is_of_a_command(pid)


def offered(chosen: ProviderSettings, tools: Mapping[str, Offer]) -> tuple[ToolSpec, ...]:
    """Return what this provider's model is told of."""
    return tuple(
        spec
        for name, tool in tools.items()
        if (spec := tool.spec) is not None and _hears(chosen, name)
    )


def _hears(chosen: ProviderSettings, tool: str) -> bool:
    """Whether this provider's model may be told of a tool."""
    return chosen.kind == "demo" or tool not in DEMO_TOOLS
