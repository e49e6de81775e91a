"""Which providers make sense together with the agent that uses one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from netclawd.core.exposure import judge_meaning
from netclawd.core.settings import Settings
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
