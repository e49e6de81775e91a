"""What polling takes for a change: another content, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netclawd.adapters.watch.content import Content
from tests.adapters.watching import replace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "netclaw.toml"
    path.write_text("old")
    return path


def test_only_another_content_is_a_change(file: Path) -> None:
    content = Content(str(file))
    assert not content.changed()
    os.utime(file)
    file.chmod(0o600)
    assert not content.changed()
    replace(file, "old")
    assert not content.changed()
    replace(file, "new")
    assert content.changed()
    assert not content.changed()


def test_a_write_that_leaves_the_stat_as_it_was_is_found_by_the_second_look(file: Path) -> None:
    """Within one tick of the file system's clock a write moves nothing but the content."""
    content = Content(str(file))
    frozen_at = file.stat().st_mtime_ns
    with file.open("r+") as stream:
        stream.write("new")
    os.utime(file, ns=(frozen_at, frozen_at))
    # The change time can't be set back: what a look remembers is set forward instead.
    assert content._stat is not None
    content._stat = (*content._stat[:-1], file.stat().st_ctime_ns)
    assert content.changed()


def test_a_missing_file_is_no_change_and_what_comes_instead_is(file: Path) -> None:
    content = Content(str(file))
    file.unlink()
    assert not content.changed()
    file.write_text("old")
    assert not content.changed()
    file.unlink()
    assert not content.changed()
    file.mkdir()
    assert content.changed()
    file.rmdir()
    os.mkfifo(file)
    assert content.changed()
    file.unlink()
    file.symlink_to(file.name)
    assert content.changed()
    assert not content.changed()
    file.unlink()
    file.write_text("new")
    assert content.changed()


def test_a_file_that_comes_later_is_a_change(tmp_path: Path) -> None:
    content = Content(str(tmp_path / "a" / "netclaw.toml"))
    assert not content.changed()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "netclaw.toml").write_text("new")
    assert content.changed()
