"""Writes a configuration and sees a daemon run with it: the one that runs, or one that its owner starts.

Invariant: no baseline, no success. What ran before is read before the write; where that fails nothing
is written. Nothing here starts a daemon beside one that runs or that somebody else starts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from netclawd.adapters.control_client import PATIENCE_S, ControlClient
from netclawd.adapters.settings_file import read_file
from netclawd.cli import s6
from netclawd.cli.config_write import Judged, Target, judge
from netclawd.cli.daemon import start_through_owner
from netclawd.cli.key_files import Keys, forget, kept
from netclawd.cli.output import duration
from netclawd.cli.progress import Progress, describe_wait
from netclawd.cli.reach import Daemon, answers_for, own_paths, reach_anew, reach_or_none
from netclawd.cli.status import SERVING
from netclawd.cli.supervised import exactly
from netclawd.cli.units import Ownership, find_owner, look_again
from netclawd.cli.uptake import ENTRIES, LOOK_S, Attempt, Entry, ended_restarts, follow
from netclawd.cli.wiring import open_store_read_only, replace_settings
from netclawd.core import budgets
from netclawd.core.container import Container
from netclawd.core.paths import Paths
from netclawd.core.units import Owner
from netclawd.core.uptake import Baseline, Uptake, judge_uptake, read_baseline
from netclawd.core.values import frozen, replace
from netclawd.errors import (
    ConflictError,
    ControlError,
    NetclawError,
    NotRunningError,
    SupervisorError,
)

#: The entry of a restart is written just after READY: awaited this long, seconds.
ENTRY_S = 1.0
#: A daemon that nobody would start again is given up after this, seconds.
AWAY_S = PATIENCE_S
_AWAY = "no daemon answers; it is waited for …"
#: Seconds between two looks into the journal of a daemon that is away.
LEFT_LOOK_S = 1.0


@frozen
class Home:
    """Whose configuration is meant."""

    paths: Paths
    owner: Ownership


def find_home() -> Home:
    """Find the home of this user, or that of the system's unit where this user has none."""
    paths = own_paths()
    owner = find_owner(paths)
    if not isinstance(owner, Owner):
        return Home(paths, owner)
    if owner.borrowed and answers_for(paths):
        return Home(paths, None)
    return Home(exactly(owner), owner)


@frozen
class Change:
    """What is to be written."""

    where: Target
    content: bytes | None
    keys: Keys


@frozen
class Outcome:
    """What came of it."""

    path: str
    written: bool
    #: ready, not-started, not-running, or how the restart failed.
    outcome: str
    code: int = 0
    #: A daemon ran before.
    ran: bool = False
    changes: Sequence[Mapping[str, Any]] = ()
    #: The status of the daemon that has it.
    status: Mapping[str, Any] | None = None
    #: The journal entry of the restart.
    entry: Entry | None = None
    #: What `netclaw daemon start` says of the start as JSON.
    start: Any = None

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        found = self.status or {}
        return {
            "path": self.path,
            "written": self.written,
            "changes": list(self.changes),
            "daemon": self.ran,
            "outcome": self.outcome,
            "pid": found.get("pid"),
            "generation": found.get("generation"),
            "digest": found.get("digest"),
            "addresses": found.get("addresses", []),
            "restart": self.entry,
            "start": self.start,
        }


def bring_up(home: Home, change: Change, *, start: bool, quiet: bool) -> Outcome:
    """Write the content unless it is what was read, and wait for the daemon that has it."""
    running = _daemon_before(home, change.where, quiet=quiet)
    client = None if running is None else running.client
    where, content = replace(change.where, client=client), change.content
    with kept(change.keys, lambda: read_file(where.path) == content) as save:
        judged = judge(where, content or b"")
        if running is not None:
            outcome = _hand_over(home, where, content, judged, save, quiet=quiet)
        else:
            written = _write(where, content, save)
            outcome = Outcome(where.path, written, "not-running", changes=judged.changes)
            if start:
                with _saying_written(where.path, written=written):
                    outcome = _start(home, where, content, outcome, quiet=quiet)
    if outcome.outcome == "ready":
        forget(change.keys)
    return outcome


def _write(where: Target, content: bytes | None, save: Callable[[], None]) -> bool:
    if content is None or content == where.content:
        return False
    replace_settings(where.path, content, where.content)
    save()
    return True


# -- the daemon that runs ------------------------------------------------------------------------


def _daemon_before(home: Home, where: Target, *, quiet: bool) -> Daemon | None:
    """Return the daemon that will see the write, None when none runs.

    One that is stopping is let go first, and one that is booting is let boot or fail: what it says of the
    file is about the old one.
    """
    running = reach_or_none(home.paths)
    deadline = time.monotonic() + budgets.UNIT_STOP_S
    with Progress(quiet=quiet) as progress:
        while time.monotonic() < deadline:
            if running is None and not _boots(home.owner):
                break
            if running is not None and running.status["phase"] != "stopping":
                break
            status = running.status if running is not None else None
            progress.show(describe_wait(status) if status else "a start that is under way …")
            time.sleep(LOOK_S)
            try:
                running = reach_anew(home.paths, running.client if running is not None else None)
            except NotRunningError:
                running = None
    if running is not None and running.paths.config != where.path:
        raise ConflictError(
            f"The daemon that runs by now reads {running.paths.config}, not {where.path}; nothing was "
            "written.",
            "Say it again.",
        )
    return running


def _boots(owner: Ownership) -> bool:
    """Whether the supervisor has a daemon that does not answer yet."""
    match owner:
        case Container():
            try:
                service = s6.look(owner)
            except SupervisorError:
                return False  # Whoever starts one will say why s6 can't be asked.
            return service.up and not service.waiting and not service.serves
        case Owner():
            unit = look_again(owner)
            return unit.active == "activating" and unit.sub != "auto-restart"
    return False


def _hand_over(
    home: Home,
    where: Target,
    content: bytes | None,
    judged: Judged,
    save: Callable[[], None],
    *,
    quiet: bool,
) -> Outcome:
    client = where.client
    assert client is not None
    known = ended_restarts(client)
    before = _baseline(client)
    written = _write(where, content, save)
    attempt = Attempt(where.path, content, judged.digest, known)
    so_far = Outcome(where.path, written, "ready", ran=True, changes=judged.changes)
    with _saying_written(where.path, written=written):
        if judged.refused_before:  # then the write alone is no reason to try it again
            client.call("reload")
        return _Wait(home, attempt, before, effective=judged.effective).run(so_far, quiet=quiet)


@contextlib.contextmanager
def _saying_written(path: str, *, written: bool) -> Iterator[None]:
    """Let an error say what is so by then."""
    try:
        yield
    except ConflictError:
        raise  # It says so itself.
    except NetclawError as error:
        if written:
            error.what = f"{path} is written. {error.what}"
        raise


def _baseline(client: ControlClient) -> Baseline:
    found = read_baseline(client.call("status"))
    if found is None:
        raise ControlError(
            "The daemon that runs does not say which generation and which configuration it is, so that "
            "nobody could see whether it takes a change up; nothing was written.",
            "Look at `netclaw status`; `netclaw daemon stop`, then `netclaw init` again.",
        )
    return found


class _Wait:
    """Waits for the generation that has what was written."""

    def __init__(self, home: Home, attempt: Attempt, before: Baseline, *, effective: bool) -> None:
        self._home = home
        self._attempt = attempt
        self._before = before
        self._effective = effective
        self._client: ControlClient | None = None
        self._taken_at: float | None = None
        self._away_since: float | None = None
        self._left_look_at = float("-inf")

    def run(self, so_far: Outcome, *, quiet: bool) -> Outcome:
        with contextlib.ExitStack() as closed:
            closed.callback(lambda: _close(self._client))
            found = follow(
                self._attempt,
                self._find,
                lambda entry, status: self._judge(so_far, entry, status),
                timeout_s=budgets.INIT_S,
                quiet=quiet,
                on_away=lambda error, progress: self._away(so_far, error, progress),
            )
        if found is None:
            raise ControlError(
                f"No generation has been ready with it within {duration(budgets.INIT_S)}.",
                "Look at `netclaw status`, `netclaw restarts` and `netclaw logs`.",
            )
        return found

    def _find(self) -> ControlClient:
        """Find the endpoint anew: folder or socket may be others by now."""
        last, self._client = self._client, None
        self._client = _find_again(self._home, self._attempt.path, last)
        self._away_since = None
        return self._client

    def _judge(
        self, so_far: Outcome, entry: Entry | None, status: Mapping[str, Any]
    ) -> Outcome | None:
        digest, effective = self._attempt.digest, self._effective
        verdict = judge_uptake(self._before, digest, status, entry, effective=effective)
        if verdict is Uptake.FAILED and entry is not None:
            failed = replace(so_far, outcome=entry["outcome"], code=1, entry=entry)
            # The entry of a crash knows only that there was one; what became of it the next daemon says.
            return replace(failed, status=status) if entry["outcome"] == "crashed" else failed
        if verdict is not Uptake.TAKEN:
            return None
        now = time.monotonic()
        self._taken_at = now if self._taken_at is None else self._taken_at
        if effective and entry is None and now - self._taken_at < ENTRY_S:
            return None
        return replace(so_far, status=status, entry=entry)

    def _away(self, so_far: Outcome, error: NetclawError, progress: Progress) -> Outcome | None:
        """Look for what a daemon that has ended left behind; wait for who starts it again."""
        now = time.monotonic()
        if not isinstance(error, NotRunningError):  # It is there, and does not answer in time.
            self._away_since = None
        elif self._away_since is None:
            self._away_since = now
        if now - self._left_look_at >= LEFT_LOOK_S:
            self._left_look_at = now
            entry = _left_behind(self._home, self._attempt)
            if entry is not None:
                return replace(so_far, outcome=entry["outcome"], code=1, entry=entry)
        away_s = 0.0 if self._away_since is None else now - self._away_since
        if self._home.owner is None and away_s > AWAY_S:
            raise ControlError(
                "The daemon has ended, and nobody has started it again.",
                "See why with `netclaw logs`; `netclaw daemon start` starts it.",
            )
        progress.show(_AWAY)
        return None


def _find_again(home: Home, config: str, last: ControlClient | None) -> ControlClient:
    """Return the client of the daemon that answers; another one's, with another file, counts as none."""
    daemon = reach_anew(home.paths, last)
    if os.path.realpath(daemon.paths.config) != os.path.realpath(config):
        daemon.client.close()
        raise NotRunningError(f"The daemon that answers reads {daemon.paths.config}, not {config}.")
    return daemon.client


def _close(client: ControlClient | None) -> None:
    if client is not None:
        client.close()


def _left_behind(home: Home, attempt: Attempt) -> Entry | None:
    """Return the refusal of this attempt that ended the daemon (daemon.on_invalid_config = "abort")."""
    try:
        store = open_store_read_only(home.paths)
    except NetclawError:
        return None
    try:
        entries = [record.as_dict() for record in store.restarts(ENTRIES)]
    except NetclawError:
        return None
    finally:
        store.close()
    fresh = [e for e in entries if e["id"] not in attempt.known and e["outcome"] == "refused"]
    return next((e for e in fresh if e["new_digest"] in ("", attempt.digest)), None)


# -- the daemon that is started ------------------------------------------------------------------


def _start(
    home: Home, where: Target, content: bytes | None, so_far: Outcome, *, quiet: bool
) -> Outcome:
    """Have the daemon started, and see that it runs with the file and not with something else."""
    code, told = _start_through_owner(quiet=quiet)
    if code:
        return replace(so_far, outcome="not-started", code=code, start=told)
    client: ControlClient | None = None

    def find() -> ControlClient:
        nonlocal client
        client = _find_again(home, where.path, client)
        return client

    def judge(_entry: Entry | None, status: Mapping[str, Any]) -> Outcome | None:
        assert client is not None
        if status["refusal"] is not None:
            return replace(so_far, outcome="refused", code=1, status=status, start=told)
        # Its environment is its own, so whether this is what it serves it has to say itself.
        served = status["phase"] in SERVING
        if served and client.call("plan")["verdict"] == "unchanged":
            return replace(so_far, outcome="ready", status=status, start=told)
        return None

    with contextlib.ExitStack() as closed:
        closed.callback(lambda: _close(client))
        found = follow(
            Attempt(where.path, content, "", ()),
            find,
            judge,
            timeout_s=budgets.INIT_S,
            quiet=quiet,
            on_away=lambda _error, progress: progress.show(_AWAY),
        )
    if found is None:
        raise ControlError(
            f"No daemon has been ready with {where.path} within {duration(budgets.INIT_S)}.",
            "Look at `netclaw status` and `netclaw logs`.",
        )
    return found


def _start_through_owner(*, quiet: bool) -> tuple[int, Any]:
    """Return the exit code of the start, and what it printed for a program; a person has read it."""
    if not quiet:
        return start_through_owner(own_paths(), as_json=False), None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = start_through_owner(own_paths(), as_json=True)
    return code, json.loads(printed.getvalue())
