"""The tests that the package brings for autopkgtest, but `upgrade`, which has to build packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.systemd.conftest import install
from tests.systemd.machine import Machine
from tests.systemd.roots import CLONE

TESTS = CLONE / "packaging/debian/tests"


@pytest.mark.once
def test_the_package_passes_its_own_tests(fresh: Callable[[], Machine], package: Path) -> None:
    machine = fresh()
    install(machine, package)
    for path in TESTS.iterdir():
        machine.copy_in(path, f"/root/tests/{path.name}")
    for name in ("smoke", "reload", "purge"):
        machine.run("sh", f"/root/tests/{name}", timeout_s=120.0)
