"""Value classes behave like frozen dataclasses with slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError

import pytest

from netclawd.core.values import as_map, field, frozen, is_value, replace


class Base:
    __slots__ = ()


@frozen
class Empty(Base):
    """No fields."""


@frozen
class AlsoEmpty(Base):
    """No fields either."""


@frozen
class Point(Base):
    x: int
    #: With a default.
    y: int = 7
    tags: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.x + self.y


@frozen
class Deep(Point):
    points: tuple[Point, ...] = ()


def test_fields_are_set_by_position_and_by_name() -> None:
    assert (Point(1, 2).x, Point(1, 2).y, Point(x=1).y, Point(1).total) == (1, 2, 7, 8)


def test_a_missing_or_unknown_field_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Point(1, z=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        replace(Point(1), z=1)


def test_a_value_can_not_be_changed() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    with pytest.raises((FrozenInstanceError, AttributeError)):
        point.z = 2  # type: ignore[attr-defined]
    assert point.x == 1
    assert not hasattr(point, "__dict__")


def test_equality_holds_within_one_class_only() -> None:
    assert Point(1) == Point(1)
    assert Point(1) != Point(2)
    assert Empty() == Empty()
    others: tuple[object, ...] = (Empty(), AlsoEmpty())
    assert others[0] != others[1]
    assert len({Empty(), Empty(), AlsoEmpty()}) == 2


def test_hash_follows_equality() -> None:
    assert hash(Deep(1, 2, (), ())) == hash(Deep(1, 2, (), ()))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        hash(Point(1, tags={"a": 1}))


def test_a_default_factory_gives_each_instance_its_own() -> None:
    assert Point(1).tags is not Point(1).tags
    assert Point(1).tags == {}


def test_replace_copies_and_changes() -> None:
    before = Point(1, tags={"a": 1})
    assert replace(before, x=5) == Point(5, 7, {"a": 1})
    assert before.x == 1


def test_a_subclass_has_the_fields_of_its_base_first() -> None:
    deep = Deep(1, points=(Point(2),))
    assert as_map(deep) == {"x": 1, "y": 7, "tags": {}, "points": ({"x": 2, "y": 7, "tags": {}},)}
    assert is_value(deep)
    assert not is_value(deep.points)


def test_repr_and_patterns_name_the_fields() -> None:
    assert repr(Point(1)) == "Point(x=1, y=7, tags={})"
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
