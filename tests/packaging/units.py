"""The unit files, read as systemd reads them, and its own opinion of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "units"

Settings = dict[str, list[str]]


def read_unit(path: Path) -> Settings:
    """Return every setting of a unit file with its values in order; an empty one takes back the earlier."""
    found: Settings = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found[name] = [*found.get(name, []), value] if value else []
    return found


def only(settings: Settings, name: str) -> str:
    (value,) = settings[name]
    return value


def seconds(text: str) -> float:
    """Read a time as our units write it: plain seconds, or milliseconds."""
    number, unit = re.fullmatch(r"(\d+)(ms|)", text).groups()  # type: ignore[union-attr]
    return int(number) / (1000 if unit else 1)


@dataclass(frozen=True)
class Analyzer:
    """systemd-analyze of this system, or of another one's root folder."""

    name: str
    root: Path | None = None

    def require(self) -> None:
        if self.root is None and shutil.which("systemd-analyze") is None:
            pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
        if self.root is not None and os.geteuid() != 0:
            pytest.skip(f"only root can run the systemd-analyze of {self.root}")

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it in that folder; that of another root sees a copy."""
        self.require()
        if self.root is None:
            return _run("systemd-analyze", *arguments, cwd=folder, runtime=str(folder))
        # In a mount namespace: machines may be booted on that root, so nothing is written into it.
        script = (
            'mount -t tmpfs tmpfs "$1/tmp" && cp -r . "$1/tmp/units" && root=$1 && shift && '
            'exec chroot "$root" sh -c \'cd /tmp/units && exec systemd-analyze "$@"\' sh "$@"'
        )
        entry = ("unshare", "--mount", "sh", "-c", script, "sh", str(self.root))
        return _run(*entry, *arguments, cwd=folder, runtime="/tmp")


def _run(*command: str, cwd: Path, runtime: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        # The last two for units of a user, which no systemd of theirs needs to run for.
        env={
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "LC_ALL": "C",
            "HOME": "/root",
            "XDG_RUNTIME_DIR": runtime,
        },
    )


def analyzers() -> list[Analyzer]:
    """Return this system's, and that of each root folder that `make test-systemd` has made."""
    roots = sorted(
        path
        for path in (ROOT / "build/roots").glob("[a-z]*-*")
        if (path / "usr/bin/systemd-analyze").exists()
    )
    return [Analyzer("here"), *(Analyzer(path.name.partition("-")[0], path) for path in roots)]


def prepare(folder: Path, *paths: Path) -> None:
    """Copy units there; what they start becomes a program that every system has."""
    for path in paths:
        text = re.sub(
            r"^(Exec\w+=)/usr/bin/netclawd?", r"\1/usr/bin/env", path.read_text(), flags=re.M
        )
        (folder / path.name).write_text(text)


def verify(analyzer: Analyzer, folder: Path, units: Iterable[str], *options: str) -> str:
    """Return what it has to say; it exits with 0 for an unknown key, so its words count."""
    done = analyzer.run(folder, *options, "verify", "--man=no", *(f"./{name}" for name in units))
    return done.stdout + done.stderr + (f"exit {done.returncode}" if done.returncode else "")


def exposure(analyzer: Analyzer, folder: Path, unit: str) -> float:
    """Return the exposure level that `systemd-analyze security` shows, 0 to 10."""
    done = analyzer.run(
        folder, "security", "--offline=yes", "--no-pager", "--threshold=100", f"./{unit}"
    )
    found = re.search(r"Overall exposure level .*: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return float(found[1])


def weaknesses(analyzer: Analyzer, folder: Path, unit: str) -> set[str]:
    """Return the names of what it would have otherwise."""
    done = analyzer.run(
        folder, "security", "--offline=yes", "--no-pager", "--json=short", f"./{unit}"
    )
    return {row["json_field"] for row in json.loads(done.stdout) if row["exposure"]}
