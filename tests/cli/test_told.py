"""What is judged at a validation is what a daemon's model is told."""

from __future__ import annotations

import pytest

from netclawd.cli import wiring
from netclawd.cli.agent import judge_told
from netclawd.core import providers
from netclawd.core.prompt import BUILT_IN_PROMPT
from netclawd.core.session import ToolSpec
from netclawd.core.settings import Settings
from netclawd.daemon.parts import Folders
from netclawd.daemon.proposals import ProposeTool
from netclawd.daemon.remind_tool import RemindTool
from netclawd.errors import ConfigMeaningError
from tests.core.test_settings import DEFAULTS

#: Tools that the daemon makes itself.
OWN = (
    ToolSpec(ProposeTool.name, ProposeTool.description, ProposeTool.parameters),
    ToolSpec(RemindTool.name, RemindTool.description, RemindTool.parameters),
)


def _settings(kind: str, policy: str, **values: int) -> Settings:
    provider = {**DEFAULTS["providers"]["demo"], "kind": kind, "model": "small", **values}
    tools = {name: {**table, "policy": policy} for name, table in DEFAULTS["tools"].items()}
    return Settings.from_effective({**DEFAULTS, "providers": {"demo": provider}, "tools": tools})


@pytest.mark.parametrize("kind", ["demo", "openai", "anthropic"])
@pytest.mark.parametrize("policy", ["ask", "deny"])
def test_the_judged_tools_are_those_that_are_offered(
    kind: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[str, dict[str, ToolSpec]]] = []

    def judge(_settings: Settings, system: str, tools: list[ToolSpec]) -> None:
        judged.append((system, {tool.name: tool for tool in tools}))

    monkeypatch.setattr(providers, "judge_room", judge)
    settings = _settings(kind, policy)
    judge_told(settings, None)
    agent = wiring._agent(settings, Folders("", "", "", ""), {})
    offered = {tool.name: tool for tool in agent.offered}
    if policy == "ask":
        offered |= {tool.name: tool for tool in OWN}
    assert judged == [(agent.system, offered)]
    assert agent.system == BUILT_IN_PROMPT


def test_an_empty_prompt_takes_nothing_and_denied_tools_neither() -> None:
    values = {"context_tokens": 1024, "max_output_tokens": 300}
    judge_told(_settings("openai", "deny", **values), "")
    for policy, prompt in (("ask", ""), ("deny", None)):
        with pytest.raises(ConfigMeaningError, match="no room for a conversation"):
            judge_told(_settings("openai", policy, **values), prompt)
