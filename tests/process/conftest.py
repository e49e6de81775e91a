"""Daemons for the process tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.process.harness import Daemon

if TYPE_CHECKING:
    from tests.counterparts.slack import Workspace


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., Daemon]]:
    """Make daemons (not started) that end with the test; arguments as for Daemon."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Daemon(**options))


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon that is ready."""
    with Daemon() as one:
        yield one.start()


@pytest.fixture
def slack() -> Iterator[Workspace]:
    """A workspace that nobody is connected to yet."""
    from tests.counterparts.slack import Workspace  # Most tests need none.

    with Workspace(acknowledge_s=1.0) as workspace:
        yield workspace
