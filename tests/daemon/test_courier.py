"""Each message is shown exactly once: whatever the platform answers, and wherever the daemon dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.couriers import PART, Scene, parts_of

#: All points of interruption; otherwise some of them.
PROVE = os.environ.get("NETCLAW_PROVE") == "1"

LONG = "x" * PART + "y" * PART + "z"
QUESTION = "May I?"
GRANTED = "May I?\n\nGranted by paper U1."


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def play(scene: Scene) -> None:
    """A conversation with all that a message can meet: streaming, parts, a question that is answered."""
    first = scene.admit("C/1", 1)
    scene.say(first, "Let me")
    scene.settle(2.0)
    scene.say(first, "Let me see, I think")
    scene.settle(2.0)
    scene.answer(first, LONG)
    asks = scene.admit("C/2", 2)
    scene.ask(asks, "apr-1", QUESTION)
    scene.settle(3.0)
    scene.decide(asks, "apr-1")
    scene.answer(scene.admit("C/3", 3), "short")
    scene.settle(3.0)
    ended = scene.admit("C/1", 4)
    scene.answer(ended, "again")
    scene.settle()


def assert_shown_once(scene: Scene) -> None:
    platform = scene.platform
    assert platform.of("t-1") == list(enumerate(parts_of(LONG)))
    assert platform.of("t-3") == [(0, "short")]
    assert platform.of("t-4") == [(0, "again")]
    states = scene.states()
    if platform.of("apr-1") or states["apr-1"] != "dropped":
        assert platform.of("apr-1") == list(enumerate(parts_of(GRANTED)))
    else:  # It was answered elsewhere before it could be asked here.
        assert scene.deaths, "nothing kept it from being asked"
        del states["apr-1"]
    assert set(states.values()) == {"sent"}


def count_effects(folder: Path) -> list[str]:
    scene = Scene(folder)
    try:
        play(scene)
        assert_shown_once(scene)
        return scene.effects
    finally:
        scene.close()


def test_a_conversation_is_shown_as_it_was_meant(tmp_path: Path) -> None:
    effects = count_effects(tmp_path)
    assert effects.count("post") == len(parts_of(LONG)) + 2 + len(parts_of(GRANTED))
    assert "look" not in effects, "nothing was in doubt"


@pytest.mark.parametrize("lands_after_s", [None, 0.0, 3.0], ids=["cut", "landed", "lands-late"])
def test_a_death_before_any_effect_shows_nothing_twice_and_loses_nothing(
    tmp_path: Path, lands_after_s: float | None
) -> None:
    (tmp_path / "count").mkdir()
    effects = count_effects(tmp_path / "count")
    points = [n for n, what in enumerate(effects) if lands_after_s is None or what == "post"]
    for point in points if PROVE else points[:: max(1, len(points) // 15)]:
        folder = tmp_path / f"{point}"
        folder.mkdir()
        scene = Scene(folder)
        scene.die_before, scene.lands_after_s = point, lands_after_s
        try:
            play(scene)
            assert scene.deaths == 1
            assert_shown_once(scene)
        except AssertionError as error:
            before = effects[max(0, point - 3) : point + 1]
            raise AssertionError(f"dead before effect {point}, {before}: {error}") from error
        finally:
            scene.close()
