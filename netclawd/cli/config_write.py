"""Brings a changed configuration into force: validates it, writes it, and says what became of it.

The write is the only trigger; nothing is asked to reload. What became of it is found in the restart
journal by the digest of the settings, so it survives the restart's end of the connection.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import click

from netclawd.adapters.control_client import ControlClient
from netclawd.adapters.settings_file import parse_toml, read_file
from netclawd.cli.config_plan import Candidate, ask_daemon, source
from netclawd.cli.output import duration, note, say_json
from netclawd.cli.progress import Progress
from netclawd.cli.reach import own_paths, reach_or_none
from netclawd.cli.reload import GOOD, report_entry
from netclawd.cli.uptake import Attempt, ended_restarts, follow
from netclawd.cli.wiring import replace_settings
from netclawd.core import upgrade
from netclawd.core.edits import pruned
from netclawd.core.paths import Paths
from netclawd.core.plan import changed_values
from netclawd.core.values import as_map, frozen
from netclawd.errors import (
    ConfigError,
    ConfigMeaningError,
    ConfigNotWrittenError,
    ConfigSchemaError,
    ConfigSyntaxError,
    ConflictError,
    ControlError,
    NetclawError,
    NotRunningError,
)

_KINDS = {kind.slug: kind for kind in (ConfigSyntaxError, ConfigSchemaError, ConfigMeaningError)}


@frozen
class Target:
    """The file that is changed, as it was read, and the daemon that runs with it."""

    path: str
    content: bytes | None
    client: ControlClient | None


@frozen
class Judged:
    """What is known of a new content before it is written."""

    changes: Sequence[Mapping[str, Any]]
    #: A daemon would restart for it.
    effective: bool
    digest: str
    environment: Mapping[str, str]
    refused_before: bool


@frozen
class Follow:
    """How the outcome is waited for and told."""

    wait: bool
    timeout_s: float
    as_json: bool


def target(paths: Paths | None = None) -> Target:
    """Find and read the configuration of the running daemon, else that of this home."""
    paths = own_paths() if paths is None else paths
    daemon = reach_or_none(paths)
    path = (daemon.paths if daemon is not None else paths).config
    return Target(path, read_file(path), daemon.client if daemon is not None else None)


def check_edit(where: Target, edited: str, expected: Mapping[str, Any]) -> None:
    """Hold the editing library to what was meant; a table that is empty now may stay or go."""
    if pruned(parse_toml(edited.removeprefix("\ufeff"), where.path)) != pruned(expected):
        raise ConfigNotWrittenError(
            f"The layout of {where.path} leaves no room for this change.",
            "Make it by hand: `netclaw config edit`.",
        )


def judge(where: Target, content: bytes) -> Judged:
    """Validate a content as the daemon would, with its environment; ConfigError says what is wrong."""
    if where.client is None:
        return _judge_here(where, content)
    plan = ask_daemon(where.client, Candidate(where.path, content))
    if plan["verdict"] == "refused":
        refusal = plan["refusal"]
        if refusal["slug"] == upgrade.SLUG:
            raise ConflictError(refusal["reason"], "Say it again when the upgrade is over.")
        kind = _KINDS.get(refusal["slug"], ConfigError)
        raise kind(refusal["reason"], refusal["remedy"])
    effective = bool(plan["changes"]) or plan["secrets_changed"]
    return Judged(
        plan["changes"],
        effective,
        plan["new_digest"],
        plan["environment"],
        plan["refused_before"],
    )


def _judge_here(where: Target, content: bytes) -> Judged:
    reader = source(where.path)
    try:
        old = reader.blind().judge(where.content)
    except ConfigError:
        old = reader.judge(None)
    # A tunnel that doesn't run just now is no reason against a change that has nothing to do with it.
    new = reader.judge(content, served=old.settings.daemon)
    changes = [as_map(change) for change in changed_values(old.effective, new.effective)]
    return Judged(changes, bool(changes), new.published_digest, reader.overridden(new), False)


def put_in_force(where: Target, content: bytes, judged: Judged, follow: Follow) -> int:
    """Write what was judged, wait for what becomes of it, and say so; return the exit code."""
    known = ended_restarts(where.client)
    replace_settings(where.path, content, where.content)
    result = outcome(where, written=True) | {"changes": judged.changes}
    entry, words, good = None, "", True
    if where.client is None:
        words = "No daemon runs: it takes effect at the next start."
    elif not judged.effective:
        result["outcome"] = "unchanged"
        words = "The daemon has nothing to do: every value is what it is running with."
    elif judged.refused_before:
        good, words = False, "The daemon refused this content before: `netclaw reload` tries again."
    elif not follow.wait:
        words = "The daemon takes it up by itself; what becomes of it stands in `netclaw restarts`."
    else:
        entry = _wait(where, content, judged, known, follow)
        if entry is None:
            words = "The daemon has ended meanwhile: it takes effect at the next start."
    if entry is not None:
        result |= {"outcome": entry["outcome"], "restart": entry}
        good = entry["outcome"] in GOOD
    if follow.as_json:
        say_json(result)
    else:
        _tell(where, entry, words, good=good)
    return 0 if good else 1


def outcome(where: Target, *, written: bool) -> dict[str, Any]:
    """Return what ``--json`` prints while nothing is known yet."""
    running = where.client is not None
    return {
        "path": where.path,
        "written": written,
        "changes": [],
        "daemon": running,
        "outcome": None,
        "restart": None,
    }


def _tell(where: Target, entry: Mapping[str, Any] | None, words: str, *, good: bool) -> None:
    if entry is None:
        return click.echo(words) if good else note(words)
    report_entry(entry)
    if not good:
        click.echo(
            f"  {where.path} has the change all the same: set it back, or mend the cause and "
            "`netclaw reload`.",
            err=True,
        )
    return None


def _wait(
    where: Target, content: bytes, judged: Judged, known: Collection[str], wanted: Follow
) -> Mapping[str, Any] | None:
    """Return the journal entry of this change, None when the daemon ended; across the restart."""
    client = where.client
    assert client is not None
    ended = False

    def on_away(error: NetclawError, _progress: Progress) -> Mapping[str, Any]:
        nonlocal ended
        if not isinstance(error, NotRunningError):
            raise error
        ended = True  # The client has been patient already.
        return {}

    entry = follow(
        Attempt(where.path, content, judged.digest, known),
        lambda: client,
        lambda entry, _status: entry,
        timeout_s=wanted.timeout_s,
        quiet=wanted.as_json,
        on_away=on_away,
    )
    if entry is None:
        raise ControlError(
            f"{where.path} is written, but the daemon has not taken it up within "
            f"{duration(wanted.timeout_s)}.",
            "Look at `netclaw status`; `netclaw reload --wait` asks it to.",
        )
    return None if ended else entry
