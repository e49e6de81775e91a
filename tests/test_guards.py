"""The list of guards is true: to the source that it breaks, and to the page that names its tests."""

from __future__ import annotations

import ast

import pytest

from tests.guards import GUARDS, ROOT, Guard

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
