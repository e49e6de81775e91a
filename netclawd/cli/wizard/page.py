"""What a page of ``netclaw init`` is: a noun, its questions, and what settings come of the answers.

A new page is a module beside this one and an entry in :data:`netclawd.cli.wizard.PAGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from netclawd.adapters.settings_file import packaged_schema
from netclawd.core import schema as schemas
from netclawd.core.interview import Answers, Question
from netclawd.core.origins import Path
from netclawd.core.values import frozen


def schema_of(path: Path) -> schemas.Schema:
    """Return what the packaged schema says about a setting; nothing when it doesn't know it."""
    return schemas.find(packaged_schema(), path) or {}


@frozen
class Trial:
    """What a page may try its answers with, before anything is saved."""

    answers: Answers
    #: Judges the file as it would be now, as the daemon does; ConfigError says what is wrong.
    judge: Callable[[], object]
    #: Calls the model that would answer, and returns the answers with what was learned by it; ConfigError
    #: or ProviderError says why it does not answer.
    call: Callable[[Answers], Answers]


def _no_more(_answers: Answers) -> Mapping[Path, Any]:
    return {}


def _untried(trial: Trial) -> Answers:
    return trial.answers


@frozen
class Page:
    noun: str
    #: What it is about, a sentence.
    intro: str
    questions: tuple[Question, ...]
    #: Settings that follow from the answers, besides the answers themselves.
    more: Callable[[Answers], Mapping[Path, Any]] = _no_more
    #: Called once its questions are answered: a ConfigError or ProviderError is shown, and the page is
    #: asked again. Nothing is saved before every page has passed. Returns the answers.
    try_out: Callable[[Trial], Answers] = _untried
    #: Whether a new file, too, has of it only what differs from the defaults.
    terse: bool = False

    def applies(self, answers: Answers) -> bool:
        """Whether there is anything to ask."""
        return any(question.applies(answers) for question in self.questions)

    def settings(self, answers: Answers) -> dict[Path, Any]:
        """Return the settings that come of the page: of what matters, or was answered all the same.

        None: it is not set.
        """
        own = {
            question.at(answers): question.value(answers)
            for question in self.questions
            if question.schema is None
            and (question.applies(answers) or question.at(answers) in answers.given)
        }
        return {**own, **self.more(answers)}
