"""What a path leads through: the folders, links and the file in which a change can be seen.

Reads the file system and changes nothing. The path is walked name by name and link by link, as the
kernel does it (path_resolution(7)); where the way ends early, the last folder is watched for what is
missing.
"""

from __future__ import annotations

import os
import stat
from enum import Enum

from netclawd.core.values import frozen

#: Links that the kernel follows in one path (path_resolution(7)).
LINK_LIMIT = 40


class Role(Enum):
    #: A folder on the way: what matters is that a name appears, goes or is replaced.
    WAY = "way"
    #: The folder where the file should be: writes and permissions matter too.
    FOLDER = "folder"
    FILE = "file"


@frozen
class Place:
    """What is watched at one path."""

    role: Role
    #: Names in the folder that matter; none for a file.
    names: frozenset[str] = frozenset()


#: Path to what is watched there.
Plan = dict[str, Place]


def plan_watches(path: str) -> Plan:
    """Walk an absolute path as the kernel does; return what must be watched to see it change."""
    ways: dict[str, set[str]] = {}
    links = 0
    folder, rest = "/", _parts(path)
    while rest:
        name, rest = rest[0], rest[1:]
        if name == "..":
            folder = os.path.dirname(folder)
            continue
        ways.setdefault(folder, set()).add(name)
        entry = os.path.join(folder, name)
        mode = _mode(entry)
        if stat.S_ISLNK(mode) and links < LINK_LIMIT:
            links += 1
            target = _target(entry)
            folder = "/" if target.startswith("/") else folder
            rest = _parts(target) + rest
        elif stat.S_ISDIR(mode) and rest:
            folder = entry
        else:
            return _plan(ways, folder, entry if stat.S_ISREG(mode) and not rest else None)
    return _plan(ways, folder, None)


def _plan(ways: dict[str, set[str]], last: str, file: str | None) -> Plan:
    plan = {
        folder: Place(Role.FOLDER if folder == last else Role.WAY, frozenset(names))
        for folder, names in ways.items()
    }
    return plan if file is None else {**plan, file: Place(Role.FILE)}


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _mode(path: str) -> int:
    """Return type and permissions, 0 where there is nothing to be seen."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:  # gone since: the next walk sees it
        return ""
