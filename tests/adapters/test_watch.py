"""The watcher, by inotify and by polling: every way in which a configuration file is replaced in practice.

inotify is missing for good where a folder's name is not UTF-8 (the binding can't pass it on): that is
how the same tests run on polling without a namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netclawd.adapters.watch import FileWatcher, WatchError
from netclawd.adapters.watch.watcher import SETTLE_S
from netclawd.adapters.watch.way import Role, plan_watches
from netclawd.ports import WatchMode
from tests.adapters.watching import spawn
from tests.leftovers import descriptors
from tests.waiting import scaled, wait_for

#: Between two looks where the file is polled, seconds.
POLL_S = 0.05
only_inotify = pytest.mark.parametrize("folder", [WatchMode.INOTIFY], indirect=True)


class Changes:
    """Counts the calls of ``on_change`` and what the file held at each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[str | None] = []
        self._ready = threading.Condition()

    def on_change(self) -> None:
        with self._ready:
            self.seen.append(self.path.read_text() if self.path.exists() else None)
            self._ready.notify_all()

    def expect(self, content: str | None) -> None:
        """Wait until a change was told at which the file held ``content``."""
        wait_for(lambda: content in self.seen, 5, lambda: f"{content!r} among {self.seen}")
        self.seen.clear()

    def none_within(self, timeout_s: float) -> bool:
        with self._ready:
            return not self._ready.wait_for(lambda: bool(self.seen), scaled(timeout_s))


@pytest.fixture(params=[WatchMode.INOTIFY, WatchMode.POLLING])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    top = "etc" if request.param is WatchMode.INOTIFY else os.fsdecode(b"etc-\xff")
    folder = tmp_path / top / "netclaw"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "netclaw.toml"
    path.write_text("old")
    return path


@pytest.fixture
def changes(file: Path) -> Iterator[Changes]:
    yield from watched(file)


def watched(file: Path) -> Iterator[Changes]:
    seen = Changes(file)
    watcher = FileWatcher(str(file), spawn, poll_s=POLL_S)
    watcher.start(seen.on_change)
    try:
        yield seen
        polled = not os.fsencode(file).isascii()
        assert watcher.state().mode is (WatchMode.POLLING if polled else WatchMode.INOTIFY)
    finally:
        watcher.stop()


def test_a_write_in_place_is_told_once_it_has_settled(file: Path, changes: Changes) -> None:
    with file.open("w") as stream:
        for part in ("n", "e", "w"):
            stream.write(part)
            stream.flush()
    changes.expect("new")
    assert changes.none_within(2 * SETTLE_S)


def test_a_writer_that_keeps_the_file_open_is_noticed(file: Path, changes: Changes) -> None:
    with file.open("w") as stream:
        stream.write("new")
        stream.flush()
        changes.expect("new")


def test_sed_in_place_is_noticed(file: Path, changes: Changes) -> None:
    subprocess.run(["sed", "-i", "s/old/new/", str(file)], check=True)
    changes.expect("new")


def test_a_rename_over_the_file_is_noticed_again_and_again(file: Path, changes: Changes) -> None:
    for content in ("first", "second", "third"):
        fresh = file.with_name(f".{content}")
        fresh.write_text(content)
        fresh.rename(file)
        changes.expect(content)


def test_a_write_through_another_name_is_noticed(file: Path, changes: Changes) -> None:
    other = file.parent.parent / "other-name"
    os.link(file, other)
    other.write_text("new")
    changes.expect("new")


def test_the_file_is_deleted_and_made_again(file: Path, changes: Changes) -> None:
    file.unlink()
    file.write_text("new")
    changes.expect("new")
    file.write_text("newer")
    changes.expect("newer")


@only_inotify
def test_that_the_file_is_gone_is_told_before_it_comes_back(file: Path, changes: Changes) -> None:
    file.unlink()
    changes.expect(None)
    file.write_text("old")
    changes.expect("old")


def test_the_folder_is_deleted_and_made_again(file: Path, changes: Changes) -> None:
    shutil.rmtree(file.parent)
    file.parent.mkdir()
    file.write_text("new")
    changes.expect("new")


def test_a_folder_that_someone_stands_in_is_deleted_and_made_again(
    file: Path, changes: Changes
) -> None:
    fd = os.open(file.parent, os.O_PATH)
    try:
        shutil.rmtree(file.parent)
        file.parent.mkdir()
        file.write_text("new")
        changes.expect("new")
    finally:
        os.close(fd)


def test_several_levels_are_deleted_and_made_again(file: Path, changes: Changes) -> None:
    shutil.rmtree(file.parent.parent)
    file.parent.mkdir(parents=True)
    file.write_text("new")
    changes.expect("new")
    file.write_text("newer")
    changes.expect("newer")


def test_a_folder_further_up_is_exchanged(file: Path, changes: Changes) -> None:
    etc = file.parent.parent
    (etc.parent / "etc.new" / "netclaw").mkdir(parents=True)
    (etc.parent / "etc.new" / "netclaw" / "netclaw.toml").write_text("new")
    etc.rename(etc.parent / "etc.old")
    (etc.parent / "etc.new").rename(etc)
    changes.expect("new")
    file.write_text("newer")
    changes.expect("newer")


def test_a_config_map_is_swapped_as_kubernetes_does_it(folder: Path) -> None:
    def publish(version: str) -> None:
        (folder / version).mkdir()
        (folder / version / "netclaw.toml").write_text(version)
        (folder / "..data_tmp").symlink_to(version)
        (folder / "..data_tmp").rename(folder / "..data")

    publish("..1")
    file = folder / "netclaw.toml"
    file.symlink_to("..data/netclaw.toml")
    for changes in watched(file):
        for old, new in (("..1", "..2"), ("..2", "..3")):
            publish(new)
            shutil.rmtree(folder / old)
            changes.expect(new)


def test_a_link_somewhere_on_the_way_is_moved(tmp_path: Path) -> None:
    for release in ("1", "2"):
        (tmp_path / "releases" / release).mkdir(parents=True)
        (tmp_path / "releases" / release / "netclaw.toml").write_text(release)
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "1")
    for changes in watched(tmp_path / "current" / "netclaw.toml"):
        (tmp_path / "next").symlink_to("releases/2")
        (tmp_path / "next").rename(tmp_path / "current")
        changes.expect("2")
        (tmp_path / "releases" / "2" / "netclaw.toml").write_text("2, edited")
        changes.expect("2, edited")


@only_inotify
def test_a_file_that_becomes_readable_is_noticed(file: Path, changes: Changes) -> None:
    file.chmod(0o640)
    changes.expect("old")


def test_what_happens_to_other_files_is_not_told(file: Path, changes: Changes) -> None:
    neighbour = file.with_name("netclaw.toml.swp")
    neighbour.write_text("x")
    neighbour.unlink()
    assert changes.none_within(2 * SETTLE_S)


def test_an_absent_folder_is_made(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "netclaw.toml"
    for changes in watched(file):
        assert file.parent.is_dir()
        file.write_text("new")
        changes.expect("new")


def test_a_folder_that_can_not_be_made_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    watcher = FileWatcher(str(tmp_path / "a" / "netclaw.toml"), spawn)
    with pytest.raises(WatchError, match="can't be created"):
        watcher.start(lambda: None)


def test_a_thread_that_can_not_be_started_leaves_nothing_open(file: Path) -> None:
    def fail(_name: str, _target: Callable[[], None]) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError):
        FileWatcher(str(file), fail).start(lambda: None)


def test_stopping_twice_and_without_a_start_does_no_harm(file: Path) -> None:
    FileWatcher(str(file), spawn).stop()
    watcher = FileWatcher(str(file), spawn)
    watcher.start(lambda: None)
    watcher.stop()
    watcher.stop()


@only_inotify
def test_the_descriptors_do_not_cross_an_exec(file: Path) -> None:
    before = descriptors()
    watcher = FileWatcher(str(file), spawn)
    watcher.start(lambda: None)
    try:
        ours = descriptors() - before
        assert any("inotify" in target for _, target in ours)
        assert not any(os.get_inheritable(fd) for fd, _ in ours)
    finally:
        watcher.stop()


def test_links_in_a_circle_end_the_walk(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    plan = plan_watches(str(tmp_path / "a"))
    assert plan[str(tmp_path)].names == {"a", "b"}


def test_a_plan_names_the_folder_of_the_file_and_the_way_there(file: Path) -> None:
    plan = plan_watches(str(file.parent / "." / ".." / "netclaw" / file.name))
    assert plan[str(file)].role is Role.FILE
    assert plan[str(file.parent)].role is Role.FOLDER
    assert plan[str(file.parent.parent)].role is Role.WAY
    assert plan["/"].role is Role.WAY
