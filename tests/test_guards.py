"""The list of guards is true: to the source that it breaks, and to the page that names its tests."""

from __future__ import annotations

import ast
import re

import pytest

from tests.guards import GUARDS, ROOT
from tests.guards_of_channels import Guard
from tests.process.faults import kill_points

PAGE = (ROOT / "docs/internals/restart.md").read_text()


@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: g.name)
def test_a_guard_stands_where_the_list_says(guard: Guard) -> None:
    source = (ROOT / "netclawd" / guard.path).read_text()
    assert source.count(guard.code) == 1
    assert ast.parse(source.replace(guard.code, guard.broken))
    path, _, name = guard.test.partition("::")
    assert f"def {name}" in (ROOT / path).read_text()


@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: g.name)
def test_the_page_names_each_guard_with_its_test(guard: Guard) -> None:
    shown = guard.test.removeprefix("tests/").replace("::", "` `")
    assert f"| {guard.name} | `{guard.path}` | `{shown}` |" in PAGE


def test_the_page_names_no_other_guard() -> None:
    section = PAGE.partition("## Guards")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) == len(GUARDS) + 2


def test_the_tests_that_the_page_names_are_there() -> None:
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for name in re.findall(r"`(?:[\w/]+/)?(test_\w+\.py)`", PAGE):
        assert name in files, f"there is no {name}"
    for name in re.findall(r"`(test_\w+)(?:…)?`", PAGE):
        assert any(f"def {name}" in text for text in files.values()), f"there is no {name}"


def test_each_row_of_a_death_names_kill_points_that_there_are() -> None:
    table = PAGE.partition("| death after |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`((?:before|after)-\w+)`", table))
    assert named <= {f"{point.when}-{point.effect}" for point in kill_points()}
    for row in table.splitlines()[2:]:
        assert re.search(r"`(?:(?:before|after)-\w+|test_\w+\.py)`[^|]*\|$", row), row
