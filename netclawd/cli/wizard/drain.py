"""The page about the drain: what a restart does with the work in flight."""

from __future__ import annotations

from collections.abc import Sequence

from netclawd.cli.wizard.page import Page
from netclawd.core.interview import Answers, Choice, Question


def _policies(_answers: Answers) -> Sequence[Choice]:
    return (
        Choice("defer", "it is stored and acknowledged, and runs after the restart"),
        Choice("reject", "it is answered 503 with the time to come back"),
    )


DRAIN = Page(
    "drain",
    "What a restart or a stop does with the work in flight.",
    (
        Question(
            ("drain", "new_work"),
            "--new-work",
            "A message that arrives during a restart",
            "What was accepted before is never lost; this is about what comes meanwhile.",
            choices=_policies,
        ),
        Question(
            ("drain", "timeout_s"),
            "--drain-timeout",
            "Seconds for the drain",
            "How long turns in flight may take to come to a checkpoint; what is cut then goes on after "
            "the restart.",
        ),
    ),
)
