"""The package under test, and others made from it: another version, other contents."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.systemd.roots import CLONE

#: Sorts before and after every version that this tree may have.
LOWER, HIGHER = "0.0~lower", "999~higher"

Change = Callable[[Path], None]


def built_package() -> Path:
    """Return what ``make deb`` built last."""
    found = sorted((CLONE / "build").glob("netclawd_*.deb"), key=lambda it: it.stat().st_mtime)
    assert found, "no package in build/: run `make deb`, or all of it by `make test-systemd`"
    return found[-1]


def repack(package: Path, version: str, folder: Path, change: Change | None = None) -> Path:
    """Make a package of another version; ``change`` gets the folder of what it will install."""
    tree = folder / f"tree-{version}"
    _call("dpkg-deb", "--raw-extract", str(package), str(tree))
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines(keepends=True)
    control.write_text(
        "".join(f"Version: {version}\n" if it.startswith("Version:") else it for it in lines)
    )
    (tree / "DEBIAN/md5sums").unlink(missing_ok=True)
    if change is not None:
        change(tree)
    target = folder / f"netclawd_{version}_all.deb"
    _call("dpkg-deb", "--build", "--root-owner-group", "-Znone", str(tree), str(target))
    return target


def module(tree: Path, name: str) -> Path:
    """Return the file of one of the package's Python modules, named from the package on."""
    return tree / "usr/lib/python3/dist-packages/netclawd" / name


def append(name: str, text: str) -> Change:
    """Return a change that adds lines to the end of a module."""

    def change(tree: Path) -> None:
        path = module(tree, name)
        path.write_text(path.read_text() + text)

    return change


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60.0)
