"""Calls the model once, before anything is saved: through the same code as the daemon will."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import click

from netclawd.adapters.model_servers import ask_window
from netclawd.adapters.settings_file import fits
from netclawd.cli.agent import make_provider
from netclawd.cli.output import duration, note
from netclawd.cli.wizard.agent import (
    URLS,
    is_as_configured,
    kind_of,
    provider_key,
    settings_of,
    url_of,
    window_path,
)
from netclawd.cli.wizard.attempt import CALL_S, Attempt
from netclawd.cli.wizard.keys import resolve
from netclawd.cli.wizard.page import schema_of
from netclawd.core import schema as schemas
from netclawd.core.edits import lookup
from netclawd.core.interview import CHOSEN, Answers
from netclawd.core.redact import Redactor
from netclawd.core.settings import ProviderSettings
from netclawd.core.values import replace
from netclawd.errors import NetclawError

_NO_TRY = "`netclaw init --no-try` saves without trying."


class ModelCall:
    """Calls a model once for each different answer to the questions about it."""

    def __init__(self, *, skip: bool, quiet: bool) -> None:
        self._skip = skip
        self._quiet = quiet
        self._answered: Any = None

    def __call__(self, answers: Answers) -> Answers:
        """Return the answers, with the model's window where the server tells it.

        ProviderError when the model doesn't answer. What is configured is not tried again.
        """
        if self._skip or kind_of(answers) not in URLS or is_as_configured(answers):
            return answers
        key = provider_key(answers)
        tried = (dict(settings_of(answers)), key)
        if tried == self._answered:
            return answers
        chosen = _settings(answers)
        if chosen.api_key is not None and resolve(chosen.api_key, answers) is None:
            note(
                f"not tried: the key {chosen.api_key} can't be had here, only where the daemon runs."
            )
            return answers
        took_s = self._call(chosen, key)
        if not self._quiet:
            click.echo(f"  {chosen.model} has answered, in {duration(took_s)}.")
        self._answered = tried
        return _with_window(answers, key)

    def _call(self, chosen: ProviderSettings, key: str | None) -> float:
        began = time.monotonic()
        try:
            with contextlib.ExitStack() as closed:
                provider = make_provider(chosen, lambda _reference: key or "")
                # Those that keep connections let them go.
                closed.callback(getattr(provider, "close", lambda: None))
                Attempt(provider, chosen.model).run(quiet=self._quiet)
        except NetclawError as error:
            redact = Redactor([key] if key else []).text
            error.what, error.remedy = (
                redact(error.what),
                redact(f"{error.remedy} {_NO_TRY}".strip()),
            )
            error.args = (error.what,)
            raise
        return time.monotonic() - began


def _settings(answers: Answers) -> ProviderSettings:
    """Return the settings of the provider as the daemon would have them, but for a call that fails soon."""
    name = answers.value(CHOSEN)
    table: dict[str, Any] = {**(lookup(answers.configured, ("providers", name)) or {})}
    table |= {
        path[-1]: value
        for path, value in settings_of(answers).items()
        if path[:2] == ("providers", name)
    }
    schema = schema_of(("providers", name))
    table = schemas.with_defaults(schema, {k: v for k, v in table.items() if v is not None})
    table = {k: float(v) if k.endswith("_s") else v for k, v in table.items()}
    known = ProviderSettings(**{**table, "name": name, "kind": kind_of(answers)})
    return replace(
        known,
        connect_timeout_s=min(known.connect_timeout_s, CALL_S),
        first_byte_timeout_s=CALL_S,
        total_timeout_s=CALL_S,
        retries=0,
    )


def _with_window(answers: Answers, key: str | None) -> Answers:
    path = window_path(answers)
    told = ask_window(kind_of(answers), url_of(answers), str(_model(answers)), key)
    if told is None or not fits(schema_of(path), told):
        return answers
    return replace(answers, learned={**answers.learned, path: told})


def _model(answers: Answers) -> Any:
    return settings_of(answers).get((*window_path(answers)[:2], "model"))
