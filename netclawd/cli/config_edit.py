"""``netclaw config set``, ``unset`` and ``edit``: change the configuration file and see it applied."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import click

from netclawd.adapters.settings_file import (
    decode,
    packaged_schema,
    parse_toml,
    read_file,
    read_value,
)
from netclawd.adapters.toml_edit import with_value, without_value
from netclawd.cli import suggest
from netclawd.cli.config_write import (
    Follow,
    Judged,
    Target,
    check_edit,
    judge,
    outcome,
    put_in_force,
    target,
)
from netclawd.cli.output import json_option, note, say_json
from netclawd.core import schema as schemas
from netclawd.core.budgets import OUTCOME_S
from netclawd.core.edits import EMPTY, lookup, same, with_setting, without_setting
from netclawd.core.origins import Path, parse_key
from netclawd.core.overrides import assigned
from netclawd.core.violations import nearest
from netclawd.core.words import dotted, kind, shown
from netclawd.errors import (
    ConfigError,
    ConfigSchemaError,
    EditorError,
    NetclawError,
)


def _following(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of what happens after the write."""
    for option in (
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0),
            default=OUTCOME_S,
            show_default=True,
            metavar="SECONDS",
            help="Wait so long for the outcome.",
        ),
        click.option("--no-wait", is_flag=True, help="Return when it is written."),
        json_option,
    ):
        command = option(command)
    return command


# -- one setting ---------------------------------------------------------------------------------


@click.command("set")
@_following
@click.argument("key", shell_complete=suggest.config_keys)
@click.argument("value")
@click.pass_context
def set_(
    ctx: click.Context, as_json: bool, no_wait: bool, timeout_s: float, key: str, value: str
) -> None:
    """Set KEY to VALUE in the configuration file, and wait until the daemon has applied it.

    VALUE is written as in the file (5, true, ["a", "b"]); a text needs no quotes.
    Exit codes: 0 applied, or nothing to do; 1 refused; 78 not valid, and then nothing was written.
    """
    where = target()
    path = _path(key)
    wanted = _value(path, value)
    text = decode(where.content or b"", where.path)
    values = parse_toml(text, where.path)
    follow = Follow(not no_wait, timeout_s, as_json)
    if same(lookup(values, path), wanted):
        ctx.exit(
            _say_nothing_to_write(
                where, f"{dotted(path)} is {_show(path, wanted)} already", as_json
            )
        )
    expected = with_setting(values, path, wanted)
    edited = with_value(text, path, wanted)
    check_edit(where, edited, expected)
    words = f"{dotted(path)} = {_show(path, wanted)}"
    ctx.exit(_put(where, edited.encode(), follow, words, path))


@click.command()
@_following
@click.argument("key", shell_complete=suggest.config_keys)
@click.pass_context
def unset(ctx: click.Context, as_json: bool, no_wait: bool, timeout_s: float, key: str) -> None:
    """Take KEY, a setting or a table, out of the configuration file: its default is in force again.

    Exit codes: 0 applied, or nothing to do; 1 refused; 78 not valid, and then nothing was written.
    """
    where = target()
    path = _parts(key)
    text = decode(where.content or b"", where.path)
    values = parse_toml(text, where.path)
    if lookup(values, path) is None:
        _known(path)
        ctx.exit(_say_nothing_to_write(where, f"{dotted(path)} is not set", as_json))
    edited = without_value(text, path)
    check_edit(where, edited, without_setting(values, path))
    content = (edited if edited.strip("\ufeff \t\r\n") else EMPTY).encode()
    follow = Follow(not no_wait, timeout_s, as_json)
    ctx.exit(_put(where, content, follow, f"{dotted(path)} is no longer set", path))


def _put(where: Target, content: bytes, follow: Follow, words: str, path: Path) -> int:
    judged = judge(where, content)
    _warn_of_environment(judged, path)
    if not follow.as_json:
        click.echo(f"{words} in {where.path}.")
    return put_in_force(where, content, judged, follow)


def _warn_of_environment(judged: Judged, path: Path) -> None:
    for key, variable in judged.environment.items():
        if tuple(key.split("."))[: len(path)] == path:
            note(f"{variable} wins: it decides {key}, whatever the file says.")


def _say_nothing_to_write(where: Target, words: str, as_json: bool) -> int:
    if as_json:
        say_json(outcome(where, written=False) | {"outcome": "unchanged"})
    else:
        click.echo(f"{words} in {where.path}; nothing was written.")
    return 0


def _parts(key: str) -> Path:
    path = parse_key(key)
    if path is None:
        raise click.UsageError(
            f"{shown(key)} is not a key. Write it with dots, for example drain.timeout_s."
        )
    return path


def _known(path: Path) -> schemas.Schema:
    found = schemas.find(packaged_schema(), path)
    if found is None:
        near = nearest(packaged_schema(), path)
        raise ConfigSchemaError(
            f"{dotted(path)} is not a known setting{f'; did you mean {near}?' if near else '.'}",
            "netclaw.toml(5) lists every setting.",
        )
    return found


def _path(key: str) -> Path:
    path = _parts(key)
    if schemas.is_table(_known(path)):
        raise click.UsageError(f"{dotted(path)} is a table: name a setting in it.")
    return path


def _value(path: Path, text: str) -> Any:
    setting = _known(path)
    try:
        return assigned(setting, text, read_value)
    except ValueError:
        show = kind if schemas.is_secret(setting) else shown
        raise ConfigSchemaError(
            f"{dotted(path)} can't be {show(text)}; it must be {schemas.allowed(setting)}.",
            'Write it as in the file: 5, true, ["127.0.0.1:5199"].',
        ) from None


def _show(path: Path, value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(shown(entry) for entry in value)}]"
    return kind(value) if schemas.is_secret(_known(path)) else shown(value)


# -- the whole file ------------------------------------------------------------------------------


@click.command()
@_following
@click.pass_context
def edit(ctx: click.Context, as_json: bool, no_wait: bool, timeout_s: float) -> None:
    """Open a copy of the configuration in an editor; validate, write and apply what comes of it.

    The editor is $VISUAL, $EDITOR, or `editor`. Exit codes: 0 applied, or nothing to do; 1 refused;
    78 not valid, and then nothing was written.
    """
    where = target()
    copy = _make_copy(where.content or b"")
    try:
        edited = _edit_until_valid(where, copy)
        if edited is None:
            code = _say_nothing_to_write(where, "Everything is as it was", as_json)
        else:
            code = put_in_force(where, *edited, Follow(not no_wait, timeout_s, as_json))
    except NetclawError as error:
        if read_file(copy) != (where.content or b""):
            error.remedy = f"{error.remedy} Your copy is kept: {copy}".strip()
            raise
        _remove(copy)
        raise
    _remove(copy)
    ctx.exit(code)


def _make_copy(content: bytes) -> str:
    """Write a copy that nobody else can read; its name has editors recognise the format."""
    copy = os.path.join(tempfile.mkdtemp(prefix="netclaw-"), "netclaw.toml")
    with open(copy, "xb") as file:
        file.write(content)
    return copy


def _remove(copy: str) -> None:
    shutil.rmtree(os.path.dirname(copy), ignore_errors=True)


def _edit_until_valid(where: Target, copy: str) -> tuple[bytes, Judged] | None:
    """Run the editor until the copy is valid, or nobody goes on; None when nothing was changed."""
    while True:
        _run_editor(copy)
        content = read_file(copy) or b""
        if content == (where.content or b""):
            return None
        try:
            return content, judge(where, content)
        except ConfigError as error:
            if not sys.stdin.isatty():
                raise
            note(error.what)
            click.echo(f"  {error.remedy}", err=True)
            if not click.confirm("Edit it again?", default=True, err=True):
                raise


def _run_editor(copy: str) -> None:
    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "editor"
    try:
        code = subprocess.run([*shlex.split(chosen), copy], check=False).returncode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EditorError(
            f"The editor {shown(chosen)} can't be started: {reason}.",
            "Set VISUAL or EDITOR to an editor that is there.",
        ) from error
    if code:
        raise EditorError(
            f"The editor {shown(chosen)} ended with {code}; nothing was written.",
            "Leave it without an error to have the copy taken.",
        )
