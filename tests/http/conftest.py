"""Fixtures for the HTTP side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http.running import Images, Running


@pytest.fixture
def images() -> Iterator[Images]:
    """Servers that are stopped after the test."""
    found = Images()
    yield found
    found.stop()


@pytest.fixture
def running(images: Images) -> Running:
    """One server on a free port."""
    return images.first()
