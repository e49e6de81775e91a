"""The stages that the tests run on, and the service on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.container.namespace import Namespace, Plain
from tests.container.service import Service
from tests.container.stage import Stage
from tests.process.harness import PROVE

#: By the name that the tests show.
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


@pytest.fixture(params=list(STAGES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stopped(kind: str) -> Iterator[Service]:
    """The service on a stage that is not started."""
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
