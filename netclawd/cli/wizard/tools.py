"""The page about tools: what the agent may do, what it is asked about, what it may not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netclawd.cli.wizard.page import Page, schema_of
from netclawd.core.interview import Answers, Choice, Question
from netclawd.core.origins import Path
from netclawd.core.tool_presets import ACTING, PRESETS, READING, preset_of

#: Answers that are no preset.
KEEP, EACH = "keep", "each"
_PRESET = ("init", "tools")
_WORDS = {
    "ask": "reading is allowed, a person is asked about all else, and fetching is denied",
    "read-only": "reading its own folder is allowed, and all else denied",
    "sandbox": "all is allowed, but a person is asked about the configuration; for a machine that "
    "may break",
}
_TEXTS = {
    "shell": "Run commands",
    "write_file": "Write files",
    "edit_file": "Change files",
    "fetch_url": "Fetch from the network",
    "config_propose": "Change the daemon's configuration",
    "read_file": "Read files",
    "list_files": "List files",
}
_POLICIES = {
    "allow": "it is done without a question",
    "ask": "a person is asked each time",
    "deny": "it is never done",
}


def _path(tool: str) -> Path:
    return ("tools", tool, "policy")


def _policies(answers: Answers) -> dict[str, str]:
    return {tool: answers.value_at(_path(tool)) for tool in _TEXTS}


def _preset(answers: Answers) -> str:
    return preset_of(_policies(answers)) or KEEP


def _presets(answers: Answers) -> Sequence[Choice]:
    """Offer the presets, and first what there is where it is none of them."""
    policies = _policies(answers)
    choices = [Choice(name, words) for name, words in _WORDS.items()]
    if preset_of(policies) is None:
        now = ", ".join(f"{tool} {policy}" for tool, policy in policies.items())
        choices.insert(0, Choice(KEEP, f"as it is: {now}"))
    return [*choices, Choice(EACH, "asked tool by tool")]


def _settings(preset: Any) -> Mapping[Path, Any]:
    return {_path(tool): str(policy) for tool, policy in PRESETS.get(preset, {}).items()}


def _each(answers: Answers) -> bool:
    return answers.given.get(_PRESET) == EACH


def _choices(tool: str) -> Sequence[Choice]:
    schema = schema_of(_path(tool))
    return [Choice(name, _POLICIES.get(name, "")) for name in schema["enum"]]


def _question(tool: str) -> Question:
    table = schema_of(_path(tool)[:2])
    return Question(
        _path(tool),
        f"--tool-{tool.replace('_', '-')}",
        _TEXTS[tool],
        table["description"].replace("`", ""),
        choices=lambda _answers: _choices(tool),
        applies=_each,
        stays=True,
    )


TOOLS = Page(
    "tools",
    "What the agent may do, and about what a person is asked first.",
    (
        Question(
            _PRESET,
            "--tools",
            "What the agent may do",
            "What is allowed is done without a question: with commands allowed, whoever can write to the "
            "agent, or write what it reads, runs them as the daemon's user.",
            choices=_presets,
            schema={"type": "string", "enum": [KEEP, *_WORDS, EACH]},
            default=_preset,
            sets=_settings,
        ),
        *(_question(tool) for tool in (*ACTING, *READING)),
    ),
    terse=True,
)
