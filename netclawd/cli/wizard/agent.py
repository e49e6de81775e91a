"""The page about the agent: which provider answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netclawd.cli.wizard.page import Page
from netclawd.core.edits import lookup
from netclawd.core.interview import Answers, Choice, Question
from netclawd.core.origins import Path

#: Kinds of providers that can be set up here, and what they are.
KINDS = {"demo": "needs no key and no network; it explains itself and answers word by word"}


def _names(answers: Answers) -> Sequence[Choice]:
    """Offer what is configured, and what can be."""
    tables = answers.before("providers")
    named = tables if isinstance(tables, Mapping) else {}
    kinds = {name: str(lookup(table, ("kind",))) for name, table in named.items()}
    return [Choice(name, KINDS.get(kind, "")) for name, kind in {**kinds, "demo": "demo"}.items()]


def _table(answers: Answers) -> Mapping[Path, Any]:
    """Add the table of a provider that the file lacks beside others."""
    chosen = answers.value("agent.provider")
    tables = answers.in_file.get("providers")
    if chosen not in KINDS or not isinstance(tables, Mapping) or not tables or chosen in tables:
        return {}
    return {("providers", chosen, "kind"): chosen}


AGENT = Page(
    "agent",
    "Who answers in the sessions.",
    (
        Question(
            ("agent", "provider"),
            "--provider",
            "Provider",
            "The model that answers; the demo agent is there to try everything without a key.",
            choices=_names,
        ),
    ),
    more=_table,
)
