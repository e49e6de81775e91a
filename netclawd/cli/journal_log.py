"""A daemon's log in the journal: which unit's it is, its records as lines, and reading them."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from netclawd.adapters.log import shown
from netclawd.cli.output import visible
from netclawd.core.values import frozen
from netclawd.errors import ControlError, NotFoundError

if TYPE_CHECKING:
    from netclawd.adapters.journal import JournalReader

#: Words of logging for the priorities of syslog(3).
_LEVELS = ("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARNING", "INFO", "INFO", "DEBUG")


@frozen
class LogUnit:
    """A unit whose daemon logs to the journal."""

    name: str
    #: The user whose systemd runs it; None for the system's.
    uid: int | None = None

    @property
    def journalctl(self) -> str:
        """How a person asks for it."""
        return f"journalctl {'' if self.uid is None else '--user '}-u {self.name}"

    def matches(self, session: str | None) -> list[dict[str, str]]:
        """Return sets of fields of which a record has one; what systemd says of the unit counts too."""
        if self.uid is None:
            own, about = {"_SYSTEMD_UNIT": self.name}, {"_PID": "1", "UNIT": self.name}
        else:
            user = {"_UID": str(self.uid)}
            own, about = {"_SYSTEMD_USER_UNIT": self.name, **user}, {"USER_UNIT": self.name, **user}
        return [own, about] if session is None else [{**own, "SESSION_ID": session}]


def unit_of(pid: int) -> LogUnit | None:
    """Return the service that a process is the main one of, by its cgroup; None when it is in none."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            return read_cgroup(file.read())
    except OSError:
        return None


def read_cgroup(text: str) -> LogUnit | None:
    """Read /proc/PID/cgroup: the last part of the path is the unit (systemd.slice(5))."""
    for path in re.findall(r"^\d+:(?:|name=systemd):(/.*)$", text, re.M):
        name = path.rpartition("/")[2]
        user = re.search(r"/user@(\d+)\.service/", path)
        if name.endswith(".service"):
            return LogUnit(name, int(user[1]) if user else None)
    return None


@contextlib.contextmanager
def open_journal(unit: LogUnit, session: str | None) -> Iterator[JournalReader]:
    """Open the unit's records, or those about a session; errors say how else to see them."""
    try:
        from netclawd.adapters.journal import JournalReader
    except ImportError as error:
        about = "" if session is None else f" SESSION_ID={session}"
        raise ControlError(
            f"The log is in the journal, and systemd-python, which reads it, can't be imported: {error}.",
            f"Install it (Debian: python3-systemd), or use `{unit.journalctl}{about}`.",
        ) from error
    try:
        reader = JournalReader(unit.matches(session), system=unit.uid is None)
    except (ControlError, NotFoundError) as error:
        what = f"The log of {unit.name} is in the journal. {error.what}"
        raise type(error)(what, error.remedy) from error
    with reader:
        yield reader


# -- records as lines ----------------------------------------------------------------------------


def line_of(record: Mapping[str, Any]) -> str:
    """Write a record as it would stand in a file; a traceback on lines of its own."""
    at = _at(record)
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    level = _LEVELS[_priority(record)]
    who = text_of(record.get("LOGGER")) or text_of(record.get("SYSLOG_IDENTIFIER")) or "?"
    first, *rest = text_of(record.get("MESSAGE")).splitlines() or [""]
    ids = shown({k: text_of(v) for k, v in record.items()})
    lines = [f"{clock},{int(at * 1000) % 1000:03d} {level} {who}: {first}{ids}"]
    lines += (line if line.startswith("  ") else f"  {line}" for line in rest)
    return visible("\n".join(lines))


def json_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields for a program: texts, a list where a field has several; ``at`` is the time."""
    fields = {k: v for k, v in record.items() if not k.startswith("__")}
    return {
        "at": _at(record),
        **{k: [*map(text_of, v)] if isinstance(v, list) else text_of(v) for k, v in fields.items()},
    }


def text_of(value: Any) -> str:
    """Return a field as text: of several values the first, of what is no UTF-8 what can be read."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


def _at(record: Mapping[str, Any]) -> float:
    source = text_of(record.get("_SOURCE_REALTIME_TIMESTAMP"))
    if source.isdecimal():
        return int(source) / 1_000_000
    return float(record["__REALTIME_TIMESTAMP"])


def _priority(record: Mapping[str, Any]) -> int:
    text = text_of(record.get("PRIORITY"))
    return int(text) if text in tuple("01234567") else 6
