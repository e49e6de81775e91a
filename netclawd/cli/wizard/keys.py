"""Takes the answer to the question for a key: the key itself, or where it is.

Invariant: a key that was typed is in no text: not in an answer, an error, the file or the diff. It is
held apart (:class:`~netclawd.core.interview.Hidden`) under the reference that the file will have.
"""

from __future__ import annotations

import os
import sys

import click

from netclawd.adapters.secrets import LIMIT_BYTES, Secrets
from netclawd.adapters.settings_file import fits
from netclawd.cli.wizard.page import schema_of
from netclawd.core.interview import CHOSEN, NONE, Answers, Hidden, Question
from netclawd.errors import ConfigError, ConfigMeaningError

_SCHEMES = ("credential:", "env:", "file:")
_FILE = "file:"
_REFERENCE = "credential:NAME, env:NAME or file:/PATH"


def take_key(question: Question, text: str, answers: Answers, *, typed: bool) -> Answers:
    """Take a reference, `none`, or, where it was typed unseen, the key itself."""
    text = text.strip()
    if text.lower() == NONE:
        return answers.answered(question.at(answers), None)
    schema = schema_of(question.path)
    if fits(schema, text):
        return answers.answered(question.at(answers), text)
    if text.startswith(_SCHEMES):
        raise ConfigMeaningError(
            "That begins like a reference to a key, and is none.", f"Write {_REFERENCE}."
        )
    if not typed:
        raise ConfigMeaningError(
            f"{question.option} takes a reference to a key, never the key itself: the shell keeps what is "
            "typed, and every user of this host can see it.",
            f"Say {_REFERENCE}, or give the key by --api-key-file PATH (- for standard input).",
        )
    return take_secret(question, text, answers)


def take_secret(question: Question, key: str, answers: Answers) -> Answers:
    """Take the key itself, to be kept; one that the present reference leads to is kept already."""
    if not key:
        raise ConfigMeaningError(
            "This server wants a key.", f"Type it, say where it is ({_REFERENCE}), or {NONE}."
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigMeaningError(
            "That is no key: it has other characters than letters, digits and marks.",
            "Give the key alone, on one line.",
        )
    path = question.at(answers)
    present = answers.value_at(path)
    if isinstance(present, str) and _resolved(present) == key:
        return answers.answered(path, present)
    return answers.with_key(path, f"{_FILE}{_free_path(answers)}", Hidden(key))


def _free_path(answers: Answers) -> str:
    """Return the path of a file that there isn't: an older key stays until the new one is in force."""
    name, number = os.path.join(answers.folder, str(answers.value(CHOSEN))), 1
    while os.path.lexists(path := f"{name}{f'-{number}' if number > 1 else ''}.key"):
        number += 1
    return path


def key_of(question: Question, answers: Answers) -> str | None:
    """Return the key that was answered; None where there is none, or where only the daemon has it."""
    reference = question.value(answers)
    return resolve(str(reference), answers) if reference is not None else None


def resolve(reference: str, answers: Answers) -> str | None:
    """Return what is behind a reference, None where it can't be had here."""
    hidden = answers.keys.get(reference)
    return hidden.reveal() if hidden is not None else _resolved(reference)


def _resolved(reference: str) -> str | None:
    try:
        return Secrets(os.environ).resolve(reference)
    except ConfigError:
        return None


def read_key_file(path: str) -> str:
    """Return the key in a file, or on standard input for `-`; ConfigMeaningError says why not."""
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(LIMIT_BYTES + 1)
        else:
            with open(path, "rb") as file:
                raw = file.read(LIMIT_BYTES + 1)
        text = raw.decode().strip()
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no text"
        raise ConfigMeaningError(
            f"No key can be read from {_named(path)}: {why}.",
            "Give a file that holds the key alone.",
        ) from None
    if not text:
        raise ConfigMeaningError(
            f"There is no key in {_named(path)}.", "Give a file that holds the key alone."
        )
    return text


def _named(path: str) -> str:
    return "standard input" if path == "-" else click.format_filename(path)
