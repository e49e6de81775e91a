"""Asks the pages on a terminal: each question explains itself, and says what is wrong with an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import click

from netclawd.adapters.settings_file import fits, read_value
from netclawd.cli.output import visible
from netclawd.cli.wizard.page import Page, Trial, schema_of
from netclawd.core import schema as schemas
from netclawd.core.interview import Answers, Choice, Question, expected, read_answer, written
from netclawd.core.values import frozen
from netclawd.core.words import kind, shown
from netclawd.errors import ConfigError, ConfigSchemaError, ProviderError

#: The answer that goes back to the question before.
BACK = "<"


class _Back(Exception):  # noqa: N818 - no error: somebody wants to go back
    pass


def read(
    question: Question, answers: Answers, text: str, choices: Sequence[Choice], *, typed: bool
) -> Answers:
    """Take an answer as it was typed or given as an option; ConfigError says why it can't be."""
    if question.take is not None:
        return question.take(text, answers, typed)
    schema, free = answer_schema(question), question.free
    try:
        value = read_answer(schema, choices, text, read_value, free=free)
    except ValueError:
        raise _unfit(question, schema, choices, text) from None
    if not fits(schema, value):
        raise _unfit(question, schema, choices, text)
    question.judge(value, answers)
    answers = answers.answered(question.at(answers), value, question.forgets)
    return answers.answered_all(question.sets(value))


def answer_schema(question: Question) -> schemas.Schema:
    """Return what an answer must be."""
    return question.schema or schema_of(question.path)


def _unfit(
    question: Question, schema: schemas.Schema, choices: Sequence[Choice], text: str
) -> ConfigError:
    show = kind if schemas.is_secret(schema) else shown
    allowed = expected(schema, choices, free=question.free)
    where = "netclaw(1)" if question.schema is not None else "netclaw.toml(5)"
    return ConfigSchemaError(
        f"{question.option} can't be {show(text)}; it must be {allowed}.",
        f"{where} explains {question.key if question.schema is None else question.option}.",
    )


@frozen
class Before:
    """What the pages are asked with."""

    #: Judges the file that would come of the answers so far.
    judge: Callable[[Answers], object]
    #: Calls the model that would answer; see :class:`Trial`.
    call: Callable[[Answers], Answers]
    #: What was wrong with the file beforehand, which need not be of any page's making and keeps nobody on
    #: one.
    known: str


def interview(pages: Sequence[Page], answers: Answers, before: Before) -> Answers:
    """Ask every page and return what was answered; click.Abort when somebody leaves."""
    number, goes_back = 0, False
    while number < len(pages):
        page = pages[number]
        click.echo()
        click.echo(_bold(f"{_place(pages, number, answers)}  {page.noun}: {page.intro}"))
        try:
            answers = _ask_page(page, answers, from_end=goes_back)
        except _Back:
            earlier = [n for n in range(number) if pages[n].applies(answers)]
            number, goes_back = (earlier[-1], True) if earlier else (number, False)
            continue
        goes_back = False
        try:
            answers = page.try_out(Trial(answers, partial(before.judge, answers), before.call))
        except (ConfigError, ProviderError) as error:
            say_wrong(error.what, error.remedy)
            if error.what != before.known:
                continue
        number += 1
        while number < len(pages) and not pages[number].applies(answers):
            number += 1
    return answers


def _place(pages: Sequence[Page], number: int, answers: Answers) -> str:
    asked = [page for page in pages if page.applies(answers)]
    return f"{asked.index(pages[number]) + 1}/{len(asked)}"


def _ask_page(page: Page, answers: Answers, *, from_end: bool) -> Answers:
    """Ask the questions of a page; ``from_end``: the last one first, to go on backwards from there."""
    asked: list[int] = []
    if from_end:
        asked = [n for n, each in enumerate(page.questions) if each.applies(answers)]
    number = asked.pop() if asked else 0
    while number < len(page.questions):
        question = page.questions[number]
        if not question.applies(answers):
            if not question.stays:
                answers = answers.without(question.at(answers))
            number += 1
            continue
        try:
            answers = _ask(question, answers)
        except _Back:
            if not asked:
                raise
            number = asked.pop()
            continue
        asked.append(number)
        number += 1
    return answers


def _ask(question: Question, answers: Answers) -> Answers:
    """Ask until there is an answer that can be one."""
    choices = question.choices(answers)
    default = _default(question, answers)
    click.echo(f"\n  {question.why}")
    width = max((len(choice.name) for choice in choices), default=0)
    for number, choice in enumerate(choices, 1):
        click.echo(_plain(f"    {number}  {choice.name:<{width}}  {choice.words}").rstrip())
    brackets = "" if default is None else f" [{_plain(default)}]"
    while True:
        text = _type(f"  {question.text}{brackets}: ", hidden=question.hidden)
        if text == BACK:
            raise _Back
        try:
            return read(question, answers, text or default or "", choices, typed=True)
        except ConfigSchemaError as error:
            needed = f"It must be {expected(answer_schema(question), choices, free=question.free)}."
            say_wrong(
                f"It {error.what.removeprefix(f'{question.option} ')}" if text else needed, ""
            )
        except ConfigError as error:
            say_wrong(error.what, error.remedy)


def _default(question: Question, answers: Answers) -> str | None:
    if question.at(answers) not in answers.given and not question.has_default(answers):
        return None
    value = question.value(answers)
    return None if value is None and not question.hidden else written(value)


def _type(prompt: str, *, hidden: bool) -> str:
    while True:
        try:
            text: str = click.prompt(
                prompt, default="", show_default=False, prompt_suffix="", hide_input=hidden
            )
        except UnicodeDecodeError:
            say_wrong("It can't be read as UTF-8; type it again.", "")
        else:
            return text.strip()


def say_wrong(what: str, remedy: str) -> None:
    """Say what is wrong with an answer, or with all of them."""
    click.secho(f"  {visible(what)}", fg="red")
    if remedy:
        click.echo(f"  {visible(remedy)}")


def _plain(text: str) -> str:
    """Put what may come from a file on one line, and let it not drive the terminal."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def given_answers(
    pages: Sequence[Page], answers: Answers, options: Mapping[str, str | None]
) -> Answers:
    """Take the answers that were given as options; ConfigError for the first that can't be one."""
    for page in pages:
        for question in page.questions:
            text = options[question.parameter]
            if text is not None:
                choices = () if question.free else question.choices(answers)
                answers = read(question, answers, text, choices, typed=False)
    return answers
