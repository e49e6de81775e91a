"""``netclaw init``: from nothing to a configured daemon that runs, by questions or by options.

The write of the file is the only trigger. Invariant: nothing is written before the whole was judged and,
on a terminal, confirmed; and success is what the daemon itself shows against a baseline from before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from netclawd.adapters.model_servers import find_local
from netclawd.adapters.settings_file import read_file
from netclawd.cli.bring_up import Change, Home, Outcome, bring_up, find_home
from netclawd.cli.config_write import Judged, Target, judge, target
from netclawd.cli.key_files import Keys, reader_of, replaced_files
from netclawd.cli.output import json_option, note, say_json, visible
from netclawd.cli.reload import report_entry
from netclawd.cli.wizard import PAGES
from netclawd.cli.wizard.agent import keep_key, refuse_idle
from netclawd.cli.wizard.dialogue import Before, answer_schema, given_answers, interview, say_wrong
from netclawd.cli.wizard.draft import Draft
from netclawd.cli.wizard.keys import read_key_file
from netclawd.cli.wizard.model_call import ModelCall
from netclawd.core import schema as schemas
from netclawd.core.interview import Answers, Question
from netclawd.core.values import replace
from netclawd.errors import ConfigAbsentError, ConfigError, ConfigMeaningError

#: As a shell reports a command that an interrupt has ended.
INTERRUPTED = 130


def _answer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each question."""
    questions = [question for page in PAGES for question in page.questions]
    for question in reversed(questions):
        command = click.option(
            question.option,
            question.parameter,
            metavar=_metavar(question),
            help=f"{question.text}{'' if question.schema else f': {question.key}'}.",
        )(command)
    return command


def _metavar(question: Question) -> str:
    setting = answer_schema(question)
    if schemas.is_secret(setting):
        return "REFERENCE"
    if "enum" in setting:
        return "|".join(setting["enum"])
    if question.path[-1].endswith("_url"):
        return "URL"
    kinds = {"boolean": "yes|no", "array": "A,B,…", "number": "NUMBER", "integer": "NUMBER"}
    return kinds.get(setting["type"], "NAME")


@click.command()
@json_option
@click.option("--no-start", is_flag=True, help="Don't start a daemon that isn't running.")
@click.option("--non-interactive", is_flag=True, help="Ask nothing: the options are the answers.")
@click.option("--no-try", is_flag=True, help="Save a provider without having called its model.")
@click.option(
    "--api-key-file",
    metavar="PATH",
    help="Keep the API key that this file holds, - for standard input: providers.NAME.api_key.",
)
@_answer_options
@click.pass_context
def init(
    ctx: click.Context,
    /,
    as_json: bool,
    no_start: bool,
    non_interactive: bool,
    no_try: bool,
    api_key_file: str | None,
    **options: str | None,
) -> None:
    """Configure the daemon by a few questions, and see it run with the answers.

    May be run again at any time: what is configured is the answer that Enter keeps. Every answer has an
    option; a list is separated by commas. A model is called once before anything is saved. Exit codes: 0
    the daemon is ready with it; 1 it is not, the model did not answer, or the answer to the last question
    was no; 78 not valid; 130 interrupted. But for a daemon that is not ready, nothing was written then.
    """
    _refuse_without_terminal(as_json=as_json, non_interactive=non_interactive)
    _refuse_key_options(api_key_file, options["api_key"], non_interactive=non_interactive)
    call = ModelCall(skip=no_try, quiet=as_json)
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    try:
        home = find_home()
        draft = Draft(target(home.paths), mends=not non_interactive)
        answers = given_answers(PAGES, draft.answers(), options)
        if api_key_file is not None:
            answers = keep_key(read_key_file(api_key_file), answers)
        refuse_idle(answers)
        if not non_interactive:
            answers = replace(answers, found=find_local())
            answers = _ask(draft, answers, call, start=not no_start)
        judged = draft.judge(answers)
        answers = call(answers)
        content = draft.content(answers)
        if not as_json:
            _summarise(draft, judged, content, answers)
        if (
            not non_interactive
            and content != draft.where.content
            and not _confirm(draft, start=not no_start)
        ):
            click.echo("Nothing was written.")
            ctx.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nNothing was written.", err=True)
        ctx.exit(INTERRUPTED)
    keys = _keys(home, draft, answers)
    change = Change(draft.where, content, keys)
    ctx.exit(_carry_out(home, change, start=not no_start, as_json=as_json))


def _refuse_without_terminal(*, as_json: bool, non_interactive: bool) -> None:
    if non_interactive:
        return
    if as_json:
        raise click.UsageError("--json asks nobody anything: it goes with --non-interactive.")
    if not sys.stdin.isatty():
        raise click.UsageError(
            "Standard input is no terminal, so nobody can be asked: say --non-interactive, and give the "
            "answers as options."
        )


def _refuse_key_options(path: str | None, reference: str | None, *, non_interactive: bool) -> None:
    if path is not None and reference is not None:
        raise click.UsageError("--api-key and --api-key-file are two answers to one question.")
    if path == "-" and not non_interactive:
        raise click.UsageError(
            "--api-key-file - goes with --non-interactive: on a terminal the key is asked for."
        )


def _keys(home: Home, draft: Draft, answers: Answers) -> Keys:
    wanted = draft.wanted(answers)
    pending = {ref: answers.keys[ref] for ref in answers.pending(wanted).values()}
    client = draft.where.client
    state = home.paths.state if client is None else client.call("status")["state_dir"]
    reader = reader_of(state, home.owner)
    return Keys(pending, reader, replaced_files(answers.folder, answers.in_file, wanted))


def _ask(draft: Draft, answers: Answers, call: ModelCall, *, start: bool) -> Answers:
    known = ""
    try:
        draft.judge(answers)
    except ConfigMeaningError as error:  # An answer may mend that, but nothing else.
        known = error.what
    where = draft.where
    then = " and the daemon started" if start else ""
    if where.client is not None:
        then = " and the daemon that runs takes it up"
    click.echo(f"A few questions, then {where.path} is written{then}.")
    click.echo(
        "Enter keeps what stands in brackets, < goes back, Ctrl-C leaves everything as it is."
    )
    _warn_of_bad_file(where)
    if not _may_replace(where.path):
        note(f"this user may not write {os.path.dirname(where.path)}, so nothing can be changed.")
    while True:
        answers = interview(PAGES, answers, Before(draft.judge, call, known))
        try:
            draft.judge(answers)
        except ConfigError as error:
            click.echo()
            say_wrong(error.what, error.remedy)
            if not click.confirm("Answer the questions again?", default=True):
                raise
        else:
            click.echo()
            return answers


def _warn_of_bad_file(where: Target) -> None:
    try:
        judge(where, where.content or b"")
    except ConfigAbsentError:
        return  # A daemon runs, and the file is about to be made.
    except ConfigError as error:
        note(f"as it is the file would be refused. {visible(error.what)}")


def _may_replace(path: str) -> bool:
    folder = os.path.dirname(os.path.realpath(path))
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return os.access(folder, os.W_OK)


def _summarise(draft: Draft, judged: Judged, content: bytes | None, answers: Answers) -> None:
    where = draft.where
    if content == where.content:
        click.echo(f"Nothing changes in {where.path}; nothing is written.")
    else:
        click.echo(f"{where.path} {'changes' if where.content is not None else 'is new'}:")
        draft.show(content)
    asked = {".".join(q.at(answers)) for page in PAGES for q in page.questions}
    for key, variable in judged.environment.items():
        if key in asked:
            note(f"{variable} wins: it decides {key}, whatever the file says.")


def _confirm(draft: Draft, *, start: bool) -> bool:
    if draft.where.client is not None:
        what = " and let the daemon take it up"
    else:
        what = " and start the daemon" if start else ""
    return bool(click.confirm(f"Write this{what}?", default=True))


def _carry_out(home: Home, change: Change, *, start: bool, as_json: bool) -> int:
    try:
        outcome = bring_up(home, change, start=start, quiet=as_json)
    except KeyboardInterrupt:
        click.echo(err=True)
        note(_say_interrupted(change.where, change.content))
        return INTERRUPTED
    if as_json:
        say_json(outcome.as_dict())
    else:
        _tell(outcome)
    return outcome.code


def _say_interrupted(where: Target, content: bytes | None) -> str:
    if content == where.content or read_file(where.path) != content:
        return "nothing was written."
    if where.client is not None:
        return f"{where.path} is written; the daemon takes it up by itself."
    return f"{where.path} is written; `netclaw daemon start` starts a daemon with it."


def _tell(outcome: Outcome) -> None:
    found, entry = outcome.status, outcome.entry
    if outcome.outcome == "not-running":
        click.echo("No daemon runs; `netclaw daemon start` starts one with it.")
    elif entry is not None and outcome.outcome == "ready" and entry["outcome"] != "applied":
        note("the daemon has ended in the middle of it, and was started again with it.")
    elif entry is not None and entry["outcome"] != "crashed":
        report_entry(entry)
    elif found is not None and found["refusal"] is not None:
        note(f"the daemon runs, but not with this. {visible(found['refusal']['reason'])}")
        click.echo(f"  {visible(found['refusal']['remedy'])}", err=True)
    if outcome.code and outcome.written:
        click.echo(
            f"  {outcome.path} has the change all the same: mend the cause or the answer, and "
            "`netclaw init` again.",
            err=True,
        )
    elif found is not None and not outcome.code:
        if outcome.ran:
            click.echo(
                f"The daemon is {found['phase']}: pid {found['pid']}, generation "
                f"{found['generation']}, answers on {', '.join(found['addresses']) or 'no address'}."
            )
        click.echo("Talk to it: `netclaw chat`.")
