"""The generated pages are current, and ``--check`` would tell if they weren't."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from netclawd.cli import docs


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of docs/ that a test may spoil."""
    folder = tmp_path / "docs"
    shutil.copytree(docs.DOCS, folder)
    monkeypatch.setattr(docs, "DOCS", folder)
    return folder


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(docs.command, arguments)
    return result.exit_code, result.output


def test_the_generated_pages_are_current() -> None:
    assert not docs.stale(docs.DOCS), "run `make docs`"


def test_check_names_what_is_stale_and_changes_nothing(copy: Path) -> None:
    page = copy / "internals" / "lifecycle.md"
    page.write_text(page.read_text().replace("READY", "STEADY"))
    before = page.read_text()
    assert run("--check") == (1, "stale: docs/internals/lifecycle.md\n")
    assert page.read_text() == before


def test_check_is_content_with_current_pages(copy: Path) -> None:
    assert run("--check") == (0, "")


def test_a_run_mends_what_is_stale_or_missing_and_keeps_what_is_written_by_hand(
    copy: Path,
) -> None:
    page = copy / "internals" / "lifecycle.md"
    right = page.read_text()
    page.write_text(right.replace("| READY |", "| STEADY |"))
    (copy / "netclaw.toml.5.md").unlink()
    code, output = run()
    assert code == 0
    assert output.splitlines() == [
        "written: docs/internals/lifecycle.md",
        "written: docs/netclaw.toml.5.md",
    ]
    assert page.read_text() == right
    assert run() == (0, "")


@pytest.mark.parametrize(
    "page", ["no markers", docs.BEGIN.format(name="a") + "\n", docs.END], ids=repr
)
def test_a_page_that_lost_its_markers_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="markers of 'a'"):
        docs.fill(page, "a", "content")
