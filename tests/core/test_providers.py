"""Which providers make sense together with the agent that uses one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from netclawd.core.exposure import judge_meaning
from netclawd.core.providers import LEAST_ROOM, judge_room
from netclawd.core.session import ToolSpec
from netclawd.core.settings import Settings
from netclawd.core.tokens import fixed_tokens
from netclawd.errors import ConfigMeaningError
from tests.core.test_settings import DEFAULTS


def _settings(**providers: dict[str, Any]) -> Settings:
    tables = {**DEFAULTS["providers"], **providers}
    return Settings.from_effective({**DEFAULTS, "providers": tables})


def _table(**values: Any) -> dict[str, Any]:
    return {**DEFAULTS["providers"]["demo"], **values}


def test_providers_that_can_serve_are_taken() -> None:
    judge_meaning(
        _settings(
            a=_table(kind="openai", model="qwen3"),
            b=_table(kind="anthropic", model="claude", context_tokens=200_000),
            c=_table(context_tokens=1024, max_output_tokens=768),
        )
    )


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"kind": "openai"}, "providers.x.model is empty, but a provider of the kind openai needs"),
        ({"kind": "anthropic", "model": " "}, "providers.x.model is empty"),
        (
            {"context_tokens": 4096},
            "providers.x.max_output_tokens is 4096, which leaves no room for a conversation in"
            " providers.x.context_tokens, 4096",
        ),
        ({"context_tokens": 1024, "max_output_tokens": 769}, "max_output_tokens is 769"),
    ],
)
def test_one_that_can_not_is_refused_by_its_key_though_another_is_chosen(
    values: dict[str, Any], what: str
) -> None:
    with pytest.raises(ConfigMeaningError, match=re.escape(what)) as refusal:
        judge_meaning(_settings(x=_table(**values)))
    assert refusal.value.remedy


def test_the_remedy_names_a_number_that_is_taken() -> None:
    with pytest.raises(ConfigMeaningError) as refusal:
        judge_meaning(_settings(x=_table(context_tokens=5001, max_output_tokens=5000)))
    (most,) = re.findall(r"Lower it to (\d+) at most", refusal.value.remedy)
    judge_meaning(_settings(x=_table(context_tokens=5001, max_output_tokens=int(most))))


LOOK = ToolSpec("look", "Looks at things. " * 30, {"type": "object"})


def test_a_prompt_and_tools_that_leave_no_room_are_refused_with_the_number_that_does() -> None:
    prompt = "Be kind. " * 300
    fixed = fixed_tokens(prompt, [LOOK])
    small = _table(context_tokens=1024, max_output_tokens=256)
    judge_room(_settings(demo=small), "", ())
    with pytest.raises(ConfigMeaningError) as refusal:
        judge_room(_settings(demo=small), prompt, [LOOK])
    assert f"take about {fixed} tokens of each request" in refusal.value.what
    assert "is 768, which leaves no room for a conversation" in refusal.value.what
    (least,) = re.findall(r"Raise providers\.demo\.context_tokens to (\d+)", refusal.value.remedy)
    assert int(least) == fixed + LEAST_ROOM + 256
    judge_room(_settings(demo={**small, "context_tokens": int(least)}), prompt, [LOOK])
    with pytest.raises(ConfigMeaningError):
        judge_room(_settings(demo={**small, "context_tokens": int(least) - 1}), prompt, [LOOK])


def test_the_room_of_a_provider_that_is_not_chosen_is_not_judged() -> None:
    judge_room(_settings(x=_table(context_tokens=1024, max_output_tokens=768)), "x" * 1_000, ())
