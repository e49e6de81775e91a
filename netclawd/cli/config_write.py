"""Brings a changed configuration into force: validates it, writes it, and says what became of it.

The write is the only trigger; nothing is asked to reload. What became of it is found in the restart
journal by the digest of the settings, so it survives the restart's end of the connection.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import click

from netclawd.adapters.control_client import ControlClient
from netclawd.adapters.settings_file import read_file
from netclawd.cli.config_plan import Candidate, ask_daemon, ask_patiently, source
from netclawd.cli.output import duration, note, say_json
from netclawd.cli.progress import Progress, describe_wait
from netclawd.cli.reach import own_paths, reach_or_none
from netclawd.cli.reload import GOOD, report_entry
from netclawd.cli.wiring import replace_settings
from netclawd.core import upgrade
from netclawd.core.plan import changed_values
from netclawd.core.values import as_map, frozen
from netclawd.errors import (
    ConfigError,
    ConfigMeaningError,
    ConfigSchemaError,
    ConfigSyntaxError,
    ConflictError,
    ControlError,
    NetclawError,
    NotRunningError,
)

#: Seconds between two looks for the outcome.
LOOK_S = 0.1
#: Journal entries that one look sees.
ENTRIES = 50

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


def target() -> Target:
    """Find and read the configuration of the running daemon, else that of this home."""
    paths = own_paths()
    daemon = reach_or_none(paths)
    path = (daemon.paths if daemon is not None else paths).config
    return Target(path, read_file(path), daemon.client if daemon is not None else None)


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
    new = reader.judge(content)
    try:
        old = reader.judge(where.content)
    except ConfigError:
        old = reader.judge(None)
    changes = [as_map(change) for change in changed_values(old.effective, new.effective)]
    return Judged(changes, bool(changes), new.published_digest, reader.overridden(new), False)


def put_in_force(where: Target, content: bytes, judged: Judged, follow: Follow) -> int:
    """Write what was judged, wait for what becomes of it, and say so; return the exit code."""
    known = _ended_restarts(where.client)
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


def _ended_restarts(client: ControlClient | None) -> Collection[str]:
    """Return the ids of the restarts that have an outcome already."""
    if client is None:
        return ()
    entries = ask_patiently(client, "restarts", limit=ENTRIES)
    return {entry["id"] for entry in entries if entry["outcome"] != "pending"}


def _wait(
    where: Target, content: bytes, judged: Judged, known: Collection[str], follow: Follow
) -> Mapping[str, Any] | None:
    """Return the journal entry of this change, None when the daemon ended; across the restart."""
    assert where.client is not None
    deadline = time.monotonic() + follow.timeout_s
    with Progress(quiet=follow.as_json) as progress:
        while True:
            try:
                entry = _look(where.client, judged.digest, known)
                if entry is not None:
                    return entry
                _refuse_overwritten(where, content)
                progress.show(describe_wait(where.client.call("status")))
            except NotRunningError:
                return None
            except NetclawError as error:
                if error.slug != "store-closed":  # for a moment, between two generations
                    raise
            if time.monotonic() >= deadline:
                break
            time.sleep(LOOK_S)
    raise ControlError(
        f"{where.path} is written, but the daemon has not taken it up within "
        f"{duration(follow.timeout_s)}.",
        "Look at `netclaw status`; `netclaw reload --wait` asks it to.",
    )


def _look(client: ControlClient, digest: str, known: Collection[str]) -> Mapping[str, Any] | None:
    fresh = [e for e in client.call("restarts", limit=ENTRIES) if e["id"] not in known]
    entry = outcome_of(fresh, digest)
    if entry is None:
        # New code with other defaults has another digest for the same file, and what passed when it was
        # judged may be wrong by now (a secret has gone), so that it has none: ask about the file.
        applied = [e for e in fresh if e["outcome"] == "applied"]
        refused = [e for e in fresh if e["outcome"] == "refused" and not e["new_digest"]]
        verdict = client.call("plan")["verdict"] if applied or refused else ""
        found = {"unchanged": applied, "refused": refused}.get(verdict)
        entry = found[0] if found else None
    return entry


def outcome_of(entries: Sequence[Mapping[str, Any]], digest: str) -> Mapping[str, Any] | None:
    """Return the newest entry that ended with these settings. ``entries``: newest first."""
    ended = (e for e in entries if e["outcome"] not in ("pending", "unchanged"))
    return next((e for e in ended if e["new_digest"] == digest), None)


def _refuse_overwritten(where: Target, content: bytes) -> None:
    if read_file(where.path) != content:
        raise ConflictError(
            f"{where.path} was changed again before the outcome of this change was known.",
            "Look at the file, and at `netclaw restarts`.",
        )
