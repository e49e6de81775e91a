"""Where a daemon looks for the marker of a package upgrade, and what counts as one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from netclawd.adapters.clock import SystemClock
from netclawd.core import budgets
from netclawd.daemon.upgrade import Upgrade


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "own", tmp_path / "package"


def look(places: tuple[Path, Path]) -> Upgrade:
    return Upgrade([str(place) for place in places], SystemClock())


@pytest.mark.parametrize("which", [0, 1])
def test_a_marker_at_either_place_holds_restarts_back_and_is_named(
    places: tuple[Path, Path], which: int
) -> None:
    known = look(places)
    assert known.refusal() is None
    places[which].touch()
    refusal = known.refusal()
    assert refusal is not None
    assert str(places[which]) in refusal.reason


def test_a_forgotten_marker_does_not_hide_one_that_counts(places: tuple[Path, Path]) -> None:
    for place in places:
        place.touch()
    at = time.time() - 2 * budgets.UPGRADE_MARKER_S
    os.utime(places[0], (at, at))
    refusal = look(places).refusal()
    assert refusal is not None
    assert str(places[1]) in refusal.reason


def test_a_folder_counts_and_a_link_that_leads_nowhere_does_not(places: tuple[Path, Path]) -> None:
    """Whatever is there is looked at only; who may write there may hold restarts back anyway."""
    places[0].symlink_to(places[1])
    assert look(places).refusal() is None
    places[1].mkdir()
    assert look(places).refusal() is not None
