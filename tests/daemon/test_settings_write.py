"""The configuration file is replaced whole or not at all, and never over somebody else's change."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.daemon import settings_write
from netclawd.daemon.settings_write import replace_settings
from netclawd.errors import ConfigNotWrittenError, ConflictError

OLD, NEW = b"# old\n", b"# new\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "netclaw.toml"
    path.write_bytes(OLD)
    return path


def test_the_content_is_replaced_by_one_rename(file: Path) -> None:
    inode = file.stat().st_ino
    replace_settings(str(file), NEW, OLD)
    assert file.read_bytes() == NEW
    assert file.stat().st_ino != inode
    assert os.listdir(file.parent) == [file.name]


def test_another_content_is_not_overwritten(file: Path) -> None:
    with pytest.raises(ConflictError, match="changed meanwhile"):
        replace_settings(str(file), NEW, b"# what was read\n")
    assert file.read_bytes() == OLD
    assert os.listdir(file.parent) == [file.name]


def test_a_change_in_the_last_moment_is_not_overwritten(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_like = settings_write._write_like

    def slowly(real: str, temporary: str, content: bytes) -> None:
        write_like(real, temporary, content)
        file.write_bytes(b"# somebody was quicker\n")

    monkeypatch.setattr(settings_write, "_write_like", slowly)
    with pytest.raises(ConflictError):
        replace_settings(str(file), NEW, OLD)
    assert file.read_bytes() == b"# somebody was quicker\n"
    assert os.listdir(file.parent) == [file.name]


def test_of_many_writers_at_once_one_wins(file: Path) -> None:
    won: list[int] = []
    barrier = threading.Barrier(16)

    def write(number: int) -> None:
        barrier.wait(10)
        try:
            replace_settings(str(file), b"# %d\n" % number, OLD)
        except ConflictError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert file.read_bytes() == b"# %d\n" % won[0]


def test_a_file_that_appeared_is_not_overwritten(file: Path) -> None:
    with pytest.raises(ConflictError):
        replace_settings(str(file), NEW, None)
    assert file.read_bytes() == OLD


def test_a_file_that_vanished_is_not_made_again(file: Path) -> None:
    file.unlink()
    with pytest.raises(ConflictError):
        replace_settings(str(file), NEW, OLD)
    assert os.listdir(file.parent) == []


def test_mode_and_extended_attributes_stay(file: Path) -> None:
    file.chmod(0o640)
    try:
        os.setxattr(file, "user.note", b"mine")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    replace_settings(str(file), NEW, OLD)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.getxattr(file, "user.note") == b"mine"


@pytest.mark.needs_root
def test_the_owner_stays(file: Path) -> None:
    os.chown(file, 4711, 4712)
    replace_settings(str(file), NEW, OLD)
    assert (file.stat().st_uid, file.stat().st_gid) == (4711, 4712)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A file of root's in a folder that group 4712 may write in, as the package lays it out."""
    folder = Path(tempfile.mkdtemp(prefix="netclaw-test-"))
    file = folder / "netclaw.toml"
    file.write_bytes(OLD)
    for path, mode in ((folder, 0o2770), (file, 0o660)):
        os.chown(path, 0, 4712)
        path.chmod(mode)
    yield file
    shutil.rmtree(folder)


@contextlib.contextmanager
def member() -> Iterator[None]:
    """Be user 4711, a member of group 4712, for a while."""
    groups = os.getgroups()
    os.setgroups([4712])
    os.seteuid(4711)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setgroups(groups)


@pytest.mark.needs_root
def test_a_member_of_the_group_becomes_the_owner_of_what_is_equally_the_groups(
    shared: Path,
) -> None:
    with member():
        replace_settings(str(shared), NEW, OLD)
    status = shared.stat()
    assert shared.read_bytes() == NEW
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4711, 4712, 0o660)


@pytest.mark.needs_root
def test_an_owner_who_would_lose_rights_is_not_replaced(shared: Path) -> None:
    shared.chmod(0o640)
    with member(), pytest.raises(ConfigNotWrittenError, match="Operation not permitted"):
        replace_settings(str(shared), NEW, OLD)
    assert (shared.read_bytes(), shared.stat().st_uid) == (OLD, 0)


@pytest.mark.needs_root
def test_a_new_file_belongs_to_the_owner_of_its_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    replace_settings(str(tmp_path / "netclaw.toml"), NEW, None)
    status = (tmp_path / "netclaw.toml").stat()
    assert (status.st_uid, status.st_gid) == (4711, 4712)


@pytest.mark.parametrize(("folder", "mode"), [(0o700, 0o600), (0o750, 0o640), (0o755, 0o644)])
def test_a_new_file_is_as_readable_as_its_folder(tmp_path: Path, folder: int, mode: int) -> None:
    tmp_path.chmod(folder)
    replace_settings(str(tmp_path / "netclaw.toml"), NEW, None)
    assert stat.S_IMODE((tmp_path / "netclaw.toml").stat().st_mode) == mode


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "netclaw" / "netclaw.toml"
    replace_settings(str(path), NEW, None)
    assert path.read_bytes() == NEW


def test_behind_a_symbolic_link_the_target_is_replaced(file: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real = tmp_path / "there" / "real.toml"
    real.write_bytes(OLD)
    file.unlink()
    file.symlink_to("there/real.toml")
    replace_settings(str(file), NEW, OLD)
    assert file.is_symlink()
    assert real.read_bytes() == NEW
    assert not real.is_symlink()
    assert os.listdir(real.parent) == [real.name]


def test_what_a_crash_has_left_is_in_nobodys_way(file: Path) -> None:
    left = file.parent / f".{file.name}.new"
    left.write_bytes(b"half")
    replace_settings(str(file), NEW, OLD)
    assert file.read_bytes() == NEW
    assert not left.exists()


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(
    file: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (file.parent / f".{file.name}.new").symlink_to(victim)
    replace_settings(str(file), NEW, OLD)
    assert (file.read_bytes(), victim.read_bytes()) == (NEW, b"precious")


def test_a_folder_in_its_place_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "netclaw.toml").mkdir()
    with pytest.raises(ConfigNotWrittenError) as caught:
        replace_settings(str(tmp_path / "netclaw.toml"), NEW, None)
    assert "Is a directory" in caught.value.what
    assert caught.value.remedy
