"""What the marker of a container means."""

from __future__ import annotations

from netclawd.core.container import MARKER, SERVICE, SERVICE_FOLDER, Container, read_marker


def test_without_a_marker_nothing_else_starts_the_daemon() -> None:
    assert read_marker({}) is None
    assert read_marker({MARKER: ""}) is None
    assert read_marker({SERVICE: "/run/service/n"}) is None


def test_any_marker_means_that_something_else_starts_the_daemon() -> None:
    assert read_marker({MARKER: "s6"}) == Container("s6", SERVICE_FOLDER)
    assert read_marker({MARKER: "entrypoint"}) == Container("entrypoint", SERVICE_FOLDER)


def test_the_service_folder_may_be_elsewhere() -> None:
    assert read_marker({MARKER: "s6", SERVICE: "/s/n"}) == Container("s6", "/s/n")
