"""Follows a written configuration until the daemon has taken it up or refused it, across restarts.

What became of it is found in the restart journal by the digest of the settings, so it survives the
restart's end of the connection; a daemon that has ended left it in the session store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from netclawd.adapters.control_client import ControlClient
from netclawd.adapters.settings_file import read_file
from netclawd.cli.config_plan import ask_patiently
from netclawd.cli.progress import Progress, describe_wait
from netclawd.core.values import frozen
from netclawd.errors import ConflictError, NetclawError, NoAnswerError, NotRunningError

#: Seconds between two looks for the outcome.
LOOK_S = 0.1
#: Journal entries that one look sees.
ENTRIES = 50

Entry = Mapping[str, Any]
T = TypeVar("T")


@frozen
class Attempt:
    """One write of the configuration, by what it is recognised."""

    path: str
    content: bytes | None
    #: Published digest of the settings.
    digest: str
    #: Ids of the restarts that had an outcome before it.
    known: Collection[str]


def ended_restarts(client: ControlClient | None) -> Collection[str]:
    """Return the ids of the restarts that have an outcome already."""
    if client is None:
        return ()
    entries = ask_patiently(client, "restarts", limit=ENTRIES)
    return {entry["id"] for entry in entries if entry["outcome"] != "pending"}


def follow(
    attempt: Attempt,
    find: Callable[[], ControlClient],
    judge: Callable[[Entry | None, Mapping[str, Any]], T | None],
    *,
    timeout_s: float,
    quiet: bool,
    on_away: Callable[[NetclawError, Progress], T | None],
) -> T | None:
    """Look again and again until ``judge`` makes something of a look; None when the time is over.

    ``find`` says whom to ask, anew for each look. ``judge`` is given the journal entry of the attempt, if
    it has ended, and the status; ``on_away`` is called instead when no daemon answers, or not in time.
    ConflictError when somebody else has changed the file since.
    """
    deadline = time.monotonic() + timeout_s
    with Progress(quiet=quiet) as progress:
        while True:
            try:
                client = find()
                entry = look(client, attempt)
                status = client.call("status")
                found = judge(entry, status)
                if found is None:
                    refuse_overwritten(attempt)
                    progress.show(describe_wait(status))
            except (NotRunningError, NoAnswerError) as error:
                found = on_away(error, progress)
            except NetclawError as error:
                if error.slug != "store-closed":  # for a moment, between two generations
                    raise
                found = None
            if found is not None or time.monotonic() >= deadline:
                return found
            time.sleep(LOOK_S)


def look(client: ControlClient, attempt: Attempt) -> Entry | None:
    """Return the journal entry of the attempt once it has an outcome."""
    entries = client.call("restarts", limit=ENTRIES)
    fresh = [e for e in entries if e["id"] not in attempt.known]
    entry = outcome_of(fresh, attempt.digest)
    if entry is None:
        # New code with other defaults has another digest for the same file, and what passed when it was
        # judged may be wrong by now (a secret has gone), so that it has none: ask about the file.
        applied = [e for e in fresh if e["outcome"] == "applied"]
        refused = [e for e in fresh if e["outcome"] == "refused" and not e["new_digest"]]
        plan: Entry = client.call("plan") if applied or refused else {}
        # Of what was applied, what led to the generation that has it: others may have been before.
        applied = [e for e in applied if e["new_generation"] == plan["generation"]]
        found = {"unchanged": applied, "refused": refused}.get(plan.get("verdict", ""))
        entry = found[0] if found else None
    return entry


def outcome_of(entries: Sequence[Entry], digest: str) -> Entry | None:
    """Return the newest entry that ended with these settings. ``entries``: newest first."""
    ended = (e for e in entries if e["outcome"] not in ("pending", "unchanged"))
    return next((e for e in ended if e["new_digest"] == digest), None)


def refuse_overwritten(attempt: Attempt) -> None:
    """Raise ConflictError when the file is no longer what was written."""
    if read_file(attempt.path) != attempt.content:
        raise ConflictError(
            f"{attempt.path} was changed again before the outcome of this change was known.",
            "Look at the file, and at `netclaw restarts`.",
        )
