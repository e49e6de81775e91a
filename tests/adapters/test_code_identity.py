"""The identity of the code: it changes with the package on disk, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import netclawd
from netclawd.adapters import code_identity as module
from netclawd.adapters.code_identity import code_identity
from tests.waiting import scaled

_PACKAGE = Path(netclawd.__file__).parent


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, which the module under test takes for its own."""
    package = tmp_path / "site" / "netclawd"
    shutil.copytree(_PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "__file__", str(package / "adapters" / "code_identity.py"))
    monkeypatch.setattr(sys, "path", [str(package.parent)])
    return package


def touch(package: Path) -> None:
    path = package / "core" / "lifecycle.py"
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def edit(package: Path) -> None:
    """Another size under the same time, as some packagers set it."""
    path = package / "core" / "lifecycle.py"
    before = path.stat()
    path.write_bytes(path.read_bytes() + b"\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def add(package: Path) -> None:
    (package / "adapters" / "fresh.py").touch()


def remove(package: Path) -> None:
    (package / "adapters" / "log.py").unlink()


def rename(package: Path) -> None:
    (package / "adapters" / "log.py").rename(package / "adapters" / "logs.py")


def schema(package: Path) -> None:
    (package / "netclaw.schema.json").write_text("{}")


def install_another_falcon(package: Path) -> None:
    (package.parent / "falcon-9.9.9.dist-info").mkdir()


def install_another_systemd_python(package: Path) -> None:
    (package.parent / "systemd_python-999.egg-info").touch()


@pytest.mark.parametrize(
    "change",
    [
        touch,
        edit,
        add,
        remove,
        rename,
        schema,
        install_another_falcon,
        install_another_systemd_python,
    ],
)
def test_it_changes_with_the_program(copied: Path, change: Callable[[Path], None]) -> None:
    before = code_identity()
    assert code_identity() == before
    change(copied)
    assert code_identity() != before


def byte_code(package: Path) -> None:
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "errors.cpython-311.pyc").write_bytes(b"x")
    (package / "__pycache__" / "odd.py").write_bytes(b"x")


def leave_notes(package: Path) -> None:
    (package / "core" / "lifecycle.py.orig").write_bytes(b"x")
    (package / "py.typed").write_bytes(b"x")


def install_something_else(package: Path) -> None:
    (package.parent / "colorama-2.0.dist-info").mkdir()


@pytest.mark.parametrize("change", [byte_code, leave_notes, install_something_else])
def test_it_stays_for_what_is_not_the_program(copied: Path, change: Callable[[Path], None]) -> None:
    """A daemon that writes its own byte code must not find itself changed."""
    before = code_identity()
    change(copied)
    assert code_identity() == before


def test_it_changes_with_the_interpreter_on_disk(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade of python3: the link in the virtual environment stays what it was."""
    behind = tmp_path / "python3.11"
    behind.write_bytes(b"old")
    (tmp_path / "python").symlink_to(behind)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    before = code_identity()
    assert code_identity() == before
    behind.write_bytes(b"upgraded")
    assert code_identity() != before
    behind.unlink()
    assert code_identity() != before


def test_it_is_the_same_in_another_process() -> None:
    """What the old image compares with is what the new one finds."""
    command = "from netclawd.adapters.code_identity import code_identity; print(code_identity())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", command],
            capture_output=True,
            text=True,
            check=True,
            timeout=scaled(20),
            cwd=_PACKAGE.parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    assert len(seen.pop().strip()) == 64


def test_a_program_that_vanishes_is_another_one_and_no_error(copied: Path) -> None:
    """An upgrade takes files away before it puts new ones in their place."""
    before = code_identity()
    (copied / "errors.py").unlink()
    (copied / "errors.py").symlink_to(copied / "gone.py")
    half = code_identity()
    shutil.rmtree(copied)
    gone = code_identity()
    assert len({before, half, gone}) == 3
