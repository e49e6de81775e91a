"""Machines with the package: one for each systemd, and fresh ones for what installs and removes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.harness import PROVE
from tests.systemd import packages, roots
from tests.systemd.machine import Machine
from tests.systemd.service import Service


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out of the later systemd what is the same on both, unless all is asked for."""
    if PROVE:
        return
    left_out = [item for item in items if item.get_closest_marker("once") and _is_later(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_later(item: pytest.Item) -> bool:
    case = getattr(item, "callspec", None)
    return case is not None and case.params.get("release") in roots.RELEASES[1:]


@pytest.fixture(scope="session")
def package() -> Path:
    return packages.built_package()


@pytest.fixture(
    scope="session", params=roots.RELEASES, ids=[f"systemd-{it.version}" for it in roots.RELEASES]
)
def release(request: pytest.FixtureRequest) -> roots.Release:
    found: roots.Release = request.param
    return found


@pytest.fixture(scope="session")
def root(release: roots.Release, package: Path) -> Path:
    """The folder to boot on; the later release is left out where it couldn't be made."""
    found = roots.root_of(release, roots.depends_of(package))
    if not found.is_dir():
        assert release is not roots.RELEASES[0], f"no {found}: run `make test-systemd`"
        pytest.skip(f"no root of {release.suite} could be made: {roots.why_none(release)}")
    return found


def install(machine: Machine, package: Path) -> str:
    """Install as the README says; return what was printed."""
    place = f"/root/{package.name}"
    machine.copy_in(package, place)
    result = machine.run("apt-get", "install", "-y", "--allow-downgrades", place, timeout_s=120.0)
    return result.out + result.err


@pytest.fixture(scope="session")
def host(root: Path, package: Path) -> Iterator[Machine]:
    """A machine with the package, shared by the tests of one systemd."""
    with Machine(root) as machine:
        install(machine, package)
        machine.run("useradd", "--create-home", "--groups", "netclaw", "alice")
        yield machine


@pytest.fixture
def stopped(host: Machine) -> Iterator[Service]:
    """The service as installed, not started; the test is in the machine's network."""
    service = Service(host)
    service.reset()
    with host.network():
        yield service


@pytest.fixture
def service(stopped: Service) -> Service:
    """The service, ready."""
    stopped.start()
    return stopped


@pytest.fixture
def fresh(root: Path) -> Iterator[Callable[[], Machine]]:
    """Boot machines without the package, the test in the network of the last; they end with the test."""
    with ExitStack() as stack:

        def boot() -> Machine:
            machine = stack.enter_context(Machine(root))
            stack.enter_context(machine.network())
            return machine

        yield boot


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Path]:
    """A folder to make packages in, emptied after the test: they are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)
