"""The identity of the code: does the disk hold another program than the one that runs?

Path, size and mtime of our own files; names and versions of what we depend on, as the installer's
metadata folders are named; the version of the interpreter that runs, and path, size and mtime of the
one on disk and of its library, which an upgrade replaces under us. Cheap enough for every start: it reads
folders, not files, and imports nothing.
"""

from __future__ import annotations

import hashlib
import os
import sys

#: Distributions whose version matters, normalised.
_DEPENDENCIES = (
    "falcon",
    "waitress",
    "cbor2",
    "click",
    "sdnotify",
    "pyinotify",
    "pyasyncore",
    "jsonschema",
    "tomlkit",
    "prometheus_client",
    "requests",
    "urllib3",
    "croniter",
    "slack_sdk",
    "systemd_python",
)


def code_identity() -> str:
    """Return 64 hex digits that change when the code on disk does."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digest = hashlib.sha256(sys.version.encode())
    for row in (_file(sys.executable), _file(os.__file__), *sorted(_own_files(package))):
        digest.update(row.encode("utf-8", "surrogateescape") + b"\n")
    for name in sorted(_metadata(sys.path)):
        digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _own_files(folder: str) -> list[str]:
    """Return one row a file. What vanishes under our eyes (an upgrade) is a row too, not an error."""
    rows: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        rows += _own_files(entry.path)
                elif entry.name.endswith((".py", ".json")):
                    rows.append(_file(entry.path))
    except OSError:
        rows.append(f"{folder} gone")
    return rows


def _file(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return f"{path} gone"
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _metadata(path: list[str]) -> list[str]:
    """Return ``falcon-4.4.0.dist-info`` and the like from every folder that imports come from."""
    found: list[str] = []
    for folder in path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue  # A zip archive, or a folder that isn't there.
        found += [n for n in names if n.endswith((".dist-info", ".egg-info")) and _ours(n)]
    return found


def _ours(name: str) -> bool:
    return name.split("-")[0].lower().replace(".", "_") in _DEPENDENCIES
