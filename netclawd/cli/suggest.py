"""What a shell may offer for an argument: ids that the daemon, or the disk, knows.

Asked while somebody types: each question has a short deadline, and whatever goes wrong is silent and
offers nothing. What is imported is imported in the functions, because every command imports this.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from netclawd.core.paths import Paths

#: Longest wait for the daemon, seconds.
_ANSWER_S = 1.0
#: So many ids, the newest.
_MOST = 100


def sessions(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Offer sessions, the newest first."""
    found: list[CompletionItem[str]] = []
    with contextlib.suppress(Exception):  # A key press is no place for an error, whatever it is.
        from netclawd.cli.output import ago

        for each in _sessions():
            state = f", turn {each['turn_state']}" if each["turn_state"] else ""
            found.append(CompletionItem(each["id"], help=f"began {ago(each['created_at'])}{state}"))
    return _matching(found, incomplete)


def approvals(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Offer approvals that wait for an answer and are not named yet."""
    found: list[CompletionItem[str]] = []
    with contextlib.suppress(Exception):
        from netclawd.cli.output import visible

        named = ctx.params.get(parameter.name or "") or ()
        for each in _ask("approvals"):
            question = " ".join(visible(each["question"]).split())
            if each["id"] not in named:
                found.append(CompletionItem(each["id"], help=question[:60]))
    return _matching(found, incomplete)


def reminders(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Offer reminders, the next due first."""
    return _matching(_told("reminders", lambda page: page["reminders"]), incomplete)


def messages(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Offer messages of the outbox that are not sent."""
    return _matching(_told("outbox", list), incomplete)


def _told(do: str, rows: Callable[[Any], list[Any]]) -> list[CompletionItem[str]]:
    """Return what a request answers, each with its state and the beginning of its text."""
    found: list[CompletionItem[str]] = []
    with contextlib.suppress(Exception):
        from netclawd.cli.output import visible

        for each in rows(_ask(do, limit=_MOST)):
            text = " ".join(visible(each["text"]).split())
            found.append(CompletionItem(each["id"], help=f"{each['state']}: {text[:60]}"))
    return found


def zones(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Offer the time zones that this host knows."""
    found: list[CompletionItem[str]] = []
    with contextlib.suppress(Exception):
        from zoneinfo import available_timezones

        found += map(CompletionItem, sorted(available_timezones()))
    return _matching(found, incomplete)


def generations(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Offer the generations whose manifest is kept."""
    found: list[CompletionItem[str]] = []
    with contextlib.suppress(Exception):
        from netclawd.cli.output import ago
        from netclawd.cli.wiring import manifest_file

        for each in manifest_file(_paths()).listing():
            if (written := each.manifest) is not None:
                words = f"{written.reason} {ago(written.requested_at)}"
                found.append(CompletionItem(str(written.generation), help=words))
    return _matching(found, incomplete)


def crash_logs(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Offer the crash logs, the newest first."""
    found: list[CompletionItem[str]] = []
    with contextlib.suppress(Exception):
        from netclawd.cli.logs import crash_names

        found += map(CompletionItem, crash_names(os.path.join(_paths().state, "logs")))
    return _matching(found, incomplete)


def config_keys(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Offer the settings that have a fixed name, in the order of netclaw.toml(5)."""
    found: list[CompletionItem[str]] = []
    with contextlib.suppress(Exception):
        from netclawd.adapters.settings_file import packaged_schema
        from netclawd.core.schema import settings_of

        keys = (setting.key for setting in settings_of(packaged_schema()))
        found += [CompletionItem(key) for key in keys if re.fullmatch(r"[a-z0-9_.-]+", key)]
    return _matching(found, incomplete)


def _matching(items: Iterable[CompletionItem[str]], incomplete: str) -> list[Any]:
    return [item for item in items if item.value.startswith(incomplete)]


def _sessions() -> list[dict[str, Any]]:
    from netclawd.cli.reach import own_paths
    from netclawd.cli.wiring import open_store_read_only
    from netclawd.core.values import as_map
    from netclawd.errors import NotRunningError

    try:
        page: dict[str, Any] = _ask("sessions", limit=_MOST)
        return list(page["sessions"])
    except NotRunningError:
        store = open_store_read_only(own_paths())
        try:
            return [as_map(session) for session in store.sessions(None, _MOST).sessions]
        finally:
            store.close()


def _paths() -> Paths:
    """Return the paths of the daemon that answers; this user's own without one."""
    from netclawd.cli.reach import own_paths
    from netclawd.core.paths import Paths
    from netclawd.errors import NotRunningError

    try:
        status = _ask("status")
    except NotRunningError:
        return own_paths()
    return Paths(status["home"], status["config_path"], status["state_dir"], status["runtime_dir"])


def _ask(do: str, **arguments: Any) -> Any:
    """Ask the daemon that a command would ask; NotRunningError when there is none."""
    from netclawd.adapters.control_client import ControlClient
    from netclawd.cli.reach import folders_of, own_paths
    from netclawd.errors import NotRunningError

    for folder in folders_of(own_paths()):
        path = os.path.join(folder, "control.sock")
        with ControlClient(path, patience_s=0.0, answer_s=_ANSWER_S) as client:
            try:
                return client.call(do, **arguments)
            except NotRunningError:
                continue
    raise NotRunningError("No daemon answers.")
