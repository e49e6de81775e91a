"""The stages that the tests run on, and the service on each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.container import image
from tests.container.engine import Engine, NoPodmanError
from tests.container.namespace import Namespace, Plain
from tests.container.podman import Podman
from tests.container.service import Service
from tests.container.stage import Stage
from tests.process.harness import PROVE
from tests.systemd.packages import built_package
from tests.systemd.roots import SLIM, depends_of, root_of

#: By the name that the tests show; "podman" is the third, which has to be started for a test run.
STAGES: dict[str, Callable[..., Stage]] = {"plain": Plain, "pid1": Namespace}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is the same on every stage to one of them, unless all is asked for."""
    if PROVE:
        return
    left_out = [item for item in items if item.get_closest_marker("once") and _is_other(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_other(item: pytest.Item) -> bool:
    case = getattr(item, "callspec", None)
    return case is not None and case.params.get("kind", "pid1") != "pid1"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """podman with an image of Debian; what needs it is left out where it doesn't run."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(Engine(root_of(SLIM, depends_of(built_package()))))
        except NoPodmanError as error:
            pytest.skip(str(error))
        yield found


@pytest.fixture(scope="session")
def tag(engine: Engine) -> str:
    """The name of the image, built from this tree."""
    name = "localhost/netclawd:test"
    with image.overlay(f"overlay-{os.getpid()}") as overlay:
        image.build(engine, name, {**overlay.arguments, **image.LABELLED})
    return name


@pytest.fixture
def podman(engine: Engine, tag: str) -> Iterator[Callable[..., Podman]]:
    """Make containers, not started; they end with the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Podman:
            return stack.enter_context(Podman(engine, tag, **options))

        yield make


@pytest.fixture(scope="session", params=[*STAGES, "podman"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param not in STAGES:
        request.getfixturevalue("tag")  # Before the first test, which may leave nothing behind.
    return str(request.param)


@pytest.fixture
def stopped(kind: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    """The service on a stage that is not started."""
    if kind not in STAGES:
        yield Service(request.getfixturevalue("podman")())
        return
    with STAGES[kind]() as stage:
        yield Service(stage)


@pytest.fixture
def service(stopped: Service) -> Service:
    """The service, ready."""
    stopped.start()
    return stopped


@pytest.fixture
def container() -> Iterator[Callable[..., Service]]:
    """Make stages with s6-svscan as PID 1, not started; they end with the test."""
    with ExitStack() as stack:

        def make(**options: object) -> Service:
            return Service(stack.enter_context(STAGES["pid1"](**options)))

        yield make
