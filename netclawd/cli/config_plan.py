"""``netclaw config plan``: judges a candidate, by the running daemon or, without one, as a start would."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from netclawd.adapters.control_client import PATIENCE_S, RETRY_S, ControlClient
from netclawd.adapters.secrets import Secrets
from netclawd.adapters.settings_file import LIMIT_BYTES, SettingsFile, read_file
from netclawd.cli.output import json_option
from netclawd.cli.plan import report
from netclawd.cli.reach import own_paths, reach_or_none
from netclawd.core.events import Refusal
from netclawd.core.paths import Paths
from netclawd.core.plan import Plan, Verdict, plan_start
from netclawd.core.settings import Snapshot
from netclawd.core.values import frozen
from netclawd.errors import ConfigError, ConfigSyntaxError, NetclawError, StoreClosedError

_STANDARD_INPUT = "standard input"


@frozen
class Candidate:
    """What is judged."""

    #: What messages call it.
    name: str
    content: bytes | None


@click.command()
@json_option
@click.argument("file", type=click.Path(allow_dash=True), required=False)
@click.pass_context
def plan(ctx: click.Context, as_json: bool, file: str | None) -> None:
    """Judge FILE, or the daemon's configuration, and say what a reload with it would do.

    FILE may be - for standard input. Exit codes: 0 it would be taken or nothing is new, 1 refused.
    """
    paths = own_paths()
    daemon = reach_or_none(paths)
    path = (daemon.paths if daemon is not None else paths).config
    try:
        candidate = _candidate(file)
        found = (
            ask_daemon(daemon.client, candidate)
            if daemon is not None
            else _plan_start(paths, candidate)
        )
    except ConfigError as error:
        found = _refusal(error)
    ctx.exit(report(found, candidate_name(file, path), as_json=as_json))


def candidate_name(file: str | None, path: str) -> str:
    """Return what messages call the candidate; ``path``: of the daemon's file."""
    if file is None:
        return path
    return _STANDARD_INPUT if file == "-" else os.path.abspath(file)


def _candidate(file: str | None) -> Candidate | None:
    """Read what was named; None when the file of the home is meant."""
    if file is None:
        return None
    if file == "-":
        content = sys.stdin.buffer.read(LIMIT_BYTES + 1)
        if len(content) > LIMIT_BYTES:
            raise ConfigSyntaxError(
                f"Standard input has more than {LIMIT_BYTES // 1024} KiB.", "Make it shorter."
            )
        return Candidate(_STANDARD_INPUT, content)
    path = os.path.abspath(file)
    found = read_file(path)
    if found is None:
        raise ConfigSyntaxError(f"There is no file {path}.", "Correct the path.")
    return Candidate(path, found)


def ask_daemon(client: ControlClient, candidate: Candidate | None) -> dict[str, Any]:
    """Return the plan of the running daemon for a candidate, None for the file that it has."""
    if candidate is None:
        return dict(ask_patiently(client, "plan"))
    content = candidate.content or b""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        source(candidate.name).judge(content)  # Says at which byte; it can't pass.
        raise
    return dict(ask_patiently(client, "plan", text=text, name=candidate.name))


def ask_patiently(client: ControlClient, do: str, **arguments: Any) -> Any:
    """Ask what needs the store, which is closed for a moment between two generations."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.call(do, **arguments)
        except NetclawError as error:
            if error.slug != StoreClosedError.slug or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)


def source(path: str) -> SettingsFile:
    """Return the reader that a daemon started here would use."""
    from netclawd.cli.agent import judge_told, read_prompt
    from netclawd.cli.channels import find_slack_sdk
    from netclawd.cli.wiring import find_owner, look_for

    # The digest that this key goes into is compared within this command and never shown.
    resolve = Secrets(os.environ).resolve
    return SettingsFile(
        path,
        os.environ,
        b"",
        resolve,
        find_owner,
        look_for,
        read_prompt,
        judge_told,
        find_slack_sdk,
    )


def _plan_start(paths: Paths, candidate: Candidate | None) -> dict[str, Any]:
    reader = source(candidate.name if candidate is not None else paths.config)
    snapshot = (
        reader.judge(candidate.content) if candidate is not None else reader.read(running=False)
    )
    before, compared_with = _before(paths, candidate)
    found = plan_start(before, snapshot, reader.overridden(snapshot))
    return {**found.as_dict(), "compared_with": compared_with}


def _before(paths: Paths, candidate: Candidate | None) -> tuple[Snapshot, str]:
    """Return what served last, as far as it is known, and what it is called."""
    last_good = os.path.join(paths.state, "last-good.toml")
    places = [(last_good, "what served last")]
    places += [(paths.config, paths.config)] if candidate is not None else []
    for path, words in places:
        try:
            content = read_file(path)
            if content is not None:
                return source(path).blind().judge(content), words
        except ConfigError:
            continue  # It could not serve now: nothing to compare with.
    return source(paths.config).judge(None), "the defaults"


def _refusal(error: ConfigError) -> dict[str, Any]:
    refusal = Refusal(error.slug, error.what, error.remedy)
    return Plan(Verdict.REFUSED, refusal=refusal).as_dict()
